//! Many clients, one cold object: the origin sends it once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use super::rig::client::{Connection, End, get};
use super::rig::do_client::DoAgent;
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::Reply;
use super::rig::pattern::Pattern;
use super::rig::rules::Mode;
use super::rig::running_node::Setup;
use super::rig::{Dice, bars};

const HOST: &str = "contoso--fleet.b.nlu.dl.adu.microsoft.com";
const PATH: &str = "/westus2/contoso--fleet/0123456789abcdef0123456789abcdef/image.swu";
const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_agents_drop_and_resume_while_one_cold_file_fills() {
    let pattern = Pattern::new(61, if bars() { 256 * MIB } else { 16 * MIB });
    let sha256 = pattern.sha256();
    let origin = FakeOrigin::with(PATH, Reply::file(pattern)).await;
    // Slow enough that many drop and come back while it fills.
    origin.limit_rate(if bars() { 24 * MIB } else { 8 * MIB });
    let node = Setup::new().origin(HOST, origin.address, Mode::Ranged.rule()).start();
    let mut dice = Dice::seeded("fifty agents", 61);
    let mut agents = JoinSet::new();
    for number in 0..50 {
        let drops = if number % 2 == 0 { 0 } else { 1 + dice.below(4) };
        let mut pauses: Vec<_> = (0..drops).map(|_| 1 + dice.below(pattern.len - 1)).collect();
        pauses.sort_unstable();
        let agent = DoAgent::new(node.data).with_address(1 + number);
        agents.spawn(async move {
            let download = agent.download(HOST, PATH, pattern, &pauses).await;
            (download, agent.has_bans(), pauses)
        });
    }
    let (mut slowest, mut first_byte, mut requests) = (Duration::ZERO, Duration::ZERO, 0);
    while let Some(done) = agents.join_next().await {
        let (download, banned, pauses) = done.unwrap();
        assert!(!banned, "pauses {pauses:?}: {download:?}");
        download.must_be(pattern, sha256);
        (slowest, requests) = (slowest.max(download.elapsed), requests + download.requests);
        first_byte = first_byte.max(download.first_byte.unwrap_or_default());
    }
    let ratio = origin.body_bytes() as f64 / pattern.len as f64;
    println!(
        "50 agents, {} MiB: origin {ratio:.4} x, {requests} requests, last first byte {first_byte:.2?}, last end {slowest:.2?}",
        pattern.len / MIB
    );
    assert!(ratio <= 1.01, "the origin sent {ratio} times the file in {} requests", origin.requests());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_herd_of_two_hundred_costs_the_origin_one_file() {
    let rate = 8_000_000;
    let pattern = Pattern::new(62, 32 * MIB);
    let origin = Arc::new(FakeOrigin::with(PATH, Reply::file(pattern)).await);
    origin.limit_rate(rate);
    let node = Setup::new().origin(HOST, origin.address, json!({})).set("limits.connections_per_client", json!(1000));
    let node = node.start();
    let text = get(&format!("{PATH}?cacheHostOrigin={HOST}"), &[]);
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..200 {
        let (text, address) = (text.clone(), node.data);
        clients.spawn(async move {
            let mut connection = Connection::open(address).await;
            connection.send(&text).await;
            let head = connection.head().await;
            let mut framing = head.framing(false);
            let (mut len, mut first_byte, mut wrong) = (0, None, None);
            while let Ok(Some(piece)) = connection.piece(&mut framing, 256 * 1024).await {
                first_byte.get_or_insert_with(Instant::now);
                wrong = wrong.or_else(|| pattern.first_difference(len, &piece));
                len += piece.len() as u64;
            }
            (head.status, len, wrong, first_byte.unwrap(), Instant::now())
        });
    }
    let (mut last_first, mut last_end) = (start, start);
    while let Some(done) = clients.join_next().await {
        let (status, len, wrong, first_byte, end) = done.unwrap();
        assert_eq!((status, len, wrong), (200, pattern.len, None));
        (last_first, last_end) = (last_first.max(first_byte), last_end.max(end));
    }
    let ratio = origin.body_bytes() as f64 / pattern.len as f64;
    let first = last_first - origin.first_byte().unwrap();
    let ideal = Duration::from_secs_f64(pattern.len as f64 / rate as f64);
    let last = last_end - start;
    println!(
        "herd of 200: origin {ratio:.4} x, last first byte {first:.3?} after the origin's, last end {last:.2?} (ideal {ideal:.2?})"
    );
    assert!(ratio <= 1.01, "the origin sent {ratio} times the file in {} requests", origin.requests());
    if bars() {
        assert!(first <= Duration::from_millis(500), "first bytes took {first:?}");
        assert!(last.as_secs_f64() <= 1.1 * ideal.as_secs_f64(), "the last client took {last:?}");
    }
}

#[tokio::test]
async fn a_fill_goes_on_for_those_who_stay_when_the_first_client_leaves() {
    let pattern = Pattern::new(63, 8 * MIB);
    let gate = super::rig::origin_reply::Gate::shut();
    let origin = FakeOrigin::with(PATH, Reply::file(pattern).hold_at(MIB, &gate)).await;
    let node = Setup::new().origin(HOST, origin.address, json!({})).start();
    let text = get(&format!("{PATH}?cacheHostOrigin={HOST}"), &[]);
    let (mut first, mut second) = (Connection::open(node.data).await, Connection::open(node.data).await);
    first.send(&text).await;
    assert_eq!(first.head().await.status, 200);
    second.send(&text).await;
    let head = second.head().await;
    drop(first);
    gate.open();
    let checked = second.checked(&head, pattern, 0).await;
    assert_eq!((checked.len, checked.first_difference, checked.end), (pattern.len, None, End::Complete));
    assert_eq!((origin.requests(), origin.body_bytes()), (1, pattern.len));
}

#[tokio::test]
async fn clients_that_wait_for_the_same_head_are_one_request() {
    let pattern = Pattern::new(64, MIB + 5);
    let gate = super::rig::origin_reply::Gate::shut();
    let origin = FakeOrigin::with(PATH, Reply::file(pattern).hold_head(&gate)).await;
    let node = Setup::new().origin(HOST, origin.address, json!({})).start();
    let mut waiting = Vec::new();
    for _ in 0..30 {
        let mut connection = Connection::open(node.data).await;
        connection.send(&get(&format!("{PATH}?cacheHostOrigin={HOST}"), &[])).await;
        waiting.push(connection);
    }
    origin.wait_for_requests(1).await;
    gate.open();
    for mut connection in waiting {
        let head = connection.head().await;
        let checked = connection.checked(&head, pattern, 0).await;
        assert_eq!((checked.len, checked.first_difference, checked.end), (pattern.len, None, End::Complete));
    }
    assert_eq!((origin.requests(), origin.body_bytes()), (1, pattern.len));
}
