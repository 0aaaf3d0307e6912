//! The health of every source that was asked lately, and the ticket that one attempt holds. The judgement is
//! in [`super::health`]; here are the clock, the jitter and the lock.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::health::{Health, Outcome, ProbeId, Verdict};
use super::plan::Source;

/// Sources that are remembered at once. Names under a wildcard rule are the clients' choice, so there must be
/// a bound; a source beyond it is simply always asked.
const REMEMBERED: usize = 4096;

/// A source that is not asked at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownSource {
    /// The source.
    pub source: Source,
    /// When it will be tried again.
    pub until: Instant,
}

/// The table of sources.
#[derive(Debug, Default)]
pub(super) struct Sources {
    table: Mutex<HashMap<Source, Health>>,
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
    /// Admits an attempt, or says until when the source is down.
    pub(super) fn admit(self: &Arc<Self>, source: &Source) -> Result<Ticket, Instant> {
        let verdict = self.table.lock().get_mut(source).map_or(Verdict::Allowed, |health| health.verdict(now()));
        let probe = match verdict {
            Verdict::Allowed => None,
            Verdict::Probe(probe) => Some(probe),
            Verdict::Down { until } => return Err(until),
        };
        Ok(Ticket { sources: Arc::clone(self), source: source.clone(), probe, faulted: false })
    }

    /// Every source that is down now.
    pub(super) fn down(&self) -> Vec<DownSource> {
        let now = now();
        let table = self.table.lock();
        let down = table.iter().filter_map(|(source, health)| {
            health.down_until(now).map(|until| DownSource { source: source.clone(), until })
        });
        down.collect()
    }

    fn record(&self, source: &Source, outcome: Outcome, probe: Option<ProbeId>) {
        let now = now();
        let mut table = self.table.lock();
        if let Some(health) = table.get_mut(source) {
            let was_down = health.down_until(now).is_some();
            health.record(now, outcome, probe, jitter());
            match (was_down, health.down_until(now)) {
                (false, Some(until)) => {
                    let pause = until.saturating_duration_since(now);
                    tracing::warn!(%source, ?outcome, ?pause, "the source is down");
                }
                (true, None) => tracing::info!(%source, "the source is up again"),
                _ => {}
            }
            return;
        }
        if outcome == Outcome::Success {
            return;
        }
        if table.len() >= REMEMBERED {
            table.retain(|_, health| !health.is_forgettable(now));
        }
        if table.len() < REMEMBERED {
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
            health.abandon_probe(now(), probe);
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("source", &self.source).field("probe", &self.probe).finish()
    }
}

/// The runtime's clock, so that paused tests govern it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A number between 0 and 1; the middle when the system has no randomness.
fn jitter() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Origin, Scheme};

    fn source(host: &str) -> Source {
        let origin = Origin { scheme: Scheme::Http, host: host.into(), port: 80 };
        Source { origin, address: None, allow_private: false }
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_at_a_time_and_a_dropped_one_is_replaced() {
        let sources = Arc::new(Sources::default());
        let dead = source("dead.example.com");
        for _ in 0..2 {
            sources.admit(&dead).unwrap().report(Outcome::ConnectFailure);
        }
        let until = sources.admit(&dead).unwrap_err();
        assert_eq!(sources.down(), [DownSource { source: dead.clone(), until }]);
        assert!(sources.admit(&source("other.example.com")).is_ok());
        tokio::time::sleep_until(until.into()).await;
        let probe = sources.admit(&dead).unwrap();
        assert!(sources.admit(&dead).is_err());
        drop(probe);
        let mut probe = sources.admit(&dead).unwrap();
        probe.answered();
        assert!(sources.admit(&dead).is_ok());
        assert!(sources.down().is_empty());
    }

    #[test]
    fn made_up_names_do_not_fill_the_memory() {
        let sources = Arc::new(Sources::default());
        for n in 0..REMEMBERED + 10 {
            let source = source(&format!("n{n}.example.com"));
            sources.admit(&source).unwrap().report(Outcome::ConnectFailure);
        }
        assert_eq!(sources.table.lock().len(), REMEMBERED);
    }
}
