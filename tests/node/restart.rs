//! Ends and starts: what was paid for is there again, and devices hardly notice.

use std::io::Read as _;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::rig::client::{Connection, End, get};
use super::rig::do_client::DoAgent;
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Gate, Reply};
use super::rig::pattern::Pattern;
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "dl.example.com";
const MIB: u64 = 1 << 20;

/// Objects of all sizes: in memory, in one block, in several.
fn objects() -> Vec<(String, Pattern)> {
    let lens = [0, 1, 900, 65_536, 70_000, MIB, MIB + 1, 5 * MIB + 17];
    lens.iter().zip(900..).map(|(len, seed)| (format!("/objects/{seed}"), Pattern::new(seed, *len))).collect()
}

async fn all_are_right(node: &RunningNode) {
    for (path, pattern) in objects() {
        let answer = node.get(&format!("/-/{HOST}{path}"), &[]).await;
        assert_eq!((answer.head.status, answer.end), (200, End::Complete), "{path}: {}", answer.head.raw);
        assert!(answer.body == pattern.bytes(), "{path}");
    }
}

async fn filled() -> (RunningNode, FakeOrigin) {
    let origin = FakeOrigin::start().await;
    for (path, pattern) in objects() {
        origin.serve(&path, Reply::file(pattern));
    }
    let node = Setup::new().origin(HOST, origin.address, json!({})).start();
    all_are_right(&node).await;
    origin.switch_off();
    (node, origin)
}

#[tokio::test]
async fn everything_is_a_hit_after_sigterm_with_the_origin_off() {
    let (node, origin) = filled().await;
    all_are_right(&node.stop().await.start()).await;
    assert_eq!(origin.requests(), objects().len());
}

#[tokio::test]
async fn everything_is_a_hit_after_the_state_directory_was_deleted() {
    let (node, origin) = filled().await;
    let setup = node.stop().await;
    std::fs::remove_dir_all(setup.path("state")).unwrap();
    let again = setup.start();
    all_are_right(&again).await;
    std::fs::remove_dir_all(again.kill().await.path("state")).unwrap();
    all_are_right(&setup.start()).await;
    assert_eq!(origin.requests(), objects().len());
}

#[tokio::test]
async fn everything_is_a_hit_after_sigkill() {
    let (node, origin) = filled().await;
    node.wait_for_fills(objects().len() as u32).await;
    node.wait_for_commits().await;
    let again = node.kill().await.start();
    all_are_right(&again).await;
    assert_eq!(origin.requests(), objects().len());
}

#[tokio::test]
async fn a_killed_node_listens_again_on_its_port_at_once() {
    let (node, _origin) = filled().await;
    let setup = node.setup_with_these_ports();
    node.kill().await;
    let start = Instant::now();
    let again = setup.start();
    let listens = start.elapsed();
    println!("listens {listens:.3?} after SIGKILL");
    assert_eq!(Connection::open(again.data).await.try_send(b"GET").await.ok(), Some(()));
    assert!(listens < Duration::from_secs(2), "an agent bans a cache that refuses connections for longer: {listens:?}");
}

#[tokio::test]
async fn a_second_process_on_one_drive_says_why_and_ends() {
    let (node, _origin) = filled().await;
    let mut second = node.setup().with_other_state().command().spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let status = loop {
        if let Some(status) = second.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "the second process stays");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let (mut out, mut err) = (String::new(), String::new());
    second.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    second.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    let said = format!("{out}{err}");
    assert!(!status.success() && said.contains("drive1"), "{status:?}: {said}");
    assert!(!out.contains("listening"), "{said}");
    all_are_right(&node).await;
}

#[tokio::test]
async fn while_draining_downloads_end_well_and_new_requests_get_503() {
    let pattern = Pattern::new(91, 2 * MIB);
    let gate = Gate::shut();
    let origin = FakeOrigin::with("/f.bin", Reply::file(pattern).hold_at(MIB, &gate)).await;
    let mut node = Setup::new().origin(HOST, origin.address, json!({})).set("drain_grace", json!("20s")).start();
    let text = get(&format!("/-/{HOST}/f.bin"), &[]);
    let (mut busy, mut idle) = (Connection::open(node.data).await, Connection::open(node.data).await);
    busy.send(&text).await;
    let head = busy.head().await;
    node.signal(Signal::TERM);
    assert!(node.says("draining"));
    let mut new = Connection::open(node.data).await;
    for connection in [&mut new, &mut idle] {
        if connection.try_send(text.as_bytes()).await.is_ok()
            && let Ok(refused) = connection.try_head().await
        {
            assert_eq!((refused.status, refused.field("Connection")), (503, Some("close")), "{}", refused.raw);
            assert_eq!(refused.exact("Content-Length"), Some("0"), "{}", refused.raw);
        }
    }
    let refused = node.ask(&text).await;
    assert_eq!(refused.head.status, 503, "{}", refused.head.raw);
    let ready = super::rig::client::once(node.admin, &get("/readyz", &[])).await;
    assert_eq!(ready.head.status, 503, "{}", ready.head.raw);
    gate.open();
    let checked = busy.checked(&head, pattern, 0).await;
    assert_eq!((checked.len, checked.first_difference, checked.end), (pattern.len, None, End::Complete));
    assert_eq!(node.exit().await.code(), Some(0));
}

#[tokio::test]
async fn the_grace_ends_and_a_second_signal_ends_at_once() {
    let pattern = Pattern::new(92, 2 * MIB);
    let origin = FakeOrigin::with("/f.bin", Reply::file(pattern).hold_at(MIB, &Gate::shut())).await;
    for (grace, second) in [("300ms", None), ("60s", Some(Signal::TERM)), ("60s", Some(Signal::INT))] {
        let setup = Setup::new().origin(HOST, origin.address, json!({})).set("drain_grace", json!(grace));
        let mut node = setup.start();
        let mut busy = Connection::open(node.data).await;
        busy.send(&get(&format!("/-/{HOST}/f.bin"), &[])).await;
        assert_eq!(busy.head().await.status, 200);
        node.signal(Signal::TERM);
        assert!(node.says("draining"));
        if let Some(second) = second {
            node.signal(second);
        }
        let status = node.exit().await;
        if second.is_none() {
            assert_eq!(status.code(), Some(0), "{status:?}");
        }
    }
}

#[tokio::test]
async fn an_interrupted_fill_goes_on_where_it_was() {
    for signal in [Signal::TERM, Signal::KILL] {
        let pattern = Pattern::new(93, 24 * MIB);
        let gate = Gate::shut();
        let origin = FakeOrigin::with("/f.bin", Reply::file(pattern).hold_at(20 * MIB, &gate)).await;
        let setup = Setup::new().origin(HOST, origin.address, json!({})).set("drain_grace", json!("100ms"));
        let mut node = setup.start();
        let text = get(&format!("/-/{HOST}/f.bin"), &[]);
        let mut client = Connection::open(node.data).await;
        client.send(&text).await;
        let head = client.head().await;
        let mut framing = head.framing(false);
        let mut got = 0;
        while got < 20 * MIB {
            got += client.piece(&mut framing, 1 << 18).await.unwrap().unwrap().len() as u64;
        }
        node.signal(signal);
        node.exit().await;
        gate.open();
        let again = setup.start();
        let mut client = Connection::open(again.data).await;
        client.send(&text).await;
        let head = client.head().await;
        let checked = client.checked(&head, pattern, 0).await;
        assert_eq!((checked.len, checked.first_difference, checked.end), (pattern.len, None, End::Complete));
        let ratio = origin.body_bytes() as f64 / pattern.len as f64;
        println!("fill interrupted by {signal:?} at 20 of 24 MiB: origin {ratio:.4} x");
        assert!(ratio <= 1.02, "{signal:?}: the origin sent {ratio} times the file");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_gets_its_file_right_over_a_kill_of_the_cache() {
    let pattern = Pattern::new(94, 32 * MIB);
    let origin = FakeOrigin::with("/f.bin", Reply::file(pattern)).await;
    origin.limit_rate(20 * MIB);
    let node = Setup::new().origin(HOST, origin.address, json!({ "abandon": "complete" })).start();
    let setup = node.setup_with_these_ports();
    // Its first retry comes after 2 s, as in the field.
    let agent = DoAgent::new(node.data).with_backoff(1.0);
    let download = tokio::spawn(async move { (agent.download(HOST, "/f.bin", pattern, &[]).await, agent.has_bans()) });
    origin.wait_for_bytes(10 * MIB).await;
    node.kill().await;
    let again = setup.start();
    let (download, banned) = download.await.unwrap();
    assert!(!banned, "{download:?}");
    download.must_be(pattern, pattern.sha256());
    assert!(again.get(&format!("/-/{HOST}/f.bin"), &[]).await.body == pattern.bytes());
}
