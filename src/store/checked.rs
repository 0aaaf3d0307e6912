//! [`Checked`]: which blocks of an open file were compared with their sums, for as long as the file does not change.
//! Asking takes no lock; comparing is the blob's business.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::disk::{self, FileIdentity};

/// How long a file is believed not to have changed, in milliseconds.
const LOOK_AGAIN: u64 = 1000;

/// How long pages that were in memory are taken to be there, in tenths of a second.
const STAYS: u32 = 10;

/// A bitmap that is bound to the identity of a file.
#[derive(Debug)]
pub(super) struct Checked {
    bits: Words<AtomicU64>,
    made: Instant,
    /// When the file has to be looked at again, in milliseconds after `made`.
    due: AtomicU64,
    /// Until when the pages of each block are believed to be in memory, in tenths of a second after `made`.
    resident: Words<AtomicU32>,
    bound: Mutex<Bound>,
}

/// One or more. Most bodies are short: what is known of their only block is not another place in memory.
#[derive(Debug)]
struct Words<T> {
    first: T,
    others: Box<[T]>,
}

#[derive(Debug, Clone, Copy)]
struct Bound {
    identity: FileIdentity,
    /// Since when nothing was forgotten.
    since: Instant,
}

impl Checked {
    /// For `count` blocks of a file that was just looked at.
    pub(super) fn new(count: u64, identity: FileIdentity) -> Self {
        let now = Instant::now();
        Self {
            bits: Words::new(count.div_ceil(64)),
            made: now,
            due: AtomicU64::new(LOOK_AGAIN),
            resident: Words::new(count),
            bound: Mutex::new(Bound { identity, since: now }),
        }
    }

    /// Looks at the file when that was not done for a second; forgets everything when it changed or `reverify` is
    /// over. Returns its size when it was looked at.
    pub(super) fn look(&self, file: &File, reverify: impl FnOnce() -> Duration) -> io::Result<Option<u64>> {
        if self.now() < self.due.load(Ordering::Acquire) {
            return Ok(None);
        }
        let identity = disk::identity(file)?;
        let mut bound = self.bound.lock();
        if identity != bound.identity || bound.since.elapsed() >= reverify() {
            self.bits.iter().for_each(|word| word.store(0, Ordering::Release));
            bound.since = Instant::now();
        }
        bound.identity = identity;
        self.due.store(self.now().saturating_add(LOOK_AGAIN), Ordering::Release);
        Ok(Some(identity.size()))
    }

    /// Whether the pages of `block` are in memory, by a `look` at most each second while they are.
    pub(super) fn is_resident(&self, block: u64, look: impl FnOnce() -> bool) -> bool {
        let Some(until) = self.resident.get(block) else { return false };
        let now = u32::try_from(self.now() / 100).unwrap_or(u32::MAX);
        if now < until.load(Ordering::Relaxed) {
            return true;
        }
        let seen = look();
        if seen {
            until.store(now.saturating_add(STAYS), Ordering::Relaxed);
        }
        seen
    }

    /// What the bitmap is bound to.
    pub(super) fn identity(&self) -> FileIdentity {
        self.bound.lock().identity
    }

    /// The file is open again: if it is another one, or has changed, nothing is checked.
    pub(super) fn bind(&self, identity: FileIdentity) {
        let mut bound = self.bound.lock();
        if identity != bound.identity {
            self.bits.iter().for_each(|word| word.store(0, Ordering::Release));
            *bound = Bound { identity, since: Instant::now() };
        }
    }

    /// The file was renamed by us.
    pub(super) fn renamed(&self, now: FileIdentity) {
        let mut bound = self.bound.lock();
        if bound.identity.same_file(&now) {
            bound.identity = now;
        }
    }

    /// A block was read and found right while the file had `identity`.
    pub(super) fn set(&self, block: u64, identity: FileIdentity) {
        let bound = self.bound.lock();
        if let Some(word) = self.word(block).filter(|_| bound.identity == identity) {
            word.fetch_or(1 << (block % 64), Ordering::Release);
        }
    }

    /// A block turned out not to hold.
    pub(super) fn clear(&self, block: u64) {
        if let Some(word) = self.word(block) {
            word.fetch_and(!(1 << (block % 64)), Ordering::AcqRel);
        }
    }

    /// The first block from `block` to `last` that is not checked, or the one behind `last`.
    pub(super) fn run_from(&self, block: u64, last: u64) -> u64 {
        (block..=last).find(|block| !self.has(*block)).unwrap_or(last.saturating_add(1))
    }

    /// As if a second had passed.
    #[cfg(test)]
    pub(super) fn look_again_now(&self) {
        self.due.store(0, Ordering::Release);
    }

    fn has(&self, block: u64) -> bool {
        self.word(block).is_some_and(|word| word.load(Ordering::Acquire) & (1 << (block % 64)) != 0)
    }

    fn word(&self, block: u64) -> Option<&AtomicU64> {
        self.bits.get(block / 64)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl<T: Default> Words<T> {
    fn new(count: u64) -> Self {
        Self { first: T::default(), others: (1..count).map(|_| T::default()).collect() }
    }

    fn get(&self, at: u64) -> Option<&T> {
        match at {
            0 => Some(&self.first),
            at => self.others.get(usize::try_from(at - 1).ok()?),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(&self.others)
    }
}
