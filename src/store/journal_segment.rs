//! The header of a journal segment: which drive it belongs to and where it stands among the others.
//!
//! Numbers are little-endian.
//! ```text
//! segment   magic (8), format version u32, drive id u128, sequence number u64, CRC-32C u32 of all that; frames
//! ```
//! The frames are the business of `journal_format`.

use crc32c::crc32c;

use super::journal_format::u32_at;

const MAGIC: [u8; 8] = *b"WSTNJRN\0";
/// The version that is written. A release that changes a frame's form or adds a kind raises it, and goes on
/// reading segments of the ones before. 2 has kinds that keep older versions of a response.
const VERSION: u32 = 2;

/// Length of a segment's header in bytes: where its first frame begins.
pub(super) const SEGMENT_HEADER_LEN: usize = 40;

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
        let holds = u32_at(bytes, SEGMENT_HEADER_LEN - 4)? == crc32c(fields) && version != 0;
        holds.then_some(SegmentHeader { drive, sequence })
    };
    intact().ok_or(SegmentError::Damaged)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_format_stays_as_it_was_released() {
        let header = encode_segment_header(&SegmentHeader { drive: 0x0102, sequence: 3 });
        assert_eq!(header.len(), SEGMENT_HEADER_LEN);
        assert_eq!(header[..36], *b"WSTNJRN\0\x02\0\0\0\x02\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0");
    }

    #[test]
    fn a_segment_header_that_is_not_intact_is_an_error() {
        let header = encode_segment_header(&SegmentHeader { drive: u128::MAX - 5, sequence: 77 });
        assert_eq!(decode_segment_header(&header), Ok(SegmentHeader { drive: u128::MAX - 5, sequence: 77 }));
        for at in 0..header.len() {
            assert!(decode_segment_header(&header[..at]).is_err(), "cut at {at}");
            let mut damaged = header.clone();
            damaged[at] ^= 0x20;
            assert!(decode_segment_header(&damaged).is_err(), "changed at {at}");
        }
        let mut newer = header;
        newer[8] = 3;
        assert_eq!(decode_segment_header(&newer), Err(SegmentError::NewerFormat { found: 3 }));
        assert_eq!(decode_segment_header(b"something else"), Err(SegmentError::NotASegment));
    }

    #[test]
    fn segments_of_the_first_release_are_read() {
        let mut header = encode_segment_header(&SegmentHeader { drive: 0x0102, sequence: 3 });
        header[8] = 1;
        let check = crc32c(&header[..SEGMENT_HEADER_LEN - 4]).to_le_bytes();
        header[SEGMENT_HEADER_LEN - 4..].copy_from_slice(&check);
        assert_eq!(decode_segment_header(&header), Ok(SegmentHeader { drive: 0x0102, sequence: 3 }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..80), known in any::<bool>()) {
            if known {
                bytes.splice(..8.min(bytes.len()), MAGIC);
            }
            prop_assert!(decode_segment_header(&bytes).is_err());
        }
    }
}
