//! What a level tells the one above of how urgent its requests are (RFC 9218), and whose bytes come first there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

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

/// What a parent does for who is told to come after others, as if there were always some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Modest {
    GivesTheHead,
    SaysNothing,
    /// Once it has given others what they wanted.
    RefusesLate,
}

use Modest::{GivesTheHead, RefusesLate, SaysNothing};

/// A parent that gives nothing to who is told to come after others.
async fn busy_parent(pattern: Pattern, answers: Modest) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, modest) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&modest);
    let served = tokio::sync::watch::Sender::new(Vec::<std::ops::Range<u64>>::new());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (count, served) = (Arc::clone(&count), served.clone());
            tokio::spawn(async move {
                let mut head = Vec::new();
                while stream.read_buf(&mut head).await.is_ok_and(|count| count > 0) {
                    if !head.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let text = String::from_utf8(std::mem::take(&mut head)).unwrap().to_lowercase();
                    let range = text.split("range: bytes=").nth(1).unwrap().lines().next().unwrap();
                    let (from, to) = range.split_once('-').unwrap();
                    let (from, to) = (from.parse::<u64>().unwrap(), to.parse::<u64>().unwrap().min(pattern.len - 1));
                    let answer = format!(
                        "HTTP/1.1 206 Partial Content\r\nETag: \"1\"\r\nContent-Range: bytes {from}-{to}/{}\r\n\
                         Content-Length: {}\r\n\r\n",
                        pattern.len,
                        to + 1 - from
                    );
                    let is_modest = text.contains("\r\npriority: u=");
                    count.fetch_add(usize::from(is_modest), Ordering::Relaxed);
                    match answers {
                        SaysNothing if is_modest => continue,
                        RefusesLate if is_modest => {
                            // Whoever stands before these bytes has asked for them anew.
                            let _ = served.subscribe().wait_for(|all| all.iter().any(|it| it.contains(&from))).await;
                            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
                            continue;
                        }
                        GivesTheHead | SaysNothing | RefusesLate => {}
                    }
                    let _ = stream.write_all(answer.as_bytes()).await;
                    if !is_modest {
                        served.send_modify(|served| served.push(from..to + 1));
                        let _ = stream.write_all(&pattern.slice(from, to + 1)).await;
                    }
                }
            });
        }
    });
    (address, modest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_ahead_is_asked_for_anew_when_a_client_stands_before_it() {
    for answers in [GivesTheHead, SaysNothing] {
        let pattern = Pattern::new(684, 20 * MIB);
        let (address, modest) = busy_parent(pattern, answers).await;
        let node = below(&[url(address)], json!({ "fill": "ranged" })).start();
        let agent = DoAgent::new(node.data);
        agent.download(HOST, LEFT, pattern, &[]).await.must_be(pattern, pattern.sha256());
        assert!(!agent.has_bans() && modest.load(Ordering::Relaxed) > 0, "{answers:?}");
        assert_eq!(state(&node).await["state"], "online", "the parent is not at fault");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_refusal_of_a_request_that_was_let_go_does_not_end_what_goes_on_without_it() {
    let pattern = Pattern::new(686, 60 * MIB);
    let (address, modest) = busy_parent(pattern, RefusesLate).await;
    let node = below(&[url(address)], json!({ "fill": "ranged" })).start();
    must_be(&node.get(&format!("{LEFT}?cacheHostOrigin={HOST}"), &[]).await, pattern);
    assert!(modest.load(Ordering::Relaxed) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_does_not_wait_for_what_was_asked_for_as_if_nobody_did() {
    for answers in [GivesTheHead, SaysNothing] {
        let pattern = Pattern::new(685, 20 * MIB);
        let (address, modest) = busy_parent(pattern, answers).await;
        let node = below(&[url(address)], json!({ "fill": "ranged" })).start();
        // As a cache below does that fetches what nobody waits for.
        let mut child = Connection::open(node.data).await;
        child.send(&get(&format!("{LEFT}?cacheHostOrigin={HOST}"), &["Priority: u=7"])).await;
        until("the parent is not asked", async || modest.load(Ordering::Relaxed) > 0).await;
        let agent = DoAgent::new(node.data);
        agent.download(HOST, LEFT, pattern, &[]).await.must_be(pattern, pattern.sha256());
        assert!(!agent.has_bans(), "{answers:?}");
        drop(child);
    }
}
