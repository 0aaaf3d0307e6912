//! [`Window`]: present and checked bytes of an open file, ready to be sent by the kernel; and what becomes of a body
//! whose file does not give them. What is sent to whom is not known here.

use std::fs::File;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::blob::{self, Blob};
use super::buffers;
use super::disk;
use super::drive::{DataFile, Drive};
use super::error::ReadError;
use super::partial::{Partial, Progress};
use crate::content::ByteRange;

/// How much a drive's thread reads ahead at once: a hop to it costs some 20 us, and a disk wants to be asked for much.
const READ_AHEAD: u64 = 1024 * 1024;

/// How long bytes that a file did not give may take to come from elsewhere.
const REPAIR_TIME: Duration = Duration::from_secs(60);

/// A run of bytes of a stored body.
#[derive(Debug, Clone)]
pub struct Window {
    source: Source,
    offset: u64,
    len: u64,
}

/// Keeps the file of a body without a writer open from one window to the next.
pub struct Hold {
    _file: Arc<DataFile>,
}

#[derive(Clone)]
enum Source {
    Blob(Arc<Blob>),
    Partial(Arc<Partial>, Arc<DataFile>),
}

impl Window {
    /// Of a blob; the bytes must be checked.
    pub(super) fn of_blob(blob: Arc<Blob>, offset: u64, len: u64) -> Self {
        Self { source: Source::Blob(blob), offset, len }
    }

    /// Of a partial body with its open file; the bytes must be present and checked.
    pub(super) fn of_partial(partial: Arc<Partial>, file: Arc<DataFile>, offset: u64, len: u64) -> Self {
        Self { source: Source::Partial(partial, file), offset, len }
    }

    /// The file that holds the bytes.
    pub fn file(&self) -> &File {
        match &self.source {
            Source::Blob(blob) => blob.file().file(),
            Source::Partial(_, file) => file.file(),
        }
    }

    /// Where they begin in it, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many they are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Leaves out the first `count` bytes.
    pub fn advance(&mut self, count: u64) {
        let count = count.min(self.len);
        self.offset += count;
        self.len -= count;
    }

    /// Something that keeps the file open as long as the reader goes on; nothing when others do.
    pub fn hold(&self) -> Option<Hold> {
        match &self.source {
            Source::Blob(_) => None,
            Source::Partial(_, file) => Some(Hold { _file: Arc::clone(file) }),
        }
    }

    /// Whether the bytes can be sent now: the kernel has them in memory, by a look at some of them (what is read ahead or
    /// dropped comes and goes in runs), and of a blob they are checked still. Blocks of a blob that were in
    /// memory a second ago are not looked at again. `false` also when it cannot tell.
    pub fn is_ready(&self) -> bool {
        let has = |offset| disk::read_now(self.file(), offset, &mut [0]).is_ok();
        let Some(range) = ByteRange::new(self.offset, self.offset.saturating_add(self.len)) else { return false };
        if let Source::Blob(blob) = &self.source {
            if !blob.is_checked_still(range) {
                return false;
            }
            if blob.is_resident(range, has) {
                return true;
            }
        }
        has(range.last()) && (self.len <= PAGE || (range.start()..range.last()).step_by(blob::RUN).all(has))
    }

    /// Has a thread of the drive check the bytes of a blob if they are not, and read them and some behind them into memory.
    ///
    /// # Errors
    /// As [`Body::read`](super::Body::read).
    pub fn warm(&self) -> impl Future<Output = Result<(), ReadError>> + Send + use<> {
        let window = self.clone();
        let job = move || {
            if let Source::Blob(blob) = &window.source {
                let mut checked = 0;
                while checked < window.len {
                    checked += blob.check(window.offset + checked, window.len - checked)?;
                }
            }
            let end = window.file().metadata()?.len().min(window.offset.saturating_add(READ_AHEAD.max(window.len)));
            let read = disk::pass_through(window.file(), window.offset, end.saturating_sub(window.offset), |_| {});
            read.map_err(|error| window.unreadable(error))
        };
        let read = self.drive().pool.run(job);
        async move { read.await? }
    }

    /// The bytes, if they can be had without waiting for the disk: at least one, at most `max`.
    pub fn read_now(&self, max: usize) -> Option<Bytes> {
        let wanted = max.min(usize::try_from(self.len).unwrap_or(usize::MAX));
        let mut buffer = buffers::take(wanted);
        let read = disk::read_now(self.file(), self.offset, &mut buffer).ok().filter(|read| *read > 0)?;
        buffer.truncate(read);
        Some(buffer.freeze())
    }

    /// The bytes, read by a thread of the drive: at least one, at most `max`.
    ///
    /// # Errors
    /// As [`Body::read`](super::Body::read).
    pub fn read(&self, max: usize) -> impl Future<Output = Result<Bytes, ReadError>> + Send + use<> {
        let window = self.clone();
        let wanted = max.min(usize::try_from(self.len).unwrap_or(usize::MAX));
        let job = move || {
            let mut buffer = buffers::take(wanted);
            let read = disk::read_into(window.file(), window.offset, &mut buffer);
            read.map(|()| buffer.freeze()).map_err(|error| window.unreadable(error))
        };
        let read = self.drive().pool.run(job);
        async move { read.await? }
    }

    /// Tells the store that the file did not give its bytes: the block is missing from now on, or the blob out of
    /// service.
    pub fn failed(&self, error: io::Error) -> ReadError {
        self.unreadable(error)
    }

    /// After [`Window::failed`]: waits until whoever fills the body has brought the bytes anew, and reads them: at least
    /// one, at most `max`.
    ///
    /// # Errors
    /// When nobody fills it, or not in time.
    pub fn repaired(&self, max: usize) -> impl Future<Output = Result<Bytes, ReadError>> + Send + use<> {
        let (source, offset) = (self.source.clone(), self.offset);
        let wanted = max.min(usize::try_from(self.len).unwrap_or(usize::MAX));
        async move {
            let Source::Partial(partial, _) = source else { return Err(ReadError::Gone) };
            match timeout(REPAIR_TIME, partial.wait(offset)).await {
                Ok(Progress::Present(_)) => super::Body::Partial(partial).read(offset, wanted).await,
                Ok(Progress::Ended(_) | Progress::Stopped) | Err(_) => Err(ReadError::Absent { offset }),
            }
        }
    }

    fn drive(&self) -> &Arc<Drive> {
        match &self.source {
            Source::Blob(blob) => blob.drive(),
            Source::Partial(partial, _) => &partial.drive,
        }
    }

    fn unreadable(&self, error: io::Error) -> ReadError {
        match &self.source {
            Source::Blob(blob) => blob.unreadable(blob.sums().block_size().block_of(self.offset), error),
            Source::Partial(partial, _) => partial.unreadable(partial.block_of(self.offset), error),
        }
    }
}

/// Smallest page of the systems that this runs on.
const PAGE: u64 = 4096;

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Blob(blob) => blob.fmt(f),
            Self::Partial(partial, _) => partial.fmt(f),
        }
    }
}
