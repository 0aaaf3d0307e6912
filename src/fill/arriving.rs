//! [`Arriving`]: a body on its way, wherever its bytes land: in the store, or where no drive has room, in the window of a
//! passage. A flight whose drive runs full goes on in a window, and those who read it do not notice.

use std::sync::Arc;

use bytes::Bytes;

use super::FlightGuard;
use super::flight::Flight;
use super::passage::Ended;
use crate::store::{Body, Partial, Progress};

/// A body that is being filled. Cheap to clone.
#[derive(Clone)]
pub struct Arriving {
    partial: Option<Arc<Partial>>,
    flight: Arc<Flight>,
}

/// Bytes that have arrived.
pub enum Arrived {
    /// In the store, up to this position.
    Stored(Body, u64),
    /// In memory.
    Bytes(Bytes),
}

impl Arriving {
    /// The body of the flight of `guard`, which lands in `partial` if that is given.
    pub fn new(partial: Option<Arc<Partial>>, guard: &FlightGuard) -> Self {
        Self { partial, flight: guard.flight() }
    }

    /// The body in the store, if it lands there.
    pub fn partial(&self) -> Option<&Arc<Partial>> {
        self.partial.as_ref()
    }

    /// Resolves as soon as the byte at `offset` is present, or the body ended, or no more comes of it, or the client is so
    /// far behind others that its bytes are gone.
    pub async fn wait(&self, offset: u64) -> Progress {
        let stored = match &self.partial {
            Some(partial) => partial.wait(offset).await,
            None => Progress::Stopped,
        };
        match self.flight.passage() {
            Some(passage) if stored == Progress::Stopped => passage.wait(offset).await,
            _ => stored,
        }
    }

    /// Resolves when no more of the body lands in the store: it is whole, or was given up, or passes through a window.
    pub async fn landed(&self) {
        if let Some(partial) = &self.partial {
            partial.wait(u64::MAX).await;
        }
    }

    /// Whether the body is complete and verified.
    pub fn is_complete(&self) -> bool {
        let stored = self.partial.as_ref().is_some_and(|partial| partial.is_complete());
        stored || self.flight.passage().is_some_and(|passage| passage.ended() == Some(Ended::Whole))
    }

    /// Whether bytes that were given out have turned out to be wrong, and nothing but this is going to know.
    pub fn is_wrong(&self) -> bool {
        self.flight.passage().is_some_and(|passage| passage.ended() == Some(Ended::Wrong))
    }

    /// End of the run of present bytes that contains `offset`; `offset` itself when it is absent.
    pub fn present_until(&self, offset: u64) -> u64 {
        let stored = self.stored_until(offset);
        self.flight.passage().map_or(stored, |passage| passage.present_until(stored))
    }

    fn stored_until(&self, offset: u64) -> u64 {
        self.partial.as_ref().map_or(offset, |partial| Body::Partial(Arc::clone(partial)).present_until(offset))
    }

    /// Present bytes from `offset` on, at least one and not beyond `until`; `None` when they are gone.
    pub fn take(&self, offset: u64, until: u64) -> Option<Arrived> {
        let stored = self.stored_until(offset).min(until);
        match &self.partial {
            Some(partial) if stored > offset => Some(Arrived::Stored(Body::Partial(Arc::clone(partial)), stored)),
            _ => self.flight.passage()?.read(offset, until.saturating_sub(offset)).map(Arrived::Bytes),
        }
    }
}
