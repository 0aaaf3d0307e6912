//! [`Turns`]: whose bytes come next when not all may come at once. Pure: nothing waits here.
//!
//! Bytes that a client stands before come first, then what lies ahead of clients, then what nobody waits for. Among
//! those that clients stand before, each gets a piece in turn, but no more streams at once than the rate keeps alive:
//! Delivery Optimization agents leave a cache that is slower than 4000 B/s for 20 s, and twenty of them with half of
//! that each would all be lost. The streams that have been there longest go on; the others wait for the end of one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

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

/// The urgency of a stream, which may change while it waits for its turn, and how old it is. Clones are the same.
#[derive(Debug, Clone)]
pub struct Standing {
    urgency: Arc<AtomicU8>,
    /// A smaller one has been there longer.
    number: u64,
}

/// The number of the next one.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// One that waits for its turn.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    pub(super) standing: Standing,
    /// The source of its bytes, if that has a rate of its own.
    pub(super) source: Option<Arc<str>>,
    /// Bytes that it could take.
    pub(super) bytes: u64,
    /// Where it is told.
    pub(super) tell: T,
}

/// All that wait, in the order in which they came.
#[derive(Debug)]
pub(super) struct Turns<T>(Vec<Waiting<T>>);

impl Standing {
    /// One that begins with this.
    pub fn new(urgency: Urgency) -> Self {
        Self { urgency: Arc::new(AtomicU8::new(urgency as u8)), number: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// One for another stream of the same fill: as old, with an urgency of its own.
    pub fn of_the_same(&self) -> Self {
        Self { urgency: Arc::new(AtomicU8::new(self.urgency() as u8)), number: self.number }
    }

    /// Changes it.
    pub fn set(&self, urgency: Urgency) {
        self.urgency.store(urgency as u8, Ordering::Relaxed);
    }

    /// What it is at present.
    pub fn urgency(&self) -> Urgency {
        match self.urgency.load(Ordering::Relaxed) {
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

    /// The next one at `rate` bytes per second in all, of those whose source may give bytes; `rate_of` is that of a source.
    pub(super) fn next(
        &mut self,
        rate: Option<u64>,
        rate_of: impl Fn(&Arc<str>) -> Option<u64>,
        may: impl Fn(&Arc<str>) -> bool,
    ) -> Option<Waiting<T>> {
        let awaited = || self.0.iter().filter(|waiting| waiting.standing.urgency() == Urgency::Awaited);
        let of_all = last_kept_alive(awaited().map(|waiting| waiting.standing.number).collect(), rate);
        let mut by_source: HashMap<&Arc<str>, Vec<u64>> = HashMap::new();
        for waiting in awaited() {
            let numbers = waiting.source.as_ref().map(|source| by_source.entry(source).or_default());
            numbers.into_iter().for_each(|numbers| numbers.push(waiting.standing.number));
        }
        let of_source: HashMap<&Arc<str>, u64> = by_source
            .into_iter()
            .filter_map(|(source, numbers)| Some((source, last_kept_alive(numbers, rate_of(source))?)))
            .collect();
        let is_too_young = |waiting: &Waiting<T>| {
            let own = waiting.source.as_ref().and_then(|source| of_source.get(source)).copied();
            [of_all, own].into_iter().flatten().any(|last| waiting.standing.number > last)
        };
        let able = self.0.iter().enumerate().filter(|(_, waiting)| waiting.source.as_ref().is_none_or(&may));
        let (index, _) = able.min_by_key(|(index, waiting)| {
            let urgency = waiting.standing.urgency();
            (urgency, urgency == Urgency::Awaited && is_too_young(waiting), *index)
        })?;
        Some(self.0.remove(index))
    }
}

/// The youngest of these streams that `rate` keeps alive, if some cannot be.
fn last_kept_alive(mut numbers: Vec<u64>, rate: Option<u64>) -> Option<u64> {
    let most = usize::try_from((rate? / ALIVE).max(1)).unwrap_or(usize::MAX);
    if numbers.len() <= most {
        return None;
    }
    let (_, last, _) = numbers.select_nth_unstable(most - 1);
    Some(*last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(stream: u64, urgency: Urgency) -> Waiting<u64> {
        let standing = Standing { number: stream, ..Standing::new(urgency) };
        Waiting { standing, source: None, bytes: 1, tell: stream }
    }

    fn next(turns: &mut Turns<u64>, rate: Option<u64>) -> Option<u64> {
        turns.next(rate, |_| None, |_| true).map(|waiting| waiting.tell)
    }

    fn order(mut turns: Turns<u64>, rate: Option<u64>) -> Vec<u64> {
        std::iter::from_fn(|| next(&mut turns, rate)).collect()
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
        assert_eq!(next(&mut turns, Some(2 * ALIVE)), Some(1), "of the two oldest the first in the row");
        turns.push(waiting(1, Urgency::Awaited));
        assert_eq!(next(&mut turns, Some(2 * ALIVE)), Some(2));
        turns.push(waiting(2, Urgency::Awaited));
        assert_eq!(next(&mut turns, Some(2 * ALIVE)), Some(1));
        assert_eq!(next(&mut turns, Some(100 * ALIVE)), Some(5), "all are kept alive: in turn");
    }

    #[test]
    fn the_rate_of_a_source_keeps_as_many_of_its_streams_alive() {
        let (slow, mut turns) = (Arc::<str>::from("slow"), Turns::default());
        for stream in [3, 2, 1] {
            turns.push(Waiting { source: Some(Arc::clone(&slow)), ..waiting(stream, Urgency::Awaited) });
        }
        turns.push(waiting(9, Urgency::Awaited));
        let next = |turns: &mut Turns<u64>| turns.next(None, |_| Some(ALIVE), |_| true).map(|waiting| waiting.tell);
        assert_eq!(next(&mut turns), Some(1), "its oldest");
        turns.push(Waiting { source: Some(Arc::clone(&slow)), ..waiting(1, Urgency::Awaited) });
        assert_eq!(next(&mut turns), Some(9), "the others' streams are not bound by it");
        assert_eq!(next(&mut turns), Some(1));
    }

    #[test]
    fn a_stream_of_the_same_fill_is_as_old() {
        let first = Standing::new(Urgency::Ahead);
        let other = Standing::new(Urgency::Ahead);
        let later = first.of_the_same();
        assert!(later.number == first.number && other.number > first.number);
        later.set(Urgency::Awaited);
        assert_eq!((first.urgency(), later.urgency()), (Urgency::Ahead, Urgency::Awaited));
    }

    #[test]
    fn who_may_not_is_passed_over() {
        let (empty, mut turns) = (Arc::<str>::from("empty"), Turns::default());
        turns.push(Waiting { source: Some(empty), ..waiting(1, Urgency::Awaited) });
        turns.push(waiting(2, Urgency::Background));
        let next = |turns: &mut Turns<u64>| turns.next(None, |_| Some(1), |_| false).map(|waiting| waiting.tell);
        assert_eq!(next(&mut turns), Some(2));
        assert!(next(&mut turns).is_none() && !turns.is_empty());
    }
}
