//! How much memory the node takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;
use tokio::task::JoinSet;

use super::rig::bars;
use super::rig::client::{Connection, End, get};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::Reply;
use super::rig::pattern::Pattern;
use super::rig::running_node::Setup;
use super::rig::slow_client::{self, Pace};

const HOST: &str = "dl.example.com";
const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_big_object_for_twenty_slow_clients_takes_little_memory() {
    let pattern = Pattern::new(101, if bars() { 4 << 30 } else { 512 * MIB });
    let origin = FakeOrigin::with("/big.bin", Reply::file(pattern)).await;
    let node = Setup::new().origin(HOST, origin.address, json!({ "abandon": "complete" })).start();
    let started = node.resident();
    let text = get("/big.bin", &[&format!("Host: {HOST}")]);
    let (done, most) = (Arc::new(AtomicBool::new(false)), AtomicU64::new(0));
    let pace = Pace { window: 64 * 1024, bytes_per_second: MIB, sip: 16 * 1024 };
    let mut slow = JoinSet::new();
    for _ in 0..20 {
        let (text, address, done) = (text.clone(), node.data, done.clone());
        slow.spawn(async move {
            let mut client = slow_client::connect(address, pace).await;
            let enough = || done.load(Ordering::Relaxed);
            slow_client::sip(&mut client, &text, pace, pattern, 0, enough).await.1
        });
    }
    // The client that is not slow: for it the whole object passes.
    let mut client = Connection::open(node.data).await;
    client.send(&text).await;
    let head = client.head().await;
    let mut framing = head.framing(false);
    let (mut len, mut wrong) = (0, None);
    while let Ok(Some(piece)) = client.piece(&mut framing, 256 * 1024).await {
        wrong = wrong.or_else(|| pattern.first_difference(len, &piece));
        if len / MIB != (len + piece.len() as u64) / MIB {
            most.fetch_max(node.resident(), Ordering::Relaxed);
        }
        len += piece.len() as u64;
    }
    done.store(true, Ordering::Relaxed);
    assert_eq!((len, wrong, head.status), (pattern.len, None, 200));
    while let Some(checked) = slow.join_next().await {
        let checked = checked.unwrap();
        assert_eq!(checked.first_difference, None);
        assert!(checked.len > 0 && (checked.end == End::Cut || checked.len == pattern.len));
    }
    let added = most.load(Ordering::Relaxed).saturating_sub(started);
    println!(
        "memory: {:.1} MiB after start, {:.1} MiB more for {} MiB to 21 clients; origin {:.4} x",
        started as f64 / MIB as f64,
        added as f64 / MIB as f64,
        pattern.len / MIB,
        origin.body_bytes() as f64 / pattern.len as f64,
    );
    assert!(started < 40 * MIB, "{started} bytes after start");
    assert!(added < 40 * MIB, "{added} bytes more");
    assert_eq!(origin.body_bytes(), pattern.len);
}

/// What is kept of a response is its fields, not the buffer in which they came with a part of the body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_objects_leave_little_in_memory() {
    const FIRST: u64 = 500;
    const OBJECTS: u64 = 2000;
    const LEN: u64 = 64 * 1024;
    let origin = FakeOrigin::start().await;
    let pattern = |object: u64| Pattern::new(object, LEN + object);
    for object in 0..OBJECTS {
        origin.serve(&format!("/{object}.bin"), Reply::file(pattern(object)));
    }
    let node = Setup::new().origin(HOST, origin.address, json!({ "fill": "whole" })).start();
    let mut client = Connection::open(node.data).await;
    // What is there once, however many there are, comes with the first ones.
    let mut before = 0;
    for object in 0..OBJECTS {
        if object == FIRST {
            before = node.resident();
        }
        client.send(&get(&format!("/{object}.bin"), &[&format!("Host: {HOST}")])).await;
        let head = client.head().await;
        let checked = client.checked(&head, pattern(object), 0).await;
        assert_eq!((checked.len, checked.first_difference), (LEN + object, None));
    }
    let each = node.resident().saturating_sub(before) / (OBJECTS - FIRST);
    println!("memory: {each} bytes more for each of {} objects of {} KiB", OBJECTS - FIRST, LEN / 1024);
    assert!(each < 16 * 1024, "{each} bytes more for each object of {LEN}");
}
