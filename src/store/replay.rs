//! Brings the index of a drive up to its journal at the start: from the snapshot and what the journal has behind it, or
//! from the whole journal. Where the journal is damaged the mirror may have what it said. All that was found is told in
//! one line for each drive.

use std::sync::atomic::{AtomicBool, Ordering};

use super::drive::Drive;
use super::index::{Applied, Index, Loaded, Watermark};
use super::journal_format::{Frame, Frames, is_torn};
use super::journal_segment::{SEGMENT_HEADER_LEN, SegmentError, decode_segment_header};
use super::layout;

/// So many missing segments are asked for at most: a number that is far off is foreign.
const LOST_AT_MOST: usize = 1000;

/// What reading a journal has shown.
#[derive(Debug, Default)]
struct Seen {
    entries: usize,
    /// Places where bytes are no entry any more.
    damaged: usize,
    /// Of those, where not all could be had from the mirror.
    lost: usize,
    /// Segments that cannot be read, or of which this release can read nothing.
    unread: usize,
    /// What the mirror had.
    copied: Vec<Applied>,
}

/// Does it, and returns the entries that only the mirror had.
pub(super) fn bring_up(index: &Index, drive: &Drive, segments: &[u64], closing: &AtomicBool) -> Vec<Applied> {
    let mark = match index.load(drive.id) {
        Loaded::UpTo(mark) if reaches(drive, segments, mark) => Some(mark),
        Loaded::UpTo(mark) => {
            tracing::warn!(
                drive = %drive.label(), segment = mark.segment, offset = mark.offset,
                "the index's snapshot does not go with the journal; all of the journal is read"
            );
            index.forget_drive(drive.id);
            // It may seem to go with it again when that has grown.
            if let Err(error) = drive.dir.unlink(layout::SNAPSHOT) {
                drive.failed("remove the snapshot of the index", &error);
            }
            None
        }
        Loaded::Missing => None,
        Loaded::Unusable(reason) => {
            tracing::warn!(drive = %drive.label(), reason, "the index's snapshot is not used; all of the journal is read");
            None
        }
    };
    let (mut seen, mut before) = (Seen::default(), None);
    for segment in segments.iter().filter(|number| mark.is_none_or(|mark| **number >= mark.segment)) {
        if closing.load(Ordering::Relaxed) {
            break;
        }
        // Only the oldest segments go, so those that are missing between others were lost.
        for lost in before.map_or(*segment, |before: u64| before.saturating_add(1))..*segment {
            if take_copies(index, drive, lost, (0, u64::MAX), &mut seen) == 0 && seen.damaged >= LOST_AT_MOST {
                break;
            }
            seen.damaged += 1;
            seen.lost += 1;
        }
        before = Some(*segment);
        let known = mark.filter(|mark| mark.segment == *segment).map(|mark| mark.offset as usize);
        replay_segment(index, drive, *segment, known.unwrap_or(SEGMENT_HEADER_LEN), &mut seen);
    }
    index.replayed(drive.id, seen.unread > 0 || closing.load(Ordering::Relaxed));
    tell(drive, index, mark.is_some(), &seen);
    seen.copied
}

/// One line on what was found.
fn tell(drive: &Drive, index: &Index, from_snapshot: bool, seen: &Seen) {
    let (responses, blobs) = index.len(drive.id);
    let Seen { entries, damaged, lost, unread, copied } = seen;
    if *damaged == 0 && *unread == 0 {
        tracing::info!(
            drive = %drive.label(), responses, blobs, from_snapshot, entries,
            "what the drive has is known from its journal"
        );
        return;
    }
    let copied = copied.len();
    if *lost == 0 && *unread == 0 {
        tracing::warn!(
            drive = %drive.label(), responses, blobs, damaged, copied,
            "the journal is damaged; all that it said there was found in its second copy and is written anew"
        );
        return;
    }
    for _ in 0..(*lost + *unread) {
        drive.doubt();
    }
    tracing::warn!(
        drive = %drive.label(), responses, blobs, damaged, copied, lost, unread,
        "the journal is damaged; what it said there is lost and counts as missing"
    );
}

fn replay_segment(index: &Index, drive: &Drive, segment: u64, from: usize, seen: &mut Seen) {
    let bytes = match drive.dir.read(&layout::segment(segment)) {
        Ok(bytes) => bytes,
        Err(error) => {
            drive.failed("read the journal", &error);
            take_copies(index, drive, segment, (0, u64::MAX), seen);
            seen.unread += 1;
            return;
        }
    };
    let mut has_header = true;
    match decode_segment_header(&bytes) {
        Ok(header) if header.drive == drive.id.0 => {}
        Ok(_) => {
            tracing::warn!(drive = %drive.label(), segment, "a journal segment of another drive is left alone");
            return;
        }
        Err(error @ SegmentError::NewerFormat { .. }) => {
            tracing::error!(drive = %drive.label(), segment, %error, "left alone");
            seen.unread += 1;
            return;
        }
        // The frames carry their own checksums; a header that was torn has none behind it, and nothing was said there.
        Err(SegmentError::NotASegment | SegmentError::Damaged) => {
            has_header =
                bytes.iter().take(SEGMENT_HEADER_LEN).all(|byte| *byte == 0) || bytes.len() <= SEGMENT_HEADER_LEN;
        }
    }
    let at = |offset: u64| Watermark { segment, offset };
    let mut frames = Frames::new(&bytes, from);
    for frame in frames.by_ref() {
        match frame {
            Frame::Entry { offset, entry, .. } => {
                index.apply_entry(drive.id, &Applied { entry, at: at(offset as u64), allocated: None });
                seen.entries += 1;
            }
            Frame::Damage { offset, end } => {
                let copied = take_copies(index, drive, segment, (offset as u64, end as u64), seen);
                seen.damaged += 1;
                seen.lost += usize::from(copied < (end - offset) as u64);
            }
        }
    }
    let end = frames.intact_end();
    let tail = bytes.get(end..).unwrap_or_default();
    let copied = if tail.is_empty() { 0 } else { take_copies(index, drive, segment, (end as u64, u64::MAX), seen) };
    // What the mirror has was durable, and damaged since.
    let is_damaged = copied > 0 || !is_torn(tail) || !has_header;
    seen.damaged += usize::from(is_damaged);
    seen.lost += usize::from(is_damaged && copied < tail.len() as u64);
    index.set_mark(drive.id, at(end as u64));
}

/// Applies what the mirror has of a part of a segment; returns how many bytes of it that were.
fn take_copies(index: &Index, drive: &Drive, segment: u64, (from, end): (u64, u64), seen: &mut Seen) -> u64 {
    let mut bytes = 0;
    for copy in index.mirror().entries(drive.id, segment, from, end) {
        bytes += copy.end - copy.offset;
        let applied = Applied { entry: copy.entry, at: Watermark { segment, offset: copy.offset }, allocated: None };
        index.apply_entry(drive.id, &applied);
        seen.copied.push(applied);
    }
    bytes
}

/// Whether the journal has what the snapshot says was applied, and all that came since.
fn reaches(drive: &Drive, segments: &[u64], mark: Watermark) -> bool {
    let stat = drive.dir.stat(&layout::segment(mark.segment)).ok().flatten();
    let length = stat.and_then(|stat| u64::try_from(stat.st_size).ok()).unwrap_or(0);
    let mut since = segments.iter().skip_while(|number| **number < mark.segment);
    let is_whole = since.clone().zip(mark.segment..).all(|(number, next)| *number == next);
    since.next() == Some(&mark.segment) && length >= mark.offset && is_whole
}
