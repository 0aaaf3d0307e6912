//! A clock that is wrong: the cache starts and serves, says so, and deletes nothing on its word. The clock of the process is
//! set by libfaketime (package `faketime`); clocks that never jump are the machine's own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::rig::client::{Answer, End, get, once};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::Reply;
use super::rig::pattern::Pattern;
use super::rig::program;
use super::rig::running_node::{RunningNode, Setup};
use super::rig::tls::{Authority, CACHE, Terminator, put};

const HOST: &str = "dl.example.com";
const AGENT: &str = "User-Agent: Microsoft-Delivery-Optimization-Lite/10.0.0.1";
const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// The clock of a node, which the test sets.
struct Clock(PathBuf);

impl Clock {
    /// Gives the node of `setup` a clock that is right at first; `None` where there is no libfaketime.
    fn of(setup: Setup) -> Option<(Self, Setup)> {
        program("faketime")?;
        let libraries =
            ["/usr/lib", "/usr/lib64"].into_iter().flat_map(|place| std::fs::read_dir(place).ok()).flatten();
        let places = libraries.flatten().map(|entry| entry.path().join("faketime"));
        let places = places.chain([PathBuf::from("/usr/lib/faketime"), PathBuf::from("/usr/lib64/faketime")]);
        let library = places.map(|place| place.join("libfaketimeMT.so.1")).find(|file| file.is_file());
        let library = library.unwrap();
        let clock = Self(setup.path("time"));
        clock.set("+0");
        let (library, file) = (text(&library), text(&clock.0));
        let variables = [("LD_PRELOAD", &*library), ("FAKETIME_TIMESTAMP_FILE", &*file), ("FAKETIME_NO_CACHE", "1")];
        let others = [("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("NO_FAKE_STAT", "1"), ("TZ", "UTC")];
        let variables = variables.into_iter().chain(others);
        let setup = variables.fold(setup, |setup, (name, value)| setup.variable(name, value));
        Some((clock, setup))
    }

    /// `@2050-01-01 00:00:00`, or an offset like `+2d`.
    fn set(&self, time: &str) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, format!("{time}\n")).unwrap();
        std::fs::rename(&new, &self.0).unwrap();
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

async fn ready(node: &RunningNode) -> Value {
    let answer = once(node.admin, &get("/readyz", &[])).await;
    assert_eq!(answer.head.status, 200, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}

/// Waits until the node says this of its clock.
async fn wait_for(node: &RunningNode, clock: &str) {
    let deadline = Instant::now() + PATIENCE;
    while ready(node).await["clock"] != clock {
        assert!(Instant::now() < deadline, "{clock}: {}", ready(node).await);
    }
}

async fn ask(node: &RunningNode, path: &str, fields: &[&str]) -> Answer {
    node.get(&format!("/-/{HOST}{path}"), fields).await
}

fn must_be(answer: &Answer, pattern: Pattern) {
    assert_eq!((answer.head.status, answer.end), (200, End::Complete), "{}", answer.head.raw);
    assert!(answer.body == pattern.bytes());
}

#[tokio::test]
async fn a_node_whose_clock_is_decades_off_starts_serves_and_fetches() {
    let (old, new) = (Pattern::new(1001, MIB), Pattern::new(1002, MIB));
    for (time, reason) in [("@1970-01-10 00:00:00", "before-build"), ("@2050-01-01 00:00:00", "too-late")] {
        let origin = FakeOrigin::with("/old", Reply::file(old)).await;
        let setup = Setup::new().origin(HOST, origin.address, json!({}));
        let Some((clock, setup)) = Clock::of(setup) else { return };
        let node = setup.start();
        must_be(&ask(&node, "/old", &[]).await, old);
        node.wait_for_fills(1).await;
        assert_eq!(ready(&node).await["clock"], "trusted");
        let setup = node.stop().await;
        clock.set(time);
        let node = setup.start();
        wait_for(&node, &format!("untrusted: {reason}")).await;
        assert_eq!(node.metric("waystation_clock_untrusted", reason).await, 1.0);
        assert!(ready(&node).await["reasons"].to_string().contains("clock: untrusted"));
        // What is fresh still is: as far as anybody knows, no time has passed.
        origin.switch_off();
        let answer = ask(&node, "/old", &[]).await;
        must_be(&answer, old);
        let age: u64 = answer.head.field("Age").unwrap().parse().unwrap();
        assert!(age < 600, "{time}: {}", answer.head.raw);
        origin.switch_on();
        origin.serve("/new", Reply::file(new));
        // The source may count as down for a moment.
        let deadline = Instant::now() + PATIENCE;
        while ask(&node, "/new", &[]).await.head.status != 200 {
            assert!(Instant::now() < deadline, "{time}");
        }
        let requests = origin.requests();
        let again = ask(&node, "/new", &[]).await;
        must_be(&again, new);
        assert!(again.head.field("Cache-Status").unwrap().contains("; hit"), "{time}: {}", again.head.raw);
        assert_eq!(origin.requests(), requests);
        let said = node.said();
        assert_eq!(said.matches("the clock of this machine is not believed").count(), 1, "{said}");
        // Set right again, it is believed, and what came meanwhile is there.
        clock.set("+0");
        wait_for(&node, "trusted").await;
        must_be(&ask(&node, "/new", &[]).await, new);
        let setup = node.stop().await;
        let node = setup.start();
        assert_eq!(ready(&node).await["clock"], "trusted");
        for (path, pattern) in [("/old", old), ("/new", new)] {
            must_be(&ask(&node, path, &[]).await, pattern);
        }
    }
}

#[tokio::test]
async fn a_jump_deletes_nothing_and_is_forgiven_when_it_is_undone() {
    let (first, second) = (Pattern::new(1003, 3 * MIB), Pattern::new(1004, 3 * MIB + 5));
    let changing = |pattern| Reply::file(pattern).with("Cache-Control", "max-age=0");
    let origin = FakeOrigin::with("/f", changing(first)).await;
    let Some((clock, setup)) = Clock::of(Setup::new().origin(HOST, origin.address, json!({}))) else { return };
    let node = setup.start();
    must_be(&ask(&node, "/f", &[AGENT]).await, first);
    node.wait_for_fills(1).await;
    origin.serve("/f", changing(second));
    let other = super::rig::client::Connection::open_as(7, node.data);
    let mut other = other.await;
    other.send(&get(&format!("/-/{HOST}/f"), &[])).await;
    must_be(&other.answer(false).await, second);
    node.wait_for_fills(2).await;
    // Older versions stay for a day: by this clock it is over.
    clock.set("+400d");
    wait_for(&node, "untrusted: jumped").await;
    let rest = ask(&node, "/f", &[AGENT, &format!("Range: bytes={MIB}-")]).await;
    assert_eq!(rest.head.status, 206, "{}", rest.head.raw);
    assert!(rest.body == first.slice(MIB, first.len), "the rest of what it has a part of");
    clock.set("-400d");
    wait_for(&node, "untrusted: before-build").await;
    clock.set("+1m");
    wait_for(&node, "trusted").await;
    assert_eq!(node.metric("waystation_clock_untrusted", "").await, 0.0);
    let rest = ask(&node, "/f", &[AGENT, &format!("Range: bytes={MIB}-")]).await;
    assert!(rest.head.status == 206 && rest.body == first.slice(MIB, first.len), "{}", rest.head.raw);
}

#[tokio::test]
async fn certificates_are_judged_at_a_time_that_is_not_over_and_a_clock_is_named_when_it_is_the_fault() {
    let (site, pattern) = (Authority::new("site"), Pattern::new(1005, 5000));
    let origin = FakeOrigin::with("/f", Reply::file(pattern)).await;
    // (years of the parent's certificate, clock, whether it will do, what is said if not)
    for (years, time, said) in [
        (2020..2200, "@1970-01-10 00:00:00", None),
        (2020..2040, "+0", None),
        (2020..2040, "@2050-01-01 00:00:00", Some("or this machine's clock is ahead")),
        (2100..2200, "@1970-01-10 00:00:00", Some("is this machine's clock right?")),
    ] {
        let parent = Terminator::before(origin.address, &site.pair(CACHE, years.clone())).await;
        let setup = Setup::new();
        let directory = setup.path("");
        put(&directory, "ca.pem", &site.pem());
        site.pair(CACHE, 2020..2040).write(&directory);
        let url = format!("https://{}", parent.address);
        let setup = setup
            .set("origins", json!([{ "host": HOST }]))
            .set("upstream.parents", json!([{ "url": url, "tls_name": CACHE }]))
            .set("upstream.tls.ca", json!(directory.join("ca.pem")))
            .set("upstream.timeouts.request", json!("2s"))
            .set("log.level", json!("debug"));
        let Some((clock, setup)) = Clock::of(setup) else { return };
        clock.set(time);
        let node = setup.start();
        let answer = ask(&node, "/f", &[]).await;
        match said {
            None => must_be(&answer, pattern),
            Some(said) => {
                assert_eq!(answer.head.status, 503, "{years:?} {time}: {}", answer.head.raw);
                assert!(node.says(said), "{years:?} {time}");
            }
        }
    }
}

#[tokio::test]
async fn a_kept_time_that_was_wrong_locks_nobody_out() {
    let (site, pattern) = (Authority::new("site"), Pattern::new(1006, 5000));
    let origin = FakeOrigin::with("/f", Reply::file(pattern)).await;
    let parent = Terminator::before(origin.address, &site.pair(CACHE, 2020..2030)).await;
    let setup = Setup::new();
    let directory = setup.path("");
    put(&directory, "ca.pem", &site.pem());
    let url = format!("https://{}", parent.address);
    let setup = setup
        .set("origins", json!([{ "host": HOST }]))
        .set("upstream.parents", json!([{ "url": url, "tls_name": CACHE }]))
        .set("upstream.tls.ca", json!(directory.join("ca.pem")));
    let Some((clock, setup)) = Clock::of(setup) else { return };
    // Plausible, and wrong: within ten years of the release.
    clock.set("+1500d");
    let node = setup.start();
    let kept = node.setup().path("state/clock");
    let deadline = Instant::now() + PATIENCE;
    while !kept.is_file() {
        assert!(Instant::now() < deadline, "the time is not kept");
    }
    let setup = node.stop().await;
    clock.set("+0");
    let node = setup.start();
    wait_for(&node, "untrusted: behind-kept-time").await;
    must_be(&ask(&node, "/f", &[]).await, pattern);
    // A damaged file says nothing.
    let setup = node.stop().await;
    std::fs::write(&kept, "not a time").unwrap();
    let node = setup.start();
    wait_for(&node, "trusted").await;
}
