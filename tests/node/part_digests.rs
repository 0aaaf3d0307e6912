//! Origins whose parts say what they hash to (`Content-Digest`, RFC 9530 section 2): checking a part costs neither the
//! client nor the machine more than it is worth.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tokio::task::JoinSet;

use super::rig::client::{Connection, End, get, once};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Gate, Received, Reply};
use super::rig::pattern::Pattern;
use super::rig::rules::{Mode, ranged_for_clients};
use super::rig::running_node::Setup;

const HOST: &str = "dl.example.com";
const TARGET: &str = "/-/dl.example.com/f.bin";
const PATH: &str = "/f.bin";
const MIB: u64 = 1 << 20;

/// `reply` whose parts say what their content hashes to, and whose whole does not.
fn with_part_digest(reply: &Reply, request: &Received) -> Reply {
    Reply { content_digest: request.field("Range").is_some(), ..reply.clone() }
}

/// A part that is checked before it is given out comes at once in the end: that it takes longer than a source may be
/// silent is no silence.
#[tokio::test]
async fn parts_with_a_digest_get_through_a_slow_link() {
    let content = Pattern::new(801, MIB + MIB / 2);
    let origin = FakeOrigin::start().await;
    origin.limit_rate(130_000);
    let reply = Reply::file(content);
    origin.script(PATH, move |request| with_part_digest(&reply, request));
    let node = Setup::new().origin(HOST, origin.address, Mode::Ranged.rule()).start();
    let answer = node.get(TARGET, &[]).await;
    let ranges: Vec<_> = origin.received().iter().map(|r| r.field("Range").map(str::to_owned)).collect();
    assert_eq!((answer.head.status, answer.end), (200, End::Complete), "{ranges:?}");
    assert_eq!((answer.body.len() as u64, content.first_difference(0, &answer.body)), (content.len, None));
    assert!(origin.body_bytes() <= content.len * 105 / 100, "{} bytes, {ranges:?}", origin.body_bytes());
}

/// The rest of a body that is asked for in one stream may be as long as a disk.
#[tokio::test]
async fn a_long_part_with_a_digest_takes_no_memory() {
    let content = Pattern::new(802, 160 * MIB);
    let origin = FakeOrigin::start().await;
    let reply = Reply::file(content);
    origin.script(PATH, move |request| match request.field("Range") {
        Some(_) => with_part_digest(&reply, request),
        None => reply.clone().cut_after(MIB),
    });
    let node = Setup::new().origin(HOST, origin.address, Mode::Whole.rule()).start();
    let before = node.resident();
    let mut client = Connection::open(node.data).await;
    client.send(&get(TARGET, &[])).await;
    let head = client.head().await;
    let mut framing = head.framing(false);
    let (mut len, mut wrong, mut most) = (0, None, before);
    while let Ok(Some(piece)) = client.piece(&mut framing, 256 * 1024).await {
        wrong = wrong.or_else(|| content.first_difference(len, &piece));
        if len / MIB != (len + piece.len() as u64) / MIB {
            most = most.max(node.resident());
        }
        len += piece.len() as u64;
    }
    assert_eq!((head.status, len, wrong), (200, content.len, None), "{}", head.raw);
    println!("a part of {} MiB took {:.1} MiB", content.len / MIB, (most - before) as f64 / MIB as f64);
    assert!(most - before < 64 * MIB, "{} MiB more", (most - before) / MIB);
}

/// What has come of a part is kept when it is cut, though nobody can check it then.
#[tokio::test]
async fn parts_with_a_digest_that_are_cut_cost_no_byte_twice() {
    let content = Pattern::new(803, 8 * MIB);
    for cut in [MIB / 2, 1_000_000] {
        let origin = FakeOrigin::start().await;
        let reply = Reply::file(content).cut_after(cut);
        origin.script(PATH, move |request| with_part_digest(&reply, request));
        let node = Setup::new().origin(HOST, origin.address, Mode::Ranged.rule()).start();
        let answer = node.get(TARGET, &[]).await;
        assert_eq!((answer.head.status, answer.end), (200, End::Complete), "{}", answer.head.raw);
        assert_eq!((answer.body.len() as u64, content.first_difference(0, &answer.body)), (content.len, None));
        assert!(origin.body_bytes() <= content.len * 105 / 100, "{} bytes", origin.body_bytes());
    }
}

/// A part that is wrong and cut is found out with its rest.
#[tokio::test]
async fn a_wrong_part_that_is_cut_is_not_given_out_whole() {
    let content = Pattern::new(804, 4 * MIB);
    let origin = FakeOrigin::start().await;
    let (reply, is_first) = (Reply::file(content), AtomicBool::new(true));
    origin.script(PATH, move |request| match is_first.swap(false, Ordering::SeqCst) {
        true => with_part_digest(&reply, request).damaged(5).cut_after(700_000),
        false => with_part_digest(&reply, request),
    });
    let node = Setup::new().origin(HOST, origin.address, Mode::Ranged.rule()).start();
    for _ in 0..3 {
        let answer = node.get(TARGET, &[]).await;
        if answer.head.status == 200 && answer.end == End::Complete {
            assert_eq!((answer.body.len() as u64, content.first_difference(0, &answer.body)), (content.len, None));
            return;
        }
        node.wait_until_idle().await;
    }
    panic!("it is never right");
}

/// Many fills at a time are as good as one long one.
#[tokio::test]
async fn many_parts_with_a_digest_take_no_memory() {
    const FILES: u64 = 40;
    let (part, gate) = (8 * MIB, Gate::shut());
    let content = Pattern::new(805, part + MIB);
    let origin = FakeOrigin::start().await;
    for file in 0..FILES {
        let reply = Reply::file(content).hold_at(part - 1, &gate);
        origin.script(&format!("/{file}.bin"), move |request| with_part_digest(&reply, request));
    }
    // All parts are held at once, however long a busy machine takes for their digests.
    let times = json!({ "connect": "3s", "first_byte": "60s", "stall": "60s", "request": "60s" });
    let setup = Setup::new().set("upstream.timeouts", times);
    let node = setup.origin(HOST, origin.address, ranged_for_clients()).start();
    let before = node.resident();
    let mut clients = JoinSet::new();
    for file in 0..FILES {
        let (data, range) = (node.data, format!("Range: bytes=0-{}", part - 1));
        let text = get(&format!("/-/{HOST}/{file}.bin"), &[&range]);
        clients.spawn(async move { once(data, &text).await });
    }
    origin.wait_for_bytes(FILES * (part - 1)).await;
    let most = node.resident();
    gate.open();
    while let Some(answer) = clients.join_next().await {
        let answer = answer.unwrap();
        assert_eq!((answer.head.status, answer.body.len() as u64), (206, part), "{}", answer.head.raw);
        assert_eq!(content.first_difference(0, &answer.body), None);
    }
    println!("{FILES} parts of 8 MiB took {:.1} MiB", (most.saturating_sub(before)) as f64 / MIB as f64);
    assert!(most.saturating_sub(before) < 160 * MIB, "{} MiB more", most.saturating_sub(before) / MIB);
}
