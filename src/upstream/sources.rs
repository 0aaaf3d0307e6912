//! The health of every source that was asked lately, and the ticket that one attempt holds. The judgement is
//! in [`super::health`] and [`super::wrong_bytes`]; here are the clock, the jitter and the locks.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::error::FetchError;
use super::health::{Condition, Health, Outcome, ProbeId, Verdict};
use super::plan::{Parent, Source};
use super::wrong_bytes::{Noted, Subject, WrongBytes};
use crate::telemetry::Metrics;

/// Sources that are remembered at once. Names under a wildcard rule are the clients' choice, so there must be
/// a bound; a source beyond it is simply always asked.
const REMEMBERED: usize = 4096;

/// An origin that gave something good so lately, and is not down, can be reached.
const LATELY: Duration = Duration::from_secs(15 * 60);

/// A source that is not asked at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownSource {
    /// The source.
    pub source: Source,
    /// When it will be tried again.
    pub until: Instant,
    /// What it was, if it is there and yet cannot be used.
    pub refusal: Option<String>,
}

/// The table of sources.
pub(super) struct Sources {
    table: Mutex<HashMap<Source, Health>>,
    /// Why those cannot be used that are there.
    refusals: Mutex<HashMap<Source, Refusal>>,
    wrong: Mutex<WrongBytes>,
    /// When something has come of each parent.
    heard: Mutex<HashMap<Source, Instant>>,
    /// Parents that broke off.
    doubted: Mutex<HashSet<Source>>,
    metrics: Arc<Metrics>,
    /// How many there have been.
    comebacks: watch::Sender<u64>,
}

/// Why a source cannot be used.
struct Refusal {
    text: String,
    /// A handshake shows whether that still holds, and shows nobody a password.
    is_of_handshake: bool,
}

/// One attempt at a source. Dropped without a report it says nothing of the source, but frees the probe.
pub(super) struct Ticket {
    sources: Arc<Sources>,
    source: Source,
    probe: Option<ProbeId>,
    /// Whether a fault was reported: the well-formed end of an error's body is no success.
    faulted: bool,
}

impl Sources {
    /// Of which nothing is known; the parents are shown as up.
    pub(super) fn new(metrics: Arc<Metrics>, parents: &[Parent]) -> Self {
        let (table, refusals, wrong, heard, doubted) = Default::default();
        let sources = Self { table, refusals, wrong, heard, doubted, metrics, comebacks: watch::Sender::default() };
        for parent in parents.iter().map(Source::parent) {
            sources.show(&parent, true);
            sources.show_lowered(&parent, false);
        }
        sources
    }

    fn show(&self, source: &Source, is_up: bool) {
        if source.parent.is_some() {
            self.metrics.parent_up.with_label_values(&[&source.peer.to_string()]).set(i64::from(is_up));
        }
    }

    fn show_lowered(&self, source: &Source, is_lowered: bool) {
        if source.parent.is_some() {
            self.metrics.parent_lowered.with_label_values(&[&source.peer.to_string()]).set(i64::from(is_lowered));
        }
    }

    /// Puts those last that gave wrong bytes for several contents lately, and behind them `wrong`, who gave them for this one.
    pub(super) fn arrange(&self, sources: &mut [Source], wrong: Option<&Source>, now: Instant) {
        self.tell_of_ends(now);
        let table = self.wrong.lock();
        sources.sort_by_key(|source| (wrong == Some(source), table.is_lowered(now, source)));
    }

    /// The sources that are asked after the others, since they gave wrong bytes for several contents.
    pub(super) fn lowered(&self, now: Instant) -> Vec<Source> {
        self.tell_of_ends(now);
        self.wrong.lock().lowered(now).cloned().collect()
    }

    fn tell_of_ends(&self, now: Instant) {
        let ended = self.wrong.lock().ended(now);
        for source in ended {
            tracing::info!(%source, "the source is asked in its turn again");
            self.show_lowered(&source, false);
        }
    }

    /// All bytes of something that is not what `subject` says came from `source`.
    pub(super) fn gave_wrong(&self, source: &Source, subject: Subject) {
        let noted = self.wrong.lock().note(Instant::now(), source, subject);
        match noted {
            Noted::Counted => {}
            Noted::Lowered { contents, time } => {
                tracing::warn!(%source, contents, ?time, "the source gave wrong bytes for several contents: it is asked after the others");
                self.show_lowered(source, true);
            }
            Noted::Disputed { with, restored } => {
                let what = match subject {
                    Subject::Digest(_) => "the digest that is configured for it",
                    Subject::Key(_) | Subject::Asked(_) => "the digest that is said of it",
                };
                tracing::warn!(%source, %with, ?subject, "two sources give a content that has not {what}: that may be wrong, and it counts for neither");
                if restored {
                    tracing::info!(source = %with, "the source is asked in its turn again");
                    self.show_lowered(&with, false);
                }
            }
        }
    }

    /// Admits an attempt at `now`, or says until when the source is down.
    pub(super) fn admit(self: &Arc<Self>, source: &Source, now: Instant) -> Result<Ticket, Instant> {
        let verdict = self.table.lock().get_mut(source).map_or(Verdict::Allowed, |health| health.verdict(now));
        let probe = match verdict {
            Verdict::Allowed => None,
            Verdict::Probe(probe) => Some(probe),
            Verdict::Down { until } => return Err(until),
        };
        Ok(Ticket { sources: Arc::clone(self), source: source.clone(), probe, faulted: false })
    }

    /// Whether a source can be asked at `now`.
    pub(super) fn condition(&self, source: &Source, now: Instant) -> Condition {
        let (table, refusals) = (self.table.lock(), self.refusals.lock());
        match table.get(source).filter(|health| health.down_until(now).is_some()) {
            Some(health) if health.is_unreachable() => Condition::Away,
            Some(health) if health.is_refused() => {
                Condition::Refused(refusals.get(source).map(|it| it.text.clone()).unwrap_or_default())
            }
            Some(_) => Condition::Failing,
            None if self.heard.lock().contains_key(source) => Condition::Up,
            None => Condition::Untried,
        }
    }

    /// How long nothing has come of a parent; `None` when nothing ever did.
    pub(super) fn silence(&self, parent: &Source, now: Instant) -> Option<Duration> {
        self.heard.lock().get(parent).map(|at| now.saturating_duration_since(*at))
    }

    /// Whether none can be reached of the origins that were asked lately.
    pub(super) fn origins_are_away(&self, now: Instant) -> bool {
        let table = self.table.lock();
        let origins = || table.iter().filter(|(source, _)| source.parent.is_none()).map(|(_, health)| health);
        let is_recent = |at| now.saturating_duration_since(at) <= LATELY;
        let is_good = |health: &Health| health.down_until(now).is_none() && health.last_good().is_some_and(is_recent);
        let away = || origins().filter(|health| health.is_away() && !health.is_forgettable(now));
        // One that never gave anything may be a name that somebody has made up.
        let is_told = away().any(|health| health.last_good().is_some()) || away().count() > 1;
        is_told && !origins().any(is_good)
    }

    /// Whether a source is down because there is no connection to it.
    pub(super) fn is_unreachable(&self, source: &Source) -> bool {
        self.table.lock().get(source).is_some_and(Health::is_unreachable)
    }

    /// Whether somebody may ask it at `now`.
    pub(super) fn may_be_asked(&self, source: &Source, now: Instant) -> bool {
        self.table.lock().get(source).is_none_or(|health| health.may_be_asked(now))
    }

    /// Whether it refuses, or is refused.
    pub(super) fn is_refused(&self, source: &Source) -> bool {
        self.table.lock().get(source).is_some_and(Health::is_refused)
    }

    /// Until when it is down, if it is.
    pub(super) fn down_until(&self, source: &Source) -> Option<Instant> {
        self.table.lock().get(source)?.down_until(Instant::now())
    }

    /// A source that is looked for has not been found.
    pub(super) fn still_away(&self, source: &Source) {
        self.table.lock().get_mut(source).into_iter().for_each(|health| health.still_away(Instant::now()));
    }

    /// There is a connection to a source again: somebody may ask it now.
    pub(super) fn reached(&self, source: &Source) {
        if self.table.lock().get_mut(source).is_some_and(|health| health.reached(Instant::now())) {
            tracing::info!(%source, "the source can be reached again");
            self.show(source, true);
            self.contact(source);
        }
        self.tell_of_comeback();
    }

    /// There is somebody again, who refuses or is refused: the next request alone learns more.
    pub(super) fn refuses(&self, source: &Source, error: &FetchError) {
        self.contact(source);
        if self.table.lock().get_mut(source).is_some_and(|health| health.refuses(Instant::now())) {
            tracing::warn!(%source, %error, "the source can be reached again, and cannot be used");
            self.note_refusal(source, error);
        }
        self.tell_of_comeback();
    }

    /// Something has come of a source, if only a connection.
    pub(super) fn contact(&self, source: &Source) {
        if source.parent.is_some() {
            self.heard.lock().insert(source.clone(), Instant::now());
        }
    }

    /// There is none to be had.
    pub(super) fn note_away(&self, parent: &Source) {
        if self.table.lock().entry(parent.clone()).or_default().note_gone(Instant::now()) {
            tracing::warn!(source = %parent, "the source is down: it cannot be reached");
            self.show(parent, false);
        }
    }

    /// A parent is there, and cannot be used.
    pub(super) fn note_refused(&self, parent: &Source, error: &FetchError) {
        self.contact(parent);
        self.note_refusal(parent, error);
        if self.table.lock().entry(parent.clone()).or_default().note_refused(Instant::now()) {
            tracing::warn!(source = %parent, %error, "the source cannot be used");
            self.show(parent, false);
        }
    }

    /// Whether a handshake would show that a source can be used again.
    pub(super) fn may_have_mended(&self, source: &Source) -> bool {
        self.is_refused(source) && self.refusals.lock().get(source).is_some_and(|refusal| refusal.is_of_handshake)
    }

    /// A source says nothing, and another one gives what it was asked for.
    pub(super) fn note_outdone(&self, source: &Source) {
        if self.table.lock().get_mut(source).is_some_and(|health| health.note_outdone(Instant::now())) {
            tracing::warn!(%source, "the source says nothing while another one answers: it is down");
            self.show(source, false);
        }
    }

    /// What came of a parent broke off: whether there is still a connection to it is to be looked at.
    pub(super) fn note_doubt(&self, parent: &Source) {
        self.doubted.lock().insert(parent.clone());
    }

    /// Whether that is so of a parent, and nobody has looked since.
    pub(super) fn take_doubt(&self, parent: &Source) -> bool {
        self.doubted.lock().remove(parent)
    }

    /// There is a connection to a parent that can be used.
    pub(super) fn note_accepted(&self, parent: &Source) {
        self.contact(parent);
        if self.table.lock().get_mut(parent).is_some_and(|health| health.note_accepted(Instant::now())) {
            tracing::info!(source = %parent, "the source can be used again");
            self.refusals.lock().remove(parent);
            self.show(parent, true);
            self.tell_of_comeback();
        }
    }

    fn note_refusal(&self, source: &Source, error: &FetchError) {
        let mut refusals = self.refusals.lock();
        if refusals.len() < REMEMBERED || refusals.contains_key(source) || source.parent.is_some() {
            let is_of_handshake =
                matches!(error, FetchError::TlsFailed { fault, .. } if !fault.is_of_our_certificate());
            refusals.insert(source.clone(), Refusal { text: error.to_string(), is_of_handshake });
        }
    }

    /// Who waits for a source may ask again.
    pub(super) fn tell_of_comeback(&self) {
        self.comebacks.send_modify(|count| *count += 1);
    }

    /// Tells of each source that can be reached again, as their number.
    pub(super) fn comebacks(&self) -> watch::Receiver<u64> {
        self.comebacks.subscribe()
    }

    /// Every source that is down now.
    pub(super) fn down(&self, now: Instant) -> Vec<DownSource> {
        let (table, refusals) = (self.table.lock(), self.refusals.lock());
        // Names that nobody asks for any more may never have been.
        let counts = |source: &Source, health: &Health| source.parent.is_some() || !health.is_forgettable(now);
        let down = table.iter().filter(|(source, health)| counts(source, health)).filter_map(|(source, health)| {
            let refusal = refusals.get(source).filter(|_| health.is_refused()).map(|it| it.text.clone());
            health.down_until(now).map(|until| DownSource { source: source.clone(), until, refusal })
        });
        down.collect()
    }

    fn record(&self, source: &Source, outcome: Outcome, probe: Option<ProbeId>) {
        let now = Instant::now();
        if outcome.is_contact() {
            self.contact(source);
        }
        let mut table = self.table.lock();
        if let Some(health) = table.get_mut(source) {
            let was_down = health.down_until(now).is_some();
            health.record(now, outcome, probe, jitter());
            match (was_down, health.down_until(now)) {
                (false, Some(until)) => {
                    let pause = until.saturating_duration_since(now);
                    tracing::warn!(%source, ?outcome, ?pause, "the source is down");
                    self.show(source, false);
                }
                (true, None) => {
                    tracing::info!(%source, "the source is up again");
                    self.refusals.lock().remove(source);
                    self.show(source, true);
                    drop(table);
                    self.tell_of_comeback();
                }
                _ => {}
            }
            return;
        }
        if outcome == Outcome::Success && table.len() >= REMEMBERED {
            return;
        }
        if table.len() >= REMEMBERED {
            table.retain(|source, health| source.parent.is_some() || !health.is_forgettable(now));
        }
        if table.len() < REMEMBERED || source.parent.is_some() {
            let mut health = Health::default();
            health.record(now, outcome, probe, jitter());
            table.insert(source.clone(), health);
        }
    }
}

impl Ticket {
    /// Reports how the attempt went.
    pub(super) fn report(&mut self, outcome: Outcome) {
        if outcome == Outcome::Success && self.faulted {
            return;
        }
        self.faulted = outcome != Outcome::Success;
        self.sources.record(&self.source, outcome, self.probe.take());
    }

    /// Reports that there is somebody, but nothing can be asked, and why.
    pub(super) fn refused(&mut self, error: &FetchError) {
        self.sources.note_refusal(&self.source, error);
        self.report(Outcome::Refused);
    }

    /// What came broke off.
    pub(super) fn doubt(&self) {
        if self.source.parent.is_some() {
            self.sources.note_doubt(&self.source);
        }
    }

    /// Something has come.
    pub(super) fn contact(&self) {
        self.sources.contact(&self.source);
    }

    /// Bytes of a body come.
    pub(super) fn gives(&self) {
        self.contact();
        self.sources
            .table
            .lock()
            .get_mut(&self.source)
            .into_iter()
            .for_each(|health| health.note_bytes(Instant::now()));
    }

    /// Whether the outcome decides for all.
    pub(super) fn is_probe(&self) -> bool {
        self.probe.is_some()
    }

    /// A probe has its answer: the source is alive, whatever becomes of the body.
    pub(super) fn answered(&mut self) {
        if self.probe.is_some() {
            self.report(Outcome::Success);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(probe) = self.probe.take()
            && let Some(health) = self.sources.table.lock().get_mut(&self.source)
        {
            health.abandon_probe(Instant::now(), probe);
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("source", &self.source).field("probe", &self.probe).finish()
    }
}

/// A number between 0 and 1; the middle when the system has no randomness.
fn jitter() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
