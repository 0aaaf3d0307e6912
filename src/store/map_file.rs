//! The file beside a partial body: what it belongs to, and the states of its blocks in the order they came.
//!
//! Only the bytes. Numbers are little-endian.
//! ```text
//! header    magic (8), format version u32, block size u32, length of the record u32, record (see `meta`),
//!           CRC-32C u32 of all that, zeros up to a multiple of 16
//! copy      the same with another magic: what the body belongs to must not hang on one bit. Releases that do not know it
//!           pass it over as they do what is not intact
//! block     index u32, valid length u32, CRC-32C of the valid bytes u32, CRC-32C of these 12 bytes u32
//! midstate  FFFFFFFF, mark of the blocks u32, position u64, state (32), zeros (12), CRC-32C of these 60 bytes u32
//! digest    the same with the mark 0, the length for the position, the digest for the state, and a one before zeros
//! older     the same with a two: the position is the time in milliseconds since when another version has the body's
//!           place, 0 when it has its place again
//! ```
//! Everything behind the header is appended and begins at a multiple of 16. The last intact record of a block
//! counts; what is not intact is passed over. The map may be ahead of the data after a crash, therefore a block
//! counts only when its CRC holds.

use std::collections::BTreeMap;

use crc32c::crc32c;

use super::block_map::{BlockMap, BlockSize, MapRecord};
use super::hasher::Midstate;
use super::journal_format::u32_at;
use super::meta::{MAX_RECORD, MetaError, decode_record, encode_record};
use crate::content::{Digest, Record, UnixMillis};

const MAGIC: [u8; 8] = *b"WSTNMAP\0";
/// What the header's copy begins with.
const COPY: [u8; 8] = *b"WSTNMAPC";
/// The version that is written. A new one is added with a branch in [`decode`] that still reads the old one.
const VERSION: u32 = 1;
/// Magic, version, block size and length of the record.
const FIXED_HEADER: usize = 20;
/// Records begin at multiples of this.
const SLOT: usize = 16;
/// Stands in a midstate where a block's record has its index; no block has this one.
const MIDSTATE_TAG: u32 = u32::MAX;
const MIDSTATE_LEN: usize = 4 * SLOT;
/// What a record of a midstate's form is, behind its state.
const IS_MIDSTATE: u32 = 0;
const IS_DIGEST: u32 = 1;
const IS_OLDER: u32 = 2;

/// The file cannot be used; the body beside it is worth nothing without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum MapError {
    /// It does not begin like a map.
    #[error("it is not a block map")]
    NotAMap,
    /// Written by a newer release.
    #[error("the block map has format {found}, this release knows up to {VERSION}")]
    NewerFormat {
        /// Version found.
        found: u32,
    },
    /// The header is cut or its bytes changed.
    #[error("the block map's header is damaged")]
    Damaged,
    /// The header is intact, but its record cannot be used.
    #[error("the block map's header: {0}")]
    Record(#[from] MetaError),
}

/// What a file said.
#[derive(Debug, Clone)]
pub(super) struct DecodedMap {
    /// What the body belongs to.
    pub(super) record: Record,
    /// Of the header and its copy only one is intact, or the file is of a release that made no copy.
    pub(super) has_one_header: bool,
    /// The blocks that were written down. After an unclean stop each is to be checked before it counts.
    pub(super) map: BlockMap,
    /// The farthest midstate that was taken over the blocks as `map` knows them.
    pub(super) midstate: Option<Midstate>,
    /// Length and digest of the body, once it was complete.
    pub(super) complete: Option<(u64, Digest)>,
    /// Since when another version has its place, if one has.
    pub(super) superseded: Option<UnixMillis>,
    /// End of the last intact record in bytes: set the file's length to this before appending, so that what
    /// follows is aligned.
    pub(super) records_end: usize,
}

/// The begin of a new file: the header and its copy.
pub(super) fn encode_begin(record: &Record, block_size: BlockSize) -> Vec<u8> {
    [encode_header(record, block_size), encode_as(COPY, record, block_size)].concat()
}

/// The header alone, as files of earlier releases begin.
pub(super) fn encode_header(record: &Record, block_size: BlockSize) -> Vec<u8> {
    encode_as(MAGIC, record, block_size)
}

fn encode_as(magic: [u8; 8], record: &Record, block_size: BlockSize) -> Vec<u8> {
    let record = encode_record(record);
    let mut header = magic.to_vec();
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&block_size.bytes().to_le_bytes());
    // A record beyond 4 GiB cannot be read back anyhow, since it is beyond the limit.
    header.extend_from_slice(&u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes());
    header.extend_from_slice(&record);
    header.extend_from_slice(&crc32c(&header).to_le_bytes());
    header.resize(header.len().next_multiple_of(SLOT), 0);
    header
}

impl MapRecord {
    /// The bytes to append.
    pub(super) fn encode(&self) -> [u8; SLOT] {
        let mut slot = [0; SLOT];
        let (fields, check) = slot.split_at_mut(12);
        let numbers = [self.block, self.valid_len, self.crc].into_iter().flat_map(u32::to_le_bytes);
        fields.iter_mut().zip(numbers).for_each(|(to, from)| *to = from);
        check.copy_from_slice(&crc32c(fields).to_le_bytes());
        slot
    }

    /// Reads one slot; `None` when it is not an intact record.
    fn decode(slot: &[u8]) -> Option<Self> {
        let (fields, check) = slot.split_at_checked(12)?;
        if u32_at(check, 0)? != crc32c(fields) {
            return None;
        }
        Some(Self { block: u32_at(fields, 0)?, valid_len: u32_at(fields, 4)?, crc: u32_at(fields, 8)? })
    }
}

/// The bytes that keep a midstate. `map` must be the map of the body that was hashed; it ties the midstate to the
/// content of its blocks. `None` when the position is not at a block's begin or beyond the contiguous blocks.
pub(super) fn encode_midstate(midstate: &Midstate, map: &BlockMap) -> Option<[u8; MIDSTATE_LEN]> {
    let (_, mark) = map.prefix_marks().find(|(end, _)| *end == midstate.position)?;
    Some(encode_wide(mark, midstate.position, &midstate.state, IS_MIDSTATE))
}

/// The bytes that say what the body is, so that its data is found where it was moved to when the rest was cut off.
pub(super) fn encode_digest(length: u64, digest: &Digest) -> [u8; MIDSTATE_LEN] {
    encode_wide(0, length, digest.as_bytes(), IS_DIGEST)
}

/// The bytes that say since when the body is one of an older version, or that it is not any more.
pub(super) fn encode_superseded(since: Option<UnixMillis>) -> [u8; MIDSTATE_LEN] {
    encode_wide(0, since.map_or(0, |since| since.0.max(1)), &[0; 32], IS_OLDER)
}

fn encode_wide(mark: u32, position: u64, state: &[u8; 32], kind: u32) -> [u8; MIDSTATE_LEN] {
    let mut bytes = [0; MIDSTATE_LEN];
    let (fields, check) = bytes.split_at_mut(MIDSTATE_LEN - 4);
    let numbers = MIDSTATE_TAG.to_le_bytes().into_iter().chain(mark.to_le_bytes()).chain(position.to_le_bytes());
    let all = numbers.chain(*state).chain(kind.to_le_bytes());
    fields.iter_mut().zip(all).for_each(|(to, from)| *to = from);
    check.copy_from_slice(&crc32c(fields).to_le_bytes());
    bytes
}

/// Reads a file, whatever happened to its end.
///
/// # Errors
/// When neither its header nor the copy is intact or of this format. Damage behind them is no error.
pub(super) fn decode(bytes: &[u8]) -> Result<DecodedMap, MapError> {
    let Header { record, block_size, end: header_end, is_alone: has_one_header } = decode_begin(bytes)?;
    let mut states = BTreeMap::new();
    let mut midstates = BTreeMap::new();
    let (mut complete, mut superseded) = (None, None);
    let mut position = header_end;
    let mut records_end = header_end;
    while let Some(slot) = bytes.get(position..position + SLOT) {
        let state = MapRecord::decode(slot).filter(|state| is_possible(*state, block_size, record.length));
        if let Some(state) = state {
            states.insert(state.block, state);
            position += SLOT;
            records_end = position;
        } else if let Some((mark, kind, midstate)) = bytes.get(position..).and_then(decode_wide) {
            match kind {
                IS_MIDSTATE => drop(midstates.insert((midstate.position, mark), midstate)),
                IS_DIGEST => complete = Some((midstate.position, Digest::from_bytes(midstate.state))),
                IS_OLDER => superseded = Some(UnixMillis(midstate.position)).filter(|since| since.0 > 0),
                _ => {}
            }
            position += MIDSTATE_LEN;
            records_end = position;
        } else {
            position += SLOT;
        }
    }
    let mut map = BlockMap::new(block_size);
    for state in states.into_values() {
        map.apply(state);
    }
    let midstate = map.prefix_marks().filter_map(|end_and_mark| midstates.remove(&end_and_mark)).last();
    Ok(DecodedMap { record, has_one_header, map, midstate, complete, superseded, records_end })
}

/// Every state of `block` that a file has, in the order they came. When the last one does not hold after a cut, one before
/// may: its bytes were durable before the block went on.
pub(super) fn states_of(bytes: &[u8], block: u64) -> Vec<MapRecord> {
    let Ok(Header { record, block_size, end, .. }) = decode_begin(bytes) else { return Vec::new() };
    let (slots, _) = bytes.get(end..).unwrap_or_default().as_chunks::<SLOT>();
    let states = slots.iter().filter_map(|slot| MapRecord::decode(slot));
    let is_it = |state: &MapRecord| u64::from(state.block) == block && is_possible(*state, block_size, record.length);
    states.filter(is_it).collect()
}

/// All that a file has behind its header, up to `end`.
pub(super) fn records_until(bytes: &[u8], end: u64) -> Option<&[u8]> {
    let begin = decode_begin(bytes).ok()?.end;
    bytes.get(begin..usize::try_from(end).ok()?)
}

/// What the begin of a file says.
struct Header {
    record: Record,
    block_size: BlockSize,
    /// Where the records begin; padding may be cut off before.
    end: usize,
    /// It has no intact copy, or is one that has no intact header.
    is_alone: bool,
}

/// The header, or its copy if that alone is intact. Files of earlier releases have no copy.
fn decode_begin(bytes: &[u8]) -> Result<Header, MapError> {
    let copy_at = |at: usize| {
        let copy = bytes.get(at..).and_then(|bytes| decode_header(bytes, COPY).ok())?;
        Some(Header { end: at + copy.end, ..copy })
    };
    let error = match decode_header(bytes, MAGIC) {
        Ok(header) => {
            return Ok(match copy_at(header.end) {
                Some(copy) => Header { end: copy.end, is_alone: false, ..header },
                None => header,
            });
        }
        Err(error) => error,
    };
    let farthest = bytes.len().min((FIXED_HEADER + MAX_RECORD + 4).next_multiple_of(SLOT));
    (SLOT..=farthest).step_by(SLOT).find_map(copy_at).ok_or(error)
}

/// The header that `bytes` begin with.
fn decode_header(bytes: &[u8], magic: [u8; 8]) -> Result<Header, MapError> {
    if !bytes.starts_with(&magic) {
        return Err(MapError::NotAMap);
    }
    let number = |at| u32_at(bytes, at).ok_or(MapError::Damaged);
    let (version, block_size, length) = (number(8)?, number(12)?, number(16)? as usize);
    if version > VERSION {
        return Err(MapError::NewerFormat { found: version });
    }
    if version == 0 || length > MAX_RECORD {
        return Err(MapError::Damaged);
    }
    let checked = FIXED_HEADER + length;
    let record = bytes.get(FIXED_HEADER..checked).ok_or(MapError::Damaged)?;
    if number(checked)? != crc32c(bytes.get(..checked).unwrap_or_default()) {
        return Err(MapError::Damaged);
    }
    let block_size = BlockSize::new(block_size).map_err(|_| MapError::Damaged)?;
    let end = (checked + 4).next_multiple_of(SLOT);
    Ok(Header { record: decode_record(record)?, block_size, end, is_alone: true })
}

/// What has a midstate's form at the begin of `bytes`, with its mark and its kind.
fn decode_wide(bytes: &[u8]) -> Option<(u32, u32, Midstate)> {
    let (fields, check) = bytes.get(..MIDSTATE_LEN)?.split_at_checked(MIDSTATE_LEN - 4)?;
    if u32_at(fields, 0)? != MIDSTATE_TAG || u32_at(check, 0)? != crc32c(fields) {
        return None;
    }
    let position = u64::from_le_bytes(fields.get(8..16)?.try_into().ok()?);
    Some((u32_at(fields, 4)?, u32_at(fields, 48)?, Midstate { position, state: fields.get(16..48)?.try_into().ok()? }))
}

/// Whether a block of the body can have this state.
fn is_possible(state: MapRecord, block_size: BlockSize, length: Option<u64>) -> bool {
    let end = block_size.begin_of(u64::from(state.block)).saturating_add(u64::from(state.valid_len));
    let fits = state.valid_len <= block_size.bytes() && state.block != MIDSTATE_TAG;
    fits && (state.valid_len == 0 || length.is_none_or(|length| end <= length))
}

#[cfg(test)]
#[path = "map_file_tests.rs"]
mod tests;
