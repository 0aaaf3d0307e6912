//! [`BlockSums`]: what the blocks of a complete body must sum to.
//!
//! A body that is still being filled has a `BlockMap` instead.

use crc32c::crc32c;

use super::block_map::BlockSize;
use crate::content::ByteRange;

/// The sums of all blocks of a complete body. There is exactly one for each block; the last may be short.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "PlainSums", try_from = "PlainSums")]
pub(super) struct BlockSums {
    block_size: BlockSize,
    length: u64,
    crcs: Vec<u32>,
}

/// [`BlockSums`] before anybody looked whether the number of sums fits the length.
#[derive(serde::Serialize, serde::Deserialize)]
struct PlainSums {
    block_size: BlockSize,
    length: u64,
    crcs: Vec<u32>,
}

/// Number of blocks and the number of sums do not agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{found} block sums for {needed} blocks")]
pub(super) struct BlockSumsError {
    found: usize,
    needed: u64,
}

impl BlockSums {
    /// Joins a length with the sums of its blocks.
    ///
    /// # Errors
    /// When there is not exactly one sum for each block.
    pub(super) fn new(block_size: BlockSize, length: u64, crcs: Vec<u32>) -> Result<Self, BlockSumsError> {
        let needed = block_size.blocks_in(length);
        if crcs.len() as u64 != needed {
            return Err(BlockSumsError { found: crcs.len(), needed });
        }
        Ok(Self { block_size, length, crcs })
    }

    /// Size of all blocks but the last.
    pub(super) fn block_size(&self) -> BlockSize {
        self.block_size
    }

    /// Length of the body in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// CRC-32C of each block, in order.
    pub(super) fn crcs(&self) -> &[u32] {
        &self.crcs
    }

    /// The bytes of a block; `None` beyond the end.
    pub(super) fn block_range(&self, index: u64) -> Option<ByteRange> {
        let begin = self.block_size.begin_of(index);
        ByteRange::new(begin, self.block_size.begin_of(index.saturating_add(1)).min(self.length))
    }

    /// Whether `data` is exactly the content of a block.
    pub(super) fn verify(&self, block_index: u64, data: &[u8]) -> bool {
        let Some(range) = self.block_range(block_index) else { return false };
        data.len() as u64 == range.len() && self.holds(block_index, crc32c(data))
    }

    /// Whether all bytes of a block sum to this.
    pub(super) fn holds(&self, block_index: u64, crc: u32) -> bool {
        usize::try_from(block_index).ok().and_then(|index| self.crcs.get(index)) == Some(&crc)
    }
}

impl From<BlockSums> for PlainSums {
    fn from(sums: BlockSums) -> Self {
        Self { block_size: sums.block_size, length: sums.length, crcs: sums.crcs }
    }
}

impl TryFrom<PlainSums> for BlockSums {
    type Error = BlockSumsError;

    fn try_from(plain: PlainSums) -> Result<Self, BlockSumsError> {
        Self::new(plain.block_size, plain.length, plain.crcs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 64 * 1024;

    #[test]
    fn sums_must_fit_their_length() {
        assert!(BlockSums::new(BlockSize::MIN, SIZE + 1, vec![1, 2]).is_ok());
        for (length, sums) in [(SIZE, 2), (SIZE + 1, 1), (0, 1), (u64::MAX, 3)] {
            assert!(BlockSums::new(BlockSize::MIN, length, vec![0; sums]).is_err());
        }
        let sums = BlockSums::new(BlockSize::MIN, SIZE, vec![9]).unwrap();
        let stored = postcard::to_stdvec(&sums).unwrap();
        assert_eq!(postcard::from_bytes::<BlockSums>(&stored).unwrap(), sums);
        let wrong = PlainSums { block_size: BlockSize::MIN, length: SIZE, crcs: vec![] };
        assert!(postcard::from_bytes::<BlockSums>(&postcard::to_stdvec(&wrong).unwrap()).is_err());
    }
}
