//! [`Copies`]: a second copy of what the journals say of large bodies, in the state directory. The only file that names
//! sled; when it is written and asked is the business of `mirror`. Of bodies of one block nothing is copied: to fetch them
//! again costs no more than a block that is damaged.
//!
//! One tree:
//! ```text
//! f                                    format
//! w <drive 16>                         up to where the drive's journal is copied: segment 8, offset 8
//! c <drive 16> <segment 8> <offset 8>  the frame that begins there
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::drive::{Drive, DriveId};
use super::index::{Index, Watermark};
use super::journal;
use super::journal_entry::JournalEntry;
use super::journal_format::{Frame, Frames, decode_frame};
use super::journal_segment::SEGMENT_HEADER_LEN;
use super::{disk, layout};

/// Written into a new one; another value means: copy anew.
const FORMAT: &[u8] = b"waystation mirror 1";
/// Memory for the database's pages, in bytes.
const CACHE: u64 = 4 * 1024 * 1024;
/// Longest time for opening before it is made anew, and for which damage waits for it.
pub(super) const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// Bodies of more bytes than this have more than one block.
const SMALL: u64 = if cfg!(test) { 1024 } else { 1024 * 1024 };

/// Bytes of the end of a journal that are compared with their copies once in each process.
const COMPARED: u64 = 64 * 1024 * 1024;

/// The file with the pages of the database, as it names it.
const LOG: &str = "db";

/// The open database.
pub(super) struct Copies {
    database: sled::Db,
    path: PathBuf,
    /// Drives of which the last segments were compared in this process.
    compared: Mutex<HashSet<DriveId>>,
}

/// It could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("mirror of the journals: {0}")]
pub(super) struct MirrorError(String);

/// An entry of a segment that the mirror has: where it begins and ends.
pub(super) struct Copy {
    pub(super) offset: u64,
    pub(super) end: u64,
    pub(super) entry: JournalEntry,
}
/// Opens the mirror; a damaged or foreign one is made anew.
pub(super) fn open(state: &Path) -> Option<Copies> {
    let former = state.join(layout::FORMER_INDEX);
    if let Err(error) = disk::remove_all(&former) {
        tracing::warn!(path = %former.display(), %error, "what an earlier release left could not be removed");
    }
    let path = state.join(layout::MIRROR);
    match open_limited(&path) {
        Ok(copies) => return Some(copies),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the second copy of the journals cannot be used and is made anew");
        }
    }
    let opened = set_aside(state).map_err(|error| error.to_string()).and_then(|()| open_limited(&path));
    opened.inspect_err(|error| tracing::error!(path = %path.display(), %error, "the journals have no second copy")).ok()
}

/// Opens the database on a thread of its own, since it may hang or panic on damaged files.
fn open_limited(path: &Path) -> Result<Copies, String> {
    let (sender, receiver) = mpsc::channel();
    let path = path.to_owned();
    let opening = thread::Builder::new().name("mirror-open".to_owned()).spawn(move || {
        // A panic drops the sender, which the other side sees.
        let _ = sender.send(Copies::open(&path));
    });
    opening.map_err(|error| error.to_string())?;
    match receiver.recv_timeout(OPEN_LIMIT) {
        Ok(opened) => opened.map_err(|error| error.to_string()),
        Err(mpsc::RecvTimeoutError::Timeout) => Err(format!("it did not open within {} s", OPEN_LIMIT.as_secs())),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("the database panicked".to_owned()),
    }
}

/// Removes the mirror; moved first, since a thread that hangs in the old one must not meet the new one.
fn set_aside(state: &Path) -> io::Result<()> {
    let rejected = state.join(layout::MIRROR_REJECTED);
    disk::remove_all(&rejected)?;
    disk::Dir::open(state)?.rename(layout::MIRROR, layout::MIRROR_REJECTED)?;
    disk::remove_all(&rejected)
}

impl MirrorError {
    /// Something else stood in the way.
    pub(super) fn of(error: impl std::fmt::Display) -> Self {
        failed(error)
    }
}

impl Copies {
    /// Waits until all of it is on its drive.
    pub(super) fn flush(&self) -> Result<(), MirrorError> {
        self.database.flush().map_err(failed)?;
        // On Linux the database hands its pages to the drive, and leaves length and cache to a thread that would sync twice
        // a second for ever.
        let log = File::open(self.path.join(LOG)).map_err(failed)?;
        disk::sync_data(&log).map_err(failed)
    }

    /// Opens or creates the database. Slow, and it may panic on damaged files: call it on a thread of its own.
    fn open(path: &Path) -> Result<Self, MirrorError> {
        // It is flushed after each copying: a sync each half second would wear out the flash of an idle gateway.
        let config = sled::Config::new().path(path).cache_capacity(CACHE).flush_every_ms(None);
        let database = config.open().map_err(failed)?;
        match database.get(b"f").map_err(failed)? {
            Some(format) if format == FORMAT => {}
            None if database.is_empty() => drop(database.insert(b"f", FORMAT).map_err(failed)?),
            _ => return Err(MirrorError("it has another format".to_owned())),
        }
        Ok(Self { database, path: path.to_owned(), compared: Mutex::default() })
    }

    pub(super) fn entry_at(&self, drive: DriveId, at: Watermark) -> Result<Option<JournalEntry>, MirrorError> {
        Ok(self.database.get(key(drive, at)).map_err(failed)?.and_then(|frame| decode_frame(&frame)))
    }

    pub(super) fn entries(&self, drive: DriveId, segment: u64, from: u64, end: u64) -> Result<Vec<Copy>, MirrorError> {
        let place = |offset| key(drive, Watermark { segment, offset });
        let mut found = Vec::new();
        for copied in self.database.range(place(from)..place(end)) {
            let (name, frame) = copied.map_err(failed)?;
            if let Some((offset, entry)) = offset_of(&name).zip(decode_frame(&frame)) {
                found.push(Copy { offset, end: offset.saturating_add(frame.len() as u64), entry });
            }
        }
        Ok(found)
    }

    /// Copies what the journal of `drive` has more, and forgets segments that are gone.
    pub(super) fn follow(&self, drive: &Drive, index: &Index) -> Result<(), MirrorError> {
        let Some(end) = index.to_mirror(drive.id) else { return Ok(()) };
        let mut mark = self.mark(drive.id)?;
        let is_compared = self.compared.lock().contains(&drive.id);
        if mark == Some(end) && is_compared {
            return Ok(());
        }
        let Ok(segments) = journal::segments(drive) else { return Ok(()) };
        if let Some(mark) = mark.filter(|_| !is_compared) {
            let mut read = 0_u64;
            for segment in segments.iter().rev().filter(|segment| **segment <= mark.segment) {
                let Some(length) = self.compare(drive, *segment)? else { return Ok(()) };
                read = read.saturating_add(length);
                if read >= COMPARED {
                    break;
                }
            }
        }
        self.compared.lock().insert(drive.id);
        if mark == Some(end) {
            return Ok(());
        }
        if let Some(ahead) = mark.filter(|mark| *mark > end) {
            if ahead.segment > end.segment && segments.binary_search(&ahead.segment).is_err() {
                // Another journal than the one that was copied.
                self.forget(&[&b"c"[..], &drive.id.0.to_be_bytes()].concat())?;
                mark = None;
            } else {
                // Its end was damaged; what was copied of that stays.
                return self.set_mark(drive.id, end);
            }
        }
        self.forget_others(drive.id, &segments, || index.last_places(drive.id))?;
        for segment in segments {
            let begin =
                mark.filter(|mark| mark.segment == segment).map_or(SEGMENT_HEADER_LEN as u64, |mark| mark.offset);
            if segment > end.segment || mark.is_some_and(|mark| segment < mark.segment) {
                continue;
            }
            let bytes = match drive.dir.read(&layout::segment(segment)) {
                Ok(bytes) => bytes,
                // Compacted meanwhile: what is true of it is told further on.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // Later.
                Err(_) => return Ok(()),
            };
            let length = bytes.len() as u64;
            let to = if segment == end.segment { end.offset.min(length) } else { length };
            let (begin_at, to_at) = (usize::try_from(begin), usize::try_from(to));
            let part = begin_at.ok().zip(to_at.ok()).and_then(|(from, to)| bytes.get(from..to)).unwrap_or_default();
            if begin == SEGMENT_HEADER_LEN as u64 {
                // What had this number before.
                self.forget(&segment_prefix(drive.id, segment))?;
            }
            self.copy(drive.id, Watermark { segment, offset: begin }, part)?;
            self.set_mark(drive.id, Watermark { segment, offset: begin.saturating_add(part.len() as u64) })?;
        }
        self.set_mark(drive.id, end)
    }

    /// Compares what was copied of a segment with what it says, and copies what is missing: its number may have been given
    /// to another one since, when the last segments of a journal were lost, and the database may have lost something to
    /// damage without a word. The segment's length; `None` when it cannot be read now.
    fn compare(&self, drive: &Drive, segment: u64) -> Result<Option<u64>, MirrorError> {
        let bytes = match drive.dir.read(&layout::segment(segment)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(0)),
            Err(_) => return Ok(None),
        };
        let intact: BTreeMap<usize, usize> = Frames::new(&bytes, SEGMENT_HEADER_LEN)
            .filter_map(|frame| match frame {
                Frame::Entry { offset, end, .. } => Some((offset, end)),
                Frame::Damage { .. } => None,
            })
            .collect();
        let contradicts = |offset: usize, copy: &[u8]| {
            let Some((begin, end)) = intact.range(..=offset).next_back() else { return false };
            offset < *end && (*begin != offset || bytes.get(*begin..*end) != Some(copy))
        };
        let prefix = segment_prefix(drive.id, segment);
        for copied in self.database.scan_prefix(&prefix) {
            let (name, copy) = copied.map_err(failed)?;
            let offset = offset_of(&name).and_then(|offset| usize::try_from(offset).ok());
            if offset.is_none_or(|offset| contradicts(offset, &copy)) {
                self.forget(&prefix)?;
                break;
            }
        }
        let begin = Watermark { segment, offset: SEGMENT_HEADER_LEN as u64 };
        self.copy(drive.id, begin, bytes.get(SEGMENT_HEADER_LEN..).unwrap_or_default())?;
        Ok(Some(bytes.len() as u64))
    }

    /// Copies what of the frames in `bytes`, which begin at `at`, is worth it and not there.
    fn copy(&self, drive: DriveId, at: Watermark, bytes: &[u8]) -> Result<(), MirrorError> {
        for frame in Frames::new(bytes, 0) {
            let Frame::Entry { offset, end, entry } = frame else { continue };
            if let Some(frame) = bytes.get(offset..end).filter(|_| is_worth_it(&entry)) {
                let place = Watermark { offset: at.offset.saturating_add(offset as u64), ..at };
                let name = key(drive, place);
                if self.database.get(&name).map_err(failed)?.is_none_or(|copy| *copy != *frame) {
                    self.database.insert(name, frame).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    fn mark(&self, drive: DriveId) -> Result<Option<Watermark>, MirrorError> {
        let Some(value) = self.database.get(mark_key(drive)).map_err(failed)? else { return Ok(None) };
        let number = |at: usize| value.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
        Ok(number(0).zip(number(8)).map(|(segment, offset)| Watermark { segment, offset }))
    }

    fn set_mark(&self, drive: DriveId, mark: Watermark) -> Result<(), MirrorError> {
        let value = [mark.segment.to_be_bytes(), mark.offset.to_be_bytes()].concat();
        self.database.insert(mark_key(drive), value).map(drop).map_err(failed)
    }

    /// Forgets the segments of a drive that are not among these, which are in order; not one of which something is `named`
    /// still: it was lost, and the copy is all that is left of it.
    fn forget_others(
        &self,
        drive: DriveId,
        segments: &[u64],
        named: impl Fn() -> HashMap<u64, u64>,
    ) -> Result<(), MirrorError> {
        let (mut next, mut still_named) = (0, None);
        loop {
            let from = key(drive, Watermark { segment: next, offset: 0 });
            let to = key(drive, Watermark { segment: u64::MAX, offset: u64::MAX });
            let Some(found) = self.database.range(from..=to).keys().next().transpose().map_err(failed)? else {
                return Ok(());
            };
            let segment = found.get(17..25).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
            let Some(segment) = segment else { return Ok(()) };
            let is_gone = segments.binary_search(&segment).is_err();
            if is_gone && !still_named.get_or_insert_with(&named).contains_key(&segment) {
                self.forget(&segment_prefix(drive, segment))?;
            }
            let Some(after) = segment.checked_add(1) else { return Ok(()) };
            next = after;
        }
    }

    fn forget(&self, prefix: &[u8]) -> Result<(), MirrorError> {
        for name in self.database.scan_prefix(prefix).keys() {
            self.database.remove(name.map_err(failed)?).map_err(failed)?;
        }
        Ok(())
    }
}

/// What it would cost more than a block to be told again.
fn is_worth_it(entry: &JournalEntry) -> bool {
    match entry {
        JournalEntry::Stored { row, .. } | JournalEntry::Updated { row } => {
            row.record.length.is_none_or(|length| length > SMALL)
        }
        JournalEntry::Blob { sums, .. } => sums.length() > SMALL,
        JournalEntry::Forgotten { .. } | JournalEntry::Superseded { .. } => true,
        // The file is gone, too, which tells as much.
        JournalEntry::BlobGone { .. } => false,
    }
}

fn key(drive: DriveId, at: Watermark) -> Vec<u8> {
    [&segment_prefix(drive, at.segment)[..], &at.offset.to_be_bytes()].concat()
}

fn segment_prefix(drive: DriveId, segment: u64) -> Vec<u8> {
    [&b"c"[..], &drive.0.to_be_bytes(), &segment.to_be_bytes()].concat()
}

fn mark_key(drive: DriveId) -> Vec<u8> {
    [&b"w"[..], &drive.0.to_be_bytes()].concat()
}

/// The offset in the name of a frame.
fn offset_of(name: &[u8]) -> Option<u64> {
    name.get(25..33).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes)
}

fn failed(error: impl std::fmt::Display) -> MirrorError {
    MirrorError(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, KeyHash};
    use crate::store::journal_format::encode_frame;

    #[test]
    fn what_was_copied_is_found_by_its_place_and_in_order() {
        let directory = tempfile::TempDir::new().unwrap();
        let copies = Copies::open(&directory.path().join("m")).unwrap();
        let drive = DriveId(5);
        let small = encode_frame(&JournalEntry::BlobGone { digest: Digest::of(b"any") });
        let frame = |n: u8| encode_frame(&JournalEntry::Forgotten { key: KeyHash::from_bytes([n; 16]), place: 1 });
        let all: Vec<Vec<u8>> = (0..200).map(frame).collect();
        let damaged = [&small[..], &all[..100].concat(), b"no frame", &all[100..].concat()].concat();
        copies.copy(drive, Watermark { segment: 3, offset: 40 }, &damaged).unwrap();
        copies.copy(drive, Watermark { segment: 4, offset: 40 }, &frame(7)).unwrap();
        copies.copy(DriveId(6), Watermark { segment: 3, offset: 0 }, &frame(9)).unwrap();
        assert!(copies.entry_at(drive, Watermark { segment: 3, offset: 40 }).unwrap().is_none(), "not worth it");
        let mut at = 40 + small.len() as u64;
        for (number, frame) in all.iter().enumerate() {
            at += if number == 100 { 8 } else { 0 };
            let entry = copies.entry_at(drive, Watermark { segment: 3, offset: at }).unwrap().unwrap();
            assert_eq!(encode_frame(&entry), *frame);
            assert!(copies.entry_at(drive, Watermark { segment: 3, offset: at + 1 }).unwrap().is_none());
            at += frame.len() as u64;
        }
        let (length, begin) = (all[0].len() as u64, 40 + small.len() as u64);
        let some = copies.entries(drive, 3, begin + 10 * length, begin + 12 * length).unwrap();
        assert_eq!(some.iter().map(|copy| (copy.offset - begin) / length).collect::<Vec<_>>(), [10, 11]);
        assert_eq!(copies.entries(drive, 3, 40, u64::MAX).unwrap().len(), 200);
        copies.forget_others(drive, &[4], || HashMap::from([(3, 40)])).unwrap();
        assert_eq!(copies.entries(drive, 3, 0, u64::MAX).unwrap().len(), 200, "it is needed still");
        copies.forget_others(drive, &[4], HashMap::new).unwrap();
        assert!(copies.entries(drive, 3, 0, u64::MAX).unwrap().is_empty());
        assert_eq!(copies.entries(drive, 4, 0, u64::MAX).unwrap().len(), 1);
        assert_eq!(copies.entries(DriveId(6), 3, 0, u64::MAX).unwrap().len(), 1);
    }
}
