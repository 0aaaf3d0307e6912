//! The TLS listener: what devices and caches below get through it, who is let in, and what a renewal does.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::rig::client::{Connection, End, get, once};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Gate, Reply};
use super::rig::pattern::Pattern;
use super::rig::running_node::{RunningNode, Setup};
use super::rig::tls::{Authority, BothOrigin, CACHE, Caller, TLS12, TLS13, put, shown};

const HOST: &str = "dl.example.com";
const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// A node with a TLS listener whose certificate `authority` signed; `more` are further settings of it.
fn setup(authority: &Authority, more: Value) -> Setup {
    let setup = Setup::new();
    let directory = setup.path("");
    authority.pair(CACHE, 2000..2200).write(&directory);
    put(&directory, "ca.pem", &authority.pem());
    let mut tls = json!({
        "addresses": ["127.0.0.1:0"],
        "certificate": directory.join("server.pem"),
        "key": directory.join("server.key"),
    });
    if let (Some(tls), Value::Object(more)) = (tls.as_object_mut(), more) {
        tls.extend(more);
    }
    setup.set("listen.tls", tls).set("log.level", json!("debug"))
}

/// Waits until so many handshakes have failed for `reason`.
async fn wait_for_failures(node: &RunningNode, reason: &str, count: u32) {
    let label = format!("reason=\"{reason}\"");
    let deadline = Instant::now() + PATIENCE;
    while node.metric("waystation_tls_handshake_failures_total", &label).await < f64::from(count) {
        assert!(Instant::now() < deadline, "{count} handshakes do not fail for {reason}");
    }
}

#[tokio::test]
async fn hits_misses_and_ranges_are_right_under_both_versions() {
    let authority = Authority::new("site");
    for (version, seed) in [(&TLS12, 1), (&TLS13, 2)] {
        let (small, large) = (Pattern::new(seed, 900), Pattern::new(seed + 10, 3 * MIB + 17));
        let origin = FakeOrigin::with("/small", Reply::file(small)).await;
        origin.serve("/large", Reply::file(large));
        let node = setup(&authority, json!({})).origin(HOST, origin.address, json!({})).start();
        let caller = Caller { versions: version, ..Caller::new(&authority) };
        let mut connection = caller.connect(node.tls.unwrap()).await.unwrap();
        assert_eq!(connection.stream().get_ref().1.protocol_version(), Some(version[0].version));
        for round in 0..3 {
            for (path, pattern) in [("/small", small), ("/large", large)] {
                connection.send(&get(&format!("{path}?cacheHostOrigin={HOST}"), &[])).await;
                let answer = connection.answer(false).await;
                assert_eq!((answer.head.status, answer.end), (200, End::Complete), "{}", answer.head.raw);
                assert!(answer.body == pattern.bytes(), "{path}, round {round}");
                assert_eq!(
                    answer.head.field("Cache-Status").unwrap().contains("; hit"),
                    round > 0,
                    "{}",
                    answer.head.raw
                );
            }
            node.wait_for_fills(2).await;
        }
        for (from, to) in [(0, 0), (17, MIB + 4), (2 * MIB - 1, 3 * MIB + 16)] {
            connection.send(&get(&format!("/-/{HOST}/large"), &[&format!("Range: bytes={from}-{to}")])).await;
            let part = connection.answer(false).await;
            assert_eq!((part.head.status, part.end), (206, End::Complete), "{}", part.head.raw);
            assert!(part.body == large.slice(from, to + 1), "{from}-{to}");
        }
        connection.send(&get(&format!("/-/{HOST}/large"), &["Range: bytes=0-9,1000000-2000000"])).await;
        let parts = connection.answer(false).await;
        assert_eq!((parts.head.status, parts.end), (206, End::Complete), "{}", parts.head.raw);
        let second = large.slice(1_000_000, 2_000_001);
        assert!(parts.body.windows(second.len()).any(|window| window == second), "the second part is in it");
        // The plain port gives the same stored bytes.
        assert!(node.get(&format!("/-/{HOST}/large"), &[]).await.body == large.bytes());
        assert_eq!((origin.requests(), origin.body_bytes()), (2, small.len + large.len));
        assert_eq!(node.metric("waystation_tls_handshake_failures_total", "").await, 0.0);
        assert_eq!(node.metric("waystation_tls_certificate_expiry_seconds", "").await, 7_258_118_400.0);
    }
}

#[tokio::test]
async fn what_is_asked_by_https_comes_by_https_and_is_no_answer_to_http() {
    let authority = Authority::new("site");
    let origin = BothOrigin::start(&authority, HOST).await;
    let setup = setup(&authority, json!({})).origin(HOST, origin.address, json!({ "scheme": "as-asked" }));
    let roots = setup.path("ca.pem").to_str().unwrap().to_owned();
    let node = setup.variable("SSL_CERT_FILE", &roots).start();
    let mut secured = Caller::new(&authority).connect(node.tls.unwrap()).await.unwrap();
    let mut plain = Connection::open(node.data).await;
    // The words are the same, to the byte, and the plain ones are kept ready after some rounds.
    let text = get(&format!("/f?cacheHostOrigin={HOST}"), &[]);
    for round in 0..6 {
        plain.send(&text).await;
        let answer = plain.answer(false).await;
        assert!(answer.body == BothOrigin::content("http").as_bytes(), "{round}: {}", answer.head.raw);
        secured.send(&text).await;
        let answer = secured.answer(false).await;
        assert!(answer.body == BothOrigin::content("https").as_bytes(), "{round}: {}", answer.head.raw);
    }
    assert!(node.metric("waystation_ready_answers_total", "").await > 0.0);
    assert_eq!(origin.asked(), ["http /f", "https /f"]);
}

#[tokio::test]
async fn only_clients_with_a_certificate_of_the_authority_and_a_name_get_in() {
    let (authority, stranger) = (Authority::new("site"), Authority::new("stranger"));
    let pattern = Pattern::new(3, 5000);
    let origin = FakeOrigin::with("/f", Reply::file(pattern)).await;
    let setup = setup(&authority, json!({})).origin(HOST, origin.address, json!({}));
    let ca = setup.path("ca.pem");
    let names = json!(["*.plant.example", "exact.example"]);
    let node = setup.set("listen.tls.client_ca", json!(ca)).set("listen.tls.client_names", names).start();
    let (address, text) = (node.tls.unwrap(), get(&format!("/-/{HOST}/f"), &[]));
    for name in ["l3.plant.example", "exact.example"] {
        let pair = authority.pair(name, 2000..2200);
        assert_eq!(Caller::new(&authority).showing(&pair).asks(address, &text).await.unwrap(), 200, "{name}");
    }
    for versions in [&TLS12, &TLS13] {
        let caller = || Caller { versions, ..Caller::new(&authority) };
        assert!(caller().asks(address, &text).await.is_err());
        let foreign = stranger.pair("l3.plant.example", 2000..2200);
        assert!(caller().showing(&foreign).asks(address, &text).await.is_err());
        for name in ["plant.example", "a.exact.example", "*.plant.example"] {
            let unnamed = authority.pair(name, 2000..2200);
            assert!(caller().showing(&unnamed).asks(address, &text).await.is_err(), "{name}");
        }
        let early = authority.pair("l3.plant.example", 2190..2200);
        assert!(caller().showing(&early).asks(address, &text).await.is_err());
        let late = authority.pair("l3.plant.example", 2000..2001);
        assert!(caller().showing(&late).asks(address, &text).await.is_err());
    }
    for (reason, count) in
        [("no-certificate", 2), ("unknown-issuer", 2), ("wrong-name", 6), ("not-yet-valid", 2), ("expired", 2)]
    {
        wait_for_failures(&node, reason, count).await;
    }
    assert_eq!(node.metric("waystation_tls_handshake_failures_total", "").await, 14.0, "{}", node.said());
    assert!(node.says("the clock of this machine is behind"));
    assert_eq!(origin.requests(), 1);
    // The plain port asks for no certificate.
    assert!(node.get(&format!("/-/{HOST}/f"), &[]).await.body == pattern.bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_is_taken_up_and_a_broken_one_is_not_while_a_download_goes_on() {
    let authority = Authority::new("site");
    let pattern = Pattern::new(4, 8 * MIB);
    let gate = Gate::shut();
    let origin = FakeOrigin::with("/f", Reply::file(pattern).hold_at(2 * MIB, &gate)).await;
    let node = setup(&authority, json!({})).origin(HOST, origin.address, json!({})).start();
    let (address, caller, text) = (node.tls.unwrap(), Caller::new(&authority), get(&format!("/-/{HOST}/f"), &[]));
    let mut busy = caller.connect(address).await.unwrap();
    busy.send(&text).await;
    let head = busy.head().await;
    assert_eq!(head.status, 200, "{}", head.raw);
    let first = shown(&busy);

    let renewed = authority.pair(CACHE, 2000..2190);
    assert_ne!(renewed.certificate, first);
    renewed.write(&node.setup().path(""));
    assert!(node.says("the renewed files of the TLS listener are in use"));
    let again = caller.connect(address).await.unwrap();
    assert_eq!(shown(&again), renewed.certificate);

    // The next one does not fit its key.
    put(&node.setup().path(""), "server.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    assert!(node.says("the changed files of the TLS listener are not used"));
    let kept = caller.connect(address).await.unwrap();
    assert_eq!(shown(&kept), renewed.certificate);

    gate.open();
    let checked = busy.checked(&head, pattern, 0).await;
    assert_eq!((checked.len, checked.first_difference, checked.end), (pattern.len, None, End::Complete));
    assert_eq!(node.said().matches("the changed files of the TLS listener are not used").count(), 1);
}

#[tokio::test]
async fn who_does_not_shake_hands_is_told_or_left_and_counted() {
    let authority = Authority::new("site");
    let node = setup(&authority, json!({})).set("limits.header_time", json!("2s")).start();
    let address = node.tls.unwrap();
    let told = once(address, &get("/f", &[])).await;
    assert_eq!((told.head.status, told.head.exact("Connection")), (400, Some("close")), "{}", told.head.raw);
    assert!(String::from_utf8_lossy(&told.body).contains("this port speaks TLS"), "{told:?}");
    assert!(node.says("a client speaks plain HTTP to the TLS port"));
    wait_for_failures(&node, "plain-http", 1).await;

    let mut silent = Connection::open(address).await;
    let mut begun = TcpStream::connect(address).await.unwrap();
    begun.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
    assert!(silent.is_closed().await);
    assert_eq!(tokio::time::timeout(PATIENCE, begun.read(&mut [0; 9])).await.unwrap().unwrap_or(0), 0);
    wait_for_failures(&node, "timeout", 2).await;
    let mut junk = TcpStream::connect(address).await.unwrap();
    junk.write_all(&[0xff; 200]).await.unwrap();
    let _ = tokio::time::timeout(PATIENCE, junk.read_to_end(&mut Vec::new())).await.unwrap();
    wait_for_failures(&node, "protocol", 1).await;
    drop(TcpStream::connect(address).await.unwrap());
    wait_for_failures(&node, "closed", 1).await;
    // A client that does not trust the cache says so.
    assert!(Caller::new(&Authority::new("stranger")).connect(address).await.is_err());
    wait_for_failures(&node, "client-refuses", 1).await;
    // The other way round, on the plain port.
    assert!(Caller::new(&authority).connect(node.data).await.is_err());
    assert_eq!(Caller::new(&authority).asks(address, &get("/-/no.example/f", &[])).await.unwrap(), 403);
}

#[tokio::test]
async fn while_draining_new_connections_get_503_under_tls_and_downloads_end() {
    let authority = Authority::new("site");
    let pattern = Pattern::new(5, 4 * MIB);
    let gate = Gate::shut();
    let origin = FakeOrigin::with("/f", Reply::file(pattern).hold_at(MIB, &gate)).await;
    let setup = setup(&authority, json!({})).origin(HOST, origin.address, json!({})).set("drain_grace", json!("60s"));
    let mut node = setup.start();
    let (address, caller, text) = (node.tls.unwrap(), Caller::new(&authority), get(&format!("/-/{HOST}/f"), &[]));
    let mut busy = caller.connect(address).await.unwrap();
    busy.send(&text).await;
    let head = busy.head().await;
    node.signal(Signal::TERM);
    assert!(node.says("draining"));
    for _ in 0..3 {
        let mut refused = caller.connect(address).await.unwrap();
        refused.send(&text).await;
        let answer = refused.answer(false).await;
        assert_eq!((answer.head.status, answer.head.exact("Connection")), (503, Some("close")), "{}", answer.head.raw);
    }
    gate.open();
    let checked = busy.checked(&head, pattern, 0).await;
    assert_eq!((checked.len, checked.first_difference, checked.end), (pattern.len, None, End::Complete));
    assert_eq!(node.exit().await.code(), Some(0));
}

#[tokio::test]
async fn limits_and_the_access_log_hold_under_tls() {
    let authority = Authority::new("site");
    let pattern = Pattern::new(6, 2000);
    let origin = FakeOrigin::with("/logged-under-tls", Reply::file(pattern)).await;
    let setup = setup(&authority, json!({})).origin(HOST, origin.address, json!({}));
    let node = setup.set("limits.connections_per_client", json!(1)).start();
    let (address, caller, text) =
        (node.tls.unwrap(), Caller::new(&authority), get(&format!("/-/{HOST}/logged-under-tls"), &[]));
    let mut only = caller.connect(address).await.unwrap();
    only.send(&text).await;
    assert_eq!(only.answer(false).await.head.status, 200);
    assert_eq!(caller.asks(address, &text).await.unwrap(), 503, "both ports count together");
    only.send("GET / HTTP/1.1\nHost: a\n\n").await;
    let refused = only.answer(false).await;
    assert_eq!((refused.head.status, only.is_closed().await), (400, true), "{}", refused.head.raw);
    assert!(node.says("/logged-under-tls"));
    assert_eq!(node.metric("waystation_bad_requests_total", "bare-lf").await, 1.0);
}

#[tokio::test]
async fn a_tunnel_opens_under_tls_too() {
    let authority = Authority::new("site");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("localhost:{}", listener.local_addr().unwrap().port());
    let node = setup(&authority, json!({})).set("connect.allow_private", json!([host])).start();
    let mut client = Caller::new(&authority).connect(node.tls.unwrap()).await.unwrap();
    client.send(&format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    let (head, accepted) = tokio::join!(client.head(), listener.accept());
    assert_eq!(head.status, 200, "{}", head.raw);
    let (mut client, mut host) = (client.into_stream().0, accepted.unwrap().0);
    let pattern = Pattern::new(7, 3_000_000);
    let (mut to_host, mut to_client) = (vec![0; 3_000_000], vec![0; 3_000_000]);
    let (mut from_client, mut into_client) = tokio::io::split(&mut client);
    let (mut from_host, mut into_host) = host.split();
    let bytes = pattern.bytes();
    let all = async {
        tokio::join!(
            async { into_client.write_all(&bytes).await.and(into_client.flush().await) },
            async { into_host.write_all(&bytes).await },
            from_host.read_exact(&mut to_host),
            from_client.read_exact(&mut to_client),
        )
    };
    let (a, b, c, d) = tokio::time::timeout(PATIENCE, all).await.unwrap();
    assert!(a.is_ok() && b.is_ok() && c.is_ok() && d.is_ok());
    assert!(to_host == bytes && to_client == bytes);
    into_client.shutdown().await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, from_host.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, b"", "the end of one side is passed on");
}

#[tokio::test]
async fn a_start_with_files_that_cannot_be_used_is_refused() {
    let authority = Authority::new("site");
    let setup = setup(&authority, json!({}));
    for (text, words) in [
        ("", "there is no private key in it"),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", "the key is encrypted"),
    ] {
        put(&setup.path(""), "server.key", text);
        let output = tokio::task::spawn_blocking({
            let mut command = setup.command();
            move || command.output().unwrap()
        });
        let output = tokio::time::timeout(PATIENCE, output).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        let path = setup.path("server.key");
        assert!(said.contains(&format!("listen.tls.key: {}: {words}", path.display())), "{said}");
        assert!(!setup.path("drive1").exists(), "nothing was begun");
    }
}

#[tokio::test]
async fn files_towards_sources_that_cannot_be_used_are_named_with_their_setting() {
    let authority = Authority::new("site");
    for (setting, files) in
        [("ca", json!({ "ca": "/none/a.pem" })), ("key", json!({ "certificate": "/none/b.pem", "key": "/none/a.pem" }))]
    {
        let parents = json!([{ "url": "https://l4.example:8443" }]);
        let setup = setup(&authority, json!({})).set("upstream.parents", parents).set("upstream.tls", files);
        let mut command = setup.command();
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = tokio::time::timeout(PATIENCE, output).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("upstream.tls.{setting}: /none/a.pem: ")), "{said}");
        assert!(said.contains("write the path of a PEM file"), "{said}");
    }
}
