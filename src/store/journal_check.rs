//! Looks whether the journals still say what the index was told by them: a start that has a snapshot reads their end only,
//! and what is read for each answer is one entry. What the mirror has of a damaged place is written anew. Part of the
//! reading in the background (see `scrub`).

use std::sync::atomic::{AtomicBool, Ordering};

use super::drive::Drive;
use super::index::{Applied, Index, Watermark};
use super::journal_format::{Frame, Frames};
use super::journal_segment::SEGMENT_HEADER_LEN;
use super::queue::Change;
use super::{compact, journal, layout};

/// What was found in the journal of a drive.
#[derive(Debug, Default)]
struct Found {
    /// Places where bytes are no entry any more, and should be.
    damaged: usize,
    /// Entries that neither the journal nor the mirror has.
    lost: usize,
    copied: Vec<Applied>,
}

/// Reads the journal of a drive once, in one line told what is wrong with it. `read` is told of bytes that were read.
pub(super) fn check(index: &Index, drive: &Drive, closing: &AtomicBool, mut read: impl FnMut(u64)) {
    // What comes later was written by this process.
    let (Some(end), Ok(segments)) = (index.watermark(drive.id), journal::segments(drive)) else { return };
    let mut found = Found::default();
    let last = index.last_places(drive.id);
    for segment in segments.iter().copied().filter(|segment| *segment <= end.segment) {
        if closing.load(Ordering::Relaxed) || !drive.pulse.gives() {
            return;
        }
        // One that was compacted meanwhile has nothing that is true.
        let Ok(mut bytes) = drive.dir.read(&layout::segment(segment)) else { continue };
        let mut until = u64::MAX;
        if segment == end.segment {
            bytes.truncate(usize::try_from(end.offset).unwrap_or(usize::MAX));
            until = end.offset;
        }
        let last = last.get(&segment).copied().filter(|last| *last < until);
        look_at(index, drive, segment, (&bytes, last, until), &mut found);
        read(bytes.len() as u64);
    }
    // Segments that are gone, and should not be.
    let is_lost = |segment: &u64| *segment < end.segment && segments.binary_search(segment).is_err();
    for (segment, last) in last.into_iter().filter(|(segment, _)| is_lost(segment)) {
        look_at(index, drive, segment, (&[], Some(last), u64::MAX), &mut found);
    }
    if found.damaged > 0 {
        tell(drive, found);
    }
}

/// `last` is the last place below `until` that is named.
fn look_at(
    index: &Index,
    drive: &Drive,
    segment: u64,
    (bytes, last, until): (&[u8], Option<u64>, u64),
    found: &mut Found,
) {
    let mut frames = Frames::new(bytes, SEGMENT_HEADER_LEN);
    let mut damaged = Vec::new();
    for frame in frames.by_ref() {
        if let Frame::Damage { offset, end } = frame {
            damaged.push((offset as u64, end as u64));
        }
    }
    // Also what was cut off: the index may name it all the same.
    let intact = frames.intact_end() as u64;
    if last.is_some_and(|last| last >= intact) {
        damaged.push((intact, until));
    }
    for (from, end) in damaged {
        let named = index.named_in(drive.id, segment, (from, end));
        if named == 0 {
            continue;
        }
        let copies = index.mirror().entries(drive.id, segment, from, end);
        let told = copies.into_iter().map(|copy| {
            let at = Watermark { segment, offset: copy.offset };
            Applied { entry: copy.entry, at, allocated: None }
        });
        let told: Vec<Applied> = told.collect();
        found.damaged += 1;
        found.lost += named.saturating_sub(compact::true_of(drive, index, told.clone(), false).len());
        found.copied.extend(told);
    }
}

fn tell(drive: &Drive, found: Found) {
    let Found { damaged, lost, copied } = found;
    let entries = copied.len();
    if lost == 0 {
        tracing::warn!(
            drive = %drive.label(), damaged, copied = entries,
            "the journal is damaged; all that it said there was found in its second copy and is written anew"
        );
    } else {
        (0..lost).for_each(|_| drive.doubt());
        tracing::warn!(
            drive = %drive.label(), damaged, copied = entries, lost,
            "the journal is damaged; some of what it said there is lost and counts as missing"
        );
    }
    if !copied.is_empty() {
        drive.queue.push(Change::Told { copied });
    }
}
