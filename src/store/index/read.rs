//! What the journal says at a place that the index names. When it does not say it any more the mirror is asked. What the
//! kernel has of it in memory can be had without a thread of the drive, and in doubt is left to one.

use std::io;

use super::super::disk::{self, Dir};
use super::super::journal_entry::{JournalEntry, Row};
use super::super::journal_format::{FRAME_HEADER, decode_frame, frame_length};
use super::super::layout;
use super::{At, BlobRow, DriveId, Found, Index, Known, Watermark};
use crate::content::{BodyRef, Digest, KeyHash};

/// Most entries are shorter.
const FIRST_READ: usize = 4096;

/// How often it is looked where something is told by now: the journal may be compacted meanwhile.
const ATTEMPTS: usize = 3;

impl Index {
    /// # Errors
    /// When the journal cannot be read.
    pub(super) fn read_row(&self, known: &Known, found: Found) -> io::Result<Option<Row>> {
        let mut found = found;
        for _ in 0..ATTEMPTS {
            let read = self.entry_at(known, found.at, |entry| as_row(entry, &found));
            if let Ok(Some(row)) = read {
                return Ok(Some(row));
            }
            let Some(now) = known.state.read().objects.row(found.key, found.place) else { return Ok(None) };
            if now == found {
                if let Err(error) = read {
                    known.drive.failed("read the journal", &error);
                    return Err(error);
                }
                tracing::error!(
                    drive = %known.drive.label(), segment = found.at.segment, offset = found.at.offset,
                    "the journal is damaged here; a stored response counts as missing"
                );
                return Ok(None);
            }
            found = now;
        }
        Ok(None)
    }

    pub(super) fn read_blob(&self, known: &Known, digest: &Digest) -> io::Result<Option<BlobRow>> {
        let blob = || known.state.read().objects.blob(digest);
        let Some((mut at, mut allocated)) = blob() else { return Ok(None) };
        for _ in 0..ATTEMPTS {
            let read = self.entry_at(known, at, |entry| as_sums(entry, digest).map(|sums| BlobRow { allocated, sums }));
            let failed = match read {
                Ok(Some(row)) => return Ok(Some(row)),
                Ok(None) => None,
                Err(error) => Some(error),
            };
            match blob() {
                None => return Ok(None),
                Some(now) if now == (at, allocated) => {
                    if let Some(error) = failed {
                        known.drive.failed("read the journal", &error);
                        return Err(error);
                    }
                    tracing::error!(
                        drive = %known.drive.label(), %digest, segment = at.segment, offset = at.offset,
                        "the journal is damaged here; a blob counts as missing"
                    );
                    return Ok(None);
                }
                Some(now) => (at, allocated) = now,
            }
        }
        Ok(None)
    }

    /// All responses of a key on a drive whose blobs are known, if the kernel has what its journal says of them in memory.
    pub(in super::super) fn rows_now(&self, drive: DriveId, key: KeyHash) -> Option<Vec<Row>> {
        let known = self.of(drive)?;
        let found = known.state.read().objects.of_key(key);
        let found = found.into_iter().filter(|found| found.has_blob);
        let row = |found: Found| {
            let mut entry = entry_now(&known.drive.dir, found.at.into())?;
            let sums = if let JournalEntry::Stored { sums, .. } = &mut entry { sums.take() } else { None };
            let row = as_row(entry, &found)?;
            if let Some(sums) = sums {
                *known.latest.lock() = Some((found.at, found.digest, sums));
            }
            Some(row)
        };
        found.map(row).collect()
    }

    /// What is known of a blob on a drive, if the kernel has it in memory.
    pub(in super::super) fn blob_now(&self, drive: DriveId, digest: &Digest) -> Option<BlobRow> {
        let known = self.of(drive)?;
        let (at, allocated) = known.state.read().objects.blob(digest)?;
        let latest = known.latest.lock().take_if(|(place, blob, _)| *place == at && blob == digest);
        let sums = match latest {
            Some((_, _, sums)) => sums,
            None => as_sums(entry_now(&known.drive.dir, at.into())?, digest)?,
        };
        Some(BlobRow { allocated, sums })
    }

    /// What `take` makes of the entry at `at`; of the mirror's when the journal has none that it takes.
    fn entry_at<T>(&self, known: &Known, at: At, take: impl Fn(JournalEntry) -> Option<T>) -> io::Result<Option<T>> {
        let mark = Watermark::from(at);
        let read = read_entry(&known.drive.dir, mark).map(|entry| entry.and_then(&take));
        if let Ok(Some(taken)) = read {
            return Ok(Some(taken));
        }
        if let Some(taken) = self.mirror.entry_at(known.drive.id, mark).and_then(take) {
            return Ok(Some(taken));
        }
        match read {
            // Of bytes that cannot be read now nothing is known: they may be right.
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => Err(error),
            _ => Ok(None),
        }
    }
}

/// The entry at a place of the journal, if an intact one begins there.
fn read_entry(dir: &Dir, at: Watermark) -> io::Result<Option<JournalEntry>> {
    let file = dir.open_to_read(&layout::segment(at.segment))?;
    let begin = disk::read_up_to(&file, at.offset, FIRST_READ)?;
    let Some(length) = frame_length(&begin) else { return Ok(None) };
    if length <= begin.len() {
        return Ok(decode_frame(&begin));
    }
    // A length that is damaged must not ask for memory that no file fills.
    let here = disk::identity(&file)?.size().saturating_sub(at.offset);
    if begin.len() < FRAME_HEADER || (length as u64) > here {
        return Ok(None);
    }
    Ok(decode_frame(&disk::read_exact_at(&file, at.offset, length)?))
}

/// The same of a short entry, if it takes no waiting for a disk.
fn entry_now(dir: &Dir, at: Watermark) -> Option<JournalEntry> {
    let file = dir.open_now(&layout::segment(at.segment)).ok()?;
    let mut begin = [0; FIRST_READ];
    let read = disk::read_now(&file, at.offset, &mut begin).ok()?;
    decode_frame(begin.get(..read)?)
}

/// The response that `found` names.
fn as_row(entry: JournalEntry, found: &Found) -> Option<Row> {
    let (JournalEntry::Stored { row, .. } | JournalEntry::Updated { row }) = entry else { return None };
    let row = Row { superseded: found.superseded, ..row };
    let is_it = row.record.body == BodyRef::Blob(found.digest)
        && row.record.key.hash() == found.key
        && row.place() == found.place;
    is_it.then_some(row)
}

fn as_sums(entry: JournalEntry, wanted: &Digest) -> Option<super::BlockSums> {
    match entry {
        JournalEntry::Stored { row, sums, .. } if row.record.body == BodyRef::Blob(*wanted) => sums,
        JournalEntry::Blob { digest, sums } if digest == *wanted => Some(sums),
        _ => None,
    }
}
