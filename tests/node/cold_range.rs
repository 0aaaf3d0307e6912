//! A small part of something very large that nobody has asked for: only the part is fetched and stored, and nothing when
//! there is no such part.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::rig::client::{Answer, End};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::Reply;
use super::rig::pattern::Pattern;
use super::rig::rules::{Mode, ranged_for_clients};
use super::rig::running_node::{RunningNode, Setup, files_below};

const HOST: &str = "dl.example.com";
const MIB: u64 = 1 << 20;
const LEN: u64 = 4 << 30;
const FROM: u64 = (2 << 30) + 12_345;
const PART: u64 = MIB;

/// What the files below `directory` take on disk.
fn disk_use(directory: &Path) -> u64 {
    files_below(directory).iter().filter_map(|file| file.metadata().ok()).map(|facts| facts.blocks() * 512).sum()
}

async fn part(node: &RunningNode, from: u64) -> Answer {
    node.get(&format!("/-/{HOST}/disk.img"), &[&format!("Range: bytes={from}-{}", from + PART - 1)]).await
}

#[tokio::test]
async fn a_part_of_a_cold_object_of_four_gibibytes_costs_little_more_than_itself() {
    let pattern = Pattern::new(801, LEN);
    let origin = FakeOrigin::with("/disk.img", Reply::file(pattern)).await;
    // Who asks for all of it anyway does not fill this machine.
    origin.limit_rate(8 * MIB);
    let node = Setup::new().origin(HOST, origin.address, ranged_for_clients()).start();
    let must_be_part = |answer: &Answer, from: u64| {
        assert_eq!((answer.head.status, answer.end), (206, End::Complete), "{}", answer.head.raw);
        let range = format!("bytes {from}-{}/{LEN}", from + PART - 1);
        assert_eq!(answer.head.exact("Content-Range"), Some(range.as_str()));
        assert_eq!((answer.body.len() as u64, pattern.first_difference(from, &answer.body)), (PART, None));
    };
    must_be_part(&part(&node, FROM).await, FROM);
    node.wait_until_idle().await;
    let drive = node.setup().path("drive1");
    let cold = (origin.requests(), origin.body_bytes());
    must_be_part(&part(&node, FROM).await, FROM);
    let warm = (origin.requests(), origin.body_bytes());
    println!(
        "1 MiB of 4 GiB: {} requests and {:.2} MiB upstream, then {} and {:.2}; {:.2} MiB on disk",
        cold.0,
        cold.1 as f64 / MIB as f64,
        warm.0 - cold.0,
        (warm.1 - cold.1) as f64 / MIB as f64,
        disk_use(&drive) as f64 / MIB as f64
    );
    assert!(cold.1 <= 2 * MIB, "{} bytes upstream for a part of 1 MiB", cold.1);
    // A piece may still be on its way to a connection that the node has just closed, but nobody asks again.
    assert_eq!(cold.0, warm.0, "the second time it is there");
    assert!(warm.1 <= 2 * MIB, "{} bytes upstream for a part of 1 MiB, twice", warm.1);
    assert!(disk_use(&drive) < 4 * MIB, "{} bytes on disk for a part of 1 MiB", disk_use(&drive));
    // Another part, before the first: what lies between is nobody's business.
    must_be_part(&part(&node, MIB + 77).await, MIB + 77);
    let setup = node.stop().await;
    assert!(origin.body_bytes() <= 4 * MIB, "{} bytes upstream for two parts", origin.body_bytes());
    let used = disk_use(&setup.path("drive1"));
    assert!(used < 2 * 4 * MIB, "{used} bytes on disk for two parts");
    let again = setup.start();
    must_be_part(&part(&again, FROM).await, FROM);
    assert!(origin.body_bytes() <= 4 * MIB, "{} bytes upstream after a restart", origin.body_bytes());
}

/// The 416 of the origin tells the length, and one byte of the last block tells it, too.
#[tokio::test]
async fn a_cold_range_behind_the_end_transfers_next_to_nothing() {
    let content = Pattern::new(822, 32 * MIB + 100);
    for (from, most) in [(99_999_999, 0), (content.len + 10, MIB)] {
        let origin = FakeOrigin::with("/disk.img", Reply::file(content)).await;
        let node = Setup::new().origin(HOST, origin.address, Mode::Ranged.rule()).start();
        let range = format!("Range: bytes={from}-{}", from + 9);
        let target = format!("/-/{HOST}/disk.img");
        let answer = node.get(&target, &[&range]).await;
        assert_eq!(answer.head.status, 416, "{}", answer.head.raw);
        let length = format!("bytes */{}", content.len);
        assert_eq!(answer.head.exact("Content-Range"), Some(length.as_str()), "{}", answer.head.raw);
        let agent = node.get(&target, &["User-Agent: Microsoft-Delivery-Optimization-Lite/10.0.0.1", &range]).await;
        assert_eq!((agent.head.status, agent.head.exact("Content-Length")), (503, Some("0")), "{}", agent.head.raw);
        node.wait_until_idle().await;
        assert!(origin.body_bytes() <= most, "{} bytes for {range}", origin.body_bytes());
    }
}
