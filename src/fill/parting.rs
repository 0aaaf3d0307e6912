//! What becomes of a flight when what it asked for may have changed meanwhile: who waits for its body gets it, and whoever comes
//! later gets nothing of it. What is stored already is made invalid by whoever parts (`serve::change`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::flight::{FlightTable, Head, Permit};
use crate::content::KeyHash;
use crate::store::{Entry, NewBody, PartialWriter, Store};

impl FlightTable {
    /// Nobody joins the flights of `key` any more. Those whose body is on its way go on for who joined them; what the
    /// others are going to be answered is of the time before. To be called before what is stored is made invalid: a body
    /// that a flight begins is seen by then, or is an older version from the start.
    pub(super) fn part_from(&self, key: KeyHash) {
        let mut flights = self.flights.lock();
        let parted = flights.remove(&key).unwrap_or_default();
        parted.iter().for_each(|flight| flight.parted.store(true, Ordering::Release));
    }
}

impl Permit {
    /// Whether what was asked for may have changed since.
    pub(super) fn is_parted(&self) -> bool {
        self.flight.parted.load(Ordering::Acquire)
    }

    /// Shows a body that the flight has begun. One that was asked for before a change shows as an older version.
    pub(super) fn show(&self, body: NewBody) -> PartialWriter {
        // Nobody parts in between.
        let _joining = self.flights.lock();
        body.show(!self.is_parted())
    }

    /// Tells everybody who waits that they get `entry`, which is stored and was made current just now. Behind a change it is not,
    /// and they look again.
    pub(super) fn publish_stored(&self, store: &Store, entry: Arc<Entry>) {
        if self.is_parted() {
            store.invalidate(&entry);
            self.publish(Head::Changed);
        } else {
            self.publish(Head::Validated(entry));
        }
    }
}
