//! [`Running`]: the life of the store's threads, and the order in which they end. Threads of a drive that hangs are left
//! behind, and its lock stays theirs. A thread of another drive may wait for one of those: nobody waits for such a one
//! longer than for an operation that is overdue. A drive that is slow and well is waited for.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;

use super::disk;
use super::drive::Drive;
use super::inner::Inner;
use super::pool::join_unless;
use super::recover::Started;

/// The life of the store's threads.
pub(super) struct Running {
    pub(super) inner: Arc<Inner>,
    pub(super) closing: Arc<AtomicBool>,
    pub(super) recovering: Mutex<Option<JoinHandle<Vec<Started>>>>,
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
        let begun = Instant::now();
        let any_hangs = || self.inner.drives.iter().any(|drive| drive.pulse.is_overdue());
        let limit = self.inner.settings.drive_timeout;
        let has_waited = || begun.elapsed() >= limit && any_hangs();
        // Who does nothing meanwhile waits for one that hangs.
        let is_stuck = |drive: &Drive| drive.pulse.is_overdue() || (has_waited() && drive.pulse.rests_for(limit));
        let all_are_stuck = || has_waited() && self.inner.drives.iter().all(|drive| is_stuck(drive));
        let left = RefCell::new(HashSet::new());
        let is_left = |drive: &Drive| {
            let is_left = is_stuck(drive);
            if is_left {
                left.borrow_mut().insert(drive.id);
            }
            is_left
        };
        // Before the queues, so that what the last jobs make visible is committed too.
        for drive in &self.inner.drives {
            drive.pool.close();
            drive.pool.join_unless(|| is_left(drive));
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
            drive.syncs.join_unless(|| is_left(drive));
        }
        for drive in &self.inner.drives {
            drive.queue.close();
        }
        self.inner.given.close();
        if let Some(recovering) = self.recovering.lock().take() {
            let started = join_unless(recovering, all_are_stuck);
            if started.is_none() {
                // It had threads of all.
                left.borrow_mut().extend(self.inner.drives.iter().map(|drive| drive.id));
            }
            for Started { thread, drive } in started.unwrap_or_default() {
                // The one that reads in the background sleeps most of the time.
                thread.thread().unpark();
                join_unless(thread, || drive.as_ref().map_or_else(all_are_stuck, |drive| is_left(drive)));
            }
        }
        for (drive, committer) in arrived {
            join_unless(committer, || is_left(&drive));
        }
        for drive in &self.inner.drives {
            drive.join_committer(|| is_left(drive));
        }
        // Even when readers are left: another handle may open it.
        self.inner.mirror.close(has_waited);
        // Threads that were left behind may still change what is on a drive: its lock goes with the last of them.
        let is_free = |drive: &&Arc<Drive>| !left.borrow().contains(&drive.id) && !drive.pulse.is_overdue();
        for drive in self.inner.drives.iter().filter(is_free) {
            drive.unlock();
        }
        if let Err(error) = disk::unlock(&self.state_lock) {
            tracing::error!(%error, "the lock of the state directory could not be given back");
        }
    }
}
