//! Keeps a drive's journal from growing without end: what is still true of its oldest segment is appended anew, then
//! the segment goes. Runs on the commit thread between batches, one segment at a time, so the index says what is true.

use std::collections::VecDeque;
use std::io;

use super::drive::Drive;
use super::index::{Index, IndexError};
use super::journal_format::{Frame, Frames, JournalEntry, encode_frame};
use super::journal_segment::{SEGMENT_HEADER_LEN, decode_segment_header};
use super::layout;
use super::meta::encode_record;
use crate::content::{BodyRef, Record};

/// With fewer segments nothing is worth the work.
const FEW: usize = 4;

/// Which segments there are, and when it is worth to look at the oldest.
pub(super) struct Compaction {
    segments: VecDeque<u64>,
    /// Number of segments from which on the oldest is looked at. Grows while the oldest turn out to be true still.
    at: usize,
}

/// The true part of a segment.
pub(super) struct Kept {
    /// To be appended and applied before the segment goes, with the real bytes of blobs.
    pub(super) entries: Vec<(JournalEntry, Option<u64>)>,
    segment: u64,
    /// Whether at least half of it is true still.
    mostly: bool,
}

impl Compaction {
    /// Knows the segments of earlier processes.
    pub(super) fn new(segments: &[u64]) -> Self {
        Self { segments: segments.iter().copied().collect(), at: FEW }
    }

    /// A new segment was begun; the ones before get no more entries.
    pub(super) fn begun(&mut self, segment: u64) {
        if self.segments.back() != Some(&segment) {
            self.segments.push_back(segment);
        }
    }

    /// Reads the oldest segment, when there are enough.
    pub(super) fn oldest(&mut self, drive: &Drive, index: &Index) -> Option<Kept> {
        if self.segments.len() < self.at {
            return None;
        }
        let segment = self.segments.pop_front()?;
        match still_true(drive, index, segment) {
            Ok(kept) => kept,
            Err(error) => {
                // It stays where it is, and is looked at again after the next start.
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
        drive.dir.sync_directory(layout::JOURNAL)
    }
}

/// What a segment says that the index says too; `None` when it must not be removed.
fn still_true(drive: &Drive, index: &Index, segment: u64) -> Result<Option<Kept>, IndexError> {
    let bytes = drive.dir.read(&layout::segment(segment)).map_err(IndexError::other)?;
    let ours = decode_segment_header(&bytes).is_ok_and(|header| header.drive == drive.id.0);
    if !ours {
        return Ok(None);
    }
    let mut entries = Vec::new();
    for frame in Frames::new(&bytes, SEGMENT_HEADER_LEN) {
        match frame {
            Frame::Entry { offset, entry, .. } => keep(drive, index, (segment, offset as u64), entry, &mut entries)?,
            // What is lost here may be in the index; the segment at least tells of it.
            Frame::Damage { .. } => return Ok(None),
        }
    }
    let true_bytes: usize = entries.iter().map(|(entry, _)| encode_frame(entry).len()).sum();
    Ok(Some(Kept { entries, segment, mostly: true_bytes.saturating_mul(2) >= bytes.len() }))
}

fn keep(
    drive: &Drive,
    index: &Index,
    at: (u64, u64),
    entry: JournalEntry,
    kept: &mut Vec<(JournalEntry, Option<u64>)>,
) -> Result<(), IndexError> {
    // What was forgotten is not in the index, and nothing older than this segment is left to be forgotten.
    let (JournalEntry::Stored { record, .. } | JournalEntry::Updated { record }) = &entry else { return Ok(()) };
    let (key, variant) = (record.key.hash(), record.variant());
    let now = index.record(key, drive.id, variant)?;
    let is_now = now.as_ref().is_some_and(|now| is_same(now, record));
    let blob = match (&entry, record.body) {
        (JournalEntry::Stored { sums: Some(_), .. }, BodyRef::Blob(digest)) => index.blob_on(&digest, drive.id)?,
        _ => None,
    };
    let allocated = blob.as_ref().map(|row| row.allocated);
    let carries_blob = blob.is_some_and(|row| row.order == at);
    match (carries_blob, is_now) {
        (_, true) => kept.push((entry, allocated)),
        (true, false) => {
            // The blob's sums are needed, its record is not: what is true of the row comes behind it.
            kept.push((entry, allocated));
            let row = match now {
                Some(record) => JournalEntry::Updated { record },
                None => JournalEntry::Forgotten { key, variant },
            };
            kept.push((row, None));
        }
        (false, false) => {}
    }
    Ok(())
}

fn is_same(a: &Record, b: &Record) -> bool {
    encode_record(a) == encode_record(b)
}
