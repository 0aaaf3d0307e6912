//! [`NewBody`]: the files of a body that nobody sees yet, with the bytes of it that are there already. One job of a drive
//! makes and writes them; whoever waits for it has them seen. When nobody does, since the drive hung for too long, they are
//! removed with the next group commit: what a job brings late is of a time that has passed, and must not take the place of what
//! came meanwhile. Writing goes on in `writer`, what a look-up sees is made in `publish`.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::block_map::BlockSize;
use super::disk;
use super::drive::{DataFile, Drive, Promise};
use super::error::StoreError;
use super::fill_file::{Core, WriteFailure};
use super::inner::Inner;
use super::partial::{FIRST_WRITER, Partial};
use super::writer::PartialWriter;
use crate::content::{BodyRef, ByteRange, PartialId, Record};

/// Files take whole blocks of this size on the common file systems.
pub(super) const FILE_BLOCK: u64 = 4096;

/// Bytes of a body that have come before it is begun.
#[derive(Debug, Clone, Default)]
pub struct FirstBytes {
    /// Position of the first of them, the begin of a block.
    pub at: u64,
    /// Where what is on its way with them ends, if that is known: room for it may be taken in one run.
    pub until: Option<u64>,
    /// The bytes, none or more.
    pub bytes: Vec<Bytes>,
}

/// A body that is begun and that nobody sees. Dropped, its files go with the next group commit.
pub struct NewBody {
    store: Arc<Inner>,
    record: Record,
    partial: Arc<Partial>,
    promise: Option<Arc<Promise>>,
    /// Whether a writer has it.
    is_seen: bool,
}

/// Why the files of a body were not made. Errors of the drive are counted and logged by then.
enum Failure {
    /// Nobody waits for the body any more.
    Left,
    /// There has to be room first, by the numbers.
    NoRoom,
    /// The drive does not take so many bytes, although the numbers say that there is room.
    Full(u64),
    /// Anything else.
    Other(StoreError),
}

impl NewBody {
    /// Makes the files of a new body on a drive that has room for `needed` bytes, or on another one when that fails.
    pub(super) async fn make(
        store: Arc<Inner>,
        record: Record,
        needed: u64,
        first: FirstBytes,
    ) -> Result<Self, StoreError> {
        // The older responses of the key are in memory afterwards, to be replaced on completion.
        store.lookup(&record.key).await;
        let mut outcome = Err(StoreError::NoSpace { needed });
        for drive in store.fitting_drives(needed) {
            outcome = Self::make_on(&store, &drive, &record, needed, &first).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    async fn make_on(
        store: &Arc<Inner>,
        drive: &Arc<Drive>,
        record: &Record,
        needed: u64,
        first: &FirstBytes,
    ) -> Result<Self, StoreError> {
        let room = needed.checked_next_multiple_of(FILE_BLOCK).unwrap_or(needed);
        let size = BlockSize::new(store.settings.block_size).map_err(io::Error::other)?;
        // As long as this is here somebody waits: who does not any more has no use for what is made then, nor for the bytes.
        let waiting = Arc::new(first.clone());
        let (mut made_room, mut retried) = (None, false);
        loop {
            // Another name for each attempt: the files of the one before go later.
            let mut random = [0; 8];
            getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
            let id = PartialId(u64::from_be_bytes(random));
            let record = Record { body: BodyRef::Partial(id), ..record.clone() };
            let (job_drive, job_store) = (Arc::clone(drive), Arc::clone(store));
            let (promised, awaited) = (made_room.take(), Arc::downgrade(&waiting));
            let made = drive.pool.run(move || {
                if awaited.strong_count() == 0 {
                    return Err(Failure::Left);
                }
                // Mostly there is room, and a client waits for the first byte. Promised first: who else looks sees it.
                let has_room = promised.is_some();
                let promise = promised.unwrap_or_else(|| job_drive.promise(room));
                let beyond = room.saturating_sub(job_drive.settings.quota);
                if !has_room && job_drive.excess(beyond) > 0 {
                    return Err(Failure::NoRoom);
                }
                let body = Self::on_drive(&job_store, &job_drive, id, record, size, promise)?;
                // Making them may have taken long.
                let first = awaited.upgrade().ok_or(Failure::Left)?;
                body.begin_with(&first)
            });
            match made.await? {
                Ok(body) => return Ok(body),
                // Nobody is told that.
                Err(Failure::Left) => return Err(StoreError::NoSpace { needed }),
                Err(Failure::NoRoom) => {
                    if !store.make_room(drive, room, false).await {
                        return Err(StoreError::NoSpace { needed });
                    }
                    made_room = Some(drive.promise(room));
                }
                Err(Failure::Full(refused)) => {
                    if retried || !store.make_room(drive, refused.max(FILE_BLOCK), true).await {
                        return Err(StoreError::NoSpace { needed });
                    }
                    (made_room, retried) = (Some(drive.promise(room)), true);
                }
                Err(Failure::Other(error)) => return Err(error),
            }
        }
    }

    /// Makes the files, on the calling thread.
    fn on_drive(
        store: &Arc<Inner>,
        drive: &Arc<Drive>,
        id: PartialId,
        record: Record,
        size: BlockSize,
        promise: Promise,
    ) -> Result<Self, Failure> {
        let (core, data) = Core::create(&drive.dir, id, &record, size).map_err(|error| {
            drive.failed("create a partial body", &error);
            if disk::is_full(&error) { Failure::Full(FILE_BLOCK) } else { Failure::Other(error.into()) }
        })?;
        let file = DataFile::new(data, Arc::clone(drive), 0);
        let partial = Partial::created(id, Arc::clone(drive), store.weak(), size, record.length, file, core);
        Ok(Self { store: Arc::clone(store), record, partial, promise: Some(Arc::new(promise)), is_seen: false })
    }

    /// Writes what is there of the body, on the calling thread.
    fn begin_with(self, first: &FirstBytes) -> Result<Self, Failure> {
        let run = first.until.and_then(|until| ByteRange::new(first.at, until));
        run.into_iter().for_each(|run| self.partial.state.lock().intended.insert(run));
        let job = &self.partial;
        let (grown, is_due) = job.write_at(FIRST_WRITER, first.at, &first.bytes).map_err(|failure| match failure {
            WriteFailure::Full => Failure::Full(first.bytes.iter().map(|bytes| bytes.len() as u64).sum()),
            WriteFailure::Other(error) => Failure::Other(error),
        })?;
        if grown > 0 {
            self.promise.iter().for_each(|promise| promise.consume(grown));
            self.store.relieve(&self.partial.drive);
        }
        if is_due {
            job.sync_soon();
        }
        Ok(self)
    }

    /// Makes the body visible to look-ups, unless `is_current` is false: something else was asked for since, and the body
    /// is an older version, for who waits for it.
    pub fn show(mut self, is_current: bool) -> PartialWriter {
        let entry = self.store.publish_partial(self.record.clone(), &self.partial, is_current);
        self.is_seen = true;
        let partial = Arc::clone(&self.partial);
        PartialWriter {
            store: Arc::clone(&self.store),
            entry,
            partial,
            number: FIRST_WRITER,
            promise: self.promise.take(),
        }
    }
}

impl Drop for NewBody {
    fn drop(&mut self) {
        if !self.is_seen {
            self.partial.fail(true).into_iter().for_each(|file| Inner::remove_files(&self.partial, file));
        }
    }
}

impl std::fmt::Debug for NewBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewBody").field("partial", &self.partial).finish_non_exhaustive()
    }
}
