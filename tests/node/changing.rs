//! Content that changes at its URL while devices are fetching it: no file is joined from two versions.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::rig::Dice;
use super::rig::client::{Answer, Connection, End, get};
use super::rig::device::{Delivery, deliver};
use super::rig::do_client::{DoAgent, LongPause};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Gate, Reply};
use super::rig::pattern::Pattern;
use super::rig::rules::Mode;
use super::rig::running_node::{RunningNode, Setup};
use super::rig::trouble::{Strike, Trouble};

const HOST: &str = "contoso--fleet.b.nlu.dl.adu.microsoft.com";
const PATH: &str = "/westus2/image.swu";
const AGENT: &str = "User-Agent: Microsoft-Delivery-Optimization-Lite/10.0.0.1";
const MIB: u64 = 1 << 20;
const DEVICES: u16 = 10;

const OLD: Pattern = Pattern { seed: 601, len: 3 * MIB + 321 };
const SAME_LENGTH: Pattern = Pattern { seed: 602, len: OLD.len };
const OTHER_LENGTH: Pattern = Pattern { seed: 603, len: OLD.len - 99_999 };

/// A version that is asked about each time.
fn reply(version: Pattern) -> Reply {
    Reply::file(version).with("Cache-Control", "max-age=0")
}

fn tag(version: Pattern) -> String {
    format!("\"{:x}-{:x}\"", version.seed, version.len)
}

struct Scene {
    origin: Arc<FakeOrigin>,
    node: RunningNode,
}

impl Scene {
    async fn new(mode: Mode) -> Self {
        let origin = FakeOrigin::with(PATH, reply(OLD)).await;
        let node = Setup::new().origin(HOST, origin.address, mode.rule()).start();
        Self { origin: Arc::new(origin), node }
    }

    /// One request with a connection of its own from the address of `device`.
    async fn ask(&self, device: u16, fields: &[&str]) -> Answer {
        let mut connection = Connection::open_as(device, self.node.data).await;
        connection.send(&get(&format!("{PATH}?cacheHostOrigin={HOST}"), fields)).await;
        connection.answer(false).await
    }

    /// Fetches the present version as `device`, which must be `version`, until it is stored as the `count`-th.
    async fn store(&self, device: u16, version: Pattern, count: u32) {
        let answer = self.ask(device, &[AGENT]).await;
        assert_eq!((answer.head.status, answer.end), (200, End::Complete), "{}", answer.head.raw);
        assert!(answer.body == version.bytes(), "the newcomer gets another version than the origin has");
        self.node.wait_for_fills(count).await;
    }
}

/// Ten devices, each with a pause that lasts until `pause` ends.
fn devices(scene: &Scene, next: Pattern, pauses_until: u64, pause: Option<&LongPause>) -> JoinSet<(Delivery, bool)> {
    let mut dice = Dice::seeded("changing content", 601);
    let mut devices = JoinSet::new();
    for number in 1..=DEVICES {
        let pauses = vec![1000 + dice.below(pauses_until - 1000)];
        let agent = DoAgent::new(scene.node.data).with_address(number).with_no_progress(Duration::from_secs(4));
        let agent = pause.iter().fold(agent, |agent, pause| agent.with_long_pause(pause));
        devices.spawn(async move {
            let delivery = deliver(&agent, HOST, PATH, &[OLD, next], &pauses).await;
            (delivery, agent.has_bans())
        });
    }
    devices
}

/// How many have the old version and how many the new one; restarts. Everybody must have one of them.
async fn all_have_one(what: &str, mut devices: JoinSet<(Delivery, bool)>) -> ([usize; 2], u32) {
    let (mut versions, mut restarts, mut odd, mut joined) = ([0; 2], 0, Vec::new(), 0);
    while let Some(done) = devices.join_next().await {
        let (delivery, banned) = done.unwrap();
        restarts += delivery.restarts;
        joined += usize::from(delivery.last.is_wrong());
        match delivery.last.version.filter(|_| delivery.last.is_right() && !banned) {
            Some(version) => versions[version] += 1,
            None => odd.push(delivery.last),
        }
    }
    println!(
        "{what}: {} old, {} new, {joined} joined, {} others; {restarts} restarts",
        versions[0],
        versions[1],
        odd.len()
    );
    assert!(odd.is_empty(), "{what}: {} of {DEVICES}, {joined} joined: {:?}", odd.len(), odd[0]);
    (versions, restarts)
}

/// The old version is whole in the store when it changes: everybody gets the rest of it, also after a restart.
async fn pause_with_the_old_version_stored(next: Pattern, restart: bool) {
    for mode in Mode::BOTH {
        let mut scene = Scene::new(mode).await;
        scene.store(100, OLD, 1).await;
        let pause = LongPause::new();
        let devices = devices(&scene, next, OLD.len * 9 / 10, Some(&pause));
        pause.wait_for(DEVICES.into()).await;
        scene.origin.serve(PATH, reply(next));
        scene.store(101, next, 2).await;
        if restart {
            let ports = scene.node.setup_with_these_ports();
            scene.node.stop().await;
            scene.node = ports.start();
        }
        pause.end();
        let what = format!("changed during a pause, {mode:?}, next of {} bytes, restart {restart}", next.len);
        let (versions, restarts) = all_have_one(&what, devices).await;
        assert_eq!((versions, restarts), ([DEVICES.into(), 0], 0), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_pause_the_rest_is_that_of_the_version_that_was_begun_same_length() {
    pause_with_the_old_version_stored(SAME_LENGTH, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_pause_the_rest_is_that_of_the_version_that_was_begun_other_length() {
    pause_with_the_old_version_stored(OTHER_LENGTH, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_given_which_version_is_known_after_a_restart() {
    pause_with_the_old_version_stored(SAME_LENGTH, true).await;
}

/// The old version is lost when it changes: devices that have some of it start anew.
async fn pause_with_a_part_of_the_old_version(next: Pattern) {
    for mode in Mode::BOTH {
        let scene = Scene::new(mode).await;
        // However often the node asks for the rest.
        scene.origin.serve(PATH, reply(OLD).hold_at(OLD.len * 6 / 10, &Gate::shut()));
        let pause = LongPause::new();
        let devices = devices(&scene, next, OLD.len / 2, Some(&pause));
        pause.wait_for(DEVICES.into()).await;
        scene.origin.serve(PATH, reply(next));
        scene.origin.restart().await;
        pause.end();
        let what = format!("changed during a pause in mid-fill, {mode:?}, next of {} bytes", next.len);
        let (versions, _) = all_have_one(&what, devices).await;
        assert_eq!(versions, [0, DEVICES.into()], "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_a_part_of_what_is_lost_starts_anew_same_length() {
    pause_with_a_part_of_the_old_version(SAME_LENGTH).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_a_part_of_what_is_lost_starts_anew_other_length() {
    pause_with_a_part_of_the_old_version(OTHER_LENGTH).await;
}

/// Answers that run go on with the old version, requests from then on get the new one.
async fn changed_during_the_fill(next: Pattern) {
    for mode in Mode::BOTH {
        let scene = Scene::new(mode).await;
        scene.origin.limit_rate(OLD.len);
        let devices = devices(&scene, next, OLD.len * 9 / 10, None);
        scene.origin.wait_for_bytes(OLD.len * 41 / 100).await;
        scene.origin.serve(PATH, reply(next));
        all_have_one(&format!("changed during the fill, {mode:?}, next of {} bytes", next.len), devices).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_a_joined_file_when_it_changes_during_the_fill_same_length() {
    changed_during_the_fill(SAME_LENGTH).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_a_joined_file_when_it_changes_during_the_fill_other_length() {
    changed_during_the_fill(OTHER_LENGTH).await;
}

#[tokio::test]
async fn a_plain_client_is_cut_when_the_rest_is_another_version() {
    for (mode, next) in [(Mode::Ranged, SAME_LENGTH), (Mode::Whole, SAME_LENGTH), (Mode::Whole, OTHER_LENGTH)] {
        let scene = Scene::new(mode).await;
        let trouble = Trouble::at(&[(OLD.len * 41 / 100, Strike::Cut)]);
        let here = trouble.clone();
        scene.origin.script(PATH, move |_| reply(if here.struck() == 0 { OLD } else { next }).troubled(&here));
        let text = get(&format!("/-/{HOST}{PATH}"), &[]);
        let mut client = Connection::open(scene.node.data).await;
        client.send(&text).await;
        let head = client.head().await;
        assert_eq!((head.status, head.field("ETag")), (200, Some(tag(OLD).as_str())), "{}", head.raw);
        let checked = client.checked(&head, OLD, 0).await;
        assert_eq!((checked.end, checked.first_difference), (End::Cut, None), "{mode:?}: {checked:?}");
        // With its version named it is told that there is another one; without, it never gets bytes of the other.
        let (range, condition) = (format!("Range: bytes={}-", checked.len), format!("If-Range: {}", tag(OLD)));
        let whole = scene.node.get(&format!("/-/{HOST}{PATH}"), &[&range, &condition]).await;
        assert_eq!((whole.head.status, whole.end), (200, End::Complete), "{mode:?}: {}", whole.head.raw);
        assert!(whole.body == next.bytes(), "{mode:?}");
    }
}

#[tokio::test]
async fn if_range_is_honoured_against_the_old_and_the_new_version() {
    for (mode, next) in [(Mode::Ranged, SAME_LENGTH), (Mode::Whole, SAME_LENGTH), (Mode::Whole, OTHER_LENGTH)] {
        let scene = Scene::new(mode).await;
        scene.store(1, OLD, 1).await;
        scene.origin.serve(PATH, reply(next));
        scene.store(2, next, 2).await;
        for version in [OLD, next, OLD] {
            let part = scene.ask(3, &["Range: bytes=1000-1999", &format!("If-Range: {}", tag(version))]).await;
            assert_eq!(part.head.status, 206, "{mode:?} {version:?}: {}", part.head.raw);
            let range = format!("bytes 1000-1999/{}", version.len);
            assert_eq!(part.head.exact("Content-Range"), Some(range.as_str()), "{mode:?}");
            assert_eq!(part.head.field("ETag"), Some(tag(version).as_str()), "{mode:?}");
            assert!(part.body == version.slice(1000, 2000), "{mode:?} {version:?}");
        }
        let other = scene.ask(3, &["Range: bytes=1000-1999", "If-Range: \"never-seen\""]).await;
        assert_eq!((other.head.status, other.body == next.bytes()), (200, true), "{mode:?}: {}", other.head.raw);
    }
}

#[tokio::test]
async fn an_agent_resumes_the_version_that_it_was_given_or_is_told_to_wait() {
    for next in [SAME_LENGTH, OTHER_LENGTH] {
        let scene = Scene::new(Mode::Ranged).await;
        scene.store(1, OLD, 1).await;
        scene.origin.serve(PATH, reply(next));
        scene.store(2, next, 2).await;
        for (device, version) in [(1, OLD), (2, next), (1, OLD)] {
            let range = format!("Range: bytes=1000-{}", version.len - 1);
            let rest = scene.ask(device, &[AGENT, &range]).await;
            assert_eq!((rest.head.status, rest.end), (206, End::Complete), "device {device}: {}", rest.head.raw);
            assert!(rest.body == version.slice(1000, version.len), "device {device}");
        }
        // Of a stranger only the end of its range tells which version it means.
        for version in [OLD, next] {
            let range = format!("Range: bytes=1000-{}", version.len - 1);
            let rest = scene.ask(9, &[AGENT, &range]).await;
            if next.len == OLD.len {
                assert_eq!(
                    (rest.head.status, rest.head.exact("Content-Length")),
                    (503, Some("0")),
                    "{}",
                    rest.head.raw
                );
            } else {
                assert_eq!(rest.head.status, 206, "{}", rest.head.raw);
                assert!(rest.body == version.slice(1000, version.len), "{version:?}");
            }
        }
        // No version ever had this length: neither a range of another one nor 416.
        let strange = scene.ask(9, &[AGENT, &format!("Range: bytes=1000-{}", OLD.len + 4999)]).await;
        assert_eq!(strange.head.status, 503, "{}", strange.head.raw);
    }
}
