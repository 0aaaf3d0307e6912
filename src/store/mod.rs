//! The store: complete blobs named by their SHA-256, partial bodies, and what is known of each.
#![allow(unused_variables, clippy::unimplemented, missing_docs)]

mod block_map;
mod block_sums;
mod error;
mod evict;
mod hasher;
mod journal_format;
mod journal_segment;
mod map_file;
mod meta;
mod settings;
mod stuffing;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::HeaderMap;

pub use error::{CompleteError, OpenError, ReadError, StoreError};
pub use settings::{DriveSettings, Settings};

use crate::content::{CacheKey, Digest, Record};
use crate::telemetry::Metrics;

/// Handle on all drives and the index. Cheap to clone.
#[derive(Clone)]
pub struct Store {}

/// A stored response as look-ups return it.
pub struct Entry {
    pub record: Record,
    /// The response fields that do not change from answer to answer, made once by `serve`.
    pub head: OnceLock<HeaderMap>,
}

/// All stored responses of one key, newest `response_time` first. Partials are among them.
pub type Variants = Arc<[Arc<Entry>]>;

impl Store {
    /// Takes the lock of each drive, makes missing directories and starts the store's threads. The index opens and
    /// the journals are read in the background: see [`Store::ready`].
    pub fn open(settings: Settings, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        unimplemented!()
    }
    /// Resolves when look-ups know everything that is on the drives.
    pub async fn ready(&self) {
        unimplemented!()
    }
    pub fn is_ready(&self) -> bool {
        unimplemented!()
    }
    /// What is known in memory; `None` means: ask [`Store::lookup`]. Never blocks, no database call.
    pub fn lookup_hot(&self, key: &CacheKey) -> Option<Variants> {
        unimplemented!()
    }
    /// Everything stored under `key`. Waits until the store is ready.
    pub async fn lookup(&self, key: &CacheKey) -> Variants {
        unimplemented!()
    }
    /// The body if its handle or its bytes are in memory already. Never blocks.
    pub fn body_hot(&self, entry: &Entry) -> Option<Body> {
        unimplemented!()
    }
    /// The body of a stored response. When it is gone the entry is forgotten and `Gone` returned.
    pub async fn body(&self, entry: &Arc<Entry>) -> Result<Body, ReadError> {
        unimplemented!()
    }
    /// A complete blob by digest.
    pub async fn blob(&self, digest: Digest) -> Option<Body> {
        unimplemented!()
    }
    /// Begins a new body for `record` (its `body` field is set by the store). It is visible to look-ups at once.
    pub async fn create(&self, record: Record) -> Result<PartialWriter, StoreError> {
        unimplemented!()
    }
    /// Takes up a partial that nobody is writing; `None` when it has a writer or is gone.
    pub async fn resume(&self, entry: &Arc<Entry>) -> Option<PartialWriter> {
        unimplemented!()
    }
    /// Replaces what is known of a stored response, its body stays (RFC 9111 section 4.3.4).
    pub fn update(&self, entry: &Arc<Entry>, record: Record) -> Arc<Entry> {
        unimplemented!()
    }
    /// Forgets a stored response; a partial body is deleted, a blob stays for other keys until eviction.
    pub fn remove(&self, entry: &Arc<Entry>) {
        unimplemented!()
    }
    /// Use of each drive, for admin and start-up.
    pub fn usage(&self) -> Vec<DriveUsage> {
        unimplemented!()
    }
    /// Commits everything that is visible but not yet durable, partials included.
    pub async fn flush(&self) {
        unimplemented!()
    }
}

#[derive(Debug, Clone)]
pub struct DriveUsage {
    pub path: std::path::PathBuf,
    pub quota: u64,
    pub used: u64,
    pub blobs: u64,
    pub in_service: bool,
}

/// A readable body, complete or still being filled. Cheap to clone.
#[derive(Clone)]
pub enum Body {
    Memory(Bytes),
    Blob(Arc<Blob>),
    Partial(Arc<Partial>),
}

impl Body {
    /// Complete length in bytes, when it is known.
    pub fn length(&self) -> Option<u64> {
        unimplemented!()
    }
    /// The digest of the complete body, when it is known.
    pub fn digest(&self) -> Option<Digest> {
        unimplemented!()
    }
    /// End of the run of present bytes that contains `offset`; `offset` itself when it is absent.
    pub fn present_until(&self, offset: u64) -> u64 {
        unimplemented!()
    }
    /// Reads from `offset`, at least one and at most `max` bytes, not beyond the present run. Bytes at rest are
    /// verified before they are returned for the first time.
    pub async fn read(&self, offset: u64, max: usize) -> Result<Bytes, ReadError> {
        unimplemented!()
    }
}

/// A complete blob.
pub struct Blob {}

/// A body that is not complete. It stays readable through this handle after it became a blob.
pub struct Partial {}

/// What a reader learns when it waits for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Bytes are present from the offset asked up to this position.
    Present(u64),
    /// The body ended, at this length, at or before the offset asked.
    Ended(u64),
    /// Nobody is writing now, and the bytes are absent.
    Stopped,
}

impl Partial {
    /// Resolves as soon as the byte at `offset` is present, or the body ended, or the writer stopped.
    pub async fn wait(&self, offset: u64) -> Progress {
        unimplemented!()
    }
    pub fn is_complete(&self) -> bool {
        unimplemented!()
    }
    pub fn has_writer(&self) -> bool {
        unimplemented!()
    }
    /// Number of bytes present.
    pub fn present_total(&self) -> u64 {
        unimplemented!()
    }
}

/// The one writer of a partial body. Dropped before [`PartialWriter::complete`], the body stays partial.
pub struct PartialWriter {}

/// A completed body.
pub struct Completed {
    pub entry: Arc<Entry>,
    pub digest: Digest,
    /// The same content was stored already; the copy was dropped.
    pub duplicate: bool,
}

impl PartialWriter {
    pub fn entry(&self) -> &Arc<Entry> {
        unimplemented!()
    }
    pub fn partial(&self) -> &Arc<Partial> {
        unimplemented!()
    }
    /// First absent byte.
    pub fn contiguous(&self) -> u64 {
        unimplemented!()
    }
    /// Writes `data` at `offset` (a block's begin or its valid length). Readers see it when this returns.
    pub async fn write(&mut self, offset: u64, data: Vec<Bytes>) -> Result<(), StoreError> {
        unimplemented!()
    }
    /// Checks length and digest, makes the blob visible at once and durable with the next group commit.
    /// `length` is the final one for a body of unknown length.
    pub async fn complete(self, length: u64) -> Result<Completed, CompleteError> {
        unimplemented!()
    }
    /// Deletes the partial body and forgets its record.
    pub async fn discard(self) {
        unimplemented!()
    }
}
