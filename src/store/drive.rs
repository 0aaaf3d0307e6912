//! [`Drive`]: one directory with its identity, lock, threads, quota and use. What is stored on it is the business
//! of `commit`, `partial` and `blob`.

use std::fs::File;
use std::io::{self, ErrorKind::NotFound};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};

use super::disk::{self, Dir};
use super::error::OpenError;
use super::evict::Sieve;
use super::layout;
use super::pool::Pool;
use super::queue::Queue;
use super::settings::DriveSettings;
use crate::content::{Digest, PartialId};
use crate::telemetry::Metrics;

/// Threads for file operations of a drive.
pub(super) const THREADS: usize = 4;

/// Bytes that stay free at least, for journal and maps: without them nothing could be completed.
const RESERVE: u64 = 4 * 1024 * 1024;

/// Files that may be made at least, for the directories of blobs and for journal and maps.
const RESERVED_FILES: u64 = 300;

/// Random name of a drive, written into it once. It ties the index to the drive wherever that is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct DriveId(pub(super) u128);

/// Something that can be removed to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Victim {
    /// A complete blob.
    Blob(Digest),
    /// A partial body that nobody is writing.
    Partial(PartialId),
}

/// One drive in use by this process.
pub(super) struct Drive {
    pub(super) id: DriveId,
    pub(super) settings: DriveSettings,
    pub(super) dir: Dir,
    pub(super) pool: Pool,
    /// One thread for what waits long and in order: syncs and new maps of partial bodies. Readers must not wait for it.
    pub(super) syncs: Pool,
    /// What waits to be made durable.
    pub(super) queue: Queue,
    /// Order of eviction. A leaf lock.
    pub(super) sieve: Mutex<Sieve<Victim>>,
    /// Held by who finds out how much has to go and chooses it. Before all other locks.
    pub(super) evicting: Mutex<()>,
    used: AtomicU64,
    promised: AtomicU64,
    leaving: AtomicU64,
    blobs: AtomicU64,
    in_service: AtomicBool,
    doubted: AtomicBool,
    lock: File,
    bytes: IntGauge,
    all_blobs: IntGauge,
    errors: IntCounter,
}

/// What `waystation.json` says.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Identity {
    format: u32,
    drive: String,
}

impl Identity {
    /// What the drive in `path` says of itself, of which there must be a readable one. Changes nothing.
    pub(super) fn read(dir: &Dir, path: &Path) -> Result<(DriveId, u32), OpenError> {
        let damaged = |reason: &str| OpenError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
        let io = |source| OpenError::Io { path: path.to_owned(), action: "read waystation.json", source };
        let text = dir.read(layout::IDENTITY).map_err(io)?;
        // The version comes first: a newer format may have other fields.
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(|error| damaged(&error.to_string()))?;
        let found = value.get("format").and_then(serde_json::Value::as_u64).ok_or_else(|| damaged("no format"))?;
        if found > u64::from(layout::FORMAT) {
            let found = u32::try_from(found).unwrap_or(u32::MAX);
            return Err(OpenError::NewerFormat { path: path.to_owned(), found, known: layout::FORMAT });
        }
        let identity: Self = serde_json::from_value(value).map_err(|error| damaged(&error.to_string()))?;
        let id = u128::from_str_radix(&identity.drive, 16).map_err(|_| damaged("the drive id is no number"))?;
        Ok((DriveId(id), identity.format))
    }
}

impl Drive {
    /// Takes the drive's lock, reads or writes its identity, makes missing directories and starts its threads.
    /// A path that is `known` as a drive is not made a new one.
    pub(super) fn open(
        settings: DriveSettings,
        number: usize,
        known: bool,
        metrics: &Metrics,
    ) -> Result<Arc<Self>, OpenError> {
        let path = settings.path.clone();
        if known && std::fs::symlink_metadata(path.join(layout::IDENTITY)).is_err_and(|e| e.kind() == NotFound) {
            return Err(OpenError::Lost { path });
        }
        let io = |action: &'static str| {
            let path = path.clone();
            move |source: io::Error| OpenError::Io { path, action, source }
        };
        disk::make_directories(&path).map_err(io("create the directory"))?;
        let dir = Dir::open(&path).map_err(io("open the directory"))?;
        let lock = take_lock(&dir, &path)?;
        let id = identify(&dir, &path)?;
        for name in layout::DIRECTORIES {
            if dir.make_directory(name).map_err(io("create a directory"))? {
                let parent = name.rsplit_once('/').map_or(".", |(parent, _)| parent);
                dir.sync_directory(parent).map_err(io("sync a directory"))?;
            }
        }
        let pool = Pool::start(&format!("drive{}", number + 1), THREADS).map_err(io("start threads"))?;
        let syncs = Pool::start(&format!("sync{}", number + 1), 1)
            .inspect_err(|_| pool.close())
            .map_err(io("start threads"))?;
        let label = path.display().to_string();
        metrics.store_quota_bytes.with_label_values(&[&label]).set(to_gauge(settings.quota));
        Ok(Arc::new(Self {
            id,
            dir,
            pool,
            syncs,
            queue: Queue::new(metrics.store_uncommitted.with_label_values(&[&label])),
            sieve: Mutex::new(Sieve::new()),
            evicting: Mutex::new(()),
            used: AtomicU64::new(0),
            promised: AtomicU64::new(0),
            leaving: AtomicU64::new(0),
            blobs: AtomicU64::new(0),
            in_service: AtomicBool::new(true),
            doubted: AtomicBool::new(false),
            lock,
            bytes: metrics.store_bytes.with_label_values(&[&label]),
            all_blobs: metrics.store_blobs.clone(),
            errors: metrics.drive_errors.with_label_values(&[&label]),
            settings,
        }))
    }

    /// Ends its threads once they have done what waits.
    pub(super) fn close(&self) {
        self.pool.close();
        self.syncs.close();
    }

    /// Path for logs.
    pub(super) fn label(&self) -> std::path::Display<'_> {
        self.settings.path.display()
    }

    /// Real bytes of all our files, unlinked but open ones included.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Adds to the use.
    pub(super) fn take(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        self.bytes.set(to_gauge(self.used()));
    }

    /// Takes from the use.
    pub(super) fn release(&self, bytes: u64) {
        let less = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.bytes.set(to_gauge(self.used()));
    }

    /// Number of complete blobs.
    pub(super) fn blobs(&self) -> u64 {
        self.blobs.load(Ordering::Relaxed)
    }

    /// Notes a new blob.
    pub(super) fn blob_added(&self) {
        self.blobs.fetch_add(1, Ordering::Relaxed);
        self.all_blobs.inc();
    }

    /// Notes that a blob is gone.
    pub(super) fn blob_gone(&self) {
        let less = |blobs: u64| blobs.checked_sub(1);
        if self.blobs.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
            self.all_blobs.dec();
        }
    }

    /// Whether new content may be put here.
    pub(super) fn in_service(&self) -> bool {
        self.in_service.load(Ordering::Relaxed)
    }

    /// Notes that something of its journal could not be read.
    pub(super) fn doubt(&self) {
        self.doubted.store(true, Ordering::Relaxed);
    }

    /// Whether its journal may have said more than is known.
    pub(super) fn is_doubted(&self) -> bool {
        self.doubted.load(Ordering::Relaxed)
    }

    /// Counts and logs a failed file operation.
    pub(super) fn failed(&self, action: &str, error: &io::Error) {
        self.errors.inc();
        tracing::error!(drive = %self.label(), action, %error, "file operation failed");
    }

    /// How many bytes are too many once `needed` more came: above the quota, with the bytes that open writers still
    /// may write, or below the minimum of free space. What is leaving still counts.
    pub(super) fn excess(&self, needed: u64) -> u64 {
        let promised = self.promised.load(Ordering::Relaxed);
        let planned = self.used().saturating_add(promised).saturating_add(needed);
        let over_quota = planned.saturating_sub(self.settings.quota);
        // When the file system does not answer, the quota alone decides.
        let (free, files) = self.dir.free().unwrap_or((u64::MAX, u64::MAX));
        let no_files = if files < RESERVED_FILES { needed.max(1) } else { 0 };
        let wanted = self.settings.min_free.max(RESERVE).saturating_add(promised).saturating_add(needed);
        over_quota.max(wanted.saturating_sub(free)).max(no_files)
    }

    /// Bytes whose removal is queued.
    pub(super) fn leaving(&self) -> u64 {
        self.leaving.load(Ordering::Relaxed)
    }

    /// So many bytes are about to be removed.
    pub(super) fn leaves(&self, bytes: u64) {
        self.leaving.fetch_add(bytes, Ordering::Relaxed);
    }

    /// They are.
    pub(super) fn left(&self, bytes: u64) {
        let _ = self.leaving.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |all| Some(all.saturating_sub(bytes)));
    }

    /// Keeps room for a body that is being written.
    pub(super) fn promise(self: &Arc<Self>, bytes: u64) -> Promise {
        // More than the drive may ever take is no promise; a length from a damaged map must not block everybody else.
        let bytes = bytes.min(self.settings.quota);
        self.promised.fetch_add(bytes, Ordering::Relaxed);
        Promise { drive: Arc::clone(self), rest: AtomicU64::new(bytes) }
    }

    /// Lets another process, or a later handle, take the drive.
    pub(super) fn unlock(&self) {
        if let Err(error) = disk::unlock(&self.lock) {
            self.failed("unlock", &error);
        }
    }
}

/// Room on a drive that a writer has not used yet; given back when dropped.
pub(super) struct Promise {
    drive: Arc<Drive>,
    rest: AtomicU64,
}

impl Promise {
    /// Bytes that were taken on the drive now, and need no promise any more.
    pub(super) fn consume(&self, bytes: u64) {
        let mut consumed = 0;
        let less = |rest: u64| {
            consumed = rest.min(bytes);
            Some(rest - consumed)
        };
        let _ = self.rest.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.drive.promised.fetch_sub(consumed, Ordering::Relaxed);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.drive.promised.fetch_sub(*self.rest.get_mut(), Ordering::Relaxed);
    }
}

/// An open file with content. Its blocks count as used until it is closed, even after it was unlinked.
pub(super) struct DataFile {
    file: File,
    drive: Arc<Drive>,
    counted: AtomicU64,
    unlinked: AtomicBool,
}

impl DataFile {
    /// Wraps a file of which `counted` bytes are in the drive's use already.
    pub(super) fn new(file: File, drive: Arc<Drive>, counted: u64) -> Self {
        Self { file, drive, counted: AtomicU64::new(counted), unlinked: AtomicBool::new(false) }
    }

    /// The file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Counts its blocks anew and returns by how many bytes it has grown.
    pub(super) fn recount(&self) -> u64 {
        let Ok(now) = disk::allocated(&self.file) else { return 0 };
        let before = self.counted.swap(now, Ordering::Relaxed);
        self.drive.take(now.saturating_sub(before));
        self.drive.release(before.saturating_sub(now));
        now.saturating_sub(before)
    }

    /// Bytes counted.
    pub(super) fn counted(&self) -> u64 {
        self.counted.load(Ordering::Relaxed)
    }

    /// Its name is gone; its blocks are free when it is closed.
    pub(super) fn unlinked(&self) {
        self.unlinked.store(true, Ordering::Relaxed);
    }
}

impl Drop for DataFile {
    fn drop(&mut self) {
        if *self.unlinked.get_mut() {
            self.drive.release(*self.counted.get_mut());
        }
    }
}

/// Takes the lock file in `dir`.
pub(super) fn take_lock(dir: &Dir, path: &Path) -> Result<File, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), action: "lock", source };
    let lock = dir.open_lock(layout::LOCK).map_err(io)?;
    if disk::try_lock(&lock).map_err(io)? { Ok(lock) } else { Err(OpenError::InUse { path: path.to_owned() }) }
}

/// Reads the drive's identity, or gives it one when nothing of ours is there.
fn identify(dir: &Dir, path: &Path) -> Result<DriveId, OpenError> {
    let io = |action| move |source| OpenError::Io { path: path.to_owned(), action, source };
    let damaged = |reason: &str| OpenError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
    if dir.stat(layout::IDENTITY).map_err(io("read waystation.json"))?.is_some() {
        let (id, format) = Identity::read(dir, path)?;
        if format < layout::FORMAT {
            // Before anything is written that the older release does not know.
            write_identity(dir, id).map_err(io("upgrade waystation.json"))?;
        }
        return Ok(id);
    }
    if dir.stat(layout::JOURNAL).map_err(io("look for a journal"))?.is_some() {
        return Err(damaged("it is missing, although a journal is there"));
    }
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| io("name the drive")(io::Error::other(error.to_string())))?;
    let id = DriveId(u128::from_be_bytes(random));
    write_identity(dir, id).map_err(io("write waystation.json"))?;
    Ok(id)
}

fn write_identity(dir: &Dir, id: DriveId) -> io::Result<()> {
    let identity = Identity { format: layout::FORMAT, drive: format!("{:032x}", id.0) };
    let text = serde_json::to_vec_pretty(&identity).map_err(io::Error::other)?;
    dir.unlink(layout::IDENTITY_NEW)?;
    let file = dir.create_file(layout::IDENTITY_NEW)?;
    disk::write_at(&file, &text, 0)?;
    disk::sync_data(&file)?;
    dir.rename(layout::IDENTITY_NEW, layout::IDENTITY)?;
    dir.sync_directory(".")
}

fn to_gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
