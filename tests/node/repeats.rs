//! Requests in the same words as one before: they are answered at less cost, and otherwise no differently.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use serde_json::{Value, json};
use waystation::content::Digest;

use super::rig::client::{Answer, Connection, End, get, request};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Received, Reply};
use super::rig::pattern::Pattern;
use super::rig::running_node::{RunningNode, Setup, files_below};
use super::rig::slow_client::{self, Pace};

const HOST: &str = "dl.example.com";
const TARGET: &str = "/-/dl.example.com/f.bin";

async fn node_with(reply: Reply) -> (RunningNode, FakeOrigin) {
    let origin = FakeOrigin::with("/f.bin", reply).await;
    (Setup::new().origin(HOST, origin.address, json!({})).start(), origin)
}

async fn ready(node: &RunningNode) -> f64 {
    node.metric("waystation_ready_answers_total", "").await
}

/// Asks until the answer is one that was kept; returns the one before and that one.
async fn until_kept(node: &RunningNode) -> (Answer, Answer) {
    let mut before = node.get(TARGET, &[]).await;
    for _miss_then_hits in 0..20 {
        let counted = ready(node).await;
        let answer = node.get(TARGET, &[]).await;
        if ready(node).await > counted {
            return (before, answer);
        }
        before = answer;
    }
    panic!("no answer is kept: {}", before.head.raw);
}

/// The fields in some order, without the values that change with time.
fn fields(answer: &Answer) -> Vec<(String, String)> {
    let mut fields: Vec<_> = answer.head.fields.clone();
    for (name, value) in &mut fields {
        match name.as_str() {
            "Age" => value.clear(),
            "Cache-Status" => value.truncate(value.find("ttl=").unwrap()),
            _ => {}
        }
    }
    fields.sort();
    fields
}

/// All lines of the access log with `text`, up to now.
async fn lines(node: &RunningNode, text: &str) -> Vec<Value> {
    node.get("/-/dl.example.com/last", &[]).await;
    assert!(node.says("/last"));
    let said = node.said();
    said.lines().filter(|line| line.contains(text)).map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn the_answer_is_the_same_in_every_field_and_byte() {
    for len in [1, 1000, 16 * 1024, 16 * 1024 + 1, 65_536, 262_144] {
        let pattern = Pattern::new(901, len);
        let reply = Reply::file(pattern).with("Cache-Control", "max-age=3600").with("Age", "7");
        let reply = reply.with("X-Two", "one").with("x-tWo", "two").with("Cache-Status", "parent; hit; ttl=5");
        let (node, origin) = node_with(reply).await;
        let (usual, kept) = until_kept(&node).await;
        assert_eq!((kept.head.status, kept.end), (200, End::Complete), "{}", kept.head.raw);
        assert_eq!(fields(&usual), fields(&kept), "{len}:\n{}\n{}", usual.head.raw, kept.head.raw);
        assert!(kept.head.raw.starts_with("HTTP/1.1 200 OK\r\n"), "{}", kept.head.raw);
        let age: u64 = kept.head.exact("Age").and_then(|age| age.parse().ok()).unwrap();
        assert!((7..60).contains(&age), "{}", kept.head.raw);
        let status = kept.head.fields.iter().rfind(|(name, _)| name == "Cache-Status").map(|(_, value)| value.as_str());
        assert!(status.is_some_and(|status| status.contains(&format!("; hit; ttl={}", 3600 - age))), "{status:?}");
        assert!(kept.body == pattern.bytes(), "{len}");
        assert_eq!(origin.requests(), 1);
    }
}

#[tokio::test]
async fn bodies_of_more_than_one_window_and_empty_ones_go_the_ordinary_way() {
    for len in [0, 262_145, 3_000_000] {
        let pattern = Pattern::new(902, len);
        let (node, _origin) = node_with(Reply::file(pattern)).await;
        for _ in 0..6 {
            assert!(node.get(TARGET, &[]).await.body == pattern.bytes(), "{len}");
        }
        assert_eq!(ready(&node).await, 0.0, "{len}");
    }
}

#[tokio::test]
async fn it_is_counted_and_logged_like_any_other() {
    let pattern = Pattern::new(903, 50_000);
    let (node, _origin) = node_with(Reply::file(pattern)).await;
    until_kept(&node).await;
    let hits = async || {
        let (bytes, hits) = (node.metric("waystation_hit_bytes_total", "").await, "result=\"hit\"");
        (bytes, node.metric("waystation_requests_total", hits).await)
    };
    let before = hits().await;
    let agent = ["User-Agent: repeats/1.0"];
    for _seen_kept_and_given in 0..4 {
        node.get(TARGET, &agent).await;
    }
    let after = hits().await;
    assert_eq!((after.0 - before.0, after.1 - before.1), (200_000.0, 4.0));
    assert_eq!(node.metric("waystation_requests_in_flight", "").await, 0.0);
    let lines = lines(&node, "repeats/1.0").await;
    assert_eq!(lines.len(), 4, "{lines:?}");
    for line in lines {
        let said = ["client", "method", "host", "target", "result", "form"].map(|field| line[field].as_str().unwrap());
        assert_eq!(said, ["127.0.0.1", "GET", HOST, "/f.bin", "hit", "path"], "{line}");
        assert_eq!((line["status"].as_u64(), line["bytes"].as_u64()), (Some(200), Some(50_000)), "{line}");
    }
}

#[tokio::test]
async fn what_changes_is_never_answered_from_before() {
    let posted = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&posted);
    let (old, new) = (Pattern::new(904, 20_000), Pattern::new(905, 20_000));
    let origin = FakeOrigin::start().await;
    origin.script("/f.bin", move |request: &Received| match request.method.as_str() {
        "POST" => {
            seen.store(true, Ordering::SeqCst);
            Reply::status(204, "")
        }
        _ if seen.load(Ordering::SeqCst) => Reply::file(new),
        _ => Reply::file(old),
    });
    let methods = json!({ "methods": ["GET", "HEAD", "POST"] });
    let node = Setup::new().origin(HOST, origin.address, methods).start();
    assert!(until_kept(&node).await.1.body == old.bytes());
    let post = request("POST", TARGET, &["Content-Length: 1", "Content-Type: text/plain"]);
    assert_eq!(node.ask(&format!("{post}x")).await.head.status, 204);
    assert!(node.get(TARGET, &[]).await.body == new.bytes(), "right after the POST");
    assert!(until_kept(&node).await.1.body == new.bytes());
}

#[tokio::test]
async fn what_is_stale_is_asked_for_again() {
    let (old, new) = (Pattern::new(906, 5000), Pattern::new(907, 5000));
    let (node, origin) = node_with(Reply::file(old).with("Cache-Control", "max-age=2")).await;
    until_kept(&node).await;
    origin.serve("/f.bin", Reply::file(new).with("Cache-Control", "max-age=2"));
    let mut last_age = 0;
    loop {
        let answer = node.get(TARGET, &[]).await;
        if answer.body == new.bytes() {
            break;
        }
        let age: u64 = answer.head.exact("Age").and_then(|age| age.parse().ok()).unwrap();
        assert!(age < 2 && age >= last_age, "{}", answer.head.raw);
        last_age = age;
    }
}

#[tokio::test]
async fn requests_that_want_more_are_heard_between_those_that_do_not() {
    let pattern = Pattern::new(908, 30_000);
    let (node, origin) = node_with(Reply::file(pattern).with("ETag", "\"v1\"")).await;
    until_kept(&node).await;
    let mut connection = Connection::open(node.data).await;
    let plain = get(TARGET, &[]);
    let forms = [
        (plain.clone(), 200, 0, 30_000),
        (get(TARGET, &["Range: bytes=10-19"]), 206, 10, 20),
        (plain.clone(), 200, 0, 30_000),
        (get(TARGET, &["If-None-Match: \"v1\""]), 304, 0, 0),
        (plain.clone(), 200, 0, 30_000),
        (get(TARGET, &["Range: bytes=10-19", "If-Range: \"v2\""]), 200, 0, 30_000),
        (plain.clone(), 200, 0, 30_000),
    ];
    // One after the other, and then all at once.
    for (text, status, from, to) in &forms {
        connection.send(text).await;
        let answer = connection.answer(false).await;
        assert_eq!(answer.head.status, *status, "{text}");
        assert!(answer.body == pattern.slice(*from, *to), "{text}");
    }
    let all: String = forms.iter().map(|(text, ..)| text.as_str()).collect();
    connection.send(&all.repeat(5)).await;
    for (text, status, from, to) in forms.iter().cycle().take(35) {
        let answer = connection.answer(false).await;
        assert_eq!(answer.head.status, *status, "{text}");
        assert!(answer.body == pattern.slice(*from, *to), "{text}");
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_slow_client_gets_all_of_it_and_a_drain_waits_for_it() {
    let pattern = Pattern::new(909, 200_000);
    let (mut node, _origin) = node_with(Reply::file(pattern)).await;
    until_kept(&node).await;
    let counted = ready(&node).await;
    let pace = Pace { window: 2048, bytes_per_second: 100_000, sip: 2048 };
    let mut slow = slow_client::connect(node.data, pace).await;
    slow.send(&get(TARGET, &[])).await;
    let head = slow.head().await;
    assert!(ready(&node).await > counted, "{}", head.raw);
    assert_eq!(node.metric("waystation_requests_in_flight", "").await, 1.0);
    node.signal(Signal::TERM);
    // The signal takes its time.
    while node.get(TARGET, &[]).await.head.status != 503 {}
    let checked = slow.checked(&head, pattern, 0).await;
    assert_eq!((checked.len, checked.first_difference, checked.end), (200_000, None, End::Complete));
    assert_eq!(node.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_file_that_changes_on_the_drive_is_checked_before_it_is_given_again() {
    let pattern = Pattern::new(910, 60_000);
    let (node, origin) = node_with(Reply::file(pattern)).await;
    until_kept(&node).await;
    node.wait_for_commits().await;
    let blobs = files_below(&node.setup().path("drive1").join("blobs"));
    let file = std::fs::OpenOptions::new().write(true).open(&blobs[0]).unwrap();
    let flipped = pattern.slice(30_000, 30_001)[0] ^ 1;
    file.write_all_at(&[flipped], 30_000).unwrap();
    // What was checked counts for a second; then the change is seen, and the bytes come from the origin anew.
    loop {
        let answer = node.get(TARGET, &[]).await;
        assert_eq!(answer.end, End::Complete, "{}", answer.head.raw);
        if origin.requests() > 1 {
            assert!(answer.body == pattern.bytes());
            break;
        }
    }
    assert!(until_kept(&node).await.1.body == pattern.bytes());
}

#[tokio::test]
async fn a_proxy_that_names_clients_is_not_taken_for_one() {
    let origin = FakeOrigin::with("/f.bin", Reply::file(Pattern::new(911, 5000))).await;
    let node =
        Setup::new().origin(HOST, origin.address, json!({})).set("listen.trusted_proxies", json!(["127.0.0.0/8"]));
    let node = node.start();
    let named = ["X-Forwarded-For: 192.168.77.5"];
    for _ in 0..5 {
        node.get(TARGET, &named).await;
    }
    assert_eq!(ready(&node).await, 0.0);
    assert_eq!(lines(&node, "\"client\":\"192.168.77.5\"").await.len(), 5);
}

#[tokio::test]
async fn who_may_not_use_the_port_gets_no_answer_that_was_kept() {
    let origin = FakeOrigin::with("/f.bin", Reply::file(Pattern::new(912, 5000))).await;
    let setup = Setup::new().origin(HOST, origin.address, json!({}));
    let node = setup.set("listen.clients", json!(["127.0.0.1/32"])).start();
    until_kept(&node).await;
    let mut foreign = Connection::open_as(1, node.data).await;
    foreign.send(&get(TARGET, &[])).await;
    let answer = foreign.answer(false).await;
    assert_eq!(answer.head.status, 403, "{}", answer.head.raw);

    let origin = FakeOrigin::with("/f.bin", Reply::file(Pattern::new(913, 5000))).await;
    let setup = Setup::new().origin(HOST, origin.address, json!({}));
    let node = setup.set("limits.connections_per_client", json!(1)).start();
    until_kept(&node).await;
    let mut first = Connection::open_as(2, node.data).await;
    first.send(&get(TARGET, &[])).await;
    assert_eq!(first.answer(false).await.head.status, 200);
    let mut second = Connection::open_as(2, node.data).await;
    second.send(&get(TARGET, &[])).await;
    let answer = second.answer(false).await;
    assert_eq!(answer.head.status, 503, "{}", answer.head.raw);
    first.send(&get(TARGET, &[])).await;
    assert_eq!(first.answer(false).await.head.status, 200, "the first is not disturbed");
}

#[tokio::test]
async fn the_first_byte_is_counted_once_for_each_request() {
    let pattern = Pattern::new(914, 50_000);
    let (node, _origin) = node_with(Reply::file(pattern)).await;
    until_kept(&node).await;
    let counts = async || {
        let first_bytes = node.metric("waystation_first_byte_seconds_count", "").await;
        (first_bytes, node.metric("waystation_requests_total", "").await)
    };
    let before = counts().await;
    let pace = Pace { window: 2048, bytes_per_second: 50_000_000, sip: 1448 };
    let mut slow = slow_client::connect(node.data, pace).await;
    slow.send(&get(TARGET, &[]).repeat(60)).await;
    for _ in 0..60 {
        assert!(slow.answer(false).await.body == pattern.bytes());
    }
    let after = counts().await;
    assert_eq!(after.0 - before.0, after.1 - before.1, "{before:?} {after:?}");
}

#[tokio::test]
async fn a_path_with_a_digest_means_another_thing_to_another_client() {
    let (right, other) = (Pattern::new(915, 5000), Pattern::new(916, 5000));
    let digest = Digest::of(&right.bytes());
    let path = format!("/.well-known/ni/sha-256/{}", digest.to_base64url());
    let origin = FakeOrigin::with("/f.bin", Reply::file(right)).await;
    origin.serve(&path, Reply::file(other));
    let setup = Setup::new().origin(HOST, origin.address, json!({}));
    let node = setup.set("listen.digest_clients", json!(["127.77.0.0/16"])).start();
    node.get(TARGET, &[]).await;
    node.wait_for_fills(1).await;
    node.wait_for_commits().await;
    let text = get(&format!("{path}?cacheHostOrigin={HOST}"), &[]);
    for _ in 0..5 {
        assert!(node.ask(&text).await.body == other.bytes(), "of the origin, for who may not ask by digest");
        let mut peer = Connection::open_as(7, node.data).await;
        peer.send(&text).await;
        assert!(peer.answer(false).await.body == right.bytes(), "by digest");
    }
}
