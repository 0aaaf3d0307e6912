//! [`Journal`]: the append side of a drive's journal, and the list of its segments. Used by the drive's commit
//! thread alone. The bytes are `journal_format`'s business.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::disk;
use super::drive::Drive;
use super::index::Watermark;
use super::journal_segment::{SegmentHeader, encode_segment_header};
use super::layout;

/// A segment that is larger gets a successor. Bounds the memory of a replay.
const SEGMENT: u64 = if cfg!(test) { 16 * 1024 } else { 4 * 1024 * 1024 };

/// Where the next frames go. A process never appends to a segment of an earlier one, whose end may be torn.
pub(super) struct Journal {
    drive: Arc<Drive>,
    open: Option<Segment>,
    next: u64,
}

struct Segment {
    /// Of the directory in which it was opened.
    era: u64,
    number: u64,
    file: File,
    length: u64,
}

impl Journal {
    /// Appends behind all segments that exist.
    pub(super) fn new(drive: Arc<Drive>, segments: &[u64]) -> Self {
        let next = segments.last().map_or(1, |last| last.saturating_add(1));
        Self { drive, open: None, next }
    }

    /// Where the next frame will begin. Opens a segment when need be.
    pub(super) fn begin_of_next(&mut self) -> io::Result<Watermark> {
        let segment = self.segment()?;
        Ok(Watermark { segment: segment.number, offset: segment.length })
    }

    /// Appends frames and makes them durable. After an error nothing is said about them, and the next attempt
    /// goes to a new segment; frames that are there twice do no harm.
    pub(super) fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        let outcome = self.segment().and_then(|segment| {
            disk::write_at(&segment.file, frames, segment.length)?;
            disk::sync_data(&segment.file)?;
            segment.length += frames.len() as u64;
            Ok(())
        });
        if outcome.is_err() {
            self.open = None;
        }
        outcome
    }

    /// The open segment; a new one when there is none or it is long enough.
    fn segment(&mut self) -> io::Result<&mut Segment> {
        let is_over = |segment: &Segment| segment.length >= SEGMENT || segment.era != self.drive.dir.era();
        if self.open.as_ref().is_some_and(is_over) {
            self.open = None;
        }
        let segment = match self.open.take() {
            Some(segment) => segment,
            None => self.begin()?,
        };
        Ok(self.open.insert(segment))
    }

    fn begin(&mut self) -> io::Result<Segment> {
        let (number, era) = (self.next, self.drive.dir.era());
        let (dir, name) = (&self.drive.dir, layout::segment(number));
        let header = encode_segment_header(&SegmentHeader { drive: self.drive.id.0, sequence: number });
        let file = match dir.create_file(&name) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            created => {
                // Used up: the file is there.
                self.next = number.saturating_add(1);
                created?
            }
        };
        let written = disk::write_at(&file, &header, 0)
            .and_then(|()| disk::sync_data(&file))
            .and_then(|()| dir.sync_directory(layout::JOURNAL));
        if let Err(error) = written {
            // Nobody would remove it before the next start; and its number must not be missing between the others.
            match dir.unlink(&name) {
                Ok(()) => self.next = number,
                Err(error) => self.drive.failed("remove a journal segment", &error),
            }
            return Err(error);
        }
        Ok(Segment { era, number, file, length: header.len() as u64 })
    }
}

/// The segments of a drive, oldest first.
pub(super) fn segments(drive: &Drive) -> io::Result<Vec<u64>> {
    let mut numbers: Vec<u64> =
        drive.dir.list(layout::JOURNAL)?.iter().filter_map(|name| layout::parse_segment(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}
