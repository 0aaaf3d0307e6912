//! What a hit asks of the store: nothing here blocks, and nothing asks the index or a disk. What is not in memory is for
//! the other methods of [`Store`].

use std::net::IpAddr;
use std::sync::Arc;

use super::blob::{Blob, Life};
use super::body::Body;
use super::entries::{Entry, Target, Variants};
use super::{Gift, Store};
use crate::content::{CacheKey, Version};

/// A complete body without its file. While it is held, what is known of the body stays in memory.
#[derive(Debug, Clone)]
pub struct BlobHandle(Arc<Life>);

impl BlobHandle {
    /// Whether the body is not stored any more.
    pub fn is_gone(&self) -> bool {
        self.0.is_gone()
    }
}

impl Store {
    /// What is known in memory; `None` means: ask [`Store::lookup`]. Never blocks, no database call.
    pub fn lookup_hot(&self, key: &CacheKey) -> Option<Variants> {
        Some(self.inner.entries.hot(key)?.current)
    }

    /// Goes up with each change of what is stored under `key`: what was looked up before still holds while this stays the
    /// same, but for bodies that are gone ([`BlobHandle::is_gone`]).
    pub fn generation(&self, key: &CacheKey) -> u64 {
        self.inner.entries.generation(key.hash())
    }

    /// The body if its handle or its bytes are in memory already. Never blocks.
    pub fn body_hot(&self, entry: &Entry) -> Option<Body> {
        if entry.is_gone() {
            return None;
        }
        match &entry.target {
            Target::Partial(partial) => Some(Body::Partial(Arc::clone(partial))),
            Target::Blob(life) => self.hot_blob(life),
        }
    }

    pub(super) fn hot_blob(&self, life: &Arc<Life>) -> Option<Body> {
        let memory = &self.inner.memory;
        let body = match memory.body(&life.digest) {
            Some(bytes) => Body::Memory(bytes),
            None => {
                let is_large = |length| length > self.inner.settings.memory_body;
                let open = memory.handle(&life.digest).filter(|blob| is_large(blob.length()));
                let known = || life.facts().is_some_and(|facts| is_large(facts.sums.length()));
                Body::Blob(open.or_else(|| known().then(|| self.reopen_now(life)).flatten())?)
            }
        };
        self.inner.touch(life);
        Some(body)
    }

    /// Opens what was open before. It is kept open only now and then: of many that are asked for at random each would
    /// push out another, and opening costs less than that.
    fn reopen_now(&self, life: &Arc<Life>) -> Option<Arc<Blob>> {
        if let Some(blob) = life.open_blob() {
            return Some(blob);
        }
        let blob = self.inner.reopen_now(life)?;
        if self.inner.memory.is_turn_to_keep() {
            self.inner.memory.keep_handle(&blob);
        }
        Some(blob)
    }

    /// Whether the drive of `entry` gives what it has.
    pub fn is_served(&self, entry: &Entry) -> bool {
        !entry.is_away(self.inner.entries.away())
    }

    /// A handle on the complete body of `entry`.
    pub fn handle(&self, entry: &Entry) -> Option<BlobHandle> {
        match &entry.target {
            Target::Blob(life) => Some(BlobHandle(Arc::clone(life))),
            Target::Partial(_) => None,
        }
    }

    /// The open file of `handle`; opened when it was open before. `None` when it is gone, or a disk must be asked.
    pub fn open_now(&self, handle: &BlobHandle) -> Option<Body> {
        if handle.is_gone() {
            return None;
        }
        self.inner.touch(&handle.0);
        self.reopen_now(&handle.0).map(Body::Blob)
    }

    /// Tells the memory of small bodies and open files that the body of `handle` is asked for still. Opens nothing.
    pub fn keep_warm(&self, handle: &BlobHandle) {
        let (life, memory) = (&handle.0, &self.inner.memory);
        self.inner.touch(life);
        let is_small = life.facts().is_none_or(|facts| facts.sums.length() <= self.inner.settings.memory_body);
        if is_small {
            memory.body(&life.digest);
        } else {
            memory.handle(&life.digest);
        }
    }

    /// As [`Store::give`] for an answer with the whole, if the bytes may leave at once; otherwise nothing is noted.
    pub fn give_now(&self, client: IpAddr, key: &CacheKey, version: &Version) -> Option<Gift> {
        self.inner.given.give_now(client, key.hash(), version)
    }
}
