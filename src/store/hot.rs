//! What a hit asks of the store: nothing here blocks, and nothing asks the index or a disk. What is not in memory is for
//! the other methods of [`Store`].

use std::net::IpAddr;
use std::sync::Arc;

use super::blob::Life;
use super::body::Body;
use super::entries::{Entry, Target, Variants};
use super::{Gift, Store};
use crate::content::{CacheKey, Version};

impl Store {
    /// What is known in memory; `None` means: ask [`Store::lookup`]. Never blocks, no database call.
    pub fn lookup_hot(&self, key: &CacheKey) -> Option<Variants> {
        Some(self.inner.entries.hot(key)?.current)
    }

    /// Goes up with each change of what is stored under any key: what was looked up before still holds while this stays
    /// the same, but for bodies that are gone ([`Entry::is_gone`]).
    pub fn changes(&self) -> u64 {
        self.inner.entries.changes()
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

    pub(super) fn hot_blob(&self, life: &Life) -> Option<Body> {
        let memory = &self.inner.memory;
        let body = match memory.body(&life.digest) {
            Some(bytes) => Body::Memory(bytes),
            None => {
                let blob = memory.handle(&life.digest);
                Body::Blob(blob.filter(|blob| blob.length() > self.inner.settings.memory_body)?)
            }
        };
        self.inner.touch(life);
        Some(body)
    }

    /// Notes that the body of `entry` was asked for, so that it stays when others have to go.
    pub fn touch(&self, entry: &Entry) {
        if let Target::Blob(life) = &entry.target {
            self.inner.touch(life);
        }
    }

    /// As [`Store::give`] for an answer with the whole, if the bytes may leave at once; otherwise nothing is noted.
    pub fn give_now(&self, client: IpAddr, key: &CacheKey, version: &Version) -> Option<Gift> {
        self.inner.given.give_now(client, key.hash(), version)
    }
}
