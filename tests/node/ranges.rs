//! Ranges, from what is stored and from what is still filling (RFC 9110 section 14).

use serde_json::json;

use super::rig::client::{Answer, Connection, End, get};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Gate, Reply};
use super::rig::pattern::Pattern;
use super::rig::rules::ranged_for_clients;
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "dl.example.com";
const LEN: u64 = 2_500_000;

fn pattern() -> Pattern {
    Pattern::new(21, LEN)
}

async fn node() -> (RunningNode, FakeOrigin) {
    let modified = "Mon, 23 Nov 2026 16:05:50 GMT";
    let origin = FakeOrigin::with("/f.bin", Reply::file(pattern()).with("Last-Modified", modified)).await;
    (Setup::new().origin(HOST, origin.address, json!({ "abandon": "complete" })).start(), origin)
}

async fn ranged(node: &RunningNode, fields: &[&str]) -> Answer {
    node.get(&format!("/-/{HOST}/f.bin"), fields).await
}

/// 206 with exactly `from..to`.
fn must_be_part(answer: &Answer, from: u64, to: u64) {
    assert_eq!(answer.head.status, 206, "{}", answer.head.raw);
    let range = format!("bytes {from}-{}/{LEN}", to - 1);
    assert_eq!(answer.head.exact("Content-Range"), Some(range.as_str()), "{}", answer.head.raw);
    assert_eq!(answer.head.exact("Content-Length"), Some((to - from).to_string().as_str()), "{}", answer.head.raw);
    assert!(answer.body == pattern().slice(from, to), "wrong bytes for {range}");
}

#[tokio::test]
async fn single_ranges_are_exact_when_cold_and_when_warm() {
    let cases = [
        ("bytes=0-0", 0, 1),
        ("bytes=0-999", 0, 1000),
        ("bytes=1048575-1048576", 1_048_575, 1_048_577),
        ("bytes=2499999-", LEN - 1, LEN),
        ("bytes=-1", LEN - 1, LEN),
        ("bytes=-3000000", 0, LEN),
        ("bytes=2000000-99999999999999999", 2_000_000, LEN),
        ("bytes=0-", 0, LEN),
        ("Bytes=7-8", 7, 9),
    ];
    for (range, from, to) in cases {
        let (node, origin) = node().await;
        let cold = ranged(&node, &[&format!("Range: {range}")]).await;
        must_be_part(&cold, from, to);
        must_be_part(&ranged(&node, &[&format!("Range: {range}")]).await, from, to);
        assert!(ranged(&node, &[]).await.body == pattern().bytes());
        assert!(origin.body_bytes() <= LEN + LEN / 100, "{range}: {} bytes from the origin", origin.body_bytes());
    }
}

#[tokio::test]
async fn of_several_range_lines_the_last_one_is_meant() {
    let (node, _origin) = node().await;
    for _cold_then_warm in 0..2 {
        let lines = ["Range: bytes=100-2499999", "Range: bytes=200-2499999", "Range: bytes=1900000-2499999"];
        must_be_part(&ranged(&node, &lines).await, 1_900_000, LEN);
    }
}

#[tokio::test]
async fn several_ranges_in_one_line_come_as_multipart() {
    let (node, _origin) = node().await;
    assert_eq!(ranged(&node, &[]).await.head.status, 200);
    let answer = ranged(&node, &["Range: bytes=0-9,1000000-1000099,-5"]).await;
    assert_eq!(answer.head.status, 206, "{}", answer.head.raw);
    let kind = answer.head.field("Content-Type").unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap().trim_matches('"');
    assert_eq!(answer.head.length(), Some(answer.body.len() as u64), "{}", answer.head.raw);
    let mut rest = &answer.body[..];
    for (from, to) in [(0, 10), (1_000_000, 1_000_100), (LEN - 5, LEN)] {
        let start = rest.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8_lossy(&rest[..start]).into_owned();
        assert!(head.contains(&format!("--{boundary}\r\n")), "{head}");
        assert!(
            head.to_ascii_lowercase().contains(&format!("content-range: bytes {from}-{}/{LEN}\r\n", to - 1)),
            "{head}"
        );
        let end = start + (to - from) as usize;
        assert!(rest[start..end] == pattern().slice(from, to), "{from}..{to}");
        rest = &rest[end..];
    }
    assert_eq!(String::from_utf8_lossy(rest).trim(), format!("--{boundary}--"));
}

#[tokio::test]
async fn a_range_behind_the_end_gets_416_with_the_length() {
    let (node, _origin) = node().await;
    assert_eq!(ranged(&node, &[]).await.head.status, 200);
    let answer = ranged(&node, &["Range: bytes=2500000-"]).await;
    assert_eq!((answer.head.status, answer.head.exact("Content-Range")), (416, Some("bytes */2500000")));
}

#[tokio::test]
async fn what_is_no_range_is_ignored() {
    let (node, _origin) = node().await;
    for range in ["bytes=5-4", "bytes=", "bytes=a-b", "items=0-1", "bytes 0-1", "bytes=--1"] {
        let answer = ranged(&node, &[&format!("Range: {range}")]).await;
        assert_eq!((answer.head.status, answer.body.len() as u64), (200, LEN), "{range}: {}", answer.head.raw);
    }
}

#[tokio::test]
async fn if_range_decides_between_the_part_and_the_whole() {
    let (node, _origin) = node().await;
    let tag = ranged(&node, &[]).await.head.field("ETag").unwrap().to_owned();
    let part = "Range: bytes=890976-";
    must_be_part(&ranged(&node, &[part, &format!("If-Range: {tag}")]).await, 890_976, LEN);
    let exact = "If-Range: Mon, 23 Nov 2026 16:05:50 GMT";
    must_be_part(&ranged(&node, &[part, exact]).await, 890_976, LEN);
    let weak = format!("If-Range: W/{tag}");
    for other in ["If-Range: \"other\"", weak.as_str(), "If-Range: Mon, 23 Nov 2026 16:05:51 GMT"] {
        let answer = ranged(&node, &[part, other]).await;
        assert_eq!((answer.head.status, answer.body.len() as u64), (200, LEN), "{other}: {}", answer.head.raw);
    }
}

#[tokio::test]
async fn a_range_that_has_landed_is_served_while_the_rest_still_fills() {
    let (node, origin) = node().await;
    let gate = Gate::shut();
    origin.serve("/f.bin", Reply::file(pattern()).hold_at(2_000_000, &gate));
    let mut first = Connection::open(node.data).await;
    first.send(&get(&format!("/-/{HOST}/f.bin"), &[])).await;
    let head = first.head().await;
    let mut framing = head.framing(false);
    let mut got = 0;
    while got < 1_000_000 {
        got += first.piece(&mut framing, 1 << 16).await.unwrap().unwrap().len();
    }
    must_be_part(&ranged(&node, &["Range: bytes=1000-500000"]).await, 1000, 500_001);
    assert_eq!(origin.requests(), 1);
    let mut end = Connection::open(node.data).await;
    end.send(&get(&format!("/-/{HOST}/f.bin"), &["Range: bytes=1500000-2499999"])).await;
    gate.open();
    must_be_part(&end.answer(false).await, 1_500_000, LEN);
    assert!(origin.body_bytes() <= LEN + LEN / 100, "{}", origin.body_bytes());
}

#[tokio::test]
async fn too_many_ranges_do_not_multiply_the_work() {
    let (node, _origin) = node().await;
    assert_eq!(ranged(&node, &[]).await.head.status, 200);
    let many: Vec<_> = (0..500).map(|n| format!("{}-", n * 10)).collect();
    let answer = ranged(&node, &[&format!("Range: bytes={}", many.join(","))]).await;
    assert!(answer.body.len() as u64 <= LEN + 10_000, "{} bytes for one request", answer.body.len());
}

/// Its bytes stay on the drive until the reader is done.
#[tokio::test]
async fn a_reader_of_a_stopped_body_reads_on_when_it_is_evicted() {
    let (content, other) = (Pattern::new(22, 64 << 20), Pattern::new(23, 30 << 20));
    let origin = FakeOrigin::with("/f.bin", Reply::file(content)).await;
    origin.serve("/other", Reply::file(other));
    let setup = Setup::new();
    let drive = setup.path("drive1").to_str().unwrap().to_owned();
    let setup = setup.set("storage.drives", json!([{ "path": drive, "quota": "48 MiB", "min_free": 0 }]));
    let node = setup.origin(HOST, origin.address, ranged_for_clients()).start();
    let part = ["Range: bytes=0-20971519"];
    assert_eq!(ranged(&node, &part).await.end, End::Complete);
    node.wait_until_idle().await;
    let mut slow = Connection::open(node.data).await;
    slow.send(&get(&format!("/-/{HOST}/f.bin"), &part)).await;
    let head = slow.head().await;
    assert!(head.field("Cache-Status").is_some_and(|status| status.contains("hit")), "{}", head.raw);
    assert_eq!(node.get("/-/dl.example.com/other", &[]).await.end, End::Complete);
    let checked = slow.checked(&head, content, 0).await;
    assert_eq!((checked.len, checked.first_difference, checked.end), (20 << 20, None, End::Complete));
}
