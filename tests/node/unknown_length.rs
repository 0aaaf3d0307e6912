//! Bodies whose length the origin does not tell.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use serde_json::json;

use super::rig::client::{Answer, Connection, End, Framing, get};
use super::rig::do_client::DoAgent;
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Body, Delimiter, Gate, Reply};
use super::rig::pattern::Pattern;
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "dl.example.com";
const AGENT: &str = "User-Agent: Microsoft-Delivery-Optimization-Lite/10.0.0.1";
const PATTERN: Pattern = Pattern { seed: 131, len: 1_200_000 };

async fn node_with(reply: Reply) -> (RunningNode, FakeOrigin) {
    let origin = FakeOrigin::with("/f.bin", reply).await;
    (Setup::new().origin(HOST, origin.address, json!({})).start(), origin)
}

fn must_be_whole(answer: &Answer) {
    assert_eq!((answer.head.status, answer.end), (200, End::Complete), "{}", answer.head.raw);
    assert!(answer.body == PATTERN.bytes());
}

#[tokio::test]
async fn an_agent_gets_a_chunked_body_with_its_length() {
    let (node, origin) = node_with(Reply::file(PATTERN).delimited(Delimiter::Chunked)).await;
    for _cold_then_warm in 0..2 {
        let answer = node.get(&format!("/f.bin?cacheHostOrigin={HOST}"), &[AGENT]).await;
        must_be_whole(&answer);
        assert_eq!(answer.head.exact("Content-Length"), Some("1200000"), "{}", answer.head.raw);
    }
    assert_eq!(origin.requests(), 1);
    let agent = DoAgent::new(node.data);
    let download = agent.download(HOST, "/f.bin", PATTERN, &[300_000, 900_000]).await;
    download.must_be(PATTERN, PATTERN.sha256());
}

#[tokio::test]
async fn others_get_a_chunked_body_as_it_comes_and_with_its_length_later() {
    let gate = Gate::shut();
    let reply = Reply::file(PATTERN).delimited(Delimiter::Chunked).hold_at(600_000, &gate);
    let (node, _origin) = node_with(reply).await;
    let mut client = Connection::open(node.data).await;
    client.send(&get(&format!("/-/{HOST}/f.bin"), &[])).await;
    let head = client.head().await;
    assert_eq!(head.field("Transfer-Encoding"), Some("chunked"), "{}", head.raw);
    gate.open();
    let checked = client.checked(&head, PATTERN, 0).await;
    assert_eq!((checked.len, checked.first_difference, checked.end), (PATTERN.len, None, End::Complete));
    let hit = node.get(&format!("/-/{HOST}/f.bin"), &[]).await;
    must_be_whole(&hit);
    assert_eq!(hit.head.exact("Content-Length"), Some("1200000"), "{}", hit.head.raw);
}

#[tokio::test]
async fn an_agent_is_told_to_come_again_while_a_body_without_length_takes_too_long() {
    let gate = Gate::shut();
    let reply = Reply::file(PATTERN).delimited(Delimiter::Chunked).hold_at(600_000, &gate);
    let origin = FakeOrigin::with("/f.bin", reply).await;
    let setup = Setup::new().origin(HOST, origin.address, json!({ "abandon": "complete" }));
    let node = setup.set("upstream.timeouts.request", json!("500ms")).start();
    let early = node.get(&format!("/f.bin?cacheHostOrigin={HOST}"), &[AGENT]).await;
    assert_eq!((early.head.status, early.head.exact("Content-Length")), (503, Some("0")), "{}", early.head.raw);
    gate.open();
    let agent = DoAgent::new(node.data).with_backoff(0.1);
    agent.download(HOST, "/f.bin", PATTERN, &[]).await.must_be(PATTERN, PATTERN.sha256());
    assert!(!agent.has_bans());
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_chunked_body_that_is_cut_never_ends_well() {
    let (node, _origin) = node_with(Reply::file(PATTERN).delimited(Delimiter::Chunked).cut_after(600_000)).await;
    let answer = node.get(&format!("/-/{HOST}/f.bin"), &[]).await;
    let whole = answer.end == End::Complete && answer.head.status == 200;
    assert!(!whole || answer.body == PATTERN.bytes(), "{} bytes of a cut body ended well", answer.body.len());
    assert_eq!(PATTERN.first_difference(0, &answer.body).filter(|_| answer.head.status == 200), None);
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_arrives_but_is_not_taken_for_whole() {
    let (node, origin) = node_with(Reply::file(PATTERN).delimited(Delimiter::Close)).await;
    for _ in 0..2 {
        let answer = node.get(&format!("/-/{HOST}/f.bin"), &[]).await;
        assert_eq!(answer.head.status, 200, "{}", answer.head.raw);
        assert!(answer.body == PATTERN.bytes());
    }
    assert_eq!(origin.requests(), 2, "nobody knows that it was whole, so it is not stored");
}

/// What is stored of the old version is longer than the new one: without validators only the end tells that it is another.
#[tokio::test]
async fn a_shorter_version_that_begins_like_a_cut_one_takes_its_place() {
    for (length, delimiter) in [(0, Delimiter::Chunked), (50_000, Delimiter::Chunked), (50_000, Delimiter::Length)] {
        let (old, asked) = (Pattern::new(804, 80_000), Arc::new(AtomicUsize::new(0)));
        let new = Bytes::from(old.slice(0, length));
        let (origin, counter, served) = (FakeOrigin::start().await, Arc::clone(&asked), new.clone());
        origin.script("/f.bin", move |_| match counter.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::bare(old).delimited(Delimiter::Chunked).cut_after(60_000),
            _ => Reply { body: Body::Bytes(served.clone()), ..Reply::status(200, "") }
                .with("Cache-Control", "max-age=3600")
                .delimited(delimiter),
        });
        let node = Setup::new().origin(HOST, origin.address, json!({})).start();
        let mut last = None;
        // Who follows the old one is cut, once or twice.
        for _ in 0..3 {
            let mut client = Connection::open(node.data).await;
            client.send(&get(&format!("/-/{HOST}/f.bin"), &[])).await;
            let Ok(head) = client.try_head().await else { continue };
            let mut framing = head.framing(false);
            let mut body = Vec::new();
            while let Ok(Some(piece)) = client.piece(&mut framing, 1 << 16).await {
                body.extend_from_slice(&piece);
            }
            last = Some((head.status, framing == Framing::Done, body == new));
        }
        let asked = asked.load(Ordering::SeqCst);
        assert_eq!(last, Some((200, true, true)), "{length} bytes, {delimiter:?}, asked {asked} times");
    }
}
