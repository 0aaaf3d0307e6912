//! Buffers for reads that are used again: a fresh one of 256 KiB costs the kernel more than the read itself.

use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use parking_lot::Mutex;

/// Size of a buffer that is kept. Smaller reads get memory of their own.
const SIZE: usize = 256 * 1024;
/// Smallest read that a kept buffer is worth.
const WORTH: usize = 32 * 1024;
/// Most buffers that wait for use: 4 MiB.
const MOST: usize = 16;

static WAITING: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Room for a read. Given back when it, or the last of the [`Bytes`] made of it, is dropped.
pub(super) struct Buffer {
    memory: Vec<u8>,
    len: usize,
}

/// A buffer of `len` bytes whose content is left from earlier.
pub(super) fn take(len: usize) -> Buffer {
    let kept = if (WORTH..=SIZE).contains(&len) { WAITING.lock().pop() } else { None };
    let size = if (WORTH..=SIZE).contains(&len) { SIZE } else { len };
    Buffer { memory: kept.unwrap_or_else(|| vec![0; size]), len }
}

impl Buffer {
    /// Keeps the first `len` bytes only.
    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The bytes, as they are now.
    pub(super) fn freeze(mut self) -> Bytes {
        if self.memory.len() == SIZE {
            return Bytes::from_owner(self);
        }
        let mut memory = std::mem::take(&mut self.memory);
        memory.truncate(self.len);
        memory.into()
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.get(..self.len).unwrap_or_default()
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(..self.len).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.memory.len() == SIZE {
            let mut waiting = WAITING.lock();
            if waiting.len() < MOST {
                waiting.push(std::mem::take(&mut self.memory));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_as_they_were_frozen_while_buffers_are_used_again() {
        let frozen = |fill: u8, len: usize| {
            let mut buffer = take(len);
            buffer.fill(fill);
            buffer.truncate(len - 1);
            buffer.freeze()
        };
        for len in [2, WORTH, SIZE, SIZE + 1] {
            let (first, second) = (frozen(1, len), frozen(2, len));
            let part = first.slice(1..);
            drop(first);
            let third = frozen(3, len);
            assert!(part.iter().all(|byte| *byte == 1) && part.len() == len - 2);
            assert!(second.iter().all(|byte| *byte == 2) && third.iter().all(|byte| *byte == 3));
        }
    }
}
