//! [`Running`]: the life of the store's threads, and the order in which they end.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::disk;
use super::inner::Inner;

/// The life of the store's threads.
pub(super) struct Running {
    pub(super) inner: Arc<Inner>,
    pub(super) closing: Arc<AtomicBool>,
    pub(super) recovering: Mutex<Option<JoinHandle<Vec<JoinHandle<()>>>>>,
    pub(super) state_lock: File,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        // Before the queues, so that what the last jobs make visible is committed too.
        self.inner.lookups.close();
        for drive in &self.inner.drives {
            drive.pool.close();
            drive.pool.join();
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
            drive.syncs.join();
        }
        for drive in &self.inner.drives {
            drive.queue.close();
        }
        self.inner.given.close();
        if let Some(recovering) = self.recovering.lock().take() {
            // A thread that panicked has nothing left to commit.
            for thread in recovering.join().unwrap_or_default() {
                // The one that reads in the background sleeps most of the time.
                thread.thread().unpark();
                let _ = thread.join();
            }
        }
        self.inner.lookups.join();
        // Even when readers are left: another handle may open it.
        self.inner.mirror.close();
        for drive in &self.inner.drives {
            drive.unlock();
        }
        if let Err(error) = disk::unlock(&self.state_lock) {
            tracing::error!(%error, "the lock of the state directory could not be given back");
        }
    }
}
