//! The bytes of a drive's journal: what was stored, changed and forgotten there, in order.
//!
//! Only the bytes; when they are written and synced, and when a journal is compacted, is the drive's business.
//! Numbers are little-endian.
//! ```text
//! segment   magic (8), format version u32, drive id u128, sequence number u64, CRC-32C u32 of all that; frames
//! frame     marker (4), length of the payload u32, CRC-32C u32 of length and payload, payload
//! payload   kind (1), fields in postcard's encoding; stuffed, so that it has no zero byte
//! ```
//! The marker begins with a zero byte, therefore nothing that a payload carries from elsewhere (field values,
//! sums of chosen content) can pass for a frame when a reader looks for the next one behind damage.

use crc32c::{crc32c, crc32c_append};
use serde::{Deserialize, Serialize};

use super::block_map::{BlockSize, BlockSums};
use super::meta::{decode_record, encode_record};
use crate::content::{Digest, KeyHash, Record};

const MAGIC: [u8; 8] = *b"WSTNJRN\0";
/// The version that is written. A release that changes a frame's form or adds a kind raises it, and goes on
/// reading segments of the one before.
const VERSION: u32 = 1;
const MARKER: [u8; 4] = [0x00, 0xa7, b'J', 0xf1];
/// Marker, length and checksum.
const FRAME_HEADER: usize = 12;

/// Length of a segment's header in bytes: where its first frame begins.
pub(super) const SEGMENT_HEADER_LEN: usize = 40;
/// Most bytes that the payload of one frame may have.
pub(super) const MAX_PAYLOAD: usize = 64 * 1024 * 1024;

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// The drive it was written on.
    pub(super) drive: u128,
    /// Later segments have higher numbers.
    pub(super) sequence: u64,
}

/// A segment cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SegmentError {
    /// It does not begin like a segment.
    #[error("it is not a journal segment")]
    NotASegment,
    /// The header is cut or its bytes changed.
    #[error("the journal segment's header is damaged")]
    Damaged,
    /// Written by a newer release.
    #[error("the journal segment has format {found}, this release knows up to {VERSION}")]
    NewerFormat {
        /// Version found.
        found: u32,
    },
}

/// One event of a drive's life.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "most entries are of the large kind, and none is kept for long")]
pub(super) enum JournalEntry {
    /// A response was stored. `sums` are those of its blob, when that is new on the drive.
    Stored {
        /// What is known of the response.
        record: Record,
        /// The sums of the blob's blocks.
        sums: Option<BlockSums>,
    },
    /// What is known of a stored response changed; its body stayed.
    Updated {
        /// What is known now.
        record: Record,
    },
    /// A stored response was forgotten; its blob may stay for others.
    Forgotten {
        /// Hash of its key.
        key: KeyHash,
        /// Which of the key's variants ([`Record::variant`]).
        variant: u64,
    },
    /// A blob was deleted.
    BlobGone {
        /// Its name.
        digest: Digest,
    },
}

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

#[derive(Serialize, Deserialize)]
enum EntryV1<'a> {
    Stored(&'a [u8], #[serde(borrow)] Option<SumsV1<'a>>),
    Updated(&'a [u8]),
    Forgotten([u8; 16], u64),
    BlobGone([u8; 32]),
}

#[derive(Serialize, Deserialize)]
struct SumsV1<'a> {
    block_size: u32,
    length: u64,
    /// Four bytes for each block.
    crcs: &'a [u8],
}

/// The begin of a new segment.
pub(super) fn encode_segment_header(header: &SegmentHeader) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SEGMENT_HEADER_LEN);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&header.drive.to_le_bytes());
    bytes.extend_from_slice(&header.sequence.to_le_bytes());
    bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
    bytes
}

/// Reads the header at the begin of a segment's bytes. Its frames begin at [`SEGMENT_HEADER_LEN`].
///
/// # Errors
/// When it is not intact or of a newer format.
pub(super) fn decode_segment_header(bytes: &[u8]) -> Result<SegmentHeader, SegmentError> {
    if !bytes.starts_with(&MAGIC) {
        return Err(SegmentError::NotASegment);
    }
    let version = u32_at(bytes, 8).ok_or(SegmentError::Damaged)?;
    if version > VERSION {
        return Err(SegmentError::NewerFormat { found: version });
    }
    let intact = || {
        let fields = bytes.get(..SEGMENT_HEADER_LEN - 4)?;
        let drive = u128::from_le_bytes(fields.get(12..28)?.try_into().ok()?);
        let sequence = u64::from_le_bytes(fields.get(28..36)?.try_into().ok()?);
        let holds = u32_at(bytes, SEGMENT_HEADER_LEN - 4)? == crc32c(fields) && version == VERSION;
        holds.then_some(SegmentHeader { drive, sequence })
    };
    intact().ok_or(SegmentError::Damaged)
}

/// One frame, to be appended. Sums that would make it larger than [`MAX_PAYLOAD`] are left out (16 TiB at 1 MiB):
/// the blob is then known by its digest alone.
pub(super) fn encode_frame(entry: &JournalEntry) -> Vec<u8> {
    let payload = encode_payload(entry, true);
    let payload = if payload.len() > MAX_PAYLOAD { encode_payload(entry, false) } else { payload };
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    let check = crc32c_append(crc32c(&length), &payload).to_le_bytes();
    [&MARKER[..], &length, &check, &payload].concat()
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

fn encode_payload(entry: &JournalEntry, with_sums: bool) -> Vec<u8> {
    let (record, crcs);
    let stored = match entry {
        JournalEntry::Stored { record: stored, sums } => {
            record = encode_record(stored);
            let sums = sums.as_ref().filter(|_| with_sums);
            crcs = sums.map(|sums| sums.crcs().iter().flat_map(|crc| crc.to_le_bytes()).collect::<Vec<u8>>());
            let sums = sums.zip(crcs.as_deref()).map(|(sums, crcs)| SumsV1 {
                block_size: sums.block_size().bytes(),
                length: sums.length(),
                crcs,
            });
            EntryV1::Stored(&record, sums)
        }
        JournalEntry::Updated { record: updated } => {
            record = encode_record(updated);
            EntryV1::Updated(&record)
        }
        JournalEntry::Forgotten { key, variant } => EntryV1::Forgotten(*key.as_bytes(), *variant),
        JournalEntry::BlobGone { digest } => EntryV1::BlobGone(*digest.as_bytes()),
    };
    #[allow(clippy::expect_used, reason = "a vector takes any number of bytes, and all sequences know their length")]
    let plain = postcard::to_stdvec(&stored).expect("plain data can be encoded");
    stuff(&plain)
}

fn decode_payload(payload: &[u8]) -> Option<JournalEntry> {
    let plain = unstuff(payload)?;
    let (stored, []) = postcard::take_from_bytes::<EntryV1<'_>>(&plain).ok()? else { return None };
    Some(match stored {
        EntryV1::Stored(record, sums) => JournalEntry::Stored {
            record: decode_record(record).ok()?,
            sums: match sums {
                Some(sums) => Some(decode_sums(&sums)?),
                None => None,
            },
        },
        EntryV1::Updated(record) => JournalEntry::Updated { record: decode_record(record).ok()? },
        EntryV1::Forgotten(key, variant) => JournalEntry::Forgotten { key: KeyHash::from_bytes(key), variant },
        EntryV1::BlobGone(digest) => JournalEntry::BlobGone { digest: Digest::from_bytes(digest) },
    })
}

fn decode_sums(sums: &SumsV1<'_>) -> Option<BlockSums> {
    let (crcs, []) = sums.crcs.as_chunks::<4>() else { return None };
    let crcs = crcs.iter().map(|crc| u32::from_le_bytes(*crc)).collect();
    BlockSums::new(BlockSize::new(sums.block_size).ok()?, sums.length, crcs).ok()
}

/// Consistent overhead byte stuffing (Cheshire and Baker, 1999): each run of up to 254 non-zero bytes gets its
/// length + 1 in front, which also stands for the zero that ended it, unless the run was a full one.
fn stuff(plain: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(plain.len() + plain.len() / 254 + 1);
    for run in plain.split(|byte| *byte == 0) {
        let mut pieces = run.chunks(254).peekable();
        if pieces.peek().is_none() {
            stuffed.push(1);
        }
        let mut full = false;
        for piece in pieces {
            stuffed.push(piece.len() as u8 + 1);
            stuffed.extend_from_slice(piece);
            full = piece.len() == 254;
        }
        // A full run stands for no zero, so the one that ended it is an empty run of its own.
        if full {
            stuffed.push(1);
        }
    }
    stuffed
}

/// Undoes [`stuff`]; `None` for bytes that it cannot have made.
fn unstuff(stuffed: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(stuffed.len());
    let mut rest = stuffed;
    while let Some((&code, later)) = rest.split_first() {
        let (run, later) = later.split_at_checked(usize::from(code.checked_sub(1)?))?;
        plain.extend_from_slice(run);
        if code != u8::MAX && !later.is_empty() {
            plain.push(0);
        }
        rest = later;
    }
    Some(plain)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}
