//! Refusals and faults: who gets which status, and what is never said to a device.

use std::time::Duration;

use serde_json::json;

use super::rig::client::{Answer, Connection, End, get, request};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Gate, Reply};
use super::rig::pattern::Pattern;
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "dl.example.com";
const AGENT: &str = "User-Agent: Microsoft-Delivery-Optimization-Lite/10.0.0.1";

async fn node_with(reply: Reply) -> (RunningNode, FakeOrigin) {
    let origin = FakeOrigin::with("/f.bin", reply).await;
    (Setup::new().origin(HOST, origin.address, json!({})).start(), origin)
}

async fn fetch(node: &RunningNode, path: &str) -> Answer {
    node.get(&format!("/-/{HOST}{path}"), &[]).await
}

#[tokio::test]
async fn an_origin_without_a_rule_gets_403() {
    let (node, origin) = node_with(Reply::file(Pattern::new(41, 10))).await;
    let refused = [
        get("/f.bin?cacheHostOrigin=evil.example", &[]),
        get("http://evil.example/f.bin", &[]),
        get("/-/evil.example/f.bin", &[]),
        get("/f.bin", &["Host: evil.example"]),
        get(&format!("/f.bin?cacheHostOrigin=x.{HOST}"), &[]),
        get("/f.bin?cacheHostOrigin=127.0.0.1", &[]),
        get("/f.bin?cacheHostOrigin=169.254.169.254", &[]),
    ];
    for text in refused {
        let answer = node.ask(&text).await;
        assert_eq!(answer.head.status, 403, "{text}{}", answer.head.raw);
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn what_cannot_be_understood_gets_400() {
    let (node, origin) = node_with(Reply::file(Pattern::new(42, 10))).await;
    let doubled = format!("/f.bin?cacheHostOrigin={HOST}&cacheHostOrigin={HOST}&x=1");
    let malformed = [
        get(&doubled, &[]),
        format!("GET /-/{HOST}/f.bin HTTP/1.1\r\n\r\n"),
        format!("GET /-/{HOST}/f.bin HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        format!("GET /-/{HOST}/f.bin HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
        format!("GET /-/{HOST}/f.bin HTTP/1.1\r\nHost : a\r\n\r\n"),
        format!("GET /-/{HOST}/f.bin HTTP/1.1\nHost: a\r\n\r\n"),
    ];
    for text in malformed {
        let answer = node.ask(&text).await;
        assert_eq!(answer.head.status, 400, "{text}{}", answer.head.raw);
    }
    assert_eq!(origin.requests(), 0);
    let last = format!("/f.bin?cacheHostOrigin=evil.example&cacheHostOrigin={HOST}");
    assert_eq!(node.get(&last, &[]).await.head.status, 200, "the last one counts when it is the final parameter");
}

#[tokio::test]
async fn methods_that_are_not_allowed_get_405() {
    let (node, origin) = node_with(Reply::file(Pattern::new(43, 10))).await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
        let answer = node.ask(&request(method, &format!("/-/{HOST}/f.bin"), &["Content-Length: 0"])).await;
        assert_eq!(answer.head.status, 405, "{method}: {}", answer.head.raw);
    }
    let connect = node.ask(&format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n")).await;
    assert_eq!(connect.head.status, 405, "{}", connect.head.raw);
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn redirects_are_followed_inside_and_refused_to_strangers() {
    let pattern = Pattern::new(44, 100_000);
    let (node, origin) = node_with(Reply::file(pattern)).await;
    origin.serve("/relative", Reply::status(302, "").with("Location", "/f.bin"));
    origin.serve("/absolute", Reply::status(301, "").with("Location", &format!("http://{HOST}/f.bin")));
    origin.serve("/stranger", Reply::status(302, "").with("Location", "http://evil.example/f.bin"));
    origin.serve("/metadata", Reply::status(302, "").with("Location", "http://169.254.169.254/latest"));
    origin.serve("/circle", Reply::status(302, "").with("Location", "/circle"));
    for path in ["/relative", "/absolute"] {
        let answer = fetch(&node, path).await;
        assert_eq!((answer.head.status, answer.body == pattern.bytes()), (200, true), "{path}: {}", answer.head.raw);
    }
    for path in ["/stranger", "/metadata", "/circle"] {
        let answer = fetch(&node, path).await;
        assert!(answer.head.status >= 500, "{path}: {}", answer.head.raw);
        assert_eq!(answer.head.field("Location"), None, "{path}");
    }
}

#[tokio::test]
async fn a_404_is_kept_for_a_moment() {
    let origin = FakeOrigin::start().await;
    let negative = json!({ "freshness": { "negative": "300ms" } });
    let node = Setup::new().origin(HOST, origin.address, negative).start();
    for _ in 0..5 {
        assert_eq!(fetch(&node, "/late").await.head.status, 404);
    }
    assert!(origin.requests() < 5, "{}", origin.requests());
    let pattern = Pattern::new(45, 10);
    origin.serve("/late", Reply::file(pattern));
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while fetch(&node, "/late").await.head.status == 404 {
        assert!(std::time::Instant::now() < deadline, "the 404 stays");
    }
}

#[tokio::test]
async fn a_404_of_a_shielded_file_is_a_503_for_agents_only() {
    let (node, _origin) = node_with(Reply::file(Pattern::new(46, 10))).await;
    let path = format!("/dists/stable/InRelease?cacheHostOrigin={HOST}");
    assert_eq!(node.get(&path, &[AGENT]).await.head.status, 503);
    assert_eq!(node.get(&path, &[]).await.head.status, 404);
    assert_eq!(node.get(&format!("/other?cacheHostOrigin={HOST}"), &[AGENT]).await.head.status, 404);
}

#[tokio::test]
async fn server_errors_pass_and_are_not_kept() {
    let (node, origin) = node_with(Reply::status(502, "bad")).await;
    for status in [500, 502, 503] {
        origin.serve("/f.bin", Reply::status(status, "bad"));
        assert_eq!(fetch(&node, "/f.bin").await.head.status, status);
    }
    origin.serve("/f.bin", Reply::file(Pattern::new(47, 10)));
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while fetch(&node, "/f.bin").await.head.status != 200 {
        assert!(std::time::Instant::now() < deadline, "the origin is well, but not asked");
    }
}

#[tokio::test]
async fn with_the_origin_away_and_nothing_stored_there_is_an_empty_503() {
    let (node, origin) = node_with(Reply::file(Pattern::new(48, 10))).await;
    origin.switch_off();
    for _ in 0..3 {
        let answer = fetch(&node, "/f.bin").await;
        assert_eq!((answer.head.status, answer.head.exact("Content-Length")), (503, Some("0")), "{}", answer.head.raw);
        assert!(answer.head.field("Retry-After").is_some(), "{}", answer.head.raw);
    }
}

#[tokio::test]
async fn a_silent_origin_becomes_a_503_in_time() {
    let gate = Gate::shut();
    let origin = FakeOrigin::with("/f.bin", Reply::file(Pattern::new(49, 10)).hold_head(&gate)).await;
    let setup = Setup::new().origin(HOST, origin.address, json!({}));
    let node = setup.set("upstream.timeouts", json!({ "first_byte": "500ms", "request": "1s" })).start();
    let answer = fetch(&node, "/f.bin").await;
    assert_eq!((answer.head.status, answer.head.exact("Content-Length")), (503, Some("0")), "{}", answer.head.raw);
}

#[tokio::test]
async fn old_content_is_served_when_the_origin_is_away() {
    let pattern = Pattern::new(50, 100_000);
    let (node, origin) = node_with(Reply::file(pattern).with("Cache-Control", "max-age=0")).await;
    origin.serve("/strict", Reply::file(pattern).with("Cache-Control", "max-age=0, must-revalidate"));
    assert_eq!(fetch(&node, "/f.bin").await.head.status, 200);
    assert_eq!(fetch(&node, "/strict").await.head.status, 200);
    node.wait_for_fills(2).await;
    origin.switch_off();
    for _ in 0..2 {
        let stale = fetch(&node, "/f.bin").await;
        assert_eq!((stale.head.status, stale.body == pattern.bytes()), (200, true), "{}", stale.head.raw);
    }
    assert_eq!(fetch(&node, "/strict").await.head.status, 503);
    origin.switch_on();
    origin.serve("/f.bin", Reply::status(500, "bad"));
    assert_eq!(fetch(&node, "/f.bin").await.head.status, 200, "stale goes before a server error");
}

#[tokio::test]
async fn a_body_that_was_cut_at_the_origin_is_completed_by_ranges() {
    let pattern = Pattern::new(51, 3_000_000);
    let (node, origin) = node_with(Reply::file(pattern).cut_after(1_000_000)).await;
    let answer = fetch(&node, "/f.bin").await;
    assert_eq!((answer.head.status, answer.end), (200, End::Complete), "{} of {}", answer.body.len(), answer.head.raw);
    assert!(answer.body == pattern.bytes());
    assert!(origin.body_bytes() <= pattern.len + pattern.len / 50, "{}", origin.body_bytes());
}

#[tokio::test]
async fn a_cut_body_of_an_origin_without_ranges_is_compared_from_its_start() {
    let pattern = Pattern::new(52, 1_000_000);
    let (node, origin) = node_with(Reply::bare(pattern)).await;
    let tries = std::sync::atomic::AtomicU32::new(0);
    origin.script("/f.bin", move |_| {
        let reply = Reply::bare(pattern).without_ranges().with("Cache-Control", "max-age=60");
        let first = tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        if first { reply.cut_after(400_000) } else { reply }
    });
    let answer = fetch(&node, "/f.bin").await;
    assert_eq!(pattern.first_difference(0, &answer.body), None);
    if answer.end == End::Cut {
        let again = fetch(&node, "/f.bin").await;
        assert!(again.body == pattern.bytes() && again.end == End::Complete, "{}", again.head.raw);
    }
}

#[tokio::test]
async fn an_agent_is_cut_off_before_a_stalled_body_makes_it_ban_the_cache() {
    let pattern = Pattern::new(53, 1_000_000);
    let (node, _origin) = node_with(Reply::file(pattern).hold_at(300_000, &Gate::shut())).await;
    let mut connection = Connection::open(node.data).await;
    connection.send(&get(&format!("/f.bin?cacheHostOrigin={HOST}"), &[AGENT])).await;
    let start = std::time::Instant::now();
    let answer = connection.answer(false).await;
    assert_eq!((answer.head.status, answer.end), (200, End::Cut), "{}", answer.head.raw);
    assert_eq!(pattern.first_difference(0, &answer.body), None);
    assert!(start.elapsed() < Duration::from_secs(18), "silent for {:?}", start.elapsed());
}

#[tokio::test]
async fn a_head_that_is_too_long_gets_431() {
    let (node, _origin) = node_with(Reply::file(Pattern::new(54, 10))).await;
    let long = format!("X-Long: {}", "a".repeat(40_000));
    let mut connection = Connection::open(node.data).await;
    let _ = connection.try_send(get(&format!("/-/{HOST}/f.bin"), &[&long]).as_bytes()).await;
    assert_eq!(connection.answer(false).await.head.status, 431);
}

#[tokio::test]
async fn a_refused_head_has_one_line_that_says_why_and_nothing_that_it_holds() {
    let (node, _origin) = node_with(Reply::file(Pattern::new(55, 10))).await;
    let secret = "GET /f.bin?sig=s3cret HTTP/1.1\nHost: a\r\nAuthorization: s3cret\r\n\r\n";
    assert_eq!(node.ask(secret).await.head.status, 400);
    assert!(node.says("\"reason\":\"bare-lf\""));
    assert_eq!(node.get("/f.bin?cacheHostOrigin=evil.example&sig=s3cret", &[]).await.head.status, 403);
    assert!(node.says("\"reason\":\"unknown-origin\""));
    let line = node.said().lines().find(|line| line.contains("bare-lf")).unwrap().to_owned();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&line["client"], &line["status"], &line["result"]),
        (&json!("127.0.0.1"), &json!(400), &json!("refused")),
        "{line}"
    );
    assert!(!node.said().contains("s3cret"), "{}", node.said());

    // Who sends nonsense without end does not fill the disk.
    for _ in 0..300 {
        assert_eq!(node.ask("NONSENSE\r\n\r\n").await.head.status, 400);
    }
    let unlogged = node.metric("waystation_refusals_unlogged_total", "").await;
    let refused = node.metric("waystation_bad_requests_total", "").await;
    assert!(unlogged >= 100.0 && refused == 301.0, "{unlogged} of {refused}");
    let lines = || node.said().lines().filter(|line| line.contains("\"reason\":\"target\"")).count() as f64;
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while lines() + unlogged < 300.0 {
        assert!(std::time::Instant::now() < deadline, "{} lines, {unlogged} unlogged", lines());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(lines() + unlogged, 300.0);
}
