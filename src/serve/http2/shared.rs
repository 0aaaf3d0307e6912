//! [`Shared`]: what the parts of one connection know together: its frames, how many requests are open, and since when there
//! is none.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;

use super::meter::{Flood, FrameMeter};
use super::stream::Stream;
use crate::serve::settings::Limits;
use crate::serve::wire::WireContext;
use crate::shutdown::{Drain, InFlight};

/// How a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It may go on.
    Good,
    /// No request was open for as long as a connection is kept.
    Idle,
    /// The client owes the rest of something that it began.
    Late,
}

/// One connection.
pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) drain: Drain,
    meter: Mutex<FrameMeter>,
    flooded: AtomicBool,
    /// Whether the socket takes no bytes at present.
    stuck: AtomicBool,
    open: AtomicUsize,
    /// Makes a drain wait for the end of the connection, once it has had a request.
    in_flight: OnceLock<InFlight>,
    idle_since: Mutex<Instant>,
    /// The stream of the request that the library has handed over, until its task begins.
    latest: Mutex<Option<Arc<Stream>>>,
}

impl Shared {
    pub(super) fn new(context: &WireContext) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            limits: *context.limits(),
            drain: context.drain().clone(),
            meter: Mutex::new(FrameMeter::new(now)),
            flooded: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            in_flight: OnceLock::new(),
            idle_since: Mutex::new(now),
            latest: Mutex::new(None),
        })
    }

    /// The client has sent this.
    ///
    /// # Errors
    /// When it sends too many frames.
    pub(super) fn read(&self, bytes: &[u8]) -> io::Result<()> {
        self.meter.lock().read(bytes, Instant::now()).map_err(|Flood| {
            self.flooded.store(true, Ordering::Relaxed);
            io::Error::other("more frames than the requests need")
        })
    }

    /// Whether it did.
    pub(super) fn is_flooded(&self) -> bool {
        self.flooded.load(Ordering::Relaxed)
    }

    /// Whether the socket takes no bytes at present.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }

    /// Whether the socket took what was to be written.
    pub(super) fn took(&self, took: bool) {
        self.stuck.store(!took, Ordering::Relaxed);
    }

    /// The client was sent so many bytes.
    pub(super) fn wrote(&self, bytes: usize) {
        self.meter.lock().wrote(bytes);
    }

    /// A request has come.
    pub(super) fn opened(&self) {
        self.in_flight.get_or_init(|| self.drain.in_flight());
        self.open.fetch_add(1, Ordering::AcqRel);
    }

    /// An answer has left, or will not.
    pub(super) fn closed(&self) {
        // Before others can see that there is none.
        *self.idle_since.lock() = Instant::now();
        self.open.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether a request is open.
    pub(super) fn is_busy(&self) -> bool {
        self.open.load(Ordering::Acquire) > 0
    }

    /// How the connection stands at `now`.
    pub(super) fn standing(&self, now: Instant) -> Standing {
        let passed = |since: Instant| now.saturating_duration_since(since);
        if self.meter.lock().unfinished_since().is_some_and(|since| passed(since) >= self.limits.header_time) {
            Standing::Late
        } else if !self.is_busy() && passed(*self.idle_since.lock()) >= self.limits.idle_time {
            Standing::Idle
        } else {
            Standing::Good
        }
    }

    /// The library hands the request of this stream over.
    pub(super) fn begins(&self, stream: Arc<Stream>) {
        *self.latest.lock() = Some(stream);
    }

    /// The stream of the task that begins.
    pub(super) fn begun(&self) -> Option<Arc<Stream>> {
        self.latest.lock().take()
    }
}
