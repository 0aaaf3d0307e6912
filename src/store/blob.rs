//! [`Blob`]: an open complete body, and which of its blocks were checked.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::block_sums::BlockSums;
use super::buffers;
use super::checked::Checked;
use super::disk::{self, FileIdentity};
use super::drive::{DataFile, Drive};
use super::error::ReadError;
use super::inner::Inner;
use crate::content::{ByteRange, Digest};

/// What is read ahead or dropped comes and goes in runs of about this many bytes.
pub(super) const RUN: usize = 256 * 1024;
/// Longest block that is compared without a thread of the drive, in bytes: it takes no longer than to send as much.
const CHECKED_AT_ONCE: u64 = 256 * 1024;

/// Whether a digest is still stored. Shared by the entries that point to it and by its open blob, so that all of
/// them are missing at once when the blob goes.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) digest: Digest,
    gone: AtomicBool,
    /// In which sweep of the evictions it was asked for last, plus 1.
    asked: AtomicU64,
    /// The open blob: there is one at most.
    blob: Mutex<Weak<Blob>>,
    /// What is known of it, open or not, once it was open.
    facts: OnceLock<Arc<Facts>>,
}

/// What stays known of a blob when its file is closed.
pub(super) struct Facts {
    pub(super) sums: BlockSums,
    pub(super) drive: Arc<Drive>,
    checked: Checked,
    /// What the drive counts for it, in bytes.
    counted: AtomicU64,
    /// Blocks that were found not to hold and are not mended yet.
    broken: Mutex<BTreeSet<u64>>,
}

/// A complete blob.
pub struct Blob {
    life: Arc<Life>,
    facts: Arc<Facts>,
    file: Arc<DataFile>,
    /// Of the file when it was opened.
    identity: FileIdentity,
    store: Weak<Inner>,
    /// Whether the file is the one under the digest's name: not so for a dropped duplicate that is still read.
    named: bool,
}

impl Life {
    pub(super) fn new(digest: Digest) -> Self {
        Self {
            digest,
            gone: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            blob: Mutex::default(),
            facts: OnceLock::new(),
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    pub(super) fn end(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// Notes that it was asked for in this sweep; `false` when that is known.
    pub(super) fn ask(&self, sweep: u64) -> bool {
        let mark = sweep.wrapping_add(1);
        // Looked at first, so that a body that many ask for is not written to by all of them.
        self.asked.load(Ordering::Relaxed) != mark && self.asked.swap(mark, Ordering::Relaxed) != mark
    }

    /// What is known of its blob, if that was open before.
    pub(super) fn facts(&self) -> Option<&Arc<Facts>> {
        self.facts.get()
    }

    /// The open blob, if it is open.
    pub(super) fn open_blob(&self) -> Option<Arc<Blob>> {
        self.blob.lock().upgrade()
    }

    /// Makes `blob` the open one, unless there is one already; returns the one that is. What was checked before holds if
    /// it is the same file.
    pub(super) fn set_open(&self, blob: Arc<Blob>) -> Arc<Blob> {
        let mut slot = self.blob.lock();
        if let Some(open) = slot.upgrade() {
            return open;
        }
        blob.facts.checked.bind(blob.identity);
        *slot = Arc::downgrade(&blob);
        blob
    }
}

impl std::fmt::Debug for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Facts").field("length", &self.sums.length()).finish_non_exhaustive()
    }
}

impl Facts {
    /// What the drive counts for it, in bytes.
    pub(super) fn counted(&self) -> u64 {
        self.counted.load(Ordering::Relaxed)
    }

    /// Notes that a block does not hold, or holds again. Says whether that is new.
    pub(super) fn note_broken(&self, block: u64, is_broken: bool) -> bool {
        let mut broken = self.broken.lock();
        if is_broken { broken.insert(block) } else { broken.remove(&block) }
    }

    /// The blocks that are known not to hold.
    pub(super) fn broken(&self) -> Vec<u64> {
        self.broken.lock().iter().copied().collect()
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        self.facts.counted.store(self.file.counted(), Ordering::Relaxed);
    }
}

impl Blob {
    /// Wraps an open file whose blocks need checking, but for those for which `is_checked` says otherwise.
    pub(super) fn new(
        life: Arc<Life>,
        sums: BlockSums,
        file: Arc<DataFile>,
        drive: Arc<Drive>,
        store: Weak<Inner>,
        named: bool,
        is_checked: impl Fn(u64) -> bool,
    ) -> std::io::Result<Self> {
        let identity = disk::identity(file.file())?;
        let count = sums.crcs().len() as u64;
        let checked = Checked::new(count, identity);
        (0..count).filter(|block| is_checked(*block)).for_each(|block| checked.set(block, identity));
        let counted = AtomicU64::new(file.counted());
        let facts = Arc::new(Facts { sums, drive, checked, counted, broken: Mutex::default() });
        if named {
            // It is never there already: who finds facts opens the blob with them.
            let _ = life.facts.set(Arc::clone(&facts));
        }
        Ok(Self { life, facts, file, identity, store, named })
    }

    /// The same with what is known since it was open before: what was checked stays checked if it is the same file.
    pub(super) fn again(
        life: Arc<Life>,
        facts: Arc<Facts>,
        file: Arc<DataFile>,
        store: Weak<Inner>,
    ) -> std::io::Result<Self> {
        let identity = disk::identity(file.file())?;
        Ok(Self { life, facts, file, identity, store, named: true })
    }

    /// Its name.
    pub fn digest(&self) -> Digest {
        self.life.digest
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.facts.sums.length()
    }

    pub(super) fn life(&self) -> &Arc<Life> {
        &self.life
    }

    pub(super) fn sums(&self) -> &BlockSums {
        &self.facts.sums
    }

    pub(super) fn file(&self) -> &Arc<DataFile> {
        &self.file
    }

    pub(super) fn drive(&self) -> &Arc<Drive> {
        &self.facts.drive
    }

    pub(super) fn is_named(&self) -> bool {
        self.named
    }

    /// Whether the kernel has all blocks of `range` in memory, by a look with `has` at some bytes of each which it had not
    /// a second ago.
    pub(super) fn is_resident(&self, range: ByteRange, has: impl Fn(u64) -> bool) -> bool {
        let size = self.facts.sums.block_size();
        (size.block_of(range.start())..=size.block_of(range.last())).all(|block| {
            let look = |block: ByteRange| has(block.last()) && (block.start()..block.last()).step_by(RUN).all(&has);
            self.facts.checked.is_resident(block, || self.facts.sums.block_range(block).is_some_and(look))
        })
    }

    /// Whether all blocks of `range` are checked, and the file is what it was, at which it looks at most each second.
    pub(super) fn is_checked_still(&self, range: ByteRange) -> bool {
        self.look(self.facts.sums.block_size().block_of(range.start())).is_ok() && self.is_checked(range)
    }

    /// Whether all blocks of `range` were checked lately. Asks no kernel.
    pub fn is_checked(&self, range: ByteRange) -> bool {
        let size = self.facts.sums.block_size();
        let last = size.block_of(range.last());
        self.facts.checked.run_from(size.block_of(range.start()), last) > last
    }

    /// What is known of it.
    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The file was written to by us: nothing of it counts as checked, but for what is said to be from here on.
    pub(super) fn rewritten(&self) -> std::io::Result<()> {
        self.facts.checked.bind(disk::identity(self.file.file())?);
        Ok(())
    }

    /// The file was renamed by us: what was checked stays checked.
    pub(super) fn renamed(&self) {
        if let Ok(now) = disk::identity(self.file.file()) {
            self.facts.checked.renamed(now);
        }
    }

    /// As if a second had passed.
    #[cfg(test)]
    pub(super) fn look_again_now(&self) {
        self.facts.checked.look_again_now();
    }

    /// How many of the `max` bytes from `offset` lie in blocks that are checked; 0 when the first one does not. Asks
    /// no disk: at most each second the kernel whether the file is still what it was.
    pub(super) fn checked_len(&self, offset: u64, max: u64) -> Result<u64, ReadError> {
        let wanted = max.max(1).min(self.length().saturating_sub(offset));
        if wanted == 0 {
            return Err(ReadError::Absent { offset });
        }
        let size = self.facts.sums.block_size();
        let block = size.block_of(offset);
        self.look(block)?;
        let until = self.facts.checked.run_from(block, size.block_of(offset + wanted - 1));
        Ok(if until > block { wanted.min(size.begin_of(until) - offset) } else { 0 })
    }

    /// Makes sure that the block of `offset` is checked, and returns how many of the `max` bytes from there are. On
    /// one of the drive's threads.
    pub(super) fn check(&self, offset: u64, max: u64) -> Result<u64, ReadError> {
        let len = self.checked_len(offset, max)?;
        if len > 0 {
            return Ok(len);
        }
        let block = self.facts.sums.block_size().block_of(offset);
        let identity = self.facts.checked.identity();
        let Some(range) = self.facts.sums.block_range(block) else { return Err(ReadError::Absent { offset }) };
        let sum = self.sum(range).map_err(|error| self.unreadable(block, error))?;
        if !self.facts.sums.holds(block, sum) {
            return Err(self.damaged(block));
        }
        self.holds_now(block, identity);
        Ok(max.max(1).min(range.end() - offset))
    }

    /// The same for a block that is short and in the kernel's memory, without waiting for a disk; 0 when it is not.
    pub(super) fn check_now(&self, offset: u64, max: u64) -> Result<u64, ReadError> {
        let block = self.facts.sums.block_size().block_of(offset);
        let range = self.facts.sums.block_range(block).filter(|range| range.len() <= CHECKED_AT_ONCE);
        let Some(range) = range else { return Ok(0) };
        let mut content = buffers::take(usize::try_from(range.len()).unwrap_or(0));
        let is_right = self.compare_now(block, range, &mut content)?;
        Ok(if is_right { max.max(1).min(range.end() - offset) } else { 0 })
    }

    /// The whole of a body of one short block, checked, without waiting for a disk; `None` when that cannot be.
    pub(super) fn read_whole_now(&self) -> Result<Option<Bytes>, ReadError> {
        let whole = self.facts.sums.block_range(0);
        let whole = whole.filter(|whole| whole.len() == self.length() && whole.len() <= CHECKED_AT_ONCE);
        let Some(whole) = whole else { return Ok(None) };
        let mut content = vec![0; usize::try_from(whole.len()).unwrap_or(0)];
        Ok(self.compare_now(0, whole, &mut content)?.then(|| content.into()))
    }

    /// Reads a block into `content` and compares it; `false` when it is not all in the kernel's memory.
    fn compare_now(&self, block: u64, range: ByteRange, content: &mut [u8]) -> Result<bool, ReadError> {
        self.look(block)?;
        let identity = self.facts.checked.identity();
        let read = disk::read_now(self.file.file(), range.start(), content);
        if !read.is_ok_and(|read| read == content.len()) {
            return Ok(false);
        }
        if !self.facts.sums.holds(block, crc32c::crc32c(content)) {
            return Err(self.damaged(block));
        }
        self.holds_now(block, identity);
        Ok(true)
    }

    /// Reads a block from the drive and compares it, whether or not it was checked before. What was not in the kernel's
    /// memory does not stay there.
    pub(super) fn scrub(&self, block: u64, range: ByteRange) -> Result<(), ReadError> {
        let was_resident = disk::read_now(self.file.file(), range.start(), &mut [0]).is_ok();
        let identity = self.facts.checked.identity();
        let read = self.sum(range);
        if !was_resident {
            disk::let_go(self.file.file(), range.start(), range.len());
        }
        if !self.facts.sums.holds(block, read.map_err(|error| self.unreadable(block, error))?) {
            return Err(self.damaged(block));
        }
        self.holds_now(block, identity);
        Ok(())
    }

    /// What the bytes of `range` sum to.
    pub(super) fn sum(&self, range: ByteRange) -> std::io::Result<u32> {
        let mut sum = 0;
        disk::pass_through(self.file.file(), range.start(), range.len(), |piece| {
            sum = crc32c::crc32c_append(sum, piece);
        })?;
        Ok(sum)
    }

    /// Reads on the calling thread, which is one of the drive's. Returns at least one byte; a read that meets a
    /// block that is not checked ends with it.
    pub(super) fn read_at(&self, offset: u64, max: usize) -> Result<Bytes, ReadError> {
        let length = self.length();
        if offset >= length {
            return Err(ReadError::Absent { offset });
        }
        let len = self.checked_len(offset, max as u64)?;
        let block = self.facts.sums.block_size().block_of(offset);
        if len > 0 {
            return Ok(self.pread(block, offset, len)?.into());
        }
        let identity = self.facts.checked.identity();
        let wanted = (max.max(1) as u64).min(length - offset);
        let Some(range) = self.facts.sums.block_range(block) else { return Err(ReadError::Absent { offset }) };
        let content = Bytes::from(self.pread(block, range.start(), range.len())?);
        if !self.facts.sums.verify(block, &content) {
            return Err(self.damaged(block));
        }
        self.holds_now(block, identity);
        let from = (offset - range.start()) as usize;
        let to = content.len().min(from.saturating_add(wanted as usize));
        Ok(content.slice(from..to))
    }

    /// Reads everything, checked.
    pub(super) fn read_whole(&self) -> Result<Bytes, ReadError> {
        let mut content = Vec::with_capacity(usize::try_from(self.length()).unwrap_or(0));
        while (content.len() as u64) < self.length() {
            content.extend_from_slice(&self.read_at(content.len() as u64, usize::MAX)?);
        }
        Ok(content.into())
    }

    /// Looks after the file at most each second; forgets what was checked when it changed or a set time is over.
    fn look(&self, block: u64) -> Result<(), ReadError> {
        let reverify = || self.store.upgrade().map_or(Duration::MAX, |store| store.settings.reverify);
        match self.facts.checked.look(self.file.file(), reverify)? {
            Some(size) if size != self.length() => Err(self.damaged(block)),
            _ => Ok(()),
        }
    }

    fn pread(&self, block: u64, offset: u64, length: u64) -> Result<Vec<u8>, ReadError> {
        let length = usize::try_from(length).map_err(|_| ReadError::Absent { offset })?;
        disk::read_exact_at(self.file.file(), offset, length).map_err(|error| self.unreadable(block, error))
    }

    /// A block could not be read: when that is the medium's fault the block counts as missing.
    pub(super) fn unreadable(&self, block: u64, error: std::io::Error) -> ReadError {
        self.facts.drive.failed("read a blob", &error);
        if disk::is_unreadable(&error) { self.damaged(block) } else { ReadError::Io(error) }
    }

    /// The block was read and found right while the file had `identity`.
    fn holds_now(&self, block: u64, identity: FileIdentity) {
        self.facts.note_broken(block, false);
        self.facts.checked.set(block, identity);
    }

    /// The block counts as missing until it is mended; the others are served.
    pub(super) fn damaged(&self, block: u64) -> ReadError {
        self.facts.checked.clear(block);
        if self.facts.note_broken(block, true) {
            if let Some(store) = self.store.upgrade() {
                store.metrics.damaged_blocks.inc();
            }
            tracing::error!(drive = %self.facts.drive.label(), digest = %self.digest(), block, "damaged block");
        }
        ReadError::Damaged { block }
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blob").field("digest", &self.digest()).field("length", &self.length()).finish_non_exhaustive()
    }
}
