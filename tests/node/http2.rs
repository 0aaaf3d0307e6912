//! HTTP/2 on the listeners that offer it: real clients, what requests come to, what an answer that is taken back or not
//! taken costs, and the end of connections. What hostile clients send is in `floods`.

mod floods;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Body, Gate, Reply};
use super::rig::pattern::Pattern;
use super::rig::program;
use super::rig::running_node::{RunningNode, Setup};
use super::rig::tls::{Authority, CACHE, Caller, put};

const HOST: &str = "dl.example.com";
const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// A node with both TLS listeners whose certificate `authority` signed.
fn setup(authority: &Authority) -> Setup {
    let setup = Setup::new();
    let directory = setup.path("");
    authority.pair(CACHE, 2000..2200).write(&directory);
    put(&directory, "ca.pem", &authority.pem());
    let tls = json!({
        "addresses": ["127.0.0.1:0"],
        "http2_addresses": ["127.0.0.1:0"],
        "certificate": directory.join("server.pem"),
        "key": directory.join("server.key"),
    });
    setup.set("listen.tls", tls).set("log.level", json!("debug"))
}

/// Waits until a metric has this value.
async fn wait_for_metric(node: &RunningNode, name: &str, label: &str, value: f64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = node.metric(name, label).await;
        if (seen - value).abs() < f64::EPSILON {
            return;
        }
        assert!(Instant::now() < deadline, "{name} {label} is {seen}, not {value}");
    }
}

/// A client of the library, and its connection's end.
async fn client(
    node: &RunningNode,
    authority: &Authority,
) -> (SendRequest<Full<Bytes>>, tokio::task::JoinHandle<hyper::Result<()>>) {
    let stream = Caller::new(authority).connect_http2(node.http2.unwrap()).await;
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn request(target: &str) -> Request<Full<Bytes>> {
    Request::get(format!("https://{CACHE}{target}")).body(Full::default()).unwrap()
}

/// The whole answer.
async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, hyper::Error> {
    let all = async {
        sender.ready().await?;
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap()
}

async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// curl that trusts the site, and names the cache as its certificate does.
async fn curl(node: &RunningNode, port: u16, arguments: &[&str]) -> Option<Output> {
    let mut command = Command::new(program("curl")?);
    command.args(["-sS", "--max-time", "60", "--cacert"]).arg(node.setup().path("ca.pem"));
    command.args(["--resolve", &format!("{CACHE}:{port}:127.0.0.1")]).args(arguments);
    Some(run(command).await)
}

#[tokio::test]
async fn real_curl_gets_its_files_by_http2_where_it_is_offered() {
    let authority = Authority::new("site");
    let large = Pattern::new(1, 20 * MIB + 17);
    let origin = FakeOrigin::with("/large", Reply::file(large)).await;
    let node = setup(&authority).origin(HOST, origin.address, json!({})).start();
    let (http2, http11) = (node.http2.unwrap().port(), node.tls.unwrap().port());
    let url = |port: u16, path: &str| format!("https://{CACHE}:{port}{path}?cacheHostOrigin={HOST}");
    let version = ["-o", "/dev/null", "-w", "%{http_version} %{response_code}"];
    for (port, more, said) in [
        (http2, "--http2", "2 200"),
        (http2, "--http1.1", "1.1 200"),
        (http2, "--no-alpn", "1.1 200"),
        // Agents ask for HTTP/2 wherever they can.
        (http11, "--http2", "1.1 200"),
    ] {
        let Some(output) = curl(&node, port, &[&version[..], &[more, &url(port, "/large")]].concat()).await else {
            return;
        };
        assert_eq!(String::from_utf8_lossy(&output.stdout), said, "{more}: {output:?}");
    }
    let whole = curl(&node, http2, &["--http2", &url(http2, "/large")]).await.unwrap();
    assert!(whole.stdout == large.bytes(), "{}", String::from_utf8_lossy(&whole.stderr));
    let part = curl(&node, http2, &["--http2", "-r", "1000000-2999999", &url(http2, "/large")]).await.unwrap();
    assert!(part.stdout == large.slice(1_000_000, 3_000_000));
    let head = curl(&node, http2, &["--http2", "-I", &url(http2, "/large")]).await.unwrap();
    let head = String::from_utf8(head.stdout).unwrap();
    assert!(head.starts_with("HTTP/2 200") && head.contains(&format!("content-length: {}", large.len)), "{head}");
    assert_eq!(origin.body_bytes(), large.len);
    let absent = curl(&node, http2, &["--http2", "-i", &url(http2, "/absent")]).await.unwrap();
    assert!(absent.stdout.starts_with(b"HTTP/2 404"), "{absent:?}");
    // Over one connection, at once.
    let paths: Vec<_> = (0..20).map(|_| url(http2, "/large")).collect();
    let mut arguments = vec!["--http2", "-Z", "--parallel-max", "20"];
    for path in &paths {
        arguments.extend(["-o", "/dev/null", "-w", "%{response_code} %{size_download} ", path]);
    }
    let many = curl(&node, http2, &arguments).await.unwrap();
    let expected = format!("200 {} ", large.len).repeat(20);
    assert_eq!(String::from_utf8_lossy(&many.stdout), expected);
    assert_eq!(origin.received().iter().filter(|it| it.target.starts_with("/large")).count(), 1);
    wait_for_metric(&node, "waystation_http2_connections", "", 0.0).await;
}

#[tokio::test]
async fn real_h2load_finds_no_fault() {
    let authority = Authority::new("site");
    let origin = FakeOrigin::with("/small", Reply::file(Pattern::new(1, 1024))).await;
    origin.serve("/medium", Reply::file(Pattern::new(2, 300_000)));
    let node = setup(&authority).origin(HOST, origin.address, json!({})).start();
    let Some(h2load) = program("h2load") else { return };
    let uris: Vec<_> =
        ["small", "medium"].iter().map(|path| format!("https://{}/-/{HOST}/{path}", node.http2.unwrap())).collect();
    let mut command = Command::new(h2load);
    command.args(["-n", "4000", "-c", "8", "-m", "50"]).args(&uris);
    let output = run(command).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("4000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
    assert!(said.contains("status codes: 4000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{said}");
    assert!(said.contains("Application protocol: h2"), "{said}");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn a_hundred_requests_at_once_each_get_their_own_bytes() {
    let authority = Authority::new("site");
    let origin = FakeOrigin::start().await;
    let patterns: Vec<_> = (0..100).map(|n| Pattern::new(n, 40_000 + n * 7919)).collect();
    for (n, pattern) in patterns.iter().enumerate() {
        origin.serve(&format!("/{n}"), Reply::file(*pattern));
    }
    let node = setup(&authority).origin(HOST, origin.address, json!({})).start();
    let (sender, _connection) = client(&node, &authority).await;
    for round in 0..2 {
        let asked = patterns.iter().enumerate().map(|(n, pattern)| {
            let mut sender = sender.clone();
            async move {
                let answer = ask(&mut sender, request(&format!("/{n}?cacheHostOrigin={HOST}"))).await.unwrap();
                assert_eq!(answer.status(), 200, "{n} {:?}", answer.headers());
                assert!(answer.body() == &pattern.bytes(), "{n}, round {round}");
                assert_eq!(answer.headers()["cache-status"].to_str().unwrap().contains("; hit"), round > 0);
                assert!(!answer.headers().contains_key("connection"));
            }
        });
        futures_util::future::join_all(asked).await;
        node.wait_for_fills(100).await;
    }
    assert_eq!(origin.requests(), 100);
    // Each is in the log like any other.
    let logged = || node.said().lines().filter(|line| line.contains("\"form\":\"connected-cache\"")).count();
    let deadline = Instant::now() + PATIENCE;
    while logged() < 200 && Instant::now() < deadline {
        tokio::task::yield_now().await;
    }
    assert_eq!(logged(), 200);
}

/// Which answer a request with these pseudo-header fields and fields gets.
async fn verdict(sender: &mut SendRequest<Full<Bytes>>, method: &str, uri: &str, fields: &[(&str, &str)]) -> u16 {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    ask(sender, request.body(Full::default()).unwrap()).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_request_means_what_it_means_in_http_1_or_is_refused() {
    let authority = Authority::new("site");
    let origin = FakeOrigin::with("/file", Reply::file(Pattern::new(1, 5000))).await;
    origin.script("/form", |received| {
        let cookie = received.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("cookie"));
        let cookie = cookie.map(|(_, value)| value.as_str()).unwrap_or_default();
        let text = [received.method.as_bytes(), b" ", cookie.as_bytes(), b" ", &received.body].concat();
        Reply { body: Body::Bytes(text.into()), ..Reply::status(200, "") }.with("Cache-Control", "no-store")
    });
    let rule = json!({ "methods": ["GET", "HEAD", "POST"] });
    let node = setup(&authority).origin(HOST, origin.address, rule).start();
    let (mut sender, _connection) = client(&node, &authority).await;
    let own = format!("https://{CACHE}/file?cacheHostOrigin={HOST}");
    let at_host = format!("https://{HOST}/file");
    for (method, uri, fields, status) in [
        ("GET", &*own, &[][..], 200),
        ("GET", &*at_host, &[], 200),
        ("GET", &*at_host, &[("host", HOST)], 200),
        ("GET", &*at_host, &[("host", "other.example.com")], 400),
        ("GET", &*own, &[("host", ""), ("x", "y")], 400),
        ("GET", &format!("http://{HOST}/file"), &[], 200),
        ("GET", &format!("ftp://{HOST}/file"), &[], 400),
        ("GET", &format!("https://{CACHE}/fi\"le?cacheHostOrigin={HOST}"), &[], 400),
        ("GET", "https://unknown.example.com/file", &[], 403),
        ("GET", &format!("https://{CACHE}/file?cacheHostOrigin=127.0.0.1"), &[], 403),
        ("DELETE", &*own, &[], 405),
        ("HEAD", &*own, &[], 200),
        ("HEAD", &*at_host, &[("host", "b")], 400),
    ] {
        assert_eq!(verdict(&mut sender, method, uri, fields).await, status, "{method} {uri} {fields:?}");
    }
    let many: Vec<_> = (0..101).map(|n| (format!("x-{n}"), "y")).collect();
    let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(verdict(&mut sender, "GET", &own, &many).await, 431);
    let connect = Request::connect("a.example.com:443").body(Full::default()).unwrap();
    assert_eq!(ask(&mut sender, connect).await.unwrap().status(), 501);
    let body = Bytes::from(Pattern::new(9, 300_000).bytes());
    let post = Request::post(format!("https://{HOST}/form"))
        .header("cookie", "a=b")
        .header("cookie", "c=d")
        .header("content-length", body.len())
        .body(Full::new(body.clone()));
    let answer = ask(&mut sender, post.unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.body() == &[b"POST a=b; c=d ", &body[..]].concat(), "the origin got every byte");
    for (reason, count) in
        [("host-differs", 3.0), ("scheme", 1.0), ("target", 1.0), ("too-many-fields", 1.0), ("tunnel-version", 1.0)]
    {
        let label = format!("reason=\"{reason}\"");
        assert_eq!(node.metric("waystation_bad_requests_total", &label).await, count, "{reason}");
    }
}

#[tokio::test]
async fn an_answer_that_is_taken_back_costs_the_others_nothing() {
    let authority = Authority::new("site");
    let (slow, other) = (Pattern::new(1, 30 * MIB), Pattern::new(2, 100_000));
    let gate = Gate::shut();
    let origin = FakeOrigin::with("/slow", Reply::file(slow).hold_at(MIB, &gate)).await;
    origin.serve("/other", Reply::file(other));
    let node = setup(&authority).origin(HOST, origin.address, json!({})).start();
    let (mut sender, _connection) = client(&node, &authority).await;
    sender.ready().await.unwrap();
    let (head, mut body) = sender.send_request(request(&format!("/-/{HOST}/slow"))).await.unwrap().into_parts();
    assert_eq!(head.status, 200);
    body.frame().await.unwrap().unwrap();
    drop(body);
    wait_for_metric(&node, "waystation_requests_in_flight", "", 0.0).await;
    let answer = ask(&mut sender, request(&format!("/-/{HOST}/other"))).await.unwrap();
    assert!(answer.body() == &other.bytes());
    gate.open();
    let answer = ask(&mut sender, request(&format!("/-/{HOST}/slow"))).await.unwrap();
    assert!(answer.body() == &slow.bytes());
    let said = node.said();
    let cut = said.lines().find(|line| line.contains("/slow") && line.contains("\"cut\":")).unwrap();
    let cut: Value = serde_json::from_str(cut).unwrap();
    assert_eq!(
        (cut["cut"].as_str(), cut["status"].as_u64()),
        (Some("the client has taken the request back, or left"), Some(200))
    );
}

#[tokio::test]
async fn a_drain_lets_answers_end_and_says_goodbye() {
    let authority = Authority::new("site");
    let file = Pattern::new(1, 4 * MIB);
    let gate = Gate::shut();
    let origin = FakeOrigin::with("/file", Reply::file(file).hold_at(MIB, &gate)).await;
    let mut node = setup(&authority).origin(HOST, origin.address, json!({})).start();
    let (mut sender, connection) = client(&node, &authority).await;
    let (mut idle, idle_connection) = client(&node, &authority).await;
    idle.ready().await.unwrap();
    sender.ready().await.unwrap();
    let (head, mut body) = sender.send_request(request(&format!("/-/{HOST}/file"))).await.unwrap().into_parts();
    assert_eq!(head.status, 200);
    let mut got = body.frame().await.unwrap().unwrap().into_data().unwrap().to_vec();
    node.signal(Signal::TERM);
    let ended = tokio::time::timeout(PATIENCE, idle_connection).await.unwrap().unwrap();
    assert!(ended.is_ok(), "{ended:?}");
    gate.open();
    while let Some(frame) = tokio::time::timeout(PATIENCE, body.frame()).await.unwrap() {
        got.extend(frame.unwrap().into_data().unwrap());
    }
    assert!(got == file.bytes());
    assert!(tokio::time::timeout(PATIENCE, connection).await.unwrap().unwrap().is_ok());
    assert!(node.exit().await.success());
}

#[tokio::test]
async fn who_may_not_use_the_port_is_told_so() {
    let authority = Authority::new("site");
    let node = setup(&authority).set("listen.clients", json!(["10.255.255.1"])).start();
    let (mut sender, connection) = client(&node, &authority).await;
    let answer = ask(&mut sender, request("/")).await.unwrap();
    assert_eq!(answer.status(), 403);
    assert!(answer.body().starts_with(b"this client address"), "{answer:?}");
    assert!(tokio::time::timeout(PATIENCE, connection).await.unwrap().unwrap().is_ok());
    assert_eq!(node.metric("waystation_limited_total", "reason=\"clients\"").await, 1.0);
}
