//! The file of [`Given`] and the thread that writes it: what waits is appended after 20 ms, synced within a second, or at
//! once when somebody waits for it. When the file is much longer than what is true it is written anew, and at the end.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::Given;
use super::line::{LINE, Line};
use crate::store::disk::{self, Dir};
use crate::store::layout;

/// How long lines are gathered.
const GATHER: Duration = Duration::from_millis(20);
/// How long lines that were written wait to be synced with others.
const SYNC: Duration = Duration::from_secs(1);
/// The file is written anew when it is longer than twice what is true and this.
const SPARE: u64 = 4 * 1024 * 1024;
/// Pause after the file could not be written.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// Tells the keeper that there is something to do.
#[derive(Default)]
pub(super) struct Bell {
    lines: AtomicBool,
    state: Mutex<Rung>,
    changed: Condvar,
}

type Waiter = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Rung {
    waiting: Vec<Waiter>,
    closed: bool,
}

/// What the keeper wakes up for.
struct Work {
    waiting: Vec<Waiter>,
    closed: bool,
}

impl Bell {
    /// There are lines.
    pub(super) fn ring(&self) {
        if !self.lines.swap(true, Ordering::AcqRel) {
            // Under the lock, so that the keeper is either before its look or asleep.
            let _state = self.state.lock();
            self.changed.notify_one();
        }
    }

    /// Resolves when all lines so far are durable, or nobody can say so.
    pub(super) fn durable(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.wait_with(Box::new(move || {
            // Whoever asked may have gone.
            let _ = sender.send(());
        }));
        receiver
    }

    /// The same on a thread that may wait.
    pub(super) fn wait_durable(&self, most: Duration) {
        let (sender, receiver) = mpsc::channel();
        self.wait_with(Box::new(move || {
            let _ = sender.send(());
        }));
        // Nobody can say so, or not in time: it is as durable as it gets.
        let _ = receiver.recv_timeout(most);
    }

    fn wait_with(&self, waiter: Waiter) {
        let mut state = self.state.lock();
        if !state.closed {
            state.waiting.push(waiter);
            self.changed.notify_one();
        }
    }

    /// Ends the keeper after it has written everything.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_one();
    }

    /// Waits until lines were gathered, a sync is due, somebody waits, or it is the end.
    fn wait(&self, unsynced: Option<Instant>) -> Work {
        let mut state = self.state.lock();
        let mut gathering: Option<Instant> = None;
        while !state.closed && state.waiting.is_empty() {
            let now = Instant::now();
            if self.lines.load(Ordering::Acquire) {
                gathering.get_or_insert(now);
            }
            let due = gathering.map(|since| since + GATHER).into_iter().chain(unsynced.map(|since| since + SYNC)).min();
            match due {
                Some(due) if due <= now => break,
                Some(due) => drop(self.changed.wait_until(&mut state, due)),
                None => self.changed.wait(&mut state),
            }
        }
        self.lines.store(false, Ordering::Release);
        Work { waiting: std::mem::take(&mut state.waiting), closed: state.closed }
    }
}

/// The thread's side.
pub(in crate::store) struct Keeper {
    given: Arc<Given>,
    dir: Dir,
    file: Option<(File, u64)>,
    /// Since when something is written and not synced.
    unsynced: Option<Instant>,
    /// When the file could not be written.
    failed: Option<Instant>,
}

impl Keeper {
    /// Reads what earlier processes wrote into `given`.
    pub(in crate::store) fn load(given: Arc<Given>, dir: Dir) -> Self {
        let file = match read(&dir) {
            Ok(Some((file, bytes))) => {
                let (lines, _) = bytes.as_chunks::<LINE>();
                let decoded = lines.iter().filter_map(Line::decode);
                given.recall(decoded);
                Some((file, (lines.len() * LINE) as u64))
            }
            Ok(None) => None,
            Err(error) => {
                tracing::error!(%error, "who was given which version could not be read and is not known any more");
                None
            }
        };
        Self { given, dir, file, unsynced: None, failed: None }
    }

    /// Runs until the bell is closed.
    pub(in crate::store) fn run(mut self) {
        loop {
            let work = self.given.bell.wait(self.unsynced);
            let urgent = !work.waiting.is_empty() || work.closed;
            if let Err(error) = self.write(urgent, work.closed) {
                tracing::error!(%error, "who was given which version cannot be written down; a restart forgets it");
                (self.file, self.unsynced, self.failed) = (None, None, Some(Instant::now()));
            }
            work.waiting.into_iter().for_each(|waiter| waiter());
            if work.closed {
                return;
            }
        }
    }

    fn write(&mut self, urgent: bool, last: bool) -> io::Result<()> {
        let length = self.file.as_ref().map_or(u64::MAX, |(_, length)| *length);
        let anew = length > (self.given.size() as u64).saturating_mul(2).saturating_add(SPARE);
        if anew || last {
            if !last && self.failed.is_some_and(|at| at.elapsed() < AFTER_FAILURE) {
                // Memory has it all; nothing may pile up meanwhile.
                self.given.take_lines(&mut Vec::new());
                return Ok(());
            }
            return self.write_anew();
        }
        let Some((file, length)) = &mut self.file else { return Ok(()) };
        let mut lines = Vec::new();
        self.given.take_lines(&mut lines);
        if !lines.is_empty() {
            disk::write_at(file, &lines, *length)?;
            *length += lines.len() as u64;
            self.unsynced.get_or_insert_with(Instant::now);
        }
        if self.unsynced.is_some_and(|since| urgent || since.elapsed() >= SYNC) {
            disk::sync_data(file)?;
            self.unsynced = None;
        }
        Ok(())
    }

    /// Writes what is true now into a new file, which then takes the old one's place.
    fn write_anew(&mut self) -> io::Result<()> {
        self.dir.unlink(layout::GIVEN_NEW)?;
        let file = self.dir.create_file(layout::GIVEN_NEW)?;
        let bytes = self.given.snapshot();
        disk::write_at(&file, &bytes, 0)?;
        disk::sync_data(&file)?;
        self.dir.rename(layout::GIVEN_NEW, layout::GIVEN)?;
        self.dir.sync_directory(".")?;
        self.file = Some((file, bytes.len() as u64));
        (self.unsynced, self.failed) = (None, None);
        Ok(())
    }
}

/// The file with its bytes; `None` when there is none that can be gone on with.
fn read(dir: &Dir) -> io::Result<Option<(File, Vec<u8>)>> {
    let bytes = match dir.read(layout::GIVEN) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match bytes.first_chunk::<LINE>().and_then(Line::decode) {
        Some(Line::Format(format)) if Line::is_known_format(format) => {}
        first => {
            tracing::error!(
                ?first,
                "who was given which version is written in a form that is not known; it begins anew"
            );
            return Ok(None);
        }
    }
    Ok(Some((dir.open_file(layout::GIVEN)?, bytes)))
}
