//! The budget of upstream bytes: rates, hours, the bytes of a day, whose bytes come first, and other settings on SIGHUP.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::rig::client::{Answer, Connection, Head, get, once};
use super::rig::do_client::DoAgent;
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::Reply;
use super::rig::pattern::Pattern;
use super::rig::rules::Mode;
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "packages.example.com";
const PATIENCE: Duration = Duration::from_secs(60);
const MB: u64 = 1_000_000;

fn asked(path: &str) -> String {
    format!("{path}?cacheHostOrigin={HOST}")
}

fn with_budget(origin: SocketAddr, rule: Value, budget: Value) -> Setup {
    Setup::new().origin(HOST, origin, rule).set("upstream.budget", budget)
}

fn must_be(answer: &Answer, pattern: Pattern) {
    assert_eq!(answer.head.status, 200, "{}", answer.head.raw);
    assert!(answer.body == pattern.bytes(), "wrong bytes");
}

/// Writes the budget into the node's file and tells it.
fn change_budget(node: &RunningNode, budget: Value) {
    // Writes the file.
    let _command = node.setup().clone().set("upstream.budget", budget).command();
    node.signal(Signal::HUP);
}

async fn state(node: &RunningNode) -> Value {
    let answer = once(node.admin, &get("/readyz", &[])).await;
    assert_eq!(answer.head.status, 200, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}

async fn until<T>(what: &str, mut step: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = step().await {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_from_upstream_keeps_to_the_rate_and_what_is_stored_does_not() {
    for mode in Mode::BOTH {
        let pattern = Pattern::new(911, 3 * MB);
        let origin = FakeOrigin::with("/image.swu", Reply::file(pattern)).await;
        let node = with_budget(origin.address, mode.rule(), json!({ "rate": "1 MB/s" })).start();
        let begun = Instant::now();
        let agent = DoAgent::new(node.data);
        agent.download(HOST, "/image.swu", pattern, &[]).await.must_be(pattern, pattern.sha256());
        // All but what may come at once, and the last piece.
        assert!(begun.elapsed() > Duration::from_millis(2600), "{mode:?}: {:?} for 3 MB at 1 MB/s", begun.elapsed());
        assert!(!agent.has_bans());
        assert_eq!(origin.body_bytes(), pattern.len, "{mode:?}");
        node.wait_for_fills(1).await;
        let hit = Instant::now();
        must_be(&node.get(&asked("/image.swu"), &[]).await, pattern);
        assert!(hit.elapsed() < begun.elapsed(), "a hit is not slowed");
        assert_eq!(node.metric("waystation_upstream_budget_rate_bytes", "").await, 1e6);
        assert_eq!(node.metric("waystation_upstream_budget_day_bytes", "").await, pattern.len as f64);
    }
}

#[tokio::test]
async fn a_closed_budget_asks_nobody_and_serves_what_is_stored() {
    let pattern = Pattern::new(912, 100_000);
    let origin = FakeOrigin::with("/stored", Reply::file(pattern).with("Cache-Control", "max-age=0")).await;
    origin.serve("/new", Reply::file(pattern));
    let node = with_budget(origin.address, json!({}), json!({ "rate": null })).start();
    must_be(&node.get(&asked("/stored"), &[]).await, pattern);
    node.wait_for_fills(1).await;
    let requests = origin.requests();

    change_budget(&node, json!({ "rate": "closed" }));
    assert!(node.says("the upstream budget is closed"));
    assert!(node.says("changed settings are obeyed"));
    must_be(&node.get(&asked("/stored"), &[]).await, pattern);
    let answer = node.get(&asked("/new"), &[]).await;
    assert_eq!(answer.head.status, 503, "{}", answer.head.raw);
    assert_eq!(answer.head.field("Content-Length"), Some("0"));
    assert!(answer.head.field("Retry-After").is_some(), "{}", answer.head.raw);
    assert!(answer.head.field("Cache-Status").unwrap().contains("over-budget"), "{}", answer.head.raw);
    assert_eq!(origin.requests(), requests, "nobody is asked");
    let state = state(&node).await;
    assert_eq!(state["state"], "offline", "{state}");
    assert!(state.to_string().contains("the upstream budget is closed"), "{state}");
    assert_eq!(node.metric("waystation_upstream_budget_open", "").await, 0.0);

    change_budget(&node, json!({ "rate": null }));
    assert!(node.says("the upstream budget is open"));
    must_be(&node.get(&asked("/new"), &[]).await, pattern);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_that_closes_in_the_middle_of_a_body_loses_none_of_it() {
    for mode in Mode::BOTH {
        let pattern = Pattern::new(913, 6 * MB);
        let origin = FakeOrigin::with("/image.swu", Reply::file(pattern)).await;
        origin.limit_rate(2 * MB);
        origin.keep_sockets_short();
        let node = with_budget(origin.address, mode.rule(), json!({ "rate": null })).start();
        let mut connection = Connection::open(node.data).await;
        connection.send(&get(&asked("/image.swu"), &[])).await;
        let head = connection.head().await;
        assert_eq!(head.status, 200);
        until("no byte comes", async || (node.metric("waystation_upstream_bytes_total", "").await > 1e6).then_some(()))
            .await;
        change_budget(&node, json!({ "rate": "closed" }));
        assert!(node.says("the upstream budget is closed"));
        until("requests go on", async || {
            (node.metric("waystation_upstream_budget_open", "").await == 0.0).then_some(())
        })
        .await;
        change_budget(&node, json!({ "rate": "4 MB/s" }));
        let checked = connection.checked(&head, pattern, 0).await;
        assert_eq!((checked.len, checked.first_difference), (pattern.len, None), "{mode:?}: {checked:?}");
        // What stood in the sockets when it closed comes again.
        assert!(origin.body_bytes() < pattern.len + MB, "{mode:?}: {} bytes", origin.body_bytes());
    }
}

/// A download of a file of which the budget lets about a megabyte come before it is closed.
async fn begun(node: &RunningNode, agent: &str) -> (Connection, Head) {
    let mut connection = Connection::open(node.data).await;
    connection.send(&get(&asked("/image.swu"), &[&format!("User-Agent: {agent}")])).await;
    let head = connection.head().await;
    assert_eq!(head.status, 200, "{}", head.raw);
    (connection, head)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_would_wait_in_vain_for_the_budget_to_open_is_cut_and_resumes() {
    for mode in Mode::BOTH {
        let pattern = Pattern::new(923, 6 * MB);
        let origin = FakeOrigin::with("/image.swu", Reply::file(pattern)).await;
        origin.limit_rate(MB);
        origin.keep_sockets_short();
        let node = with_budget(origin.address, mode.rule(), json!({ "rate": null })).start();
        let (mut plain, head) = begun(&node, "curl/8").await;
        let (agent, _) = begun(&node, "Microsoft-Delivery-Optimization/10.1").await;
        until("no byte comes", async || (node.metric("waystation_upstream_bytes_total", "").await > 1e6).then_some(()))
            .await;
        change_budget(&node, json!({ "rate": "closed" }));
        let cut = plain.checked(&head, pattern, 0).await;
        assert!(cut.len > 0 && cut.len < pattern.len && cut.first_difference.is_none(), "{mode:?}: {cut:?}");
        assert!(node.says("\"cut\":\"the upstream budget is closed\""));
        assert_eq!(node.said().matches("\"cut\":").count(), 1, "an agent has rules of its own: {}", node.said());
        drop(agent);
        change_budget(&node, json!({ "rate": null }));
        assert!(node.says("the upstream budget is open"));
        until("it cannot be resumed", async || {
            let rest = node.get(&asked("/image.swu"), &[&format!("Range: bytes={}-", cut.len)]).await;
            assert_eq!(rest.head.status, 206, "{mode:?}: {}", rest.head.raw);
            (rest.body == pattern.slice(cut.len, pattern.len)).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opening_that_is_near_is_waited_for() {
    let pattern = Pattern::new(924, 3 * MB);
    let origin = FakeOrigin::with("/image.swu", Reply::file(pattern)).await;
    origin.limit_rate(MB);
    let node = with_budget(origin.address, json!({}), json!({ "rate": null })).start();
    let (mut plain, head) = begun(&node, "curl/8").await;
    // Longer than it takes to be sure that nothing comes.
    let second = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let window = json!({ "from": clock(second + 10), "to": clock(second + 3610) });
    change_budget(&node, json!({ "rate": "closed", "windows": [window] }));
    assert!(node.says("the upstream budget is closed until"));
    let checked = plain.checked(&head, pattern, 0).await;
    assert_eq!((checked.len, checked.first_difference), (pattern.len, None), "{checked:?}");
}

/// A time of day.
fn clock(second: u64) -> String {
    let second = second % 86_400;
    format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

#[tokio::test]
async fn the_bytes_of_a_day_are_counted_over_restarts() {
    let pattern = Pattern::new(914, 1_200_000);
    let origin = FakeOrigin::with("/first", Reply::file(pattern)).await;
    origin.serve("/second", Reply::file(pattern));
    let node = with_budget(origin.address, json!({}), json!({ "daily": "1 MB" })).start();
    let mut connection = Connection::open(node.data).await;
    connection.send(&get(&asked("/first"), &[])).await;
    connection.head().await;
    // What has come when it closes is given on; the rest is asked for on the next day.
    // Some of it has come together with the head.
    let (mut client, mut came) = connection.into_stream();
    while came.len() < 1_000_000 {
        assert!(client.read_buf(&mut came).await.unwrap() > 0, "cut after {} bytes: {}", came.len(), node.said());
    }
    drop(client);
    until("it stays open", async || {
        let answer = node.get(&asked("/second"), &[]).await;
        (answer.head.status == 503).then_some(())
    })
    .await;
    assert!(node.says("the bytes of the day have come"), "{}", node.said());
    let setup = node.stop().await;
    let node = setup.start();
    assert_eq!(node.get(&asked("/second"), &[]).await.head.status, 503, "the day has no second budget");
    assert!(node.metric("waystation_upstream_budget_day_bytes", "").await >= 1e6);
    change_budget(&node, json!({ "daily": "2 GB" }));
    assert!(node.says("the upstream budget is open"));
    must_be(&node.get(&asked("/second"), &[]).await, pattern);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_waits_for_comes_before_what_nobody_does() {
    let (left, wanted) = (Pattern::new(915, 40 * MB), Pattern::new(916, MB));
    let origin = FakeOrigin::with("/left", Reply::file(left)).await;
    origin.serve("/wanted", Reply::file(wanted));
    let rule = json!({ "fill": "ranged", "abandon": "complete" });
    let node = with_budget(origin.address, rule, json!({ "rate": "400 kB/s" })).start();
    let mut connection = Connection::open(node.data).await;
    connection.send(&get(&asked("/left"), &[])).await;
    assert_eq!(connection.head().await.status, 200);
    assert!(connection.read_more(1000).await.unwrap() > 0);
    drop(connection);
    // The leader notices that nobody is there.
    until("it stops", async || (node.metric("waystation_requests_in_flight", "").await == 0.0).then_some(())).await;
    let before = node.metric("waystation_upstream_bytes_total", "").await;
    must_be(&node.get(&asked("/wanted"), &[]).await, wanted);
    let came = node.metric("waystation_upstream_bytes_total", "").await - before;
    assert!(came < 1.3e6, "{came} bytes came meanwhile, of which 1 MB were waited for");
    assert!(node.metric("waystation_fills_active", "").await >= 1.0, "the other one goes on");
}

#[tokio::test]
async fn a_window_opens_by_the_clock() {
    let pattern = Pattern::new(917, 100_000);
    let origin = FakeOrigin::with("/file", Reply::file(pattern)).await;
    let second = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let window = json!({ "from": clock(second + 4), "to": clock(second + 3604) });
    let budget = json!({ "rate": "closed", "windows": [window] });
    let node = with_budget(origin.address, json!({}), budget).start();
    let first = node.get(&asked("/file"), &[]).await;
    assert_eq!(first.head.status, 503, "{}", first.head.raw);
    assert!(node.says("the upstream budget is closed until"));
    assert_eq!(origin.requests(), 0);
    assert!(node.says("the upstream budget is open"));
    must_be(&node.get(&asked("/file"), &[]).await, pattern);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_has_a_rate_of_its_own_and_an_origin_of_the_own_level_needs_no_budget() {
    let pattern = Pattern::new(918, 2 * MB);
    let origin = FakeOrigin::with("/file", Reply::file(pattern)).await;
    let near = FakeOrigin::with("/file", Reply::file(pattern)).await;
    let top = Setup::new().origin(HOST, origin.address, json!({})).start();
    let rule = json!({ "parents": false, "budget": false });
    let parents = json!([{ "url": format!("http://{}", top.data), "rate": "1 MB/s" }]);
    let rules = json!([{ "host": HOST }]);
    let setup = Setup::new().set("upstream.parents", parents).set("origins", rules);
    let node = setup.origin("near.example.com", near.address, rule).start();
    let begun = Instant::now();
    must_be(&node.get(&asked("/file"), &[]).await, pattern);
    assert!(begun.elapsed() > Duration::from_millis(1600), "{:?} for 2 MB at 1 MB/s", begun.elapsed());
    change_budget(&node, json!({ "rate": "closed" }));
    assert!(node.says("the upstream budget is closed"));
    must_be(&node.get("/file?cacheHostOrigin=near.example.com", &[]).await, pattern);
    assert_eq!(state(&node).await["state"], "degraded", "some of it can be had");
}

#[tokio::test]
async fn settings_that_are_wrong_change_nothing_and_what_needs_a_start_is_named() {
    let pattern = Pattern::new(919, 1000);
    let origin = FakeOrigin::with("/file", Reply::file(pattern)).await;
    let node = with_budget(origin.address, json!({}), json!({ "rate": "closed" })).start();
    change_budget(&node, json!({ "rate": "fast" }));
    assert!(node.says("the settings are wrong"));
    assert!(node.says("upstream.budget.rate"));
    assert_eq!(node.get(&asked("/file"), &[]).await.head.status, 503);
    let _command = node.setup().clone().set("limits.requests", json!(7)).command();
    node.signal(Signal::HUP);
    assert!(node.says("changed settings are obeyed from the next start on"));
    assert!(node.says("limits.requests"));
}

#[tokio::test]
async fn a_tunnel_is_held_to_the_budget_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = format!("localhost:{}", listener.local_addr().unwrap().port());
    let setup = Setup::new().set("connect.allow_private", json!([authority]));
    let node = setup.set("upstream.budget", json!({ "rate": "1 MB/s" })).start();
    let connect = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    let mut connection = Connection::open(node.data).await;
    connection.send(&connect).await;
    let (head, host) = tokio::join!(connection.head(), listener.accept());
    assert_eq!(head.status, 200, "{}", head.raw);
    let mut host = host.unwrap().0;
    let pattern = Pattern::new(920, 2 * MB);
    let bytes = pattern.bytes();
    let begun = Instant::now();
    let send = tokio::spawn(async move {
        host.write_all(&bytes).await.unwrap();
        host
    });
    let mut came = Vec::new();
    let (mut client, _) = connection.into_stream();
    while came.len() < pattern.len as usize {
        assert!(client.read_buf(&mut came).await.unwrap() > 0, "cut after {}", came.len());
    }
    assert!(came == pattern.bytes(), "wrong bytes");
    assert!(begun.elapsed() > Duration::from_millis(1600), "{:?} for 2 MB at 1 MB/s", begun.elapsed());
    let mut host = send.await.unwrap();
    change_budget(&node, json!({ "rate": "closed" }));
    assert!(node.says("the upstream budget is closed"));
    host.write_all(b"more").await.unwrap();
    let mut rest = Vec::new();
    let cut = client.read_to_end(&mut rest).await;
    assert!(cut.is_err(), "a tunnel that closes before its end is reset: {rest:?}");
    let refused = node.ask(&connect).await;
    assert_eq!(refused.head.status, 503, "{}", refused.head.raw);
}

#[tokio::test]
async fn what_cannot_be_resumed_runs_to_its_end() {
    let pattern = Pattern::new(921, 3 * MB);
    // Nothing tells versions apart, so that a part of it is of no use.
    let origin = FakeOrigin::with("/bare", Reply::bare(pattern).without_ranges()).await;
    origin.limit_rate(2 * MB);
    let node = with_budget(origin.address, json!({}), json!({ "rate": null })).start();
    let mut connection = Connection::open(node.data).await;
    connection.send(&get(&asked("/bare"), &[])).await;
    let head = connection.head().await;
    change_budget(&node, json!({ "rate": "closed" }));
    assert!(node.says("the upstream budget is closed"));
    let checked = connection.checked(&head, pattern, 0).await;
    assert_eq!((checked.len, checked.first_difference), (pattern.len, None), "{checked:?}");
    assert_eq!((origin.requests(), origin.body_bytes()), (1, pattern.len));
    assert_eq!(node.get(&asked("/other"), &[]).await.head.status, 503, "others are not begun");
}

#[tokio::test]
async fn a_budget_is_taken_back_although_something_else_waits_for_a_start() {
    let pattern = Pattern::new(922, 1000);
    let origin = FakeOrigin::with("/file", Reply::file(pattern)).await;
    let node = with_budget(origin.address, json!({}), json!({ "rate": null })).start();
    let other = node.setup().clone().set("limits.requests", json!(7));
    let _command = other.clone().set("upstream.budget", json!({ "rate": "closed" })).command();
    node.signal(Signal::HUP);
    assert!(node.says("changed settings are obeyed from the next start on"));
    assert!(node.says("the upstream budget is closed"));
    let _command = other.command();
    node.signal(Signal::HUP);
    assert!(node.says("the upstream budget is open"));
    must_be(&node.get(&asked("/file"), &[]).await, pattern);
}
