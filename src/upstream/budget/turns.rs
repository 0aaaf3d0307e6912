//! [`Turns`]: whose bytes come next when not all may come at once. Pure: nothing waits here.
//!
//! Bytes that a client stands before come first, then what lies ahead of clients, then what nobody waits for. Among
//! those that clients stand before, each gets a piece in turn, but no more streams at once than the rate keeps alive:
//! Delivery Optimization agents leave a cache that is slower than 4000 B/s for 20 s, and twenty of them with half of
//! that each would all be lost. The streams that have been there longest go on; the others wait for the end of one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// What a stream must have to be of use to an agent, with a margin, in bytes per second.
const ALIVE: u64 = 8 * 1024;

/// How much the bytes of a stream matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// A client stands before them.
    Awaited,
    /// They lie ahead of a client.
    Ahead,
    /// No client is there.
    Background,
}

/// The urgency of a stream, which may change while it waits for its turn. Clones are the same.
#[derive(Debug, Clone)]
pub struct Standing(Arc<AtomicU8>);

/// One that waits for its turn.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    /// The stream: a smaller one has been there longer.
    pub(super) stream: u64,
    pub(super) standing: Standing,
    /// Bytes that it could take.
    pub(super) bytes: u64,
    /// What the owner needs to know of it.
    pub(super) tag: T,
}

/// All that wait, in the order in which they came.
#[derive(Debug)]
pub(super) struct Turns<T>(Vec<Waiting<T>>);

impl Standing {
    /// One that begins with this.
    pub fn new(urgency: Urgency) -> Self {
        Self(Arc::new(AtomicU8::new(urgency as u8)))
    }

    /// Changes it.
    pub fn set(&self, urgency: Urgency) {
        self.0.store(urgency as u8, Ordering::Relaxed);
    }

    /// What it is at present.
    pub fn urgency(&self) -> Urgency {
        match self.0.load(Ordering::Relaxed) {
            0 => Urgency::Awaited,
            1 => Urgency::Ahead,
            _ => Urgency::Background,
        }
    }
}

impl Default for Standing {
    fn default() -> Self {
        Self::new(Urgency::Awaited)
    }
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Turns<T> {
    pub(super) fn push(&mut self, waiting: Waiting<T>) {
        self.0.push(waiting);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn retain(&mut self, keep: impl FnMut(&Waiting<T>) -> bool) {
        self.0.retain(keep);
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = Waiting<T>> {
        self.0.drain(..)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiting<T>> {
        self.0.iter()
    }

    /// The next one at `rate` bytes per second, of those that `may` have bytes.
    pub(super) fn next(&mut self, rate: Option<u64>, may: impl Fn(&T) -> bool) -> Option<Waiting<T>> {
        let oldest = self.last_kept_alive(rate);
        let able = self.0.iter().enumerate().filter(|(_, waiting)| may(&waiting.tag));
        let (index, _) = able.min_by_key(|(index, waiting)| {
            let urgency = waiting.standing.urgency();
            (urgency, urgency == Urgency::Awaited && oldest.is_some_and(|oldest| waiting.stream > oldest), *index)
        })?;
        Some(self.0.remove(index))
    }

    /// The youngest stream that `rate` keeps alive, if some cannot be.
    fn last_kept_alive(&self, rate: Option<u64>) -> Option<u64> {
        let most = usize::try_from((rate? / ALIVE).max(1)).unwrap_or(usize::MAX);
        let awaited = self.0.iter().filter(|waiting| waiting.standing.urgency() == Urgency::Awaited);
        let mut streams: Vec<u64> = awaited.map(|waiting| waiting.stream).collect();
        if streams.len() <= most {
            return None;
        }
        let (_, last, _) = streams.select_nth_unstable(most - 1);
        Some(*last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(stream: u64, urgency: Urgency) -> Waiting<bool> {
        Waiting { stream, standing: Standing::new(urgency), bytes: 1, tag: true }
    }

    fn order(mut turns: Turns<bool>, rate: Option<u64>) -> Vec<u64> {
        std::iter::from_fn(|| turns.next(rate, |may| *may)).map(|waiting| waiting.stream).collect()
    }

    #[test]
    fn what_clients_stand_before_comes_first_whenever_it_came() {
        let mut turns = Turns::default();
        for (stream, urgency) in
            [(1, Urgency::Background), (2, Urgency::Ahead), (4, Urgency::Awaited), (3, Urgency::Awaited)]
        {
            turns.push(waiting(stream, urgency));
        }
        assert_eq!(order(turns, None), [4, 3, 2, 1]);
    }

    #[test]
    fn a_client_that_comes_changes_the_order() {
        let mut turns = Turns::default();
        let late = waiting(2, Urgency::Background);
        let standing = late.standing.clone();
        turns.push(waiting(1, Urgency::Ahead));
        turns.push(late);
        standing.set(Urgency::Awaited);
        assert_eq!(order(turns, None), [2, 1]);
    }

    #[test]
    fn no_more_streams_at_once_than_the_rate_keeps_alive() {
        let mut turns = Turns::default();
        [5, 3, 1, 4, 2].into_iter().for_each(|stream| turns.push(waiting(stream, Urgency::Awaited)));
        assert_eq!(turns.next(Some(2 * ALIVE), |_| true).unwrap().stream, 1, "of the two oldest the first in the row");
        turns.push(waiting(1, Urgency::Awaited));
        assert_eq!(turns.next(Some(2 * ALIVE), |_| true).unwrap().stream, 2);
        turns.push(waiting(2, Urgency::Awaited));
        assert_eq!(turns.next(Some(2 * ALIVE), |_| true).unwrap().stream, 1);
        assert_eq!(turns.next(Some(100 * ALIVE), |_| true).unwrap().stream, 5, "all are kept alive: in turn");
    }

    #[test]
    fn who_may_not_is_passed_over() {
        let mut turns = Turns::default();
        turns.push(Waiting { tag: false, ..waiting(1, Urgency::Awaited) });
        turns.push(waiting(2, Urgency::Background));
        assert_eq!(turns.next(None, |may| *may).unwrap().stream, 2);
        assert!(turns.next(None, |may| *may).is_none() && !turns.is_empty());
    }
}
