//! What the clients of a flight wait for, and what is owed to them when they have left. The leader reads it to decide
//! what to ask for next; how it decides is `schedule`'s business.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::content::{ByteRange, RangeSet};
use crate::decide::FirstAsked;
use crate::upstream::Urgency;

/// The end of a range that goes to the end of a body whose length is not known.
pub(super) const TO_THE_END: u64 = u64::MAX;

/// What anybody waits for at least.
const FIRST_BYTE: ByteRange = match ByteRange::new(0, 1) {
    Some(range) => range,
    None => unreachable!(),
};

/// Where one client is: from its position to the end of what it reads.
#[derive(Debug)]
pub(super) struct Place {
    position: AtomicU64,
    end: AtomicU64,
    /// How much its bytes matter at most.
    urgency: Urgency,
}

/// The demands of all clients of one flight.
#[derive(Debug, Default)]
pub(super) struct Demands {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    places: Vec<Arc<Place>>,
    owed: RangeSet,
    /// Whether somebody sees to it that what is owed comes.
    is_seen_to: bool,
}

impl Place {
    fn new(range: ByteRange, urgency: Urgency) -> Self {
        Self { position: AtomicU64::new(range.start()), end: AtomicU64::new(range.end()), urgency }
    }

    /// The client has come to `position`.
    pub(super) fn advance(&self, position: u64) {
        self.position.store(position, Ordering::Relaxed);
    }

    /// What the client still waits for, if anything.
    fn range(&self) -> Option<ByteRange> {
        ByteRange::new(self.position.load(Ordering::Relaxed), self.end.load(Ordering::Relaxed))
    }
}

impl Demands {
    /// A client has come that will read `range`, whose bytes are as urgent as this at most.
    pub(super) fn join(&self, range: ByteRange, urgency: Urgency) -> Arc<Place> {
        let place = Arc::new(Place::new(range, urgency));
        self.state.lock().places.push(Arc::clone(&place));
        self.changed.notify_one();
        place
    }

    /// The client reads `range` from now on. With `owed` it is to be fetched even when the client leaves, if the
    /// policy goes on without clients.
    pub(super) fn set(&self, place: &Place, range: ByteRange, owed: Option<ByteRange>) {
        place.position.store(range.start(), Ordering::Relaxed);
        place.end.store(range.end(), Ordering::Relaxed);
        if let Some(owed) = owed {
            self.state.lock().owed.insert(owed);
        }
        self.changed.notify_one();
    }

    /// `range` is to be fetched, whoever waits.
    pub(super) fn owe(&self, range: ByteRange) {
        self.state.lock().owed.insert(range);
        self.changed.notify_one();
    }

    /// The client stands before nothing any more, and what it waited for is owed. Whether it is the first one to do so, and
    /// sees to that.
    pub(super) fn leave_owed(&self, place: &Place) -> bool {
        let range = place.range();
        place.advance(TO_THE_END);
        let mut state = self.state.lock();
        range.into_iter().for_each(|range| state.owed.insert(range));
        self.changed.notify_one();
        !std::mem::replace(&mut state.is_seen_to, true)
    }

    /// The client has left.
    pub(super) fn leave(&self, place: &Arc<Place>) {
        self.state.lock().places.retain(|other| !Arc::ptr_eq(other, place));
    }

    /// What each client waits for, and what is owed.
    pub(super) fn all(&self) -> (Vec<ByteRange>, RangeSet) {
        let state = self.state.lock();
        (state.places.iter().filter_map(|place| place.range()).collect(), state.owed.clone())
    }

    /// What each client waits for, and how urgent its bytes are at most.
    pub(super) fn clients(&self) -> Vec<(ByteRange, Urgency)> {
        let state = self.state.lock();
        state.places.iter().filter_map(|place| Some((place.range()?, place.urgency))).collect()
    }

    /// How urgent the bytes are of the client for whom they are most.
    pub(super) fn urgency(&self) -> Urgency {
        self.clients().into_iter().map(|(_, urgency)| urgency).min().unwrap_or(Urgency::Background)
    }

    /// Resolves when a client came or asked for something else since the last call.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// What a client waits for, as far as its request alone can tell.
pub(super) fn demand_of(begin: FirstAsked) -> ByteRange {
    let (start, end) = match begin {
        FirstAsked::ToEnd(start) => (start, TO_THE_END),
        FirstAsked::Within(range) => (range.start(), range.end()),
        // Where that is only the length can tell; the first byte's answer has it.
        FirstAsked::Suffix(_) => (0, 1),
    };
    ByteRange::new(start, end).unwrap_or(FIRST_BYTE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange::new(start, end).unwrap()
    }

    #[test]
    fn who_is_served_otherwise_stands_before_nothing_and_one_sees_to_what_is_owed() {
        let demands = Demands::default();
        let (a, b) = (demands.join(range(0, 10), Urgency::Awaited), demands.join(range(5, 20), Urgency::Awaited));
        assert!(demands.leave_owed(&a) && !demands.leave_owed(&b));
        let (waiting, owed) = demands.all();
        assert!(waiting.is_empty() && demands.urgency() == Urgency::Background);
        assert_eq!(owed.iter().collect::<Vec<_>>(), [range(0, 20)]);
    }

    #[test]
    fn what_clients_wait_for_goes_with_them_and_what_is_owed_stays() {
        let demands = Demands::default();
        let (a, b) = (demands.join(range(0, 10), Urgency::Ahead), demands.join(range(5, TO_THE_END), Urgency::Awaited));
        a.advance(4);
        assert_eq!(demands.all().0, [range(4, 10), range(5, TO_THE_END)]);
        demands.set(&b, range(20, 30), Some(range(20, 30)));
        assert_eq!(demands.clients(), [(range(4, 10), Urgency::Ahead), (range(20, 30), Urgency::Awaited)]);
        a.advance(10);
        assert_eq!(demands.all().0, [range(20, 30)], "a client that has all waits for nothing");
        demands.leave(&b);
        demands.leave(&a);
        let (waiting, owed) = demands.all();
        assert!(waiting.is_empty());
        assert_eq!(owed.iter().collect::<Vec<_>>(), [range(20, 30)]);
    }
}
