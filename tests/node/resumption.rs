//! A body that is stored in part, and an origin that has a bad moment when it is taken up again: what was paid for stays,
//! and no client notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::rig::client::{Answer, End};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::Reply;
use super::rig::pattern::Pattern;
use super::rig::rules::ranged_for_clients;
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "dl.example.com";
const AGENT: &str = "User-Agent: Microsoft-Delivery-Optimization-Lite/10.0.0.1";
const MIB: u64 = 1 << 20;
/// What is stored of the content before its origin has a bad moment.
const STORED: u64 = 3 * MIB;
const CONTENT: Pattern = Pattern { seed: 817, len: 8 * MIB };

async fn ask(node: &RunningNode, fields: &[&str]) -> Answer {
    node.get(&format!("/-/{HOST}/f.bin"), fields).await
}

/// A node that has stored the first part of the content, whose origin answers the next requests with `trouble`: as many
/// as the counter says.
async fn stored_in_part(trouble: Reply) -> (RunningNode, FakeOrigin, Arc<AtomicUsize>) {
    let (origin, left) = (FakeOrigin::start().await, Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&left);
    let is_troubled =
        move || counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
    origin.script("/f.bin", move |_| if is_troubled() { trouble.clone() } else { Reply::file(CONTENT) });
    let node = Setup::new().origin(HOST, origin.address, ranged_for_clients()).start();
    assert_eq!(ask(&node, &[&format!("Range: bytes=0-{}", STORED - 1)]).await.head.status, 206);
    node.wait_until_idle().await;
    (node, origin, left)
}

#[tokio::test]
async fn a_spell_of_503_does_not_show_when_a_stored_part_is_taken_up() {
    let (node, _origin, left) = stored_in_part(Reply::status(503, "busy\n")).await;
    left.store(4, Ordering::SeqCst);
    let answer = ask(&node, &[AGENT, &format!("Range: bytes={MIB}-{}", CONTENT.len - 1)]).await;
    assert_eq!((answer.head.status, answer.end), (206, End::Complete), "{}", answer.head.raw);
    assert_eq!((answer.body.len() as u64, CONTENT.first_difference(MIB, &answer.body)), (CONTENT.len - MIB, None));
    assert_eq!(left.load(Ordering::SeqCst), 0, "the origin was busy each time");
}

#[tokio::test]
async fn a_404_between_two_parts_costs_no_part() {
    let (node, origin, left) = stored_in_part(Reply::status(404, "no\n").with("Cache-Control", "max-age=0")).await;
    for _ in 0..4 {
        left.store(1, Ordering::SeqCst);
        assert_eq!(ask(&node, &[]).await.head.status, 404);
        node.wait_until_idle().await;
    }
    let answer = ask(&node, &[]).await;
    assert_eq!((answer.head.status, answer.end), (200, End::Complete), "{}", answer.head.raw);
    assert_eq!((answer.body.len() as u64, CONTENT.first_difference(0, &answer.body)), (CONTENT.len, None));
    let (sent, most) = (origin.body_bytes(), CONTENT.len * 105 / 100);
    assert!(sent <= most, "{sent} bytes for {}", CONTENT.len);
}
