//! What happens between `open` and ready, on one thread for each drive: the index is brought up to its journal (see
//! `replay`), and its partial bodies are read. After ready the order of eviction is loaded. Nobody waits for a drive that
//! hangs or fails meanwhile: it is out of service, and its thread takes it in once it does not. What was read while it
//! failed does not count.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::adopt::{self, Found};
use super::commit::Committer;
use super::disk::Dir;
use super::drive::{Drive, Victim};
use super::drives::Slot;
use super::entries::{Entry, Target};
use super::given::Keeper;
use super::health::{Event, Fault, Reason};
use super::index::Applied;
use super::inner::Inner;
use super::journal;
use super::journal_entry::Row;
use super::layout::{self, PartialFile};
use super::map_file;
use super::partial::Partial;
use super::pool::panic_text;
use super::{disk, quarantine, replay, scrub, unnamed, watch};
use crate::content::{BodyRef, PartialId};

/// How often it is looked whether a drive hangs.
const LOOK: Duration = Duration::from_millis(5);
/// How often it is looked whether a drive that failed is well again.
const AGAIN: Duration = Duration::from_millis(100);

/// A drive that is being read in.
struct Reading<'a> {
    drive: &'a Arc<Drive>,
    thread: JoinHandle<()>,
    /// Disconnected once look-ups know what it has.
    known: Receiver<()>,
}

/// A thread that was started, and the drive that it works for, if it works for one alone.
pub(super) struct Started {
    pub(super) thread: JoinHandle<()>,
    pub(super) drive: Option<Arc<Drive>>,
}

/// Does all of it, starts the threads that write, and returns those that go on. `closing` ends it early.
pub(super) fn recover(store: &Arc<Inner>, closing: &Arc<AtomicBool>) -> Vec<Started> {
    let mut threads = Vec::from_iter(keep_given(store));
    store.mirror.start(&store.settings.state, &store.index);
    let readings: Vec<_> = store.drives.iter().filter_map(|drive| begin(store, drive, closing)).collect();
    readings.iter().for_each(Reading::wait_unless_hung);
    if !closing.load(Ordering::Relaxed) {
        store.ready.send_replace(true);
        tracing::info!("store is ready");
        readings.iter().for_each(Reading::finish_unless_hung);
        let (scrubbed, flag) = (Arc::clone(store), Arc::clone(closing));
        match thread::Builder::new().name("scrub".to_owned()).spawn(move || scrub::run(&scrubbed, &flag)) {
            Ok(thread) => threads.push(Started { thread, drive: None }),
            Err(error) => tracing::error!(%error, "what is stored is not read in the background"),
        }
    }
    let started = |reading: Reading<'_>| Started { thread: reading.thread, drive: Some(Arc::clone(reading.drive)) };
    threads.extend(readings.into_iter().map(started));
    threads
}

impl Reading<'_> {
    /// Waits until look-ups know what the drive has, or until it turns out to be hung.
    fn wait_unless_hung(&self) {
        while self.known.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            if self.drive.pulse.is_overdue() {
                self.drive.pulse.on(Event::Overdue);
                return;
            }
        }
    }

    /// Waits until the order of eviction is loaded too, or until the drive turns out to be hung or to fail. It begins once
    /// the store is ready.
    fn finish_unless_hung(&self) {
        self.thread.thread().unpark();
        let pulse = &self.drive.pulse;
        let fails = || !pulse.is_known() && pulse.out().is_some();
        while !self.thread.is_finished() && !pulse.is_overdue() && !fails() {
            thread::sleep(LOOK);
        }
    }
}

/// Starts to read a drive in, on a thread of its own.
fn begin<'a>(store: &Arc<Inner>, drive: &'a Arc<Drive>, closing: &Arc<AtomicBool>) -> Option<Reading<'a>> {
    let (sender, known) = mpsc::channel();
    let (store, job, closing) = (Arc::clone(store), Arc::clone(drive), Arc::clone(closing));
    let read = move || {
        job.pulse.adopt_thread();
        // Look-ups wait for it: whatever a drive holds, it must come to its end.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| read_in(&store, &job, &closing, sender))) {
            let panic = panic_text(panic.as_ref());
            tracing::error!(drive = %job.label(), panic, "the drive could not be read in");
            job.pulse.on(Event::Bad(Fault::Gone));
        }
        while !*store.ready.borrow() && !closing.load(Ordering::Relaxed) {
            thread::park_timeout(LOOK);
        }
        load_order_of(&store, &job, &closing);
    };
    let started = thread::Builder::new().name("drive-read-in".to_owned()).spawn(read);
    let failed = |error: &std::io::Error| {
        drive.failed("start the thread that reads it in", error);
        drive.pulse.on(Event::Bad(Fault::Gone));
    };
    let thread = started.inspect_err(failed).ok()?;
    Some(Reading { drive, thread, known })
}

/// Reads in a drive that was here when the store was opened; again when it failed meanwhile, once it is well. Who waits for
/// `known` waits for the first time alone.
fn read_in(store: &Arc<Inner>, drive: &Arc<Drive>, closing: &Arc<AtomicBool>, known: Sender<()>) {
    let mut known = Some(known);
    while !closing.load(Ordering::Relaxed) {
        let begun = read(store, drive, closing).and_then(|(segments, copied)| {
            let is_open = !closing.load(Ordering::Relaxed);
            is_open.then(|| start_committer(store, drive, &segments, copied)).transpose()
        });
        match begun {
            Ok(Some(thread)) => {
                drive.commits_on(thread);
                return is_read_in(store, drive);
            }
            Ok(None) => return,
            Err(error) => {
                tracing::error!(drive = %drive.label(), %error, "the drive could not be read in; once it is well it is read again");
            }
        }
        if drive.pulse.is_well() {
            drive.pulse.on(Event::Bad(Fault::Gone));
        }
        drop(known.take());
        let fails = || !drive.pulse.is_well() && !gives(drive.pulse.out());
        while fails() && !closing.load(Ordering::Relaxed) {
            thread::park_timeout(AGAIN);
        }
        store.index.forget_drive(drive.id);
    }
}

fn gives(out: Option<(Reason, Instant)>) -> bool {
    out.is_none_or(|(reason, _)| reason.gives())
}

/// Reads what a drive has: its segments, and what only the mirror had of them. What cannot be read of a drive that is well
/// otherwise counts as missing: one bad place is no outage.
///
/// # Errors
/// When nothing is known for certain, since the drive has failed meanwhile.
fn read(store: &Arc<Inner>, drive: &Arc<Drive>, closing: &AtomicBool) -> std::io::Result<(Vec<u64>, Vec<Applied>)> {
    let before = drive.pulse.out();
    let unless_failed = |is_whole: bool| match is_whole || !has_failed(drive, before) {
        true => Ok(()),
        false => Err(std::io::Error::other("it failed while it was read")),
    };
    drive.forget_gaps();
    let segments = segments_of(drive)?;
    store.pinning.read_in(drive);
    let copied = replay::bring_up(&store.index, drive, &segments, closing);
    // Before bodies are put back: who misses a part of the journal takes one for unfinished that is not.
    unless_failed(!store.index.is_incomplete(drive.id))?;
    let scan = || scan_partials(store, drive, closing);
    let is_whole = catch_unwind(AssertUnwindSafe(scan)).unwrap_or_else(|panic| {
        let panic = panic_text(panic.as_ref());
        tracing::error!(drive = %drive.label(), panic, "the partial bodies could not be taken up");
        true
    });
    unless_failed(is_whole)?;
    Ok((segments, copied))
}

/// Whether a drive of which something could not be read went out of service since it was out `before`, or takes no bytes
/// either.
fn has_failed(drive: &Drive, before: Option<(Reason, Instant)>) -> bool {
    if drive.pulse.is_suspect() {
        // Nothing has succeeded since: this tells, whether or not it succeeds.
        let _ = watch::write(&drive.dir);
    }
    let out = drive.pulse.out();
    !gives(out) && (out != before || !drive.pulse.is_well()) || out.is_none() && drive.pulse.is_suspect()
}

/// What the drive has is known. In this order: who sees the drive has no older answer.
fn is_read_in(store: &Inner, drive: &Drive) {
    let mut table = store.entries.lock();
    store.entries.forget_answers(&mut table);
    drive.pulse.is_read_in();
    drop(table);
    store.mirror.follow();
}

fn start_committer(
    store: &Arc<Inner>,
    drive: &Arc<Drive>,
    segments: &[u64],
    copied: Vec<Applied>,
) -> std::io::Result<JoinHandle<()>> {
    let committer = Committer::new(Arc::clone(store), Arc::clone(drive), segments, copied);
    let name = format!("commit {}", drive.label());
    thread::Builder::new().name(name.chars().take(15).collect()).spawn(move || committer.run())
}

/// Reads in a drive that has come while the others serve, and puts it in its place; `false` when the store is closing.
pub(super) fn take_in(
    store: &Arc<Inner>,
    slot: &Slot,
    drive: &Arc<Drive>,
    closing: &Arc<AtomicBool>,
) -> std::io::Result<bool> {
    store.index.admit(drive);
    let (segments, copied) = read(store, drive, closing)?;
    if closing.load(Ordering::Relaxed) {
        return Ok(false);
    }
    let has_come = store.drives.arrive(slot, drive, || start_committer(store, drive, &segments, copied))?;
    if has_come {
        is_read_in(store, drive);
    }
    Ok(has_come)
}

/// Reads which version clients were given and starts the thread that goes on writing it down.
fn keep_given(store: &Arc<Inner>) -> Option<Started> {
    let started = Dir::open(&store.settings.state).and_then(|dir| {
        let keeper = Keeper::load(Arc::clone(&store.given), dir);
        thread::Builder::new().name("given".to_owned()).spawn(move || keeper.run())
    });
    started
        .inspect_err(|error| {
            tracing::error!(%error, "which version clients were given is not written down");
            // Nobody may wait for what no thread will do.
            store.given.close();
        })
        .ok()
        .map(|thread| Started { thread, drive: None })
}

fn segments_of(drive: &Drive) -> std::io::Result<Vec<u64>> {
    journal::segments(drive).inspect_err(|error| {
        drive.failed("list the journal", error);
        drive.doubt();
    })
}

/// Takes up the partial bodies; leftovers of interrupted operations are removed. Says whether it is known of all what they
/// are worth.
fn scan_partials(store: &Arc<Inner>, drive: &Arc<Drive>, closing: &AtomicBool) -> bool {
    let names = match drive.dir.list(layout::PARTIAL) {
        Ok(names) => names,
        Err(error) => {
            drive.failed("list the partial bodies", &error);
            return false;
        }
    };
    let mut is_whole = true;
    let mut found: BTreeMap<PartialId, (bool, bool)> = BTreeMap::new();
    for (name, (id, kind)) in names.iter().filter_map(|name| Some((name, layout::parse_partial(name)?))) {
        let files = found.entry(id).or_default();
        match kind {
            PartialFile::Data => files.0 = true,
            PartialFile::Map => files.1 = true,
            PartialFile::NewMap => remove_leftover(drive, &format!("{}/{name}", layout::PARTIAL)),
        }
    }
    for (id, files) in found {
        if closing.load(Ordering::Relaxed) {
            return is_whole;
        }
        let (has_data, has_map) = files;
        let found = if has_map { take_up(store, drive, id, has_data) } else { Found::Worthless };
        if found == Found::Worthless {
            remove_leftover(drive, &layout::partial_data(id));
            remove_leftover(drive, &layout::partial_map(id));
        }
        is_whole &= found != Found::Unknown;
    }
    is_whole
}

fn remove_leftover(drive: &Drive, name: &str) {
    if let Err(error) = drive.dir.unlink(name) {
        drive.failed("remove a leftover", &error);
    }
}

fn take_up(store: &Arc<Inner>, drive: &Arc<Drive>, id: PartialId, has_data: bool) -> Found {
    let once = |known: &Partial| if known.drive.id == drive.id { Found::Taken } else { Found::Worthless };
    // A drain that was stopped has left it on two drives; or an earlier attempt to read this one in got so far.
    let known = store.entries.lock().partials.get(&id).cloned();
    match known {
        Some(known) if known.drive.id == drive.id && !Arc::ptr_eq(&known.drive, drive) => forget(store, &known),
        Some(known) => return once(&known),
        None => {}
    }
    let decoded = match drive.dir.read(&layout::partial_map(id)) {
        Ok(bytes) => map_file::decode(&bytes),
        Err(error) => {
            drive.failed("read a block map", &error);
            return Found::Unknown;
        }
    };
    let decoded = match decoded {
        Ok(decoded) if decoded.record.body == BodyRef::Partial(id) => decoded,
        Ok(_) => return Found::Worthless,
        // A newer release may come back and read it.
        Err(map_file::MapError::NewerFormat { .. }) => return Found::Unknown,
        Err(error) => {
            tracing::warn!(drive = %drive.label(), partial = %id, %error, "a partial body is dropped");
            return Found::Worthless;
        }
    };
    if !has_data {
        match adopt::put_back(drive, &store.index, id, &decoded) {
            Found::Taken => {}
            other => return other,
        }
    }
    let stat = drive.dir.stat(&layout::partial_data(id)).ok().flatten();
    let size = stat.map_or(0, |stat| disk::stat_allocated(&stat));
    let partial = Partial::found(id, Arc::clone(drive), store.weak(), &decoded, size);
    let row = Row { record: decoded.record, birth: id, superseded: decoded.superseded };
    let entry = Entry::new(row, drive.id, 0, Target::Partial(Arc::clone(&partial)));
    partial.state.lock().entry = Arc::downgrade(&entry);
    let mut table = store.entries.lock();
    if let Some(known) = table.partials.get(&id) {
        // Another drive was read in at the same time.
        return once(known);
    }
    store.entries.add_partial(&mut table, &entry);
    drive.take(size);
    drive.sieve.lock().insert(Victim::partial(id), size);
    Found::Taken
}

/// Forgets a body that was taken up when the drive was opened another time and did not come: its files have another handle
/// now.
fn forget(store: &Inner, partial: &Partial) {
    let entry = partial.state.lock().entry.upgrade();
    let mut table = store.entries.lock();
    // Who has it gets no bytes through a drive whose threads have ended.
    partial.fail(true);
    match entry {
        Some(entry) => store.entries.remove_partial(&mut table, entry.record.key.hash(), partial.id()),
        None => drop(table.partials.remove(&partial.id())),
    }
}

/// Loads which blobs a drive has, oldest first, and what they take.
pub(super) fn load_order_of(store: &Inner, drive: &Drive, closing: &AtomicBool) {
    match quarantine::size(drive) {
        Ok(size) => drive.take(size),
        Err(error) => drive.failed("look into the quarantine", &error),
    }
    drive.finds(store.index.allocated(drive.id));
    for place in store.index.blobs_in_order(drive.id) {
        let Some((digest, size)) = store.index.blob_in_place(drive.id, place) else { continue };
        if closing.load(Ordering::Relaxed) {
            return;
        }
        // What came or went since is known already.
        let table = store.entries.lock();
        let mut sieve = drive.sieve.lock();
        if !table.blobs.contains_key(&digest) && !sieve.contains(&Victim::Blob(digest)) {
            sieve.insert(Victim::Blob(digest), size);
            drive.take(size);
            drive.blob_added();
        }
    }
    store.relieve(drive);
    let swept = catch_unwind(AssertUnwindSafe(|| unnamed::sweep(store, drive, closing)));
    let swept = swept.unwrap_or_else(|panic| Err(std::io::Error::other(panic_text(panic.as_ref()).to_owned())));
    if let Err(error) = swept {
        drive.failed("look for files that nothing names", &error);
    }
}
