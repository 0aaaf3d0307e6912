//! Origins whose parts say what they hash to (`Content-Digest`, RFC 9530 section 2): checking a part costs neither the
//! client nor the machine more than it is worth.

use super::rig::client::{Connection, End, get};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Received, Reply};
use super::rig::pattern::Pattern;
use super::rig::rules::Mode;
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
