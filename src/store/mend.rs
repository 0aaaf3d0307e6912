//! What becomes of a blob with blocks that do not hold: which they are, writing right bytes in their place, and giving
//! the blob up when there are none. Who brings the bytes is not known here.
//!
//! The file is written to in place. Nothing is lost if that is cut off: a block counts only when its CRC-32C holds, and
//! what is written over did not.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use crc32c::crc32c;
use sha2::{Digest as _, Sha256};

use super::blob::Blob;
use super::entries::{Entry, Target};
use super::error::ReadError;
use super::inner::Inner;
use super::{Store, disk, layout};
use crate::content::{ByteRange, Digest};

/// Most bytes that are looked at for broken blocks behind the first one: they are brought together.
const TOGETHER: u64 = 8 * 1024 * 1024;

/// What became of bytes that were brought for broken blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mended {
    /// They are in place.
    Right,
    /// They are not what was there: nothing was changed.
    Unlike,
    /// They are in place, and the block with this index does not hold either, so the digest cannot be compared yet.
    Next(u64),
}

/// What the whole of a blob is.
enum Whole {
    Right,
    Broken(u64),
    Wrong,
}

impl Store {
    /// The blocks of `entry`'s blob from `block` on that do not hold, as bytes: adjacent ones together. `None` when the
    /// block holds after all, since somebody else has mended it.
    ///
    /// # Errors
    /// [`ReadError::Gone`] when the blob is not stored any more, [`ReadError::Io`] when the drive fails.
    pub async fn broken(&self, entry: &Entry, block: u64) -> Result<Option<ByteRange>, ReadError> {
        let blob = self.blob_of(entry).await?;
        let job = Arc::clone(&blob);
        blob.drive().pool.run(move || job.broken_from(block)).await?
    }

    /// Puts `bytes` in place of the blocks of `range`, if they sum to what the blocks must sum to. The digest of the whole
    /// is compared anew: before this returns when `at_once`, otherwise afterwards. A blob that does not have it goes into
    /// quarantine.
    ///
    /// # Errors
    /// [`ReadError::Gone`] when the blob is not stored any more, [`ReadError::Io`] when the drive fails.
    pub async fn put_right(
        &self,
        entry: &Entry,
        range: ByteRange,
        bytes: Vec<Bytes>,
        at_once: bool,
    ) -> Result<Mended, ReadError> {
        let blob = self.blob_of(entry).await?;
        let job = Arc::clone(&blob);
        let mended = blob.drive().pool.run(move || job.write_over(range, &bytes)).await??;
        if mended == Mended::Unlike {
            return Ok(mended);
        }
        self.inner.metrics.mended_blocks.inc_by(range.len().div_ceil(u64::from(blob.sums().block_size().bytes())));
        let (job, store) = (Arc::clone(&blob), Arc::clone(&self.inner));
        let compared = blob.drive().pool.run(move || store.compare_whole(&job));
        if !at_once {
            return Ok(mended);
        }
        Ok(match compared.await? {
            Whole::Right => Mended::Right,
            Whole::Broken(block) => Mended::Next(block),
            Whole::Wrong => Mended::Unlike,
        })
    }

    /// Nobody has the bytes of `entry`'s blob any more: it goes into quarantine, and everything that points to it is
    /// missing.
    ///
    /// # Errors
    /// [`ReadError::Gone`] when it went already.
    pub async fn give_up(&self, entry: &Entry, reason: String) -> Result<(), ReadError> {
        let blob = self.blob_of(entry).await?;
        self.inner.give_up_blob(&blob, reason);
        Ok(())
    }

    async fn blob_of(&self, entry: &Entry) -> Result<Arc<Blob>, ReadError> {
        match &entry.target {
            Target::Blob(life) if !life.is_gone() => self.open_file(life).await,
            Target::Blob(_) | Target::Partial(_) => Err(ReadError::Gone),
        }
    }
}

impl Inner {
    /// The blob is not what it should be: aside with it.
    pub(super) fn give_up_blob(&self, blob: &Blob, reason: String) {
        tracing::error!(drive = %blob.drive().label(), digest = %blob.digest(), reason, "a blob is given up");
        let mut table = self.entries.lock();
        if blob.is_named() && !blob.life().is_gone() {
            self.drop_blob(&mut table, blob.drive(), blob.digest(), Some(reason));
        }
    }

    /// Compares the digest of the whole, once no block is known to be broken. A blob that does not have it goes into
    /// quarantine.
    fn compare_whole(&self, blob: &Blob) -> Whole {
        if let Some(block) = blob.facts().broken().first() {
            return Whole::Broken(*block);
        }
        let mut hasher = Sha256::new();
        let read = disk::pass_through(blob.file().file(), 0, blob.length(), |piece| hasher.update(piece));
        if read.is_ok() && Digest::from_bytes(hasher.finalize().into()) == blob.digest() {
            return Whole::Right;
        }
        // A block may be broken that nobody has looked at yet.
        let count = blob.sums().crcs().len() as u64;
        let holds = |block: &u64| blob.sums().block_range(*block).is_none_or(|range| blob.holds(*block, range));
        if let Some(block) = (0..count).find(|block| !holds(block)) {
            return Whole::Broken(block);
        }
        self.give_up_blob(blob, "its bytes do not have its digest, although each block has its CRC-32C".to_owned());
        Whole::Wrong
    }

    /// A new copy of what is stored has arrived: it has the bytes of the stored one's broken blocks.
    pub(super) fn mend_from(stored: &Blob, copy: &File) {
        for block in stored.facts().broken() {
            let Some(range) = stored.sums().block_range(block) else { continue };
            let Ok(length) = usize::try_from(range.len()) else { continue };
            let bytes = disk::read_exact_at(copy, range.start(), length);
            let mended = bytes.map_err(ReadError::from).and_then(|bytes| stored.write_over(range, &[bytes.into()]));
            if let Err(error) = mended {
                tracing::warn!(digest = %stored.digest(), block, %error, "a broken block could not be mended");
            }
        }
    }
}

impl Blob {
    /// See [`Store::broken`]. On one of the drive's threads.
    fn broken_from(&self, block: u64) -> Result<Option<ByteRange>, ReadError> {
        if disk::identity(self.file().file())?.size() != self.length() {
            // Cut short, or grown: each block tells for itself once the length is right.
            disk::set_length(&self.writable()?, self.length())?;
            self.rewritten()?;
        }
        let mut broken: Option<ByteRange> = None;
        for index in block.. {
            let Some(range) = self.sums().block_range(index) else { break };
            let is_far = broken.is_some_and(|first| range.end() - first.start() > TOGETHER);
            if is_far || self.holds(index, range) {
                break;
            }
            let start = broken.map_or(range.start(), |first| first.start());
            broken = ByteRange::new(start, range.end());
        }
        Ok(broken)
    }

    /// Reads a block and says whether it sums to what it must; one that cannot be read does not.
    fn holds(&self, block: u64, range: ByteRange) -> bool {
        let holds = self.sum(range).is_ok_and(|sum| self.sums().holds(block, sum));
        self.facts().note_broken(block, !holds);
        holds
    }

    /// Writes right bytes over broken ones; `range` begins and ends with blocks. On one of the drive's threads.
    fn write_over(&self, range: ByteRange, bytes: &[Bytes]) -> Result<Mended, ReadError> {
        let bytes = bytes.concat();
        let size = self.sums().block_size();
        let blocks = || size.block_of(range.start())..=size.block_of(range.last());
        let mut rest = &bytes[..];
        for block in blocks() {
            let length = self.sums().block_range(block).map_or(0, |range| range.len());
            let piece = rest.split_at_checked(usize::try_from(length).unwrap_or(usize::MAX));
            let Some((piece, behind)) = piece.filter(|(piece, _)| self.sums().holds(block, crc32c(piece))) else {
                return Ok(Mended::Unlike);
            };
            rest = behind;
            debug_assert_eq!(piece.len() as u64, length);
        }
        let file = self.writable()?;
        disk::write_all_at(&file, &[bytes.into()], range.start())?;
        disk::sync_data(&file)?;
        self.file().recount();
        self.rewritten()?;
        for block in blocks() {
            self.facts().note_broken(block, false);
        }
        Ok(Mended::Right)
    }

    /// The file, open to be written to: readers hold one that is not.
    fn writable(&self) -> Result<File, ReadError> {
        let file = self.drive().dir.open_file(&layout::blob(&self.digest()));
        let file = file.inspect_err(|error| self.drive().failed("open a blob to mend it", error))?;
        // The name may be another file's meanwhile.
        let same = disk::identity(&file)?.same_inode(&disk::identity(self.file().file())?);
        if same { Ok(file) } else { Err(ReadError::Gone) }
    }
}
