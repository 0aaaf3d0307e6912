//! Parents that are silently away: what is stored is served, the rest is refused soon, and nobody waits to find out whether
//! they are back.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use super::super::rig::client::{Connection, Framing, get};
use super::super::rig::fake_origin::FakeOrigin;
use super::super::rig::origin_reply::{Gate, Reply};
use super::super::rig::pattern::Pattern;
use super::super::rig::relay::{Relay, State};
use super::super::rig::rules::Mode;
use super::super::rig::running_node::{RunningNode, Setup};
use super::{HOST, MIB, asked, below, must_be, state, url};

/// Less than any limit on a source that says nothing.
const SOON: Duration = Duration::from_secs(2);

/// A stop that whoever waits for a download notices.
const STOP: Duration = Duration::from_secs(3);
/// So long a source may be silent in mid-file where there is another.
const SILENT: Duration = Duration::from_secs(6);

/// An address that answers no packet: its queue of connections is full.
struct BlackHole {
    socket: Socket,
    _queued: Vec<TcpStream>,
}

impl BlackHole {
    fn open() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(300));
        let queued: Vec<TcpStream> = std::iter::repeat_with(connect).map_while(Result::ok).take(16).collect();
        assert!(queued.len() < 16, "the queue takes all");
        Self { socket, _queued: queued }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap().as_socket().unwrap()
    }
}

/// Waits until the node says that it is offline, while devices ask for something that it has not.
async fn goes_offline(node: &RunningNode) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while state(node).await["state"] != "offline" {
        assert!(Instant::now() < deadline, "it does not notice");
        let [one, other, third] = ["a", "b", "c"].map(|name| format!("/cold-{name}?cacheHostOrigin={HOST}"));
        let answers = tokio::join!(node.get(&one, &[]), node.get(&other, &[]), node.get(&third, &[]));
        assert_eq!([answers.0, answers.1, answers.2].map(|answer| answer.head.status), [503; 3]);
    }
}

/// Asks for what is stored and for what is not for longer than the pauses after which a source is tried again.
async fn nobody_waits(node: &RunningNode, pattern: Pattern) {
    let end = Instant::now() + Duration::from_secs(6);
    while Instant::now() < end {
        let start = Instant::now();
        must_be(&node.get(&asked(), &[]).await, pattern);
        assert!(start.elapsed() < SOON, "stored: {:?}", start.elapsed());
        let start = Instant::now();
        let answer = node.get(&format!("/cold?cacheHostOrigin={HOST}"), &[]).await;
        assert_eq!(answer.head.status, 503, "{}", answer.head.raw);
        assert!(start.elapsed() < SOON, "not stored: {:?}", start.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_no_packet_comes_from_holds_nobody_up() {
    let pattern = Pattern::new(690, 3000);
    let parent = FakeOrigin::with(super::PATH, Reply::file(pattern).with("Cache-Control", "max-age=0")).await;
    let node = below(&[url(parent.address)], json!({})).start();
    must_be(&node.get(&asked(), &[]).await, pattern);
    node.wait_for_commits().await;
    let (one, other) = (BlackHole::open(), BlackHole::open());
    let parents = json!([url(one.address()), url(other.address())]);
    let node = node.stop().await.set("upstream.parents", parents).start();
    goes_offline(&node).await;
    nobody_waits(&node, pattern).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_hangs_holds_nobody_up_and_is_asked_again_when_it_does_not() {
    let pattern = Pattern::new(691, 3000);
    let parent = FakeOrigin::with(super::PATH, Reply::file(pattern).with("Cache-Control", "max-age=0")).await;
    let node = below(&[url(parent.address)], json!({})).set("upstream.timeouts.request", json!("4s")).start();
    must_be(&node.get(&asked(), &[]).await, pattern);
    let gate = Gate::shut();
    for path in [super::PATH, "/cold", "/cold-a", "/cold-b", "/cold-c"] {
        parent.serve(path, Reply::file(pattern).with("Cache-Control", "max-age=0").hold_head(&gate));
    }
    let start = Instant::now();
    must_be(&node.get(&asked(), &[]).await, pattern);
    assert!(start.elapsed() < Duration::from_secs(3), "nothing is known of it yet: {:?}", start.elapsed());
    goes_offline(&node).await;
    nobody_waits(&node, pattern).await;
    gate.open();
    let deadline = Instant::now() + Duration::from_secs(30);
    while node.get(&format!("/cold?cacheHostOrigin={HOST}"), &[]).await.head.status != 200 {
        assert!(Instant::now() < deadline, "it stays away");
    }
    assert_eq!(state(&node).await["state"], "online");
}

/// Downloads the file, and tells of each stop on the way.
async fn stops(node: &RunningNode, pattern: Pattern) -> Vec<Duration> {
    let mut device = Connection::open(node.data).await;
    device.send(&get(&asked(), &[])).await;
    let head = device.head().await;
    assert_eq!(head.status, 200, "{}", head.raw);
    let (mut framing, mut at, mut since, mut stops) = (head.framing(false), 0, Instant::now(), Vec::new());
    while let Ok(Some(piece)) = device.piece(&mut framing, 256 * 1024).await {
        assert_eq!(pattern.first_difference(at, &piece), None);
        at += piece.len() as u64;
        stops.extend(Some(since.elapsed()).filter(|pause| *pause > STOP));
        since = Instant::now();
    }
    assert!(framing == Framing::Done, "it was cut at {at}");
    stops
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_hangs_in_mid_file_stops_a_download_once() {
    // The second one may need a while to have it.
    for (mode, late) in [(Mode::Ranged, 0), (Mode::Whole, 0), (Mode::Whole, 4)] {
        let (pattern, late) = (Pattern::new(692, 320 * MIB), Duration::from_secs(late));
        let gate = Gate::shut();
        let (first, second) = tokio::join!(
            FakeOrigin::with(super::PATH, Reply::file(pattern)),
            FakeOrigin::with(super::PATH, Reply::file(pattern).hold_head(&gate))
        );
        second.serve("/new", Reply::file(Pattern::new(695, 300)));
        for parent in [&first, &second] {
            parent.limit_rate(64 * MIB);
        }
        let link = Relay::start(first.address, Duration::ZERO, 64 * 1024).await;
        let node = below(&[url(link.address), url(second.address)], mode.rule()).start();
        let hangs = async {
            first.wait_for_bytes(100 * MIB).await;
            link.set(State::Silent);
            tokio::time::sleep(if late.is_zero() { late } else { SILENT + late }).await;
            gate.open();
        };
        let (stops, ()) = tokio::join!(stops(&node, pattern), hangs);
        assert!(stops.len() == 1 && stops[0] < SILENT + late + STOP, "{mode:?} {late:?}: {stops:?}");
        // Everybody knows now.
        assert_eq!(state(&node).await["parents"][0]["state"], "failing");
        let start = Instant::now();
        must_be(&node.get(&format!("/new?cacheHostOrigin={HOST}"), &[]).await, Pattern::new(695, 300));
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    }
}

/// Waits until `/readyz` tells this state of the node, and this one of its first parent; nobody asks for content.
async fn until_told(node: &RunningNode, expected: (&str, &str)) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let told = state(node).await;
        let is_parent = |state: &str| told["parents"][0]["state"] == state || told["parents"][0].is_null();
        if told["state"] == expected.0 && is_parent(expected.1) {
            return told;
        }
        assert!(Instant::now() < deadline, "{told}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_a_parent_stands_is_told_before_a_device_has_to_find_out() {
    let parent = FakeOrigin::start().await;
    parent.switch_off();
    let node = below(&[url(parent.address)], json!({})).start();
    let told = until_told(&node, ("offline", "away")).await;
    assert_eq!(told["parents"][0]["url"], format!("http://{}", parent.address));
    assert_eq!(node.metric("waystation_parent_up", &parent.address.to_string()).await, 0.0);
    parent.switch_on();
    until_told(&node, ("online", "up")).await;
    assert_eq!(node.metric("waystation_parent_up", &parent.address.to_string()).await, 1.0);
    assert_eq!(parent.requests(), 0);
    // One of two, which does not speak TLS.
    let plain = Setup::new().start();
    let odd = json!({ "url": format!("https://{}", plain.data), "tls_name": "l5.example" });
    let node = below(&[odd, url(parent.address)], json!({})).start();
    let told = until_told(&node, ("degraded", "refused")).await;
    assert_eq!(told["parents"][1]["state"], "up", "{told}");
    assert!(told["parents"][0]["reason"].as_str().is_some_and(|reason| reason.contains("TLS")), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_whose_origins_are_away_is_offline_and_one_that_reaches_another_is_not() {
    let (origin, other) =
        (FakeOrigin::with("/a", Reply::file(Pattern::new(693, 300))).await, FakeOrigin::start().await);
    other.serve("/b", Reply::file(Pattern::new(694, 300)));
    let setup = Setup::new().origin(HOST, origin.address, json!({})).origin("other.example", other.address, json!({}));
    let node = setup.start();
    must_be(&node.get(&format!("/a?cacheHostOrigin={HOST}"), &[]).await, Pattern::new(693, 300));
    until_told(&node, ("online", "")).await;
    origin.switch_off();
    for _ in 0..3 {
        assert_eq!(node.get(&format!("/c?cacheHostOrigin={HOST}"), &[]).await.head.status, 503);
    }
    until_told(&node, ("offline", "")).await;
    must_be(&node.get("/b?cacheHostOrigin=other.example", &[]).await, Pattern::new(694, 300));
    until_told(&node, ("degraded", "")).await;
}
