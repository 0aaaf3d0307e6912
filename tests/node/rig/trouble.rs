//! Faults that come over an origin once: after so many bytes of its content, or for a time. Several answers of one
//! content share a [`Trouble`], so that it strikes whether the content is asked for at once or in ranges.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// What strikes a connection while a body is sent over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strike {
    /// The connection ends (FIN).
    Cut,
    /// The connection is reset (RST).
    Reset,
    /// The connection stays, but no byte comes any more.
    Stall,
}

/// What is to happen to the answers that share it, and what has happened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trouble {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    plan: Mutex<Plan>,
    struck: watch::Sender<usize>,
    first: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Plan {
    /// Body bytes that were sent, over all answers.
    sent: u64,
    /// Where the next strikes are, in bytes sent.
    due: VecDeque<(u64, Strike)>,
    /// For so long after the first strike no answer goes on.
    spell: Duration,
}

impl Trouble {
    /// Strikes that connection which would send the byte after so many bytes.
    pub(crate) fn at(due: &[(u64, Strike)]) -> Self {
        let trouble = Self::default();
        trouble.state.plan.lock().due.extend(due);
        trouble
    }

    /// After the first strike every running answer is cut, for `spell`.
    pub(crate) fn with_spell(self, spell: Duration) -> Self {
        self.state.plan.lock().spell = spell;
        self
    }

    /// How many of `bytes` may be sent now, or what strikes instead. They count as sent.
    pub(crate) fn allow(&self, bytes: u64) -> Result<u64, Strike> {
        let mut plan = self.state.plan.lock();
        if self.since().is_some_and(|since| since < plan.spell) {
            return Err(Strike::Cut);
        }
        let (sent, due) = (plan.sent, plan.due.front().copied());
        let allowed = match due {
            Some((at, strike)) if at <= sent => {
                plan.due.pop_front();
                drop(plan);
                self.strikes();
                return Err(strike);
            }
            Some((at, _)) => bytes.min(at - sent),
            None => bytes,
        };
        plan.sent += allowed;
        Ok(allowed)
    }

    /// Takes note that a fault has shown.
    pub(crate) fn strikes(&self) {
        self.state.first.lock().get_or_insert_with(Instant::now);
        self.state.struck.send_modify(|struck| *struck += 1);
    }

    /// How often a fault has shown.
    pub(crate) fn struck(&self) -> usize {
        *self.state.struck.borrow()
    }

    /// How long ago a fault showed for the first time.
    pub(crate) fn since(&self) -> Option<Duration> {
        self.state.first.lock().map(|first| first.elapsed())
    }

    /// Waits until a fault has shown.
    pub(crate) async fn wait(&self) {
        // The sender lives as long as this.
        let _ = self.state.struck.subscribe().wait_for(|struck| *struck > 0).await;
    }
}
