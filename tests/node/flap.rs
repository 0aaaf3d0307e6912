//! An origin that goes away and returns again and again: no agent notices.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::rig::bars;
use super::rig::do_client::DoAgent;
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::Reply;
use super::rig::pattern::Pattern;
use super::rig::rules::Mode;
use super::rig::running_node::Setup;

const HOST: &str = "contoso--fleet.b.nlu.dl.adu.microsoft.com";
const MIB: u64 = 1 << 20;

/// Each second the origin is away for half of it.
const AWAY: Duration = Duration::from_millis(500);

/// How often it goes, how many files, how long each is, how many agents.
fn size() -> (u32, u64, u64, u64) {
    if bars() { (60, 20, 32 * MIB, 20) } else { (6, 4, 4 * MIB, 8) }
}

async fn flap(mode: Mode) {
    let (flaps, files, len, agents) = size();
    let origin = Arc::new(FakeOrigin::start().await);
    let file = |number: u64| Pattern::new(700 + number, len);
    for number in 0..files {
        origin.serve(&format!("/{number}.swu"), Reply::file(file(number)));
    }
    // It lasts longer than the origin flaps, also when no moment is lost in which it is there.
    let present = AWAY * flaps;
    origin.limit_rate(files * len * 4 / (present.as_secs() * 5));
    let node = Setup::new().origin(HOST, origin.address, mode.rule()).start();
    let mut downloads = JoinSet::new();
    for number in 0..agents {
        let agent = DoAgent::new(node.data).with_address(1 + number as u16).with_backoff(1.0);
        let content = file(number % files);
        downloads.spawn(async move {
            let path = format!("/{}.swu", number % files);
            (agent.download(HOST, &path, content, &[]).await, agent.has_bans())
        });
    }
    origin.wait_for_bytes(files * len / 50).await;
    let flapping = tokio::spawn({
        let origin = origin.clone();
        async move {
            for _ in 0..flaps {
                origin.switch_off();
                tokio::time::sleep(AWAY).await;
                origin.switch_on();
                tokio::time::sleep(AWAY).await;
            }
        }
    });
    let (mut right, mut banned, mut failures, mut slowest) = (0, 0, 0, Duration::ZERO);
    let mut odd = Vec::new();
    while let Some(done) = downloads.join_next().await {
        let (download, has_bans) = done.unwrap();
        right += u64::from(download.is_right());
        banned += u64::from(has_bans);
        (failures, slowest) = (failures + download.failures, slowest.max(download.elapsed));
        if !download.is_right() {
            odd.push(download);
        }
    }
    let ratio = origin.body_bytes() as f64 / (files * len) as f64;
    let flaps_were_over = flapping.is_finished();
    flapping.abort();
    println!(
        "flap {mode:?}: {flaps} times in {flaps} s, {agents} agents, {files} files of {} MiB: {right} right, {banned} bans, \
         {failures} resumes of agents; origin {ratio:.4} x in {} requests; last end {slowest:.1?}",
        len / MIB,
        origin.requests(),
    );
    assert_eq!((right, banned), (agents, 0), "{odd:?}");
    assert_eq!(failures, 0, "no gap was near 20 s");
    assert!(ratio <= 1.02, "the origin sent {ratio} times the files");
    assert!(flaps_were_over, "the files were there before the origin had flapped {flaps} times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_flaps_is_not_noticed_when_it_is_asked_in_ranges() {
    flap(Mode::Ranged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_flaps_is_not_noticed_when_it_is_asked_for_the_whole() {
    flap(Mode::Whole).await;
}
