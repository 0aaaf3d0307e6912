//! [`Entries`]: what look-ups see. In front a bounded cache of whole answers, behind it what is visible but not
//! yet in the index, and behind that the index, which only `inner` asks.
//!
//! The rule that keeps an answer from being stale: whoever loads a key from the index notes the generation before,
//! and may remember the answer only when the generation is still the same, under the lock under which every
//! change is made.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use http::HeaderMap;
use moka::sync::Cache;
use parking_lot::{Mutex, MutexGuard, RwLock};

use super::blob::Life;
use super::drive::DriveId;
use super::journal_entry::{self, place};
use super::partial::Partial;
use super::pulse::Away;
use super::queue::RowId;
use super::table::{PendingRow, RowState, Table, generation, merge, sorted};
use crate::content::{BodyRef, CacheKey, Digest, KeyHash, PartialId, Record, UnixMillis, Version};

/// Memory for answers in bytes, roughly.
const HOT: u64 = 32 * 1024 * 1024;
/// Most variants of one key (RFC 9111 section 4.1 sets no bound).
pub(super) const MAX_VARIANTS: usize = 8;
/// Most partial bodies without a writer for one variant of a key.
pub(super) const MAX_STOPPED: usize = 2;

/// A stored response as look-ups return it.
pub struct Entry {
    /// What is known of it.
    pub record: Record,
    /// The response fields that do not change from answer to answer, made once by `serve`.
    pub head: OnceLock<HeaderMap>,
    /// The partial body in which its bytes came.
    pub(super) birth: PartialId,
    /// Since when another version has its place, if one has.
    pub(super) superseded: Option<UnixMillis>,
    version: OnceLock<Version>,
    /// The drive whose journal knows it.
    pub(super) drive: DriveId,
    /// Order of arrival in this process, 0 for what was there before.
    pub(super) serial: u64,
    pub(super) target: Target,
}

/// What an entry points to.
pub(super) enum Target {
    Blob(Arc<Life>),
    Partial(Arc<Partial>),
}

/// Stored responses of one key, newest first. Partials are among them.
pub type Variants = Arc<[Arc<Entry>]>;

/// Everything that is stored under one key.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// What requests are answered with.
    pub current: Variants,
    /// Older versions of it; `None` stands for none, and shares no counter with other keys.
    pub(super) older: Option<Variants>,
}

/// The two levels in memory.
pub(super) struct Entries {
    hot: Cache<KeyHash, Arc<Answer>>,
    table: Mutex<Table>,
    generations: Arc<[AtomicU64]>,
    serial: AtomicU64,
    /// Drives whose content counts as missing.
    away: Arc<Away>,
}

/// A remembered answer. It is changed in place: what the cache drops it drops late, and bodies that are gone must
/// not be kept open by that.
struct Answer(RwLock<Option<Known>>);

impl Entry {
    pub(super) fn new(row: journal_entry::Row, drive: DriveId, serial: u64, target: Target) -> Arc<Self> {
        let journal_entry::Row { record, birth, superseded } = row;
        let (head, version) = (OnceLock::new(), OnceLock::new());
        Arc::new(Self { record, head, birth, superseded, version, drive, serial, target })
    }

    /// One that is not stored, for a response whose body passes through memory. Its version is what its fields tell.
    pub fn unstored(record: Record) -> Arc<Self> {
        let birth = Version::told_by(&record.headers, record.length).birth;
        let life = Life::new(Digest::of(&[]));
        life.end();
        let row = journal_entry::Row { record, birth, superseded: None };
        Self::new(row, DriveId(0), 0, Target::Blob(Arc::new(life)))
    }

    /// Which version of the resource it is.
    pub fn version(&self) -> Version {
        *self.version.get_or_init(|| Version::of(&self.record, self.birth))
    }

    /// As its drive's journal has it.
    pub(super) fn as_row(&self) -> journal_entry::Row {
        journal_entry::Row { record: self.record.clone(), birth: self.birth, superseded: self.superseded }
    }

    /// Its place among the rows of its key.
    pub(super) fn place(&self) -> u64 {
        place(&self.record, self.birth, self.superseded)
    }

    /// Whether its body is known to be gone.
    pub(super) fn is_gone(&self) -> bool {
        match &self.target {
            Target::Blob(life) => life.is_gone(),
            Target::Partial(partial) => partial.is_failed(),
        }
    }

    /// Whether its drive does not give it now; of a body that is not complete: or would not take the rest.
    pub(super) fn is_away(&self, away: &Away) -> bool {
        away.has(self.drive) || self.partial().is_some_and(|partial| !partial.drive.in_service())
    }

    pub(super) fn partial(&self) -> Option<&Arc<Partial>> {
        match &self.target {
            Target::Partial(partial) => Some(partial),
            Target::Blob(_) => None,
        }
    }

    /// Whether both are the same row with the same content, loaded at different times perhaps.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let rows = (self.superseded.is_some(), other.superseded.is_some());
        self.drive == other.drive && rows.0 == rows.1 && same_row(&self.record, &other.record)
    }
}

/// Whether two records are one response under one key.
pub(super) fn same_row(a: &Record, b: &Record) -> bool {
    a.body == b.body && a.response_time == b.response_time && a.key == b.key && a.variant() == b.variant()
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("record", &self.record).field("serial", &self.serial).finish_non_exhaustive()
    }
}

impl Entries {
    pub(super) fn new(away: Arc<Away>) -> Self {
        let weigh = |_: &KeyHash, answer: &Arc<Answer>| {
            let weight: usize =
                answer.0.read().iter().flat_map(Known::entries).map(|entry| weight(&entry.record)).sum();
            u32::try_from(weight + 128).unwrap_or(u32::MAX)
        };
        let table = Table::new();
        Self {
            hot: Cache::builder().max_capacity(HOT).weigher(weigh).build(),
            generations: Arc::clone(table.generations()),
            table: Mutex::new(table),
            serial: AtomicU64::new(1),
            away,
        }
    }

    /// The next number in the order of arrival.
    pub(super) fn next_serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }

    /// Goes up with each change of the key: what was true of it before still is while this stays the same.
    pub(super) fn generation(&self, key: KeyHash) -> u64 {
        generation(&self.generations, key)
    }

    /// A remembered answer, if all of it is still true.
    pub(super) fn hot(&self, key: &CacheKey) -> Option<Known> {
        let known = self.answer(key.hash())?;
        if known.entries().any(|entry| entry.is_gone() || entry.is_away(&self.away)) {
            return None;
        }
        Some(known.of_key(key))
    }

    /// Joins what is pending with what the index said, and remembers it when `generation` is still that of the
    /// key; `None` when it is not.
    pub(super) fn join(
        &self,
        key: &CacheKey,
        generation: u64,
        rows: Vec<(DriveId, journal_entry::Row)>,
        remember: bool,
    ) -> Option<Known> {
        let mut table = self.table.lock();
        if table.generation(key.hash()) != generation {
            return None;
        }
        let mut base = Vec::new();
        for (drive, row) in rows {
            let BodyRef::Blob(digest) = row.record.body else { continue };
            if table.is_anew(&digest) {
                continue;
            }
            if let Some(life) = table.life(digest) {
                base.push(Entry::new(row, drive, 0, Target::Blob(life)));
            }
        }
        let known = merge(table.keys.get(&key.hash()), base).without(&self.away);
        if remember {
            self.remember(key.hash(), known.clone());
        }
        drop(table);
        Some(known.of_key(key))
    }

    /// The drives whose content counts as missing.
    pub(super) fn away(&self) -> &Arc<Away> {
        &self.away
    }

    /// A drive came or went: every answer has to be made anew.
    pub(super) fn forget_answers(&self, table: &mut Table) {
        self.hot.invalidate_all();
        table.advance_all();
    }

    /// What memory alone knows of a key, complete or not; older versions are the last.
    pub(super) fn known(&self, table: &Table, key: KeyHash) -> Vec<Arc<Entry>> {
        let known = self.answer(key).unwrap_or_else(|| merge(table.keys.get(&key), Vec::new()));
        known.entries().cloned().collect()
    }

    /// Whether memory alone can tell that the row of `entry` has no entry any more.
    pub(super) fn knows_all(&self, table: &Table, entry: &Entry) -> bool {
        let key = entry.record.key.hash();
        let in_row = |row: &PendingRow| row.drive == entry.drive && row.place == entry.place();
        self.answer(key).is_some() || table.keys.get(&key).is_some_and(|pending| pending.rows.iter().any(in_row))
    }

    /// Makes a partial visible.
    pub(super) fn add_partial(&self, table: &mut Table, entry: &Arc<Entry>) {
        let key = entry.record.key.hash();
        if let Some(partial) = entry.partial() {
            table.partials.insert(partial.id(), Arc::clone(partial));
        }
        table.keys.entry(key).or_default().partials.push(Arc::clone(entry));
        self.amend(table, key, |_| false, Some(entry));
    }

    /// Replaces the entry of a partial by one with a newer record.
    pub(super) fn replace_partial(&self, table: &mut Table, id: PartialId, entry: &Arc<Entry>) {
        let key = entry.record.key.hash();
        let is_old = |old: &Entry| old.record.body == BodyRef::Partial(id);
        if let Some(pending) = table.keys.get_mut(&key) {
            pending.partials.retain(|old| !is_old(old));
            pending.partials.push(Arc::clone(entry));
        }
        self.amend(table, key, is_old, Some(entry));
    }

    /// Forgets a partial.
    pub(super) fn remove_partial(&self, table: &mut Table, key: KeyHash, id: PartialId) {
        let is_old = |old: &Entry| old.record.body == BodyRef::Partial(id);
        table.partials.remove(&id);
        if let Some(pending) = table.keys.get_mut(&key) {
            pending.partials.retain(|old| !is_old(old));
        }
        table.tidy(key);
        self.amend(table, key, is_old, None);
    }

    /// Makes an entry with a blob visible in place of the row's former one.
    pub(super) fn put_row(&self, table: &mut Table, entry: &Arc<Entry>) -> RowId {
        let serial = self.next_serial();
        let (key, drive, place) = (entry.record.key.hash(), entry.drive, entry.place());
        table.set_row(key, PendingRow { drive, place, serial, state: RowState::Live(Arc::clone(entry)) });
        let is_old = |old: &Entry| old.partial().is_none() && old.drive == drive && old.place() == place;
        self.amend(table, key, is_old, Some(entry));
        RowId { key, drive, place, serial }
    }

    /// Hides an entry with a blob; `None` when the row has a newer entry.
    pub(super) fn remove_row(&self, table: &mut Table, entry: &Arc<Entry>) -> Option<RowId> {
        let (key, drive, place) = (entry.record.key.hash(), entry.drive, entry.place());
        let in_row = |other: &Entry| other.partial().is_none() && other.drive == drive && other.place() == place;
        let newer = self.known(table, key).iter().any(|other| in_row(other) && !other.is_same(entry));
        if newer {
            return None;
        }
        Some(self.hide_row(table, entry))
    }

    /// Hides an entry with a blob.
    pub(super) fn hide_row(&self, table: &mut Table, entry: &Arc<Entry>) -> RowId {
        let (key, drive, place) = (entry.record.key.hash(), entry.drive, entry.place());
        let serial = self.next_serial();
        table.set_row(key, PendingRow { drive, place, serial, state: RowState::Dead(Arc::clone(entry)) });
        self.amend(table, key, |old| old.is_same(entry), None);
        RowId { key, drive, place, serial }
    }

    /// The index knows of the change now.
    pub(super) fn retire_row(&self, row: &RowId) {
        let RowId { key, drive, place, serial } = *row;
        let mut table = self.table.lock();
        if let Some(pending) = table.keys.get_mut(&key) {
            pending.rows.retain(|row| !(row.drive == drive && row.place == place && row.serial == serial));
        }
        table.tidy(key);
        // A loader may have asked the index before the change came there.
        table.advance(key);
    }

    /// The change will never come into the index: the answer must be loaded again.
    pub(super) fn withdraw_row(&self, row: &RowId) {
        self.retire_row(row);
        let mut table = self.table.lock();
        if let Some(answer) = self.hot.remove(&row.key) {
            *answer.0.write() = None;
        }
        table.advance(row.key);
    }

    fn answer(&self, key: KeyHash) -> Option<Known> {
        self.hot.get(&key)?.0.read().clone()
    }

    /// Called under the lock of the table only.
    fn remember(&self, key: KeyHash, known: Known) {
        let answer = match self.hot.get(&key) {
            Some(answer) => {
                *answer.0.write() = Some(known);
                answer
            }
            None => Arc::new(Answer(RwLock::new(Some(known)))),
        };
        // Again even when it was there, since its weight changed.
        self.hot.insert(key, answer);
    }

    /// Changes the remembered answer, if there is one, and keeps loaders from remembering an older one.
    fn amend(&self, table: &mut Table, key: KeyHash, is_old: impl Fn(&Entry) -> bool, new: Option<&Arc<Entry>>) {
        if let Some(known) = self.answer(key) {
            let kept = known.entries().filter(|entry| !is_old(entry)).cloned();
            self.remember(key, sorted(kept.chain(new.cloned()).collect()));
        }
        // Last, since who sees the new generation looks without the lock.
        table.advance(key);
    }
}

impl Known {
    /// Older versions, for those who have a part of one; those that were superseded last first.
    pub fn older(&self) -> &[Arc<Entry>] {
        self.older.as_deref().unwrap_or_default()
    }

    /// All of it, what is current first.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.current.iter().chain(self.older())
    }

    /// Leaves out what is on drives that are away.
    fn without(self, away: &Away) -> Self {
        if !self.entries().any(|entry| entry.is_away(away)) {
            return self;
        }
        let of = |entries: &Variants| entries.iter().filter(|entry| !entry.is_away(away)).cloned().collect();
        Self { current: of(&self.current), older: self.older.as_ref().map(of) }
    }

    /// Leaves out the entries of another key with the same hash.
    fn of_key(self, key: &CacheKey) -> Self {
        if self.entries().all(|entry| entry.record.key == *key) {
            return self;
        }
        let of = |entries: &Variants| entries.iter().filter(|entry| entry.record.key == *key).cloned().collect();
        Self { current: of(&self.current), older: self.older.as_ref().map(of) }
    }
}

/// Of each block of 1 MiB a sum and a time are known, once its blob was open.
const BYTES_PER_FACT: u64 = 1024 * 1024 / 8;

/// Memory of a record, roughly.
fn weight(record: &Record) -> usize {
    let headers: usize = record.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum();
    // Measured: about 8 KiB for an answer with six fields, tables and the prepared head included.
    let facts = record.length.map_or(0, |length| usize::try_from(length / BYTES_PER_FACT).unwrap_or(usize::MAX));
    (6 * 1024 + record.key.as_str().len() + 4 * headers + record.vary.len() * 96).saturating_add(facts)
}
