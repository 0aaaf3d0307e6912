//! The file beside a partial body: what it belongs to, and the states of its blocks in the order they came.
//!
//! Only the bytes. Numbers are little-endian.
//! ```text
//! header    magic (8), format version u32, block size u32, length of the record u32, record (see `meta`),
//!           CRC-32C u32 of all that, zeros up to a multiple of 16
//! block     index u32, valid length u32, CRC-32C of the valid bytes u32, CRC-32C of these 12 bytes u32
//! midstate  FFFFFFFF, mark of the blocks u32, position u64, state (32), zeros (12), CRC-32C of these 60 bytes u32
//! ```
//! Everything behind the header is appended and begins at a multiple of 16. The last intact record of a block
//! counts; what is not intact is passed over. The map may be ahead of the data after a crash, therefore a block
//! counts only when its CRC holds.

use std::collections::BTreeMap;

use crc32c::crc32c;

use super::block_map::{BlockMap, BlockSize, MapRecord};
use super::hasher::Midstate;
use super::meta::{MAX_RECORD, MetaError, decode_record, encode_record};
use crate::content::Record;

const MAGIC: [u8; 8] = *b"WSTNMAP\0";
/// The version that is written. A new one is added with a branch in [`decode`] that still reads the old one.
const VERSION: u32 = 1;
/// Magic, version, block size and length of the record.
const FIXED_HEADER: usize = 20;
/// Records begin at multiples of this.
const SLOT: usize = 16;
/// Stands in a midstate where a block's record has its index; no block has this one.
const MIDSTATE_TAG: u32 = u32::MAX;
const MIDSTATE_LEN: usize = 4 * SLOT;

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
    /// Size of the body's blocks.
    pub(super) block_size: BlockSize,
    /// The blocks that were written down. After an unclean stop each is to be checked before it counts.
    pub(super) map: BlockMap,
    /// The farthest midstate that was taken over the blocks as `map` knows them.
    pub(super) midstate: Option<Midstate>,
    /// End of the last intact record in bytes: set the file's length to this before appending, so that what
    /// follows is aligned.
    pub(super) records_end: usize,
}

/// The begin of a new file.
pub(super) fn encode_header(record: &Record, block_size: BlockSize) -> Vec<u8> {
    let record = encode_record(record);
    let mut header = MAGIC.to_vec();
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
    let mut bytes = Vec::with_capacity(MIDSTATE_LEN);
    bytes.extend_from_slice(&MIDSTATE_TAG.to_le_bytes());
    bytes.extend_from_slice(&mark.to_le_bytes());
    bytes.extend_from_slice(&midstate.position.to_le_bytes());
    bytes.extend_from_slice(&midstate.state);
    bytes.resize(MIDSTATE_LEN - 4, 0);
    bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
    bytes.try_into().ok()
}

/// Reads a file, whatever happened to its end.
///
/// # Errors
/// When its header is not intact or of a newer format. Damage behind the header is no error.
pub(super) fn decode(bytes: &[u8]) -> Result<DecodedMap, MapError> {
    let (record, block_size, header_end) = decode_header(bytes)?;
    let mut map = BlockMap::new(block_size);
    let mut midstates = BTreeMap::new();
    let mut position = header_end;
    let mut records_end = header_end;
    while let Some(rest) = bytes.get(position..).filter(|rest| rest.len() >= SLOT) {
        let step = if let Some((mark, midstate)) = decode_midstate(rest) {
            midstates.insert((midstate.position, mark), midstate);
            Some(MIDSTATE_LEN)
        } else {
            let intact = MapRecord::decode(rest.get(..SLOT).unwrap_or_default());
            intact.filter(|state| within(*state, block_size, record.length) && map.apply(*state)).map(|_| SLOT)
        };
        position += step.unwrap_or(SLOT);
        if step.is_some() {
            records_end = position;
        }
    }
    let midstate = map.prefix_marks().filter_map(|end_and_mark| midstates.remove(&end_and_mark)).last();
    Ok(DecodedMap { record, block_size, map, midstate, records_end })
}

/// The record, the block size and the end of the header with its padding, which may be cut off.
fn decode_header(bytes: &[u8]) -> Result<(Record, BlockSize, usize), MapError> {
    if !bytes.starts_with(&MAGIC) {
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
    Ok((decode_record(record)?, block_size, (checked + 4).next_multiple_of(SLOT)))
}

/// A midstate at the begin of `bytes` with its mark.
fn decode_midstate(bytes: &[u8]) -> Option<(u32, Midstate)> {
    let (fields, check) = bytes.get(..MIDSTATE_LEN)?.split_at_checked(MIDSTATE_LEN - 4)?;
    if u32_at(fields, 0)? != MIDSTATE_TAG || u32_at(check, 0)? != crc32c(fields) {
        return None;
    }
    let position = u64::from_le_bytes(fields.get(8..16)?.try_into().ok()?);
    Some((u32_at(fields, 4)?, Midstate { position, state: fields.get(16..48)?.try_into().ok()? }))
}

/// Whether a state stays within the body's length.
fn within(state: MapRecord, block_size: BlockSize, length: Option<u64>) -> bool {
    let end = block_size.begin_of(u64::from(state.block)).saturating_add(u64::from(state.valid_len));
    state.valid_len == 0 || length.is_none_or(|length| end <= length)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}
