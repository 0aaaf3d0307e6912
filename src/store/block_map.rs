//! [`BlockMap`]: which blocks of a body are there, how far each one goes and what it must sum to.
//!
//! Only the values. What remains of it once the body is complete is in `block_sums`. How a map is laid out in its file is `map_file`'s business, reading and writing bodies
//! that of the drive.

use std::collections::BTreeMap;

use crc32c::{crc32c, crc32c_append};

use super::block_sums::BlockSums;
use crate::content::{ByteRange, RangeSet};

/// Size of a body's blocks in bytes: a power of two from 64 KiB to 16 MiB. It is recorded per body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(into = "u32", try_from = "u32")]
pub(super) struct BlockSize(u32);

/// The number is no block size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a block size: a power of two from 64 KiB to 16 MiB is needed")]
pub(super) struct BlockSizeError(u32);

/// What is known of one block: the first `valid_len` bytes are present and have this CRC-32C (RFC 3720
/// appendix B.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct BlockState {
    /// Number of bytes present, from the block's begin.
    pub(super) valid_len: u32,
    /// CRC-32C over them.
    pub(super) crc: u32,
}

/// The new state of one block, as it is appended to the map's file. `valid_len` 0 says that the block is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MapRecord {
    /// Index of the block.
    pub(super) block: u32,
    /// Number of bytes present, from the block's begin.
    pub(super) valid_len: u32,
    /// CRC-32C over them.
    pub(super) crc: u32,
}

/// The data neither begins an absent block nor continues what is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("data at {offset} does not begin at a block's begin or valid length")]
pub(super) struct Misplaced {
    /// Offset of the first byte that has no place, from the body's begin.
    pub(super) offset: u64,
}

/// The blocks of one body. Memory follows the number of blocks that are present, not the body's length.
#[derive(Debug, Clone)]
pub(super) struct BlockMap {
    block_size: BlockSize,
    blocks: BTreeMap<u32, BlockState>,
    present: RangeSet,
}

impl BlockSize {
    /// The smallest one, 64 KiB.
    pub(super) const MIN: Self = Self(64 * 1024);
    /// The largest one, 16 MiB.
    pub(super) const MAX: Self = Self(16 * 1024 * 1024);

    /// Checks a number of bytes.
    ///
    /// # Errors
    /// When it is not a power of two or out of bounds.
    pub(super) fn new(bytes: u32) -> Result<Self, BlockSizeError> {
        let fits = bytes.is_power_of_two() && (Self::MIN.0..=Self::MAX.0).contains(&bytes);
        if fits { Ok(Self(bytes)) } else { Err(BlockSizeError(bytes)) }
    }

    /// In bytes.
    pub(super) fn bytes(self) -> u32 {
        self.0
    }

    /// Index of the block that contains the byte at `offset`.
    pub(super) fn block_of(self, offset: u64) -> u64 {
        offset / u64::from(self.0)
    }

    /// Offset of the first byte of block `index`; saturates beyond 2^64.
    pub(super) fn begin_of(self, index: u64) -> u64 {
        index.saturating_mul(u64::from(self.0))
    }

    /// Number of blocks of a body of `length` bytes.
    pub(super) fn blocks_in(self, length: u64) -> u64 {
        length.div_ceil(u64::from(self.0))
    }
}

impl From<BlockSize> for u32 {
    fn from(size: BlockSize) -> Self {
        size.0
    }
}

impl TryFrom<u32> for BlockSize {
    type Error = BlockSizeError;

    fn try_from(bytes: u32) -> Result<Self, BlockSizeError> {
        Self::new(bytes)
    }
}

impl BlockState {
    /// Whether `data` is exactly what the block should hold.
    pub(super) fn verify(&self, data: &[u8]) -> bool {
        data.len() as u64 == u64::from(self.valid_len) && crc32c(data) == self.crc
    }
}

impl BlockMap {
    /// The largest block index; the one above it marks other records in the map's file.
    const LAST_BLOCK: u32 = u32::MAX - 1;

    /// The map of a body of which nothing is present.
    pub(super) fn new(block_size: BlockSize) -> Self {
        Self { block_size, blocks: BTreeMap::new(), present: RangeSet::new() }
    }

    /// Size of its blocks.
    pub(super) fn block_size(&self) -> BlockSize {
        self.block_size
    }

    /// Notes that `data` is present from `offset` on, and returns the new state of each block it touches, in
    /// order. It must begin where an absent block begins or exactly where the present bytes of a block end, and
    /// may reach over absent blocks.
    ///
    /// # Errors
    /// When a byte of it falls on a present one or leaves a gap in a block. Nothing has changed then.
    pub(super) fn extend(&mut self, offset: u64, data: &[u8]) -> Result<Vec<MapRecord>, Misplaced> {
        let size = self.block_size.bytes();
        let end = offset.checked_add(data.len() as u64).ok_or(Misplaced { offset })?;
        let Some(range) = ByteRange::new(offset, end) else { return Ok(Vec::new()) };

        let mut records = Vec::new();
        let mut rest = data;
        let mut position = offset;
        while !rest.is_empty() {
            let misplaced = Misplaced { offset: position };
            let block = u32::try_from(self.block_size.block_of(position)).map_err(|_| misplaced)?;
            let within = (position % u64::from(size)) as u32;
            let before = self.blocks.get(&block).copied().unwrap_or_default();
            if block > Self::LAST_BLOCK || before.valid_len != within {
                return Err(misplaced);
            }
            let (piece, later) = rest.split_at(rest.len().min((size - within) as usize));
            let crc = crc32c_append(before.crc, piece);
            records.push(MapRecord { block, valid_len: within + piece.len() as u32, crc });
            position += piece.len() as u64;
            rest = later;
        }
        for record in &records {
            let state = BlockState { valid_len: record.valid_len, crc: record.crc };
            self.blocks.insert(record.block, state);
        }
        self.present.insert(range);
        Ok(records)
    }

    /// The bytes that are present.
    pub(super) fn present(&self) -> &RangeSet {
        &self.present
    }

    /// Offset of the first absent byte.
    pub(super) fn contiguous(&self) -> u64 {
        self.present.available_from(0)
    }

    /// What is known of a block; `None` when it is absent.
    pub(super) fn block(&self, index: u64) -> Option<BlockState> {
        self.blocks.get(&u32::try_from(index).ok()?).copied()
    }

    /// The state of each block that is present, in order: the shortest sequence of records that says the same.
    pub(super) fn records(&self) -> impl Iterator<Item = MapRecord> + '_ {
        let record =
            |(&block, state): (&u32, &BlockState)| MapRecord { block, valid_len: state.valid_len, crc: state.crc };
        self.blocks.iter().map(record)
    }

    /// Makes a block absent, since its bytes are not what they should be. The record says so in the map's file;
    /// `None` when there can be no such block.
    pub(super) fn drop_block(&mut self, index: u64) -> Option<MapRecord> {
        let block = u32::try_from(index).ok().filter(|block| *block <= Self::LAST_BLOCK)?;
        let record = MapRecord { block, valid_len: 0, crc: 0 };
        self.apply(record);
        Some(record)
    }

    /// Whether `data` is exactly the present part of a block. `false` for an absent one.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn verify(&self, index: u64, data: &[u8]) -> bool {
        self.block(index).is_some_and(|state| state.verify(data))
    }

    /// The sums of a body of `length` bytes, when all of them are present and none beyond.
    pub(super) fn to_sums(&self, length: u64) -> Option<BlockSums> {
        let complete = self.contiguous() == length && self.present.total() == length;
        let crcs = || self.blocks.values().map(|state| state.crc).collect();
        complete.then(|| BlockSums::new(self.block_size, length, crcs()).ok()).flatten()
    }

    /// Takes over a state that was read from the map's file; `false` when no block can have it.
    pub(super) fn apply(&mut self, record: MapRecord) -> bool {
        let MapRecord { block, valid_len, crc } = record;
        if block > Self::LAST_BLOCK || valid_len > self.block_size.bytes() {
            return false;
        }
        let begin = self.block_size.begin_of(u64::from(block));
        let before = if valid_len == 0 {
            self.blocks.remove(&block)
        } else {
            self.blocks.insert(block, BlockState { valid_len, crc })
        };
        let end = begin + u64::from(valid_len);
        let end_before = begin + u64::from(before.map_or(0, |state| state.valid_len));
        if let Some(gone) = ByteRange::new(end, end_before) {
            self.present.remove(gone);
        }
        if let Some(new) = ByteRange::new(begin, end) {
            self.present.insert(new);
        }
        true
    }

    /// For each run of full blocks from the body's begin, the shortest first: its end, and the CRC-32C over its
    /// blocks' sums. That mark names the content: what was derived from it is good while the mark is the same.
    pub(super) fn prefix_marks(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        let size = self.block_size.bytes();
        let full = (0u32..)
            .zip(&self.blocks)
            .take_while(move |(index, (block, state))| index == *block && state.valid_len == size);
        let ends = full.scan((0, 0), move |(end, mark), (_, (_, state))| {
            *end += u64::from(size);
            *mark = crc32c_append(*mark, &state.crc.to_le_bytes());
            Some((*end, *mark))
        });
        std::iter::once((0, 0)).chain(ends)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 64 * 1024;

    fn map() -> BlockMap {
        BlockMap::new(BlockSize::MIN)
    }

    /// Bytes of a body that are different everywhere.
    fn content(offset: u64, len: u64) -> Vec<u8> {
        (offset..offset + len).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
    }

    #[test]
    fn only_powers_of_two_within_bounds_are_block_sizes() {
        for bytes in [64 * 1024, 1024 * 1024, 16 * 1024 * 1024] {
            assert_eq!(BlockSize::new(bytes).map(BlockSize::bytes), Ok(bytes));
        }
        for bytes in [0, 1, 32 * 1024, 65 * 1024, 32 * 1024 * 1024, u32::MAX] {
            assert_eq!(BlockSize::new(bytes), Err(BlockSizeError(bytes)));
        }
    }

    #[test]
    fn data_must_continue_a_block_or_begin_an_absent_one() {
        let mut map = map();
        assert_eq!(map.extend(0, &content(0, 100)).unwrap().len(), 1);
        for offset in [0, 1, 99, 101, SIZE + 1, 2 * SIZE - 1] {
            assert_eq!(map.extend(offset, &[1]), Err(Misplaced { offset }));
        }
        map.extend(SIZE, &[1]).unwrap();
        assert_eq!(
            map.extend(100, &content(100, SIZE)),
            Err(Misplaced { offset: SIZE }),
            "it runs into a present block"
        );
        assert_eq!(map.contiguous(), 100, "a refused write changes nothing");
        assert_eq!(map.extend(100, &content(100, SIZE - 100)).unwrap().len(), 1);
        assert!(map.verify(0, &content(0, SIZE)));
        assert_eq!(map.contiguous(), SIZE + 1);
    }

    #[test]
    fn far_blocks_cost_no_memory_and_absurd_ones_are_refused() {
        let mut map = map();
        let last = (u64::from(u32::MAX) - 1) * SIZE;
        assert_eq!(
            map.extend(last, &[7]).unwrap(),
            [MapRecord { block: u32::MAX - 1, valid_len: 1, crc: crc32c(&[7]) }]
        );
        for offset in [last + SIZE, last + 2 * SIZE, u64::MAX] {
            assert_eq!(map.extend(offset, &[7]), Err(Misplaced { offset }));
        }
        assert_eq!((map.contiguous(), map.present().total()), (0, 1));
        assert_eq!(map.block(u64::from(u32::MAX)), None);
        assert_eq!((map.drop_block(u64::from(u32::MAX)), map.drop_block(u64::MAX)), (None, None));
    }

    #[test]
    fn sums_exist_only_of_exactly_the_whole_body() {
        let mut map = map();
        let length = 2 * SIZE + 5;
        map.extend(SIZE, &content(SIZE, SIZE + 5)).unwrap();
        assert_eq!(map.to_sums(length), None);
        map.extend(0, &content(0, SIZE)).unwrap();
        assert_eq!((map.to_sums(length - 1), map.to_sums(length + 1)), (None, None));
        let sums = map.to_sums(length).unwrap();
        assert_eq!((sums.length(), sums.crcs().len()), (length, 3));
        for index in 0..3 {
            let range = sums.block_range(index).unwrap();
            let mut data = content(range.start(), range.len());
            assert!(sums.verify(index, &data));
            assert!(!sums.verify(index, &data[1..]));
            data[0] ^= 1;
            assert!(!sums.verify(index, &data));
        }
        assert_eq!((sums.block_range(3), sums.block_range(u64::MAX)), (None, None));
        assert!(!sums.verify(3, &[]) && !sums.verify(u64::MAX, &[]));
        assert_eq!(BlockMap::new(BlockSize::MIN).to_sums(0).unwrap().crcs(), [0u32; 0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Writes at any place and drops, against a body of which each byte is known or not.
        #[test]
        fn what_is_present_sums_to_what_was_written(
            ops in prop::collection::vec((0u64..4, 0u64..3, prop_oneof![Just(0u64), 0u64..SIZE], 1u64..2 * SIZE), 1..24)
        ) {
            let mut map = map();
            let mut written = vec![false; 8 * SIZE as usize];
            for (block, what, within, len) in ops {
                if what == 0 {
                    map.drop_block(block);
                    written[(block * SIZE) as usize..((block + 1) * SIZE) as usize].fill(false);
                    continue;
                }
                let valid = map.block(block).map_or(0, |state| u64::from(state.valid_len));
                let offset = block * SIZE + if what == 1 { valid } else { within };
                let range = offset as usize..(offset + len) as usize;
                // Each byte's predecessor in its block is there already or comes with it, and the byte itself is new.
                let starts_well = offset.is_multiple_of(SIZE) || written[offset as usize - 1];
                let fits = starts_well && !written[range.clone()].contains(&true);
                let result = map.extend(offset, &content(offset, len));
                prop_assert_eq!(result.is_ok(), fits);
                if fits {
                    written[range].fill(true);
                }
            }
            let known: u64 = written.iter().map(|byte| u64::from(*byte)).sum();
            prop_assert_eq!(map.present().total(), known);
            prop_assert_eq!(map.contiguous(), written.iter().position(|byte| !byte).unwrap() as u64);
            for record in map.records() {
                let begin = u64::from(record.block) * SIZE;
                prop_assert!(map.verify(u64::from(record.block), &content(begin, u64::from(record.valid_len))));
            }
            let mut again = BlockMap::new(BlockSize::MIN);
            prop_assert!(map.records().all(|record| again.apply(record)));
            prop_assert_eq!(again.present(), map.present());
        }
    }
}
