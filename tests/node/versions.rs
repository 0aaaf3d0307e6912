//! Who was given which version: over kills, without the state directory, and for devices behind one address. What
//! changes while devices fetch it is in `changing`.

use serde_json::json;

use super::rig::client::{Answer, Connection, End, Framing, get};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::Reply;
use super::rig::pattern::Pattern;
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "contoso--fleet.b.nlu.dl.adu.microsoft.com";
const AGENT: &str = "User-Agent: Microsoft-Delivery-Optimization-Lite/10.0.0.1";
const MIB: u64 = 1 << 20;

const OLD: Pattern = Pattern { seed: 701, len: 3 * MIB + 321 };
const SAME_LENGTH: Pattern = Pattern { seed: 702, len: OLD.len };
const OTHER_LENGTH: Pattern = Pattern { seed: 703, len: OLD.len + 99_999 };

/// A version that is asked about each time.
fn reply(version: Pattern) -> Reply {
    Reply::file(version).with("Cache-Control", "max-age=0")
}

struct Scene {
    origin: FakeOrigin,
    node: RunningNode,
    path: String,
    stored: u32,
}

impl Scene {
    async fn new() -> Self {
        let origin = FakeOrigin::start().await;
        let node = Setup::new().origin(HOST, origin.address, json!({})).start();
        Self { origin, node, path: "/westus2/image.swu".to_owned(), stored: 0 }
    }

    /// The same node with content that nobody has asked for yet.
    fn at(mut self, path: String) -> Self {
        self.path = path;
        self
    }

    async fn connect(&self, device: u16, fields: &[&str]) -> Connection {
        let mut connection = Connection::open_as(device, self.node.data).await;
        connection.send(&get(&format!("{}?cacheHostOrigin={HOST}", self.path), fields)).await;
        connection
    }

    async fn ask(&self, device: u16, fields: &[&str]) -> Answer {
        self.connect(device, fields).await.answer(false).await
    }

    /// The origin has `version` now, and `device` fetches it until it is stored.
    async fn store(&mut self, device: u16, version: Pattern) {
        self.origin.serve(&self.path, reply(version));
        let answer = self.ask(device, &[AGENT]).await;
        assert_eq!((answer.head.status, answer.end), (200, End::Complete), "{}", answer.head.raw);
        assert!(answer.body == version.bytes());
        self.stored += 1;
        self.node.wait_for_fills(self.stored).await;
    }

    /// `device` begins to fetch, gets at least a byte and is cut.
    async fn begin(&self, device: u16, version: Pattern) {
        let mut connection = self.connect(device, &[AGENT]).await;
        let head = connection.head().await;
        assert_eq!((head.status, head.length()), (200, Some(version.len)), "{}", head.raw);
        let mut framing: Framing = head.framing(false);
        let piece = connection.piece(&mut framing, 10_000).await.unwrap().unwrap();
        assert_eq!(version.first_difference(0, &piece), None);
    }

    /// `device` asks for the rest of what has the length of `version`.
    async fn resume(&self, device: u16, version: Pattern) -> Answer {
        self.ask(device, &[AGENT, &format!("Range: bytes=1-{}", version.len - 1)]).await
    }

    async fn restarted(mut self, kill: bool, lose_state: bool) -> Self {
        let setup = if kill { self.node.kill().await } else { self.node.stop().await };
        if lose_state {
            std::fs::remove_dir_all(setup.path("state")).unwrap();
        }
        self.node = setup.start();
        self.stored = 0;
        self
    }
}

#[track_caller]
fn must_be_rest(answer: &Answer, version: Pattern) {
    assert_eq!((answer.head.status, answer.end), (206, End::Complete), "{}", answer.head.raw);
    assert!(answer.body == version.slice(1, version.len), "bytes of another version");
}

#[track_caller]
fn must_be_told_to_wait(answer: &Answer) {
    let fields = (answer.head.status, answer.head.exact("Content-Length"), answer.head.field("Retry-After"));
    assert_eq!(fields, (503, Some("0"), Some("2")), "{}", answer.head.raw);
}

#[tokio::test]
async fn a_kill_at_once_after_the_first_bytes_joins_nothing() {
    let mut scene = Scene::new().await;
    let mut known = 0;
    for round in 0..6 {
        scene = scene.at(format!("/westus2/image{round}.swu"));
        scene.store(1, OLD).await;
        scene.begin(2, OLD).await;
        scene = scene.restarted(true, false).await;
        scene.store(3, SAME_LENGTH).await;
        let rest = scene.resume(2, OLD).await;
        if rest.head.status == 206 {
            must_be_rest(&rest, OLD);
            known += 1;
        } else {
            must_be_told_to_wait(&rest);
        }
        // What was given longer ago than a moment is known.
        must_be_rest(&scene.resume(3, SAME_LENGTH).await, SAME_LENGTH);
    }
    println!("of 6 devices that were given their first byte at the moment of a kill {known} are known");
}

#[tokio::test]
async fn a_second_version_at_one_address_is_known_before_its_first_byte_leaves() {
    let mut scene = Scene::new().await;
    for round in 0..4 {
        scene = scene.at(format!("/westus2/image{round}.swu"));
        scene.store(1, OLD).await;
        scene.begin(2, OLD).await;
        scene.store(3, SAME_LENGTH).await;
        // Who holds what was written down long ago; that another device came to this address was not.
        scene.begin(2, SAME_LENGTH).await;
        scene = scene.restarted(true, false).await;
        scene.origin.serve(&scene.path, reply(SAME_LENGTH));
        must_be_told_to_wait(&scene.resume(2, OLD).await);
    }
}

#[tokio::test]
async fn devices_behind_one_address_get_their_own_version_or_none() {
    for (next, tells) in [(SAME_LENGTH, false), (OTHER_LENGTH, true)] {
        let mut scene = Scene::new().await;
        scene.store(1, OLD).await;
        scene.begin(7, OLD).await;
        scene.store(2, next).await;
        must_be_rest(&scene.resume(7, OLD).await, OLD);
        scene.begin(7, next).await;
        for restart in [false, true] {
            if restart {
                scene = scene.restarted(false, false).await;
            }
            for version in [OLD, next] {
                let rest = scene.resume(7, version).await;
                if tells {
                    must_be_rest(&rest, version);
                } else {
                    must_be_told_to_wait(&rest);
                }
            }
            // Whoever starts anew is served.
            let anew = scene.ask(7, &[AGENT]).await;
            assert_eq!((anew.head.status, anew.body == next.bytes()), (200, true), "{}", anew.head.raw);
            let refused = scene.node.metric("waystation_resumes_refused_total", "version-ambiguous").await;
            assert_eq!(refused, if tells { 0.0 } else { 2.0 });
        }
    }
}

#[tokio::test]
async fn without_the_state_directory_the_old_version_is_there_and_nobody_is_known() {
    for (next, tells) in [(SAME_LENGTH, false), (OTHER_LENGTH, true)] {
        let mut scene = Scene::new().await;
        scene.store(1, OLD).await;
        scene.begin(2, OLD).await;
        scene.store(3, next).await;
        scene = scene.restarted(false, true).await;
        let requests = scene.origin.body_bytes();
        let rest = scene.resume(2, OLD).await;
        if tells {
            must_be_rest(&rest, OLD);
        } else {
            must_be_told_to_wait(&rest);
        }
        let anew = scene.ask(2, &[AGENT]).await;
        assert_eq!((anew.head.status, anew.body == next.bytes()), (200, true), "{}", anew.head.raw);
        assert_eq!(scene.origin.body_bytes(), requests, "nothing is fetched again");
    }
}

#[tokio::test]
async fn an_ordinary_range_of_what_never_changed_is_answered_as_ever() {
    let mut scene = Scene::new().await;
    scene.store(1, OLD).await;
    let windows = "User-Agent: Microsoft-Delivery-Optimization/10.0";
    for (device, fields, from, to) in [
        (2, &["Range: bytes=100-199"][..], 100, 200),
        (3, &[windows, "Range: bytes=1048576-2097151"], MIB, 2 * MIB),
        (3, &[windows, "Range: bytes=0-1048575"], 0, MIB),
        (4, &["Range: bytes=2000000-"], 2_000_000, OLD.len),
        (5, &["Range: bytes=2000000-99999999"], 2_000_000, OLD.len),
        (6, &["Range: bytes=-1000"], OLD.len - 1000, OLD.len),
    ] {
        let answer = scene.ask(device, fields).await;
        assert_eq!((answer.head.status, answer.end), (206, End::Complete), "{}", answer.head.raw);
        assert!(answer.body == OLD.slice(from, to), "{fields:?}");
    }
}
