//! [`Inner`]: what the handle, the writers and the threads of the store share: looking up, and the blobs that come
//! and go. Every change is made, and queued for its drive's journal, under the one lock of [`Entries`]. Changes of
//! what is stored under a key are in `publish`.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::watch;

use super::blob::{Blob, Life};
use super::drive::{DataFile, Drive, DriveId, Victim};
use super::drives::Drives;
use super::entries::{Entries, Known};
use super::error::ReadError;
use super::given::Given;
use super::index::{BlobRow, Index};
use super::journal_entry::Row;
use super::layout;
use super::memory::Memory;
use super::mirror::Mirror;
use super::pinning::Pinning;
use super::pulse::Away;
use super::queue::{Change, RowId};
use super::settings::Settings;
use super::table::{PendingBlob, Table};
use crate::content::{CacheKey, Digest};
use crate::telemetry::Metrics;

/// How often a look-up asks the index anew when the key changed meanwhile, before it goes without being remembered.
const ATTEMPTS: usize = 4;

/// The shared part of the store.
pub(super) struct Inner {
    pub(super) settings: Settings,
    pub(super) metrics: Arc<Metrics>,
    pub(super) drives: Drives,
    pub(super) entries: Entries,
    pub(super) memory: Memory,
    /// Which version clients were given.
    pub(super) given: Arc<Given>,
    /// Knows all when the store is ready.
    pub(super) index: Arc<Index>,
    pub(super) mirror: Arc<Mirror>,
    /// What must not be evicted.
    pub(super) pinning: Pinning,
    pub(super) ready: watch::Sender<bool>,
    /// How often a hand of the evictions has moved, and may have cleared the bits of what was asked for.
    pub(super) sweeps: AtomicU64,
}

impl Inner {
    pub(super) fn new(settings: Settings, metrics: Arc<Metrics>, drives: Drives, away: Arc<Away>) -> Self {
        let memory = Memory::new(settings.memory, settings.open_blobs);
        let (ready, _) = watch::channel(false);
        let (entries, given, sweeps) = (Entries::new(away), Arc::new(Given::new()), AtomicU64::new(0));
        let mirror = Arc::new(Mirror::new(metrics.store_mirror_behind.clone()));
        let index = Arc::new(Index::new(drives.iter(), Arc::clone(&mirror)));
        let pinning = Pinning::new(&metrics);
        Self { settings, metrics, drives, entries, memory, given, index, mirror, pinning, ready, sweeps }
    }

    pub(super) fn drive(&self, id: DriveId) -> Option<&Arc<Drive>> {
        self.drives.iter().find(|drive| drive.id == id)
    }

    pub(super) async fn wait_ready(&self) {
        let mut ready = self.ready.subscribe();
        // Fails only when the sender is dropped, and that is in `self`.
        let _ = ready.wait_for(|ready| *ready).await;
    }

    // === Looking up ===

    pub(super) async fn lookup(&self, key: &CacheKey) -> Known {
        if let Some(known) = self.entries.hot(key) {
            return known;
        }
        self.wait_ready().await;
        for attempt in 0.. {
            let generation = self.entries.lock().generation(key.hash());
            let (rows, sound) = self.rows(key).await;
            let last = attempt >= ATTEMPTS;
            let generation = if last { self.entries.lock().generation(key.hash()) } else { generation };
            if let Some(known) = self.entries.join(key, generation, rows, sound && !last) {
                return known;
            }
        }
        Known::default()
    }

    /// What the drives have under a key, and whether that is all. What is not in the kernel's memory each is asked for on its
    /// own threads: nobody waits for one that hangs.
    async fn rows(&self, key: &CacheKey) -> (Vec<(DriveId, Row)>, bool) {
        let hash = key.hash();
        let (mut rows, mut sound) = (Vec::new(), true);
        for drive in self.index.drives_with(hash) {
            let (index, id) = (Arc::clone(&self.index), drive.id);
            if let Some(found) = index.rows_now(id, hash) {
                rows.extend(found.into_iter().map(|row| (id, row)));
                continue;
            }
            match drive.pool.run(move || index.rows_on(id, hash)).await.flatten() {
                Ok(found) => rows.extend(found.into_iter().map(|row| (id, row))),
                // What is on it counts as missing.
                Err(_) if !drive.pulse.gives() => {}
                Err(error) => {
                    tracing::error!(%key, drive = %drive.label(), %error, "the journal could not be read; counts as missing");
                    sound = false;
                }
            }
        }
        (rows, sound)
    }

    // === Blobs ===

    /// The drive that has a blob, of those that the index knows of. Reads no file.
    pub(super) fn home(&self, digest: &Digest) -> Result<Arc<Drive>, ReadError> {
        if self.entries.lock().blobs.contains_key(digest) {
            return Err(ReadError::Gone);
        }
        self.index.home(digest)?.ok_or(ReadError::Gone)
    }

    /// Opens the file of a blob on its drive. Runs on the calling thread.
    pub(super) fn open_on(self: &Arc<Self>, drive: &Arc<Drive>, life: &Arc<Life>) -> Result<Arc<Blob>, ReadError> {
        let row = self.index.blob_on(drive.id, &life.digest)?.ok_or(ReadError::Gone)?;
        self.open_blob(life, drive, &row)
    }

    fn open_blob(
        self: &Arc<Self>,
        life: &Arc<Life>,
        drive: &Arc<Drive>,
        row: &BlobRow,
    ) -> Result<Arc<Blob>, ReadError> {
        let file = match drive.dir.open_to_read(&layout::blob(&life.digest)) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(ReadError::Gone),
            Err(error) => {
                drive.failed("open a blob", &error);
                return Err(error.into());
            }
        };
        let blob = self.opened(life, drive, row, file)?;
        if life.is_gone() { Err(ReadError::Gone) } else { Ok(blob) }
    }

    /// Makes `file` the open one of a blob.
    fn opened(
        self: &Arc<Self>,
        life: &Arc<Life>,
        drive: &Arc<Drive>,
        row: &BlobRow,
        file: File,
    ) -> io::Result<Arc<Blob>> {
        let file = Arc::new(DataFile::new(file, Arc::clone(drive), row.allocated));
        let store = Arc::downgrade(self);
        // After a move between drives they are those of the other file.
        let known = life.facts().filter(|facts| facts.drive.id == drive.id && facts.sums == row.sums).cloned();
        let blob = match known {
            Some(facts) => Blob::again(Arc::clone(life), facts, file, store)?,
            None => Blob::new(Arc::clone(life), row.sums.clone(), file, Arc::clone(drive), store, true, |_| false)?,
        };
        Ok(life.set_open(Arc::new(blob)))
    }

    /// Opens the file of a blob on its drive for the first time, if that takes no waiting for a disk.
    pub(super) fn open_now(self: &Arc<Self>, drive: &Arc<Drive>, life: &Arc<Life>) -> Option<Arc<Blob>> {
        let row = self.index.blob_now(drive.id, &life.digest)?;
        let file = drive.dir.open_now(&layout::blob(&life.digest)).ok()?;
        self.opened(life, drive, &row, file).ok().filter(|_| !life.is_gone())
    }

    /// Opens the file of a blob that was open before, if that takes no waiting for a disk.
    pub(super) fn reopen_now(self: &Arc<Self>, life: &Arc<Life>) -> Option<Arc<Blob>> {
        let facts = life.facts()?;
        let file = facts.drive.dir.open_now(&layout::blob(&life.digest)).ok()?;
        let file = Arc::new(DataFile::new(file, Arc::clone(&facts.drive), facts.counted()));
        let blob = Blob::again(Arc::clone(life), Arc::clone(facts), file, Arc::downgrade(self)).ok()?;
        let blob = life.set_open(Arc::new(blob));
        (!life.is_gone()).then_some(blob)
    }

    /// Notes for the evictions that a blob was asked for. The lock of a drive is taken once for each time that its hand
    /// may have passed the blob, not for each request.
    pub(super) fn touch(&self, life: &Life) {
        if life.ask(self.sweeps.load(Ordering::Acquire)) {
            // Which drive has it is not known here; the wrong ones ignore it.
            self.drives.iter().for_each(|drive| drive.sieve.lock().touch(&Victim::Blob(life.digest)));
        }
    }

    /// Forgets a blob: entries that point to it are missing at once, the file goes with the next batch.
    pub(super) fn drop_blob(&self, table: &mut Table, drive: &Drive, digest: Digest, reason: Option<String>) {
        let size = drive.sieve.lock().remove(&Victim::Blob(digest));
        self.drop_blob_sized(table, drive, digest, size.unwrap_or(0), reason);
    }

    pub(super) fn drop_blob_sized(
        &self,
        table: &mut Table,
        drive: &Drive,
        digest: Digest,
        size: u64,
        reason: Option<String>,
    ) {
        let life = table.end_life(&digest);
        let pending = table.blobs.get(&digest).and_then(|pending| pending.blob.clone());
        let open = pending.or_else(|| life.and_then(|life| life.open_blob()));
        // The open one may be a copy on another drive, which stays.
        let here = |blob: &Arc<Blob>| blob.is_named() && blob.drive().id == drive.id;
        let file = open.filter(here).map(|blob| Arc::clone(blob.file()));
        self.memory.forget(&digest);
        drive.blob_gone();
        drive.leaves(size);
        let serial = self.entries.next_serial();
        table.blobs.insert(digest, PendingBlob::gone(serial));
        drive.queue.push(Change::BlobGone { digest, serial, file, size, quarantine: reason });
    }

    /// The file of a blob is missing: so are the entries that point to it.
    pub(super) fn blob_missing(&self, life: &Arc<Life>) {
        loop {
            let gone = self.entries.lock().gone;
            let place = match self.home(&life.digest) {
                Ok(drive) if drive.in_service() => Some(drive),
                Err(ReadError::Gone) => None,
                // Nothing can be said of what is on a drive that is out of service.
                Ok(_) | Err(_) => return,
            };
            let mut table = self.entries.lock();
            if life.is_gone() {
                return;
            }
            if table.gone != gone {
                continue;
            }
            let uncommitted = table.blobs.contains_key(&life.digest);
            return match place.filter(|_| !uncommitted) {
                Some(drive) => self.drop_blob(&mut table, &drive, life.digest, None),
                None => life.end(),
            };
        }
    }

    /// A blob that was visible could not be made durable.
    pub(super) fn content_lost(&self, blob: &Blob, row: RowId, serial: u64) {
        let mut table = self.entries.lock();
        blob.drive().sieve.lock().remove(&Victim::Blob(blob.digest()));
        blob.drive().blob_gone();
        // Unless it came anew on another drive.
        if table.blobs.get(&blob.digest()).is_none_or(|pending| pending.serial == serial) {
            table.end_life(&blob.digest());
            self.memory.forget(&blob.digest());
        }
        blob.life().end();
        table.retire_blob(&blob.digest(), serial);
        drop(table);
        self.entries.withdraw_row(&row);
    }

    /// A reference that does not keep the store.
    pub(super) fn weak(self: &Arc<Self>) -> Weak<Self> {
        Arc::downgrade(self)
    }
}
