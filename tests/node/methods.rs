//! Requests that are more than a look-up: methods that change content, and requests that were here before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::rig::client::{Connection, End, get, request};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Gate, Received, Reply};
use super::rig::pattern::Pattern;
use super::rig::rules::ranged_for_clients;
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "dl.example.com";
const TARGET: &str = "/-/dl.example.com/f.bin";

/// An origin whose file can be posted to: `status` is the answer to that.
async fn node(status: u16) -> (RunningNode, FakeOrigin) {
    let origin = FakeOrigin::start().await;
    origin.script("/f.bin", move |request: &Received| match request.method.as_str() {
        "POST" => Reply::status(status, "posted"),
        _ => Reply::file(Pattern::new(211, 100_000)),
    });
    let methods = json!({ "methods": ["GET", "HEAD", "POST"] });
    (Setup::new().origin(HOST, origin.address, methods).start(), origin)
}

/// Fills, and sees a hit.
async fn stored(node: &RunningNode, origin: &FakeOrigin) {
    for _miss_then_hit in 0..2 {
        assert_eq!(node.get(TARGET, &[]).await.body, Pattern::new(211, 100_000).bytes());
    }
    assert_eq!(origin.requests(), 1);
}

async fn post(node: &RunningNode) -> super::rig::client::Answer {
    let head = request("POST", TARGET, &["Content-Length: 11", "Content-Type: text/plain"]);
    node.ask(&format!("{head}new content")).await
}

#[tokio::test]
async fn a_post_that_succeeds_makes_what_is_stored_invalid() {
    for status in [200, 201, 204, 303] {
        let (node, origin) = node(status).await;
        stored(&node, &origin).await;
        let answer = post(&node).await;
        assert_eq!(answer.head.status, status, "{}", answer.head.raw);
        let posted = &origin.received()[1];
        assert_eq!((posted.method.as_str(), posted.body.as_slice()), ("POST", b"new content".as_slice()));
        assert_eq!(node.get(TARGET, &[]).await.head.status, 200);
        assert_eq!(origin.requests(), 3, "after {status} the stored body is not given out: {:?}", origin.received());
    }
}

#[tokio::test]
async fn a_post_parts_new_clients_from_a_download_that_is_on_its_way() {
    let (old, new) = (Pattern::new(214, 3_000_000), Pattern::new(215, 2_000_000));
    let (gate, posted) = (Gate::shut(), Arc::new(AtomicBool::new(false)));
    let origin = FakeOrigin::start().await;
    let (held, seen) = (gate.clone(), Arc::clone(&posted));
    origin.script("/f.bin", move |request: &Received| match request.method.as_str() {
        "POST" => {
            seen.store(true, Ordering::SeqCst);
            Reply::status(204, "")
        }
        _ if seen.load(Ordering::SeqCst) => Reply::file(new),
        _ => Reply::file(old).hold_at(1_000_000, &held),
    });
    let methods = json!({ "methods": ["GET", "HEAD", "POST"] });
    let node = Setup::new().origin(HOST, origin.address, methods).start();

    let mut early = Connection::open(node.data).await;
    early.send(&get(TARGET, &[])).await;
    let head = early.head().await;
    assert_eq!(post(&node).await.head.status, 204);
    for _miss_then_hit in 0..2 {
        let late = node.get(TARGET, &[]).await;
        assert_eq!((late.body.len() as u64, new.first_difference(0, &late.body)), (new.len, None), "{}", late.head.raw);
    }
    gate.open();
    let checked = early.checked(&head, old, 0).await;
    assert_eq!((checked.len, checked.first_difference, checked.end), (old.len, None, End::Complete));
    node.wait_for_fills(2).await;
    let last = node.get(TARGET, &[]).await;
    assert_eq!(new.first_difference(0, &last.body), None, "the old one has not come back: {}", last.head.raw);
    assert_eq!(origin.requests(), 3, "{:?}", origin.received());
}

#[tokio::test]
async fn an_answer_that_was_asked_for_before_a_post_is_not_given_to_who_comes_after_it() {
    let (old, new) = (Pattern::new(216, 100_000), Pattern::new(217, 100_000));
    let (gate, posted) = (Gate::shut(), Arc::new(AtomicBool::new(false)));
    let origin = FakeOrigin::start().await;
    let (held, seen) = (gate.clone(), Arc::clone(&posted));
    origin.script("/f.bin", move |request: &Received| match request.method.as_str() {
        "POST" => {
            seen.store(true, Ordering::SeqCst);
            Reply::status(204, "")
        }
        _ if seen.load(Ordering::SeqCst) => Reply::file(new),
        // The content is chosen when the request comes, its head leaves later.
        _ => Reply::file(old).hold_head(&held),
    });
    let methods = json!({ "methods": ["GET", "HEAD", "POST"] });
    let node = Setup::new().origin(HOST, origin.address, methods).start();
    let mut early = Connection::open(node.data).await;
    early.send(&get(TARGET, &[])).await;
    origin.wait_for_requests(1).await;
    let post = request("POST", TARGET, &["Content-Length: 1", "Content-Type: text/plain"]);
    assert_eq!(node.ask(&format!("{post}x")).await.head.status, 204);
    gate.open();
    assert_eq!(early.answer(false).await.head.status, 200);
    node.wait_for_fills(1).await;
    let late = node.get(TARGET, &[]).await;
    assert_eq!(new.first_difference(0, &late.body), None, "the old one again: {}", late.head.raw);
}

#[tokio::test]
async fn a_reader_of_a_stopped_body_reads_on_after_a_post() {
    let content = Pattern::new(218, 64 << 20);
    let origin = FakeOrigin::start().await;
    origin.script("/f.bin", move |request: &Received| match request.method.as_str() {
        "POST" => Reply::status(204, ""),
        _ => Reply::file(content),
    });
    let mut rule = ranged_for_clients();
    rule["methods"] = json!(["GET", "HEAD", "POST"]);
    let node = Setup::new().origin(HOST, origin.address, rule).start();
    let part = ["Range: bytes=0-20971519"];
    assert_eq!(node.get(TARGET, &part).await.end, End::Complete);
    node.wait_until_idle().await;
    let mut slow = Connection::open(node.data).await;
    slow.send(&get(TARGET, &part)).await;
    let head = slow.head().await;
    assert!(head.field("Cache-Status").is_some_and(|status| status.contains("hit")), "{}", head.raw);
    let post = request("POST", TARGET, &["Content-Length: 1", "Content-Type: text/plain"]);
    assert_eq!(node.ask(&format!("{post}x")).await.head.status, 204);
    let checked = slow.checked(&head, content, 0).await;
    assert_eq!((checked.len, checked.first_difference, checked.end), (20 << 20, None, End::Complete));
}

#[tokio::test]
async fn a_post_that_fails_leaves_what_is_stored() {
    for status in [400, 403, 409, 500, 503] {
        let (node, origin) = node(status).await;
        stored(&node, &origin).await;
        assert_eq!(post(&node).await.head.status, status);
        assert_eq!(node.get(TARGET, &[]).await.body, Pattern::new(211, 100_000).bytes());
        assert_eq!(origin.requests(), 2, "after {status} the stored body is a hit: {:?}", origin.received());
    }
    let (node, origin) = node(200).await;
    stored(&node, &origin).await;
    origin.switch_off();
    assert_eq!(post(&node).await.head.status, 503, "nobody was reached");
    assert_eq!(node.get(TARGET, &[]).await.head.status, 200);
}

#[tokio::test]
async fn the_answer_to_a_post_is_not_stored() {
    let (node, origin) = node(200).await;
    for count in 1..=2 {
        assert_eq!(post(&node).await.body, b"posted");
        assert_eq!(origin.requests(), count);
    }
    assert_eq!(node.get(TARGET, &[]).await.body, Pattern::new(211, 100_000).bytes());
}

#[tokio::test]
async fn a_request_that_was_here_before_gets_508() {
    let origin = FakeOrigin::with("/f.bin", Reply::file(Pattern::new(212, 10))).await;
    let node = Setup::new().origin(HOST, origin.address, json!({})).set("pseudonym", json!("site-7")).start();
    for field in ["CDN-Loop: site-7", "CDN-Loop: cdn.example, SITE-7; v=1", "Via: 1.0 proxy, 1.1 site-7 (x)"] {
        for method in ["GET", "HEAD"] {
            let answer = node.ask(&request(method, TARGET, &[field])).await;
            assert_eq!(answer.head.status, 508, "{field}: {}", answer.head.raw);
        }
    }
    assert_eq!(origin.requests(), 0);
    for field in ["CDN-Loop: site-8, other; of=\"site-7\"", "Via: 1.1 site-70 (site-7)"] {
        assert_eq!(node.get(TARGET, &[field]).await.head.status, 200, "{field}");
    }
    assert_eq!(origin.requests(), 1);
    // What it says itself is what it takes for a loop.
    let asked = &origin.received()[0];
    let marks = [("CDN-Loop", asked.field("CDN-Loop")), ("Via", asked.field("Via"))];
    for (name, value) in marks {
        let answer = node.get(TARGET, &[&format!("{name}: {}", value.unwrap())]).await;
        assert_eq!(answer.head.status, 508, "{name}: {value:?}");
    }
}

#[tokio::test]
async fn a_client_that_dns_led_here_may_write_our_port_into_host() {
    let origin = FakeOrigin::with("/f.bin", Reply::file(Pattern::new(213, 1000))).await;
    let node = Setup::new().origin(HOST, origin.address, json!({})).start();
    let (own, admin) = (node.data.port(), node.admin.port());
    let ask = async |host: &str| node.get("/f.bin", &[&format!("Host: {host}")]).await.head.status;
    assert_eq!(ask(HOST).await, 200);
    assert_eq!(ask(&format!("{HOST}:{own}")).await, 200);
    assert_eq!(ask(&format!("{HOST}:80")).await, 200);
    assert_eq!(origin.requests(), 1, "all spellings are one object");
    assert_eq!(origin.received()[0].field("Host"), Some(HOST));
    for foreign in [admin, 8443] {
        assert_eq!(ask(&format!("{HOST}:{foreign}")).await, 403, "{foreign}");
    }
    assert_eq!(ask(&format!("evil.example:{own}")).await, 403);
}
