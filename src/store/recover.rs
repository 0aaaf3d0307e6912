//! What happens between `open` and ready, on one background thread: the index is opened or made anew, the tail of
//! each journal is replayed into it, and the partial bodies are read. After ready the order of eviction is loaded.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::adopt;
use super::commit::Committer;
use super::disk::Dir;
use super::drive::{Drive, DriveId, Victim};
use super::drives::Slot;
use super::entries::{Entry, Target};
use super::given::Keeper;
use super::index::{Applied, Index, IndexError, Watermark};
use super::inner::Inner;
use super::journal;
use super::journal_entry::Row;
use super::journal_format::{Frame, Frames};
use super::journal_segment::{SEGMENT_HEADER_LEN, SegmentError, decode_segment_header};
use super::layout::{self, PartialFile};
use super::map_file;
use super::partial::Partial;
use super::pool::panic_text;
use super::{disk, quarantine, scrub, unnamed};
use crate::content::{BodyRef, PartialId};

/// Longest time for opening the index before it is made anew.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// Journal entries that go into the index at a time.
const BATCH: usize = 1000;

/// Does all of it, starts the threads that write, and returns them. `closing` ends it early.
pub(super) fn recover(store: &Arc<Inner>, closing: &Arc<AtomicBool>) -> Vec<thread::JoinHandle<()>> {
    let mut committers = Vec::from_iter(keep_given(store));
    let index = prepare_index(store, closing).map(Arc::new);
    for drive in &store.drives {
        let segments = segments_of(drive);
        // Look-ups wait for all of this: whatever a drive holds, it must come to its end.
        let scan = || scan_partials(store, drive, index.as_deref(), closing);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(scan)) {
            let panic = panic_text(panic.as_ref());
            tracing::error!(drive = %drive.label(), panic, "the partial bodies could not be taken up");
        }
        if closing.load(Ordering::Relaxed) {
            return committers;
        }
        match start_committer(store, drive, &segments) {
            Ok(thread) => drive.commits_on(thread),
            Err(error) => {
                drive.failed("start the commit thread", &error);
                // Nobody may wait for what no thread will do.
                drive.queue.close();
            }
        }
    }
    store.set_index(index);
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
) -> std::io::Result<thread::JoinHandle<()>> {
    let committer = Committer::new(Arc::clone(store), Arc::clone(drive), segments);
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
    let index = store.index();
    let segments = segments_of(drive);
    if let Some(index) = &index {
        index.admit(drive.id);
        replay(index, drive, &segments, closing).map_err(std::io::Error::other)?;
    }
    scan_partials(store, drive, index.as_deref(), closing);
    if closing.load(Ordering::Relaxed) {
        return Ok(false);
    }
    // In this order: who sees the drive has no older answer.
    let mut table = store.entries.lock();
    store.entries.forget_answers(&mut table);
    store.drives.arrive(slot, drive, || start_committer(store, drive, &segments))
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

fn segments_of(drive: &Drive) -> Vec<u64> {
    journal::segments(drive).unwrap_or_else(|error| {
        drive.failed("list the journal", &error);
        drive.doubt();
        Vec::new()
    })
}

/// Opens the index and brings it up to the journals. One that fails at that is made anew, once.
fn prepare_index(store: &Inner, closing: &AtomicBool) -> Option<Index> {
    for last in [false, true] {
        let index = open_index(store)?;
        let replay_all =
            || store.drives.iter().try_for_each(|drive| replay(&index, drive, &segments_of(drive), closing));
        // The database may panic on damage that it did not see when it opened.
        let error = match catch_unwind(AssertUnwindSafe(replay_all)) {
            Ok(Ok(())) => return Some(index),
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic_text(panic.as_ref()).to_owned(),
        };
        tracing::error!(%error, "the journals could not be replayed into the index");
        if last {
            index.give_up();
            return Some(index);
        }
        drop(index);
        if let Err(error) = set_aside(store) {
            tracing::error!(%error, "the index could not be removed");
        }
    }
    None
}

/// Removes the index; moved first, since a thread that hangs in the old one must not meet the new one.
fn set_aside(store: &Inner) -> std::io::Result<()> {
    let rejected = store.settings.state.join(layout::INDEX_REJECTED);
    disk::remove_all(&rejected)?;
    Dir::open(&store.settings.state)?.rename(layout::INDEX, layout::INDEX_REJECTED)?;
    disk::remove_all(&rejected)
}

/// Opens the index; a missing, damaged or foreign one is made anew from the journals.
fn open_index(store: &Inner) -> Option<Index> {
    let drives: HashSet<DriveId> = store.drives.iter().map(|drive| drive.id).collect();
    let path = store.index_path();
    let existed = path.exists();
    match open_limited(&path, drives.clone()) {
        Ok(index) => {
            if !existed {
                tracing::info!(path = %path.display(), "the index is built from the journals");
            }
            return Some(index);
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the index cannot be used and is rebuilt from the journals");
        }
    }
    let opened = set_aside(store).map_err(|error| error.to_string()).and_then(|()| open_limited(&path, drives));
    opened
        .inspect_err(|error| tracing::error!(path = %path.display(), %error, "there is no index; stored content counts as missing"))
        .ok()
}

/// Opens the database on a thread of its own, since it may hang or panic on damaged files.
fn open_limited(path: &Path, drives: HashSet<DriveId>) -> Result<Index, String> {
    let (sender, receiver) = mpsc::channel();
    let path = path.to_owned();
    let opening = thread::Builder::new().name("index-open".to_owned()).spawn(move || {
        // A panic drops the sender, which the other side sees.
        let _ = sender.send(Index::open(&path, drives));
    });
    opening.map_err(|error| error.to_string())?;
    match receiver.recv_timeout(OPEN_LIMIT) {
        Ok(opened) => opened.map_err(|error| error.to_string()),
        Err(mpsc::RecvTimeoutError::Timeout) => Err(format!("it did not open within {} s", OPEN_LIMIT.as_secs())),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("the database panicked".to_owned()),
    }
}

/// Applies what the journal of `drive` has behind the watermark.
fn replay(index: &Index, drive: &Drive, segments: &[u64], closing: &AtomicBool) -> Result<(), IndexError> {
    let mut mark = index.watermark(drive.id)?;
    if let Some(found) = mark.filter(|found| !reaches(drive, segments, *found)) {
        tracing::warn!(drive = %drive.label(), segment = found.segment, "the journal is not the one the index knows; rebuilding");
        index.forget_drive(drive.id)?;
        mark = None;
    }
    let mut count = 0;
    for segment in segments.iter().filter(|number| mark.is_none_or(|mark| **number >= mark.segment)) {
        if closing.load(Ordering::Relaxed) {
            return Ok(());
        }
        let bytes = match drive.dir.read(&layout::segment(*segment)) {
            Ok(bytes) => bytes,
            Err(error) => {
                drive.failed("read the journal", &error);
                drive.doubt();
                continue;
            }
        };
        match decode_segment_header(&bytes) {
            Ok(header) if header.drive == drive.id.0 => {}
            Ok(_) => {
                tracing::warn!(drive = %drive.label(), segment, "a journal segment of another drive is left alone");
                continue;
            }
            Err(error @ SegmentError::NewerFormat { .. }) => {
                tracing::error!(drive = %drive.label(), segment, %error, "left alone");
                drive.doubt();
                continue;
            }
            // The frames carry their own checksums; a header that was torn has none behind it.
            Err(error) => tracing::warn!(drive = %drive.label(), segment, %error, "journal segment"),
        }
        let known = mark.filter(|mark| mark.segment == *segment).map(|mark| mark.offset as usize);
        count += replay_segment(index, drive, *segment, &bytes, known.unwrap_or(SEGMENT_HEADER_LEN))?;
    }
    if count > 0 {
        tracing::info!(drive = %drive.label(), entries = count, "journal replayed");
    }
    Ok(())
}

fn replay_segment(index: &Index, drive: &Drive, segment: u64, bytes: &[u8], from: usize) -> Result<usize, IndexError> {
    let at = |offset: usize| Watermark { segment, offset: offset as u64 };
    let mut frames = Frames::new(bytes, from);
    let mut waiting: Vec<Applied> = Vec::new();
    let mut count = 0;
    for frame in frames.by_ref() {
        match frame {
            Frame::Entry { offset, end, entry } => {
                waiting.push(Applied { entry, at: at(offset), allocated: None });
                count += 1;
                if waiting.len() >= BATCH {
                    index.apply(drive.id, &waiting, at(end))?;
                    waiting.clear();
                }
            }
            Frame::Damage { offset, end } => {
                drive.doubt();
                tracing::error!(drive = %drive.label(), segment, offset, end, "the journal is damaged here; what it said is lost");
            }
        }
    }
    if frames.has_torn_tail() {
        tracing::info!(drive = %drive.label(), segment, offset = frames.intact_end(), "the journal's last entry was not finished");
    }
    if !waiting.is_empty() {
        index.apply(drive.id, &waiting, at(frames.intact_end()))?;
    }
    Ok(count)
}

/// Whether the journal has what the watermark says was applied.
fn reaches(drive: &Drive, segments: &[u64], mark: Watermark) -> bool {
    let stat = drive.dir.stat(&layout::segment(mark.segment)).ok().flatten();
    let length = stat.and_then(|stat| u64::try_from(stat.st_size).ok()).unwrap_or(0);
    segments.contains(&mark.segment) && length >= mark.offset
}

/// Takes up the partial bodies; leftovers of interrupted operations are removed.
fn scan_partials(store: &Arc<Inner>, drive: &Arc<Drive>, index: Option<&Index>, closing: &AtomicBool) {
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
        let taken = has_map && take_up(store, drive, index, id, has_data);
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
fn take_up(store: &Arc<Inner>, drive: &Arc<Drive>, index: Option<&Index>, id: PartialId, has_data: bool) -> bool {
    if store.entries.lock().partials.contains_key(&id) {
        // A drain that was stopped has left it on two drives.
        return false;
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
    if !has_data && !adopt::put_back(drive, index, id, &decoded) {
        return false;
    }
    let stat = drive.dir.stat(&layout::partial_data(id)).ok().flatten();
    let size = stat.map_or(0, |stat| disk::stat_allocated(&stat));
    let partial = Partial::found(id, Arc::clone(drive), store.weak(), &decoded, size);
    let row = Row { record: decoded.record, birth: id, superseded: decoded.superseded };
    let entry = Entry::new(row, drive.id, 0, Target::Partial(Arc::clone(&partial)));
    partial.state.lock().entry = Arc::downgrade(&entry);
    drive.take(size);
    drive.sieve.lock().insert(Victim::Partial(id), size);
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
        let Some(index) = store.index() else { return };
        let mut blobs = Vec::new();
        if let Err(error) = index.each_blob(drive.id, |order, digest, size| blobs.push((order, digest, size))) {
            tracing::error!(drive = %drive.label(), %error, "the blobs could not be listed");
        }
        blobs.sort_unstable();
        drive.finds(blobs.iter().map(|(_, _, size)| size).sum());
        for (_, digest, size) in blobs {
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
        let swept = catch_unwind(AssertUnwindSafe(|| unnamed::sweep(store, drive, &index, closing)));
        let swept = swept.unwrap_or_else(|panic| Err(std::io::Error::other(panic_text(panic.as_ref()).to_owned())));
        if let Err(error) = swept {
            drive.failed("look for files that nothing names", &error);
        }
    }
}
