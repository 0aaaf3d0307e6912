//! What each journal entry changes in the index.

use super::super::block_sums::BlockSums;
use super::super::drive::DriveId;
use super::super::journal_entry::{JournalEntry, Row};
use super::{Applied, At, Index, Known, Watermark};
use crate::content::{BodyRef, Digest, KeyHash, UnixMillis};

impl Index {
    /// Applies journal entries of `drive` in order. They are in the journal, durable, up to `end`.
    pub(in super::super) fn apply(&self, drive: DriveId, entries: &[Applied], end: Watermark) {
        for applied in entries {
            self.apply_entry(drive, applied);
        }
        self.set_mark(drive, end);
    }

    /// Applies one entry; that it is applied is to be said with the mark behind it.
    pub(in super::super) fn apply_entry(&self, drive: DriveId, applied: &Applied) {
        let Some(known) = self.of(drive) else { return };
        let at = At::of(applied.at);
        match &applied.entry {
            JournalEntry::Stored { row, sums, supersedes } => {
                if let (BodyRef::Blob(digest), Some(sums)) = (row.record.body, sums) {
                    put_blob(&known, at, digest, sums, applied.allocated);
                }
                if let Some(since) = supersedes {
                    let is_other = |there: &Row| !there.version().is_same(&row.version());
                    self.supersede(&known, row.record.key.hash(), row.record.variant(), *since, is_other);
                }
                put_row(&known, at, row);
            }
            JournalEntry::Updated { row } => put_row(&known, at, row),
            JournalEntry::Blob { digest, sums } => put_blob(&known, at, *digest, sums, applied.allocated),
            JournalEntry::Forgotten { key, place } => known.state.write().objects.remove_row(*key, *place),
            JournalEntry::BlobGone { digest } => known.state.write().objects.blob_gone(digest),
            JournalEntry::Superseded { key, variant, birth, at } => {
                self.supersede(&known, *key, *variant, *at, |older| older.birth == *birth);
            }
        }
    }

    /// The journal of `drive` is applied up to here.
    pub(in super::super) fn set_mark(&self, drive: DriveId, end: Watermark) {
        if let Some(known) = self.of(drive) {
            known.state.write().mark = Some(end);
        }
        self.mirror.follow();
    }

    /// Makes the response of a variant an older version, if `is_meant` says so of what is there. It is told where it
    /// was; that it is an older version by now stands in the index. No lock is held while the journal is read: nobody
    /// else changes what is known of the drive.
    fn supersede(&self, known: &Known, key: KeyHash, variant: u64, since: UnixMillis, is_meant: impl Fn(&Row) -> bool) {
        let found = known.state.read().objects.row(key, variant);
        let Some(found) = found.filter(|found| found.superseded.is_none()) else { return };
        let Some(row) = self.read_row(known, found).ok().flatten().filter(|row| is_meant(row)) else { return };
        let objects = &mut known.state.write().objects;
        objects.remove_row(key, variant);
        objects.put_row(key, row.superseded_at(since).place(), found.at, found.digest, Some(since));
    }
}

fn put_blob(known: &Known, at: At, digest: Digest, sums: &BlockSums, allocated: Option<u64>) {
    let allocated = allocated.unwrap_or_else(|| sums.length().checked_next_multiple_of(4096).unwrap_or(0));
    known.state.write().objects.put_blob(digest, at, allocated);
}

fn put_row(known: &Known, at: At, row: &Row) {
    let (key, place) = (row.record.key.hash(), row.place());
    let objects = &mut known.state.write().objects;
    match row.record.body {
        BodyRef::Blob(digest) => objects.put_row(key, place, at, digest, row.superseded),
        BodyRef::Partial(_) => objects.remove_row(key, place),
    }
}
