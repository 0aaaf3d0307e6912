//! [`Inner`]: what the handle, the writers and the threads of the store share, and the changes of visible state.
//! Every change is made, and queued for its drive's journal, under the one lock of [`Entries`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use parking_lot::RwLock;
use tokio::sync::watch;

use super::blob::{Blob, Life};
use super::commit::{Change, RowId};
use super::drive::{DataFile, Drive, DriveId, Victim};
use super::entries::{Entries, Entry, MAX_STOPPED, MAX_VARIANTS, PendingBlob, Table, Target, Variants};
use super::error::{CompleteError, ReadError};
use super::fill_file::Finished;
use super::index::{Applied, BlobRow, Index, Watermark};
use super::memory::Memory;
use super::partial::{Partial, Phase};
use super::pool::{Pool, panic_text};
use super::quarantine;
use super::settings::Settings;
use super::writer::Completed;
use super::{disk, layout};
use crate::content::{BodyRef, CacheKey, Digest, Record};
use crate::telemetry::Metrics;

/// How often a look-up asks the index anew when the key changed meanwhile, before it goes without being remembered.
const ATTEMPTS: usize = 4;

/// The shared part of the store.
pub(super) struct Inner {
    pub(super) settings: Settings,
    pub(super) metrics: Arc<Metrics>,
    pub(super) drives: Vec<Arc<Drive>>,
    pub(super) entries: Entries,
    pub(super) memory: Memory,
    /// Threads for the index.
    pub(super) lookups: Pool,
    /// `None` before it is open, when there is none to be had, and when the store is closed.
    index: RwLock<Option<Arc<Index>>>,
    pub(super) ready: watch::Sender<bool>,
}

impl Inner {
    pub(super) fn new(settings: Settings, metrics: Arc<Metrics>, drives: Vec<Arc<Drive>>, lookups: Pool) -> Self {
        let memory = Memory::new(settings.memory);
        let (ready, _) = watch::channel(false);
        Self { settings, metrics, drives, entries: Entries::new(), memory, lookups, index: RwLock::new(None), ready }
    }

    pub(super) fn index_path(&self) -> PathBuf {
        self.settings.state.join(layout::INDEX)
    }

    /// Puts the index in place, or takes it out.
    pub(super) fn set_index(&self, index: Option<Arc<Index>>) {
        *self.index.write() = index;
    }

    pub(super) fn index(&self) -> Option<Arc<Index>> {
        self.index.read().clone()
    }

    /// Whether what was applied is in the index.
    pub(super) fn index_is_sound(&self) -> bool {
        self.index().is_some_and(|index| !index.is_broken())
    }

    /// Applies what the journal has to the index.
    pub(super) fn apply(&self, drive: &Drive, entries: &[Applied], end: Watermark) {
        let Some(index) = self.index() else { return };
        let error = match catch_unwind(AssertUnwindSafe(|| index.apply(drive.id, entries, end))) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic_text(panic.as_ref()).to_owned(),
        };
        index.give_up();
        tracing::error!(drive = %drive.label(), %error, "the index could not be written");
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

    pub(super) async fn lookup(&self, key: &CacheKey) -> Variants {
        if let Some(variants) = self.entries.hot(key) {
            return variants;
        }
        self.wait_ready().await;
        for attempt in 0.. {
            let generation = self.entries.lock().generation(key.hash());
            let (rows, sound) = match self.rows(key).await {
                Ok(rows) => (rows, true),
                Err(error) => {
                    tracing::error!(%key, %error, "the index could not be asked; counts as missing");
                    (Vec::new(), false)
                }
            };
            let last = attempt >= ATTEMPTS;
            let generation = if last { self.entries.lock().generation(key.hash()) } else { generation };
            if let Some(variants) = self.entries.join(key, generation, &rows, sound && !last) {
                return variants;
            }
        }
        Arc::default()
    }

    async fn rows(&self, key: &CacheKey) -> Result<Vec<(DriveId, Record)>, String> {
        let Some(index) = self.index() else { return Ok(Vec::new()) };
        let hash = key.hash();
        let rows = self.lookups.run(move || index.records(hash)).await;
        rows.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    // === Blobs ===

    /// Asks the index where a blob is. Runs on the calling thread.
    pub(super) fn locate(&self, digest: &Digest) -> Result<(Arc<Drive>, BlobRow), ReadError> {
        let index = self.index().ok_or(ReadError::Gone)?;
        let row = index.blob(digest).map_err(|error| std::io::Error::other(error.to_string()))?;
        let (id, row) = row.ok_or(ReadError::Gone)?;
        Ok((Arc::clone(self.drive(id).ok_or(ReadError::Gone)?), row))
    }

    /// Opens the file of a blob. Runs on the calling thread.
    pub(super) fn open_blob(
        self: &Arc<Self>,
        life: &Arc<Life>,
        drive: &Arc<Drive>,
        row: BlobRow,
    ) -> Result<Arc<Blob>, ReadError> {
        let file = match drive.dir.open_file(&layout::blob(&life.digest)) {
            Ok(file) => DataFile::new(file, Arc::clone(drive), row.allocated),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(ReadError::Gone),
            Err(error) => {
                drive.failed("open a blob", &error);
                return Err(error.into());
            }
        };
        let (drive, store) = (Arc::clone(drive), Arc::downgrade(self));
        let blob = Blob::new(Arc::clone(life), row.sums, Arc::new(file), drive, store, true, |_| false)?;
        let blob = life.set_open(Arc::new(blob));
        if life.is_gone() {
            return Err(ReadError::Gone);
        }
        Ok(blob)
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
        let file = open.filter(|blob| blob.is_named()).map(|blob| Arc::clone(blob.file()));
        self.memory.forget(&digest);
        drive.blob_gone();
        drive.leaves(size);
        let serial = self.entries.next_serial();
        table.blobs.insert(digest, PendingBlob { serial, blob: None, committed: false });
        drive.queue.push(Change::BlobGone { digest, serial, file, size, quarantine: reason });
    }

    /// A block did not hold: the blob goes to quarantine and every entry that points to it is missing.
    pub(super) fn blob_damaged(&self, blob: &Blob, block: u64) {
        self.metrics.damaged_blocks.inc();
        tracing::error!(drive = %blob.drive().label(), digest = %blob.digest(), block, "damaged block");
        let mut table = self.entries.lock();
        if blob.is_named() && !blob.life().is_gone() {
            let reason = format!("block {block} does not have the CRC-32C it was stored with");
            self.drop_blob(&mut table, blob.drive(), blob.digest(), Some(reason));
        }
    }

    /// The file of a blob is missing: so are the entries that point to it.
    pub(super) fn blob_missing(&self, life: &Arc<Life>) {
        let mut table = self.entries.lock();
        if life.is_gone() {
            return;
        }
        let uncommitted = table.blobs.contains_key(&life.digest);
        let row = self.index().and_then(|index| index.blob(&life.digest).ok().flatten());
        match row.and_then(|(id, _)| self.drive(id)).filter(|_| !uncommitted) {
            Some(drive) => self.drop_blob(&mut table, &Arc::clone(drive), life.digest, None),
            None => life.end(),
        }
    }

    /// A blob that was visible could not be made durable.
    pub(super) fn content_lost(&self, blob: &Blob, row: RowId, serial: u64) {
        let mut table = self.entries.lock();
        blob.drive().sieve.lock().remove(&Victim::Blob(blob.digest()));
        blob.drive().blob_gone();
        table.end_life(&blob.digest());
        blob.life().end();
        self.memory.forget(&blob.digest());
        table.retire_blob(&blob.digest(), serial, true);
        drop(table);
        self.entries.withdraw_row(&row);
    }

    /// The blob, if its content is stored already and its file is as long as it should be.
    fn stored(self: &Arc<Self>, digest: Digest) -> Option<Arc<Blob>> {
        let life = {
            let mut table = self.entries.lock();
            match table.blobs.get(&digest) {
                Some(pending) => return pending.blob.clone(),
                None => table.life(digest)?,
            }
        };
        let open = life.open_blob().filter(|_| !life.is_gone());
        let open = open.map_or_else(|| self.locate(&digest).and_then(|(d, row)| self.open_blob(&life, &d, row)), Ok);
        let blob = open.ok()?;
        let identity = disk::identity(blob.file().file()).ok()?;
        let named = blob.drive().dir.stat(&layout::blob(&digest)).ok()??;
        (identity.size() == blob.length() && identity.is(&named)).then_some(blob)
    }

    // === Partial bodies ===

    /// Makes a new partial visible; too many variants or abandoned bodies of its key go.
    pub(super) fn publish_partial(&self, record: Record, partial: &Arc<Partial>) -> Arc<Entry> {
        let mut table = self.entries.lock();
        let serial = self.entries.next_serial();
        let entry = Entry::new(record, partial.drive.id, serial, Target::Partial(Arc::clone(partial)));
        partial.state.lock().entry = Arc::downgrade(&entry);
        self.entries.add_partial(&mut table, &entry);
        self.bound_variants(&mut table, &entry);
        entry
    }

    fn bound_variants(&self, table: &mut Table, newest: &Entry) {
        let known = self.entries.known(table, newest.record.key.hash());
        let stopped = |entry: &&Arc<Entry>| {
            let same = entry.record.variant() == newest.record.variant() && entry.serial != newest.serial;
            same && entry.partial().is_some_and(|partial| !partial.has_writer())
        };
        let abandoned: Vec<_> = known.iter().filter(stopped).skip(MAX_STOPPED).cloned().collect();
        abandoned.iter().for_each(|entry| self.remove(table, entry));
        let mut variants: Vec<u64> = Vec::new();
        for entry in &known {
            let variant = entry.record.variant();
            if !variants.contains(&variant) {
                variants.push(variant);
            }
        }
        let kept = variants.get(..MAX_VARIANTS).unwrap_or(&variants);
        let too_many: Vec<_> = known.iter().filter(|entry| !kept.contains(&entry.record.variant())).cloned().collect();
        too_many.iter().for_each(|entry| self.remove(table, entry));
    }

    /// Forgets an entry; the body of a partial without writer goes too.
    pub(super) fn remove(&self, table: &mut Table, entry: &Arc<Entry>) {
        match &entry.target {
            Target::Blob(_) => {
                if let Some(row) = self.entries.remove_row(table, entry)
                    && let Some(drive) = self.drive(entry.drive)
                {
                    drive.queue.push(Change::Forget { row, entry: Arc::clone(entry) });
                }
            }
            Target::Partial(partial) => self.drop_partial(table, entry, partial, false),
        }
    }

    /// Deletes a partial body, with its writer when `forced`.
    pub(super) fn drop_partial(&self, table: &mut Table, entry: &Entry, partial: &Arc<Partial>, forced: bool) {
        let Some(file) = partial.fail(forced) else { return };
        let (drive, id) = (&partial.drive, partial.id());
        let size = partial.counted();
        drive.sieve.lock().remove(&Victim::Partial(id));
        drive.leaves(size);
        self.entries.remove_partial(table, entry.record.key.hash(), id);
        drive.queue.push(Change::PartialGone { id, file, size });
    }

    /// Checks the digest of a finished body and makes it a blob.
    pub(super) fn publish_blob(
        self: &Arc<Self>,
        partial: &Arc<Partial>,
        begun: &Arc<Entry>,
        finished: Finished,
    ) -> Result<Completed, CompleteError> {
        let entry = partial.state.lock().entry.upgrade().unwrap_or_else(|| Arc::clone(begun));
        let digest = finished.digest;
        if let Some(expected) = entry.record.expected.map(|expected| expected.digest()).filter(|e| *e != digest) {
            self.reject(partial, &entry, expected, digest);
            return Err(CompleteError::Mismatch { expected, actual: digest });
        }
        let mut record = entry.record.clone();
        record.length = Some(finished.sums.length());
        record.body = BodyRef::Blob(digest);
        loop {
            let gone = self.entries.lock().gone;
            let stored = self.stored(digest);
            let mut table = self.entries.lock();
            // A blob that went, or came into the index, while we looked: look again.
            let arrived = table.blobs.get(&digest).is_some_and(|pending| pending.blob.is_some());
            if table.gone != gone || (arrived && stored.is_none()) {
                continue;
            }
            return self.settle(&mut table, partial, &entry, record, finished, stored);
        }
    }

    fn settle(
        self: &Arc<Self>,
        table: &mut Table,
        partial: &Arc<Partial>,
        entry: &Arc<Entry>,
        record: Record,
        finished: Finished,
        stored: Option<Arc<Blob>>,
    ) -> Result<Completed, CompleteError> {
        let Finished { digest, sums, file, unchecked } = finished;
        let known = self.entries.known(table, record.key.hash());
        let of = (entry.record.key.clone(), entry.record.variant());
        let same_variant = |other: &Entry| other.record.key == of.0 && other.record.variant() == of.1;
        // Somebody began later and was done sooner: theirs is the newer response, ours only has its readers.
        let superseded =
            known.iter().any(|other| same_variant(other) && other.partial().is_none() && other.serial > entry.serial);
        let (drive, store) = (&partial.drive, Arc::downgrade(self));
        let duplicate = stored.is_some();
        let life = match &stored {
            Some(blob) => Arc::clone(blob.life()),
            None if superseded => Arc::new(Life::new(digest)),
            None => table.new_life(digest),
        };
        let named = !duplicate && !superseded;
        let is_checked = |block| !unchecked.contains(&block);
        let blob = Blob::new(Arc::clone(&life), sums, Arc::clone(&file), Arc::clone(drive), store, named, is_checked);
        let blob = Arc::new(blob?);

        let home = stored.as_ref().map_or(drive, |blob| blob.drive());
        let new = Entry::new(record.clone(), home.id, entry.serial, Target::Blob(Arc::clone(&life)));
        {
            let mut state = partial.state.lock();
            state.phase = Phase::Ended(Arc::clone(&blob));
            state.file = None;
        }
        if named {
            life.set_open(Arc::clone(&blob));
            let serial = self.entries.next_serial();
            let pending = PendingBlob { serial, blob: Some(Arc::clone(&blob)), committed: false };
            table.blobs.insert(digest, pending);
            self.memory.keep_handle(&blob);
            drive.sieve.lock().insert(Victim::Blob(digest), file.counted());
            drive.blob_added();
            let row = self.entries.put_row(table, &new);
            drive.queue.push(Change::Complete { row, record, partial: partial.id(), blob, serial });
        } else {
            if !superseded {
                let row = self.entries.put_row(table, &new);
                home.queue.push(Change::Stored { row, record });
            }
            let size = file.counted();
            drive.leaves(size);
            drive.queue.push(Change::PartialGone { id: partial.id(), file: Some(file), size });
        }
        // Only now, so that a look-up always sees one or the other.
        self.entries.remove_partial(table, entry.record.key.hash(), partial.id());
        // Older ones of the variant: on other drives, and bodies that nobody fills.
        let older = |other: &&Arc<Entry>| {
            let replaced = other.partial().is_some() || other.drive != new.drive;
            !superseded && same_variant(other) && other.serial < new.serial.max(1) && replaced
        };
        known.iter().filter(older).for_each(|other| self.remove(table, other));
        partial.wake();
        Ok(Completed { entry: new, digest, duplicate })
    }

    /// The bytes are not what they should be: aside with them.
    fn reject(&self, partial: &Arc<Partial>, entry: &Entry, expected: Digest, actual: Digest) {
        let (drive, id) = (&partial.drive, partial.id());
        tracing::error!(key = %entry.record.key, %expected, %actual, "digest mismatch; the bytes are quarantined");
        let reason = format!("{} has the SHA-256 {actual}, expected {expected}", entry.record.key);
        if let Err(error) = quarantine::put(drive, &layout::partial_data(id), &id.to_string(), &reason) {
            drive.failed("quarantine a body", &error);
        }
        let mut table = self.entries.lock();
        self.drop_partial(&mut table, entry, partial, true);
    }

    /// Replaces the record of an entry; the body stays.
    pub(super) fn update(&self, entry: &Arc<Entry>, mut record: Record) -> Arc<Entry> {
        record.body = entry.record.body;
        let mut table = self.entries.lock();
        let target = match &entry.target {
            Target::Blob(life) => Target::Blob(Arc::clone(life)),
            Target::Partial(partial) => Target::Partial(Arc::clone(partial)),
        };
        let new = Entry::new(record.clone(), entry.drive, entry.serial, target);
        let known = self.entries.known(&table, entry.record.key.hash());
        let current = known.iter().find(|other| {
            let same_row = other.drive == entry.drive && other.record.variant() == entry.record.variant();
            other.partial().is_none() && same_row
        });
        match &entry.target {
            Target::Blob(_) if current.is_none_or(|now| now.record.body == record.body) && !entry.is_gone() => {
                if let Some(drive) = self.drive(entry.drive) {
                    if record.variant() != entry.record.variant() || record.key != entry.record.key {
                        self.remove(&mut table, entry);
                    }
                    let row = self.entries.put_row(&mut table, &new);
                    drive.queue.push(Change::Updated { row, record });
                }
            }
            // The row has another body by now, which the caller has not seen.
            Target::Blob(_) => {}
            Target::Partial(partial) => {
                let visible = table.partials.contains_key(&partial.id());
                if visible && !partial.is_failed() {
                    {
                        let mut state = partial.state.lock();
                        state.entry = Arc::downgrade(&new);
                        state.length = state.length.or(record.length);
                    }
                    self.entries.replace_partial(&mut table, partial.id(), &new);
                    let job = Arc::clone(partial);
                    drop(partial.drive.pool.run(move || {
                        if let Err(error) = job.rewrite_map(&record) {
                            job.drive.failed("write a block map anew", &error);
                        }
                    }));
                }
            }
        }
        new
    }

    /// The writer with this number is gone.
    pub(super) fn writer_gone(partial: &Arc<Partial>, writer: u64) {
        {
            let mut state = partial.state.lock();
            if !matches!(state.phase, Phase::Writing) || state.writer != writer {
                return;
            }
            state.phase = Phase::Idle;
        }
        partial.wake();
        partial.drive.sieve.lock().insert(Victim::Partial(partial.id()), partial.counted());
        let job = Arc::clone(partial);
        drop(partial.drive.pool.run(move || {
            if let Err(error) = job.close() {
                job.drive.failed("sync a partial body", &error);
            }
        }));
    }

    /// A reference that does not keep the store.
    pub(super) fn weak(self: &Arc<Self>) -> Weak<Self> {
        Arc::downgrade(self)
    }
}
