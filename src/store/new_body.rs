//! [`NewBody`]: the files of a body that nobody sees yet, with the bytes of it that are there already. One job of a drive
//! makes and writes them; whoever waits for it has them seen. When nobody does, since the drive hung for too long, they go:
//! what a job brings late is of a time that has passed, and must not take the place of what came meanwhile.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::block_map::BlockSize;
use super::disk;
use super::drive::{DataFile, Drive, Promise};
use super::error::StoreError;
use super::fill_file::{Core, WriteFailure};
use super::inner::Inner;
use super::partial::Partial;
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

/// A body that is begun and that nobody sees. Dropped, it is as if it had never been.
pub struct NewBody {
    store: Arc<Inner>,
    record: Record,
    partial: Arc<Partial>,
    promise: Option<Arc<Promise>>,
    /// Whether a writer has it.
    is_seen: bool,
}

/// Why the files of a body were not made.
enum Failure {
    /// There has to be room first.
    NoRoom,
    /// The drive did not make them.
    Create(io::Error),
    /// The drive did not take the first bytes, and has said so.
    Write(StoreError),
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
        let (mut made_room, mut retried) = (None, false);
        loop {
            let mut random = [0; 8];
            getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
            let id = PartialId(u64::from_be_bytes(random));
            let record = Record { body: BodyRef::Partial(id), ..record.clone() };
            let (job_drive, job_store) = (Arc::clone(drive), Arc::clone(store));
            let (promised, job_first) = (made_room.take(), first.clone());
            let made = drive.pool.run(move || {
                // Mostly there is room, and a client waits for the first byte. Promised first: who else looks sees it.
                let has_room = promised.is_some();
                let promise = promised.unwrap_or_else(|| job_drive.promise(room));
                let beyond = room.saturating_sub(job_drive.settings.quota);
                if !has_room && job_drive.excess(beyond) > 0 {
                    return Err(Failure::NoRoom);
                }
                let body =
                    Self::on_drive(&job_store, &job_drive, id, record, size, promise).map_err(Failure::Create)?;
                body.begin_with(&job_first)?;
                Ok(body)
            });
            match made.await? {
                Ok(body) => return Ok(body),
                Err(Failure::NoRoom) => {
                    if !store.make_room(drive, room, false).await {
                        return Err(StoreError::NoSpace { needed });
                    }
                    made_room = Some(drive.promise(room));
                }
                Err(failure) if failure.is_full() => {
                    if let Failure::Create(error) = &failure {
                        drive.failed("create a partial body", error);
                    }
                    if retried || !store.make_room(drive, room.max(FILE_BLOCK), true).await {
                        return Err(StoreError::NoSpace { needed });
                    }
                    (made_room, retried) = (Some(drive.promise(room)), true);
                }
                Err(Failure::Write(error)) => return Err(error),
                Err(Failure::Create(error)) => {
                    drive.failed("create a partial body", &error);
                    return Err(error.into());
                }
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
    ) -> io::Result<Self> {
        let (core, data) = Core::create(&drive.dir, id, &record, size)?;
        let file = DataFile::new(data, Arc::clone(drive), 0);
        let partial = Partial::created(id, Arc::clone(drive), store.weak(), size, record.length, file, core);
        Ok(Self { store: Arc::clone(store), record, partial, promise: Some(Arc::new(promise)), is_seen: false })
    }

    /// Writes what is there of the body, on the calling thread.
    fn begin_with(&self, first: &FirstBytes) -> Result<(), Failure> {
        let run = first.until.and_then(|until| ByteRange::new(first.at, until));
        run.into_iter().for_each(|run| self.partial.state.lock().intended.insert(run));
        match self.partial.write_at(FIRST_WRITER, first.at, &first.bytes) {
            // No sync is due of what was made just now.
            Ok((grown, _)) => {
                if grown > 0 {
                    self.promise.iter().for_each(|promise| promise.consume(grown));
                    self.store.relieve(&self.partial.drive);
                }
                Ok(())
            }
            Err(WriteFailure::Full) => {
                let needed = first.bytes.iter().map(|bytes| bytes.len() as u64).sum();
                Err(Failure::Write(StoreError::NoSpace { needed }))
            }
            Err(WriteFailure::Other(error)) => Err(Failure::Write(error)),
        }
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

/// Number of the writer that a new body has.
const FIRST_WRITER: u64 = 1;

impl Drop for NewBody {
    fn drop(&mut self) {
        if !self.is_seen {
            self.partial.fail(true).into_iter().for_each(|file| Inner::remove_files(&self.partial, file));
        }
    }
}

impl Failure {
    fn is_full(&self) -> bool {
        match self {
            Self::NoRoom => false,
            Self::Create(error) => disk::is_full(error),
            Self::Write(error) => matches!(error, StoreError::NoSpace { .. }),
        }
    }
}

impl std::fmt::Debug for NewBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewBody").field("partial", &self.partial).finish_non_exhaustive()
    }
}
