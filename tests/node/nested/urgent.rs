//! What a level tells the one above of how urgent its requests are (RFC 9218), and whose bytes come first there.

use rustix::process::Signal;

use super::super::rig::slow_client::{self, Pace};
use super::*;

const LEFT: &str = "/left.swu";
const MB: u64 = 1_000_000;

/// A download of [`LEFT`] that takes next to nothing of what comes.
async fn begun(node: &RunningNode, fields: &[&str]) -> Connection {
    let pace = Pace { window: 16 * 1024, bytes_per_second: 1, sip: 1 };
    let mut connection = slow_client::connect(node.data, pace).await;
    connection.send(&get(&format!("{LEFT}?cacheHostOrigin={HOST}"), fields)).await;
    assert_eq!(connection.head().await.status, 200);
    connection
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_is_told_what_is_read_ahead_and_what_nobody_waits_for() {
    let parent = FakeOrigin::with(LEFT, Reply::file(Pattern::new(681, 100 * MB))).await;
    parent.limit_rate(8 * MB);
    let rule = json!({ "fill": "ranged", "abandon": "complete" });
    let node = below(&[url(parent.address)], rule).start();
    let said = |value: Option<&str>| {
        let requests = parent.received();
        requests.iter().any(|request| request.field("Priority") == value)
    };
    // What a client says of its own is not said of a request for all.
    let client = begun(&node, &["Priority: u=1, i"]).await;
    until("read-ahead is not told", async || said(Some("u=5"))).await;
    assert!(parent.received()[0].field("Priority").is_none() && !said(Some("u=7")));
    drop(client);
    until("that nobody waits is not told", async || said(Some("u=7"))).await;
    assert!(!parent.received().iter().any(|request| request.field("Priority").is_some_and(|it| it.contains("u=1"))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_at_the_parent_comes_before_what_a_child_reads_ahead() {
    for stays in [true, false] {
        let (left, wanted) = (Pattern::new(682, 120 * MB), Pattern::new(683, MB));
        let origin = FakeOrigin::with(LEFT, Reply::file(left)).await;
        origin.serve("/wanted", Reply::file(wanted));
        let rule = json!({ "fill": "ranged", "abandon": "complete" });
        let budget = |rate: &str| json!({ "rate": rate });
        let parent = top(&origin, rule.clone()).set("upstream.budget", budget("20 MB/s")).start();
        let child = below(&[url(parent.data)], rule).start();
        let client = begun(&child, &[]).await;
        // By then all that is asked for lies far ahead of the client, and of what its sockets took.
        until("the child does not read ahead", async || {
            child.metric("waystation_upstream_bytes_total", "").await > 3e7
        })
        .await;
        let kept = stays.then_some(client);
        if !stays {
            until("the client is not missed", async || child.metric("waystation_requests_in_flight", "").await == 0.0)
                .await;
        }
        let _command = parent.setup().clone().set("upstream.budget", budget("400 kB/s")).command();
        parent.signal(Signal::HUP);
        until("the budget is not obeyed", async || {
            parent.metric("waystation_upstream_budget_rate_bytes", "").await == 4e5
        })
        .await;
        let before = parent.metric("waystation_upstream_bytes_total", "").await;
        must_be(&parent.get(&format!("/wanted?cacheHostOrigin={HOST}"), &[]).await, wanted);
        let came = parent.metric("waystation_upstream_bytes_total", "").await - before;
        assert!(came < 1.4e6, "stays: {stays}: {came} bytes came meanwhile, of which 1 MB were waited for");
        assert!(parent.metric("waystation_fills_active", "").await >= 1.0, "the child's fill goes on");
        drop(kept);
    }
}
