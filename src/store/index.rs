//! [`Index`]: the derived look-up. The only file that names sled.
//!
//! One tree, so that a batch over all kinds of rows is atomic:
//! ```text
//! f                                   format of the index
//! k <key hash 16> <drive 16> <place 8>   row (see `journal_entry`): a variant, or an older version of one
//! b <digest 32> <drive 16>            blob row: place in the journal, real bytes, sums
//! r <digest 32> <drive 16> <key hash 16> <place 8>   nothing; which rows point to a blob
//! w <drive 16>                        watermark: how far the drive's journal is applied
//! ```
//! It may lag behind the journals and be deleted at any time, but is never ahead of them: rows are written after
//! the journal was synced, in one batch with the new watermark.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::block_sums::BlockSums;
use super::drive::DriveId;
use super::journal_entry::{JournalEntry, Row, decode_row, encode_row};
use super::pool::panic_text;
use crate::content::{BodyRef, Digest, KeyHash, UnixMillis};

/// Written into a new index; another value means: rebuild.
const FORMAT: &[u8] = b"waystation index 2";
/// Memory for the database's pages.
const CACHE: u64 = 16 * 1024 * 1024;

/// The index could not be read or written. It is derived, so this costs a re-fetch at worst.
#[derive(Debug, thiserror::Error)]
#[error("index: {0}")]
pub(super) struct IndexError(String);

/// The open index.
pub(super) struct Index {
    database: sled::Db,
    /// Rows of other drives belong to drives that are not here now and count as missing.
    drives: RwLock<HashSet<DriveId>>,
    /// A batch could not be written: nothing may be, from then on, since a later watermark would hide the gap.
    broken: AtomicBool,
}

/// How far a drive's journal is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Watermark {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// What is known of a blob.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct BlobRow {
    /// Place in the journal: the order in which blobs came.
    pub(super) order: (u64, u64),
    /// Real bytes on the drive.
    pub(super) allocated: u64,
    pub(super) sums: BlockSums,
}

/// A journal entry on its way into the index.
pub(super) struct Applied {
    pub(super) entry: JournalEntry,
    /// Where the entry begins in the journal.
    pub(super) at: Watermark,
    /// Real bytes of a new blob, when they are known.
    pub(super) allocated: Option<u64>,
}

impl Index {
    /// Opens or creates the database. Slow, and it may panic on damaged files: call it on a thread of its own.
    pub(super) fn open(path: &Path, drives: HashSet<DriveId>) -> Result<Self, IndexError> {
        let database = sled::Config::new().path(path).cache_capacity(CACHE).open().map_err(failed)?;
        match database.get(b"f").map_err(failed)? {
            Some(format) if format == FORMAT => {}
            None if database.is_empty() => {
                database.insert(b"f", FORMAT).map_err(failed)?;
            }
            _ => return Err(IndexError("it has another format".to_owned())),
        }
        Ok(Self { database, drives: RwLock::new(drives), broken: AtomicBool::new(false) })
    }

    /// A drive has come: its rows count from now on.
    pub(super) fn admit(&self, drive: DriveId) {
        self.drives.write().insert(drive);
    }

    /// All rows of a key whose blobs are known, with their drives.
    pub(super) fn rows(&self, key: KeyHash) -> Result<Vec<(DriveId, Row)>, IndexError> {
        guarded(|| {
            let mut rows = Vec::new();
            for row in self.database.scan_prefix(key_prefix(key)) {
                let (name, value) = row.map_err(failed)?;
                let Some(drive) = drive_at(&name, 17).filter(|drive| self.drives.read().contains(drive)) else {
                    continue;
                };
                // A row that cannot be read counts as missing.
                let Some(row) = decode_row(&value) else { continue };
                let BodyRef::Blob(digest) = row.record.body else { continue };
                if self.blob(&digest)?.is_some() {
                    rows.push((drive, row));
                }
            }
            Ok(rows)
        })
    }

    /// A blob on one of the drives that are here.
    pub(super) fn blob(&self, digest: &Digest) -> Result<Option<(DriveId, BlobRow)>, IndexError> {
        guarded(|| {
            for row in self.database.scan_prefix(blob_prefix(digest)) {
                let (name, value) = row.map_err(failed)?;
                let Some(drive) = drive_at(&name, 33).filter(|drive| self.drives.read().contains(drive)) else {
                    continue;
                };
                if let Ok(row) = postcard::from_bytes(&value) {
                    return Ok(Some((drive, row)));
                }
            }
            Ok(None)
        })
    }

    /// Every row on the drives that are here whose body is this blob.
    pub(super) fn pointing_to(&self, digest: &Digest) -> Result<Vec<Row>, IndexError> {
        let mut rows = Vec::new();
        for name in self.database.scan_prefix([&b"r"[..], digest.as_bytes()].concat()).keys() {
            let name = name.map_err(failed)?;
            let here = drive_at(&name, 33).is_some_and(|drive| self.drives.read().contains(&drive));
            let (Some(drive), Some(key_and_place)) = (name.get(33..49), name.get(49..)) else { continue };
            let (Some(key), Some(place)) = (key_and_place.get(..16), key_and_place.get(16..)) else { continue };
            if let Some(row) = self.database.get([b"k", key, drive, place].concat()).map_err(failed)?.filter(|_| here) {
                rows.extend(decode_row(&row));
            }
        }
        Ok(rows)
    }

    /// Whether a drive has a blob.
    pub(super) fn has_blob(&self, digest: &Digest, drive: DriveId) -> Result<bool, IndexError> {
        guarded(|| self.database.contains_key(blob_key(digest, drive)).map_err(failed))
    }

    /// What is known of a blob on one drive.
    pub(super) fn blob_on(&self, digest: &Digest, drive: DriveId) -> Result<Option<BlobRow>, IndexError> {
        let row = self.database.get(blob_key(digest, drive)).map_err(failed)?;
        Ok(row.and_then(|row| postcard::from_bytes(&row).ok()))
    }

    /// Waits until everything applied is on its drive.
    pub(super) fn flush(&self) -> Result<(), IndexError> {
        self.database.flush().map(|_| ()).map_err(failed)
    }

    /// Calls `each` with place, digest and real bytes of every blob of a drive.
    pub(super) fn each_blob(
        &self,
        drive: DriveId,
        mut each: impl FnMut((u64, u64), Digest, u64),
    ) -> Result<(), IndexError> {
        guarded(|| {
            for row in self.database.scan_prefix(b"b") {
                let (name, value) = row.map_err(failed)?;
                if drive_at(&name, 33) != Some(drive) {
                    continue;
                }
                let digest = name.get(1..33).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
                if let (Some(digest), Ok(row)) = (digest, postcard::from_bytes::<BlobRow>(&value)) {
                    each(row.order, Digest::from_bytes(digest), row.allocated);
                }
            }
            Ok(())
        })
    }

    /// Up to `count` blobs of a drive in the order of their digests, from the one behind `after` on.
    pub(super) fn blobs_after(
        &self,
        drive: DriveId,
        after: Option<Digest>,
        count: usize,
    ) -> Result<Vec<Digest>, IndexError> {
        guarded(|| {
            // The key of a drive's blob is longer than its digest: all of those of `after` are below this.
            let from = after.map_or_else(|| b"b".to_vec(), |digest| [&blob_prefix(&digest)[..], &[0xff; 17]].concat());
            let mut digests = Vec::new();
            for row in self.database.range(from..b"c".to_vec()).keys() {
                let name = row.map_err(failed)?;
                let digest = name.get(1..33).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
                if let (Some(digest), true) = (digest, drive_at(&name, 33) == Some(drive)) {
                    digests.push(Digest::from_bytes(digest));
                    if digests.len() == count {
                        break;
                    }
                }
            }
            Ok(digests)
        })
    }

    /// How far the journal of `drive` is applied; `None` when nothing is.
    pub(super) fn watermark(&self, drive: DriveId) -> Result<Option<Watermark>, IndexError> {
        let Some(value) = self.database.get(watermark_key(drive)).map_err(failed)? else { return Ok(None) };
        let number = |at: usize| value.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
        Ok(number(0).zip(number(8)).map(|(segment, offset)| Watermark { segment, offset }))
    }

    /// Applies journal entries of `drive` in order, with the watermark behind them, all or nothing.
    pub(super) fn apply(&self, drive: DriveId, entries: &[Applied], end: Watermark) -> Result<(), IndexError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(IndexError("an earlier batch failed; it is rebuilt at the next start".to_owned()));
        }
        let mut staged = Staged { database: &self.database, changes: BTreeMap::new() };
        let outcome = entries.iter().try_for_each(|applied| staged.apply(drive, applied));
        let mut batch = sled::Batch::default();
        for (name, value) in staged.changes {
            match value {
                Some(value) => batch.insert(name, value),
                None => batch.remove(name),
            }
        }
        batch.insert(watermark_key(drive), [end.segment.to_be_bytes(), end.offset.to_be_bytes()].concat());
        let outcome = outcome.and_then(|()| self.database.apply_batch(batch).map_err(failed));
        if outcome.is_err() {
            self.broken.store(true, Ordering::Relaxed);
        }
        outcome
    }

    /// Forgets all rows of a drive, before its journal is replayed from the begin.
    pub(super) fn forget_drive(&self, drive: DriveId) -> Result<(), IndexError> {
        for row in self.database.iter() {
            let (name, _) = row.map_err(failed)?;
            let at = match name.first() {
                Some(b'k') => 17,
                Some(b'b' | b'r') => 33,
                Some(b'w') => 1,
                _ => continue,
            };
            if drive_at(&name, at) == Some(drive) {
                self.database.remove(name).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// It lacks something that the journals have; nothing is written any more.
    pub(super) fn give_up(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Whether it lacks something that the journals have.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// One row, as it is now.
    pub(super) fn row(&self, key: KeyHash, drive: DriveId, place: u64) -> Result<Option<Row>, IndexError> {
        guarded(|| {
            let value = self.database.get(row_key(key, drive, place)).map_err(failed)?;
            Ok(value.and_then(|value| decode_row(&value)))
        })
    }
}

impl IndexError {
    /// Something else stood in the way.
    pub(super) fn other(error: impl std::fmt::Display) -> Self {
        failed(error)
    }
}

/// Changes that are not in the database yet, seen by the entries after them in the same batch.
struct Staged<'a> {
    database: &'a sled::Db,
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Staged<'_> {
    fn apply(&mut self, drive: DriveId, applied: &Applied) -> Result<(), IndexError> {
        match &applied.entry {
            JournalEntry::Stored { row, sums, supersedes } => {
                if let (BodyRef::Blob(digest), Some(sums)) = (row.record.body, sums) {
                    self.put_blob(drive, applied, digest, sums)?;
                }
                if let Some(at) = supersedes {
                    let is_other = |there: &Row| !there.version().is_same(&row.version());
                    self.supersede(drive, row.record.key.hash(), row.record.variant(), *at, is_other)?;
                }
                self.put_row(drive, row)
            }
            JournalEntry::Blob { digest, sums } => self.put_blob(drive, applied, *digest, sums),
            JournalEntry::Updated { row } => self.put_row(drive, row),
            JournalEntry::Forgotten { key, place } => self.remove_row(drive, *key, *place),
            JournalEntry::Superseded { key, variant, birth, at } => {
                self.supersede(drive, *key, *variant, *at, |older| older.birth == *birth)
            }
            JournalEntry::BlobGone { digest } => {
                self.changes.insert(blob_key(digest, drive), None);
                for name in self.scan(&[&[b'r'][..], digest.as_bytes(), &drive.0.to_be_bytes()].concat())? {
                    let key = name.get(49..65).and_then(|b| b.try_into().ok()).map(KeyHash::from_bytes);
                    let place = name.get(65..73).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
                    if let Some((key, place)) = key.zip(place) {
                        self.changes.insert(row_key(key, drive, place), None);
                    }
                    self.changes.insert(name, None);
                }
                Ok(())
            }
        }
    }

    fn put_blob(
        &mut self,
        drive: DriveId,
        applied: &Applied,
        digest: Digest,
        sums: &BlockSums,
    ) -> Result<(), IndexError> {
        let order = (applied.at.segment, applied.at.offset);
        let allocated = applied.allocated.unwrap_or_else(|| sums.length().checked_next_multiple_of(4096).unwrap_or(0));
        let row = BlobRow { order, allocated, sums: sums.clone() };
        let row = postcard::to_stdvec(&row).map_err(failed)?;
        self.changes.insert(blob_key(&digest, drive), Some(row));
        Ok(())
    }

    fn put_row(&mut self, drive: DriveId, row: &Row) -> Result<(), IndexError> {
        let (key, place) = (row.record.key.hash(), row.place());
        self.remove_row(drive, key, place)?;
        if let BodyRef::Blob(digest) = row.record.body {
            self.changes.insert(row_key(key, drive, place), Some(encode_row(row)));
            self.changes.insert(pointer_key(&digest, drive, key, place), Some(Vec::new()));
        }
        Ok(())
    }

    /// Makes the response of a variant an older version, if `is_meant` says so of what is there.
    fn supersede(
        &mut self,
        drive: DriveId,
        key: KeyHash,
        variant: u64,
        at: UnixMillis,
        is_meant: impl Fn(&Row) -> bool,
    ) -> Result<(), IndexError> {
        let row = self.row(&row_key(key, drive, variant))?;
        let Some(row) = row.filter(|row| row.superseded.is_none() && is_meant(row)) else { return Ok(()) };
        self.remove_row(drive, key, variant)?;
        self.put_row(drive, &row.superseded_at(at))
    }

    /// The row of this name as it is after the changes so far.
    fn row(&self, name: &[u8]) -> Result<Option<Row>, IndexError> {
        let value = match self.changes.get(name) {
            Some(change) => change.clone(),
            None => self.database.get(name).map_err(failed)?.map(|value| value.to_vec()),
        };
        Ok(value.and_then(|value| decode_row(&value)))
    }

    fn remove_row(&mut self, drive: DriveId, key: KeyHash, place: u64) -> Result<(), IndexError> {
        let name = row_key(key, drive, place);
        if let Some(BodyRef::Blob(digest)) = self.row(&name)?.map(|row| row.record.body) {
            self.changes.insert(pointer_key(&digest, drive, key, place), None);
        }
        self.changes.insert(name, None);
        Ok(())
    }

    /// The names with a prefix, as they will be after the changes so far.
    fn scan(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, IndexError> {
        let mut names = Vec::new();
        for name in self.database.scan_prefix(prefix).keys() {
            let name = name.map_err(failed)?.to_vec();
            if !self.changes.contains_key(&name) {
                names.push(name);
            }
        }
        let staged = self.changes.range(prefix.to_vec()..).take_while(|(name, _)| name.starts_with(prefix));
        names.extend(staged.filter(|(_, value)| value.is_some()).map(|(name, _)| name.clone()));
        Ok(names)
    }
}

/// The database may panic on damage that it meets late; whoever asks must go on.
fn guarded<T>(ask: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
    catch_unwind(AssertUnwindSafe(ask)).unwrap_or_else(|panic| Err(failed(panic_text(panic.as_ref()))))
}

fn failed(error: impl std::fmt::Display) -> IndexError {
    IndexError(error.to_string())
}

fn key_prefix(key: KeyHash) -> Vec<u8> {
    [&b"k"[..], key.as_bytes()].concat()
}

fn row_key(key: KeyHash, drive: DriveId, place: u64) -> Vec<u8> {
    [&b"k"[..], key.as_bytes(), &drive.0.to_be_bytes(), &place.to_be_bytes()].concat()
}

fn blob_prefix(digest: &Digest) -> Vec<u8> {
    [&b"b"[..], digest.as_bytes()].concat()
}

fn blob_key(digest: &Digest, drive: DriveId) -> Vec<u8> {
    [&b"b"[..], digest.as_bytes(), &drive.0.to_be_bytes()].concat()
}

fn pointer_key(digest: &Digest, drive: DriveId, key: KeyHash, place: u64) -> Vec<u8> {
    let drive = drive.0.to_be_bytes();
    [&b"r"[..], digest.as_bytes(), &drive, key.as_bytes(), &place.to_be_bytes()].concat()
}

fn watermark_key(drive: DriveId) -> Vec<u8> {
    [&b"w"[..], &drive.0.to_be_bytes()].concat()
}

fn drive_at(name: &[u8], at: usize) -> Option<DriveId> {
    name.get(at..at + 16).and_then(|bytes| bytes.try_into().ok()).map(|bytes| DriveId(u128::from_be_bytes(bytes)))
}
