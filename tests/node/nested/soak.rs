//! Links that fail again and again between the levels, and links that are slow: devices notice nothing, and the origin pays
//! next to nothing for it.

use std::sync::Arc;

use super::super::rig::relay::{Relay, State};
use super::super::rig::{Dice, bars};
use super::*;

/// Cuts, the time over which they are spread, files, the length of each, devices.
fn size() -> (u32, Duration, u64, u64, u64) {
    if bars() { (200, Duration::from_secs(600), 50, 16 * MIB, 20) } else { (8, Duration::from_secs(8), 6, 4 * MIB, 8) }
}

/// Three levels with a link above each.
struct Chain {
    links: Vec<Arc<Relay>>,
    levels: Vec<RunningNode>,
}

impl Chain {
    async fn start(origin: &FakeOrigin, mode: Mode, delay: Duration) -> Self {
        let (mut links, mut levels): (Vec<Arc<Relay>>, Vec<RunningNode>) = (Vec::new(), Vec::new());
        for level in 0..3 {
            let above = levels.last().map_or(origin.address, |node| node.data);
            let link = Arc::new(Relay::start(above, delay).await);
            let setup = match level {
                0 => Setup::new().origin(HOST, link.address, mode.rule()),
                _ => below(&[url(link.address)], mode.rule()),
            };
            levels.push(setup.start());
            links.push(link);
        }
        Self { links, levels }
    }

    fn lowest(&self) -> SocketAddr {
        self.levels[2].data
    }
}

async fn soak(mode: Mode) {
    let (cuts, time, files, len, devices) = size();
    let origin = FakeOrigin::start().await;
    let file = move |number: u64| Pattern::new(720 + number, len);
    for number in 0..files {
        origin.serve(&format!("/{number}.swu"), Reply::file(file(number)));
    }
    origin.keep_sockets_short();
    // It lasts as long as the links fail.
    origin.limit_rate(files * len / time.as_secs());
    let chain = Chain::start(&origin, mode, Duration::ZERO).await;
    let mut downloads = JoinSet::new();
    for device in 0..devices {
        let agent = DoAgent::new(chain.lowest()).with_address(1 + device as u16);
        downloads.spawn(async move {
            let mut failures = Vec::new();
            let mut requests = 0;
            // Each device wants some of the files, in an order of its own.
            for step in 0..files.div_ceil(4) {
                let number = (device * 7 + step * 3) % files;
                let download = agent.download(HOST, &format!("/{number}.swu"), file(number), &[]).await;
                requests += download.requests;
                if !download.is_right() {
                    failures.push((number, download));
                }
            }
            (failures, agent.has_bans(), requests)
        });
    }
    let mut dice = Dice::seeded("links that fail", 720);
    let links = chain.links.clone();
    let failing = tokio::spawn(async move {
        let start = tokio::time::Instant::now();
        let mut troubles = JoinSet::new();
        for cut in 1..=cuts {
            let link = Arc::clone(&links[dice.below(3) as usize]);
            let state = if dice.below(2) == 0 { State::Cut } else { State::Silent };
            let millis = if dice.below(10) == 0 { 2000 + dice.below(6000) } else { 100 + dice.below(1900) };
            let millis = if bars() { millis } else { millis / 4 };
            troubles.spawn(async move { link.trouble(state, Duration::from_millis(millis)).await });
            tokio::time::sleep_until(start + time * cut / cuts).await;
        }
        troubles.join_all().await;
    });
    let (mut requests, mut wrong, mut banned) = (0, Vec::new(), 0);
    while let Some(done) = downloads.join_next().await {
        let (failures, bans, asked) = done.unwrap();
        wrong.extend(failures);
        banned += u32::from(bans);
        requests += asked;
    }
    let was_long_enough = failing.is_finished();
    failing.abort();
    let asked = origin.ledger().distinct();
    let ratio = origin.body_bytes() as f64 / asked as f64;
    println!(
        "{mode:?}: {cuts} cuts, origin {ratio:.4} x of {} MiB, {requests} requests of {devices} devices",
        asked / MIB
    );
    assert!(wrong.is_empty(), "{mode:?}: {wrong:?}");
    assert_eq!(banned, 0, "{mode:?}");
    if bars() {
        assert!(ratio <= 1.02, "{mode:?}: {ratio}");
        assert!(was_long_enough, "the files were there before the links had failed {cuts} times");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_below_links_that_fail_all_the_time_get_their_files() {
    let modes: &[Mode] = if bars() { &[Mode::Ranged] } else { &Mode::BOTH };
    for mode in modes {
        soak(*mode).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_way_costs_time_and_no_bytes() {
    let pattern = Pattern::new(780, 6 * MIB);
    let origin = FakeOrigin::with(PATH, Reply::file(pattern)).await;
    let chain = Chain::start(&origin, Mode::Ranged, Duration::from_millis(40)).await;
    let mut devices = JoinSet::new();
    for number in 0..5 {
        let agent = DoAgent::new(chain.lowest()).with_address(1 + number);
        devices.spawn(async move { (agent.download(HOST, PATH, pattern, &[]).await, agent.has_bans()) });
    }
    while let Some(done) = devices.join_next().await {
        let (download, banned) = done.unwrap();
        assert!(!banned, "{download:?}");
        download.must_be(pattern, pattern.sha256());
    }
    assert_eq!(origin.body_bytes(), pattern.len);
}
