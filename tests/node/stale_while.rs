//! Stale content that may be served while it is brought up to date (RFC 5861 section 3), or stands in for an origin that fails
//! (section 4).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use super::rig::client::request;
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Gate, Received, Reply};
use super::rig::pattern::Pattern;
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "dl.example.com";
const TARGET: &str = "/-/dl.example.com/f.bin";
const PATH: &str = "/f.bin";
const WINDOW: &str = "max-age=0, stale-while-revalidate=600";

#[tokio::test]
async fn within_the_window_everybody_is_served_at_once_and_the_origin_is_asked_once() {
    let (old, new, gate) = (Pattern::new(301, 60_000), Pattern::new(302, 70_000), Gate::shut());
    let origin = FakeOrigin::start().await;
    let (held, seen) = (gate.clone(), AtomicUsize::new(0));
    origin.script(PATH, move |_: &Received| match seen.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::file(old).with("Cache-Control", WINDOW),
        _ => Reply::file(new).hold_head(&held),
    });
    let node = Setup::new().origin(HOST, origin.address, json!({})).start();
    assert!(node.get(TARGET, &[]).await.body == old.bytes());
    node.wait_for_fills(1).await;
    for fields in [&[][..], &[], &["Range: bytes=10-19"]] {
        let answer = node.get(TARGET, fields).await;
        let status = answer.head.field("Cache-Status").unwrap_or_default();
        assert!(status.contains("; hit; ttl="), "{}", answer.head.raw);
        assert!(status.ends_with("; detail=stale-while-revalidate"), "{}", answer.head.raw);
        let expected = old.bytes();
        let expected = if fields.is_empty() { &expected[..] } else { &expected[10..20] };
        assert!(answer.body == expected, "{}", answer.head.raw);
    }
    origin.wait_for_requests(2).await;
    assert_eq!(origin.received()[1].field("If-None-Match"), Some("\"12d-ea60\""));
    assert_eq!(origin.received()[1].field("Range"), None);
    gate.open();
    node.wait_for_fills(2).await;
    let answer = node.get(TARGET, &[]).await;
    assert!(answer.body == new.bytes(), "{}", answer.head.raw);
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn who_wants_it_fresh_waits() {
    let pattern = Pattern::new(303, 60_000);
    let origin = FakeOrigin::with(PATH, Reply::file(pattern).with("Cache-Control", WINDOW)).await;
    let node = Setup::new().origin(HOST, origin.address, json!({})).start();
    node.get(TARGET, &[]).await;
    node.wait_for_fills(1).await;
    let answer = node.get(TARGET, &["Cache-Control: max-age=0"]).await;
    assert!(
        answer.head.field("Cache-Status").is_some_and(|s| s.contains("fwd=stale; fwd-status=304")),
        "{}",
        answer.head.raw
    );
    assert_eq!((origin.requests(), origin.body_bytes()), (2, pattern.len));
}

#[tokio::test]
async fn what_the_origin_cuts_is_served_stale_and_it_goes_on_to_serve_the_rest() {
    let pattern = Pattern::new(304, 60_000);
    let origin = FakeOrigin::start().await;
    let seen = AtomicUsize::new(0);
    origin.script(PATH, move |_: &Received| match seen.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::file(pattern).with("Cache-Control", "max-age=0"),
        _ => Reply::file(pattern).cut_after(0),
    });
    origin.serve("/well.bin", Reply::file(pattern).with("Cache-Control", "no-store"));
    let node = Setup::new().origin(HOST, origin.address, json!({})).start();
    node.get(TARGET, &[]).await;
    node.wait_for_fills(1).await;
    for _ in 0..12 {
        assert!(node.get(TARGET, &[]).await.body == pattern.bytes());
        let well = node.get("/-/dl.example.com/well.bin", &[]).await;
        assert_eq!(well.head.status, 200, "{}", well.head.raw);
    }
}

#[tokio::test]
async fn a_refresh_whose_body_no_drive_takes_comes_to_an_end() {
    let (old, new) = (Pattern::new(305, 60_000), Pattern::new(306, (40 << 20) + 5));
    let origin = FakeOrigin::start().await;
    let seen = AtomicUsize::new(0);
    origin.script(PATH, move |_: &Received| match seen.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::file(old).with("Cache-Control", WINDOW),
        _ => Reply::file(new),
    });
    let setup = Setup::new().origin(HOST, origin.address, json!({}));
    let drive = setup.path("drive1").to_str().unwrap().to_owned();
    let drives = json!([{ "path": drive, "quota": "16 MiB", "min_free": 0 }]);
    let node = setup.set("storage.drives", drives).start();
    assert!(node.get(TARGET, &[]).await.body == old.bytes());
    node.wait_for_fills(1).await;
    assert!(node.get(TARGET, &[]).await.body == old.bytes(), "stale, and refreshed meanwhile");
    origin.wait_for_requests(2).await;
    node.wait_until_idle().await;
    // Who wants the new one gets it, though no drive takes it.
    let answer = node.get(TARGET, &["Cache-Control: max-age=0"]).await;
    assert!(answer.body == new.bytes(), "{}", answer.head.raw);
    node.wait_until_idle().await;
}

/// An origin whose file of a minute ago has gone stale and changed, and which says so only when the gate opens.
async fn slow_to_say(old: Pattern, new: Pattern, gate: &Gate) -> (FakeOrigin, RunningNode) {
    let reply = |pattern| Reply::file(pattern).with("Cache-Control", "max-age=0");
    let origin = FakeOrigin::with("/f", reply(old)).await;
    let node = Setup::new().origin(HOST, origin.address, json!({})).start();
    assert!(node.get(&format!("/f?cacheHostOrigin={HOST}"), &[]).await.body == old.bytes());
    node.wait_for_commits().await;
    origin.serve("/f", reply(new).hold_head(gate));
    (origin, node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_slow_origin_says_too_late_for_one_is_there_for_the_next() {
    let (old, new) = (Pattern::new(871, 3_000_000), Pattern::new(872, 3_000_000));
    let gate = Gate::shut();
    let (origin, node) = slow_to_say(old, new, &gate).await;
    origin.limit_rate(4_000_000);
    let target = format!("/f?cacheHostOrigin={HOST}");
    assert!(node.get(&target, &[]).await.body == old.bytes(), "what is stored");
    let head = node.ask(&request("HEAD", &target, &[])).await.head;
    assert_eq!((head.status, head.field("Content-Length")), (200, Some("3000000")), "{}", head.raw);
    assert!(head.field("Cache-Status").is_some_and(|status| status.contains("; detail=silent")), "{}", head.raw);
    gate.open();
    // Nobody asks meanwhile.
    origin.wait_for_bytes(6_000_000).await;
    node.wait_for_commits().await;
    origin.switch_off();
    assert!(node.get(&target, &[]).await.body == new.bytes(), "what came behind the first one's back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wants_it_anew_waits_for_a_slow_origin() {
    let (old, new) = (Pattern::new(873, 3000), Pattern::new(874, 3000));
    let gate = Gate::shut();
    let (origin, node) = slow_to_say(old, new, &gate).await;
    let target = format!("/f?cacheHostOrigin={HOST}");
    let mut answer = Box::pin(node.get(&target, &["Cache-Control: no-cache"]));
    // Longer than who has something stored waits for what is not asked for anew.
    let early = tokio::time::timeout(Duration::from_millis(2500), &mut answer).await;
    assert!(early.is_err(), "{:?}", early.map(|answer| answer.head.raw));
    assert_eq!(origin.requests(), 2);
    gate.open();
    assert!(answer.await.body == new.bytes());
}
