//! What happens between `open` and ready, on one background thread: the index is brought up to each journal (see
//! `replay`), and the partial bodies are read. After ready the order of eviction is loaded.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::adopt;
use super::commit::Committer;
use super::disk::Dir;
use super::drive::{Drive, Victim};
use super::drives::Slot;
use super::entries::{Entry, Target};
use super::given::Keeper;
use super::index::Applied;
use super::inner::Inner;
use super::journal;
use super::journal_entry::Row;
use super::layout::{self, PartialFile};
use super::map_file;
use super::partial::Partial;
use super::pool::panic_text;
use super::{disk, quarantine, replay, scrub, unnamed};
use crate::content::{BodyRef, PartialId};

/// Does all of it, starts the threads that write, and returns them. `closing` ends it early.
pub(super) fn recover(store: &Arc<Inner>, closing: &Arc<AtomicBool>) -> Vec<thread::JoinHandle<()>> {
    let mut committers = Vec::from_iter(keep_given(store));
    store.mirror.start(&store.settings.state, &store.index);
    for drive in &store.drives {
        let Ok(segments) = segments_of(drive) else {
            // Nothing is added to a journal of which nothing is known.
            drive.queue.close();
            continue;
        };
        store.pinning.read_in(drive);
        let copied = replay::bring_up(&store.index, drive, &segments, closing);
        // Look-ups wait for all of this: whatever a drive holds, it must come to its end.
        let scan = || scan_partials(store, drive, closing);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(scan)) {
            let panic = panic_text(panic.as_ref());
            tracing::error!(drive = %drive.label(), panic, "the partial bodies could not be taken up");
        }
        if closing.load(Ordering::Relaxed) {
            return committers;
        }
        match start_committer(store, drive, &segments, copied) {
            Ok(thread) => drive.commits_on(thread),
            Err(error) => {
                drive.failed("start the commit thread", &error);
                // Nobody may wait for what no thread will do.
                drive.queue.close();
            }
        }
    }
    store.ready.send_replace(true);
    tracing::info!("store is ready");
    load_eviction_order(store, closing);
    let (scrubbed, flag) = (Arc::clone(store), Arc::clone(closing));
    match thread::Builder::new().name("scrub".to_owned()).spawn(move || scrub::run(&scrubbed, &flag)) {
        Ok(thread) => committers.push(thread),
        Err(error) => tracing::error!(%error, "what is stored is not read in the background"),
    }
    committers
}

fn start_committer(
    store: &Arc<Inner>,
    drive: &Arc<Drive>,
    segments: &[u64],
    copied: Vec<Applied>,
) -> std::io::Result<thread::JoinHandle<()>> {
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
    let segments = segments_of(drive)?;
    store.index.admit(drive);
    store.pinning.read_in(drive);
    let copied = replay::bring_up(&store.index, drive, &segments, closing);
    scan_partials(store, drive, closing);
    if closing.load(Ordering::Relaxed) {
        return Ok(false);
    }
    // In this order: who sees the drive has no older answer.
    let mut table = store.entries.lock();
    store.entries.forget_answers(&mut table);
    store.drives.arrive(slot, drive, || start_committer(store, drive, &segments, copied))
}

/// Reads which version clients were given and starts the thread that goes on writing it down.
fn keep_given(store: &Arc<Inner>) -> Option<thread::JoinHandle<()>> {
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
}

fn segments_of(drive: &Drive) -> std::io::Result<Vec<u64>> {
    journal::segments(drive).inspect_err(|error| {
        drive.failed("list the journal", error);
        drive.doubt();
    })
}

/// Takes up the partial bodies; leftovers of interrupted operations are removed.
fn scan_partials(store: &Arc<Inner>, drive: &Arc<Drive>, closing: &AtomicBool) {
    let names = drive.dir.list(layout::PARTIAL).unwrap_or_else(|error| {
        drive.failed("list the partial bodies", &error);
        Vec::new()
    });
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
            return;
        }
        let (has_data, has_map) = files;
        let taken = has_map && take_up(store, drive, id, has_data);
        if !taken {
            remove_leftover(drive, &layout::partial_data(id));
            remove_leftover(drive, &layout::partial_map(id));
        }
    }
}

fn remove_leftover(drive: &Drive, name: &str) {
    if let Err(error) = drive.dir.unlink(name) {
        drive.failed("remove a leftover", &error);
    }
}

/// `false` when the body is worth nothing.
fn take_up(store: &Arc<Inner>, drive: &Arc<Drive>, id: PartialId, has_data: bool) -> bool {
    if let Some(known) = store.entries.lock().partials.get(&id) {
        // A drain that was stopped has left it on two drives; or an earlier attempt to read this one in got so far.
        return known.drive.id == drive.id;
    }
    let decoded = match drive.dir.read(&layout::partial_map(id)) {
        Ok(bytes) => map_file::decode(&bytes),
        Err(error) => {
            drive.failed("read a block map", &error);
            return true;
        }
    };
    let decoded = match decoded {
        Ok(decoded) if decoded.record.body == BodyRef::Partial(id) => decoded,
        Ok(_) => return false,
        // A newer release may come back and read it.
        Err(map_file::MapError::NewerFormat { .. }) => return true,
        Err(error) => {
            tracing::warn!(drive = %drive.label(), partial = %id, %error, "a partial body is dropped");
            return false;
        }
    };
    if !has_data && !adopt::put_back(drive, &store.index, id, &decoded) {
        return false;
    }
    let stat = drive.dir.stat(&layout::partial_data(id)).ok().flatten();
    let size = stat.map_or(0, |stat| disk::stat_allocated(&stat));
    let partial = Partial::found(id, Arc::clone(drive), store.weak(), &decoded, size);
    let row = Row { record: decoded.record, birth: id, superseded: decoded.superseded };
    let entry = Entry::new(row, drive.id, 0, Target::Partial(Arc::clone(&partial)));
    partial.state.lock().entry = Arc::downgrade(&entry);
    drive.take(size);
    drive.sieve.lock().insert(Victim::partial(id), size);
    let mut table = store.entries.lock();
    store.entries.add_partial(&mut table, &entry);
    true
}

/// Loads which blobs there are, oldest first, and what they take.
fn load_eviction_order(store: &Inner, closing: &AtomicBool) {
    for drive in &store.drives {
        load_order_of(store, drive, closing);
    }
}

/// The same of one drive.
pub(super) fn load_order_of(store: &Inner, drive: &Drive, closing: &AtomicBool) {
    {
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
}
