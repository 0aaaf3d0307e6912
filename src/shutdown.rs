//! The drain signal: one handle that every part clones to learn that the process is about to end, and to
//! count what must still be finished. Deciding when to exit is the node's business.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

/// A handle on the drain state of the process. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    draining: AtomicBool,
    started: Notify,
    in_flight: AtomicUsize,
    finished: Notify,
}

/// Counts as one unfinished piece of work until dropped; see [`Drain::in_flight`].
#[derive(Debug)]
pub struct InFlight {
    inner: Arc<Inner>,
}

/// The signals that end the process, caught.
#[derive(Debug)]
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

/// The signal that ended [`Signals::obeyed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, as service managers and container runtimes send it.
    Terminate,
    /// SIGINT, Ctrl-C on a terminal.
    Interrupt,
}

// === impl Drain ===

impl Drain {
    /// A handle that is not draining and counts nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts the drain. Doing it again changes nothing.
    pub fn start(&self) {
        self.inner.draining.store(true, Ordering::SeqCst);
        self.inner.started.notify_waiters();
    }

    /// Whether the drain has started.
    pub fn draining(&self) -> bool {
        self.inner.draining.load(Ordering::SeqCst)
    }

    /// Completes when the drain has started; at once when it has already.
    pub async fn signalled(&self) {
        let mut started = pin!(self.inner.started.notified());
        // Registered before the flag is read, so that a start between the two is not missed.
        started.as_mut().enable();
        if !self.draining() {
            started.await;
        }
    }

    /// Counts a piece of work (an answer, say) that the process should finish before it exits.
    pub fn in_flight(&self) -> InFlight {
        self.inner.in_flight.fetch_add(1, Ordering::SeqCst);
        InFlight { inner: Arc::clone(&self.inner) }
    }

    /// How many pieces of work are unfinished.
    pub fn unfinished(&self) -> usize {
        self.inner.in_flight.load(Ordering::SeqCst)
    }

    /// Completes when nothing is unfinished. New work may begin afterwards; wait for it only once the
    /// drain has started. The grace period is the caller's, with `tokio::time::timeout`.
    pub async fn finished(&self) {
        loop {
            let mut finished = pin!(self.inner.finished.notified());
            finished.as_mut().enable();
            if self.unfinished() == 0 {
                return;
            }
            finished.await;
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.inner.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.inner.finished.notify_waiters();
        }
    }
}

// === impl Signal ===

impl Signal {
    /// The exit code by which a shell tells that this signal ended a process: 128 + its number.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Terminate => 143,
            Self::Interrupt => 130,
        }
    }
}

// === impl Signals ===

impl Signals {
    /// Catches SIGTERM and SIGINT from now on; until then they end the process. Call it before the first port opens,
    /// so that whoever sees the port may stop the process in the orderly way.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn catch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next signal.
    pub async fn received(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
        }
    }

    /// The first signal starts the drain, the second completes this future, upon which the process should end at
    /// once. Poll it beside the work; it never completes on one signal alone.
    pub async fn obeyed(mut self, drain: Drain) -> Signal {
        loop {
            let received = self.received().await;
            if drain.draining() {
                return received;
            }
            tracing::info!(signal = ?received, "draining; a second signal ends the process at once");
            drain.start();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiter_learns_of_the_drain_before_and_after_it_starts() {
        let drain = Drain::new();
        assert!(!drain.draining());
        let waiter = tokio::spawn({
            let drain = drain.clone();
            async move { drain.signalled().await }
        });
        tokio::task::yield_now().await;
        drain.start();
        waiter.await.unwrap();
        drain.signalled().await;
        assert!(drain.draining());
    }

    #[tokio::test]
    async fn finished_waits_for_the_last_piece_of_work() {
        let drain = Drain::new();
        drain.finished().await;
        let (first, second) = (drain.in_flight(), drain.in_flight());
        assert_eq!(drain.unfinished(), 2);
        let waiter = tokio::spawn({
            let drain = drain.clone();
            async move { drain.finished().await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        drop(second);
        waiter.await.unwrap();
    }

    #[tokio::test]
    async fn the_first_signal_drains_and_the_second_ends() {
        let drain = Drain::new();
        let signals = Signals::catch().unwrap();
        // Nobody listens yet: what comes before is not lost.
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
        let listening = tokio::spawn(signals.obeyed(drain.clone()));
        drain.signalled().await;
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
        assert_eq!(listening.await.unwrap(), Signal::Terminate);
    }
}
