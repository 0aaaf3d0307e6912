//! [`Spending`]: one stream of bytes from a source, and what it may take of the budget.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::oneshot;

use super::turns::{Standing, Waiting};
use super::{Budget, Turn, serve};

/// What one stream spends.
pub(in crate::upstream) struct Spending {
    budget: Arc<Budget>,
    stream: u64,
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
        let stream = budget.streams.fetch_add(1, Ordering::Relaxed);
        Self { budget, stream, standing, source: Some(source), turn: None }
    }

    /// How much its bytes matter.
    pub(in crate::upstream) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Whether nothing may be asked for.
    pub(in crate::upstream) fn is_shut(&self) -> bool {
        self.budget.shut().is_some()
    }

    /// Bytes have come.
    pub(in crate::upstream) fn received(&self, bytes: u64) {
        self.budget.received(bytes);
    }

    /// How many of `bytes` that are there may be given on now, at least one; waits for its turn. Once the budget is shut it
    /// is all: they are paid for. The turn is not lost when the future is dropped.
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
        if state.shut.is_some() {
            return Ok(bytes);
        }
        let source = self.source.as_ref().filter(|source| state.settings.sources.contains_key(*source));
        if state.rate().is_none() && source.is_none() {
            return Ok(bytes);
        }
        state.refill(now);
        let has_some = state.total.has_some() && state.bucket_of(source).is_none_or(|bucket| bucket.has_some());
        if state.turns.is_empty() && has_some {
            let granted = bytes.min(state.piece(source));
            state.take(source, granted);
            return Ok(granted);
        }
        let (tell, turn) = oneshot::channel();
        let tag = Turn { source: source.cloned(), tell };
        state.turns.push(Waiting { stream: self.stream, standing: self.standing.clone(), bytes, tag });
        if !std::mem::replace(&mut state.is_served, true) {
            tokio::spawn(serve(Arc::downgrade(&self.budget)));
        }
        Err(turn)
    }
}
