//! [`Drive`]: one directory with its identity, lock, threads, quota and use. What is stored on it is the business
//! of `commit`, `partial` and `blob`.

use std::fs::File;
use std::io::{self, ErrorKind::NotFound};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};

use super::disk::{self, Dir};
use super::error::OpenError;
use super::evict::Sieve;
use super::identity::{Identity, identify, take_lock};
use super::known_drives::Before;
use super::layout;
use super::pool::{Pool, join_unless};
use super::pulse::{Away, Pulse};
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

impl std::fmt::Display for DriveId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Something that can be removed to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Victim {
    /// A complete blob.
    Blob(Digest),
    /// A partial body that nobody is writing, by the bytes of its id: there may be a million of these in memory.
    Partial([u8; 8]),
}

impl Victim {
    /// A partial body.
    pub(super) fn partial(id: PartialId) -> Self {
        Self::Partial(id.0.to_be_bytes())
    }
}

/// One drive in use by this process.
pub(super) struct Drive {
    pub(super) id: DriveId,
    pub(super) settings: DriveSettings,
    pub(super) dir: Dir,
    pub(super) pool: Pool,
    /// One thread for what waits long and in order: syncs and new maps of partial bodies. Readers must not wait for it.
    pub(super) syncs: Pool,
    /// One thread that finds out whether the drive is well.
    pub(super) probes: Pool,
    /// What its operations are at.
    pub(super) pulse: Arc<Pulse>,
    /// What waits to be made durable.
    pub(super) queue: Queue,
    /// Order of eviction. A leaf lock, but for the index's.
    pub(super) sieve: Mutex<Sieve<Victim>>,
    /// Held by who finds out how much has to go and chooses it. Before all other locks.
    pub(super) evicting: Mutex<()>,
    used: AtomicU64,
    promised: AtomicU64,
    leaving: AtomicU64,
    /// Most bytes that content may take now: the quota, or more while it is being reached.
    ceiling: AtomicU64,
    blobs: AtomicU64,
    gaps: AtomicU64,
    lock: Mutex<File>,
    committer: Mutex<Option<JoinHandle<()>>>,
    bytes: IntGauge,
    all_blobs: IntGauge,
    errors: IntCounter,
}

/// What opening a drive takes besides its settings.
pub(super) struct Opening<'a> {
    /// Its place among the configured ones, from 0.
    pub(super) number: usize,
    /// What the path was before.
    pub(super) known: Before,
    /// When an operation is overdue.
    pub(super) limit: Duration,
    /// Where it is noted that its content counts as missing.
    pub(super) away: &'a Arc<Away>,
    /// Where it counts.
    pub(super) metrics: &'a Metrics,
}

impl Drive {
    /// Takes the drive's lock, reads or writes its identity, makes missing directories and starts its threads.
    /// A path that is known as a drive is not made a new one, nor another one.
    pub(super) fn open(settings: DriveSettings, opening: &Opening<'_>) -> Result<Arc<Self>, OpenError> {
        let &Opening { number, ref known, limit, away, metrics } = opening;
        let path = settings.path.clone();
        let has_none = || std::fs::symlink_metadata(path.join(layout::IDENTITY)).is_err_and(|e| e.kind() == NotFound);
        match known {
            Before::Drive(_) if has_none() => return Err(OpenError::Lost { path }),
            Before::Unsure(doubt) if has_none() => {
                return Err(OpenError::Unsure { path, file: doubt.file.clone(), reason: doubt.reason.clone() });
            }
            _ => {}
        }
        let io = |action: &'static str| {
            let path = path.clone();
            move |source: io::Error| OpenError::Io { path, action, source }
        };
        disk::make_directories(&path).map_err(io("create the directory"))?;
        let pulse = Pulse::new(limit, away);
        let dir = Dir::open(&path).map_err(io("open the directory"))?.beating(&pulse);
        // Before the lock is taken: who adopts the drive needs it.
        if let Before::Drive(known) = known {
            let found = Identity::read_of(&dir, &path, *known)?;
            if found != *known {
                return Err(OpenError::OtherDrive { path, found: found.to_string(), known: known.to_string() });
            }
        }
        let lock = take_lock(&dir, &path)?;
        let id = identify(&dir, &path, known.drive())?;
        pulse.is_of(id);
        for name in layout::DIRECTORIES {
            if dir.make_directory(name).map_err(io("create a directory"))? {
                let parent = name.rsplit_once('/').map_or(".", |(parent, _)| parent);
                dir.sync_directory(parent).map_err(io("sync a directory"))?;
            }
        }
        let start = |name: &str, threads| Pool::of_drive(&format!("{name}{}", number + 1), threads, &pulse);
        let pool = start("drive", THREADS).map_err(io("start threads"))?;
        let syncs = start("sync", 1).inspect_err(|_| pool.close()).map_err(io("start threads"))?;
        let probes = start("probe", 1)
            .inspect_err(|_| [&pool, &syncs].into_iter().for_each(Pool::close))
            .map_err(io("start threads"))?;
        let label = path.display().to_string();
        metrics.store_quota_bytes.with_label_values(&[&label]).set(to_gauge(settings.quota));
        Ok(Arc::new(Self {
            id,
            dir,
            pool,
            syncs,
            probes,
            pulse,
            queue: Queue::new(metrics.store_uncommitted.with_label_values(&[&label])),
            sieve: Mutex::new(Sieve::new()),
            evicting: Mutex::new(()),
            used: AtomicU64::new(0),
            promised: AtomicU64::new(0),
            leaving: AtomicU64::new(0),
            ceiling: AtomicU64::new(settings.quota),
            blobs: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
            lock: Mutex::new(lock),
            committer: Mutex::new(None),
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
        self.probes.close();
    }

    /// Notes its commit thread.
    pub(super) fn commits_on(&self, committer: JoinHandle<()>) {
        *self.committer.lock() = Some(committer);
    }

    /// Waits for the last commit, until `is_left` says that the thread is left behind.
    pub(super) fn join_committer(&self, is_left: impl Fn() -> bool) {
        let committer = self.committer.lock().take();
        committer.map(|committer| join_unless(committer, is_left));
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
        self.pulse.takes()
    }

    /// Notes a part of its journal that could not be read; to be called for each, `/readyz` tells how many there are.
    pub(super) fn doubt(&self) {
        self.gaps.fetch_add(1, Ordering::Relaxed);
    }

    /// Its journal is read again, from the begin.
    pub(super) fn forget_gaps(&self) {
        self.gaps.store(0, Ordering::Relaxed);
    }

    /// Whether its journal may have said more than is known.
    pub(super) fn is_doubted(&self) -> bool {
        self.journal_gaps() > 0
    }

    /// How many parts of its journal could not be read.
    pub(super) fn journal_gaps(&self) -> u64 {
        self.gaps.load(Ordering::Relaxed)
    }

    /// Counts and logs a failed file operation. Of a drive that is out of service that is no news.
    pub(super) fn failed(&self, action: &str, error: &io::Error) {
        self.errors.inc();
        if self.pulse.out().is_some() {
            tracing::debug!(drive = %self.label(), action, %error, "file operation failed");
        } else {
            tracing::error!(drive = %self.label(), action, %error, "file operation failed");
        }
    }

    /// Logs that something is not durable. Of a drive that is out of service that is no news.
    pub(super) fn tell_lost(&self, what: &str) {
        if self.pulse.out().is_some() {
            tracing::debug!(drive = %self.label(), "{what}");
        } else {
            tracing::error!(drive = %self.label(), "{what}");
        }
    }

    /// Resolves once all changes so far are durable, or cannot be since the drive takes none.
    pub(super) async fn barrier(&self) {
        if !self.in_service() {
            return;
        }
        tokio::select! {
            // Fails only when the store is closed.
            _ = self.queue.barrier() => {}
            () = self.pulse.gone() => {}
        }
    }

    /// Another directory, with its lock, takes the place of the one that was open: the drive has come back with it.
    pub(super) fn reopen(&self, dir: &Dir, lock: File) {
        self.dir.become_other(dir);
        *self.lock.lock() = lock;
    }

    /// How many bytes are too many once `needed` more came: above the quota, with the bytes that open writers still
    /// may write, or below the minimum of free space. What is leaving still counts.
    pub(super) fn excess(&self, needed: u64) -> u64 {
        let promised = self.promised.load(Ordering::Relaxed);
        let planned = self.used().saturating_add(promised).saturating_add(needed);
        let over_quota = planned.saturating_sub(self.ceiling());
        // When the file system does not answer, the quota alone decides.
        let (free, files) = self.dir.free().unwrap_or((u64::MAX, u64::MAX));
        let no_files = if files < RESERVED_FILES { needed.max(1) } else { 0 };
        let wanted = self.settings.min_free.max(RESERVE).saturating_add(promised).saturating_add(needed);
        over_quota.max(wanted.saturating_sub(free)).max(no_files)
    }

    /// Most bytes that content may take now.
    pub(super) fn ceiling(&self) -> u64 {
        self.ceiling.load(Ordering::Relaxed)
    }

    /// So many bytes turn out to be there. What is above the quota goes bit by bit.
    pub(super) fn finds(&self, bytes: u64) {
        self.ceiling.fetch_max(self.used().saturating_add(bytes), Ordering::Relaxed);
    }

    /// Brings the ceiling so many bytes nearer to the quota; says whether it is there.
    pub(super) fn lower_ceiling(&self, bytes: u64) -> bool {
        let lower = |now: u64| Some(now.saturating_sub(bytes).max(self.settings.quota));
        let _ = self.ceiling.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lower);
        self.ceiling() == self.settings.quota
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

    /// Bytes that are promised now.
    #[cfg(test)]
    pub(super) fn promised(&self) -> u64 {
        self.promised.load(Ordering::Relaxed)
    }

    /// Lets another process, or a later handle, take the drive.
    pub(super) fn unlock(&self) {
        if let Err(error) = disk::unlock(&self.lock.lock()) {
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

fn to_gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
