//! Drives without room: what no drive takes passes through a window in memory, and clients do not notice.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::rig::bars;
use super::rig::client::{Connection, End, get};
use super::rig::do_client::DoAgent;
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Gate, Reply, digest_field, wide_field};
use super::rig::pattern::Pattern;
use super::rig::rules::Mode;
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "dl.example.com";
const PATH: &str = "/f.bin";
const MIB: u64 = 1 << 20;
/// Larger than the smallest drive that a configuration may have.
const LARGE: Pattern = Pattern { seed: 901, len: 40 * MIB + 5 };

fn small_drive(setup: Setup) -> Setup {
    let drive = setup.path("drive1").to_str().unwrap().to_owned();
    setup.set("storage.drives", json!([{ "path": drive, "quota": "16 MiB", "min_free": 0 }]))
}

async fn node_with(reply: Reply, mode: Mode) -> (RunningNode, FakeOrigin) {
    let origin = FakeOrigin::with(PATH, reply).await;
    let node = small_drive(Setup::new().origin(HOST, origin.address, mode.rule())).start();
    (node, origin)
}

fn text(fields: &[&str]) -> String {
    get(&format!("{PATH}?cacheHostOrigin={HOST}"), fields)
}

fn ratio(origin: &FakeOrigin, pattern: Pattern) -> f64 {
    origin.body_bytes() as f64 / pattern.len as f64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_larger_than_the_drive_is_one_transfer_for_all_who_want_it() {
    for mode in Mode::BOTH {
        let gate = Gate::shut();
        let (node, origin) = node_with(Reply::file(LARGE).hold_at(3 * MIB, &gate), mode).await;
        let mut clients = JoinSet::new();
        for number in 0..8 {
            let address = node.data;
            clients.spawn(async move {
                let mut connection = Connection::open_as(1 + number, address).await;
                connection.send(&text(&[])).await;
                let head = connection.head().await;
                (head.status, connection.checked(&head, LARGE, 0).await)
            });
        }
        while node.metric("waystation_requests_in_flight", "").await < 8.0 {}
        gate.open();
        while let Some(done) = clients.join_next().await {
            let (status, checked) = done.unwrap();
            assert_eq!((status, checked.len, checked.first_difference), (200, LARGE.len, None), "{mode:?}");
            assert_eq!(checked.end, End::Complete);
        }
        println!(
            "{mode:?}: 8 clients, {} MiB on a drive of 16 MiB: origin {:.4} x",
            LARGE.len / MIB,
            ratio(&origin, LARGE)
        );
        assert!(ratio(&origin, LARGE) < 1.1, "{mode:?}: {} requests", origin.requests());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_of_such_a_body_are_shared_and_right() {
    for mode in Mode::BOTH {
        let (node, origin) = node_with(Reply::file(LARGE), mode).await;
        let mut clients = JoinSet::new();
        for number in 0..8 {
            let (address, from) = (node.data, 25 * MIB + 1000);
            clients.spawn(async move {
                let mut connection = Connection::open_as(1 + number, address).await;
                connection.send(&text(&[&format!("Range: bytes={from}-{}", LARGE.len - 1)])).await;
                let head = connection.head().await;
                (head.status, connection.checked(&head, LARGE, from).await)
            });
        }
        while let Some(done) = clients.join_next().await {
            let (status, checked) = done.unwrap();
            let len = LARGE.len - 25 * MIB - 1000;
            assert_eq!((status, checked.len, checked.first_difference), (206, len, None), "{mode:?}");
        }
        println!("{mode:?}: 8 clients of the last 15 MiB: origin {:.4} x the whole", ratio(&origin, LARGE));
        assert!(ratio(&origin, LARGE) < 1.0, "{mode:?}: {} requests", origin.requests());
    }
}

/// Agents come back for the rest of what they were cut in, and share it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_drop_and_resume_get_right_files() {
    for mode in Mode::BOTH {
        let (node, origin) = node_with(Reply::file(LARGE).with_digest(LARGE), mode).await;
        origin.limit_rate(20 * MIB);
        let (sha256, mut agents) = (LARGE.sha256(), JoinSet::new());
        for number in 0..12 {
            let agent = DoAgent::new(node.data).with_address(1 + number);
            let pauses: Vec<u64> = if number % 3 == 0 { vec![(1 + u64::from(number)) * MIB] } else { Vec::new() };
            agents.spawn(async move {
                let download = agent.download(HOST, PATH, LARGE, &pauses).await;
                (download, agent.has_bans())
            });
        }
        while let Some(done) = agents.join_next().await {
            let (download, banned) = done.unwrap();
            assert!(!banned, "{mode:?}: {download:?}");
            download.must_be(LARGE, sha256);
        }
        println!("{mode:?}: 12 agents, 4 of which drop and resume: origin {:.4} x", ratio(&origin, LARGE));
        assert!(ratio(&origin, LARGE) <= 2.0, "{mode:?}: {} requests", origin.requests());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_too_slow_is_left_behind_and_comes_back() {
    // More than a window and what the kernel keeps for a connection.
    let pattern = Pattern::new(902, 80 * MIB);
    let (node, origin) = node_with(Reply::file(pattern), Mode::Ranged).await;
    let mut slow = Connection::open_as(1, node.data).await;
    slow.send(&text(&[])).await;
    let head = slow.head().await;
    let mut framing = head.framing(false);
    let mut got = slow.piece(&mut framing, 1000).await.unwrap().unwrap().len() as u64;
    let mut fast = Connection::open_as(2, node.data).await;
    fast.send(&text(&[])).await;
    let mut fast_framing = fast.head().await.framing(false);
    let (mut last, mut held, mut at) = (Instant::now(), Duration::ZERO, 0);
    while let Ok(Some(piece)) = fast.piece(&mut fast_framing, 1 << 20).await {
        held = held.max(last.elapsed());
        assert_eq!(pattern.first_difference(at, &piece), None);
        (at, last) = (at + piece.len() as u64, Instant::now());
    }
    assert_eq!(at, pattern.len);
    while let Ok(Some(piece)) = slow.piece(&mut framing, 1 << 20).await {
        assert_eq!(pattern.first_difference(got, &piece), None);
        got += piece.len() as u64;
    }
    assert!(got < pattern.len, "it was not cut");
    let mut again = Connection::open_as(1, node.data).await;
    again.send(&text(&[&format!("Range: bytes={got}-{}", pattern.len - 1)])).await;
    let head = again.head().await;
    let checked = again.checked(&head, pattern, got).await;
    assert_eq!((head.status, checked.len, checked.first_difference), (206, pattern.len - got, None));
    println!("a slow client held a fast one back for {held:.1?}; origin {:.4} x", ratio(&origin, pattern));
    assert!(ratio(&origin, pattern) <= 2.05, "{}", origin.requests());
}

/// Two hosts have one content, and only of one the operator says what it hashes to: its clients do not wait for what passes
/// through a window for the other's.
#[tokio::test]
async fn a_digest_rule_is_not_held_up_by_what_passes_for_another_host() {
    let (wrong, gate) = (Pattern { seed: 903, ..LARGE }, Gate::shut());
    let origin = FakeOrigin::with(PATH, Reply::file(wrong).hold_at(3 * MIB, &gate)).await;
    let rule = || json!({ "canonical": "both", "fill": "whole" });
    let mut ruled = rule();
    ruled["digests"] = json!({ PATH: STANDARD.encode(LARGE.sha256()) });
    let setup = Setup::new().origin("other.example.com", origin.address, rule()).origin(HOST, origin.address, ruled);
    let node = small_drive(setup).start();
    let mut other = Connection::open_as(1, node.data).await;
    other.send(&get("/-/other.example.com/f.bin", &[])).await;
    let head = other.head().await;
    origin.serve(PATH, Reply::file(LARGE));
    let answer = node.get(&format!("/-/{HOST}{PATH}"), &[]).await;
    assert_eq!((answer.head.status, answer.body.len() as u64), (200, LARGE.len), "{}", answer.head.raw);
    assert_eq!((answer.end, LARGE.first_difference(0, &answer.body)), (End::Complete, None));
    gate.open();
    let checked = other.checked(&head, wrong, 0).await;
    assert_eq!((checked.len, checked.first_difference), (wrong.len, None));
}

#[tokio::test]
async fn without_memory_for_windows_each_client_has_a_transfer_of_its_own() {
    let origin = FakeOrigin::with(PATH, Reply::file(LARGE)).await;
    let setup = Setup::new().origin(HOST, origin.address, Mode::Ranged.rule()).set("storage.window_memory", json!(0));
    let node = small_drive(setup).start();
    for _ in 0..2 {
        let answer = node.get(&format!("{PATH}?cacheHostOrigin={HOST}"), &[]).await;
        assert!(answer.end == End::Complete && LARGE.first_difference(0, &answer.body).is_none());
        assert_eq!(answer.body.len() as u64, LARGE.len);
    }
    assert!(ratio(&origin, LARGE) >= 2.0);
}

#[tokio::test]
async fn a_cut_of_upstream_in_a_window_is_not_noticed() {
    let (node, origin) = node_with(Reply::file(LARGE).cut_after(9 * MIB), Mode::Ranged).await;
    let answer = node.get(&format!("{PATH}?cacheHostOrigin={HOST}"), &[]).await;
    assert!(answer.end == End::Complete && LARGE.first_difference(0, &answer.body).is_none());
    assert_eq!(answer.body.len() as u64, LARGE.len);
    assert!(ratio(&origin, LARGE) < 1.1);
}

#[tokio::test]
async fn a_wrong_body_in_a_window_is_not_given_out_whole() {
    let (narrow, wide) = (digest_field(LARGE.sha256()), wide_field(&LARGE.bytes()));
    for (mode, said) in Mode::BOTH.into_iter().flat_map(|mode| [(mode, &narrow), (mode, &wide)]) {
        let right = Reply::file(LARGE).with("Repr-Digest", said);
        let (node, origin) = node_with(right.clone().damaged(5 * MIB), mode).await;
        let mut client = Connection::open_as(1, node.data).await;
        client.send(&text(&[])).await;
        let answer = client.answer(false).await;
        assert_ne!(answer.end, End::Complete, "{mode:?}: {}", answer.head.raw);
        assert!(answer.body.len() as u64 <= LARGE.len - 16 * 1024, "{mode:?}: the end left");
        origin.serve(PATH, right);
        // What it has nothing goes on with.
        let mut client = Connection::open_as(1, node.data).await;
        client.send(&text(&[&format!("Range: bytes={}-", answer.body.len())])).await;
        assert_eq!(client.answer(false).await.head.status, 503, "{mode:?}");
        let mut other = Connection::open_as(2, node.data).await;
        other.send(&text(&[])).await;
        let answer = other.answer(false).await;
        assert!(answer.end == End::Complete && answer.body.len() as u64 == LARGE.len, "{mode:?}: {}", answer.head.raw);
        assert_eq!(LARGE.first_difference(0, &answer.body), None, "{mode:?}");
    }
}

#[tokio::test]
async fn content_that_fits_is_stored_beside_what_does_not() {
    let (node, origin) = node_with(Reply::file(LARGE), Mode::Ranged).await;
    let small = Pattern::new(903, 3 * MIB);
    origin.serve("/small.bin", Reply::file(small).with("Cache-Control", "max-age=3600"));
    let target = format!("/small.bin?cacheHostOrigin={HOST}");
    for _ in 0..2 {
        let answer = node.get(&format!("{PATH}?cacheHostOrigin={HOST}"), &[]).await;
        assert!(answer.end == End::Complete && LARGE.first_difference(0, &answer.body).is_none());
        assert_eq!(node.get(&target, &[]).await.body, small.bytes());
        node.wait_for_fills(1).await;
    }
    let small_requests = origin.received().iter().filter(|request| request.path() == "/small.bin").count();
    assert!(small_requests <= 3, "{small_requests}: asked in pieces, once");
}

/// Where the other test has mounted a small file system for this one.
const SMALL: &str = "WAYSTATION_TEST_SMALL_DRIVE";

/// Not everybody may mount: that is said aloud, the story is told with a quota instead, and where CI=true it is a failure.
#[test]
fn fifty_clients_on_a_drive_of_64_mib() {
    let root = TempDir::new().unwrap();
    let mount = root.path().display().to_string();
    let script = "mount -t tmpfs -o size=64m none \"$1\" || exit 42; shift; exec \"$@\" --ignored --exact full::on_a_drive_of_64_mib --nocapture";
    let run = |command: &mut Command| command.output().map_err(|error| error.to_string());
    let program = std::env::current_exe().unwrap();
    let mounted =
        run(Command::new("unshare").args(["-Urm", "sh", "-c", script, "sh", &mount]).arg(&program).env(SMALL, &mount));
    let why = match mounted {
        Ok(output) if output.status.success() => {
            println!("{}", String::from_utf8_lossy(&output.stdout));
            return;
        }
        Ok(output) if output.status.code() == Some(42) => "mounting is not permitted".to_owned(),
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("unshare:") => {
            String::from_utf8_lossy(&output.stderr).into_owned()
        }
        Ok(output) => {
            let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            panic!("{said}\n{failed}")
        }
        Err(error) => error,
    };
    println!("NOT ON A FILE SYSTEM OF ITS OWN, with a quota only; unshare and tmpfs are needed: {why}");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
    let args = ["--ignored", "--exact", "full::on_a_drive_of_64_mib", "--nocapture"];
    let output = run(Command::new(&program).args(args).env(SMALL, "")).unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Downloads a file, and asks for the rest after a cut; says how often it was cut.
async fn plain_download(device: u16, address: SocketAddr, path: &str, pattern: Pattern) -> u32 {
    let (mut at, mut cuts) = (0, 0);
    loop {
        let range = format!("Range: bytes={at}-");
        let fields: &[&str] = if at > 0 { &[&range] } else { &[] };
        let mut client = Connection::open_as(device, address).await;
        client.send(&get(&format!("{path}?cacheHostOrigin={HOST}"), fields)).await;
        let head = client.head().await;
        assert_eq!(head.status, if at > 0 { 206 } else { 200 }, "{path} from {at}: {}", head.raw);
        let checked = client.checked(&head, pattern, at).await;
        assert_eq!(checked.first_difference, None, "{path} from {at}");
        at += checked.len;
        if checked.end == End::Complete {
            assert_eq!(at, pattern.len, "{path}");
            return cuts;
        }
        cuts += 1;
        assert!(cuts < 20, "{path} is cut at {at}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by another test, on a file system of its own"]
async fn on_a_drive_of_64_mib() {
    let mount = std::env::var(SMALL).unwrap();
    // A name in it, so that the mount point itself needs nothing.
    let (drive, quota) =
        if mount.is_empty() { ("drive1".to_owned(), "64 MiB") } else { (format!("{mount}/drive"), "10 GB") };
    let sizes: &[u64] = if bars() { &[1, 2, 4, 8, 16, 24, 40, 56, 72, 100] } else { &[1, 5, 20, 66] };
    let (clients, rounds) = if bars() { (50, 4) } else { (12, 2) };
    let origin = FakeOrigin::start().await;
    let file = |(number, size): (usize, &u64)| {
        let pattern = Pattern::new(910 + number as u64, size * MIB + 17);
        (format!("/{number}.bin"), pattern, pattern.sha256())
    };
    let files: Vec<(String, Pattern, [u8; 32])> = sizes.iter().enumerate().map(file).collect();
    for (path, pattern, _) in &files {
        let reply = Reply::file(*pattern).with("Cache-Control", "max-age=3600");
        let digested = pattern.seed % 2 == 0;
        origin.serve(path, if digested { reply.with_digest(*pattern) } else { reply });
    }
    let setup = Setup::new().origin(HOST, origin.address, Mode::Ranged.rule());
    let setup = setup.set("limits.connections_per_client", json!(1000));
    let mut node = setup.set("storage.drives", json!([{ "path": drive, "quota": quota, "min_free": 0 }])).start();
    let (started, begin) = (node.resident(), Instant::now());
    let mut most = started;
    for round in 0..rounds {
        let before = origin.body_bytes();
        let mut downloads = JoinSet::new();
        for number in 0..clients {
            let (path, pattern, sha256) = files[(usize::from(number) + round) % files.len()].clone();
            // One in three is no agent.
            let is_agent = number % 3 != 0;
            let address = node.data;
            downloads.spawn(async move {
                if is_agent {
                    let agent = DoAgent::new(address).with_address(1 + number);
                    let download = agent.download(HOST, &path, pattern, &[]).await;
                    assert!(!agent.has_bans(), "{path}: {download:?}");
                    download.must_be(pattern, sha256);
                    download.failures
                } else {
                    plain_download(1 + number, address, &path, pattern).await
                }
            });
        }
        let mut cuts = 0;
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        loop {
            tokio::select! {
                done = downloads.join_next() => match done {
                    Some(done) => cuts += u64::from(done.unwrap()),
                    None => break,
                },
                _ = looks.tick() => most = most.max(node.resident()),
            }
        }
        let all: u64 = files.iter().map(|(_, pattern, _)| pattern.len).sum();
        let ratio = (origin.body_bytes() - before) as f64 / all as f64;
        println!(
            "round {round}: {clients} clients, {} files of {} MiB in all: origin {ratio:.3} x, {cuts} cuts",
            files.len(),
            all / MIB
        );
        assert!(ratio <= 2.0, "the origin sent {ratio} times what was asked for");
    }
    println!(
        "{} rounds in {:.1?}; memory {} MiB after start, {} MiB at most",
        rounds,
        begin.elapsed(),
        started / MIB,
        most / MIB
    );
    assert!(most - started < 300 * MIB, "{most} bytes");
    node.wait_for_commits().await;
    node = node.stop().await.start();
    for (path, pattern, _) in &files {
        let answer = node.get(&format!("{path}?cacheHostOrigin={HOST}"), &[]).await;
        assert_eq!((answer.head.status, answer.body.len() as u64), (200, pattern.len), "{path}");
        assert_eq!(pattern.first_difference(0, &answer.body), None, "{path}");
    }
}
