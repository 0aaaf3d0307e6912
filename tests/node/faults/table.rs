//! How a row is run: a node, an origin with one fault, 20 devices, and what they must have in the end.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::rig::client::End;
use crate::rig::device::{Delivery, deliver};
use crate::rig::do_client::DoAgent;
use crate::rig::fake_origin::FakeOrigin;
use crate::rig::pattern::Pattern;
use crate::rig::rules::Mode;
use crate::rig::running_node::Setup;
use crate::rig::trouble::Trouble;
use crate::rig::{Dice, bars};

const HOST: &str = "contoso--fleet.b.nlu.dl.adu.microsoft.com";
pub(super) const PATH: &str = "/westus2/contoso--fleet/0123456789abcdef/image.swu";
const DEVICES: u16 = 20;
const MIB: u64 = 1 << 20;

/// A row is over by then, whatever happens.
const LONGEST: Duration = Duration::from_secs(150);

/// After so long without progress a device starts anew. It is not scaled with the other times: 75 s would be too long.
const NO_PROGRESS: Duration = Duration::from_secs(8);

/// One fault: what the origin has, and what may come of it.
pub(super) struct Case {
    versions: Vec<Pattern>,
    trouble: Trouble,
    /// The origin sends at most so many times the content.
    origin_at_most: f64,
    /// No device sees a cut or a 503.
    unseen: bool,
    /// What the origin says is consistent and false, so that nobody can know.
    may_be_wrong: bool,
    /// Bytes per second; `None` is as fast as makes a row last a second.
    rate: Option<u64>,
    /// When the fault has shown the origin is as fast as it can be.
    then_fast: bool,
    /// The origin refuses connections for so long: from the begin on, or from the first strike on.
    away: Option<(bool, Duration)>,
    /// Factor for the times of node and devices.
    scale: f64,
    /// All devices are behind one address.
    one_address: bool,
}

/// What came of the devices.
#[derive(Debug, Default)]
struct Tally {
    right: usize,
    wrong: usize,
    /// Devices without a file.
    without: usize,
    banned: usize,
    requests: u32,
    failures: u32,
    restarts: u32,
    slowest: Duration,
    odd: Vec<String>,
}

/// Factor for the 20 s of the agents and the time limits of the node: `WAYSTATION_SCALE`, a quarter by default.
pub(super) fn scale() -> f64 {
    std::env::var("WAYSTATION_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(0.25)
}

/// A spell of 4 s at the present scale.
pub(super) fn spell() -> Duration {
    Duration::from_secs(4).mul_f64(scale())
}

/// The content of a row.
pub(super) fn content() -> Pattern {
    let len = if bars() { 48 * MIB } else { 5 * MIB };
    Pattern::new(2001, len + 12_345)
}

/// So many hundredths of `pattern`, in bytes.
pub(super) fn percent(pattern: Pattern, hundredths: u64) -> u64 {
    pattern.len / 100 * hundredths
}

impl Case {
    /// Content that an origin with ranges and validators has, so that a fault costs next to nothing.
    pub(super) fn of(content: Pattern, trouble: &Trouble) -> Self {
        Self {
            versions: vec![content],
            trouble: trouble.clone(),
            origin_at_most: 1.05,
            unseen: false,
            may_be_wrong: false,
            rate: None,
            then_fast: false,
            away: None,
            scale: scale(),
            one_address: false,
        }
    }

    pub(super) fn or(mut self, other: Pattern) -> Self {
        self.versions.push(other);
        self
    }

    pub(super) fn origin_at_most(mut self, times: f64) -> Self {
        self.origin_at_most = times;
        self
    }

    pub(super) fn unseen(mut self) -> Self {
        self.unseen = true;
        self
    }

    pub(super) fn may_be_wrong(mut self) -> Self {
        self.may_be_wrong = true;
        self
    }

    pub(super) fn rate(mut self, bytes_per_second: u64) -> Self {
        self.rate = Some(bytes_per_second);
        self
    }

    pub(super) fn then_fast(mut self) -> Self {
        self.then_fast = true;
        self
    }

    pub(super) fn away_at_first(mut self, time: Duration) -> Self {
        self.away = Some((true, time));
        self
    }

    pub(super) fn away_when_struck(mut self, time: Duration) -> Self {
        self.away = Some((false, time));
        self
    }

    /// Times as in the field.
    pub(super) fn unscaled(mut self) -> Self {
        self.scale = 1.0;
        self
    }

    pub(super) fn one_address(mut self) -> Self {
        self.one_address = true;
        self
    }
}

/// Runs a row in both modes at once and fails when one of them does.
pub(super) async fn row(name: &str, case: impl Fn(&FakeOrigin) -> Case) {
    row_in(name, &Mode::BOTH, case).await;
}

/// Runs a row in `modes` at once and fails when one of them does.
pub(super) async fn row_in(name: &str, modes: &[Mode], case: impl Fn(&FakeOrigin) -> Case) {
    let runs = modes.iter().map(|mode| tokio::time::timeout(LONGEST, run(name, *mode, &case)));
    let mut faults = Vec::new();
    for (run, mode) in futures_util::future::join_all(runs).await.into_iter().zip(modes) {
        faults.extend(run.unwrap_or_else(|_| vec![format!("{mode:?}: not over after {LONGEST:?}")]));
    }
    assert!(faults.is_empty(), "{name}:\n  {}", faults.join("\n  "));
}

/// What is wrong with a row in one mode.
async fn run(name: &str, mode: Mode, case: &impl Fn(&FakeOrigin) -> Case) -> Vec<String> {
    let origin = Arc::new(FakeOrigin::start().await);
    let case = case(&origin);
    origin.limit_rate(case.rate.unwrap_or(case.versions[0].len * 9 / 10));
    let time = |seconds: f64| json!(format!("{}ms", (seconds * case.scale * 1000.0) as u64));
    let times = json!({ "connect": time(3.0), "first_byte": time(5.0), "stall": time(12.0), "request": time(14.0) });
    let setup = Setup::new().origin(HOST, origin.address, mode.rule()).set("upstream.timeouts", times);
    let node = setup.start();
    let mut events = JoinSet::new();
    if let Some((at_first, time)) = case.away {
        let (origin, trouble) = (origin.clone(), case.trouble.clone());
        if at_first {
            origin.switch_off();
            trouble.strikes();
        }
        events.spawn(async move {
            trouble.wait().await;
            origin.switch_off();
            tokio::time::sleep(time).await;
            origin.switch_on();
        });
    }
    if case.then_fast {
        let (origin, trouble) = (origin.clone(), case.trouble.clone());
        events.spawn(async move {
            trouble.wait().await;
            origin.limit_rate(0);
        });
    }
    let tally = devices(name, &case, &origin, node.data).await;
    let len = case.versions[0].len;
    let ratio = origin.body_bytes() as f64 / len as f64;
    let Tally { right, wrong, without, banned, requests, failures, restarts, slowest, odd } = &tally;
    println!(
        "{name:<48} {:<6} {right:>2} right, {wrong} wrong, {without} cut, {banned} bans; origin {ratio:.3} x in {} \
         requests; devices {requests} requests, {failures} failed, {restarts} restarts, {slowest:.1?}",
        format!("{mode:?}").to_lowercase(),
        origin.requests(),
    );
    let mut faults: Vec<String> = odd.iter().map(|odd| format!("{mode:?}: {odd}")).collect();
    let mut must = |holds: bool, what: String| {
        if !holds {
            faults.push(format!("{mode:?}: {what}"));
        }
    };
    must(case.trouble.struck() > 0, "the fault did not show, so this proves nothing".to_owned());
    must(*banned == 0, format!("{banned} devices banned the cache"));
    must(*wrong == 0 || case.may_be_wrong, format!("{wrong} devices have a wrong file and do not know"));
    let with_file = right + if case.may_be_wrong { *wrong } else { 0 };
    must(with_file == usize::from(DEVICES), format!("{with_file} of {DEVICES} devices have their file"));
    must(!case.unseen || *failures == 0, format!("devices saw {failures} cuts and refusals"));
    let at_most = case.origin_at_most;
    must(ratio <= at_most, format!("the origin sent {ratio:.3} times the content, more than {at_most}"));
    if !case.may_be_wrong {
        let late = node.get(&format!("{PATH}?cacheHostOrigin={HOST}"), &[]).await;
        let is_one = case.versions.iter().any(|v| v.len == late.body.len() as u64 && late.body == v.bytes());
        let (status, len, end) = (late.head.status, late.body.len(), late.end);
        must(is_one && end == End::Complete, format!("a later client gets {status}, {len} bytes, {end:?}"));
    }
    faults
}

/// 20 devices: ten at once, ten while the file comes; some pause and resume.
async fn devices(name: &str, case: &Case, origin: &Arc<FakeOrigin>, cache: std::net::SocketAddr) -> Tally {
    let mut dice = Dice::seeded(name, 2001);
    let mut running = JoinSet::new();
    let len = case.versions[0].len;
    for number in 1..=DEVICES {
        let pauses = [0, 0, 0, 1, 2][usize::from(number % 5)];
        let mut pauses: Vec<_> = (0..pauses).map(|_| 1 + dice.below(len - 1)).collect();
        pauses.sort_unstable();
        let begins_at = len / 12 * u64::from(number.saturating_sub(10));
        let agent = DoAgent::new(cache)
            .with_address(if case.one_address { 1 } else { number })
            .with_patience(case.scale)
            .with_backoff(0.05)
            .with_no_progress(NO_PROGRESS);
        let (origin, versions) = (origin.clone(), case.versions.clone());
        running.spawn(async move {
            // A file that does not come is asked for all the same.
            let _ = tokio::time::timeout(Duration::from_secs(10), origin.wait_for_bytes(begins_at)).await;
            let delivery = deliver(&agent, HOST, PATH, &versions, &pauses).await;
            (number, pauses, delivery, agent.has_bans())
        });
    }
    let mut tally = Tally::default();
    while let Some(done) = running.join_next().await {
        let (number, pauses, Delivery { last, restarts, requests, failures }, banned) = done.unwrap();
        tally.right += usize::from(last.is_right());
        tally.wrong += usize::from(last.is_wrong());
        tally.without += usize::from(!last.is_right() && !last.is_wrong());
        tally.banned += usize::from(banned);
        (tally.requests, tally.failures) = (tally.requests + requests, tally.failures + failures);
        (tally.restarts, tally.slowest) = (tally.restarts + restarts, tally.slowest.max(last.elapsed));
        // One of a kind says enough.
        if (banned || !last.is_right()) && !case.may_be_wrong && tally.odd.len() < 2 {
            tally.odd.push(format!("device {number}, pauses {pauses:?}: {last:?}"));
        }
    }
    tally
}
