//! [`PartialWriter`]: the one writer of a partial body. How a body is begun is in `new_body`.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::drive::{self, Promise};
use super::entries::{Entry, Target};
use super::error::{CompleteError, StoreError};
use super::fill_file::WriteFailure;
use super::inner::Inner;
use super::new_body::FILE_BLOCK;
use super::partial::Partial;
use super::stored::{Attempt, Finishing};
use crate::content::{ByteRange, Verifier};

/// The one writer of a partial body. Dropped before [`PartialWriter::complete`], the body stays partial.
pub struct PartialWriter {
    pub(super) store: Arc<Inner>,
    pub(super) entry: Arc<Entry>,
    pub(super) partial: Arc<Partial>,
    pub(super) number: u64,
    pub(super) promise: Option<Arc<Promise>>,
}

/// A body whose writer has ended, and which is of no use once those who read it are done.
pub struct Stopped {
    store: Arc<Inner>,
    entry: Arc<Entry>,
    partial: Arc<Partial>,
}

/// A completed body.
#[derive(Debug)]
pub struct Completed {
    /// The entry that took the partial's place.
    pub entry: Arc<Entry>,
    /// SHA-256 of the body.
    pub digest: crate::content::Digest,
    /// The same content was stored already; the copy was dropped.
    pub duplicate: bool,
}

impl PartialWriter {
    /// Takes up a body that nobody writes.
    pub(super) async fn resume(store: Arc<Inner>, entry: &Arc<Entry>, room: u64) -> Option<Self> {
        let Target::Partial(partial) = &entry.target else { return None };
        let number = partial.claim()?;
        let entry = partial.state.lock().entry.upgrade().unwrap_or_else(|| Arc::clone(entry));
        let promise =
            partial.length().map(|length| partial.drive.promise(length.saturating_sub(partial.counted()).min(room)));
        let promise = promise.map(Arc::new);
        // From here on the writer's drop gives the body back.
        let partial = Arc::clone(partial);
        let writer = Self { store, entry, partial, number, promise };
        writer.partial.drive.sieve.lock().remove(&drive::Victim::partial(writer.partial.id()));
        let job = Arc::clone(&writer.partial);
        match writer.partial.drive.pool.run(move || job.reopen(number)).await {
            Ok(Ok(())) => Some(writer),
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                // Its files are gone, and so is it.
                let mut table = writer.store.entries.lock();
                writer.store.drop_partial(&mut table, &writer.entry, &writer.partial, true);
                drop(table);
                None
            }
            Ok(Err(error)) | Err(error) => {
                writer.partial.drive.failed("open a partial body", &error);
                None
            }
        }
    }

    /// The entry as it was when this writer began.
    pub fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// The body, for its readers.
    pub fn partial(&self) -> &Arc<Partial> {
        &self.partial
    }

    /// First absent byte.
    pub fn contiguous(&self) -> u64 {
        self.partial.contiguous()
    }

    /// Writes `data` at `offset`, which must be the begin of an absent block or the end of what its block has;
    /// all bytes must be absent, and none beyond the known length. Readers see it when this returns, if not
    /// before. The bytes are written even when the future is dropped.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] when the drive is full after eviction, [`StoreError::Misplaced`] when the bytes have
    /// no place there, [`StoreError::Io`] when the drive fails. Nothing is written then.
    pub async fn write(&mut self, offset: u64, data: Vec<Bytes>) -> Result<(), StoreError> {
        let needed: u64 = data.iter().map(|bytes| bytes.len() as u64).sum();
        let mut retried = false;
        loop {
            let (job, store, number) = (Arc::clone(&self.partial), Arc::clone(&self.store), self.number);
            let (slices, promise) = (data.clone(), self.promise.clone());
            let written = self.partial.drive.pool.run(move || {
                let written = job.write_at(number, offset, &slices);
                let (grown, sync) = written?;
                if grown > 0 {
                    // No promise is needed any more for what was taken.
                    promise.inspect(|promise| promise.consume(grown));
                    store.relieve(&job.drive);
                }
                Ok(sync)
            });
            match written.await? {
                Ok(sync) => {
                    if sync {
                        self.partial.sync_soon();
                    }
                    return Ok(());
                }
                Err(WriteFailure::Full) => {
                    if retried || !self.store.make_room(&self.partial.drive, needed.max(FILE_BLOCK), true).await {
                        return Err(StoreError::NoSpace { needed });
                    }
                    retried = true;
                }
                Err(WriteFailure::Other(error)) => return Err(error),
            }
        }
    }

    /// Says that the bytes of `range` are going to be written: room for them may be taken in one run.
    pub fn intend(&self, range: ByteRange) {
        self.partial.state.lock().intended.insert(range);
    }

    /// Whether what is there from the begin on is the whole body, as its expected digest tells: for a body whose length
    /// was not told, or was told wrong.
    pub async fn is_whole(&self) -> Option<u64> {
        let expected = self.entry.record.expected?.digest();
        let length = self.contiguous();
        let job = Arc::clone(&self.partial);
        let verifier = self.partial.drive.pool.run(move || job.verifier_of_begin(length, expected)).await;
        // A closed store knows nothing any more.
        verifier.ok().flatten().is_some_and(|verifier| verifier.is_right()).then_some(length)
    }

    /// What holds the bytes from `length` on against the expected digest, for whoever goes on with the body elsewhere; `None`
    /// unless one is expected and exactly those before are there without a gap.
    pub async fn verifier_of_begin(&self, length: u64) -> Option<Verifier> {
        let expected = self.entry.record.expected?.digest();
        let job = Arc::clone(&self.partial);
        self.partial.drive.pool.run(move || job.verifier_of_begin(length, expected)).await.ok().flatten()
    }

    /// Checks length and digest, makes the blob visible at once and durable with the next group commit. `length`
    /// is the final one for a body of unknown length.
    ///
    /// # Errors
    /// [`CompleteError::Short`] when bytes are missing: the body stays partial and can be resumed.
    /// [`CompleteError::Mismatch`] when the digest is not the expected one: the bytes are quarantined and the entry
    /// is forgotten. [`CompleteError::Io`] when the drive fails or more bytes are present than `length`.
    pub async fn complete(self, length: u64) -> Result<Completed, CompleteError> {
        let (job, store, entry, number) =
            (Arc::clone(&self.partial), Arc::clone(&self.store), Arc::clone(&self.entry), self.number);
        let attempt = self.partial.drive.pool.run(move || {
            let (finishing, finished) = Finishing::finish(&job, entry, number, length)?;
            store.publish_blob(finishing, finished, None)
        });
        let mut attempt = attempt.await??;
        loop {
            match attempt {
                Attempt::Done(completed) => return Ok(completed),
                Attempt::Elsewhere(elsewhere) => attempt = elsewhere.go_on(&self.store).await??,
            }
        }
    }

    /// Deletes the partial body and forgets its entry. On a drive that is out of service it stays for when that is back.
    pub async fn discard(self) {
        if !self.partial.drive.in_service() {
            return;
        }
        let mut table = self.store.entries.lock();
        self.store.drop_partial(&mut table, &self.entry, &self.partial, true);
    }

    /// Ends the writing of a body that its drive takes no more of: what is there can be read on.
    pub fn stop(self) -> Stopped {
        Stopped { store: Arc::clone(&self.store), entry: Arc::clone(&self.entry), partial: Arc::clone(&self.partial) }
    }

    /// Gives the body up since bytes of it turned out to be wrong after others may have read them: it is quarantined, its
    /// entry forgotten, and who was given some of it is not given more before it is known which bytes are right.
    pub async fn reject(self, reason: String) {
        let (job, store, begun) = (Arc::clone(&self.partial), Arc::clone(&self.store), Arc::clone(&self.entry));
        let rejected = self.partial.drive.pool.run(move || {
            let entry = job.state.lock().entry.upgrade().unwrap_or(begun);
            store.reject(&job, &entry, &format!("{}: {reason}", entry.record.key));
        });
        if let Err(error) = rejected.await {
            self.partial.drive.failed("quarantine a body", &error);
        }
    }

    /// Gives the body up since upstream has another version now: what is present stays readable for those who have a
    /// part of it, as an older version that nobody writes any more ([`Known::older`]). An empty one is deleted.
    ///
    /// [`Known::older`]: super::Known::older
    pub async fn supersede(self) {
        let mut table = self.store.entries.lock();
        if self.partial.present_total() == 0 {
            self.store.drop_partial(&mut table, &self.entry, &self.partial, true);
            return;
        }
        let newest = self.partial.state.lock().entry.upgrade();
        let entry = newest.unwrap_or_else(|| Arc::clone(&self.entry));
        self.store.supersede_alone(&mut table, &entry);
        self.store.bound_older(&mut table, &entry);
    }
}

impl Stopped {
    /// Deletes the body and forgets its entry, unless somebody writes it again. On a drive that is out of service it stays
    /// for when that is back.
    pub fn discard(self) {
        if self.partial.drive.in_service() {
            let mut table = self.store.entries.lock();
            self.store.drop_partial(&mut table, &self.entry, &self.partial, false);
        }
    }
}

impl Partial {
    /// Starts to make durable what was written, beside the next writes.
    pub(super) fn sync_soon(self: &Arc<Self>) {
        let job = Arc::clone(self);
        drop(self.drive.syncs.run(move || {
            if let Err(error) = job.sync() {
                job.drive.failed("sync a partial body", &error);
            }
        }));
    }
}

impl Drop for PartialWriter {
    fn drop(&mut self) {
        Inner::writer_gone(&self.partial, self.number);
    }
}

impl std::fmt::Debug for PartialWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartialWriter").field("partial", &self.partial).finish_non_exhaustive()
    }
}
