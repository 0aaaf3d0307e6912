//! Origins that fall silent: a device learns in time that it has to come back.

use std::time::{Duration, Instant};

use serde_json::json;

use super::rig::bars;
use super::rig::client::{Answer, Connection, End, Framing, get};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Delimiter, Gate, Reply};
use super::rig::pattern::Pattern;
use super::rig::rules::Mode;
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "dl.example.com";
const AGENT: &str = "User-Agent: Microsoft-Delivery-Optimization-Lite/10.0.0.1";
const PATTERN: Pattern = Pattern { seed: 551, len: 4_000_000 };

/// The last byte of the head comes, then the first of the body or a refusal, before this.
const REQUEST: Duration = Duration::from_secs(1);

/// What a device notices of an answer: how long until its first body byte, or until its end when it has none.
async fn first_byte(node: &RunningNode, host: &str, fields: &[&str]) -> (Answer, Duration) {
    let mut connection = Connection::open(node.data).await;
    let start = Instant::now();
    connection.send(&get(&format!("/f.swu?cacheHostOrigin={host}"), fields)).await;
    let head = connection.head().await;
    let mut framing = head.framing(false);
    let body = connection.piece(&mut framing, 1000).await.ok().flatten().unwrap_or_default();
    let took = start.elapsed();
    (Answer { head, body, end: if framing == Framing::Done { End::Complete } else { End::Cut } }, took)
}

/// Each way to be silent has an origin of its own for each client, since one that was silent is not asked for a while.
#[tokio::test]
async fn the_first_body_byte_or_a_503_comes_within_the_time_of_a_request() {
    let never = Gate::shut();
    let file = || Reply::file(PATTERN);
    let silent = [
        ("head", file().hold_head(&never)),
        ("body", file().hold_at(0, &never)),
        ("body without length", file().delimited(Delimiter::Chunked).hold_at(0, &never)),
        ("body with digest", file().with_digest(PATTERN).hold_at(0, &never)),
        ("end of a body with digest", file().with_digest(PATTERN).hold_at(PATTERN.len - 20_000, &never)),
    ];
    let clients = [&[AGENT][..], &[], &[AGENT, "Range: bytes=1000-3999999"]];
    let times = json!({ "connect": "300ms", "first_byte": "400ms", "stall": "700ms", "request": "1s" });
    for mode in Mode::BOTH {
        let mut setup = Setup::new().set("upstream.timeouts", times.clone());
        let mut origins = Vec::new();
        for (what, reply) in &silent {
            for fields in clients {
                let origin = FakeOrigin::with("/f.swu", reply.clone()).await;
                let host = format!("dl{}.example.com", origins.len());
                setup = setup.origin(&host, origin.address, mode.rule());
                origins.push((origin, host, *what, fields));
            }
        }
        let node = setup.start();
        let asked = origins.iter().map(|(_, host, ..)| host).zip(clients.iter().cycle());
        let answers = asked.map(|(host, fields)| first_byte(&node, host, fields));
        let answers = futures_util::future::join_all(answers).await;
        for ((.., what, fields), (Answer { head, body, .. }, took)) in origins.iter().zip(answers) {
            println!("{mode:?}, silent in {what}, {fields:?}: {}, {} bytes after {took:.2?}", head.status, body.len());
            let refused = head.status == 503 && head.exact("Content-Length") == Some("0");
            assert!(refused || !body.is_empty(), "{mode:?} {what} {fields:?}: {}", head.raw);
            // Under load a bar on time proves nothing; that something came at all within the agents' 15 s does.
            let at_most = if bars() { REQUEST + Duration::from_millis(250) } else { Duration::from_secs(10) };
            assert!(took < at_most, "{mode:?} {what} {fields:?}: {took:?}");
        }
    }
}

#[tokio::test]
async fn a_source_that_is_known_to_be_down_is_not_waited_for() {
    let origin = FakeOrigin::with("/f.swu", Reply::file(PATTERN)).await;
    let node = Setup::new().origin(HOST, origin.address, Mode::Ranged.rule()).start();
    origin.switch_off();
    // Nobody is at that address: refusals come at once, until the source is not asked any more.
    for _ in 0..6 {
        let (answer, took) = first_byte(&node, HOST, &[AGENT]).await;
        assert_eq!((answer.head.status, answer.head.exact("Content-Length")), (503, Some("0")), "{}", answer.head.raw);
        assert!(took < Duration::from_secs(if bars() { 1 } else { 10 }), "{took:?}");
    }
}

/// In the field's own times: 12 s of silence, then what was held back for the agent at 5 KB/s, then a cut. Takes 40 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_back_for_an_agent_is_dripped_when_the_origin_stalls() {
    if !bars() {
        println!("not run: takes 40 s; WAYSTATION_BARS=1 runs it");
        return;
    }
    let held = 3_000_000;
    let origin = FakeOrigin::with("/f.swu", Reply::file(PATTERN).hold_at(held, &Gate::shut())).await;
    // Fast enough for the cache to hold something back, and long enough that it knows.
    origin.limit_rate(600_000);
    let node = Setup::new().origin(HOST, origin.address, Mode::Whole.rule()).start();
    let mut connection = Connection::open(node.data).await;
    connection.send(&get(&format!("/f.swu?cacheHostOrigin={HOST}"), &[AGENT])).await;
    let head = connection.head().await;
    let mut framing = head.framing(false);
    let (mut came, mut len, mut wrong) = (Vec::new(), 0, None);
    while let Ok(Some(piece)) = connection.piece(&mut framing, 64 * 1024).await {
        wrong = wrong.or_else(|| PATTERN.first_difference(len, &piece));
        len += piece.len() as u64;
        came.push((Instant::now(), piece.len() as u64));
    }
    let end = Instant::now();
    assert_eq!((wrong, framing == Framing::Done), (None, false), "{len} bytes");
    assert_eq!(len, held, "all that is there was given out before the cut");
    let gap = came.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap();
    let silent = came.windows(2).position(|pair| pair[1].0 - pair[0].0 == gap).unwrap();
    let dripped: u64 = came[silent + 1..].iter().map(|(_, bytes)| bytes).sum();
    let time = came.last().unwrap().0 - came[silent + 1].0;
    let rate = dripped as f64 / time.as_secs_f64();
    println!(
        "silent for {gap:.1?}, then {dripped} bytes in {time:.1?} ({rate:.0} B/s), cut {:.1?} later",
        end - came.last().unwrap().0
    );
    assert!(dripped >= 64 * 1024, "{dripped} bytes were held back");
    assert!((4000.0..8000.0).contains(&rate), "{rate} B/s");
    assert!(gap < Duration::from_secs(15), "silent for {gap:?}");
    assert!(end - came.last().unwrap().0 < Duration::from_secs(5), "a cut comes before the agent's patience ends");
}
