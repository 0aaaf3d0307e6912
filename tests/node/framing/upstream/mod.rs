//! Answers of origins and parents that are malformed, ambiguous or of somebody else: each is asked for by a client that reads
//! strictly, and followed by honest requests on the same connection, on another one, and for the same content.
//!
//! The answers are in tables by what is wrong with them; `run` tells what is done about each.

mod case;
mod chunks;
mod ends;
mod heads;
mod joins;
mod lengths;
mod meaning;
mod parts;
mod raw_origin;
mod redirects;
mod run;
mod strict;

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::iter;
use serde_json::{Value, json};

use self::case::Case;
use self::raw_origin::{Play, RawOrigin};
use self::run::Story;
use crate::rig::client::{get, once};
use crate::rig::own_address;
use crate::rig::running_node::{RunningNode, Setup};

/// Stories at a time.
const AT_ONCE: usize = 32;
/// Nodes at a time.
const NODES: usize = 4;
/// Each of so many cases is told by a parent, too.
const SAMPLE: usize = 5;

/// A host that never plays anything.
const HONEST: &str = "honest.framing.example";

/// How long a line of the log may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the log says of a fault, and how it is counted.
const REASONS: [(&str, &str); 9] = [
    ("not HTTP/1.1", "unparsable"),
    ("its head is too large", "head-too-large"),
    ("invalid status line", "status"),
    ("it switches protocols unasked", "unasked-upgrade"),
    ("invalid Content-Length", "length"),
    ("unknown Transfer-Encoding", "transfer-encoding"),
    ("invalid Content-Range", "content-range"),
    ("cut after 1000 bytes", "cut"),
    ("malformed after 1000 bytes", "malformed"),
];

/// All cases, each under a name of its own.
fn all(canary: SocketAddr, own: SocketAddr) -> Vec<Case> {
    let tables = [
        heads::cases(),
        lengths::cases(),
        chunks::cases(),
        ends::cases(),
        parts::cases(),
        joins::cases(),
        meaning::cases(),
        redirects::cases(canary, own),
    ];
    let mut cases: Vec<_> = tables.into_iter().flatten().collect();
    let names: HashSet<_> = cases.iter().map(|case| case.name.clone()).collect();
    assert_eq!(names.len(), cases.len(), "two cases have one name");
    // Half of them come in packets that end anywhere.
    cases.iter_mut().step_by(2).for_each(|case| case.play.in_pieces = true);
    cases
}

fn host_of(number: usize) -> String {
    format!("case-{number:03}.framing.example")
}

async fn honest_origin() -> RawOrigin {
    let play = Play { greeting: Vec::new(), answers: Vec::new(), for_ever: false, late: Vec::new(), in_pieces: false };
    RawOrigin::start(play).await
}

/// A node whose patience is short enough for hundreds of silences.
fn setup() -> Setup {
    let timeouts = json!({ "connect": "2s", "first_byte": "1s", "stall": "1s", "request": "2s" });
    Setup::new().set("upstream.timeouts", timeouts).set("log.level", json!("debug"))
}

/// Connections to where nobody may be sent.
struct Canary {
    listener: TcpListener,
}

impl Canary {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    fn must_be_alone(&self) {
        assert!(self.listener.accept().is_err(), "somebody was sent to the canary");
    }
}

/// Whether a line of the log names the fault of `case`, and `host`.
fn is_told(said: &str, host: &str, case: &Case) -> bool {
    case.fault.is_empty() || said.lines().any(|line| line.contains(host) && line.contains(case.fault))
}

fn must_be_none(failures: &[String], count: usize) {
    assert!(failures.is_empty(), "{} of {count} cases failed:\n{}", failures.len(), failures.join("\n"));
}

async fn must_be_well(node: &RunningNode) {
    let health = once(node.admin, &get("/healthz", &[])).await;
    assert_eq!(health.head.status, 200, "{}", health.head.raw);
    assert!(!node.said().contains("panicked"), "something panicked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_answers_of_origins_harm_nobody() {
    let (canary, own) = (Canary::start(), own_address(5001));
    let cases = all(canary.address(), own);
    assert!(cases.len() >= 250, "{} cases", cases.len());
    let honest = honest_origin().await;
    let mut setup = setup()
        .set("listen.admin", json!(own.to_string()))
        .origin(HONEST, honest.address, json!({}))
        .origin(&own.ip().to_string(), own, json!({ "port": own.port() }));
    let open: Value = json!({ "host": "localhost", "port": canary.address().port() });
    setup = setup.rule(open);
    let mut origins = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let origin = RawOrigin::start(case.play.clone()).await;
        setup = setup.origin(&host_of(number), origin.address, case.mode.rule());
        origins.push(origin);
    }
    let node = setup.start();
    let stories = cases.iter().zip(&origins).enumerate().map(|(number, (case, origin))| {
        let host = host_of(number);
        let story = Story { node: node.data, case, origin, host };
        async move { story.tell().await.err().map(|why| format!("{}: {why}", case.name)) }
    });
    let mut failures: Vec<_> = iter(stories).buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await;
    let until = Instant::now() + PATIENCE;
    let is_silent = |said: &str| cases.iter().enumerate().any(|(number, case)| !is_told(said, &host_of(number), case));
    while is_silent(&node.said()) && Instant::now() < until {
        tokio::task::yield_now().await;
    }
    let said = node.said();
    let silent = cases.iter().enumerate().filter(|(number, case)| !is_told(&said, &host_of(*number), case));
    failures.extend(silent.map(|(_, case)| format!("{}: the log does not say {:?}", case.name, case.fault)));
    for (fault, reason) in REASONS {
        let least = cases.iter().filter(|case| case.fault == fault).count();
        let counted = node.metric("waystation_upstream_faults_total", &format!("reason=\"{reason}\"")).await;
        assert!(least > 0 && counted >= least as f64, "{counted} times {reason} in {least} cases");
    }
    must_be_well(&node).await;
    canary.must_be_alone();
    println!("{} bad answers of origins", cases.len());
    must_be_none(&failures, cases.len());
}

/// The same answers from a parent, in each of the two forms in which one is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_answers_of_parents_harm_nobody() {
    let (canary, own) = (Canary::start(), own_address(5001));
    let cases: Vec<_> = all(canary.address(), own).into_iter().step_by(SAMPLE).collect();
    assert!(cases.len() >= 50, "{} cases", cases.len());
    let origin = honest_origin().await;
    let honest = origin.address;
    let stories = cases.iter().enumerate().map(|(number, case)| async move {
        let parent = RawOrigin::start(case.play.clone()).await;
        let kind = ["connected-cache", "forward-proxy"][number % 2];
        let host = host_of(number);
        let mut rule = case.mode.rule();
        rule["host"] = json!(host);
        let url = format!("http://{}", parent.address);
        let setup = setup()
            .rule(rule)
            .origin(HONEST, honest, json!({ "parents": false }))
            .set("upstream.direct", json!(false))
            .set("upstream.parents", json!([{ "url": url, "kind": kind }]));
        let node = setup.start();
        let story = Story { node: node.data, case, origin: &parent, host };
        let told = story.tell().await;
        must_be_well(&node).await;
        // The line comes through a pipe.
        let until = Instant::now() + PATIENCE;
        while !is_told(&node.said(), "", case) && Instant::now() < until {
            tokio::task::yield_now().await;
        }
        let told = told.and_then(|()| match is_told(&node.said(), "", case) {
            true => Ok(()),
            false => Err(format!("the log does not say {:?}", case.fault)),
        });
        told.err().map(|why| format!("{} ({kind}): {why}", case.name))
    });
    let failures: Vec<_> = iter(stories).buffer_unordered(NODES).filter_map(std::future::ready).collect().await;
    canary.must_be_alone();
    println!("{} bad answers of parents", cases.len());
    must_be_none(&failures, cases.len());
}
