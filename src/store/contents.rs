//! [`Contents`]: what a drive's journal says is there, as a pure core: for tools that look at a drive while no cache uses
//! it. The cache itself has its index.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::block_sums::BlockSums;
use super::journal_entry::{JournalEntry, Row, older_place};
use crate::content::{BodyRef, Digest, KeyHash, PartialId, UnixMillis, Version};

/// Where a journal says something: its segment, and the offset there in bytes.
pub(super) type Place = (u64, usize);

/// Everything that is on a drive.
#[derive(Debug, Default)]
pub(super) struct Contents {
    blobs: BTreeMap<Digest, (Place, BlockSums)>,
    rows: HashMap<RowKey, Stored>,
    pointing: BTreeMap<Digest, BTreeSet<RowKey>>,
}

/// Names a row: the hash of its key, and its place among those of the key.
pub(super) type RowKey = (KeyHash, u64);

/// What is kept of a row. The whole of it stands in the journal.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// Where it stands.
    pub(super) at: Place,
    /// Since when it is an older version, if it is one.
    pub(super) superseded: Option<UnixMillis>,
    /// When its response came.
    pub(super) response_time: UnixMillis,
    digest: Digest,
    version: Version,
    birth: PartialId,
}

impl Contents {
    /// The next thing that the journal says.
    pub(super) fn apply(&mut self, at: Place, entry: &JournalEntry) {
        match entry {
            JournalEntry::Stored { row, sums, supersedes } => {
                if let (BodyRef::Blob(digest), Some(sums)) = (row.record.body, sums) {
                    self.blobs.insert(digest, (at, sums.clone()));
                }
                if let Some(since) = supersedes {
                    let is_other = |there: &Stored| !there.version.is_same(&row.version());
                    self.supersede(row.record.key.hash(), row.record.variant(), *since, is_other);
                }
                self.put(at, row);
            }
            JournalEntry::Updated { row } => self.put(at, row),
            JournalEntry::Blob { digest, sums } => {
                self.blobs.insert(*digest, (at, sums.clone()));
            }
            JournalEntry::Forgotten { key, place } => drop(self.remove((*key, *place))),
            JournalEntry::BlobGone { digest } => {
                self.blobs.remove(digest);
                for row in self.pointing.remove(digest).unwrap_or_default() {
                    self.rows.remove(&row);
                }
            }
            JournalEntry::Superseded { key, variant, birth, at: since } => {
                self.supersede(*key, *variant, *since, |there| there.birth == *birth);
            }
        }
    }

    /// The blobs with their sums, in the order in which they came.
    pub(super) fn blobs(&self) -> Vec<(Digest, &BlockSums)> {
        let mut blobs: Vec<_> = self.blobs.iter().map(|(digest, (at, sums))| (*at, *digest, sums)).collect();
        blobs.sort_unstable_by_key(|(at, ..)| *at);
        blobs.into_iter().map(|(_, digest, sums)| (digest, sums)).collect()
    }

    /// Whether a blob is there.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.blobs.contains_key(digest)
    }

    /// The rows whose body is this blob.
    pub(super) fn pointing_to(&self, digest: &Digest) -> Vec<(RowKey, Stored)> {
        let keys = self.pointing.get(digest).into_iter().flatten();
        keys.filter_map(|key| Some((*key, self.rows.get(key)?.clone()))).collect()
    }

    /// A row.
    pub(super) fn row(&self, key: &RowKey) -> Option<&Stored> {
        self.rows.get(key)
    }

    fn put(&mut self, at: Place, row: &Row) {
        let key = (row.record.key.hash(), row.place());
        self.remove(key);
        let BodyRef::Blob(digest) = row.record.body else { return };
        let stored = Stored {
            at,
            superseded: row.superseded,
            response_time: row.record.response_time,
            digest,
            version: row.version(),
            birth: row.birth,
        };
        self.insert(key, stored);
    }

    fn insert(&mut self, key: RowKey, stored: Stored) {
        self.pointing.entry(stored.digest).or_default().insert(key);
        self.rows.insert(key, stored);
    }

    fn remove(&mut self, key: RowKey) -> Option<Stored> {
        let stored = self.rows.remove(&key)?;
        if let Some(rows) = self.pointing.get_mut(&stored.digest) {
            rows.remove(&key);
        }
        Some(stored)
    }

    /// Makes the response of a variant an older version, if `is_meant` says so of what is there.
    fn supersede(&mut self, key: KeyHash, variant: u64, since: UnixMillis, is_meant: impl Fn(&Stored) -> bool) {
        let is_meant = |there: &&Stored| there.superseded.is_none() && is_meant(there);
        if self.rows.get(&(key, variant)).filter(is_meant).is_none() {
            return;
        }
        if let Some(stored) = self.remove((key, variant)) {
            let place = older_place(variant, stored.birth);
            self.insert((key, place), Stored { superseded: Some(since), ..stored });
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::super::block_map::BlockSize;
    use super::*;
    use crate::content::{CacheKey, Record};

    fn row(name: &str, content: &[u8], birth: u64, time: u64) -> Row {
        let record = Record {
            key: CacheKey::new(format!("http://dl.example.com/{name}")),
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            request_time: UnixMillis(time),
            response_time: UnixMillis(time),
            vary: Vec::new(),
            length: Some(content.len() as u64),
            expected: None,
            token_protected: false,
            body: BodyRef::Blob(Digest::of(content)),
        };
        Row { record, birth: PartialId(birth), superseded: None }
    }

    fn sums(content: &[u8]) -> BlockSums {
        BlockSums::new(BlockSize::new(1 << 20).unwrap(), content.len() as u64, vec![crc32c::crc32c(content)]).unwrap()
    }

    #[test]
    fn what_was_stored_forgotten_and_superseded_is_known() {
        let mut contents = Contents::default();
        let stored = |row: &Row, content: &[u8], supersedes| JournalEntry::Stored {
            row: row.clone(),
            sums: Some(sums(content)),
            supersedes,
        };
        let (first, second, other) = (row("a", b"one", 1, 10), row("a", b"two", 2, 20), row("b", b"two", 3, 30));
        contents.apply((1, 40), &stored(&first, b"one", None));
        contents.apply((1, 90), &stored(&second, b"two", Some(UnixMillis(20))));
        contents.apply((2, 40), &JournalEntry::Stored { row: other.clone(), sums: None, supersedes: None });
        let names: Vec<Digest> = contents.blobs().into_iter().map(|(digest, _)| digest).collect();
        assert_eq!(names, [Digest::of(b"one"), Digest::of(b"two")]);
        let older = contents.pointing_to(&Digest::of(b"one"));
        assert_eq!(older.len(), 1);
        assert_eq!(older[0].1.superseded, Some(UnixMillis(20)));
        assert_eq!(contents.pointing_to(&Digest::of(b"two")).len(), 2);
        contents.apply((2, 90), &JournalEntry::Forgotten { key: other.record.key.hash(), place: other.place() });
        assert_eq!(contents.pointing_to(&Digest::of(b"two")).len(), 1);
        let key = (second.record.key.hash(), second.place());
        assert_eq!(contents.row(&key).unwrap().response_time, UnixMillis(20));
        contents.apply((3, 40), &JournalEntry::BlobGone { digest: Digest::of(b"two") });
        assert!(!contents.has(&Digest::of(b"two")) && contents.row(&key).is_none());
        assert!(contents.has(&Digest::of(b"one")));
    }
}
