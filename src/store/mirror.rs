//! [`Mirror`]: the thread that keeps a second copy of what the journals say of large bodies, and how it is asked. It follows
//! the journals and is asked only where one is damaged: nothing waits for it else, and it may be deleted at any time. The
//! copy itself is the business of `copies`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use prometheus::IntGauge;

use super::copies::{self, Copies, Copy, MirrorError, OPEN_LIMIT};
use super::drive::DriveId;
use super::index::{Index, Watermark};
use super::journal_entry::JournalEntry;
use super::pool::{join_unless, panic_text};

/// How long the journals are let grow before they are copied again.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 1000 });

/// The second copy; shared by the index, which asks it, and the thread that keeps it.
pub(super) struct Mirror {
    state: Mutex<State>,
    changed: Condvar,
    /// 1 while something is not copied.
    behind: IntGauge,
}

struct State {
    copies: Phase,
    behind: bool,
    closing: bool,
    thread: Option<JoinHandle<()>>,
}

enum Phase {
    Opening,
    Open(Arc<Copies>),
    /// None to be had, or closed.
    Away,
}

impl Mirror {
    /// To be opened by [`Mirror::start`].
    pub(super) fn new(behind: IntGauge) -> Self {
        let state = State { copies: Phase::Opening, behind: false, closing: false, thread: None };
        Self { state: Mutex::new(state), changed: Condvar::new(), behind }
    }

    /// Starts the thread that opens the mirror in the directory `state` and keeps it.
    pub(super) fn start(self: &Arc<Self>, state: &Path, index: &Arc<Index>) {
        let (mirror, state, index) = (Arc::clone(self), state.to_owned(), Arc::clone(index));
        let started = thread::Builder::new().name("mirror".to_owned()).spawn(move || {
            let opened = copies::open(&state);
            mirror.set(opened.map_or(Phase::Away, |copies| Phase::Open(Arc::new(copies))));
            let mut last = None;
            while mirror.wait_behind(&mut last) {
                mirror.copy_all(&index);
            }
            mirror.copy_all(&index);
        });
        match started {
            Ok(thread) => self.state.lock().thread = Some(thread),
            Err(error) => {
                tracing::error!(%error, "the journals have no second copy");
                self.set(Phase::Away);
            }
        }
    }

    /// Some journal has grown, or its drive gives what it has again.
    pub(super) fn follow(&self) {
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.behind, true) {
            self.behind.set(1);
            self.changed.notify_all();
        }
    }

    /// Ends the thread once all is copied, or leaves it behind when a drive hangs; nothing is to be had from then on.
    pub(super) fn close(&self, is_hung: impl Fn() -> bool) {
        let thread = {
            let mut state = self.state.lock();
            state.closing = true;
            self.changed.notify_all();
            state.thread.take()
        };
        thread.map(|thread| join_unless(thread, is_hung));
        self.set(Phase::Away);
    }

    /// The entry that began at a place of a drive's journal.
    pub(super) fn entry_at(&self, drive: DriveId, at: Watermark) -> Option<JournalEntry> {
        self.ask(|copies| copies.entry_at(drive, at)).flatten()
    }

    /// The entries that began in a part of a segment, in order.
    pub(super) fn entries(&self, drive: DriveId, segment: u64, from: u64, end: u64) -> Vec<Copy> {
        self.ask(|copies| copies.entries(drive, segment, from, end)).unwrap_or_default()
    }

    /// Waits until everything is copied that is in the journals now.
    #[cfg(test)]
    pub(super) fn settle(&self, index: &Index) {
        self.open_copies();
        self.copy_all(index);
    }

    fn set(&self, copies: Phase) {
        self.state.lock().copies = copies;
        self.changed.notify_all();
    }

    /// Waits until a journal has grown, but not for less than the pause since it was waited for last; `false` when it is to
    /// close.
    fn wait_behind(&self, last: &mut Option<Instant>) -> bool {
        let mut state = self.state.lock();
        while !state.closing && last.is_some_and(|last| last.elapsed() < PAUSE) {
            let until = last.map_or_else(Instant::now, |last| last + PAUSE);
            self.changed.wait_until(&mut state, until);
        }
        while !state.behind && !state.closing {
            self.changed.wait(&mut state);
        }
        state.behind = false;
        *last = Some(Instant::now());
        !state.closing
    }

    /// The open database; waits for it while it opens.
    fn open_copies(&self) -> Option<Arc<Copies>> {
        let until = Instant::now() + OPEN_LIMIT;
        let mut state = self.state.lock();
        loop {
            match &state.copies {
                Phase::Open(copies) => return Some(Arc::clone(copies)),
                Phase::Away => return None,
                Phase::Opening if state.closing => return None,
                Phase::Opening => {}
            }
            if self.changed.wait_until(&mut state, until).timed_out() {
                return None;
            }
        }
    }

    fn ask<T>(&self, question: impl FnOnce(&Copies) -> Result<T, MirrorError>) -> Option<T> {
        let copies = self.open_copies()?;
        guarded(|| question(&copies)).inspect_err(|error| tracing::error!(%error, "it could not be asked")).ok()
    }

    /// Copies what the journals have more, so that a process that is killed leaves it.
    fn copy_all(&self, index: &Index) {
        let copies = match &self.state.lock().copies {
            Phase::Open(copies) => Arc::clone(copies),
            Phase::Opening | Phase::Away => return,
        };
        // Without the lock, since a drive may hang. Who lets a drive give again has this called again.
        let drives = index.drives();
        let (giving, others): (Vec<_>, Vec<_>) = drives.iter().partition(|drive| drive.pulse.gives());
        for drive in giving {
            if let Err(error) = guarded(|| copies.follow(drive, index)) {
                tracing::error!(drive = %drive.label(), %error, "the journal has no second copy from here on");
                self.set(Phase::Away);
                return;
            }
        }
        if let Err(error) = guarded(|| copies.flush()) {
            tracing::error!(%error, "the second copy of the journals could not be written");
            self.set(Phase::Away);
            return;
        }
        let state = self.state.lock();
        if !state.behind && others.is_empty() {
            self.behind.set(0);
        }
    }
}

/// The database panics on some kinds of damage.
fn guarded<T>(operation: impl FnOnce() -> Result<T, MirrorError>) -> Result<T, MirrorError> {
    catch_unwind(AssertUnwindSafe(operation)).unwrap_or_else(|panic| Err(MirrorError::of(panic_text(panic.as_ref()))))
}
