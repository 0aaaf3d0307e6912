//! The file beside a partial body: what it belongs to, and the states of its blocks in the order they came.
//!
//! Only the bytes. Numbers are little-endian.
//! ```text
//! header    magic (8), format version u32, block size u32, length of the record u32, record (see `meta`),
//!           CRC-32C u32 of all that, zeros up to a multiple of 16
//! block     index u32, valid length u32, CRC-32C of the valid bytes u32, CRC-32C of these 12 bytes u32
//! midstate  FFFFFFFF, mark of the blocks u32, position u64, state (32), zeros (12), CRC-32C of these 60 bytes u32
//! digest    the same with the mark 0, the length for the position, the digest for the state, and a one before zeros
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
use crate::content::{Digest, Record};

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
/// What a record of a midstate's form is, behind its state.
const IS_MIDSTATE: u32 = 0;
const IS_DIGEST: u32 = 1;

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
    /// The blocks that were written down. After an unclean stop each is to be checked before it counts.
    pub(super) map: BlockMap,
    /// The farthest midstate that was taken over the blocks as `map` knows them.
    pub(super) midstate: Option<Midstate>,
    /// Length and digest of the body, once it was complete.
    pub(super) complete: Option<(u64, Digest)>,
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
    Some(encode_wide(mark, midstate.position, &midstate.state, IS_MIDSTATE))
}

/// The bytes that say what the body is, so that its data is found where it was moved to when the rest was cut off.
pub(super) fn encode_digest(length: u64, digest: &Digest) -> [u8; MIDSTATE_LEN] {
    encode_wide(0, length, digest.as_bytes(), IS_DIGEST)
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
/// When its header is not intact or of a newer format. Damage behind the header is no error.
pub(super) fn decode(bytes: &[u8]) -> Result<DecodedMap, MapError> {
    let (record, block_size, header_end) = decode_header(bytes)?;
    let mut states = BTreeMap::new();
    let mut midstates = BTreeMap::new();
    let mut complete = None;
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
    Ok(DecodedMap { record, map, midstate, complete, records_end })
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
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::hasher::PrefixHasher;
    use super::super::meta::tests::{any_record, plain_record};
    use super::*;
    use crate::content::ByteRange;

    const SIZE: u64 = 64 * 1024;

    fn content(offset: u64, len: u64) -> Vec<u8> {
        (offset..offset + len).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
    }

    fn midstate_at(position: u64) -> Midstate {
        let mut hasher = PrefixHasher::new();
        hasher.update(&content(0, position));
        hasher.midstate().unwrap()
    }

    fn record_of(length: Option<u64>) -> Record {
        Record { length, ..plain_record() }
    }

    type States = BTreeMap<u32, (u32, u32)>;

    fn states(map: &BlockMap) -> States {
        map.records().map(|record| (record.block, (record.valid_len, record.crc))).collect()
    }

    /// A file as a fill writes it: after each append its length, the blocks and the best midstate.
    struct Written {
        bytes: Vec<u8>,
        header_len: usize,
        steps: Vec<(usize, States, Option<Midstate>)>,
    }

    #[derive(Debug, Clone)]
    enum Op {
        Extend { block: u64, len: u64 },
        Drop { block: u64 },
        Midstate,
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            6 => (0u64..5, prop_oneof![1u64..SIZE, Just(SIZE)]).prop_map(|(block, len)| Op::Extend { block, len }),
            1 => (0u64..5).prop_map(|block| Op::Drop { block }),
            2 => Just(Op::Midstate),
        ];
        prop::collection::vec(op, 1..24)
    }

    fn write(ops: &[Op]) -> Written {
        let mut bytes = encode_header(&record_of(None), BlockSize::MIN);
        let header_len = bytes.len();
        let mut map = BlockMap::new(BlockSize::MIN);
        let mut kept: Vec<Midstate> = Vec::new();
        let mut steps = vec![(header_len, States::new(), None)];
        for op in ops {
            match op {
                Op::Extend { block, len } => {
                    let offset = block * SIZE + map.block(*block).map_or(0, |state| u64::from(state.valid_len));
                    let len = (*len).min((block + 1) * SIZE - offset);
                    let records = map.extend(offset, &content(offset, len)).unwrap();
                    records.iter().for_each(|record| bytes.extend_from_slice(&record.encode()));
                }
                Op::Drop { block } => bytes.extend_from_slice(&map.drop_block(*block).unwrap().encode()),
                Op::Midstate => {
                    let midstate = midstate_at(map.contiguous() / SIZE * SIZE);
                    bytes.extend_from_slice(&encode_midstate(&midstate, &map).unwrap());
                    kept.push(midstate);
                }
            }
            // The same bytes come again after a drop, so a midstate holds whenever its blocks are full.
            let best = kept.iter().filter(|midstate| midstate.position <= map.contiguous()).max_by_key(|m| m.position);
            steps.push((bytes.len(), states(&map), best.copied()));
        }
        Written { bytes, header_len, steps }
    }

    #[test]
    fn the_format_stays_as_it_was_released() {
        let record = MapRecord { block: 1, valid_len: 2, crc: 0x0403_0201 };
        assert_eq!(record.encode()[..12], [1, 0, 0, 0, 2, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(MapRecord::decode(&record.encode()), Some(record));
        assert_eq!(MapRecord::decode(&[0; SLOT]), None, "a hole in the file is no record");
        let header = encode_header(&plain_record(), BlockSize::MAX);
        assert_eq!(header[..20], *b"WSTNMAP\0\x01\0\0\0\0\0\0\x01\x37\0\0\0");
        assert_eq!(header.len() % SLOT, 0);
    }

    #[test]
    fn a_midstate_counts_only_over_the_blocks_it_was_taken_over() {
        let header = encode_header(&record_of(None), BlockSize::MIN);
        let mut map = BlockMap::new(BlockSize::MIN);
        let mut bytes = header.clone();
        let mut append = |part: &[u8]| {
            bytes.extend_from_slice(part);
            decode(&bytes).unwrap()
        };
        for record in map.extend(0, &content(0, 2 * SIZE)).unwrap() {
            append(&record.encode());
        }
        let (one, two) = (midstate_at(SIZE), midstate_at(2 * SIZE));
        assert_eq!(encode_midstate(&midstate_at(3 * SIZE), &map), None, "beyond what is present");
        assert_eq!(encode_midstate(&midstate_at(64), &map), None, "not at a block's begin");
        append(&encode_midstate(&two, &map).unwrap());
        assert_eq!(append(&encode_midstate(&one, &map).unwrap()).midstate, Some(two), "the farthest counts");
        assert_eq!(append(&map.drop_block(1).unwrap().encode()).midstate, Some(one));
        let other = map.extend(SIZE, &vec![0; SIZE as usize]).unwrap();
        assert_eq!(append(&other[0].encode()).midstate, Some(one), "other bytes came instead");
        map.drop_block(1);
        let same = map.extend(SIZE, &content(SIZE, SIZE)).unwrap();
        assert_eq!(append(&same[0].encode()).midstate, Some(two), "the hashed bytes are back");
    }

    #[test]
    fn a_record_beyond_the_body_is_passed_over() {
        let mut map = BlockMap::new(BlockSize::MIN);
        let mut bytes = encode_header(&record_of(Some(SIZE + 10)), BlockSize::MIN);
        for record in map.extend(0, &content(0, SIZE + 10)).unwrap() {
            bytes.extend_from_slice(&record.encode());
        }
        for (block, valid_len) in [(1, 11), (2, 1), (0, SIZE as u32 + 1), (u32::MAX, 1), (u32::MAX - 1, u32::MAX)] {
            bytes.extend_from_slice(&MapRecord { block, valid_len, crc: 0 }.encode());
        }
        assert_eq!(states(&decode(&bytes).unwrap().map), states(&map));
    }

    #[test]
    fn a_header_that_is_not_intact_is_an_error() {
        let header = encode_header(&plain_record(), BlockSize::MIN);
        let unpadded = FIXED_HEADER + encode_record(&plain_record()).len() + 4;
        for end in 0..unpadded {
            assert!(decode(&header[..end]).is_err(), "cut at {end}");
        }
        for end in unpadded..=header.len() {
            assert_eq!(decode(&header[..end]).unwrap().records_end, header.len(), "cut in the padding, at {end}");
        }
        for at in 0..unpadded {
            let mut damaged = header.clone();
            damaged[at] ^= 0x10;
            assert!(decode(&damaged).is_err(), "changed at {at}");
        }
        let mut newer = header;
        newer[8] = 2;
        assert_eq!(decode(&newer).unwrap_err(), MapError::NewerFormat { found: 2 });
        assert_eq!(decode(&[0; 64]).unwrap_err(), MapError::NotAMap);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A crash may cut the file anywhere: what it says is what it said after the last whole append.
        #[test]
        fn a_cut_file_says_what_was_written_before_the_cut(ops in ops(), cut in any::<prop::sample::Index>()) {
            let written = write(&ops);
            let cut = written.header_len + cut.index(written.bytes.len() - written.header_len + 1);
            let decoded = decode(&written.bytes[..cut]).unwrap();
            let (end, expected, midstate) = written.steps.iter().rev().find(|(end, ..)| *end <= cut).unwrap();
            prop_assert_eq!(states(&decoded.map), expected.clone());
            prop_assert_eq!(decoded.records_end, *end);
            let position = |midstate: &Option<Midstate>| midstate.map_or(0, |midstate| midstate.position);
            prop_assert_eq!(position(&decoded.midstate), position(midstate));
            for record in decoded.map.records() {
                let data = content(u64::from(record.block) * SIZE, u64::from(record.valid_len));
                prop_assert!(decoded.map.verify(u64::from(record.block), &data));
            }
            // Appending goes on where the file was cut.
            let mut again = written.bytes[..cut].to_vec();
            again.resize(decoded.records_end, 0);
            again.extend_from_slice(&written.bytes[*end..]);
            prop_assert_eq!(states(&decode(&again).unwrap().map), written.steps.last().unwrap().1.clone());
        }

        /// Damage loses records, it never makes one up.
        #[test]
        fn a_damaged_file_says_nothing_that_was_not_written(
            ops in ops(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
            length in prop::option::of(0u64..6 * SIZE),
        ) {
            let written = write(&ops);
            let mut bytes = encode_header(&record_of(length), BlockSize::MIN);
            let header_len = bytes.len();
            bytes.extend_from_slice(&written.bytes[written.header_len..]);
            let intact = bytes.clone();
            for (at, to) in damage {
                let span = bytes.len() - header_len;
                if span > 0 {
                    bytes[header_len + at.index(span)] = to;
                }
            }
            let decoded = decode(&bytes).unwrap();
            for record in decoded.map.records() {
                let data = content(u64::from(record.block) * SIZE, u64::from(record.valid_len));
                prop_assert!(decoded.map.verify(u64::from(record.block), &data));
                let state = Some(&(record.valid_len, record.crc));
                let was_written = written.steps.iter().any(|(_, states, _)| states.get(&record.block) == state);
                prop_assert!(was_written);
            }
            // A block whose last record was not touched has that state.
            let slots = || intact.chunks_exact(SLOT).zip(bytes.chunks_exact(SLOT)).skip(header_len / SLOT);
            for block in 0..5 {
                let last = slots().rev().find(|(slot, _)| MapRecord::decode(slot).is_some_and(|r| r.block == block));
                if let Some((slot, after)) = last.filter(|(slot, after)| slot == after) {
                    let record = MapRecord::decode(slot).filter(|record| is_possible(*record, BlockSize::MIN, length));
                    if let Some(record) = record {
                        let state = decoded.map.block(u64::from(block)).map_or((0, 0), |s| (s.valid_len, s.crc));
                        prop_assert_eq!(state, (record.valid_len, record.crc), "{:?}", after);
                    }
                }
            }
            if let Some(midstate) = decoded.midstate {
                prop_assert!(midstate.position <= decoded.map.contiguous());
                let mut hasher = PrefixHasher::resume(&midstate).unwrap();
                hasher.update(&content(midstate.position, 10));
                prop_assert_eq!(hasher.finish(), Digest::of(&content(0, midstate.position + 10)));
            }
        }

        #[test]
        fn any_record_can_be_a_header(record in any_record(), power in 16u32..25) {
            let size = BlockSize::new(1 << power).unwrap();
            let decoded = decode(&encode_header(&record, size)).unwrap();
            prop_assert_eq!(decoded.map.block_size(), size);
            prop_assert_eq!(encode_record(&decoded.record), encode_record(&record));
            prop_assert!(!decoded.map.present().covers(ByteRange::new(0, 1).unwrap()));
        }

        #[test]
        fn any_bytes_are_a_map_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300), behind_header in any::<bool>()) {
            let mut file = if behind_header { encode_header(&plain_record(), BlockSize::MIN) } else { MAGIC.to_vec() };
            file.extend_from_slice(&bytes);
            prop_assert_eq!(decode(&file).is_ok(), behind_header);
        }
    }
}
