//! Opening a drive within a time limit, when the store starts and later: a drive that was absent then comes into service
//! while the others serve. What is on it is read in first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use super::disk::Dir;
use super::drive::{Drive, Opening};
use super::drives::{Absence, Drives, Slot};
use super::error::OpenError;
use super::inner::Inner;
use super::known_drives::{Before, KnownDrives};
use super::pulse::Away;
use super::recover;
use super::settings::{DriveSettings, Settings};
use super::watch::reason_of;
use crate::telemetry::Metrics;

/// What became of an attempt.
pub(super) enum Outcome {
    /// It is in service.
    Here,
    Not(OpenError),
    /// The store is closing.
    Closing,
}

/// Opens all drives. One that is not there does not keep the others from it; it is an error only when none can be used and
/// none was a drive before, or when one must not be used.
pub(super) fn open_all(
    settings: &Settings,
    known: &KnownDrives,
    away: &Arc<Away>,
    metrics: &Arc<Metrics>,
) -> (Drives, Result<(), OpenError>) {
    let limit = settings.drive_timeout;
    let begun = Instant::now();
    let begin = |(number, drive): (usize, &DriveSettings)| {
        begin_to_open(drive.clone(), number, known.of(&drive.path), limit, away, metrics)
    };
    let opening: Vec<_> = settings.drives.iter().enumerate().map(begin).collect();
    let (mut outcome, mut unknown, mut slots) = (Ok(()), None, Vec::new());
    for (drive, opening) in settings.drives.iter().zip(opening) {
        let hung = |_| Err(OpenError::Hung { path: drive.path.clone(), seconds: limit.as_secs() });
        let opened =
            opening.and_then(|opened| opened.recv_timeout(limit.saturating_sub(begun.elapsed())).unwrap_or_else(hung));
        let here = opened.map_err(|error| {
            let absence = Absence { reason: reason_of(&error), text: error.to_string(), since: begun };
            match error {
                // The others go on without it, and nothing is stored while there are none.
                OpenError::Lost { .. }
                | OpenError::OtherDrive { .. }
                | OpenError::Hung { .. }
                | OpenError::Unsure { .. } => {}
                OpenError::Damaged { .. } if known.of(&drive.path) != Before::Nothing => {}
                OpenError::Io { .. } | OpenError::Damaged { .. } => unknown = Some(error),
                error => outcome = Err(error),
            }
            absence
        });
        slots.push(Slot::new(drive.clone(), here));
    }
    let drives = Drives::new(slots);
    if outcome.is_ok() && drives.iter().next().is_none() {
        // Most likely it is the configuration that is wrong.
        outcome = unknown.map_or(Ok(()), Err);
    }
    for slot in drives.slots().iter().filter(|slot| slot.drive().is_none()) {
        let label = slot.settings.path.display().to_string();
        tracing::error!(drive = label, error = slot.absence().text, "the drive is out of service");
        metrics.drive_errors.with_label_values(&[&label]).inc();
    }
    (drives, outcome)
}

/// Opens a drive on a thread of its own, which is left behind if the drive does not answer.
fn begin_to_open(
    settings: DriveSettings,
    number: usize,
    known: Before,
    limit: Duration,
    away: &Arc<Away>,
    metrics: &Arc<Metrics>,
) -> Result<Receiver<Result<Arc<Drive>, OpenError>>, OpenError> {
    let (sender, receiver) = mpsc::channel();
    let (path, away, metrics) = (settings.path.clone(), Arc::clone(away), Arc::clone(metrics));
    let open = move || {
        let opened = Drive::open(settings, &Opening { number, known, limit, away: &away, metrics: &metrics });
        if let Err(mpsc::SendError(Ok(drive))) = sender.send(opened) {
            // Too late: it is looked for again.
            let drive: Arc<Drive> = drive;
            drive.close();
            drive.unlock();
        }
    };
    let started = thread::Builder::new().name("drive-open".to_owned()).spawn(open);
    started.map_err(|source| OpenError::Io { path, action: "start threads", source })?;
    Ok(receiver)
}

/// Opens a drive for a tool, which waits as long as it takes.
pub(super) fn open_for_tool(
    settings: &DriveSettings,
    known: impl Into<Before>,
    metrics: &Metrics,
) -> Result<Arc<Drive>, OpenError> {
    let opening = Opening { number: 0, known: known.into(), limit: Duration::MAX, away: &Arc::default(), metrics };
    // What it has is the business of the tool.
    Drive::open(settings.clone(), &opening).inspect(|drive| drive.pulse.is_read_in())
}

/// Looks on a thread of its own whether the absent drive with this number is there, and takes it in.
pub(super) fn begin(store: &Arc<Inner>, number: usize, closing: &Arc<AtomicBool>) -> Option<Receiver<Outcome>> {
    let (sender, receiver) = mpsc::channel();
    let (store, closing, watcher) = (Arc::clone(store), Arc::clone(closing), thread::current());
    let arriving = thread::Builder::new().name("drive-arrival".to_owned()).spawn(move || {
        let outcome = arrive(&store, number, &closing);
        // The last reference may not be dropped here while others wait for the end of the store.
        drop(store);
        let _ = sender.send(outcome);
        watcher.unpark();
    });
    arriving.inspect_err(|error| tracing::error!(%error, "an absent drive is not looked for")).ok()?;
    Some(receiver)
}

fn arrive(store: &Arc<Inner>, number: usize, closing: &Arc<AtomicBool>) -> Outcome {
    let Some(slot) = store.drives.slots().get(number) else { return Outcome::Closing };
    let path = &slot.settings.path;
    let io = |source| OpenError::Io { path: path.clone(), action: "note the drive", source };
    let state = match Dir::open(&store.settings.state) {
        Ok(state) => state,
        Err(error) => return Outcome::Not(io(error)),
    };
    // Read anew, since `waystation drive adopt` may have written it.
    let mut known = KnownDrives::read_again(&state, &store.settings.state);
    let opening = Opening {
        number,
        known: known.of(path),
        limit: store.settings.drive_timeout,
        away: store.entries.away(),
        metrics: &store.metrics,
    };
    let drive = match Drive::open(slot.settings.clone(), &opening) {
        Ok(drive) => drive,
        Err(error) => return Outcome::Not(error),
    };
    known.tell_doubt();
    let release = || {
        drive.close();
        drive.unlock();
    };
    if let Err(error) = known.note(&state, [&*drive].into_iter()) {
        release();
        return Outcome::Not(io(error));
    }
    // What follows concerns this drive only.
    drive.pulse.adopt_thread();
    let came = recover::take_in(store, slot, &drive, closing);
    match came {
        Ok(true) => {
            recover::load_order_of(store, &drive, closing);
            Outcome::Here
        }
        Ok(false) => {
            release();
            Outcome::Closing
        }
        Err(source) => {
            release();
            let io = OpenError::Io { path: path.clone(), action: "read the drive in", source };
            if closing.load(Ordering::Relaxed) { Outcome::Closing } else { Outcome::Not(io) }
        }
    }
}
