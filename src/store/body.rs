//! [`Body`]: one way to read a body, wherever it is.

use std::sync::Arc;

use bytes::Bytes;

use super::blob::Blob;
use super::error::ReadError;
use super::partial::Partial;
use crate::content::Digest;

/// A readable body, complete or still being filled. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Body {
    /// A small complete one, in memory and verified.
    Memory(Bytes),
    /// A complete one on a drive.
    Blob(Arc<Blob>),
    /// One that is being filled or waits to be.
    Partial(Arc<Partial>),
}

impl Body {
    /// Complete length in bytes, when it is known.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Memory(bytes) => Some(bytes.len() as u64),
            Self::Blob(blob) => Some(blob.length()),
            Self::Partial(partial) => partial.length(),
        }
    }

    /// The digest of the complete body, when it is known. Of a body in memory it is computed: the record of the
    /// entry tells it for less.
    pub fn digest(&self) -> Option<Digest> {
        match self {
            Self::Memory(bytes) => Some(Digest::of(bytes)),
            Self::Blob(blob) => Some(blob.digest()),
            Self::Partial(partial) => partial.digest(),
        }
    }

    /// End of the run of present bytes that contains `offset`; `offset` itself when it is absent.
    pub fn present_until(&self, offset: u64) -> u64 {
        match self {
            Self::Memory(bytes) => offset.max(bytes.len() as u64),
            Self::Blob(blob) => offset.max(blob.length()),
            Self::Partial(partial) => partial.present_until(offset),
        }
    }

    /// Reads from `offset`, at least one and at most `max` bytes, not beyond the present run. Bytes at rest are
    /// verified before they are returned for the first time.
    ///
    /// # Errors
    /// [`ReadError::Absent`] when the byte at `offset` is not there, [`ReadError::Damaged`] when its block did not
    /// hold (of a partial body it is absent from then on, a blob is out of service), [`ReadError::Gone`] when the
    /// body was removed, [`ReadError::Io`] when the drive fails.
    pub async fn read(&self, offset: u64, max: usize) -> Result<Bytes, ReadError> {
        match self {
            Self::Memory(bytes) => {
                let start = usize::try_from(offset).ok().filter(|start| *start < bytes.len());
                let start = start.ok_or(ReadError::Absent { offset })?;
                Ok(bytes.slice(start..bytes.len().min(start.saturating_add(max.max(1)))))
            }
            Self::Blob(blob) => {
                let job = Arc::clone(blob);
                blob.drive().pool.run(move || job.read_at(offset, max)).await?
            }
            Self::Partial(partial) => {
                let job = Arc::clone(partial);
                partial.drive.pool.run(move || job.read_at(offset, max)).await?
            }
        }
    }
}
