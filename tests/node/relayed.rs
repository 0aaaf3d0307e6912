//! Clients behind proxies that name them by PROXY protocol, and clients that are named by their certificates: who gets in,
//! and whom the cache takes them for.

mod haproxy;
mod named;
mod refused;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::json;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::rig::client::{Answer, Connection, connect_as, get};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::Reply;
use super::rig::pattern::Pattern;
use super::rig::running_node::{RunningNode, Setup};
use super::rig::tls::{Authority, CACHE, Caller, put};

const HOST: &str = "dl.example.com";
const TARGET: &str = "/-/dl.example.com/f";
const PATIENCE: Duration = Duration::from_secs(30);
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header with these bytes behind the signature: version and command, family and transport, the rest.
fn header(version: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    [SIGNATURE, &[version, family], &u16::try_from(rest.len()).unwrap().to_be_bytes(), rest].concat()
}

/// The header of a connection of `client`, with `more` behind the addresses.
fn of(client: &str, more: &[u8]) -> Vec<u8> {
    let rest = |source: &[u8]| [source, &vec![0; source.len()], &[0x30, 0x39, 0, 80], more].concat();
    match client.parse::<IpAddr>().unwrap() {
        IpAddr::V4(client) => header(0x21, 0x11, &rest(&client.octets())),
        IpAddr::V6(client) => header(0x21, 0x21, &rest(&client.octets())),
    }
}

/// The header of a connection of the proxy itself.
fn own() -> Vec<u8> {
    header(0x20, 0, &[])
}

/// A node that expects a header from 127.0.0.1 and 10.9.9.9, has a TLS listener, and what `origin` has.
fn setup(authority: &Authority, origin: &FakeOrigin) -> Setup {
    let setup = Setup::new().origin(HOST, origin.address, json!({}));
    let directory = setup.path("");
    authority.pair(CACHE, 2000..2200).write(&directory);
    put(&directory, "ca.pem", &authority.pem());
    let tls = json!({
        "addresses": ["127.0.0.1:0"],
        "certificate": directory.join("server.pem"),
        "key": directory.join("server.key"),
    });
    let setup = setup.set("listen.tls", tls).set("log.level", json!("debug"));
    setup.set("listen.proxy_protocol", json!("v2")).set("listen.trusted_proxies", json!(["127.0.0.1", "10.9.9.9"]))
}

/// A connection of the proxy that begins with `bytes`.
async fn relayed(address: SocketAddr, bytes: &[u8]) -> Connection {
    let mut connection = Connection::open(address).await;
    connection.try_send(bytes).await.unwrap();
    connection
}

/// Asks for the file on such a connection.
async fn ask(address: SocketAddr, header: &[u8], fields: &[&str]) -> Answer {
    relayed(address, &[header, get(TARGET, fields).as_bytes()].concat()).await.answer(false).await
}

/// Waits until the access log has `count` lines with all of `words`, and no more.
async fn logged(node: &RunningNode, count: usize, words: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = node.said();
        let found = said.lines().filter(|line| words.iter().all(|word| line.contains(word))).count();
        if found >= count {
            assert_eq!(found, count, "{words:?}");
            return;
        }
        assert!(Instant::now() < deadline, "{found} lines and not {count} with {words:?}:\n{said}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until a counter has counted to `count`.
async fn counted(node: &RunningNode, name: &str, reason: &str, count: u32) {
    let label = format!("reason=\"{reason}\"");
    let deadline = Instant::now() + PATIENCE;
    while node.metric(name, &label).await < f64::from(count) {
        assert!(Instant::now() < deadline, "{name} does not count to {count} for {reason}");
    }
    assert_eq!(node.metric(name, &label).await, f64::from(count), "{name} {reason}");
}

const BAD: &str = "waystation_bad_requests_total";
const LIMITED: &str = "waystation_limited_total";

#[tokio::test]
async fn a_trusted_proxy_names_the_client_and_what_its_client_says_of_others_is_not_believed() {
    let (authority, pattern) = (Authority::new("site"), Pattern::new(930, 5000));
    let origin = FakeOrigin::with("/f", Reply::file(pattern)).await;
    let node = setup(&authority, &origin).start();
    let types = [0x03, 0, 4, 1, 2, 3, 4, 0xea, 0, 3, b'v', b'p', b'c'];
    for (header, fields, client) in [
        (of("10.1.2.3", &[]), "X-Forwarded-For: 10.6.6.6", "10.1.2.3"),
        (of("10.1.2.4", &types), "X-Forwarded-For: 10.6.6.6", "10.1.2.4"),
        (of("10.1.2.5", &[0xff; 4096 - 28]), "X-Forwarded-For: 10.6.6.6", "10.1.2.5"),
        (of("fd00::7", &[]), "X-Forwarded-For: 10.6.6.6", "fd00::7"),
        (of("fd00::8", &types), "X-Forwarded-For: 10.6.6.6", "fd00::8"),
        (of("::ffff:10.1.2.6", &[]), "X-Forwarded-For: 10.6.6.6", "10.1.2.6"),
        // A proxy behind the proxy is believed, and only about whom it has seen itself.
        (of("10.9.9.9", &[]), "X-Forwarded-For: 10.6.6.6, 10.1.2.7", "10.1.2.7"),
        // The proxy speaks for itself.
        (own(), "X-Forwarded-For: 10.1.2.8", "10.1.2.8"),
        (header(0x20, 0x11, &[10, 5, 5, 5, 0, 0, 0, 0, 0, 1, 0, 1]), "X-Other: a", "127.0.0.1"),
        // It relays for somebody of whom it tells no address over TCP: nothing that is said then is its own word.
        (header(0x21, 0, &[]), "X-Forwarded-For: 10.6.6.6", "127.0.0.1"),
        (header(0x21, 0x31, &[7; 216]), "X-Forwarded-For: 10.6.6.6", "127.0.0.1"),
        (header(0x21, 0x12, &[7; 12]), "X-Forwarded-For: 10.6.6.6", "127.0.0.1"),
    ] {
        let before = node.said().lines().filter(|line| line.contains(&format!("\"client\":\"{client}\""))).count();
        let answer = ask(node.data, &header, &[fields]).await;
        assert_eq!(answer.head.status, 200, "{}: {}", client, answer.head.raw);
        assert!(answer.body == pattern.bytes(), "{client}");
        logged(&node, before + 1, &[&format!("\"client\":\"{client}\""), "\"status\":200"]).await;
    }
    assert!(!node.said().contains("\"10.6.6.6\"") && !node.said().contains("\"10.5.5.5\""));
    // Others come as before: whose address is nobody's proxy needs no header.
    let mut direct = Connection::open_as(7, node.data).await;
    direct.send(&get(TARGET, &["X-Forwarded-For: 10.6.6.6"])).await;
    assert_eq!(direct.answer(false).await.head.status, 200);
    logged(&node, 1, &["\"client\":\"127.77.0.7\"", "\"status\":200"]).await;
    assert_eq!(node.metric(BAD, "").await, 0.0);
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_listener_for_both_families_knows_its_proxies_by_ipv4() {
    let (authority, pattern) = (Authority::new("site"), Pattern::new(934, 500));
    let origin = FakeOrigin::with("/f", Reply::file(pattern)).await;
    let node = setup(&authority, &origin).set("listen.data", json!(["[::]:0"])).start();
    let address = (IpAddr::from([127, 0, 0, 1]), node.data.port()).into();
    for (header, client) in [(of("10.1.2.3", &[]), "10.1.2.3"), (own(), "127.0.0.1")] {
        assert_eq!(ask(address, &header, &[]).await.head.status, 200);
        logged(&node, 1, &[&format!("\"client\":\"{client}\""), "\"status\":200"]).await;
    }
    assert_eq!(ask(address, b"", &[]).await.head.status, 400);
    logged(&node, 1, &["\"client\":\"127.0.0.1\"", "\"reason\":\"proxy-header-missing\""]).await;
}

#[tokio::test]
async fn what_follows_the_header_is_the_clients_to_the_byte() {
    let (authority, pattern) = (Authority::new("site"), Pattern::new(931, 40_000));
    let origin = FakeOrigin::with("/f", Reply::file(pattern)).await;
    let node = setup(&authority, &origin).start();
    let text = get(TARGET, &[]);
    // All at once, with requests behind requests.
    let mut connection = relayed(node.data, &[&of("10.1.2.3", &[1; 9])[..], text.repeat(3).as_bytes()].concat()).await;
    for _ in 0..3 {
        assert!(connection.answer(false).await.body == pattern.bytes());
    }
    // One connection goes on for the same client.
    for _ in 0..4 {
        connection.send(&text).await;
        assert!(connection.answer(false).await.body == pattern.bytes());
    }
    logged(&node, 7, &["\"client\":\"10.1.2.3\"", "\"status\":200"]).await;
    // Every byte for itself; and in two parts, cut at each place.
    let whole = [&of("fd00::9", &[1; 9])[..], text.as_bytes()].concat();
    let mut slow = relayed(node.data, b"").await;
    for byte in &whole {
        slow.try_send(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(slow.answer(false).await.body == pattern.bytes());
    for cut in [1, 11, 12, 13, 15, 16, 17, 27, 28, 51, 52, 60, 61, 62] {
        let mut connection = relayed(node.data, &whole[..cut]).await;
        // The first part is read for itself: an answer on another connection comes behind it.
        assert_eq!(ask(node.data, &own(), &[]).await.head.status, 200);
        connection.try_send(&whole[cut..]).await.unwrap();
        assert!(connection.answer(false).await.body == pattern.bytes(), "{cut}");
    }
    // A header is no part of a request: a second one is not taken.
    let mut twice = relayed(node.data, &[of("10.1.2.3", &[]), of("10.1.2.4", &[])].concat()).await;
    assert_eq!(twice.answer(false).await.head.status, 400);
    counted(&node, BAD, "proxy-header-unexpected", 1).await;
}

#[tokio::test]
async fn the_header_comes_before_the_handshake() {
    let (authority, pattern) = (Authority::new("site"), Pattern::new(932, 40_000));
    let origin = FakeOrigin::with("/f", Reply::file(pattern)).await;
    let node = setup(&authority, &origin).start();
    let (address, caller, text) = (node.tls.unwrap(), Caller::new(&authority), get(TARGET, &[]));
    for (client, corked) in [("10.1.2.3", false), ("fd00::7", false), ("10.1.2.4", true)] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Held back by the kernel, so that the handshake begins in the segment of the header.
        SockRef::from(&stream).set_tcp_cork(corked).unwrap();
        stream.write_all(&of(client, &[1; 9])).await.unwrap();
        let mut connection = caller.shakes_hands(&caller.connector(), stream).await.unwrap();
        for _ in 0..3 {
            connection.send(&text).await;
            let answer = connection.answer(false).await;
            assert!(answer.head.status == 200 && answer.body == pattern.bytes(), "{}", answer.head.raw);
        }
        logged(&node, 3, &[&format!("\"client\":\"{client}\""), "\"status\":200"]).await;
    }
    // Who is not allowed is told so under TLS.
    for (client, status) in [("8.8.8.8", 403), ("2001:db8::1", 403), ("10.1.2.3", 200)] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&of(client, &[])).await.unwrap();
        assert_eq!(caller.asks_on(stream, &text).await.unwrap(), status, "{client}");
    }
    counted(&node, LIMITED, "clients", 2).await;
    assert_eq!(node.metric("waystation_tls_handshake_failures_total", "").await, 0.0);
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn clients_behind_one_proxy_are_told_apart() {
    let (authority, pattern) = (Authority::new("site"), Pattern::new(933, 5000));
    let origin = FakeOrigin::with("/f", Reply::file(pattern)).await;
    let setup = setup(&authority, &origin).set("listen.clients", json!(["10.0.0.0/8", "127.0.0.1"]));
    let node = setup.set("limits.connections_per_client", json!(1)).start();
    let text = get(TARGET, &[]);
    let mut kept = relayed(node.data, &[&of("10.1.2.3", &[])[..], text.as_bytes()].concat()).await;
    assert_eq!(kept.answer(false).await.head.status, 200);
    assert_eq!(ask(node.data, &of("10.1.2.3", &[]), &[]).await.head.status, 503, "its second connection");
    counted(&node, LIMITED, "connections_per_client", 1).await;
    let mut other = relayed(node.data, &[&of("10.1.2.4", &[])[..], text.as_bytes()].concat()).await;
    assert_eq!(other.answer(false).await.head.status, 200, "another client has its own");
    // The proxy itself has as many as it wants, and so has the proxy behind it.
    let mut all = Vec::new();
    for header in [own(), own(), own(), of("10.9.9.9", &[]), of("10.9.9.9", &[])] {
        let mut open = relayed(node.data, &[&header[..], text.as_bytes()].concat()).await;
        assert_eq!(open.answer(false).await.head.status, 200);
        all.push(open);
    }
    // A place is given back.
    drop(kept);
    let deadline = Instant::now() + PATIENCE;
    while ask(node.data, &of("10.1.2.3", &[]), &[]).await.head.status != 200 {
        assert!(Instant::now() < deadline, "the place is not given back");
    }
    // The named client is judged, not the proxy that carries its bytes.
    let refused = ask(node.data, &of("192.168.1.1", &[]), &[]).await;
    assert_eq!((refused.head.status, refused.head.exact("Connection")), (403, Some("close")), "{}", refused.head.raw);
    logged(&node, 1, &["\"client\":\"192.168.1.1\"", "\"status\":403", "\"reason\":\"clients\""]).await;
    counted(&node, LIMITED, "clients", 1).await;
}

#[tokio::test]
async fn what_a_client_was_given_is_remembered_of_the_client_and_not_of_the_proxy() {
    let authority = Authority::new("site");
    let [old, new] = [935, 936].map(|seed| Pattern::new(seed, 300_000));
    let reply = |version| Reply::file(version).with("Cache-Control", "max-age=0");
    let origin = FakeOrigin::with("/f", reply(old)).await;
    let node = setup(&authority, &origin).start();
    let agent = "User-Agent: Microsoft-Delivery-Optimization-Lite/10.0.0.1";
    for (client, version, fills) in [("10.1.2.3", old, 1), ("10.1.2.4", new, 2)] {
        origin.serve("/f", reply(version));
        let answer = ask(node.data, &of(client, &[]), &[agent]).await;
        assert!(answer.body == version.bytes(), "{client}: {}", answer.head.raw);
        node.wait_for_fills(fills).await;
    }
    // Both lengths are the same: only who asks tells which version is to be gone on with.
    for (client, version) in [("10.1.2.4", new), ("10.1.2.3", old), ("10.1.2.4", new)] {
        let rest = ask(node.data, &of(client, &[]), &[agent, "Range: bytes=1-299999"]).await;
        assert_eq!(rest.head.status, 206, "{client}: {}", rest.head.raw);
        assert!(rest.body == version.slice(1, version.len), "{client}: bytes of another version");
    }
}
