//! The bytes of a drive's journal: what was stored, changed and forgotten there, in order.
//!
//! Only the bytes of frames; a segment's header is in `journal_segment`. When they are written and synced, and when a journal is compacted, is the drive's business.
//! Numbers are little-endian.
//! ```text
//! frame     marker (4), length of the payload u32, CRC-32C u32 of length and payload, payload
//! payload   an entry (see `journal_entry`), without a zero byte
//! ```
//! The marker begins with a zero byte, therefore nothing that a payload carries from elsewhere (field values,
//! sums of chosen content) can pass for a frame when a reader looks for the next one behind damage.

use crc32c::{crc32c, crc32c_append};

use super::journal_entry::{JournalEntry, decode_payload, encode_payload};

const MARKER: [u8; 4] = [0x00, 0xa7, b'J', 0xf1];
/// Marker, length and checksum.
pub(super) const FRAME_HEADER: usize = 12;

/// Most bytes that the payload of one frame may have.
pub(super) const MAX_PAYLOAD: usize = 64 * 1024 * 1024;

/// What a reader of frames meets. Offsets are in bytes from the begin of what it was given.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "most frames are of the large kind, and none is kept for long")]
pub(super) enum Frame {
    /// An intact frame.
    Entry {
        /// Where it begins.
        offset: usize,
        /// Where the next one begins.
        end: usize,
        /// What it says.
        entry: JournalEntry,
    },
    /// Bytes that are no frame, with an intact frame somewhere behind them.
    Damage {
        /// Where they begin.
        offset: usize,
        /// Where frames go on.
        end: usize,
    },
}

/// Reads frames one after the other, from damage on the next intact one. Ends with the last intact frame.
#[derive(Debug)]
pub(super) struct Frames<'a> {
    bytes: &'a [u8],
    position: usize,
    done: bool,
}

/// One frame, to be appended. Sums that would make it larger than [`MAX_PAYLOAD`] are left out (16 TiB at 1 MiB):
/// the blob is then known by its digest alone.
pub(super) fn encode_frame(entry: &JournalEntry) -> Vec<u8> {
    let payload = encode_payload(entry, true);
    frame_of(&if payload.len() > MAX_PAYLOAD { encode_payload(entry, false) } else { payload })
}

/// A frame around a payload.
pub(super) fn frame_of(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    let check = crc32c_append(crc32c(&length), payload).to_le_bytes();
    [&MARKER[..], &length, &check, payload].concat()
}

/// Length of the frame that begins like this, as its header says; `None` when no frame does.
pub(super) fn frame_length(begin: &[u8]) -> Option<usize> {
    let length = u32_at(begin, 4)? as usize;
    (begin.starts_with(&MARKER) && length <= MAX_PAYLOAD).then_some(FRAME_HEADER + length)
}

/// What the frame at the begin of `bytes` says, if it is intact.
pub(super) fn decode_frame(bytes: &[u8]) -> Option<JournalEntry> {
    Frames::new(bytes, 0).frame_at(0).map(|(entry, _)| entry)
}

/// Whether what follows the last intact frame of a segment is what a process or a power cut leaves that stops an append:
/// the begin of a frame, or pages that were not written. Anything else was a frame, and was damaged since.
pub(super) fn is_torn(tail: &[u8]) -> bool {
    let written = tail.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let tail = tail.get(..written).unwrap_or_default();
    if !MARKER.starts_with(tail.get(..MARKER.len().min(tail.len())).unwrap_or_default()) {
        return false;
    }
    // A payload has no zero byte.
    let payload = frame_length(tail).and_then(|length| tail.get(FRAME_HEADER..length));
    payload.is_none_or(|payload| payload.contains(&0))
}

impl<'a> Frames<'a> {
    /// Reads the frames of `bytes` from offset `start` on.
    pub(super) fn new(bytes: &'a [u8], start: usize) -> Self {
        Self { bytes, position: start.min(bytes.len()), done: false }
    }

    /// Where the last intact frame so far ends. After the iteration: where new frames may be appended, once the
    /// bytes behind it are cut off.
    pub(super) fn intact_end(&self) -> usize {
        self.position
    }

    /// Whether the iteration ended before the bytes did: with the frame that was being appended when the process
    /// stopped, or with damage that nothing intact follows.
    pub(super) fn has_torn_tail(&self) -> bool {
        self.done && self.position < self.bytes.len()
    }

    /// The entry of an intact frame at `offset`, and the frame's end. Takes time in proportion to the zero-free
    /// bytes there, so that looking at every offset does in proportion to all bytes.
    fn frame_at(&self, offset: usize) -> Option<(JournalEntry, usize)> {
        let (header, rest) = self.bytes.get(offset..)?.split_at_checked(FRAME_HEADER)?;
        let length = header.get(4..8)?;
        let payload = rest.get(..u32_at(length, 0)? as usize)?;
        if !header.starts_with(&MARKER) || payload.len() > MAX_PAYLOAD || payload.contains(&0) {
            return None;
        }
        if u32_at(header, 8)? != crc32c_append(crc32c(length), payload) {
            return None;
        }
        Some((decode_payload(payload)?, offset + FRAME_HEADER + payload.len()))
    }

    /// The begin of the next intact frame behind `offset`.
    fn next_frame(&self, offset: usize) -> Option<usize> {
        let later = self.bytes.get(offset + 1..)?;
        let markers = later.windows(MARKER.len()).enumerate().filter(|(_, window)| **window == MARKER);
        markers.map(|(distance, _)| offset + 1 + distance).find(|at| self.frame_at(*at).is_some())
    }
}

impl Iterator for Frames<'_> {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        if self.done {
            return None;
        }
        let offset = self.position;
        if let Some((entry, end)) = self.frame_at(offset) {
            self.position = end;
            return Some(Frame::Entry { offset, end, entry });
        }
        if let Some(end) = self.next_frame(offset) {
            self.position = end;
            return Some(Frame::Damage { offset, end });
        }
        self.done = true;
        None
    }
}

/// The number at an offset; `None` beyond the end.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::block_map::BlockSize;
    use super::super::block_sums::BlockSums;
    use super::super::journal_entry::Row;
    use super::super::journal_segment::{SEGMENT_HEADER_LEN, SegmentHeader, encode_segment_header};
    use super::super::meta::encode_record;
    use super::super::meta::tests::{any_record, plain_record};
    use super::super::stuffing::{stuff, unstuff};
    use super::*;
    use crate::content::{BodyRef, Digest, KeyHash, PartialId, Record, UnixMillis};

    fn any_sums() -> impl Strategy<Value = BlockSums> {
        (prop::collection::vec(any::<u32>(), 0..80), 0u64..65536).prop_map(|(crcs, short)| {
            let length = (crcs.len() as u64 * 65536).saturating_sub(short);
            BlockSums::new(BlockSize::MIN, length, crcs).unwrap()
        })
    }

    fn any_entry() -> impl Strategy<Value = JournalEntry> {
        let digest = any::<[u8; 32]>().prop_map(Digest::from_bytes);
        let key = any::<[u8; 16]>().prop_map(KeyHash::from_bytes);
        let time = || any::<u64>().prop_map(UnixMillis);
        let row = || {
            (any_record(), any::<u64>(), prop::option::of(time())).prop_map(|(record, birth, superseded)| Row {
                record,
                birth: PartialId(birth),
                superseded,
            })
        };
        prop_oneof![
            (row(), prop::option::of(any_sums()), prop::option::of(time()))
                .prop_map(|(row, sums, supersedes)| JournalEntry::Stored { row, sums, supersedes }),
            row().prop_map(|row| JournalEntry::Updated { row }),
            (key.clone(), any::<u64>()).prop_map(|(key, place)| JournalEntry::Forgotten { key, place }),
            (key, any::<u64>(), any::<u64>(), time()).prop_map(|(key, variant, birth, at)| {
                JournalEntry::Superseded { key, variant, birth: PartialId(birth), at }
            }),
            digest.clone().prop_map(|digest| JournalEntry::BlobGone { digest }),
            (digest, any_sums()).prop_map(|(digest, sums)| JournalEntry::Blob { digest, sums }),
        ]
    }

    /// A segment with the place of each frame.
    fn segment(entries: &[JournalEntry]) -> (Vec<u8>, Vec<(usize, usize)>) {
        let mut bytes = encode_segment_header(&SegmentHeader { drive: 1, sequence: 1 });
        let places = entries.iter().map(|entry| {
            let offset = bytes.len();
            bytes.extend_from_slice(&encode_frame(entry));
            (offset, bytes.len())
        });
        let places = places.collect();
        (bytes, places)
    }

    type Intact = Vec<(usize, Vec<u8>)>;
    type Damaged = Vec<(usize, usize)>;

    /// Intact frames as (offset, the frame's bytes), damage as (offset, end), and where frames may be appended.
    fn read(bytes: &[u8]) -> (Intact, Damaged, usize) {
        let (mut entries, mut damages) = (Vec::new(), Vec::new());
        let mut frames = Frames::new(bytes, SEGMENT_HEADER_LEN);
        let mut position = SEGMENT_HEADER_LEN.min(bytes.len());
        for frame in &mut frames {
            let (offset, end) = match frame {
                Frame::Entry { offset, end, entry } => {
                    entries.push((offset, encode_frame(&entry)));
                    (offset, end)
                }
                Frame::Damage { offset, end } => {
                    damages.push((offset, end));
                    (offset, end)
                }
            };
            assert!(offset == position && end > offset, "frames and damage follow each other without gaps");
            position = end;
        }
        assert_eq!(frames.intact_end(), position);
        assert_eq!(frames.has_torn_tail(), position < bytes.len());
        assert!(frames.next().is_none());
        (entries, damages, position)
    }

    #[test]
    fn an_append_that_was_stopped_is_told_from_damage() {
        let frame = encode_frame(&JournalEntry::BlobGone { digest: Digest::of(b"any") });
        for end in 0..frame.len() {
            assert!(is_torn(&frame[..end]), "cut at {end}");
            let pages = [&frame[..end], &vec![0; frame.len() - end]].concat();
            assert!(is_torn(&pages), "not written from {end} on");
        }
        for at in FRAME_HEADER..frame.len() {
            let mut damaged = frame.clone();
            damaged[at] = if damaged[at] == 1 { 2 } else { 1 };
            assert!(!is_torn(&damaged), "changed at {at}");
        }
        assert!(!is_torn(b"something else"));
    }

    fn plain_row() -> Row {
        Row { record: plain_record(), birth: PartialId(5), superseded: Some(UnixMillis(2)) }
    }

    fn gone(seed: u8) -> JournalEntry {
        JournalEntry::BlobGone { digest: Digest::from_bytes([seed; 32]) }
    }

    #[test]
    fn the_format_stays_as_it_was_released() {
        let forgotten = JournalEntry::Forgotten { key: KeyHash::from_bytes([9; 16]), place: 0 };
        let frame = encode_frame(&forgotten);
        assert_eq!(frame[..8], [0x00, 0xa7, b'J', 0xf1, 19, 0, 0, 0]);
        assert_eq!(frame[12..], [&[18, 2][..], &[9; 16], &[1]].concat());
        let record = encode_record(&plain_record());
        let updated = encode_payload(&JournalEntry::Updated { row: plain_row() }, true);
        assert_eq!(unstuff(&updated).unwrap(), [&[6, record.len() as u8][..], &record, &[5, 1, 2]].concat());
        let (key, at) = (KeyHash::from_bytes([9; 16]), UnixMillis(4));
        let superseded = JournalEntry::Superseded { key, variant: 3, birth: PartialId(5), at };
        assert_eq!(unstuff(&encode_payload(&superseded, true)).unwrap(), [&[7][..], &[9; 16], &[3, 5, 4]].concat());
    }

    #[test]
    fn entries_of_the_first_release_are_read() {
        let digest = Digest::from_bytes([0xab; 32]);
        let record = encode_record(&Record { body: BodyRef::Blob(digest), ..plain_record() });
        let old = |kind: u8, end: &[u8]| stuff(&[&[kind, record.len() as u8][..], &record, end].concat());
        for (payload, is_update) in [(old(0, &[0]), false), (old(1, &[]), true)] {
            let row = match decode_payload(&payload) {
                Some(JournalEntry::Stored { row, sums: None, supersedes: None }) if !is_update => row,
                Some(JournalEntry::Updated { row }) if is_update => row,
                other => panic!("{other:?}"),
            };
            assert_eq!((row.birth, row.superseded), (PartialId(0xabab_abab_abab_abab), None));
            assert_eq!(row.place(), row.record.variant());
            assert_eq!(encode_record(&row.record), record);
        }
    }

    #[test]
    fn a_torn_tail_is_not_damage_and_damage_is_not_a_torn_tail() {
        let (bytes, places) = segment(&[gone(1), gone(2), gone(3)]);
        let (_, second_end) = places[1];
        for cut in second_end..bytes.len() {
            let (entries, damages, end) = read(&bytes[..cut]);
            assert_eq!((entries.len(), damages, end), (2, vec![], second_end));
        }
        for filler in [0, 0xff] {
            let mut padded = bytes[..second_end].to_vec();
            padded.resize(second_end + 5000, filler);
            assert_eq!(read(&padded).2, second_end, "a file that was extended but not written");
        }
        for at in places[1].0..second_end {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            let (entries, damages, end) = read(&damaged);
            assert_eq!((entries.len(), damages, end), (2, vec![places[1]], bytes.len()), "changed at {at}");
        }
    }

    #[test]
    fn frames_inside_of_a_payload_are_never_found() {
        // Who chooses content chooses its sums, so they can spell a frame.
        let hostile = encode_frame(&gone(6));
        let mut spelled = hostile.clone();
        spelled.resize(hostile.len().next_multiple_of(4), 0);
        let crcs: Vec<u32> = spelled.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let sums = BlockSums::new(BlockSize::MIN, crcs.len() as u64 * 65536, crcs).unwrap();
        let (mut bytes, places) =
            segment(&[JournalEntry::Stored { row: plain_row(), sums: Some(sums), supersedes: None }, gone(1)]);
        bytes[places[0].0 + 5] ^= 1;
        let (entries, damages, _) = read(&bytes);
        assert_eq!((entries, damages), (vec![(places[1].0, encode_frame(&gone(1)))], vec![places[0]]));
    }

    #[test]
    fn sums_that_do_not_fit_are_left_out_rather_than_the_entry() {
        let blocks = MAX_PAYLOAD / 4;
        let sums = BlockSums::new(BlockSize::MIN, blocks as u64 * 65536, vec![0x0101_0101; blocks]).unwrap();
        let entry = JournalEntry::Stored { row: plain_row(), sums: Some(sums), supersedes: None };
        let (bytes, _) = segment(&[entry]);
        let frame = Frames::new(&bytes, SEGMENT_HEADER_LEN).next();
        assert!(matches!(frame, Some(Frame::Entry { entry: JournalEntry::Stored { sums: None, .. }, .. })));
    }

    #[test]
    fn looking_behind_damage_takes_time_in_proportion() {
        // Claims of long payloads at every step: looking at each of them to its end would take hours.
        let mut bytes = encode_segment_header(&SegmentHeader { drive: 1, sequence: 1 });
        while bytes.len() < 8 * 1024 * 1024 {
            bytes.extend_from_slice(&MARKER);
            bytes.extend_from_slice(&[0xff, 0xff, 0x1f, 0x00, 1, 1, 1, 1]);
        }
        bytes.extend_from_slice(&encode_frame(&gone(1)));
        assert_eq!(read(&bytes).0.len(), 1);
    }

    proptest! {
        #[test]
        fn entries_come_back_as_they_were(entries in prop::collection::vec(any_entry(), 0..8)) {
            let (bytes, places) = segment(&entries);
            let expected: Vec<_> = places.iter().map(|(from, to)| (*from, bytes[*from..*to].to_vec())).collect();
            prop_assert_eq!(read(&bytes), (expected, vec![], bytes.len()));
        }

        #[test]
        fn damage_takes_only_the_entries_it_touches(
            entries in prop::collection::vec(any_entry(), 1..10),
            damage in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..60)), 1..4),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let (intact, places) = segment(&entries);
            let mut bytes = intact.clone();
            for (at, new) in damage {
                let at = SEGMENT_HEADER_LEN + at.index(bytes.len() - SEGMENT_HEADER_LEN);
                bytes[at..].iter_mut().zip(new).for_each(|(to, from)| *to = from);
            }
            if let Some(cut) = cut {
                bytes.truncate(SEGMENT_HEADER_LEN + cut.index(bytes.len() - SEGMENT_HEADER_LEN));
            }
            let untouched = places.iter().filter(|(from, to)| bytes.get(*from..*to) == Some(&intact[*from..*to]));
            let expected: Vec<_> = untouched.map(|(from, to)| (*from, intact[*from..*to].to_vec())).collect();
            prop_assert_eq!(read(&bytes).0, expected);
        }

        #[test]
        fn lost_and_added_bytes_take_only_the_entries_around_them(
            entries in prop::collection::vec(any_entry(), 1..6),
            at in any::<prop::sample::Index>(),
            lost in 0usize..200,
            added in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let (intact, places) = segment(&entries);
            let from = SEGMENT_HEADER_LEN + at.index(intact.len() - SEGMENT_HEADER_LEN);
            let to = (from + lost).min(intact.len());
            let bytes = [&intact[..from], &added, &intact[to..]].concat();
            let found: Vec<_> = read(&bytes).0.into_iter().map(|(_, frame)| frame).collect();
            // An entry stays whole also when equal bytes take the place of its own.
            let all: Vec<_> = places.iter().map(|(begin, end)| &intact[*begin..*end]).collect();
            let mut rest = found.iter();
            for (frame, (begin, end)) in all.iter().zip(&places) {
                if *end <= from || *begin >= to {
                    prop_assert!(rest.any(|found| found == frame));
                }
            }
            prop_assert!(found.iter().all(|found| all.contains(&&found[..])));
        }

        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(prop_oneof![3 => any::<u8>(), 1 => Just(0)], 0..400), start in 0usize..500) {
            let with_markers = bytes.chunks(17).collect::<Vec<_>>().join(&MARKER[..]);
            for bytes in [bytes.clone(), with_markers] {
                prop_assert!(Frames::new(&bytes, start).count() <= bytes.len());
            }
            let _ = decode_payload(&bytes);
        }
    }
}
