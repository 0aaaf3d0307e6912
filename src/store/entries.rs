//! [`Entries`]: what look-ups see. In front a bounded cache of whole answers, behind it what is visible but not
//! yet in the index, and behind that the index, which only `inner` asks.
//!
//! The rule that keeps an answer from being stale: whoever loads a key from the index notes the generation before,
//! and may remember the answer only when the generation is still the same, under the lock under which every
//! change is made.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use http::HeaderMap;
use moka::sync::Cache;
use parking_lot::{Mutex, MutexGuard, RwLock};

use super::blob::{Blob, Life};
use super::commit::RowId;
use super::drive::DriveId;
use super::partial::Partial;
use crate::content::{BodyRef, CacheKey, Digest, KeyHash, PartialId, Record};

/// Memory for answers in bytes, roughly.
const HOT: u64 = 32 * 1024 * 1024;
/// Keys share generations; a shared one costs a second look at the index, rarely.
const GENERATIONS: usize = 1024;
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

/// All stored responses of one key, newest first. Partials are among them.
pub type Variants = Arc<[Arc<Entry>]>;

/// The two levels in memory.
pub(super) struct Entries {
    hot: Cache<KeyHash, Arc<Answer>>,
    table: Mutex<Table>,
    serial: AtomicU64,
}

/// A remembered answer. It is changed in place: what the cache drops it drops late, and bodies that are gone must
/// not be kept open by that.
struct Answer(RwLock<Option<Variants>>);

/// What is visible and not in the index. Everything in here is guarded by one lock, a short one.
pub(super) struct Table {
    generations: Vec<u64>,
    keys: HashMap<KeyHash, Pending>,
    /// Blobs that are new or gone, until the index knows.
    pub(super) blobs: HashMap<Digest, PendingBlob>,
    lives: HashMap<Digest, Weak<Life>>,
    lives_swept: usize,
    pub(super) partials: HashMap<PartialId, Arc<Partial>>,
    /// Counts blobs that went.
    pub(super) gone: u64,
}

/// A blob whose state the index does not know yet.
pub(super) struct PendingBlob {
    pub(super) serial: u64,
    /// `None` when it is gone.
    pub(super) blob: Option<Arc<Blob>>,
    /// The journal knows; only an index that is out of order does not.
    pub(super) committed: bool,
}

#[derive(Default)]
struct Pending {
    partials: Vec<Arc<Entry>>,
    rows: Vec<Row>,
}

/// A row of the index that is to change.
struct Row {
    drive: DriveId,
    variant: u64,
    serial: u64,
    state: RowState,
}

enum RowState {
    Live(Arc<Entry>),
    /// Hides the same entry in the index, but not a newer one.
    Dead(Arc<Entry>),
}

impl Entry {
    pub(super) fn new(record: Record, drive: DriveId, serial: u64, target: Target) -> Arc<Self> {
        Arc::new(Self { record, head: OnceLock::new(), drive, serial, target })
    }

    /// Whether its body is known to be gone.
    pub(super) fn is_gone(&self) -> bool {
        match &self.target {
            Target::Blob(life) => life.is_gone(),
            Target::Partial(partial) => partial.is_failed(),
        }
    }

    pub(super) fn partial(&self) -> Option<&Arc<Partial>> {
        match &self.target {
            Target::Partial(partial) => Some(partial),
            Target::Blob(_) => None,
        }
    }

    /// Whether both are the same row with the same content, loaded at different times perhaps.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.drive == other.drive && same_row(&self.record, &other.record)
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
    pub(super) fn new() -> Self {
        let weigh = |_: &KeyHash, answer: &Arc<Answer>| {
            let weight: usize =
                answer.0.read().iter().flat_map(|variants| variants.iter()).map(|entry| weight(&entry.record)).sum();
            u32::try_from(weight + 128).unwrap_or(u32::MAX)
        };
        Self {
            hot: Cache::builder().max_capacity(HOT).weigher(weigh).build(),
            table: Mutex::new(Table {
                generations: vec![0; GENERATIONS],
                keys: HashMap::new(),
                blobs: HashMap::new(),
                lives: HashMap::new(),
                lives_swept: 1024,
                partials: HashMap::new(),
                gone: 0,
            }),
            serial: AtomicU64::new(1),
        }
    }

    /// The next number in the order of arrival.
    pub(super) fn next_serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }

    /// A remembered answer, if all of it is still true.
    pub(super) fn hot(&self, key: &CacheKey) -> Option<Variants> {
        let variants = self.answer(key.hash())?;
        if variants.iter().any(|entry| entry.is_gone()) {
            return None;
        }
        Some(of_key(variants, key))
    }

    /// Joins what is pending with what the index said, and remembers it when `generation` is still that of the
    /// key; `None` when it is not.
    pub(super) fn join(
        &self,
        key: &CacheKey,
        generation: u64,
        rows: &[(DriveId, Record)],
        remember: bool,
    ) -> Option<Variants> {
        let mut table = self.table.lock();
        if table.generation(key.hash()) != generation {
            return None;
        }
        let mut base = Vec::new();
        for (drive, record) in rows {
            let BodyRef::Blob(digest) = record.body else { continue };
            if let Some(life) = table.life(digest) {
                base.push(Entry::new(record.clone(), *drive, 0, Target::Blob(life)));
            }
        }
        let variants = merge(table.keys.get(&key.hash()), base);
        if remember {
            self.remember(key.hash(), Arc::clone(&variants));
        }
        drop(table);
        Some(of_key(variants, key))
    }

    /// What memory alone knows of a key, complete or not.
    pub(super) fn known(&self, table: &Table, key: KeyHash) -> Vec<Arc<Entry>> {
        match self.answer(key) {
            Some(variants) => variants.to_vec(),
            None => merge(table.keys.get(&key), Vec::new()).to_vec(),
        }
    }

    /// Whether memory alone can tell that the row of `entry` has no entry any more.
    pub(super) fn knows_all(&self, table: &Table, entry: &Entry) -> bool {
        let key = entry.record.key.hash();
        let in_row = |row: &Row| row.drive == entry.drive && row.variant == entry.record.variant();
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
        let (key, drive, variant) = (entry.record.key.hash(), entry.drive, entry.record.variant());
        table.set_row(key, Row { drive, variant, serial, state: RowState::Live(Arc::clone(entry)) });
        let is_old = |old: &Entry| old.partial().is_none() && old.drive == drive && old.record.variant() == variant;
        self.amend(table, key, is_old, Some(entry));
        RowId { key, drive, variant, serial }
    }

    /// Hides an entry with a blob; `None` when the row has a newer entry.
    pub(super) fn remove_row(&self, table: &mut Table, entry: &Arc<Entry>) -> Option<RowId> {
        let (key, drive, variant) = (entry.record.key.hash(), entry.drive, entry.record.variant());
        let in_row =
            |other: &Entry| other.partial().is_none() && other.drive == drive && other.record.variant() == variant;
        let newer = self.known(table, key).iter().any(|other| in_row(other) && !other.is_same(entry));
        if newer {
            return None;
        }
        let serial = self.next_serial();
        table.set_row(key, Row { drive, variant, serial, state: RowState::Dead(Arc::clone(entry)) });
        self.amend(table, key, |old| old.is_same(entry), None);
        Some(RowId { key, drive, variant, serial })
    }

    /// The index knows of the change now.
    pub(super) fn retire_row(&self, row: &RowId) {
        let RowId { key, drive, variant, serial } = *row;
        let mut table = self.table.lock();
        if let Some(pending) = table.keys.get_mut(&key) {
            pending.rows.retain(|row| !(row.drive == drive && row.variant == variant && row.serial == serial));
        }
        table.tidy(key);
        // A loader may have asked the index before the change came there.
        table.advance(key);
    }

    /// The change will never come into the index: the answer must be loaded again.
    pub(super) fn withdraw_row(&self, row: &RowId) {
        self.retire_row(row);
        let mut table = self.table.lock();
        table.advance(row.key);
        if let Some(answer) = self.hot.remove(&row.key) {
            *answer.0.write() = None;
        }
    }

    fn answer(&self, key: KeyHash) -> Option<Variants> {
        self.hot.get(&key)?.0.read().clone()
    }

    /// Called under the lock of the table only.
    fn remember(&self, key: KeyHash, variants: Variants) {
        let answer = match self.hot.get(&key) {
            Some(answer) => {
                *answer.0.write() = Some(variants);
                answer
            }
            None => Arc::new(Answer(RwLock::new(Some(variants)))),
        };
        // Again even when it was there, since its weight changed.
        self.hot.insert(key, answer);
    }

    /// Changes the remembered answer, if there is one, and keeps loaders from remembering an older one.
    fn amend(&self, table: &mut Table, key: KeyHash, is_old: impl Fn(&Entry) -> bool, new: Option<&Arc<Entry>>) {
        table.advance(key);
        if let Some(variants) = self.answer(key) {
            let kept = variants.iter().filter(|entry| !is_old(entry)).cloned();
            self.remember(key, sorted(kept.chain(new.cloned()).collect()));
        }
    }
}

impl Table {
    /// The generation of a key.
    pub(super) fn generation(&self, key: KeyHash) -> u64 {
        self.generations.get(slot(key)).copied().unwrap_or_default()
    }

    fn advance(&mut self, key: KeyHash) {
        if let Some(generation) = self.generations.get_mut(slot(key)) {
            *generation += 1;
        }
    }

    /// The life of a blob that the index or `blobs` says is there; `None` when it went meanwhile.
    pub(super) fn life(&mut self, digest: Digest) -> Option<Arc<Life>> {
        match self.blobs.get(&digest) {
            Some(PendingBlob { blob: Some(blob), .. }) => return Some(Arc::clone(blob.life())),
            Some(PendingBlob { blob: None, .. }) => return None,
            None => {}
        }
        if let Some(life) = self.lives.get(&digest).and_then(Weak::upgrade).filter(|life| !life.is_gone()) {
            return Some(life);
        }
        Some(self.new_life(digest))
    }

    /// A life for a blob that is new.
    pub(super) fn new_life(&mut self, digest: Digest) -> Arc<Life> {
        if self.lives.len() >= self.lives_swept {
            self.lives.retain(|_, life| life.strong_count() > 0);
            self.lives_swept = self.lives.len().saturating_mul(2).max(1024);
        }
        let life = Arc::new(Life::new(digest));
        self.lives.insert(digest, Arc::downgrade(&life));
        life
    }

    /// Ends the life of a blob: every entry that points to it is missing from now on.
    pub(super) fn end_life(&mut self, digest: &Digest) -> Option<Arc<Life>> {
        self.gone += 1;
        let life = self.lives.remove(digest).and_then(|life| life.upgrade());
        if let Some(life) = &life {
            life.end();
        }
        life
    }

    /// The blob's state is in the journal, and in the index if `indexed`.
    pub(super) fn retire_blob(&mut self, digest: &Digest, serial: u64, indexed: bool) {
        let Some(pending) = self.blobs.get_mut(digest).filter(|pending| pending.serial == serial) else { return };
        pending.committed = true;
        if indexed {
            self.blobs.remove(digest);
            // A loader that found the older state must not believe it.
            self.gone += 1;
        }
    }

    fn set_row(&mut self, key: KeyHash, row: Row) {
        let pending = self.keys.entry(key).or_default();
        pending.rows.retain(|old| !(old.drive == row.drive && old.variant == row.variant));
        pending.rows.push(row);
    }

    fn tidy(&mut self, key: KeyHash) {
        if self.keys.get(&key).is_some_and(|pending| pending.rows.is_empty() && pending.partials.is_empty()) {
            self.keys.remove(&key);
        }
    }
}

fn slot(key: KeyHash) -> usize {
    let [a, b, ..] = *key.as_bytes();
    usize::from(u16::from_be_bytes([a, b])) % GENERATIONS
}

/// What is pending, and of the index what no pending row replaces.
fn merge(pending: Option<&Pending>, base: Vec<Arc<Entry>>) -> Variants {
    let Some(pending) = pending else { return sorted(base) };
    let replaced = |entry: &Entry| {
        pending.rows.iter().any(|row| {
            let here = row.drive == entry.drive && row.variant == entry.record.variant();
            here && match &row.state {
                RowState::Live(_) => true,
                RowState::Dead(dead) => dead.is_same(entry),
            }
        })
    };
    let mut all: Vec<Arc<Entry>> = base.into_iter().filter(|entry| !replaced(entry)).collect();
    all.extend(pending.partials.iter().cloned());
    all.extend(pending.rows.iter().filter_map(|row| match &row.state {
        RowState::Live(entry) => Some(Arc::clone(entry)),
        RowState::Dead(_) => None,
    }));
    sorted(all)
}

/// What came in this process first, the last first; then by the time of the response. What is gone is left out.
fn sorted(mut entries: Vec<Arc<Entry>>) -> Variants {
    entries.retain(|entry| !entry.is_gone());
    entries.sort_by_key(|entry| std::cmp::Reverse((entry.serial, entry.record.response_time)));
    entries.into()
}

/// Leaves out the entries of another key with the same hash.
fn of_key(variants: Variants, key: &CacheKey) -> Variants {
    if variants.iter().all(|entry| entry.record.key == *key) {
        return variants;
    }
    variants.iter().filter(|entry| entry.record.key == *key).cloned().collect()
}

/// Memory of a record, roughly.
fn weight(record: &Record) -> usize {
    let headers: usize = record.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum();
    512 + record.key.as_str().len() + 2 * headers + record.vary.len() * 96
}
