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
        Self::with(origin, mode, (delay, 16 * 1024), |setup| setup).await
    }

    async fn with(
        origin: &FakeOrigin,
        mode: Mode,
        (delay, waiting): (Duration, usize),
        more: impl Fn(Setup) -> Setup,
    ) -> Self {
        let (mut links, mut levels): (Vec<Arc<Relay>>, Vec<RunningNode>) = (Vec::new(), Vec::new());
        for level in 0..3 {
            let above = levels.last().map_or(origin.address, |node| node.data);
            let link = Arc::new(Relay::start(above, delay, waiting).await);
            let setup = match level {
                0 => Setup::new().origin(HOST, link.address, mode.rule()),
                _ => below(&[url(link.address)], mode.rule()),
            };
            levels.push(more(setup).start());
            links.push(link);
        }
        Self { links, levels }
    }

    /// The same with the times of the levels that tell whether a link is up at a twentieth or so.
    async fn scaled(origin: &FakeOrigin, mode: Mode) -> Self {
        Self::with(origin, mode, (Duration::ZERO, 64 * 1024), |setup| {
            let times = [("connect", "150ms"), ("stall", "2s")];
            let set =
                |setup: Setup, (name, time): (&str, &str)| setup.set(&format!("upstream.timeouts.{name}"), json!(time));
            times.into_iter().fold(setup, set)
        })
        .await
    }

    /// Kills all levels and starts them again.
    async fn restart(&mut self) {
        for level in &mut self.levels {
            let setup = level.setup_with_these_ports();
            level.signal(rustix::process::Signal::KILL);
            level.exit().await;
            *level = setup.start();
        }
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
        let agent = DoAgent::new(chain.lowest()).with_address(1 + device as u16).with_backoff(1.0);
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

/// A device that asks again and again for what it has not; returns how often it asked.
async fn persist(to: SocketAddr, pattern: Pattern) -> u32 {
    let (mut len, mut requests) = (0, 0);
    while len < pattern.len {
        requests += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let Ok(stream) = tokio::net::TcpStream::connect(to).await else { continue };
        let mut connection = Connection::over(stream);
        let range = format!("Range: bytes={len}-");
        let sent = connection.try_send(get(&asked(), &[&range]).as_bytes()).await;
        let Ok(head) = (match sent {
            Ok(()) => connection.try_head().await,
            Err(error) => Err(error),
        }) else {
            continue;
        };
        assert!(matches!(head.status, 206 | 503), "{}", head.raw);
        if head.status == 206 {
            let checked = connection.checked(&head, pattern, len).await;
            assert_eq!(checked.first_difference, None, "behind {len}");
            len += checked.len;
        }
    }
    requests
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_up_for_short_times_is_used_while_it_is_up() {
    // As 30 s in every 10 min, at a twentieth of the times.
    let (size, rate, up, down) = if bars() {
        (512 * MIB, 40 * MIB, Duration::from_millis(1500), Duration::from_millis(28_500))
    } else {
        (24 * MIB, 8 * MIB, Duration::from_millis(750), Duration::from_millis(2250))
    };
    let pattern = Pattern::new(790, size);
    let origin = FakeOrigin::with(PATH, Reply::file(pattern)).await;
    origin.keep_sockets_short();
    origin.limit_rate(rate);
    let mut chain = Chain::scaled(&origin, Mode::Ranged).await;
    let device = tokio::spawn(persist(chain.lowest(), pattern));
    let link = Arc::clone(&chain.links[0]);
    let (mut used, mut restarted) = (Duration::ZERO, false);
    while origin.ledger().distinct() < size && !device.is_finished() {
        link.set(State::Up);
        let since = Instant::now();
        while origin.ledger().distinct() < size && since.elapsed() < up {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        used += since.elapsed().min(up);
        link.set(State::Gone);
        if !restarted && origin.ledger().distinct() > size / 3 {
            chain.restart().await;
            restarted = true;
        }
        if origin.ledger().distinct() < size {
            tokio::time::sleep(down).await;
        }
    }
    // What the origin had sent when the link went last may have been lost on its way.
    link.set(State::Up);
    let requests = device.await.unwrap();
    let needed = size as f64 / rate as f64;
    let (times, ratio) = (used.as_secs_f64() / needed, origin.body_bytes() as f64 / size as f64);
    println!(
        "{} MiB in windows of {up:?} after {down:?}: {times:.3} x the time needed, origin {ratio:.4} x, {requests} requests of the device",
        size / MIB
    );
    assert!(restarted);
    if bars() {
        assert!(times <= 1.1, "{times}");
        assert!(ratio <= 1.02, "{ratio}");
    }
}
