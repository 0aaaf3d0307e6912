//! Responses before the response (RFC 9110 section 15.2) reach the one client whose request brings them.

use serde_json::json;

use super::rig::client::{Connection, End, get};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Gate, Reply};
use super::rig::pattern::Pattern;
use super::rig::running_node::Setup;

const HOST: &str = "dl.example.com";
const TARGET: &str = "/-/dl.example.com/f.bin";
const PATTERN: Pattern = Pattern { seed: 131, len: 50_000 };
const HINTS: &str = "HTTP/1.1 102 Processing\r\n\r\n\
    HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nkeep-alive: 5\r\nx-hop: 1\r\nconnection: x-hop\r\n\r\n";

#[tokio::test]
async fn they_come_while_the_origin_is_still_at_work_and_are_not_stored() {
    let gate = Gate::shut();
    let origin = FakeOrigin::with("/f.bin", Reply::file(PATTERN).early(HINTS).hold_head(&gate)).await;
    let node = Setup::new().origin(HOST, origin.address, json!({})).start();
    let mut client = Connection::open(node.data).await;
    client.send(&get(TARGET, &[])).await;
    assert_eq!(client.head().await.raw, "HTTP/1.1 102 Processing\r\n\r\n");
    assert_eq!(client.head().await.raw, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
    gate.open();
    let answer = client.answer(false).await;
    assert_eq!((answer.head.status, answer.head.field("Link"), answer.end), (200, None, End::Complete));
    assert!(answer.body == PATTERN.bytes());
    node.wait_for_fills(1).await;
    client.send(&get(TARGET, &[])).await;
    let hit = client.answer(false).await;
    assert_eq!((hit.head.status, hit.head.field("Link")), (200, None), "{}", hit.head.raw);
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn who_would_not_understand_them_gets_none() {
    let origin = FakeOrigin::with("/f.bin", Reply::file(PATTERN).with("Cache-Control", "no-store").early(HINTS)).await;
    let node = Setup::new().origin(HOST, origin.address, json!({})).start();
    let agent = "User-Agent: Microsoft-Delivery-Optimization-Lite/10.0";
    for text in [get(TARGET, &[]).replace("HTTP/1.1", "HTTP/1.0"), get(TARGET, &[agent])] {
        let answer = node.ask(&text).await;
        assert_eq!(answer.head.status, 200, "{}", answer.head.raw);
        assert!(answer.body == PATTERN.bytes());
    }
    origin.serve("/f.bin", Reply::file(PATTERN).early("HTTP/1.1 100 Continue\r\n\r\n"));
    let answer = node.get(TARGET, &[]).await;
    assert_eq!(answer.head.status, 200, "nobody has asked whether to go on: {}", answer.head.raw);
}

#[tokio::test]
async fn a_source_that_sends_them_without_end_does_not_fill_the_memory() {
    let many: &'static str = HINTS.repeat(2000).leak();
    let origin = FakeOrigin::with("/f.bin", Reply::file(PATTERN).early(many)).await;
    let node = Setup::new().origin(HOST, origin.address, json!({})).start();
    let mut client = Connection::open(node.data).await;
    client.send(&get(TARGET, &[])).await;
    let mut heads = 0;
    while client.head().await.status != 200 {
        heads += 1;
    }
    assert!((1..500).contains(&heads), "{heads} of 4000");
}
