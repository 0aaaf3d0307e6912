//! [`Spending`]: one stream of bytes from a source, and what it may take of the budget.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::turns::{Standing, Waiting};
use super::{Budget, Limit, serve};

/// What one stream spends.
pub(in crate::upstream) struct Spending {
    budget: Arc<Budget>,
    standing: Standing,
    source: Option<Arc<str>>,
    /// Where it is told that it is its turn, while it waits.
    turn: Option<oneshot::Receiver<u64>>,
}

/// What a tunnel pays for the bytes that come out of it: they come over the same link.
pub struct Toll(Spending);

impl Toll {
    pub(in crate::upstream) fn new(budget: Arc<Budget>, host: Arc<str>) -> Self {
        Self(Spending::new(budget, Standing::default(), host))
    }

    /// Waits until `bytes` that have come may be given on; `false` when no more may come.
    pub async fn pay(&mut self, bytes: u64) -> bool {
        self.0.received(bytes);
        let mut left = bytes;
        while left > 0 {
            left = left.saturating_sub(self.0.turn(left).await);
        }
        !self.0.is_shut()
    }
}

impl Spending {
    /// A stream that begins now, from the source of this name.
    pub(in crate::upstream) fn new(budget: Arc<Budget>, standing: Standing, source: Arc<str>) -> Self {
        Self { budget, standing, source: Some(source), turn: None }
    }

    /// How much its bytes matter.
    pub(in crate::upstream) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Whether there is a budget that has a say in when bytes go on, be it without a limit now.
    pub(in crate::upstream) fn is_obeyed(&self) -> bool {
        self.budget.is_obeyed()
    }

    /// Whether nothing may be asked for.
    pub(in crate::upstream) fn is_shut(&self) -> bool {
        self.budget.shut().is_some()
    }

    /// Bytes have come.
    pub(in crate::upstream) fn received(&self, bytes: u64) {
        self.budget.received(bytes);
    }

    /// How many of `bytes` that are there may be given on now, at least one; waits for its turn. While the budget is closed
    /// it is all: they are paid for. The turn is not lost when the future is dropped.
    pub(in crate::upstream) async fn turn(&mut self, bytes: u64) -> u64 {
        if !self.budget.is_obeyed() {
            return bytes;
        }
        if self.turn.is_none() {
            match self.ask(bytes) {
                Ok(granted) => return granted,
                Err(turn) => self.turn = Some(turn),
            }
        }
        let Some(turn) = &mut self.turn else { return bytes };
        let granted = turn.await.map_or(bytes, |granted| granted.min(bytes));
        self.turn = None;
        granted
    }

    /// What may come at once, when nobody else waits; else a place among those who do.
    fn ask(&self, bytes: u64) -> Result<u64, oneshot::Receiver<u64>> {
        let now = Instant::now();
        let mut state = self.budget.state.lock();
        self.budget.look(&mut state, now);
        if state.limit == Limit::Closed {
            return Ok(bytes);
        }
        let source = self.source.as_ref().filter(|source| state.settings.sources.contains_key(*source));
        if state.rate().is_none() && source.is_none() {
            return Ok(bytes);
        }
        state.refill(now);
        let has_some = state.total.has_some() && state.bucket_of(source).is_none_or(|bucket| bucket.has_some());
        if has_some && !state.somebody_is_next() {
            let granted = bytes.min(state.piece(source));
            state.take(source, granted);
            return Ok(granted);
        }
        let (tell, turn) = oneshot::channel();
        let (standing, source) = (self.standing.clone(), source.cloned());
        state.turns.push(Waiting { standing, source, bytes, tell });
        if std::mem::replace(&mut state.is_served, true) {
            self.budget.queued.notify_one();
        } else {
            tokio::spawn(serve(Arc::downgrade(&self.budget)));
        }
        Err(turn)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use futures_util::FutureExt as _;

    use super::super::{BudgetSettings, Calendar};
    use super::*;
    use crate::telemetry::Metrics;

    fn budget(limit: Limit, sources: &[(&str, u64)]) -> Arc<Budget> {
        let sources: HashMap<Arc<str>, u64> = sources.iter().map(|(name, rate)| ((*name).into(), *rate)).collect();
        let calendar = Calendar { limit, ..Calendar::default() };
        let settings = BudgetSettings { calendar, daily: None, sources };
        Budget::new(settings, None, Arc::new(Metrics::new().unwrap()))
    }

    fn stream(budget: &Arc<Budget>, source: &str) -> Spending {
        Spending::new(Arc::clone(budget), Standing::default(), source.into())
    }

    #[tokio::test]
    async fn who_waits_for_a_slow_source_holds_up_nobody_else() {
        let budget = budget(Limit::Rate(1 << 40), &[("slow", 1), ("quick", 1 << 40)]);
        let (mut slow, mut quick) = (stream(&budget, "slow"), stream(&budget, "quick"));
        // The first piece of it makes a debt of hours.
        slow.turn(1 << 20).await;
        assert!(slow.turn(1 << 20).now_or_never().is_none());
        // A rate that begins has nothing in its first moment.
        quick.turn(1000).await;
        for _ in 0..100 {
            assert!(quick.turn(1000).now_or_never().is_some(), "there is enough for it");
        }
        assert!(slow.turn(1 << 20).now_or_never().is_none(), "its turn has not come");
    }

    #[tokio::test]
    async fn a_turn_is_not_lost_when_nobody_waits_for_it_for_a_while() {
        let budget = budget(Limit::Rate(1_000_000), &[]);
        let (mut first, mut second) = (stream(&budget, "a"), stream(&budget, "a"));
        while first.turn(1 << 20).now_or_never().is_some() {}
        assert!(second.turn(1 << 20).now_or_never().is_none());
        // Both come to it, though each was asked before and given up.
        assert!(first.turn(1 << 20).await > 0);
        assert!(second.turn(1 << 20).await > 0);
    }

    #[tokio::test]
    async fn what_is_there_is_given_on_once_the_budget_is_closed() {
        let budget = budget(Limit::Rate(1), &[]);
        let mut waiting = stream(&budget, "a");
        waiting.turn(1 << 20).await;
        assert!(waiting.turn(1 << 20).now_or_never().is_none());
        let calendar = Calendar { limit: Limit::Closed, ..Calendar::default() };
        budget.change(BudgetSettings { calendar, ..BudgetSettings::default() });
        assert_eq!(waiting.turn(1 << 20).await, 1 << 20, "all of it: it is paid for");
        assert!(waiting.is_shut());
    }
}
