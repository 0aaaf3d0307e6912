//! Watches the drives: takes those out of service that hang, fail or are not there, and back when they are well again; and
//! takes those in that were absent when the store was opened. One thread, which no drive can hold up; what may hang runs
//! on the drive's probe thread. When a drive is out is `health`'s business.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use super::arrival::{self, Outcome};
use super::disk::{self, Dir};
use super::drive::Drive;
use super::drives::Slot;
use super::error::OpenError;
use super::health::{Event, Fault, Reason};
use super::identity::{Identity, take_lock};
use super::inner::Inner;
use super::layout;

/// How often it is looked whether something hangs.
const LOOK: Duration = Duration::from_millis(200);
/// Least time between two probes of a drive that fails.
const AGAIN: Duration = Duration::from_millis(100);
/// How often it is looked which pins hold still.
const RECOUNT: Duration = Duration::from_secs(10);
/// What a probe writes: as much as the smallest sector.
const PROBE: [u8; 512] = [b'p'; 512];

/// What a probe found.
enum Found {
    /// All is well. When another mount leads to the drive now, its directory, locked.
    Well(Option<(Dir, File)>),
    Not(Fault),
}

/// What the watcher knows of one place.
struct Seat<'a> {
    slot: &'a Slot,
    /// What was told last.
    told: Option<Reason>,
    since: Instant,
    probe: Option<Receiver<Found>>,
    arrival: Option<Receiver<Outcome>>,
    looked: Option<Instant>,
    /// When pins were written last because the drive lacked them.
    pinned: Option<Instant>,
    /// Since when the ceiling of the drive is being lowered, and when that was done last.
    shrinking: Option<Instant>,
}

/// Watches until the store is closing.
pub(super) fn run(store: &Arc<Inner>, closing: &Arc<AtomicBool>) {
    let now = Instant::now();
    let seat = |slot| Seat {
        slot,
        told: None,
        since: now,
        probe: None,
        arrival: None,
        looked: None,
        pinned: None,
        shrinking: None,
    };
    let mut seats: Vec<Seat<'_>> = store.drives.slots().iter().map(seat).collect();
    for seat in &mut seats {
        let absence = seat.slot.drive().is_none().then(|| seat.slot.absence());
        show(store, seat.slot, absence.map(|absence| absence.reason));
    }
    let mut counted = now;
    while !closing.load(Ordering::Relaxed) {
        if counted.elapsed() >= RECOUNT {
            counted = Instant::now();
            store.pinning.recount();
        }
        for seat in &mut seats {
            match seat.slot.drive() {
                Some(drive) => {
                    seat.has_arrived(store);
                    seat.look(store, drive);
                    seat.shrink(store, drive);
                    seat.pin(store, drive);
                }
                None => seat.await_arrival(store, closing),
            }
        }
        thread::park_timeout(LOOK.min(store.settings.probe_every));
    }
}

impl Seat<'_> {
    fn look(&mut self, store: &Inner, drive: &Arc<Drive>) {
        let pulse = &drive.pulse;
        pulse.is_watched_by(thread::current());
        let overdue = pulse.is_overdue();
        if overdue {
            pulse.on(Event::Overdue);
        }
        match self.probe.as_ref().map(Receiver::try_recv) {
            Some(Ok(found)) => {
                self.probe = None;
                match found {
                    // What hangs still may come back when it does not.
                    Found::Well(_) if overdue => {}
                    Found::Well(other) => Self::well(store, drive, other),
                    Found::Not(fault) => pulse.on(Event::Bad(fault)),
                }
            }
            Some(Err(mpsc::TryRecvError::Empty)) => {}
            // It panicked, and says nothing.
            Some(Err(mpsc::TryRecvError::Disconnected)) | None => self.probe = None,
        }
        self.tell(store, drive);
        let pause = if pulse.is_suspect() { AGAIN } else { store.settings.probe_every };
        if self.probe.is_none() && self.looked.is_none_or(|at| at.elapsed() >= pause) {
            let rests = self.looked.filter(|_| pulse.out().is_none() && !pulse.is_suspect());
            // Its own syncs tell as much as one more.
            let writes = rests.is_none_or(|at| !pulse.has_synced_since(at));
            self.looked = Some(Instant::now());
            let (sender, receiver) = mpsc::channel();
            let (job, watcher) = (Arc::clone(drive), thread::current());
            drop(drive.probes.run(move || {
                // The store may have been closed meanwhile.
                let _ = sender.send(probe(&job, writes));
                watcher.unpark();
            }));
            self.probe = Some(receiver);
        }
    }

    fn well(store: &Inner, drive: &Drive, other: Option<(Dir, File)>) {
        drive.pulse.on(Event::Good);
        if !drive.pulse.is_well() || drive.in_service() {
            return;
        }
        if let Some((dir, lock)) = other {
            drive.reopen(&dir, lock);
        }
        if !drive.pulse.is_known() {
            return;
        }
        store.memory.forget_drive(drive);
        let mut table = store.entries.lock();
        // In this order: who sees the drive has no older answer.
        store.entries.forget_answers(&mut table);
        drive.pulse.returned();
        drop(table);
        store.mirror.follow();
    }

    /// Lets go of what is above the quota, at the set pace.
    fn shrink(&mut self, store: &Arc<Inner>, drive: &Arc<Drive>) {
        let (ceiling, quota, rate) = (drive.ceiling(), drive.settings.quota, store.settings.shrink_rate);
        if ceiling == quota || !drive.in_service() {
            self.shrinking = None;
            return;
        }
        let now = Instant::now();
        let Some(before) = self.shrinking.replace(now) else {
            tracing::info!(drive = %drive.label(), used = ceiling, quota, rate, "more is stored than the quota allows; it goes bit by bit");
            return;
        };
        let due = (now - before).as_secs_f64() * rate as f64;
        let bytes = if rate == 0 { u64::MAX } else { due as u64 };
        if drive.lower_ceiling(bytes) {
            tracing::info!(drive = %drive.label(), quota, "what is stored keeps to the quota again");
        }
        let (job, store) = (Arc::clone(drive), Arc::clone(store));
        drop(drive.pool.run(move || store.relieve(&job)));
    }

    /// Sees to it that a drive that was away, or is new, has the pins of the others.
    fn pin(&mut self, store: &Arc<Inner>, drive: &Arc<Drive>) {
        let due = self.pinned.is_none_or(|at| at.elapsed() >= store.settings.probe_every);
        if !due || !drive.in_service() || !*store.ready.borrow() || !store.pinning.is_behind(drive) {
            return;
        }
        self.pinned = Some(Instant::now());
        let (store, job) = (Arc::clone(store), Arc::clone(drive));
        drop(drive.syncs.run(move || {
            if let Err(error) = store.pinning.write_on(&job) {
                job.failed("write the pins", &error);
            }
        }));
    }

    /// Says so, when it is another state than before.
    fn tell(&mut self, store: &Inner, drive: &Drive) {
        let out = drive.pulse.out();
        let reason = out.map(|(reason, _)| reason);
        if reason == self.told {
            return;
        }
        let (path, text) = (drive.label(), reason.map_or("", Reason::as_str));
        match (self.told, reason) {
            (Some(_), None) => {
                let seconds = self.since.elapsed().as_secs();
                tracing::warn!(drive = %path, seconds, "the drive is in service again");
            }
            (None, Some(reason)) if reason.gives() => {
                tracing::error!(drive = %path, reason = text, "the drive is out of service: it gives what it has, and takes nothing");
            }
            _ => {
                tracing::error!(drive = %path, reason = text, "the drive is out of service: what is on it counts as missing");
            }
        }
        if let Some((reason, since)) = out {
            self.since = since;
            if !reason.gives() {
                store.memory.forget_drive(drive);
            }
        }
        self.told = reason;
        // What was looked up before may be on it.
        let mut table = store.entries.lock();
        store.entries.forget_answers(&mut table);
        drop(table);
        show(store, self.slot, reason);
    }

    /// Says so, when the drive has come.
    fn has_arrived(&mut self, store: &Inner) {
        if self.arrival.take().is_some() {
            let seconds = self.slot.absence().since.elapsed().as_secs();
            tracing::warn!(drive = %self.slot.settings.path.display(), seconds, "the drive is in service again");
            show(store, self.slot, None);
        }
    }

    /// Looks whether an absent drive is there now.
    fn await_arrival(&mut self, store: &Arc<Inner>, closing: &Arc<AtomicBool>) {
        match self.arrival.as_ref().map(Receiver::try_recv) {
            Some(Err(mpsc::TryRecvError::Empty)) => return,
            // Told when it is in its place, which it is by now.
            Some(Ok(Outcome::Here)) => return,
            Some(Ok(Outcome::Not(error))) => {
                let reason = reason_of(&error);
                if self.slot.is_still_absent(reason, error.to_string()) {
                    tracing::error!(drive = %self.slot.settings.path.display(), %error, "the drive is out of service");
                    show(store, self.slot, Some(reason));
                }
                self.arrival = None;
            }
            Some(Ok(Outcome::Closing) | Err(mpsc::TryRecvError::Disconnected)) | None => self.arrival = None,
        }
        let due = self.looked.is_none_or(|at| at.elapsed() >= store.settings.probe_every);
        if due && *store.ready.borrow() {
            self.looked = Some(Instant::now());
            let number = store.drives.slots().iter().position(|slot| std::ptr::eq(slot, self.slot)).unwrap_or(0);
            self.arrival = arrival::begin(store, number, closing);
        }
    }
}

/// Why a drive that could not be opened is not here.
pub(super) fn reason_of(error: &OpenError) -> Reason {
    match error {
        OpenError::Lost { .. } | OpenError::NoDrive { .. } | OpenError::Unsure { .. } | OpenError::Damaged { .. } => {
            Reason::Lost
        }
        OpenError::OtherDrive { .. } => Reason::OtherDrive,
        OpenError::Hung { .. } => Reason::Hung,
        _ => Reason::Absent,
    }
}

/// Shows it in the metrics.
fn show(store: &Inner, slot: &Slot, out: Option<Reason>) {
    let label = slot.settings.path.display().to_string();
    let metrics = &store.metrics;
    metrics.drive_in_service.with_label_values(&[&label]).set(i64::from(out.is_none()));
    for reason in Reason::ALL {
        let is_it = i64::from(out == Some(reason));
        metrics.drive_out_of_service.with_label_values(&[label.as_str(), reason.as_str()]).set(is_it);
    }
}

/// Whether the path still leads to the drive, and, if `writes`, whether it keeps bytes.
fn probe(drive: &Drive, writes: bool) -> Found {
    let path = &drive.settings.path;
    let dir = match Dir::open(path) {
        Ok(dir) => dir,
        Err(error) => return Found::Not(Fault::of(&error).unwrap_or(Fault::Gone)),
    };
    match Identity::read_of(&dir, path, drive.id) {
        Ok(id) if id == drive.id => {}
        Ok(_) => return Found::Not(Fault::Other),
        Err(OpenError::Io { source, .. }) => return Found::Not(Fault::of(&source).unwrap_or(Fault::Gone)),
        Err(_) => return Found::Not(Fault::Gone),
    }
    match dir.is_read_only() {
        Ok(true) => return Found::Not(Fault::ReadOnly),
        Ok(false) => {}
        Err(error) => return Found::Not(Fault::of(&error).unwrap_or(Fault::Gone)),
    }
    let is_same = dir.is_same(&drive.dir).unwrap_or(false);
    if !is_same && drive.pulse.out().is_none() {
        // First everybody lets go of the old one.
        return Found::Not(Fault::Gone);
    }
    if writes && let Err(error) = write(&dir) {
        if let Some(fault) = Fault::of(&error) {
            return Found::Not(fault);
        }
        // A full drive is well; and what is no fault of the drive will be told by those who write.
        tracing::debug!(drive = %drive.label(), %error, "a probe could not be written");
    }
    if is_same {
        return Found::Well(None);
    }
    // Through another mount of the same file system the lock would be found taken: by us.
    drive.unlock();
    match take_lock(&dir, path) {
        Ok(lock) => Found::Well(Some((dir.beating(&drive.pulse), lock))),
        Err(error) => {
            tracing::debug!(drive = %drive.label(), %error, "the drive cannot be taken back");
            Found::Not(Fault::Gone)
        }
    }
}

/// Whether a directory keeps bytes.
///
/// # Errors
/// Why it does not.
pub(super) fn write(dir: &Dir) -> std::io::Result<()> {
    let file = dir.open_lock(layout::PROBE)?;
    disk::write_at(&file, &PROBE, 0)?;
    disk::sync_data(&file)
}
