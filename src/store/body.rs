//! [`Body`]: one way to read a body, wherever it is.

use std::sync::Arc;

use bytes::Bytes;

use super::blob::Blob;
use super::error::ReadError;
use super::partial::Partial;
use super::ready::Ready;
use super::window::Window;
use crate::content::Digest;

/// Pieces up to this size in bytes are read at once when they are in the kernel's memory: below it that costs no more
/// than to have the kernel send them.
const READ_AT_ONCE: u64 = 16 * 1024;

/// The next bytes of a body.
#[derive(Debug)]
pub enum Piece {
    /// In memory.
    Bytes(Bytes),
    /// In a file, checked.
    Window(Window),
}

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

impl Piece {
    /// How many bytes it has: at least one.
    #[allow(clippy::len_without_is_empty, reason = "there is no empty one")]
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Window(window) => window.len(),
        }
    }
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

    /// The next bytes from `offset`, at least one and at most `max`, without waiting for a disk; `None` when a thread of
    /// the drive has to look first.
    ///
    /// # Errors
    /// As [`Body::read`].
    pub fn piece_now(&self, offset: u64, max: u64) -> Result<Option<Piece>, ReadError> {
        let max = max.max(1);
        let window = match self {
            Self::Memory(bytes) => {
                let start = usize::try_from(offset).ok().filter(|start| *start < bytes.len());
                let start = start.ok_or(ReadError::Absent { offset })?;
                let end = start.saturating_add(usize::try_from(max).unwrap_or(usize::MAX)).min(bytes.len());
                return Ok(Some(Piece::Bytes(bytes.slice(start..end))));
            }
            Self::Blob(blob) => checked_window(blob, offset, max)?,
            Self::Partial(partial) => match partial.ready_len(offset, max)? {
                Some(Ready::Blob(blob)) => checked_window(&blob, offset, max)?,
                Some(Ready::File(file, len)) => Some(Window::of_partial(Arc::clone(partial), file, offset, len)),
                None => None,
            },
        };
        Ok(match window {
            Some(window) if window.len() <= READ_AT_ONCE => window.read_now(READ_AT_ONCE as usize).map(Piece::Bytes),
            window => window.map(Piece::Window),
        })
    }

    /// The next bytes from `offset`, at least one and at most `max`. Bytes at rest are verified before they are returned
    /// for the first time.
    ///
    /// # Errors
    /// As [`Body::read`].
    pub async fn piece(&self, offset: u64, max: u64) -> Result<Piece, ReadError> {
        if let Some(piece) = self.piece_now(offset, max)? {
            return Ok(piece);
        }
        if max <= READ_AT_ONCE {
            return self.read(offset, max as usize).await.map(Piece::Bytes);
        }
        let window = match self {
            Self::Memory(_) => return Err(ReadError::Absent { offset }),
            Self::Blob(blob) => {
                let job = Arc::clone(blob);
                let checked = blob.drive().pool.run(move || job.check(offset, max));
                Window::of_blob(Arc::clone(blob), offset, checked.await??)
            }
            Self::Partial(partial) => {
                let job = Arc::clone(partial);
                let ready = partial.drive.pool.run(move || match job.ready(offset, max)? {
                    Ready::File(file, len) => Ok::<_, ReadError>(Window::of_partial(job, file, offset, len)),
                    Ready::Blob(blob) => {
                        let len = blob.check(offset, max)?;
                        Ok(Window::of_blob(blob, offset, len))
                    }
                });
                ready.await??
            }
        };
        Ok(Piece::Window(window))
    }
}

fn checked_window(blob: &Arc<Blob>, offset: u64, max: u64) -> Result<Option<Window>, ReadError> {
    let len = match blob.checked_len(offset, max)? {
        0 => blob.check_now(offset, max)?,
        len => len,
    };
    Ok((len > 0).then(|| Window::of_blob(Arc::clone(blob), offset, len)))
}
