//! The store: complete blobs named by their SHA-256, partial bodies, and what is known of each.
//!
//! # Write order
//! What is visible and what is durable are apart. A completion is visible when
//! [`PartialWriter::complete`] returns; the commit thread of its drive makes it durable every 100 ms or 64 MiB, one
//! batch at a time, in this order:
//! 1. `fdatasync` of each new body's data file, and of its map when progress of it was durable before: the map has to say
//!    which digest the body has;
//! 2. rename of each from `partial/` to its digest's name in `blobs/`; removals of blobs take their turn here too;
//! 3. `fsync` of each directory that was touched, once;
//! 4. one append to the journal: the response's record, the blob's digest and block sums; `fdatasync` of the segment;
//! 5. the index, in memory, with the place in the journal up to which it is applied;
//! 6. removal of partial bodies that are not wanted any more (a copy of what is stored is one), `fsync` of `partial/`;
//! 7. removal of the new blobs' maps.
//!
//! So a blob that the journal names is whole and under its name, and the index is never ahead of the journal; and what
//! was durable of a partial body stays so until what takes its place is. A cut between 2 and 4 leaves a file in `blobs/`
//! that no journal names: with its map it is found at the next start and put back as a partial body (`adopt`); without, it
//! counts as not there, a later completion of its digest takes its place, and it is removed after the next start
//! (`unnamed`). Data of partial bodies is synced before their maps every 64 MiB or 5 s. A map may be ahead of its data: a
//! block counts only when its CRC-32C holds, and when that of its last state does not, the state before counts that does.
//! So a map that is written anew keeps all states.
//!
//! Blocks of a blob that do not hold are written over in place, and synced, by `mend`.
//!
//! The journals are the truth of their drive. The index is derived from them and lives in memory; its snapshot beside the
//! journal and the mirror in the state directory may be deleted at any time.
//!
//! # Threads
//! Four per drive for file operations, one for syncs of partial bodies and for mending, one for commits, one that probes
//! it, and one that reads it in at the start; one that keeps the journals' mirror, one that waits for the drives at the
//! start, one that writes down which version clients were given, one that reads what is stored in the background, and one
//! that watches the drives (`watch`).
//! None of the async methods blocks its worker.

mod adopt;
mod adoption;
mod arrival;
mod at_rest;
mod blob;
mod block_map;
mod block_sums;
mod body;
mod buffers;
mod checked;
mod commit;
mod compact;
mod compare;
mod contents;
mod copies;
mod disk;
mod drain;
mod drive;
mod drives;
mod entries;
mod error;
mod evict;
mod fill_file;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod given;
mod hasher;
mod health;
mod hot;
mod identity;
mod index;
mod inner;
mod journal;
mod journal_check;
mod journal_entry;
mod journal_format;
mod journal_segment;
mod known_drives;
mod layout;
mod link;
mod lost;
mod map_anew;
mod map_file;
mod memory;
mod mend;
mod meta;
mod mirror;
mod new_body;
mod operation;
mod partial;
mod pinning;
mod pins;
mod pool;
mod publish;
mod pulse;
mod quarantine;
mod queue;
mod ready;
mod recover;
mod replay;
mod running;
mod scrub;
mod settings;
mod space;
mod stored;
mod stuffing;
mod superseded;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod unnamed;
mod usage;
mod verify;
mod victim;
mod watch;
mod wide_hasher;
mod window;
mod writer;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use parking_lot::Mutex;

pub use adoption::{Adopted, adopt_drive, init_drive};
pub use blob::Blob;
pub use body::{Body, Piece};
pub use drain::{Drained, drain};
pub use entries::{Entry, Known, Variants};
pub use error::{CompleteError, OpenError, ReadError, StoreError};
pub use given::{Gift, Holdings};
pub use health::Reason as OutOfService;
pub use hot::BlobHandle;
pub use mend::{Broken, Mended, Patch};
pub use new_body::{FirstBytes, NewBody};
pub use partial::{Partial, Progress};
pub use pinning::Pinned;
pub use pins::{MAX_PINS, Pin, PinError, PinTarget};
pub use settings::{DriveSettings, Settings};
pub use usage::{DriveUsage, Outage};
pub use verify::{Finding, Progressed, Verification, verify};
pub use window::{Hold, Window};
pub use writer::{Completed, PartialWriter, Stopped};

use crate::clock;
use crate::content::{BodyRef, CacheKey, Digest, Record, UnixMillis, Version};
use crate::telemetry::Metrics;
use disk::Dir;
#[cfg(test)]
use drive::Drive;
use entries::Target;
use identity::take_lock;
use inner::Inner;
use known_drives::KnownDrives;
use running::Running;

/// Handle on all drives and the index. Cheap to clone. When the last one is dropped everything that is visible is
/// committed, the threads end and the drives are free for others; readers and writers that are left get errors.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    /// Its drop is the end of the store.
    _running: Arc<Running>,
}

impl Store {
    /// Takes the lock of each drive, makes missing directories and starts the store's threads. The index opens and
    /// the journals are read in the background: see [`Store::ready`].
    ///
    /// A drive that cannot be read or lost its mount is left out while there is another one, and comes into service when it
    /// is there.
    ///
    /// # Errors
    /// When a drive or the state directory is used by another process or was written by a newer release, when a
    /// drive's identity is damaged, when the state directory cannot be read or written, or no drive can and not all of them
    /// were drives before.
    pub fn open(settings: Settings, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        let io = |action: &'static str| {
            let path = settings.state.clone();
            move |source| OpenError::Io { path, action, source }
        };
        if let Err(error) = block_map::BlockSize::new(settings.block_size) {
            return Err(io("use the block size")(std::io::Error::new(std::io::ErrorKind::InvalidInput, error)));
        }
        disk::make_directories(&settings.state).map_err(io("create the directory"))?;
        let state = Dir::open(&settings.state).map_err(io("open the directory"))?;
        let state_lock = take_lock(&state, &settings.state)?;
        let mut known = KnownDrives::read(&state, &settings.state);
        let away = Arc::default();
        let (drives, outcome) = arrival::open_all(&settings, &known, &away, &metrics);
        if drives.slots().iter().all(|slot| slot.drive().is_some()) {
            known.all_are_here();
        }
        let opened = outcome
            .and_then(|()| known.note(&state, drives.iter().map(|drive| &**drive)).map_err(io("note the drives")));
        opened.inspect_err(|_| drives.iter().for_each(|drive| drive.close()))?;
        let inner = Arc::new(Inner::new(settings.clone(), metrics, drives, away));
        let closing = Arc::new(AtomicBool::new(false));
        let (store, flag) = (Arc::clone(&inner), Arc::clone(&closing));
        let recovering = thread::Builder::new()
            .name("store-recover".to_owned())
            .spawn(move || recover::recover(&store, &flag))
            .map_err(io("start threads"))?;
        let (store, flag) = (Arc::clone(&inner), Arc::clone(&closing));
        let watching = thread::Builder::new()
            .name("drive-watch".to_owned())
            .spawn(move || watch::run(&store, &flag))
            .map_err(io("start threads"))?;
        let (recovering, watching) = (Mutex::new(Some(recovering)), Mutex::new(Some(watching)));
        let running = Running { inner: Arc::clone(&inner), closing, recovering, watching, state_lock };
        Ok(Self { inner, _running: Arc::new(running) })
    }

    /// Resolves when look-ups know everything that is on the drives.
    pub async fn ready(&self) {
        self.inner.wait_ready().await;
    }

    /// Whether look-ups know everything that is on the drives.
    pub fn is_ready(&self) -> bool {
        *self.inner.ready.borrow()
    }

    /// Everything stored under `key`. Waits until the store is ready.
    pub async fn lookup(&self, key: &CacheKey) -> Variants {
        self.inner.lookup(key).await.current
    }

    /// The same with older versions. Those that have outlived their time are left out.
    pub async fn known(&self, key: &CacheKey) -> Known {
        let mut known = self.inner.lookup(key).await;
        let now = UnixMillis::from(clock::now_for_deletion());
        if known.older().iter().any(|entry| entry.is_outlived(now)) {
            let stays = |entry: &&Arc<Entry>| !entry.is_outlived(now);
            known.older = Some(known.older().iter().filter(stays).cloned().collect());
        }
        known
    }

    /// What `client` was given of `key` before. Never blocks.
    pub fn given(&self, client: IpAddr, key: &CacheKey) -> Holdings {
        self.inner.given.of(client, key.hash())
    }

    /// Notes that `client` is about to be given bytes of a version of `key`: the whole of it, of which the gift then
    /// tells how that ended, or a part. Resolves when the bytes may leave: at once, but for clients that hold another
    /// version.
    pub async fn give(&self, client: IpAddr, key: &CacheKey, version: &Version, whole: bool) -> Option<Gift> {
        self.inner.given.give(client, key.hash(), version, whole).await
    }

    /// Gives an older version its place back without a transfer: upstream has that version again, as `record` says
    /// (its body is that of `entry`). What had the place becomes the older one. A partial body can be taken up again.
    /// `None` when the version went meanwhile.
    pub fn revive(&self, entry: &Arc<Entry>, record: Record) -> Option<Arc<Entry>> {
        self.inner.revive(entry, record)
    }

    /// The body of a stored response. When it is gone the entry is forgotten and `Gone` returned.
    ///
    /// # Errors
    /// [`ReadError::Gone`], [`ReadError::Damaged`] for a small body that does not verify, or [`ReadError::Io`].
    pub async fn body(&self, entry: &Arc<Entry>) -> Result<Body, ReadError> {
        if let Some(body) = self.body_hot(entry) {
            return Ok(body);
        }
        match &entry.target {
            Target::Partial(_) => Err(ReadError::Gone),
            Target::Blob(life) if life.is_gone() => Err(ReadError::Gone),
            Target::Blob(life) => self.open_body(life).await,
        }
    }

    /// A complete blob by digest.
    pub async fn blob(&self, digest: Digest) -> Option<Body> {
        self.inner.wait_ready().await;
        let life = self.inner.entries.lock().life(digest)?;
        match self.hot_blob(&life).filter(|_| !life.is_gone()) {
            Some(body) => Some(body),
            None => self.open_body(&life).await.ok(),
        }
    }

    /// A stored response whose body is the blob `digest` and of which `may` says that anybody may have it. What became
    /// durable within the last group commit may be missing.
    pub async fn shared_by_digest(&self, digest: Digest, may: impl Fn(&Record) -> bool) -> Option<Arc<Entry>> {
        self.inner.wait_ready().await;
        let mut rows = Vec::new();
        for drive in self.inner.index.drives_naming(&digest) {
            let (index, id) = (Arc::clone(&self.inner.index), drive.id);
            rows.extend(drive.pool.run(move || index.pointing_to(id, &digest)).await.unwrap_or_default());
        }
        for journal_entry::Row { record, .. } in rows {
            let is_it = |entry: &&Arc<Entry>| {
                entry.record.body == BodyRef::Blob(digest)
                    && entry.record.status == http::StatusCode::OK
                    && may(&entry.record)
            };
            if let Some(entry) = self.lookup(&record.key).await.iter().find(is_it) {
                return Some(Arc::clone(entry));
            }
        }
        None
    }

    /// The open file of a blob, whatever its length.
    async fn open_file(&self, life: &Arc<blob::Life>) -> Result<Arc<Blob>, ReadError> {
        self.inner.wait_ready().await;
        Ok(match life.open_blob() {
            Some(blob) => blob,
            None => {
                let opened = match self.inner.home(&life.digest) {
                    Ok(drive) => {
                        if let Some(blob) = self.inner.open_now(&drive, life) {
                            return Ok(blob);
                        }
                        let (store, job_drive, job_life) =
                            (Arc::clone(&self.inner), Arc::clone(&drive), Arc::clone(life));
                        drive.pool.run(move || store.open_on(&job_drive, &job_life)).await?
                    }
                    Err(error) => Err(error),
                };
                if let Err(ReadError::Gone) = opened {
                    self.inner.blob_missing(life);
                }
                opened?
            }
        })
    }

    async fn open_body(&self, life: &Arc<blob::Life>) -> Result<Body, ReadError> {
        let blob = self.open_file(life).await?;
        self.inner.touch(life);
        if blob.length() > self.inner.settings.memory_body {
            self.inner.memory.keep_handle(&blob);
            return Ok(Body::Blob(blob));
        }
        if let Some(content) = blob.read_whole_now()? {
            self.inner.memory.keep_body(life, &content);
            return Ok(Body::Memory(content));
        }
        let (job, memory_store) = (Arc::clone(&blob), Arc::clone(&self.inner));
        let loaded = blob.drive().pool.run(move || {
            let content = job.read_whole()?;
            memory_store.memory.keep_body(job.life(), &content);
            Ok::<_, ReadError>(content)
        });
        Ok(Body::Memory(loaded.await??))
    }

    /// Begins a new body for `record` (its `body` field is set by the store), of which only `room` bytes are wanted so far: no
    /// more room is made for it. The `first` bytes of it are written at once. Nobody sees it before [`NewBody::show`].
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] when no drive has room after eviction, [`StoreError::Misplaced`] when `first` is not at the begin of a
    /// block, [`StoreError::Io`] when the drives fail.
    pub async fn begin(&self, record: Record, room: u64, first: FirstBytes) -> Result<NewBody, StoreError> {
        NewBody::make(Arc::clone(&self.inner), record, room, first).await
    }

    /// Begins a new body of which nothing is there, and shows it.
    #[cfg(test)]
    pub(crate) async fn create(&self, record: Record) -> Result<PartialWriter, StoreError> {
        let room = record.length.unwrap_or(0);
        Ok(self.begin(record, room, FirstBytes::default()).await?.show(true))
    }

    /// Takes up a partial that nobody is writing; `None` when it has a writer or is gone. Blocks of an earlier
    /// process are checked up to the first absent byte, so that the body may be shorter afterwards.
    pub async fn resume(&self, entry: &Arc<Entry>) -> Option<PartialWriter> {
        PartialWriter::resume(Arc::clone(&self.inner), entry, u64::MAX).await
    }

    /// The same, of which only `room` bytes more are wanted so far.
    pub async fn resume_part(&self, entry: &Arc<Entry>, room: u64) -> Option<PartialWriter> {
        PartialWriter::resume(Arc::clone(&self.inner), entry, room).await
    }

    /// Replaces what is known of a stored response, its body stays (RFC 9111 section 4.3.4). When another body took
    /// its place meanwhile, nothing changes but the entry returned.
    pub fn update(&self, entry: &Arc<Entry>, record: Record) -> Arc<Entry> {
        self.inner.update(entry, record)
    }

    /// Size of the blocks of new bodies, in bytes.
    pub fn block_size(&self) -> u64 {
        u64::from(self.inner.settings.block_size)
    }

    /// Memory for the windows of bodies that no drive has room for, in bytes.
    pub fn window_memory(&self) -> u64 {
        self.inner.settings.window_memory
    }

    /// Forgets a stored response; a partial body that nobody writes is deleted, a blob stays for other keys until
    /// eviction.
    pub fn remove(&self, entry: &Arc<Entry>) {
        let mut table = self.inner.entries.lock();
        self.inner.remove(&mut table, entry);
    }

    /// From now on operations on the drive with this number do not end, before what is returned is dropped.
    #[cfg(test)]
    pub(crate) fn hang(&self, number: usize) -> impl Drop + use<> {
        struct Hanging(Arc<pulse::Pulse>);
        impl Drop for Hanging {
            fn drop(&mut self) {
                self.0.injected.set(pulse::injection::Inject::Nothing);
            }
        }
        let pulse = Arc::clone(&self.inner.drives[number].pulse);
        pulse.injected.set(pulse::injection::Inject::Hang);
        Hanging(pulse)
    }

    /// Keeps all threads for files busy until what is returned is dropped, as drives do that do not answer.
    #[cfg(test)]
    pub(crate) fn occupy_threads(&self) -> Vec<std::sync::mpsc::Sender<()>> {
        let occupy = |drive: &Arc<Drive>| {
            let (hold, held) = std::sync::mpsc::channel::<()>();
            drop(drive.pool.run(move || held.recv()));
            hold
        };
        self.inner
            .drives
            .iter()
            .flat_map(|drive| std::iter::repeat_with(|| occupy(drive)).take(drive::THREADS))
            .collect()
    }

    /// Commits everything that is visible but not yet durable, partials included.
    pub async fn flush(&self) {
        self.inner.wait_ready().await;
        let partials: Vec<Arc<Partial>> = self.inner.entries.lock().partials.values().cloned().collect();
        for partial in partials {
            let job = Arc::clone(&partial);
            let synced = partial.drive.syncs.run(move || job.sync()).await;
            if let Err(error) | Ok(Err(error)) = synced {
                partial.drive.failed("sync a partial body", &error);
            }
        }
        for drive in &self.inner.drives {
            drive.barrier().await;
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("usage", &self.usage()).finish_non_exhaustive()
    }
}
