//! What was fetched once is served from the disk, under every way to name the origin.

use std::time::{Duration, Instant};

use serde_json::json;

use super::rig::client::{Connection, End, get, request};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Gate, Reply};
use super::rig::pattern::Pattern;
use super::rig::rules::ranged_for_clients;
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "dl.example.com";

/// A node with one origin that has `/f.bin`.
async fn node_with(pattern: Pattern) -> (RunningNode, FakeOrigin) {
    let origin = FakeOrigin::with("/f.bin", Reply::file(pattern)).await;
    (Setup::new().origin(HOST, origin.address, json!({})).start(), origin)
}

#[tokio::test]
async fn a_second_request_is_a_hit_with_the_origin_off() {
    for len in [0, 1, 1000, 65_536, 65_537, 1 << 20, 3_333_333] {
        let pattern = Pattern::new(11, len);
        let (node, origin) = node_with(pattern).await;
        let target = format!("/f.bin?cacheHostOrigin={HOST}");
        let miss = node.get(&target, &[]).await;
        assert_eq!((miss.head.status, miss.end), (200, End::Complete), "{len}: {}", miss.head.raw);
        assert!(miss.body == pattern.bytes(), "{len}: wrong bytes on the miss");
        origin.switch_off();
        let hit = node.get(&target, &[]).await;
        assert_eq!((hit.head.status, hit.end), (200, End::Complete), "{len}: {}", hit.head.raw);
        assert!(hit.body == pattern.bytes(), "{len}: wrong bytes on the hit");
        assert_eq!((origin.requests(), origin.body_bytes()), (1, len));
    }
}

#[tokio::test]
async fn all_forms_of_a_request_mean_the_same_object() {
    let pattern = Pattern::new(12, 100_000);
    let (node, origin) = node_with(pattern).await;
    let forms = [
        get(&format!("/f.bin?cacheHostOrigin={HOST}"), &[]),
        get("/f.bin?CACHEHOSTORIGIN=DL.Example.COM.", &[]),
        get(&format!("http://{HOST}/f.bin"), &[&format!("Host: {HOST}")]),
        get(&format!("http://{HOST}/f.bin"), &["Host: something.else.example"]),
        get(&format!("/-/{HOST}/f.bin"), &[]),
        get("/f.bin", &[&format!("Host: {HOST}")]),
        get("/f.bin", &[&format!("Host: {HOST}:80")]),
        get("/%66.bin", &[&format!("Host: {HOST}")]),
        format!("GET /f.bin HTTP/1.0\r\nHost: {HOST}\r\n\r\n"),
    ];
    for form in forms {
        let answer = node.ask(&form).await;
        assert_eq!(answer.head.status, 200, "{form}{}", answer.head.raw);
        assert!(answer.body == pattern.bytes(), "{form}");
    }
    assert_eq!(origin.requests(), 1, "{:?}", origin.received());
    let received = &origin.received()[0];
    assert_eq!((received.target.as_str(), received.field("Host")), ("/f.bin", Some(HOST)));
}

#[tokio::test]
async fn the_origin_gets_the_target_as_it_was_written() {
    let (node, origin) = node_with(Pattern::new(1, 10)).await;
    let path = "/a%20b/C%2Fd/x~y(1).cab";
    origin.serve(path, Reply::file(Pattern::new(2, 10)));
    let query = "P1=1&P2=a%2Bb%3D%3D&sig=x%20y";
    let answer = node.get(&format!("{path}?{query}&cacheHostOrigin={HOST}"), &[]).await;
    assert_eq!(answer.head.status, 200, "{}", answer.head.raw);
    assert_eq!(origin.received()[0].target, format!("{path}?{query}"));
    let middle = node.get(&format!("{path}?P1=1&cacheHostOrigin={HOST}&P2=2"), &[]).await;
    assert_eq!((middle.head.status, origin.received()[1].target.clone()), (200, format!("{path}?P1=1&P2=2")));
}

#[tokio::test]
async fn the_default_origin_takes_what_names_no_other() {
    let pattern = Pattern::new(13, 5000);
    let origin = FakeOrigin::with("/f.bin", Reply::file(pattern)).await;
    let setup = Setup::new().origin(HOST, origin.address, json!({}));
    let node = setup.set("reverse.default_origin", json!(format!("http://{HOST}"))).start();
    let answer = node.get("/f.bin", &[&format!("Host: {}", node.data)]).await;
    assert_eq!((answer.head.status, answer.body == pattern.bytes()), (200, true), "{}", answer.head.raw);
}

#[tokio::test]
async fn pipelined_requests_on_one_connection_are_answered_in_order() {
    let (node, origin) = node_with(Pattern::new(14, 100)).await;
    let patterns: Vec<_> = (0..12).map(|n| Pattern::new(100 + n, 500 + 7000 * n)).collect();
    for (n, pattern) in patterns.iter().enumerate() {
        origin.serve(&format!("/p/{n}"), Reply::file(*pattern));
    }
    for _cold_then_warm in 0..2 {
        let mut connection = Connection::open(node.data).await;
        let all: String = (0..12).map(|n| get(&format!("/-/{HOST}/p/{n}"), &[])).collect();
        connection.send(&all).await;
        for pattern in &patterns {
            let answer = connection.answer(false).await;
            assert_eq!((answer.head.status, answer.body == pattern.bytes()), (200, true), "{}", answer.head.raw);
        }
    }
    assert_eq!(origin.requests(), 12);
}

#[tokio::test]
async fn a_404_does_not_end_the_connection() {
    let pattern = Pattern::new(15, 2000);
    let (node, _origin) = node_with(pattern).await;
    let mut connection = Connection::open(node.data).await;
    connection.send(&get(&format!("/-/{HOST}/absent"), &[])).await;
    assert_eq!(connection.answer(false).await.head.status, 404);
    connection.send(&get(&format!("/-/{HOST}/f.bin"), &[])).await;
    assert!(connection.answer(false).await.body == pattern.bytes());
}

#[tokio::test]
async fn head_starts_no_fill_on_a_miss_and_is_answered_from_the_store_on_a_hit() {
    let pattern = Pattern::new(16, 200_000);
    let (node, origin) = node_with(pattern).await;
    let head = request("HEAD", &format!("/-/{HOST}/f.bin"), &[]);
    let miss = node.ask(&head).await;
    assert_eq!((miss.head.status, miss.head.exact("Content-Length")), (200, Some("200000")), "{}", miss.head.raw);
    let methods: Vec<_> = origin.received().iter().map(|received| received.method.clone()).collect();
    assert_eq!((methods, origin.body_bytes()), (vec!["HEAD".to_owned()], 0));

    assert_eq!(node.get(&format!("/-/{HOST}/f.bin"), &[]).await.head.status, 200);
    origin.switch_off();
    let hit = node.ask(&head).await;
    assert_eq!((hit.head.status, hit.head.exact("Content-Length")), (200, Some("200000")), "{}", hit.head.raw);
    assert!(hit.body.is_empty());
}

#[tokio::test]
async fn head_tells_the_full_length_while_the_body_is_filling() {
    let pattern = Pattern::new(17, 2_000_000);
    let (node, origin) = node_with(pattern).await;
    let gate = Gate::shut();
    origin.serve("/f.bin", Reply::file(pattern).hold_at(500_000, &gate));
    let mut first = Connection::open(node.data).await;
    first.send(&get(&format!("/-/{HOST}/f.bin"), &[])).await;
    let first_head = first.head().await;
    let head = node.ask(&request("HEAD", &format!("/-/{HOST}/f.bin"), &[])).await;
    assert_eq!((head.head.status, head.head.exact("Content-Length")), (200, Some("2000000")), "{}", head.head.raw);
    assert_eq!(origin.requests(), 1);
    gate.open();
    let checked = first.checked(&first_head, pattern, 0).await;
    assert_eq!((checked.len, checked.first_difference), (2_000_000, None));
}

#[tokio::test]
async fn bytes_are_given_on_before_the_origin_has_sent_them_all() {
    let pattern = Pattern::new(18, 3_000_000);
    let (node, origin) = node_with(pattern).await;
    let gate = Gate::shut();
    origin.serve("/f.bin", Reply::file(pattern).hold_at(1_500_000, &gate));
    let mut followers = Vec::new();
    for _ in 0..5 {
        let mut connection = Connection::open(node.data).await;
        connection.send(&get(&format!("/-/{HOST}/f.bin"), &[])).await;
        let head = connection.head().await;
        let mut framing = head.framing(false);
        let mut got = Vec::new();
        while got.len() < 1_000_000 {
            got.extend(connection.piece(&mut framing, 1 << 16).await.unwrap().unwrap());
        }
        assert_eq!(pattern.first_difference(0, &got), None);
        followers.push((connection, framing, got.len() as u64));
    }
    gate.open();
    for (mut connection, mut framing, mut len) in followers {
        while let Some(piece) = connection.piece(&mut framing, 1 << 16).await.unwrap() {
            assert_eq!(pattern.first_difference(len, &piece), None);
            len += piece.len() as u64;
        }
        assert_eq!(len, pattern.len);
    }
    assert_eq!((origin.requests(), origin.body_bytes()), (1, pattern.len));
}

#[tokio::test]
async fn two_urls_with_equal_bytes_are_one_file_on_disk_that_sha256sum_confirms() {
    let pattern = Pattern::new(19, 700_000);
    let (node, origin) = node_with(pattern).await;
    origin.serve("/other.bin", Reply::file(pattern));
    for path in ["f.bin", "other.bin"] {
        assert!(node.get(&format!("/-/{HOST}/{path}"), &[]).await.body == pattern.bytes());
    }
    let setup = node.stop().await;
    let blobs = super::rig::running_node::files_below(&setup.path("drive1").join("blobs"));
    let hex: String = pattern.sha256().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(blobs, [setup.path("drive1/blobs/sha256").join(&hex[..2]).join(&hex[2..])]);
    assert!(std::fs::read(&blobs[0]).unwrap() == pattern.bytes());
}

/// Of a body that is taken up what was there is a hit, and only the rest a miss.
#[tokio::test]
async fn stored_bytes_of_a_body_that_is_taken_up_are_no_misses() {
    let pattern = Pattern::new(823, 8 << 20);
    let origin = FakeOrigin::with("/f.bin", Reply::file(pattern)).await;
    let node = Setup::new().origin(HOST, origin.address, ranged_for_clients()).start();
    let target = format!("/-/{HOST}/f.bin");
    let counted = async |name: &str| node.metric(name, "").await as u64;
    let is_counted = async |result: &str, count: f64| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while node.metric("waystation_requests_total", &format!("result=\"{result}\"")).await < count {
            assert!(Instant::now() < deadline, "{count} requests do not count as {result}");
        }
    };
    assert_eq!(node.get(&target, &["Range: bytes=1048576-4194303"]).await.head.status, 206);
    node.wait_until_idle().await;
    is_counted("miss", 1.0).await;
    assert_eq!(
        (counted("waystation_hit_bytes_total").await, counted("waystation_miss_bytes_total").await),
        (0, 3 << 20)
    );
    let paid = origin.body_bytes();
    let whole = node.get(&target, &[]).await;
    assert!(whole.end == End::Complete && whole.body == pattern.bytes(), "{}", whole.head.raw);
    let said = whole.head.field("Cache-Status").unwrap_or_default();
    assert!(said.contains("; fwd=partial; fwd-status=206"), "{said}");
    is_counted("partial", 1.0).await;
    let (hits, misses) = (counted("waystation_hit_bytes_total").await, counted("waystation_miss_bytes_total").await);
    assert_eq!((hits, misses), (paid, (3 << 20) + pattern.len - paid));
    assert_eq!(origin.body_bytes(), pattern.len, "each byte was paid for once");
}
