//! Header fields as clients look them up, and conditional requests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::rig::client::{Answer, request};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::Reply;
use super::rig::pattern::Pattern;
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "dl.example.com";
const MODIFIED: &str = "Mon, 23 Nov 2026 16:05:50 GMT";

async fn node_with(reply: Reply) -> (RunningNode, FakeOrigin) {
    let origin = FakeOrigin::with("/f.bin", reply).await;
    (Setup::new().origin(HOST, origin.address, json!({})).start(), origin)
}

async fn fetch(node: &RunningNode, fields: &[&str]) -> Answer {
    node.get(&format!("/-/{HOST}/f.bin"), fields).await
}

#[tokio::test]
async fn field_names_are_spelled_in_title_case_on_every_answer() {
    let (node, _origin) = node_with(Reply::file(Pattern::new(31, 100_000)).with("x-lower-case", "1")).await;
    let answers = [
        fetch(&node, &[]).await,
        fetch(&node, &[]).await,
        fetch(&node, &["Range: bytes=0-9"]).await,
        fetch(&node, &["Range: bytes=500000-"]).await,
        node.get("/x?cacheHostOrigin=unknown.example", &[]).await,
        node.get(&format!("/-/{HOST}/absent"), &[]).await,
        node.ask(&request("HEAD", &format!("/-/{HOST}/f.bin"), &[])).await,
        node.ask(&request("DELETE", &format!("/-/{HOST}/f.bin"), &[])).await,
    ];
    for answer in answers {
        for (name, _) in &answer.head.fields {
            let title = name.split('-').all(|word| !word.starts_with(|c: char| c.is_ascii_lowercase()));
            assert!(title, "{name} in {}", answer.head.raw);
        }
        assert!(answer.head.exact("Content-Length").is_some(), "{}", answer.head.raw);
        assert_eq!(answer.head.field("Transfer-Encoding"), None, "{}", answer.head.raw);
    }
}

#[tokio::test]
async fn answers_say_where_they_come_from_and_how_old_they_are() {
    let (node, _origin) = node_with(Reply::file(Pattern::new(32, 100_000))).await;
    let (miss, hit) = (fetch(&node, &[]).await.head, fetch(&node, &[]).await.head);
    for head in [&miss, &hit] {
        assert_eq!(head.exact("Accept-Ranges"), Some("bytes"), "{}", head.raw);
        assert!(head.field("Via").is_some_and(|via| via.starts_with("1.1 ")), "{}", head.raw);
        assert!(head.exact("Age").is_some_and(|age| age.parse::<u32>().is_ok_and(|age| age < 30)), "{}", head.raw);
        assert!(head.exact("Content-Type").is_some_and(|kind| kind == "application/octet-stream"), "{}", head.raw);
    }
    let status = |head: &super::rig::client::Head| head.exact("Cache-Status").unwrap_or_default().to_owned();
    assert!(status(&miss).contains("fwd="), "{}", miss.raw);
    assert!(status(&hit).contains("hit") && !status(&hit).contains("fwd="), "{}", hit.raw);
}

#[tokio::test]
async fn a_stored_body_carries_its_digest() {
    let pattern = Pattern::new(33, 100_000);
    let (node, _origin) = node_with(Reply::file(pattern)).await;
    fetch(&node, &[]).await;
    node.wait_for_fills(1).await;
    let want = format!("sha-256=:{}:", STANDARD.encode(pattern.sha256()));
    for fields in [&[][..], &["Range: bytes=5-9"][..]] {
        let head = fetch(&node, fields).await.head;
        assert_eq!(head.exact("Repr-Digest"), Some(want.as_str()), "{}", head.raw);
    }
}

#[tokio::test]
async fn validators_pass_unchanged_and_a_body_without_one_gets_a_strong_etag() {
    let pattern = Pattern::new(34, 10_000);
    let (node, origin) =
        node_with(Reply::file(pattern).with("ETag", "W/\"a-b\"").with("Last-Modified", MODIFIED)).await;
    for _miss_then_hit in 0..2 {
        let head = fetch(&node, &[]).await.head;
        assert_eq!((head.field("ETag"), head.field("Last-Modified")), (Some("W/\"a-b\""), Some(MODIFIED)));
    }
    origin.serve("/none", Reply::bare(pattern).with("Cache-Control", "max-age=60"));
    node.get(&format!("/-/{HOST}/none"), &[]).await;
    node.wait_for_fills(2).await;
    let hit = node.get(&format!("/-/{HOST}/none"), &[]).await.head;
    let tag = hit.field("ETag").unwrap_or_else(|| panic!("{}", hit.raw)).to_owned();
    assert!(tag.starts_with('"') && tag.len() > 10, "{}", hit.raw);
    let part = node.get(&format!("/-/{HOST}/none"), &["Range: bytes=5-9", &format!("If-Range: {tag}")]).await;
    assert_eq!((part.head.status, part.body == pattern.slice(5, 10)), (206, true), "{}", part.head.raw);
}

#[tokio::test]
async fn conditional_requests_get_304_from_the_store() {
    let (node, origin) = node_with(Reply::file(Pattern::new(35, 10_000)).with("Last-Modified", MODIFIED)).await;
    let tag = fetch(&node, &[]).await.head.field("ETag").unwrap().to_owned();
    origin.switch_off();
    let unchanged = [
        format!("If-None-Match: {tag}"),
        format!("If-None-Match: \"x\", W/{tag}"),
        "If-None-Match: *".to_owned(),
        format!("If-Modified-Since: {MODIFIED}"),
        "If-Modified-Since: Tue, 24 Nov 2026 16:05:50 GMT".to_owned(),
    ];
    for condition in unchanged {
        let answer = fetch(&node, &[&condition]).await;
        assert_eq!((answer.head.status, answer.body.len()), (304, 0), "{condition}: {}", answer.head.raw);
        assert_eq!(answer.head.field("ETag"), Some(tag.as_str()), "{}", answer.head.raw);
    }
    let changed = ["If-None-Match: \"x\"", "If-Modified-Since: Mon, 23 Nov 2026 16:05:49 GMT"];
    for condition in changed {
        assert_eq!(fetch(&node, &[condition]).await.head.status, 200, "{condition}");
    }
    let both = ["If-None-Match: \"x\"".to_owned(), format!("If-Modified-Since: {MODIFIED}")];
    assert_eq!(fetch(&node, &[&both[0], &both[1]]).await.head.status, 200, "If-None-Match goes before the date");
    let failed = fetch(&node, &["If-Match: \"x\""]).await;
    assert_eq!(failed.head.status, 412, "{}", failed.head.raw);
}

#[tokio::test]
async fn hop_by_hop_fields_and_those_a_client_may_not_set_stay_here() {
    let reply = Reply::file(Pattern::new(36, 1000)).with("Connection", "X-Secret").with("X-Secret", "1");
    let (node, origin) = node_with(reply).await;
    let fields = ["X-Forwarded-Host: evil.example", "X-Original-URL: /evil", "Proxy-Authorization: Basic eDp5"];
    let answer = fetch(&node, &fields).await;
    assert_eq!(answer.head.field("X-Secret"), None, "{}", answer.head.raw);
    let received = &origin.received()[0];
    for name in ["X-Forwarded-Host", "X-Original-URL", "Proxy-Authorization"] {
        assert_eq!(received.field(name), None, "{received:?}");
    }
    assert!(received.field("Via").is_some() || received.field("CDN-Loop").is_some(), "{received:?}");
}

#[tokio::test]
async fn an_http_1_0_client_is_answered_and_its_connection_closed() {
    let pattern = Pattern::new(37, 50_000);
    let (node, _origin) = node_with(Reply::file(pattern)).await;
    for _miss_then_hit in 0..2 {
        let mut connection = super::rig::client::Connection::open(node.data).await;
        connection.send(&format!("GET /-/{HOST}/f.bin HTTP/1.0\r\n\r\n")).await;
        let answer = connection.answer(false).await;
        assert_eq!((answer.head.status, answer.body == pattern.bytes()), (200, true), "{}", answer.head.raw);
        assert!(connection.is_closed().await);
    }
}

#[tokio::test]
async fn the_summary_and_the_metrics_count_what_went_through() {
    let (node, _origin) = node_with(Reply::file(Pattern::new(38, 100_000))).await;
    for _ in 0..4 {
        fetch(&node, &[]).await;
    }
    // Bytes count once the kernel has taken them, so a client may have them a moment before.
    let mut summary = node.summary().await;
    for _ in 0..1000 {
        if summary["requests"]["hit"] == 3 && summary["requests"]["miss"] == 1 {
            break;
        }
        tokio::task::yield_now().await;
        summary = node.summary().await;
    }
    assert_eq!(
        (summary["hitBytes"].as_u64(), summary["missBytes"].as_u64()),
        (Some(300_000), Some(100_000)),
        "{summary}"
    );
    assert!(summary.get("eggressBytes").is_some() && summary.get("hitRatioBytes").is_some(), "{summary}");
    assert_eq!(node.metric("waystation_hit_bytes_total", "").await, 300_000.0);
    assert_eq!(node.metric("waystation_requests_total", "result=\"hit\"").await, 3.0);
}
