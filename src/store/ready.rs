//! Which bytes of a partial body may be served as they are, and from which open file. Reading them is `partial`'s
//! business, or the kernel's.

use std::sync::Arc;

use super::blob::Blob;
use super::drive::DataFile;
use super::error::ReadError;
use super::partial::{Partial, Phase, State};

/// Where bytes that are ready to be served lie.
pub(super) enum Ready {
    /// In the file of the partial body, so many of them.
    File(Arc<DataFile>, u64),
    /// In the blob that it has become.
    Blob(Arc<Blob>),
}

impl State {
    /// How many of the `max` bytes from `offset` are present in blocks that count; 0 when the first lies in one that
    /// has to be checked.
    fn present_checked(&self, offset: u64, max: u64) -> Result<u64, ReadError> {
        let end = self.map.present().available_from(offset).min(offset.saturating_add(max.max(1)));
        if end <= offset {
            return Err(ReadError::Absent { offset });
        }
        let size = self.map.block_size();
        if self.unchecked.is_empty() {
            return Ok(end - offset);
        }
        let blocks = size.block_of(offset)..=size.block_of(end - 1);
        let unchecked = blocks.into_iter().find(|block| self.unchecked.contains(block));
        Ok(unchecked.map_or(end, |block| end.min(size.begin_of(block).max(offset))) - offset)
    }
}

impl Partial {
    /// The open file, and how many of the `max` bytes from `offset` are present and may be served as they are. `None`
    /// when a thread of the drive has to look first. Waits for no disk.
    pub(super) fn ready_len(&self, offset: u64, max: u64) -> Result<Option<Ready>, ReadError> {
        let mut state = self.state.lock();
        match &state.phase {
            Phase::Ended(blob) => return Ok(Some(Ready::Blob(Arc::clone(blob)))),
            Phase::Failed if state.lent.strong_count() == 0 => return Err(ReadError::Gone),
            _ => {}
        }
        let file = state.file.clone().or_else(|| state.lent.upgrade());
        if let Some(file) = &file {
            self.look_at(file, &mut state)?;
        }
        let len = state.present_checked(offset, max)?;
        Ok(file.filter(|_| len > 0).map(|file| Ready::File(file, len)))
    }

    /// The same on one of the drive's threads: opens the file and checks the block of `offset` when need be.
    pub(super) fn ready(&self, offset: u64, max: u64) -> Result<Ready, ReadError> {
        if let Some(ready) = self.ready_len(offset, max)? {
            return Ok(ready);
        }
        let block = self.block_of(offset);
        let file = self.file().map_err(|error| self.unreadable(block, error))?;
        let must_check = {
            let mut state = self.state.lock();
            self.look_at(&file, &mut state)?;
            state.present_checked(offset, max)? == 0
        };
        if must_check {
            self.check(block)?;
        }
        let state = self.state.lock();
        match state.present_checked(offset, max)? {
            0 => Err(ReadError::Absent { offset }),
            len => Ok(Ready::File(file, len)),
        }
    }
}
