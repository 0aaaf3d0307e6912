//! [`Objects`]: which responses and blobs a drive has, and where in its journal each is told. Plain memory, no I/O: what
//! a record says has to be read there. For a blob with one URL it takes some 115 bytes.

use std::collections::{BinaryHeap, HashMap};
use std::hash::BuildHasher as _;
use std::ops::Range;
use std::thread;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::Watermark;
use super::slots::{NONE, Slots};
use crate::content::{Digest, KeyHash, UnixMillis};

/// Blocks of blobs are counted in units of so many bytes.
const UNIT: u64 = 4096;

/// Where an entry begins in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct At {
    pub(super) segment: u32,
    pub(super) offset: u32,
}

/// What the table says of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) key: KeyHash,
    pub(super) place: u64,
    /// Where its record is told.
    pub(super) at: At,
    /// Since when it is an older version, if it is one.
    pub(super) superseded: Option<UnixMillis>,
    /// Its body.
    pub(super) digest: Digest,
    /// Whether the body is there.
    pub(super) has_blob: bool,
}

/// Responses and blobs of one drive.
#[derive(Debug)]
pub(super) struct Objects {
    rows: Slots<RowSlot>,
    blobs: Slots<BlobSlot>,
    by_key: HashTable<u32>,
    /// By the first halves of the digests.
    by_digest: HashTable<u32>,
    /// Of the few rows that are older versions, since when.
    superseded: HashMap<u32, UnixMillis>,
    hasher: RandomState,
}

/// One response: 44 bytes.
#[derive(Debug)]
struct RowSlot {
    key: KeyHash,
    place: [u32; 2],
    at: At,
    blob: u32,
    /// Neighbours among the rows of the blob.
    before: u32,
    behind: u32,
}

/// One blob: 48 bytes. Without a place in the journal it is only named by rows.
#[derive(Debug)]
pub(super) struct BlobSlot {
    pub(super) digest: Digest,
    pub(super) at: At,
    /// Real bytes in units of 4 KiB.
    pub(super) units: u32,
    first_row: u32,
}

impl At {
    /// Nowhere.
    pub(super) const NOWHERE: Self = Self { segment: u32::MAX, offset: u32::MAX };

    /// What lies beyond the numbers that are kept is nowhere: no journal has so many segments, and no segment is so long.
    pub(super) fn of(mark: Watermark) -> Self {
        let (segment, offset) = (u32::try_from(mark.segment), u32::try_from(mark.offset));
        segment.ok().zip(offset.ok()).map_or(Self::NOWHERE, |(segment, offset)| Self { segment, offset })
    }
}

impl From<At> for Watermark {
    fn from(at: At) -> Self {
        Self { segment: at.segment.into(), offset: at.offset.into() }
    }
}

impl Objects {
    /// Without anything.
    pub(super) fn new() -> Self {
        Self {
            rows: Slots::new(),
            blobs: Slots::new(),
            by_key: HashTable::new(),
            by_digest: HashTable::new(),
            superseded: HashMap::new(),
            hasher: RandomState::default(),
        }
    }

    /// The same with room for so many blobs with one response each, for [`Objects::push_blob`] and what follows it.
    pub(super) fn with_room(count: usize) -> Self {
        let mut objects = Self::new();
        objects.rows.reserve(count);
        objects.blobs.reserve(count);
        objects
    }

    /// Number of responses, and of blobs that are there or named.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.rows.len(), self.blobs.len())
    }

    /// Where a blob is told, and the real bytes that it takes.
    pub(super) fn blob(&self, digest: &Digest) -> Option<(At, u64)> {
        let slot = self.blobs.get(self.find_blob(digest)?);
        (slot.at != At::NOWHERE).then(|| (slot.at, u64::from(slot.units).saturating_mul(UNIT)))
    }

    /// The blobs that are there whose digests begin like this: at most one, unless somebody found two.
    pub(super) fn blobs_beginning(&self, prefix: &[u8; 16]) -> Vec<Digest> {
        let slots = self.by_digest.iter_hash(self.hasher.hash_one(prefix)).map(|blob| self.blobs.get(*blob));
        slots.filter(|slot| slot.at != At::NOWHERE && slot.digest.prefix() == *prefix).map(|slot| slot.digest).collect()
    }

    /// The responses of a key.
    pub(super) fn of_key(&self, key: KeyHash) -> Vec<Found> {
        let rows = self.by_key.iter_hash(self.hasher.hash_one(key));
        rows.filter(|row| self.rows.get(**row).key == key).map(|row| self.found(*row)).collect()
    }

    /// One response.
    pub(super) fn row(&self, key: KeyHash, place: u64) -> Option<Found> {
        self.find_row(key, place).map(|row| self.found(row))
    }

    /// The responses whose body is this blob.
    pub(super) fn of_blob(&self, digest: &Digest) -> Vec<Found> {
        self.linked_from(self.find_blob(digest).map_or(NONE, |blob| self.blobs.get(blob).first_row))
    }

    fn linked_from(&self, first: u32) -> Vec<Found> {
        let mut found = Vec::new();
        let mut next = first;
        while next != NONE {
            found.push(self.found(next));
            next = self.rows.get(next).behind;
        }
        found
    }

    /// Calls `each` with every blob that is there: where it is told, its digest and real bytes.
    pub(super) fn each_blob(&self, mut each: impl FnMut(At, Digest, u64)) {
        for number in &self.by_digest {
            let slot = self.blobs.get(*number);
            if slot.at != At::NOWHERE {
                each(slot.at, slot.digest, u64::from(slot.units).saturating_mul(UNIT));
            }
        }
    }

    /// The places in memory of all blobs that are there, and where in the journal each is told.
    pub(super) fn blob_places(&self) -> impl Iterator<Item = (At, u32)> {
        let told = self.by_digest.iter().map(|place| (self.blobs.get(*place).at, *place));
        told.filter(|(at, _)| *at != At::NOWHERE)
    }

    /// The blob at a place in memory, if one is there, and its real bytes.
    pub(super) fn blob_in_place(&self, place: u32) -> Option<(Digest, u64)> {
        // In one that is free is nothing that is told anywhere.
        let slot = self.blobs.peek(place).filter(|slot| slot.at != At::NOWHERE)?;
        Some((slot.digest, u64::from(slot.units).saturating_mul(UNIT)))
    }

    /// Calls `each` with every blob, also those that are only named, and its responses, up to the first error.
    pub(super) fn each_slot<E>(&self, mut each: impl FnMut(&BlobSlot, &[Found]) -> Result<(), E>) -> Result<(), E> {
        self.by_digest.iter().try_for_each(|number| {
            let slot = self.blobs.get(*number);
            each(slot, &self.linked_from(slot.first_row))
        })
    }

    /// Calls `each` with every place of the journal that is named.
    pub(super) fn each_place(&self, mut each: impl FnMut(At)) {
        self.by_digest.iter().for_each(|blob| each(self.blobs.get(*blob).at));
        self.by_key.iter().for_each(|row| each(self.rows.get(*row).at));
    }

    /// Up to `count` blobs in the order of their digests, from the one behind `after` on. Looks at all of them.
    pub(super) fn blobs_after(&self, after: Option<Digest>, count: usize) -> Vec<Digest> {
        let mut lowest = BinaryHeap::with_capacity(count.saturating_add(1));
        self.each_blob(|_, digest, _| {
            let is_near = lowest.len() < count || lowest.peek().is_some_and(|highest| digest < *highest);
            if is_near && after.is_none_or(|after| digest > after) {
                lowest.push(digest);
                if lowest.len() > count {
                    lowest.pop();
                }
            }
        });
        lowest.into_sorted_vec()
    }

    /// A blob is there, and is told at `at`.
    pub(super) fn put_blob(&mut self, digest: Digest, at: At, allocated: u64) {
        let units = u32::try_from(allocated.div_ceil(UNIT)).unwrap_or(u32::MAX);
        if let Some(blob) = self.blob_slot(digest) {
            let slot = self.blobs.at(blob);
            (slot.at, slot.units) = (at, units);
        }
    }

    /// A response is told at `at`, in place of what had its place.
    pub(super) fn put_row(&mut self, key: KeyHash, place: u64, at: At, digest: Digest, superseded: Option<UnixMillis>) {
        let before = self.find_row(key, place);
        let stays = before.filter(|row| self.blobs.get(self.rows.get(*row).blob).digest == digest);
        if let Some(row) = stays {
            self.tell_row(row, at, superseded);
            return;
        }
        if before.is_some() {
            self.remove_row(key, place);
        }
        let row = self.blob_slot(digest).and_then(|blob| self.link(key, place, blob));
        if let Some(row) = row {
            let (rows, hasher) = (&self.rows, &self.hasher);
            self.by_key.insert_unique(hasher.hash_one(key), row, |row| hasher.hash_one(rows.get(*row).key));
            self.tell_row(row, at, superseded);
        }
    }

    /// Adds a blob of which nothing is known, and returns its place. It is found after [`Objects::pushed`].
    pub(super) fn push_blob(&mut self, digest: Digest, at: At, units: u32) -> Option<u32> {
        self.blobs.insert(BlobSlot { digest, at, units, first_row: NONE })
    }

    /// Adds a response of which nothing is known, whose body is the blob in this place. It is found after
    /// [`Objects::pushed`].
    pub(super) fn push_row(&mut self, blob: u32, key: KeyHash, place: u64, at: At, superseded: Option<UnixMillis>) {
        if let Some(row) = self.link(key, place, blob) {
            self.tell_row(row, at, superseded);
        }
    }

    /// All that was pushed, when nothing was there before, is found from now on. Both tables are made at once: each waits for memory
    /// most of the time.
    pub(super) fn pushed(&mut self) {
        let (rows, blobs, hasher) = (&self.rows, &self.blobs, &self.hasher);
        let by_key = || table_of(rows.numbers(), |row| hasher.hash_one(rows.get(*row).key));
        let by_digest = || table_of(blobs.numbers(), |blob| hasher.hash_one(blobs.get(*blob).digest.prefix()));
        (self.by_key, self.by_digest) = thread::scope(|scope| {
            let other = thread::Builder::new().name("drive-read-in".to_owned()).spawn_scoped(scope, by_key);
            let here = by_digest();
            // When no thread is to be had, it is done here.
            (other.ok().and_then(|thread| thread.join().ok()).unwrap_or_else(by_key), here)
        });
    }

    fn tell_row(&mut self, row: u32, at: At, superseded: Option<UnixMillis>) {
        self.rows.at(row).at = at;
        match superseded {
            Some(since) => drop(self.superseded.insert(row, since)),
            None => drop(self.superseded.remove(&row)),
        }
    }

    /// A response is forgotten; its blob stays.
    pub(super) fn remove_row(&mut self, key: KeyHash, place: u64) {
        let Some(row) = self.find_row(key, place) else { return };
        let (blob, before, behind) = {
            let slot = self.rows.get(row);
            (slot.blob, slot.before, slot.behind)
        };
        match before {
            NONE => self.blobs.at(blob).first_row = behind,
            before => self.rows.at(before).behind = behind,
        }
        if behind != NONE {
            self.rows.at(behind).before = before;
        }
        self.free_row(row);
        let slot = self.blobs.get(blob);
        if slot.first_row == NONE && slot.at == At::NOWHERE {
            self.free_blob(blob);
        }
    }

    /// A blob is gone, and all responses whose body it was.
    pub(super) fn blob_gone(&mut self, digest: &Digest) {
        let Some(blob) = self.find_blob(digest) else { return };
        let mut next = self.blobs.get(blob).first_row;
        while next != NONE {
            let behind = self.rows.get(next).behind;
            self.free_row(next);
            next = behind;
        }
        self.free_blob(blob);
    }

    fn found(&self, row: u32) -> Found {
        let slot = self.rows.get(row);
        let blob = self.blobs.get(slot.blob);
        Found {
            key: slot.key,
            place: joined(slot.place),
            at: slot.at,
            superseded: self.superseded.get(&row).copied(),
            digest: blob.digest,
            has_blob: blob.at != At::NOWHERE,
        }
    }

    fn find_row(&self, key: KeyHash, place: u64) -> Option<u32> {
        let place = split(place);
        let is_it = |row: &u32| {
            let slot = self.rows.get(*row);
            slot.key == key && slot.place == place
        };
        self.by_key.find(self.hasher.hash_one(key), is_it).copied()
    }

    fn find_blob(&self, digest: &Digest) -> Option<u32> {
        self.by_digest
            .find(self.hasher.hash_one(digest.prefix()), |blob| self.blobs.get(*blob).digest == *digest)
            .copied()
    }

    /// The slot of a blob; a new one when it was never heard of.
    fn blob_slot(&mut self, digest: Digest) -> Option<u32> {
        if let Some(blob) = self.find_blob(&digest) {
            return Some(blob);
        }
        let blob = self.push_blob(digest, At::NOWHERE, 0)?;
        let (blobs, hasher) = (&self.blobs, &self.hasher);
        let rehash = |blob: &u32| hasher.hash_one(blobs.get(*blob).digest.prefix());
        self.by_digest.insert_unique(hasher.hash_one(digest.prefix()), blob, rehash);
        Some(blob)
    }

    /// A new row, first among those of its blob.
    fn link(&mut self, key: KeyHash, place: u64, blob: u32) -> Option<u32> {
        let behind = self.blobs.get(blob).first_row;
        let place = split(place);
        let row = self.rows.insert(RowSlot { key, place, at: At::NOWHERE, blob, before: NONE, behind })?;
        if behind != NONE {
            self.rows.at(behind).before = row;
        }
        self.blobs.at(blob).first_row = row;
        Some(row)
    }

    fn free_row(&mut self, row: u32) {
        let hash = self.hasher.hash_one(self.rows.get(row).key);
        if let Ok(entry) = self.by_key.find_entry(hash, |other| *other == row) {
            entry.remove();
        }
        self.superseded.remove(&row);
        self.rows.remove(row);
    }

    fn free_blob(&mut self, blob: u32) {
        let hash = self.hasher.hash_one(self.blobs.get(blob).digest.prefix());
        if let Ok(entry) = self.by_digest.find_entry(hash, |other| *other == blob) {
            entry.remove();
        }
        self.blobs.at(blob).at = At::NOWHERE;
        self.blobs.remove(blob);
    }
}

/// A table of numbers, none of which is there twice.
fn table_of(numbers: Range<u32>, hash: impl Fn(&u32) -> u64) -> HashTable<u32> {
    let mut table = HashTable::with_capacity(numbers.len());
    for number in numbers {
        table.insert_unique(hash(&number), number, &hash);
    }
    table
}

fn split(place: u64) -> [u32; 2] {
    [(place >> 32) as u32, place as u32]
}

fn joined([high, low]: [u32; 2]) -> u64 {
    (u64::from(high) << 32) | u64::from(low)
}

#[cfg(test)]
#[path = "objects_tests.rs"]
mod tests;
