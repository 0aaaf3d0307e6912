//! [`Running`]: the life of the store's threads, and the order in which they end.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::disk;
use super::inner::Inner;
use super::pool::join_unless;

/// The life of the store's threads.
pub(super) struct Running {
    pub(super) inner: Arc<Inner>,
    pub(super) closing: Arc<AtomicBool>,
    pub(super) recovering: Mutex<Option<JoinHandle<Vec<JoinHandle<()>>>>>,
    pub(super) watching: Mutex<Option<JoinHandle<()>>>,
    pub(super) state_lock: File,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        if let Some(watching) = self.watching.lock().take() {
            watching.thread().unpark();
            let _ = watching.join();
        }
        let arrived = self.inner.drives.close();
        // Threads of a drive that hangs are left behind; nobody waits for them.
        let is_hung = || self.inner.drives.iter().any(|drive| drive.pulse.is_overdue());
        // Before the queues, so that what the last jobs make visible is committed too.
        for drive in &self.inner.drives {
            drive.pool.close();
            drive.pool.join_unless_hung(&drive.pulse);
        }
        for partial in self.inner.entries.lock().partials.values() {
            let job = Arc::clone(partial);
            drop(partial.drive.syncs.run(move || {
                if let Err(error) = job.sync() {
                    job.drive.failed("sync a partial body", &error);
                }
            }));
        }
        for drive in &self.inner.drives {
            drive.close();
            drive.syncs.join_unless_hung(&drive.pulse);
        }
        for drive in &self.inner.drives {
            drive.queue.close();
        }
        self.inner.given.close();
        if let Some(recovering) = self.recovering.lock().take() {
            for thread in join_unless(recovering, is_hung).unwrap_or_default() {
                // The one that reads in the background sleeps most of the time.
                thread.thread().unpark();
                join_unless(thread, is_hung);
            }
        }
        for (drive, committer) in arrived {
            join_unless(committer, || drive.pulse.is_overdue());
        }
        for drive in &self.inner.drives {
            drive.join_committer();
        }
        // Even when readers are left: another handle may open it.
        self.inner.mirror.close(is_hung);
        for drive in &self.inner.drives {
            drive.unlock();
        }
        if let Err(error) = disk::unlock(&self.state_lock) {
            tracing::error!(%error, "the lock of the state directory could not be given back");
        }
    }
}
