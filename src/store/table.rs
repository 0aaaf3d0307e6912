//! [`Table`]: what is visible and not in the index yet, and which blobs are known to be there or gone. Everything in
//! here is guarded by one lock, that of `entries`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::blob::{Blob, Life};
use super::drive::DriveId;
use super::entries::{Entry, Known};
use super::partial::Partial;
use crate::content::{Digest, KeyHash, PartialId};

/// Keys share generations; a shared one costs a second look at the index, rarely.
const GENERATIONS: usize = 4096;
/// How often partial bodies are looked through for older versions that have outlived their time.
const SWEEP: Duration = Duration::from_secs(600);
/// What is visible and not in the index.
pub(super) struct Table {
    generations: Arc<[AtomicU64]>,
    pub(super) keys: HashMap<KeyHash, Pending>,
    /// Blobs that are new or gone, until the index knows.
    pub(super) blobs: HashMap<Digest, PendingBlob>,
    lives: HashMap<Digest, Weak<Life>>,
    lives_swept: usize,
    pub(super) partials: HashMap<PartialId, Arc<Partial>>,
    /// Counts blobs that went.
    pub(super) gone: u64,
    swept: Instant,
}

/// A blob whose state the index does not know yet.
pub(super) struct PendingBlob {
    pub(super) serial: u64,
    /// `None` when it is gone.
    pub(super) life: Option<Arc<Life>>,
    /// Kept open until the journal knows.
    pub(super) blob: Option<Arc<Blob>>,
    /// It came while its going was pending: what the index says points to it pointed to the one before, and goes too.
    pub(super) anew: bool,
}

/// Changes of one key.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) partials: Vec<Arc<Entry>>,
    pub(super) rows: Vec<PendingRow>,
}

/// A row of the index that is to change.
pub(super) struct PendingRow {
    pub(super) drive: DriveId,
    pub(super) place: u64,
    pub(super) serial: u64,
    pub(super) state: RowState,
}

/// What becomes of a row.
pub(super) enum RowState {
    /// It gets this entry.
    Live(Arc<Entry>),
    /// Hides the same entry in the index, but not a newer one.
    Dead(Arc<Entry>),
}

impl PendingBlob {
    /// A blob that became visible.
    fn new(serial: u64, blob: &Arc<Blob>, anew: bool) -> Self {
        let life = Some(Arc::clone(blob.life()));
        Self { serial, life, blob: Some(Arc::clone(blob)), anew }
    }

    /// Whether it is on a drive in service.
    pub(super) fn is_here(&self) -> bool {
        let drive = self.blob.as_ref().map(|blob| blob.drive());
        self.life.is_some() && drive.is_none_or(|drive| drive.in_service())
    }

    /// A blob that went.
    pub(super) fn gone(serial: u64) -> Self {
        Self { serial, life: None, blob: None, anew: false }
    }
}

impl Table {
    /// With nothing pending.
    pub(super) fn new() -> Self {
        Self {
            generations: (0..GENERATIONS).map(|_| AtomicU64::new(0)).collect(),
            keys: HashMap::new(),
            blobs: HashMap::new(),
            lives: HashMap::new(),
            lives_swept: 1024,
            partials: HashMap::new(),
            gone: 0,
            swept: Instant::now(),
        }
    }

    /// Whether it is time to look through the partial bodies, which the caller then does.
    pub(super) fn is_due_for_sweep(&mut self) -> bool {
        let due = self.swept.elapsed() >= SWEEP;
        if due {
            self.swept = Instant::now();
        }
        due
    }

    /// The generations, for those who look without the lock.
    pub(super) fn generations(&self) -> &Arc<[AtomicU64]> {
        &self.generations
    }

    /// The generation of a key.
    pub(super) fn generation(&self, key: KeyHash) -> u64 {
        generation(&self.generations, key)
    }

    /// Whoever loads the key now must not remember it.
    pub(super) fn advance(&mut self, key: KeyHash) {
        if let Some(generation) = self.generations.get(slot(key)) {
            generation.fetch_add(1, Ordering::Release);
        }
    }

    /// The same of all keys.
    pub(super) fn advance_all(&mut self) {
        for generation in self.generations.iter() {
            generation.fetch_add(1, Ordering::Release);
        }
    }

    /// The life of a blob that the index or `blobs` says is there; `None` when it went meanwhile.
    pub(super) fn life(&mut self, digest: Digest) -> Option<Arc<Life>> {
        if let Some(pending) = self.blobs.get(&digest) {
            return pending.life.clone();
        }
        if let Some(life) = self.lives.get(&digest).and_then(Weak::upgrade).filter(|life| !life.is_gone()) {
            return Some(life);
        }
        Some(self.new_life(digest))
    }

    /// Makes a blob visible.
    pub(super) fn add_blob(&mut self, serial: u64, blob: &Arc<Blob>) {
        let digest = blob.digest();
        let anew = self.blobs.get(&digest).is_some_and(|before| before.life.is_none() || before.anew);
        self.blobs.insert(digest, PendingBlob::new(serial, blob, anew));
    }

    /// Whether rows of the index that point to the blob are of one that went.
    pub(super) fn is_anew(&self, digest: &Digest) -> bool {
        self.blobs.get(digest).is_some_and(|pending| pending.anew)
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

    /// The blob's state is in the journal and in the index.
    pub(super) fn retire_blob(&mut self, digest: &Digest, serial: u64) {
        if self.blobs.get(digest).is_some_and(|pending| pending.serial == serial) {
            self.blobs.remove(digest);
            // A loader that found the older state must not believe it.
            self.gone += 1;
        }
    }

    /// Notes the newest change of a row.
    pub(super) fn set_row(&mut self, key: KeyHash, row: PendingRow) {
        let pending = self.keys.entry(key).or_default();
        pending.rows.retain(|old| !(old.drive == row.drive && old.place == row.place));
        pending.rows.push(row);
    }

    /// Forgets a key of which nothing is pending.
    pub(super) fn tidy(&mut self, key: KeyHash) {
        if self.keys.get(&key).is_some_and(|pending| pending.rows.is_empty() && pending.partials.is_empty()) {
            self.keys.remove(&key);
        }
    }
}

/// The generation of `key` in `generations`.
pub(super) fn generation(generations: &[AtomicU64], key: KeyHash) -> u64 {
    generations.get(slot(key)).map_or(0, |generation| generation.load(Ordering::Acquire))
}

fn slot(key: KeyHash) -> usize {
    let [a, b, ..] = *key.as_bytes();
    usize::from(u16::from_be_bytes([a, b])) % GENERATIONS
}

/// What is pending, and of the index what no pending row replaces.
pub(super) fn merge(pending: Option<&Pending>, base: Vec<Arc<Entry>>) -> Known {
    let Some(pending) = pending else { return sorted(base) };
    let replaced = |entry: &Entry| {
        pending.rows.iter().any(|row| {
            let here = row.drive == entry.drive && row.place == entry.place();
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

/// What came in this process first, the last first; then by the time of the response. Older versions are apart, those
/// that were superseded last first. What is gone is left out.
pub(super) fn sorted(mut entries: Vec<Arc<Entry>>) -> Known {
    entries.retain(|entry| !entry.is_gone());
    let (mut older, mut current): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.superseded.is_some());
    current.sort_by_key(|entry| std::cmp::Reverse((entry.serial, entry.record.response_time)));
    if older.is_empty() {
        return Known { current: current.into(), older: None };
    }
    older.sort_by_key(|entry| std::cmp::Reverse((entry.superseded, entry.serial, entry.record.response_time)));
    Known { current: current.into(), older: Some(older.into()) }
}
