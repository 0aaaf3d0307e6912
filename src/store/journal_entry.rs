//! [`JournalEntry`]: what a drive's journal says, and its encoding as the payload of a frame: kind (1), fields in
//! postcard's encoding; stuffed, so that it has no zero byte. Frames are the business of `journal_format`.

use serde::{Deserialize, Serialize};

use super::block_map::BlockSize;
use super::block_sums::BlockSums;
use super::meta::{decode_record, encode_record};
use super::stuffing::{stuff, unstuff};
use crate::content::{Digest, KeyHash, Record};

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
    /// A blob that is there since an entry whose response is not true any more.
    Blob {
        /// Its name.
        digest: Digest,
        /// The sums of its blocks.
        sums: BlockSums,
    },
}

#[derive(Serialize, Deserialize)]
enum EntryV1<'a> {
    Stored(&'a [u8], #[serde(borrow)] Option<SumsV1<'a>>),
    Updated(&'a [u8]),
    Forgotten([u8; 16], u64),
    BlobGone([u8; 32]),
    Blob([u8; 32], #[serde(borrow)] SumsV1<'a>),
}

#[derive(Serialize, Deserialize)]
struct SumsV1<'a> {
    block_size: u32,
    length: u64,
    /// Four bytes for each block.
    crcs: &'a [u8],
}

/// The payload of an entry's frame, with its sums or without.
pub(super) fn encode_payload(entry: &JournalEntry, with_sums: bool) -> Vec<u8> {
    let (record, crcs);
    let stored = match entry {
        JournalEntry::Stored { record: stored, sums } => {
            record = encode_record(stored);
            let sums = sums.as_ref().filter(|_| with_sums);
            crcs = sums.map(crc_bytes);
            EntryV1::Stored(&record, sums.zip(crcs.as_deref()).map(|(sums, crcs)| SumsV1::new(sums, crcs)))
        }
        JournalEntry::Updated { record: updated } => {
            record = encode_record(updated);
            EntryV1::Updated(&record)
        }
        JournalEntry::Forgotten { key, variant } => EntryV1::Forgotten(*key.as_bytes(), *variant),
        JournalEntry::BlobGone { digest } => EntryV1::BlobGone(*digest.as_bytes()),
        JournalEntry::Blob { digest, sums } => {
            crcs = Some(crc_bytes(sums));
            EntryV1::Blob(*digest.as_bytes(), SumsV1::new(sums, crcs.as_deref().unwrap_or_default()))
        }
    };
    #[allow(clippy::expect_used, reason = "a vector takes any number of bytes, and all sequences know their length")]
    let plain = postcard::to_stdvec(&stored).expect("plain data can be encoded");
    stuff(&plain)
}

fn crc_bytes(sums: &BlockSums) -> Vec<u8> {
    sums.crcs().iter().flat_map(|crc| crc.to_le_bytes()).collect()
}

impl<'a> SumsV1<'a> {
    fn new(sums: &BlockSums, crcs: &'a [u8]) -> Self {
        Self { block_size: sums.block_size().bytes(), length: sums.length(), crcs }
    }
}

/// Reads a payload; `None` when it is none.
pub(super) fn decode_payload(payload: &[u8]) -> Option<JournalEntry> {
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
        EntryV1::Blob(digest, sums) => {
            JournalEntry::Blob { digest: Digest::from_bytes(digest), sums: decode_sums(&sums)? }
        }
    })
}

fn decode_sums(sums: &SumsV1<'_>) -> Option<BlockSums> {
    let (crcs, []) = sums.crcs.as_chunks::<4>() else { return None };
    let crcs = crcs.iter().map(|crc| u32::from_le_bytes(*crc)).collect();
    BlockSums::new(BlockSize::new(sums.block_size).ok()?, sums.length, crcs).ok()
}
