//! [`Memory`]: small bodies and open blobs, both bounded. Losing something here never loses content.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use moka::sync::Cache;
use parking_lot::Mutex;

use super::blob::{Blob, Life};
use super::drive::Drive;
use crate::content::Digest;

/// One in so many of the files that are opened again is kept open.
const KEPT: u64 = 8;

/// The two memory tiers, by digest.
pub(super) struct Memory {
    bodies: Cache<Digest, Bytes>,
    handles: Cache<Digest, Arc<Handle>>,
    /// Counts files that were opened again.
    reopened: AtomicU64,
}

/// An open blob, or none any more. The cache drops late what it drops; the file of a blob that is gone has to be
/// closed at once.
struct Handle(Mutex<Option<Arc<Blob>>>);

impl Memory {
    /// Room for `bytes` of small bodies and for `handles` open blobs.
    pub(super) fn new(bytes: u64, handles: usize) -> Self {
        let weigh = |_: &Digest, body: &Bytes| u32::try_from(body.len() + 128).unwrap_or(u32::MAX);
        Self {
            bodies: Cache::builder().max_capacity(bytes).weigher(weigh).build(),
            handles: Cache::new(handles as u64),
            reopened: AtomicU64::new(0),
        }
    }

    /// A small body.
    pub(super) fn body(&self, digest: &Digest) -> Option<Bytes> {
        self.bodies.get(digest)
    }

    /// Keeps a small body, unless its blob went meanwhile.
    pub(super) fn keep_body(&self, life: &Life, body: &Bytes) {
        self.bodies.insert(life.digest, body.clone());
        if life.is_gone() {
            self.forget(&life.digest);
        }
    }

    /// An open blob.
    pub(super) fn handle(&self, digest: &Digest) -> Option<Arc<Blob>> {
        self.handles.get(digest)?.0.lock().clone()
    }

    /// Whether this one of the files that are opened again should be kept open.
    pub(super) fn is_turn_to_keep(&self) -> bool {
        self.reopened.fetch_add(1, Ordering::Relaxed).is_multiple_of(KEPT)
    }

    /// Keeps a blob open, unless it went meanwhile.
    pub(super) fn keep_handle(&self, blob: &Arc<Blob>) {
        self.handles.insert(blob.digest(), Arc::new(Handle(Mutex::new(Some(Arc::clone(blob))))));
        if blob.life().is_gone() {
            self.forget(&blob.digest());
        }
    }

    /// Closes what is open on a drive.
    pub(super) fn forget_drive(&self, drive: &Drive) {
        for (_, handle) in &self.handles {
            let mut blob = handle.0.lock();
            if blob.as_ref().is_some_and(|blob| blob.drive().id == drive.id) {
                blob.take();
            }
        }
    }

    /// The blob is gone.
    pub(super) fn forget(&self, digest: &Digest) {
        self.bodies.invalidate(digest);
        if let Some(handle) = self.handles.remove(digest) {
            handle.0.lock().take();
        }
    }
}
