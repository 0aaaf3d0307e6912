//! Group commit: one thread per drive makes durable what is visible already, in batches.
//!
//! The order within a batch is the contract of the store (see the module docs of `store`). The commit thread is
//! the only one that gives names in `blobs/` and takes them away, so that a deletion cannot hit a later blob of
//! the same digest.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::compact::{self, Compaction};
use super::disk;
use super::drive::{DataFile, Drive};
use super::entries::same_row;
use super::index::{Applied, Watermark};
use super::inner::Inner;
use super::journal::Journal;
use super::journal_entry::{JournalEntry, Row};
use super::journal_format::encode_frame;
use super::layout;
use super::lost::{Files, Lost};
use super::pool::panic_text;
use super::quarantine;
use super::queue::{Change, Older, RowId};
use super::unnamed;
use crate::clock;
use crate::content::{Digest, PartialId, UnixMillis};

/// Pauses between the attempts at failing operations of one batch.
static PAUSES: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];

/// Bytes of the journal after which the index is written down: so many are read at a start at most.
const UNSAVED: u64 = if cfg!(test) { 64 * 1024 } else { 16 * 1024 * 1024 };

/// The commit thread of a drive.
pub(super) struct Committer {
    store: Arc<Inner>,
    drive: Arc<Drive>,
    journal: Journal,
    compaction: Compaction,
    /// The pauses that the batch at hand may still make: a drive that is gone fails each change of it, and the
    /// store must end all the same.
    pauses: RefCell<std::slice::Iter<'static, Duration>>,
    copied: Vec<Applied>,
    /// Bytes of the journal that the index's snapshot does not have.
    unsaved: u64,
}

impl Committer {
    /// Commits behind the journal segments that exist. Of entries that are damaged there and were `copied` from the
    /// mirror, those that are true still are written anew.
    pub(super) fn new(store: Arc<Inner>, drive: Arc<Drive>, segments: &[u64], copied: Vec<Applied>) -> Self {
        let journal = Journal::new(Arc::clone(&drive), segments);
        let pauses = RefCell::new(PAUSES.iter());
        Self { store, drive, journal, compaction: Compaction::new(segments), pauses, copied, unsaved: 0 }
    }

    /// Runs until the queue is closed.
    pub(super) fn run(mut self) {
        self.drive.pulse.adopt_thread();
        let copied = std::mem::take(&mut self.copied);
        self.tell_anew(copied);
        // After all of the journal was read, so that the next start need not.
        if self.store.index.saved(self.drive.id).is_none() {
            self.save();
        }
        while let Some(batch) = self.drive.queue.next() {
            let changes = batch.len();
            // Whatever happens to one batch, the next ones are committed and nobody waits for ever.
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                self.commit(batch);
                self.compact();
            }));
            if let Err(panic) = outcome {
                let panic = panic_text(panic.as_ref());
                tracing::error!(drive = %self.drive.label(), panic, "a batch was not committed whole");
            }
            self.drive.queue.committed(changes);
        }
        self.save();
    }

    /// Writes entries that were damaged in the journal into it anew, those that are true still.
    fn tell_anew(&mut self, copied: Vec<Applied>) {
        let entries = compact::true_of(&self.drive, &self.store.index, copied, true);
        if !entries.is_empty() {
            // What failed is told by who wrote.
            let _ = self.write(entries);
        }
    }

    /// Writes the index down, if it has become another one.
    fn save(&mut self) -> bool {
        self.unsaved = 0;
        let saved = self.store.index.save(self.drive.id);
        saved.inspect_err(|error| self.drive.failed("write the snapshot of the index", error)).is_ok()
    }

    /// Rewrites the true part of the oldest journal segment, when there are enough of them.
    fn compact(&mut self) {
        if self.unsaved >= UNSAVED {
            self.save();
        }
        let index = Arc::clone(&self.store.index);
        let Some(due) = self.compaction.due().filter(|_| !index.is_incomplete(self.drive.id)) else { return };
        // What was forgotten in the segment must not come back from an older snapshot. Before anything is written, since
        // there may be no room.
        let is_beyond = |mark: Watermark| mark.segment > due;
        if !index.saved(self.drive.id).is_some_and(is_beyond) && !self.save() {
            self.compaction.postpone();
            return;
        }
        let Some(mut kept) = self.compaction.oldest(&self.drive, &index) else { return };
        let entries = std::mem::take(&mut kept.entries);
        let count = entries.len();
        if !entries.is_empty() && self.write(entries).is_err() {
            return;
        }
        match self.compaction.remove(&self.drive, &kept) {
            Ok(()) => tracing::info!(drive = %self.drive.label(), kept = count, "a journal segment was compacted"),
            Err(error) => self.drive.failed("remove a journal segment", &error),
        }
    }

    fn commit(&mut self, mut batch: Vec<Change>) {
        // Nothing gets better while a drive is out of service.
        *self.pauses.borrow_mut() = if self.drive.in_service() { PAUSES.iter() } else { [].iter() };
        // Before all else, since what they tell is older.
        for change in &mut batch {
            if let Change::Told { copied } = change {
                let copied = std::mem::take(copied);
                self.tell_anew(copied);
            }
        }
        // 1. The bytes. A sync that failed is not tried again, since the kernel may have dropped the pages and
        //    would report success: the content is lost.
        let mut lost = Lost::default();
        for change in &batch {
            let Change::Complete { blob, map, .. } = change else { continue };
            if let Err(error) = disk::sync_data(blob.file().file()) {
                self.drive.failed("sync a body", &error);
                lost.without_bytes(blob.digest());
            }
            if let Some(Err(error)) = map.as_ref().map(|map| disk::sync_data(map)) {
                // Needed only when the rest is cut off.
                self.drive.failed("sync a block map", &error);
            }
        }
        // 2. The names, in order.
        let mut touched: BTreeSet<String> = BTreeSet::new();
        for change in &batch {
            self.rename(change, &mut lost, &mut touched);
        }
        // 3. The directories, each once.
        for directory in &touched {
            if let Err(error) = self.retry("sync a directory", || self.drive.dir.sync_directory(directory)) {
                let completed = batch.iter().filter_map(completed_digest);
                let in_it = completed.filter(|digest| layout::blob_directory(digest) == *directory);
                lost.with_bytes(in_it, &error, self.drive.in_service());
            }
        }
        // 4. The journal; 5. the index behind it.
        let mut skipped = HashSet::new();
        let entries = self.entries(&batch, &lost, &mut skipped);
        let written = if entries.is_empty() { Ok(()) } else { self.write(entries) };
        if let Err(error) = &written {
            lost.with_bytes(batch.iter().filter_map(completed_digest), error, self.drive.in_service());
        }
        // 6. What of partial bodies is not needed any more: what took their place is durable.
        if batch.iter().filter(|change| self.remove_partial(change)).count() > 0 {
            // What is still there at the next start is taken up again.
            let _ = self.retry("sync a directory", || self.drive.dir.sync_directory(layout::PARTIAL));
        }
        // 7. What is durable needs no place in memory and no map any more; what failed counts as missing.
        for change in batch {
            self.settle(change, &lost, &skipped, written.is_ok());
        }
    }

    fn rename(&self, change: &Change, lost: &mut Lost, touched: &mut BTreeSet<String>) {
        let dir = &self.drive.dir;
        match change {
            Change::Complete { entry, blob, .. } if !lost.has(&blob.digest()) => {
                let digest = blob.digest();
                let directory = layout::blob_directory(&digest);
                let renamed = self.retry("name a blob", || {
                    if dir.make_directory(&directory)? {
                        dir.sync_directory(layout::BLOBS)?;
                    }
                    dir.rename(&layout::partial_data(entry.birth), &layout::blob(&digest))
                });
                if let Err(error) = renamed {
                    lost.with_bytes([digest].into_iter(), &error, self.drive.in_service());
                    return;
                }
                blob.renamed();
                touched.insert(directory);
                touched.insert(layout::PARTIAL.to_owned());
            }
            Change::BlobGone { digest, file, size, quarantine: reason, .. } => {
                let name = layout::blob(digest);
                // Damaged content must not be found under its name again, so it goes one way or the other.
                let kept = reason
                    .as_ref()
                    .is_some_and(|reason| quarantine::put(&self.drive, &name, &digest.to_hex(), reason).is_ok());
                if !kept {
                    self.unlink(&name, file.as_ref(), *size);
                }
                self.drive.left(*size);
                touched.insert(layout::blob_directory(digest));
            }
            Change::Unnamed { digest } if unnamed::is_unnamed(&self.store, &self.drive, digest) => {
                if let Err(error) = dir.unlink(&layout::blob(digest)) {
                    self.drive.failed("remove a file", &error);
                }
                touched.insert(layout::blob_directory(digest));
            }
            _ => {}
        }
    }

    /// Removes the files of a partial body, if the change says so.
    fn remove_partial(&self, change: &Change) -> bool {
        let Change::PartialGone { id, file, size } = change else { return false };
        self.unlink(&layout::partial_data(*id), file.as_ref(), 0);
        self.unlink_map(*id);
        self.drive.left(*size);
        true
    }

    /// Removes a file with content; its blocks are free now, or when the last reader closes it.
    fn unlink(&self, name: &str, open: Option<&Arc<DataFile>>, believed: u64) {
        let size = self.drive.dir.stat(name).ok().flatten().map(|stat| disk::stat_allocated(&stat));
        match self.drive.dir.unlink(name) {
            Ok(()) => match (open, size) {
                (Some(file), Some(_)) => file.unlinked(),
                (None, Some(size)) => self.drive.release(size),
                // Somebody else removed it.
                (_, None) => self.drive.release(believed),
            },
            Err(error) => self.drive.failed("remove a file", &error),
        }
    }

    fn unlink_map(&self, id: PartialId) {
        if let Err(error) = self.drive.dir.unlink(&layout::partial_map(id)) {
            self.drive.failed("remove a block map", &error);
        }
    }

    /// What the journal is told of a batch. Changes whose row became another one meanwhile are skipped, and their
    /// serials noted.
    fn entries(&self, batch: &[Change], lost: &Lost, skipped: &mut HashSet<u64>) -> Vec<(JournalEntry, Option<u64>)> {
        let mut entries: Vec<(JournalEntry, Option<u64>)> = Vec::new();
        for change in batch {
            let entry = match change {
                Change::Complete { entry, blob, older, .. } if !lost.has(&blob.digest()) => {
                    let (row, sums) = (entry.as_row(), Some(blob.sums().clone()));
                    let supersedes = supersedes(&row, older.as_ref());
                    (JournalEntry::Stored { row, sums, supersedes }, Some(blob.file().counted()))
                }
                Change::Stored { entry, older, .. } => {
                    let row = entry.as_row();
                    let supersedes = supersedes(&row, older.as_ref());
                    (JournalEntry::Stored { row, sums: None, supersedes }, None)
                }
                Change::Updated { row, entry } => {
                    // The row may have got another body since the caller looked, or none.
                    let stays = match self.row_in(&entries, row) {
                        Some(now) => now.record.body == entry.record.body,
                        None => false,
                    };
                    if !stays {
                        skipped.insert(row.serial);
                        continue;
                    }
                    (JournalEntry::Updated { row: entry.as_row() }, None)
                }
                Change::Forget { row, entry } => {
                    if self.row_in(&entries, row).is_some_and(|now| !same_row(&now.record, &entry.record)) {
                        skipped.insert(row.serial);
                        continue;
                    }
                    (JournalEntry::Forgotten { key: row.key, place: row.place }, None)
                }
                Change::Superseded { older: Older { entry, at, rows: [row, _] } } => {
                    let (variant, birth) = (entry.record.variant(), entry.birth);
                    (JournalEntry::Superseded { key: row.key, variant, birth, at: *at }, None)
                }
                Change::BlobGone { digest, .. } => (JournalEntry::BlobGone { digest: *digest }, None),
                _ => continue,
            };
            entries.push(entry);
        }
        entries
    }

    /// The row as it is after `entries`.
    fn row_in(&self, entries: &[(JournalEntry, Option<u64>)], id: &RowId) -> Option<Row> {
        let staged = entries.iter().rev().find_map(|(entry, _)| match entry {
            JournalEntry::Stored { row, .. } | JournalEntry::Updated { row } => {
                (row.record.key.hash() == id.key && row.place() == id.place).then(|| Some(row.clone()))
            }
            JournalEntry::Forgotten { key, place } => (*key == id.key && *place == id.place).then_some(None),
            // An older version that came to be here is not in the index yet; nothing else can have its place.
            JournalEntry::Superseded { key, variant, .. } => (*key == id.key && *variant == id.place).then_some(None),
            JournalEntry::BlobGone { .. } | JournalEntry::Blob { .. } => None,
        });
        staged.unwrap_or_else(|| self.store.index.row(id.key, id.drive, id.place))
    }

    /// Writes entries to the journal, then to the index.
    fn write(&mut self, entries: Vec<(JournalEntry, Option<u64>)>) -> io::Result<()> {
        let frames: Vec<Vec<u8>> = entries.iter().map(|(entry, _)| encode_frame(entry)).collect();
        let bytes = frames.concat();
        let begin = loop {
            // Asked anew each time: after an error the next attempt goes to a new segment.
            let attempt = self.journal.begin_of_next().and_then(|begin| {
                // Also when this fails: the segment is there then, and goes in its turn.
                self.compaction.begun(begin.segment);
                self.journal.append(&bytes).map(|()| begin)
            });
            match attempt {
                Ok(begin) => break begin,
                Err(error) => {
                    self.drive.failed("append to the journal", &error);
                    let Some(pause) = self.pause() else { return Err(error) };
                    std::thread::sleep(*pause);
                }
            }
        };
        let mut at = begin;
        let mut applied = Vec::with_capacity(entries.len());
        for ((entry, allocated), frame) in entries.into_iter().zip(&frames) {
            applied.push(Applied { entry, at, allocated });
            at = Watermark { offset: at.offset + frame.len() as u64, ..at };
        }
        self.unsaved = self.unsaved.saturating_add(bytes.len() as u64);
        self.store.index.apply(self.drive.id, &applied, at);
        Ok(())
    }

    fn settle(&self, change: Change, lost: &Lost, skipped: &HashSet<u64>, written: bool) {
        match change {
            Change::Complete { row, entry, older, blob, serial, .. } => {
                let partial = entry.birth;
                if let Some(files) = lost.files(&blob.digest()) {
                    self.drive.tell_lost("content could not be stored and counts as missing");
                    self.store.content_lost(&blob, row, serial);
                    older.iter().flat_map(|older| &older.rows).for_each(|row| self.store.entries.withdraw_row(row));
                    if files == Files::Stay {
                        return;
                    }
                    self.unlink(&layout::partial_data(partial), Some(blob.file()), 0);
                    self.unlink(&layout::blob(&blob.digest()), Some(blob.file()), 0);
                } else {
                    self.retire(&row, older.as_ref());
                    self.store.entries.lock().retire_blob(&blob.digest(), serial);
                }
                self.unlink_map(partial);
            }
            Change::Superseded { older } => {
                if written {
                    older.rows.iter().for_each(|row| self.store.entries.retire_row(row));
                }
            }
            Change::Stored { row, older, .. } => {
                if !written {
                    self.drive.tell_lost("a stored response may not survive a restart");
                } else {
                    self.retire(&row, older.as_ref());
                }
            }
            Change::Updated { row, .. } | Change::Forget { row, .. } => {
                if !written {
                    self.drive.tell_lost("a change of a stored response may not survive a restart");
                } else if skipped.contains(&row.serial) {
                    self.store.entries.withdraw_row(&row);
                } else {
                    self.store.entries.retire_row(&row);
                }
            }
            Change::BlobGone { digest, serial, .. } => {
                if written {
                    self.store.entries.lock().retire_blob(&digest, serial);
                }
            }
            Change::PartialGone { .. } | Change::Unnamed { .. } | Change::Told { .. } => {}
            Change::Ack(sender) => {
                // Whoever asked may have gone.
                let _ = sender.send(());
            }
        }
    }

    fn retire(&self, row: &RowId, older: Option<&Older>) {
        let rows = older.iter().flat_map(|older| &older.rows);
        rows.chain([row]).for_each(|row| self.store.entries.retire_row(row));
    }

    /// The next pause, as long as the drive is in service.
    fn pause(&self) -> Option<&'static Duration> {
        self.pauses.borrow_mut().next().filter(|_| self.drive.in_service())
    }

    fn retry(&self, action: &'static str, mut operation: impl FnMut() -> io::Result<()>) -> io::Result<()> {
        loop {
            let error = match operation() {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            self.drive.failed(action, &error);
            let Some(pause) = self.pause() else { return Err(error) };
            std::thread::sleep(*pause);
        }
    }
}

/// Since when what has the place of `row` is an older version, if it is another one. The index may know one that is not
/// in memory any more.
fn supersedes(row: &Row, older: Option<&Older>) -> Option<UnixMillis> {
    let at = || older.map_or_else(|| UnixMillis::from(clock::now_for_deletion()), |older| older.at);
    row.superseded.is_none().then(at)
}

fn completed_digest(change: &Change) -> Option<Digest> {
    match change {
        Change::Complete { blob, .. } => Some(blob.digest()),
        _ => None,
    }
}
