//! Changes of what is stored under a key: a partial body appears, becomes a blob, gets another record, loses its
//! writer, goes. What look-ups see of each is made and queued for its drive's journal under the one lock of the entries.

use std::sync::Arc;

use super::blob::{Blob, Life};
use super::drive::{DataFile, Victim};
use super::entries::{Entry, MAX_STOPPED, MAX_VARIANTS, Target};
use super::error::CompleteError;
use super::fill_file::Finished;
use super::inner::Inner;
use super::journal_entry::Row;
use super::partial::{Partial, Phase, State};
use super::queue::{Change, Older};
use super::stored::{Attempt, Elsewhere, Finishing, Told};
use super::table::{PendingBlob, Table};
use super::writer::Completed;
use super::{layout, quarantine};
use crate::clock;
use crate::content::{BodyRef, Record, Spoiled, UnixMillis};

/// Where a completed body belongs among what is stored under its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is what requests are answered with.
    Current,
    /// It is an older version since then.
    Older(UnixMillis),
    /// The same version is there already: it only has its readers.
    None,
}

impl Place {
    fn superseded(self) -> Option<UnixMillis> {
        match self {
            Self::Older(at) => Some(at),
            Self::Current | Self::None => None,
        }
    }
}

/// The place of a body that began as the `serial`-th. Somebody may have begun later and been done sooner: theirs is the
/// newer response.
fn place_of(row: &Row, serial: u64, known: &[Arc<Entry>]) -> Place {
    let is_newer = |other: &&Arc<Entry>| {
        let done = other.partial().is_none() && other.superseded.is_none();
        done && same_variant(&row.record, other) && other.serial > serial
    };
    match known.iter().find(is_newer) {
        Some(newer) if newer.version().is_same(&row.version()) => Place::None,
        Some(_) => Place::Older(row.superseded.unwrap_or_else(|| UnixMillis::from(clock::now_for_deletion()))),
        None => row.superseded.map_or(Place::Current, Place::Older),
    }
}

fn same_variant(record: &Record, other: &Entry) -> bool {
    other.record.key == record.key && other.record.variant() == record.variant()
}

impl Inner {
    /// Makes a new partial visible, as an older version unless it `is_current`; too many variants or abandoned bodies of its
    /// key go.
    pub(super) fn publish_partial(&self, record: Record, partial: &Arc<Partial>, is_current: bool) -> Arc<Entry> {
        let mut table = self.entries.lock();
        let serial = self.entries.next_serial();
        let row = Row { record, birth: partial.id(), superseded: None };
        let entry = Entry::new(row, partial.drive.id, serial, Target::Partial(Arc::clone(partial)));
        partial.state.lock().entry = Arc::downgrade(&entry);
        self.entries.add_partial(&mut table, &entry);
        if !is_current {
            // Under the same lock: nobody sees it as anything else.
            self.supersede_alone(&mut table, &entry);
        }
        self.bound_variants(&mut table, &entry);
        entry
    }

    fn bound_variants(&self, table: &mut Table, newest: &Entry) {
        let known = self.entries.known(table, newest.record.key.hash());
        let stopped = |entry: &&Arc<Entry>| {
            let same = entry.record.variant() == newest.record.variant() && entry.serial != newest.serial;
            same && entry.superseded.is_none() && entry.partial().is_some_and(|partial| !partial.has_writer())
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
        self.entries.remove_partial(table, entry.record.key.hash(), partial.id());
        Self::remove_files(partial, file);
    }

    /// Has the files removed of a body that nobody writes or finds any more; `file` is the open one.
    pub(super) fn remove_files(partial: &Partial, file: Option<Arc<DataFile>>) {
        let (drive, id, size) = (&partial.drive, partial.id(), partial.counted());
        drive.sieve.lock().remove(&Victim::partial(id));
        drive.leaves(size);
        drive.queue.push(Change::PartialGone { id, file, size });
    }

    /// Checks the digest of a finished body and makes it a blob, unless another drive has to be asked for its content
    /// first. On one of the threads of the body's drive.
    pub(super) fn publish_blob(
        self: &Arc<Self>,
        finishing: Finishing,
        finished: Finished,
        mut told: Option<Told>,
    ) -> Result<Attempt, CompleteError> {
        let partial = &Arc::clone(&finishing.partial);
        let entry = partial.state.lock().entry.upgrade().unwrap_or_else(|| Arc::clone(&finishing.begun));
        let digest = finished.digest;
        if let Some(expected) = entry.record.expected.map(|expected| expected.digest())
            && !finished.has(expected)?
        {
            let reason = format!("{} has the SHA-256 {digest}, expected {expected}", entry.record.key);
            self.reject(partial, &entry, &reason);
            return Err(CompleteError::Mismatch { expected, actual: digest });
        }
        let mut record = entry.record.clone();
        record.length = Some(finished.sums.length());
        record.body = BodyRef::Blob(digest);
        loop {
            let Told { gone, stored } = match told.take() {
                Some(told) => told,
                None => {
                    let gone = self.entries.lock().gone;
                    let place = self.whereabouts(digest);
                    if let Some(drive) = place.to_ask().filter(|drive| drive.id != partial.drive.id).cloned() {
                        let patches = place.patches(&finished.file);
                        let elsewhere = Elsewhere { finishing, finished, drive, place, patches, gone };
                        return Ok(Attempt::Elsewhere(Box::new(elsewhere)));
                    }
                    let stored = self.look(place);
                    stored.iter().for_each(|stored| Self::mend_from(stored, finished.file.file()));
                    Told { gone, stored }
                }
            };
            let mut table = self.entries.lock();
            // Another drive went out of service since it was asked: what it has may not come back.
            let (home, is_here) = (partial.drive.id, |blob: &Arc<Blob>| blob.drive().in_service());
            let stored = stored.filter(|blob| blob.drive().id == home || is_here(blob));
            // A blob that went, or came into the index, while we looked: look again.
            let arrived = table.blobs.get(&digest).is_some_and(PendingBlob::is_here);
            if table.gone != gone || (arrived && stored.is_none()) {
                continue;
            }
            let settled = self.settle(&mut table, partial, &entry, record, finished, stored);
            drop(table);
            if let Ok(completed) = &settled {
                self.given.complete(completed.entry.record.key.hash(), &completed.entry.version());
                self.compare_if_verified(partial, &completed.entry);
            }
            return settled.map(Attempt::Done);
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
        let Finished { digest, sums, file, map, unchecked, .. } = finished;
        let known = self.entries.known(table, record.key.hash());
        let row = Row { record, birth: partial.id(), superseded: partial.state.lock().superseded };
        let place = place_of(&row, entry.serial, &known);
        let row = Row { superseded: place.superseded(), ..row };
        let (drive, store) = (&partial.drive, Arc::downgrade(self));
        let duplicate = stored.is_some();
        let life = match &stored {
            Some(blob) => Arc::clone(blob.life()),
            None if place == Place::None => Arc::new(Life::new(digest)),
            None => table.new_life(digest),
        };
        let named = !duplicate && place != Place::None;
        let is_checked = |block| !unchecked.contains(&block);
        let blob = Blob::new(Arc::clone(&life), sums, Arc::clone(&file), Arc::clone(drive), store, named, is_checked);
        let blob = Arc::new(blob?);

        let home = stored.as_ref().map_or(drive, |blob| blob.drive());
        let new = Entry::new(row, home.id, entry.serial, Target::Blob(Arc::clone(&life)));
        {
            let mut state = partial.state.lock();
            state.phase = Phase::Ended(Arc::clone(&blob));
            state.file = None;
        }
        let older = if place == Place::Current { self.take_place(table, &new, partial, &known) } else { None };
        if named {
            life.set_open(Arc::clone(&blob));
            let serial = self.entries.next_serial();
            table.add_blob(serial, &blob);
            self.memory.keep_handle(&blob);
            drive.sieve.lock().insert(Victim::Blob(digest), file.counted());
            drive.blob_added();
            let row = self.entries.put_row(table, &new);
            drive.queue.push(Change::Complete { row, entry: Arc::clone(&new), older, blob, map, serial });
        } else {
            if place != Place::None {
                let row = self.entries.put_row(table, &new);
                home.queue.push(Change::Stored { row, entry: Arc::clone(&new), older });
            }
            let size = file.counted();
            drive.leaves(size);
            drive.queue.push(Change::PartialGone { id: partial.id(), file: Some(file), size });
        }
        // Only now, so that a look-up always sees one or the other.
        self.entries.remove_partial(table, entry.record.key.hash(), partial.id());
        self.bound_older(table, &new);
        partial.wake();
        Ok(Completed { entry: new, digest, duplicate })
    }

    /// What was stored in the place of `new` before: on other drives too, and bodies that nobody fills. Of the same
    /// version one is enough; another version stays as an older one.
    fn take_place(&self, table: &mut Table, new: &Entry, partial: &Partial, known: &[Arc<Entry>]) -> Option<Older> {
        let before = |other: &&Arc<Entry>| {
            let own = other.partial().is_some_and(|other| other.id() == partial.id());
            same_variant(&new.record, other) && other.serial < new.serial.max(1) && !own
        };
        let (older, in_place): (Vec<_>, Vec<_>) =
            known.iter().filter(before).cloned().partition(|other| other.superseded.is_some());
        let same = older.iter().filter(|other| other.version().is_same(&new.version()));
        same.for_each(|other| self.remove(table, other));
        self.make_way(table, new, &in_place)
    }

    /// What has its expected digest is right, and tells from where on other bytes of its key are wrong.
    fn compare_if_verified(self: &Arc<Self>, partial: &Partial, entry: &Entry) {
        let blob = match &partial.state.lock().phase {
            Phase::Ended(blob) if entry.record.expected.is_some() => Arc::clone(blob),
            _ => return,
        };
        self.compare_with_wrong(entry.record.key.hash(), &blob);
    }

    /// The bytes are not what they should be: aside with them.
    pub(super) fn reject(&self, partial: &Arc<Partial>, entry: &Entry, reason: &str) {
        let (drive, id) = (&partial.drive, partial.id());
        tracing::error!(key = %entry.record.key, reason, "a body is wrong; its bytes are quarantined");
        if let Err(error) = quarantine::put(drive, &layout::partial_data(id), &id.to_string(), reason) {
            drive.failed("quarantine a body", &error);
        }
        // In this order: who is cut finds out at once, and nobody fills again before a crash would know it too.
        let is_held = self.given.spoil(entry.record.key.hash(), id, Spoiled::Throughout);
        let mut table = self.entries.lock();
        self.drop_partial(&mut table, entry, partial, true);
        drop(table);
        if is_held {
            self.given.wait_durable();
        }
    }

    /// Replaces the record of an entry; the body stays.
    pub(super) fn update(&self, entry: &Arc<Entry>, mut record: Record) -> Arc<Entry> {
        record.body = entry.record.body;
        let mut table = self.entries.lock();
        let target = match &entry.target {
            Target::Blob(life) => Target::Blob(Arc::clone(life)),
            Target::Partial(partial) => Target::Partial(Arc::clone(partial)),
        };
        let new = Entry::new(Row { record: record.clone(), ..entry.as_row() }, entry.drive, entry.serial, target);
        let known = self.entries.known(&table, entry.record.key.hash());
        let current = known.iter().find(|other| {
            let same_row = other.drive == entry.drive && other.place() == entry.place();
            other.partial().is_none() && same_row
        });
        // Whoever revalidated a response that was forgotten meanwhile does not bring it back.
        let stays = match current {
            Some(now) => now.record.body == record.body,
            None => !self.entries.knows_all(&table, entry),
        };
        match &entry.target {
            Target::Blob(_) if stays && !entry.is_gone() => {
                if let Some(drive) = self.drive(entry.drive) {
                    if record.variant() != entry.record.variant() || record.key != entry.record.key {
                        self.remove(&mut table, entry);
                    }
                    let row = self.entries.put_row(&mut table, &new);
                    drive.queue.push(Change::Updated { row, entry: Arc::clone(&new) });
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
                    drop(partial.drive.syncs.run(move || {
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
        let writes = |state: &State| matches!(state.phase, Phase::Writing) && state.writer == writer;
        if !writes(&partial.state.lock()) {
            return;
        }
        // Before it may go, so that whoever drops it finds it there.
        let victim = Victim::partial(partial.id());
        partial.drive.sieve.lock().insert(victim, partial.counted());
        let stopped = {
            let mut state = partial.state.lock();
            let stopped = writes(&state);
            if stopped {
                state.phase = Phase::Idle;
            }
            stopped
        };
        if !stopped {
            // It is being completed, or was dropped by force.
            partial.drive.sieve.lock().remove(&victim);
            return;
        }
        partial.wake();
        let job = Arc::clone(partial);
        drop(partial.drive.syncs.run(move || {
            if let Err(error) = job.close() {
                job.drive.failed("sync a partial body", &error);
            }
        }));
    }
}
