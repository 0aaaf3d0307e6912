//! Tunnels: what CONNECT opens, what it refuses, and how a tunnel ends.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::json;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::rig::client::{Answer, Connection, Head, get};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::Reply;
use super::rig::pattern::Pattern;
use super::rig::running_node::{RunningNode, Setup};
use super::rig::slow_client::{self, Pace};

const HOST: &str = "dl.example.com";
/// No step of a story takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

async fn in_time<T>(step: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, step).await.unwrap()
}

fn connect(authority: &str) -> String {
    format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n")
}

/// A listener that tunnels may lead to, and a node that lets them.
async fn host() -> (TcpListener, String, Setup) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = format!("localhost:{}", listener.local_addr().unwrap().port());
    let setup = Setup::new().set("connect.allow_private", json!([authority]));
    (listener, authority, setup)
}

/// An open tunnel: the client's end, the host's end, and the answer that opened it.
async fn open(node: &RunningNode, listener: &TcpListener, authority: &str) -> (TcpStream, TcpStream, Head) {
    open_over(Connection::open(node.data).await, listener, authority).await
}

async fn open_over(
    mut connection: Connection,
    listener: &TcpListener,
    authority: &str,
) -> (TcpStream, TcpStream, Head) {
    connection.send(&connect(authority)).await;
    let (head, accepted) = in_time(async { tokio::join!(connection.head(), listener.accept()) }).await;
    assert_eq!(head.status, 200, "{}", head.raw);
    let (client, more) = connection.into_stream();
    assert!(more.is_empty(), "{more:?}");
    (client, accepted.unwrap().0, head)
}

async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    in_time(stream.read_to_end(&mut all)).await.unwrap();
    all
}

/// Whether the connection ends by a reset, whatever came before.
async fn is_reset(stream: &mut TcpStream) -> bool {
    let mut scratch = vec![0; 64 * 1024];
    loop {
        match in_time(stream.read(&mut scratch)).await {
            Ok(0) => return false,
            Ok(_) => {}
            Err(_) => return true,
        }
    }
}

async fn wait_for_tunnels(node: &RunningNode, count: f64) {
    in_time(async { while node.metric("waystation_tunnels", "").await != count {} }).await;
}

/// The access line of the first tunnel that has ended.
fn access_line(node: &RunningNode) -> serde_json::Value {
    assert!(node.says("\"form\":\"connect\""));
    let said = node.said();
    serde_json::from_str(said.lines().find(|line| line.contains("\"form\":\"connect\"")).unwrap()).unwrap()
}

fn certified() -> (TlsAcceptor, TlsConnector) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let server = server.unwrap().with_no_client_auth();
    let server = server.with_single_cert(vec![certified.cert.der().clone()], key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_passes_through_both_ways_and_is_counted() {
    let (up, down) = (Pattern::new(201, 700_000), Pattern::new(202, 3_000_000));
    let (listener, authority, setup) = host().await;
    let node = setup.start();
    let (client, host, head) = open(&node, &listener, &authority).await;
    for name in ["Content-Length", "Transfer-Encoding", "Connection"] {
        assert_eq!(head.field(name), None, "{}", head.raw);
    }
    wait_for_tunnels(&node, 1.0).await;
    assert_eq!(node.metric("waystation_requests_in_flight", "").await, 1.0);

    let (acceptor, connector) = certified();
    let server = tokio::spawn(async move {
        let mut host = acceptor.accept(host).await.unwrap();
        let mut received = vec![0; up.len as usize];
        host.read_exact(&mut received).await.unwrap();
        assert_eq!(up.first_difference(0, &received), None);
        host.write_all(&down.bytes()).await.unwrap();
        host.shutdown().await.unwrap();
        assert_eq!(host.read(&mut received).await.unwrap(), 0);
    });
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = in_time(connector.connect(name, client)).await.unwrap();
    client.write_all(&up.bytes()).await.unwrap();
    let mut received = Vec::new();
    in_time(client.read_to_end(&mut received)).await.unwrap();
    assert_eq!((received.len() as u64, down.first_difference(0, &received)), (down.len, None));
    client.shutdown().await.unwrap();
    in_time(server).await.unwrap();
    wait_for_tunnels(&node, 0.0).await;

    let line = access_line(&node);
    assert_eq!((&line["host"], &line["method"], &line["status"]), (&json!(authority), &json!("CONNECT"), &json!(200)));
    let (bytes, sent) = (line["bytes"].as_f64().unwrap(), line["received"].as_f64().unwrap());
    assert!(bytes > down.len as f64 && sent > up.len as f64 && line.get("cut").is_none(), "{line}");
    assert_eq!(node.metric("waystation_tunnel_bytes_total", "to-client").await, bytes);
    assert_eq!(node.metric("waystation_tunnel_bytes_total", "to-host").await, sent);
    assert_eq!(node.metric("waystation_requests_in_flight", "").await, 0.0);
    let summary = node.summary().await;
    assert_eq!((&summary["hitBytes"], &summary["missBytes"]), (&json!(0), &json!(0)), "{summary}");
}

#[tokio::test]
async fn bytes_right_behind_the_request_are_not_lost() {
    // More than the wire holds back while the host is being connected to.
    let early = Pattern::new(203, 300_000);
    let (listener, authority, setup) = host().await;
    let node = setup.start();
    for version in ["1.1", "1.0"] {
        let (mut client, mut hopeful) = (Connection::open(node.data).await, connect(&authority).into_bytes());
        let line = format!("CONNECT {authority} HTTP/{version}\r\nHost: {authority}\r\n\r\n");
        hopeful.splice(.., line.into_bytes());
        hopeful.extend(early.bytes());
        let host = async {
            let mut host = listener.accept().await.unwrap().0;
            let mut received = vec![0; early.len as usize];
            host.read_exact(&mut received).await.unwrap();
            host.write_all(b"thanks").await.unwrap();
            received
        };
        let client = async {
            client.try_send(&hopeful).await.unwrap();
            assert_eq!(client.head().await.status, 200);
            let (mut stream, mut got) = client.into_stream();
            stream.read_to_end(&mut got).await.unwrap();
            got
        };
        let (received, got) = in_time(async { tokio::join!(host, client) }).await;
        assert_eq!((early.first_difference(0, &received), got.as_slice()), (None, b"thanks".as_slice()), "{version}");
    }
}

#[tokio::test]
async fn what_is_not_listed_or_no_target_is_refused_and_the_connection_closed() {
    let origin = FakeOrigin::with("/f.bin", Reply::file(Pattern::new(204, 10))).await;
    let setup = Setup::new().origin(HOST, origin.address, json!({}));
    let node = setup.set("connect.allow", json!(["listed.example:443", "*.below.example:443"])).start();
    let smuggled = get(&format!("/-/{HOST}/f.bin"), &[]);
    for (authority, status) in [
        ("other.example:443", 405),
        ("listed.example:22", 405),
        ("below.example:443", 405),
        ("127.0.0.1:443", 405),
        ("[::1]:443", 405),
        ("listed.example", 400),
        ("listed.example:0", 400),
        ("listed.example:99999", 400),
        ("user@listed.example:443", 400),
        ("127.1:443", 400),
        ("/f.bin", 400),
        ("http://listed.example:443/", 400),
        ("*", 400),
        ("listed.example:443/x", 400),
        (":443", 400),
    ] {
        let mut connection = Connection::open(node.data).await;
        let text = format!("CONNECT {authority} HTTP/1.1\r\nHost: cache\r\n\r\n{smuggled}");
        connection.send(&text).await;
        let answer = connection.answer(false).await;
        assert_eq!((answer.head.status, answer.head.field("Connection")), (status, Some("close")), "{authority}");
        assert!(!answer.body.is_empty() && connection.is_closed().await, "{authority}: {}", answer.head.raw);
    }
    let content = "CONNECT listed.example:443 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(node.ask(content).await.head.status, 400);
    assert_eq!(origin.requests(), 0);
}

async fn refused(node: &RunningNode, authority: &str) -> Answer {
    let answer = node.ask(&connect(authority)).await;
    assert_eq!(answer.head.field("Connection"), Some("close"), "{}", answer.head.raw);
    answer
}

#[tokio::test]
async fn the_guard_holds_for_tunnels_and_own_listeners_are_never_reached() {
    let (listener, authority, setup) = host().await;
    let port = listener.local_addr().unwrap().port();
    let node = setup.clone().set("connect.allow_private", json!([])).set("connect.allow", json!([authority])).start();
    let answer = refused(&node, &authority).await;
    let said = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.head.status, 502, "{}", answer.head.raw);
    assert!(said.contains("localhost") && said.contains("refused"), "{said}");
    assert!(answer.head.field("Cache-Status").is_some_and(|status| status.contains("address-refused")));
    assert_eq!(refused(&node, &format!("127.0.0.1:{port}")).await.head.status, 405, "only the name is listed");

    let (data, admin) = (node.data.port(), node.admin.port());
    let own = [format!("localhost:{data}"), format!("127.0.0.1:{data}"), format!("127.0.0.1:{admin}")];
    let setup = node.setup_with_these_ports().set("connect.allow_private", json!(own));
    node.stop().await;
    let node = setup.start();
    for authority in &own {
        let answer = refused(&node, authority).await;
        assert_eq!(answer.head.status, 502, "{authority}: {}", answer.head.raw);
        assert!(answer.head.field("Cache-Status").is_some_and(|status| status.contains("address-refused")));
    }
}

#[tokio::test]
async fn a_host_that_cannot_be_reached_is_a_5xx_with_its_reason() {
    let (listener, authority, setup) = host().await;
    let address = listener.local_addr().unwrap();
    drop(listener);
    let node = setup.clone().start();
    let answer = refused(&node, &authority).await;
    assert_eq!(answer.head.status, 502, "{}", answer.head.raw);
    assert!(String::from_utf8_lossy(&answer.body).contains(&authority), "{answer:?}");
    node.stop().await;

    // A listener whose queue is full: further connections are not answered.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let _full = socket.listen(1).unwrap();
    let mut queue = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        queue.push(stream);
    }
    let node = setup.clone().set("upstream.timeouts.connect", json!("200ms")).start();
    assert_eq!(refused(&node, &authority).await.head.status, 504);
    node.stop().await;

    let node = setup.set("upstream.direct", json!(false)).start();
    assert_eq!(refused(&node, &authority).await.head.status, 503);
}

#[tokio::test]
async fn a_request_that_was_here_before_opens_no_tunnel() {
    let (_listener, authority, setup) = host().await;
    let node = setup.set("pseudonym", json!("site-7")).start();
    for field in ["Via: 1.1 site-7", "CDN-Loop: site-7"] {
        let text = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{field}\r\n\r\n");
        assert_eq!(node.ask(&text).await.head.status, 508, "{field}");
    }
}

#[tokio::test]
async fn each_side_may_end_first_while_the_other_goes_on() {
    let pattern = Pattern::new(205, 400_000);
    let (listener, authority, setup) = host().await;
    let node = setup.start();
    for client_ends_first in [true, false] {
        let (client, host, _) = open(&node, &listener, &authority).await;
        let (mut first, mut second) = if client_ends_first { (client, host) } else { (host, client) };
        first.write_all(b"that is all").await.unwrap();
        first.shutdown().await.unwrap();
        assert_eq!(read_all(&mut second).await, b"that is all");
        let sent = async {
            second.write_all(&pattern.bytes()).await.unwrap();
            second.shutdown().await.unwrap();
        };
        let ((), received) = tokio::join!(sent, read_all(&mut first));
        assert_eq!((received.len() as u64, pattern.first_difference(0, &received)), (pattern.len, None));
        wait_for_tunnels(&node, 0.0).await;
    }
    assert!(access_line(&node).get("cut").is_none());
}

#[tokio::test]
async fn a_side_that_breaks_off_resets_the_other() {
    let (listener, authority, setup) = host().await;
    let node = setup.start();
    for client_breaks in [true, false] {
        let (client, host, _) = open(&node, &listener, &authority).await;
        let (breaks, mut other) = if client_breaks { (client, host) } else { (host, client) };
        SockRef::from(&breaks).set_linger(Some(Duration::ZERO)).unwrap();
        drop(breaks);
        assert!(is_reset(&mut other).await);
        wait_for_tunnels(&node, 0.0).await;
    }
    assert!(access_line(&node)["cut"].as_str().is_some_and(|cut| cut.starts_with("client: ")), "{}", node.said());

    // A client that closes while bytes are on their way to it.
    let (client, mut host, _) = open(&node, &listener, &authority).await;
    drop(client);
    let endless = async { while host.write_all(&[0; 64 * 1024]).await.is_ok() {} };
    in_time(endless).await;
    wait_for_tunnels(&node, 0.0).await;
}

#[tokio::test]
async fn a_slow_reader_gets_everything_and_a_silent_tunnel_is_closed() {
    let pattern = Pattern::new(206, 250_000);
    let (listener, authority, setup) = host().await;
    let node = setup.set("connect.idle_time", json!("1s")).start();
    // What the kernels on the way hold for it is enough for more than the idle time.
    let pace = Pace { window: 16 * 1024, bytes_per_second: 40_000, sip: 4096 };
    let connection = slow_client::connect(node.data, pace).await;
    let (mut client, mut host, _) = open_over(connection, &listener, &authority).await;
    let sent = async {
        host.write_all(&pattern.bytes()).await.unwrap();
        host.shutdown().await.unwrap();
    };
    let sipped = async {
        let (mut got, mut piece) = (Vec::new(), vec![0; pace.sip]);
        let start = tokio::time::Instant::now();
        loop {
            let count = client.read(&mut piece).await.unwrap();
            got.extend_from_slice(&piece[..count]);
            if count == 0 {
                break;
            }
            let due = Duration::from_secs_f64(got.len() as f64 / pace.bytes_per_second as f64);
            tokio::time::sleep_until(start + due).await;
        }
        client.shutdown().await.unwrap();
        got
    };
    let ((), got) = in_time(async { tokio::join!(sent, sipped) }).await;
    assert_eq!((got.len() as u64, pattern.first_difference(0, &got)), (pattern.len, None));
    wait_for_tunnels(&node, 0.0).await;

    let (mut client, mut host, _) = open(&node, &listener, &authority).await;
    client.write_all(b"hello").await.unwrap();
    in_time(host.read_exact(&mut [0; 5])).await.unwrap();
    assert!(is_reset(&mut client).await && is_reset(&mut host).await);
    wait_for_tunnels(&node, 0.0).await;
    assert!(node.says("no byte for 1s"));
}

#[tokio::test]
async fn a_drain_lets_a_busy_tunnel_end_and_ends_an_idle_one() {
    let (listener, authority, setup) = host().await;
    let mut node = setup.set("drain_grace", json!("25s")).start();
    let (mut busy, mut host, _) = open(&node, &listener, &authority).await;
    let (mut idle, mut idle_host, _) = open(&node, &listener, &authority).await;
    node.signal(Signal::TERM);
    assert!(node.says("draining"));
    let late = node.ask(&connect(&authority)).await;
    assert_eq!((late.head.status, late.head.field("Connection")), (503, Some("close")), "{}", late.head.raw);
    let idle_ended = tokio::spawn(async move { is_reset(&mut idle).await && is_reset(&mut idle_host).await });
    // Goes on until the idle one has ended, and then some.
    let mut rounds = 0;
    while !idle_ended.is_finished() || rounds < 10 {
        busy.write_all(b"ping").await.unwrap();
        let mut word = [0; 4];
        in_time(host.read_exact(&mut word)).await.unwrap();
        host.write_all(b"pong").await.unwrap();
        in_time(busy.read_exact(&mut word)).await.unwrap();
        assert_eq!(&word, b"pong");
        rounds += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(idle_ended.await.unwrap());
    drop((busy, host));
    assert_eq!(node.exit().await.code(), Some(0));
    assert!(node.said().contains("\"cut\":\"draining\""), "{}", node.said());
}

#[tokio::test]
async fn a_tunnel_is_a_request_in_flight_and_a_connection() {
    let origin = FakeOrigin::with("/f.bin", Reply::file(Pattern::new(207, 10))).await;
    let (listener, authority, setup) = host().await;
    let setup = setup.origin(HOST, origin.address, json!({}));
    let node = setup.clone().set("limits.requests", json!(1)).start();
    let (client, host, _) = open(&node, &listener, &authority).await;
    let path = format!("/-/{HOST}/f.bin");
    assert_eq!(node.get(&path, &[]).await.head.status, 503);
    drop((client, host));
    in_time(async { while node.metric("waystation_requests_in_flight", "").await > 0.0 {} }).await;
    assert_eq!(node.get(&path, &[]).await.head.status, 200);
    node.stop().await;

    let node = setup.set("limits.connections_per_client", json!(1)).start();
    let (_client, _host, _) = open(&node, &listener, &authority).await;
    assert_eq!(node.get(&path, &[]).await.head.status, 503);
}

#[tokio::test]
async fn who_may_not_use_the_port_opens_no_tunnel() {
    let (listener, authority, setup) = host().await;
    let node = setup.set("listen.clients", json!(["10.0.0.0/8"])).start();
    assert_eq!(node.ask(&connect(&authority)).await.head.status, 403);
    listener.into_std().unwrap().accept().expect_err("the host was connected to");
}
