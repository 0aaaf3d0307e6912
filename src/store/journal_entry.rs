//! [`JournalEntry`]: what a drive's journal says, and its encoding as the payload of a frame: kind (1), fields in
//! postcard's encoding; stuffed, so that it has no zero byte. Frames are the business of `journal_format`.
//!
//! Kinds are only added at the end, never changed: journals of earlier releases are read for ever. Those of the first
//! release do not say in which partial body a blob came; the begin of its digest stands in.

use serde::{Deserialize, Serialize};

use super::block_map::BlockSize;
use super::block_sums::BlockSums;
use super::meta::{decode_record, encode_record};
use super::stuffing::{stuff, unstuff};
use crate::content::{BodyRef, Digest, KeyHash, PartialId, Record, UnixMillis, Version};

/// A stored response: what is known of it, and which version it is.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// What is known of the response.
    pub(super) record: Record,
    /// The partial body in which its bytes came.
    pub(super) birth: PartialId,
    /// Since when another version has its place, if one has.
    pub(super) superseded: Option<UnixMillis>,
}

/// One event of a drive's life.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "most entries are of the large kind, and none is kept for long")]
pub(super) enum JournalEntry {
    /// A response was stored. `sums` are those of its blob, when that is new on the drive.
    Stored {
        /// The response.
        row: Row,
        /// The sums of the blob's blocks.
        sums: Option<BlockSums>,
        /// When given, the response that had its place stays as an older version since then, if it is another one.
        supersedes: Option<UnixMillis>,
    },
    /// What is known of a stored response changed; its body stayed.
    Updated {
        /// What is known now.
        row: Row,
    },
    /// A stored response was forgotten; its blob may stay for others.
    Forgotten {
        /// Hash of its key.
        key: KeyHash,
        /// Its place among the rows of the key ([`Row::place`]).
        place: u64,
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
    /// A stored response became an older version: a newer one is on another drive.
    Superseded {
        /// Hash of its key.
        key: KeyHash,
        /// Which of the key's variants ([`Record::variant`]).
        variant: u64,
        /// The partial body in which its bytes came.
        birth: PartialId,
        /// Since when.
        at: UnixMillis,
    },
}

#[derive(Serialize, Deserialize)]
enum EntryV1<'a> {
    Stored(&'a [u8], #[serde(borrow)] Option<SumsV1<'a>>),
    Updated(&'a [u8]),
    Forgotten([u8; 16], u64),
    BlobGone([u8; 32]),
    Blob([u8; 32], #[serde(borrow)] SumsV1<'a>),
    // Since segments of format 2.
    StoredRow(#[serde(borrow)] RowV1<'a>, #[serde(borrow)] Option<SumsV1<'a>>, Option<u64>),
    UpdatedRow(#[serde(borrow)] RowV1<'a>),
    Superseded([u8; 16], u64, u64, u64),
}

#[derive(Serialize, Deserialize)]
struct RowV1<'a> {
    record: &'a [u8],
    birth: u64,
    superseded: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct SumsV1<'a> {
    block_size: u32,
    length: u64,
    /// Four bytes for each block.
    crcs: &'a [u8],
}

impl Row {
    /// Of a record of the first release.
    fn plain(record: Record) -> Self {
        let birth = birth_of(&record);
        Self { record, birth, superseded: None }
    }

    /// Tells the rows of one key on one drive apart: one for each variant, and one for each older version.
    pub(super) fn place(&self) -> u64 {
        place(&self.record, self.birth, self.superseded)
    }

    /// Which version it is.
    pub(super) fn version(&self) -> Version {
        Version::of(&self.record, self.birth)
    }

    /// The same response as an older version.
    pub(super) fn superseded_at(&self, at: UnixMillis) -> Self {
        Self { superseded: Some(at), ..self.clone() }
    }
}

/// What stands in for the birth of a blob that the first release stored.
pub(super) fn birth_of(record: &Record) -> PartialId {
    match record.body {
        BodyRef::Partial(id) => id,
        BodyRef::Blob(digest) => {
            let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
            PartialId(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
        }
    }
}

/// See [`Row::place`].
pub(super) fn place(record: &Record, birth: PartialId, superseded: Option<UnixMillis>) -> u64 {
    let variant = record.variant();
    if superseded.is_none() {
        return variant;
    }
    older_place(variant, birth)
}

/// The place of the older version of a variant that began as `birth`.
pub(super) fn older_place(variant: u64, birth: PartialId) -> u64 {
    let text = [&b"older"[..], &variant.to_be_bytes(), &birth.0.to_be_bytes()].concat();
    let [a, b, c, d, e, f, g, h, ..] = *Digest::of(&text).as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// The payload of an entry's frame, with its sums or without.
pub(super) fn encode_payload(entry: &JournalEntry, with_sums: bool) -> Vec<u8> {
    let (record, crcs);
    let stored = match entry {
        JournalEntry::Stored { row, sums, supersedes } => {
            record = encode_record(&row.record);
            let sums = sums.as_ref().filter(|_| with_sums);
            crcs = sums.map(crc_bytes);
            let sums = sums.zip(crcs.as_deref()).map(|(sums, crcs)| SumsV1::new(sums, crcs));
            EntryV1::StoredRow(RowV1::new(row, &record), sums, supersedes.map(|at| at.0))
        }
        JournalEntry::Updated { row } => {
            record = encode_record(&row.record);
            EntryV1::UpdatedRow(RowV1::new(row, &record))
        }
        JournalEntry::Forgotten { key, place } => EntryV1::Forgotten(*key.as_bytes(), *place),
        JournalEntry::BlobGone { digest } => EntryV1::BlobGone(*digest.as_bytes()),
        JournalEntry::Blob { digest, sums } => {
            crcs = Some(crc_bytes(sums));
            EntryV1::Blob(*digest.as_bytes(), SumsV1::new(sums, crcs.as_deref().unwrap_or_default()))
        }
        JournalEntry::Superseded { key, variant, birth, at } => {
            EntryV1::Superseded(*key.as_bytes(), *variant, birth.0, at.0)
        }
    };
    stuff(&encoded(&stored))
}

fn encoded(stored: &impl Serialize) -> Vec<u8> {
    #[allow(clippy::expect_used, reason = "a vector takes any number of bytes, and all sequences know their length")]
    postcard::to_stdvec(stored).expect("plain data can be encoded")
}

fn crc_bytes(sums: &BlockSums) -> Vec<u8> {
    sums.crcs().iter().flat_map(|crc| crc.to_le_bytes()).collect()
}

impl<'a> SumsV1<'a> {
    fn new(sums: &BlockSums, crcs: &'a [u8]) -> Self {
        Self { block_size: sums.block_size().bytes(), length: sums.length(), crcs }
    }

    fn sums(&self) -> Option<BlockSums> {
        let (crcs, []) = self.crcs.as_chunks::<4>() else { return None };
        let crcs = crcs.iter().map(|crc| u32::from_le_bytes(*crc)).collect();
        BlockSums::new(BlockSize::new(self.block_size).ok()?, self.length, crcs).ok()
    }
}

impl<'a> RowV1<'a> {
    fn new(row: &Row, record: &'a [u8]) -> Self {
        Self { record, birth: row.birth.0, superseded: row.superseded.map(|at| at.0) }
    }

    fn row(&self) -> Option<Row> {
        let record = decode_record(self.record).ok()?;
        Some(Row { record, birth: PartialId(self.birth), superseded: self.superseded.map(UnixMillis) })
    }
}

/// The payload that the first release wrote for a stored response.
#[cfg(test)]
pub(super) fn first_release_payload(record: &Record, sums: &BlockSums) -> Vec<u8> {
    let (record, crcs) = (encode_record(record), crc_bytes(sums));
    stuff(&encoded(&EntryV1::Stored(&record, Some(SumsV1::new(sums, &crcs)))))
}

/// Reads a payload; `None` when it is none.
pub(super) fn decode_payload(payload: &[u8]) -> Option<JournalEntry> {
    let plain = unstuff(payload)?;
    let (stored, []) = postcard::take_from_bytes::<EntryV1<'_>>(&plain).ok()? else { return None };
    let decode_sums = |sums: Option<SumsV1<'_>>| match sums {
        Some(sums) => sums.sums().map(Some),
        None => Some(None),
    };
    Some(match stored {
        EntryV1::Stored(record, sums) => {
            let row = Row::plain(decode_record(record).ok()?);
            JournalEntry::Stored { row, sums: decode_sums(sums)?, supersedes: None }
        }
        EntryV1::Updated(record) => JournalEntry::Updated { row: Row::plain(decode_record(record).ok()?) },
        EntryV1::Forgotten(key, place) => JournalEntry::Forgotten { key: KeyHash::from_bytes(key), place },
        EntryV1::BlobGone(digest) => JournalEntry::BlobGone { digest: Digest::from_bytes(digest) },
        EntryV1::Blob(digest, sums) => JournalEntry::Blob { digest: Digest::from_bytes(digest), sums: sums.sums()? },
        EntryV1::StoredRow(row, sums, supersedes) => {
            let supersedes = supersedes.map(UnixMillis);
            JournalEntry::Stored { row: row.row()?, sums: decode_sums(sums)?, supersedes }
        }
        EntryV1::UpdatedRow(row) => JournalEntry::Updated { row: row.row()? },
        EntryV1::Superseded(key, variant, birth, at) => JournalEntry::Superseded {
            key: KeyHash::from_bytes(key),
            variant,
            birth: PartialId(birth),
            at: UnixMillis(at),
        },
    })
}
