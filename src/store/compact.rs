//! Keeps a drive's journal from growing without end: what is still true of its oldest segment is appended anew, then
//! the segment goes. Runs on the commit thread between batches, one segment at a time, so the index says what is true.

use std::collections::VecDeque;
use std::io;

use super::drive::Drive;
use super::index::{Applied, Index, Watermark};
use super::journal_entry::{JournalEntry, Row, older_place};
use super::journal_format::{Frame, Frames, encode_frame};
use super::journal_segment::{SEGMENT_HEADER_LEN, SegmentError, decode_segment_header};
use super::layout;
use crate::content::{BodyRef, Digest};

/// With fewer segments nothing is worth the work.
const FEW: usize = 4;

/// Which segments there are, and when it is worth to look at the oldest.
pub(super) struct Compaction {
    segments: VecDeque<u64>,
    /// Number of segments from which on the oldest is looked at. Grows while the oldest turn out to be true still.
    at: usize,
    /// An older segment could not be removed: what is forgotten since must be told again, or a replay would bring
    /// it back.
    older_left: bool,
}

/// The true part of a segment.
pub(super) struct Kept {
    /// To be appended and applied before the segment goes, with the real bytes of blobs.
    pub(super) entries: Vec<(JournalEntry, Option<u64>)>,
    segment: u64,
    /// Whether at least half of it is true still.
    mostly: bool,
    /// Whether it has what was forgotten, for the sake of a segment before it.
    tombstones: bool,
}

impl Compaction {
    /// Knows the segments of earlier processes.
    pub(super) fn new(segments: &[u64]) -> Self {
        Self { segments: segments.iter().copied().collect(), at: FEW, older_left: false }
    }

    /// A new segment was begun; the ones before get no more entries.
    pub(super) fn begun(&mut self, segment: u64) {
        if self.segments.back() != Some(&segment) {
            self.segments.push_back(segment);
        }
    }

    /// The oldest segment, when there are enough.
    pub(super) fn due(&self) -> Option<u64> {
        self.segments.front().copied().filter(|_| self.segments.len() >= self.at)
    }

    /// Nothing can be done now.
    pub(super) fn postpone(&mut self) {
        self.at = self.segments.len().saturating_add(self.segments.len() / 2);
    }

    /// Reads the oldest segment, when there are enough.
    pub(super) fn oldest(&mut self, drive: &Drive, index: &Index) -> Option<Kept> {
        if self.segments.len() < self.at {
            return None;
        }
        let segment = self.segments.pop_front()?;
        let tombstones = std::mem::replace(&mut self.older_left, true);
        match still_true(drive, index, segment, tombstones) {
            Ok(Some(kept)) => Some(kept),
            Ok(None) => {
                self.older_left = tombstones;
                None
            }
            Err(error) => {
                // It stays where it is, and is looked at again after the next start; so does one that could be read
                // but is not removed for another reason.
                tracing::warn!(drive = %drive.label(), segment, %error, "a journal segment is not compacted");
                None
            }
        }
    }

    /// Removes the segment whose true part is durable elsewhere.
    pub(super) fn remove(&mut self, drive: &Drive, kept: &Kept) -> io::Result<()> {
        let all = self.segments.len();
        self.at = if kept.mostly { all.saturating_add(all / 2).max(FEW) } else { FEW.max(self.at.min(all)) };
        drive.dir.unlink(&layout::segment(kept.segment))?;
        drive.dir.sync_directory(layout::JOURNAL)?;
        self.older_left = kept.tombstones;
        Ok(())
    }
}

/// What a segment says that the index says too; `None` when it is not ours, and no replay reads it. Where it is damaged
/// the mirror may have what it said.
fn still_true(drive: &Drive, index: &Index, segment: u64, tombstones: bool) -> io::Result<Option<Kept>> {
    let bytes = drive.dir.read(&layout::segment(segment))?;
    match decode_segment_header(&bytes) {
        Ok(header) if header.drive != drive.id.0 => return Ok(None),
        Err(SegmentError::NewerFormat { .. }) => return Ok(None),
        // A replay reads the frames behind a damaged header too.
        Ok(_) | Err(_) => {}
    }
    let mut entries = Vec::new();
    let mut frames = Frames::new(&bytes, SEGMENT_HEADER_LEN);
    let mut keep_at =
        |offset: u64, entry| keep(drive, index, Watermark { segment, offset }, entry, tombstones, &mut entries);
    for frame in frames.by_ref() {
        match frame {
            Frame::Entry { offset, entry, .. } => keep_at(offset as u64, entry),
            Frame::Damage { offset, end } => {
                let copies = index.mirror().entries(drive.id, segment, offset as u64, end as u64);
                copies.into_iter().for_each(|copy| keep_at(copy.offset, copy.entry));
            }
        }
    }
    if frames.has_torn_tail() {
        let copies = index.mirror().entries(drive.id, segment, frames.intact_end() as u64, u64::MAX);
        copies.into_iter().for_each(|copy| keep_at(copy.offset, copy.entry));
    }
    let true_bytes: usize = entries.iter().map(|(entry, _)| encode_frame(entry).len()).sum();
    Ok(Some(Kept { entries, segment, mostly: true_bytes.saturating_mul(2) >= bytes.len(), tombstones }))
}

/// What is true still of entries that were told at some places of the journal; with `tombstones` also what was forgotten
/// there.
pub(super) fn true_of(
    drive: &Drive,
    index: &Index,
    told: Vec<Applied>,
    tombstones: bool,
) -> Vec<(JournalEntry, Option<u64>)> {
    let mut kept = Vec::new();
    told.into_iter().for_each(|applied| keep(drive, index, applied.at, applied.entry, tombstones, &mut kept));
    kept
}

/// Adds what is true of `entry` to `kept`: what the index names by this very place. Of what was forgotten there is
/// nothing to say once no older segment is left; while there is one, that it was forgotten.
fn keep(
    drive: &Drive,
    index: &Index,
    at: Watermark,
    entry: JournalEntry,
    tombstones: bool,
    kept: &mut Vec<(JournalEntry, Option<u64>)>,
) {
    let blob_here = |digest: &Digest| {
        let (told, allocated) = index.blob_at(digest, drive.id)?;
        (told == at).then_some(allocated)
    };
    match entry {
        JournalEntry::Stored { row, sums, .. } => {
            let allocated = match (row.record.body, &sums) {
                (BodyRef::Blob(digest), Some(_)) => blob_here(&digest),
                _ => None,
            };
            // Sums that came anew later stay there.
            let sums = sums.filter(|_| allocated.is_some());
            let blob = row.record.body;
            match still_there(drive, index, at, row) {
                Some(row) => kept.push((JournalEntry::Stored { row, sums, supersedes: None }, allocated)),
                None => {
                    if let (BodyRef::Blob(digest), Some(sums)) = (blob, sums) {
                        // What is true of the response comes later.
                        kept.push((JournalEntry::Blob { digest, sums }, allocated));
                    }
                }
            }
        }
        JournalEntry::Updated { row } => {
            if let Some(row) = still_there(drive, index, at, row) {
                kept.push((JournalEntry::Updated { row }, None));
            }
        }
        JournalEntry::Blob { digest, sums } => {
            if let Some(allocated) = blob_here(&digest) {
                kept.push((JournalEntry::Blob { digest, sums }, Some(allocated)));
            }
        }
        JournalEntry::Forgotten { key, place } => {
            if tombstones && index.row_at(key, drive.id, place).is_none() {
                kept.push((JournalEntry::Forgotten { key, place }, None));
            }
        }
        JournalEntry::BlobGone { digest } => {
            if tombstones && !index.has_blob(&digest, drive.id) {
                kept.push((JournalEntry::BlobGone { digest }, None));
            }
        }
        // The older version itself moves with the entry that stored it.
        JournalEntry::Superseded { key, variant, birth, at } => {
            // Also when the older one is forgotten: its entry may be there still, and would be the newest then.
            if tombstones {
                kept.push((JournalEntry::Superseded { key, variant, birth, at }, None));
            }
        }
    }
}

/// The row as the index has it, if it is told here: as it was stored, or as an older version by now.
fn still_there(drive: &Drive, index: &Index, at: Watermark, row: Row) -> Option<Row> {
    let key = row.record.key.hash();
    if index.row_at(key, drive.id, row.place()) == Some(at) {
        return Some(row);
    }
    if row.superseded.is_some() {
        return None;
    }
    let since = index.older_since(key, drive.id, older_place(row.record.variant(), row.birth), at)?;
    Some(row.superseded_at(since))
}
