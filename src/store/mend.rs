//! What becomes of a blob with blocks that do not hold: which they are, writing right bytes in their place, and giving
//! the blob up when there are none. Who brings the bytes is not known here.
//!
//! The file is written to in place. Nothing is lost if that is cut off: a block counts only when its CRC-32C holds, and
//! what is written over did not.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use crc32c::crc32c_append;
use sha2::{Digest as _, Sha256};

use super::blob::{Blob, Facts};
use super::entries::{Entry, Target};
use super::error::ReadError;
use super::inner::Inner;
use super::{Store, disk, layout};
use crate::content::{ByteRange, Digest};

/// Most bytes that are looked at for broken blocks behind the first one: they are brought together.
const TOGETHER: u64 = 8 * 1024 * 1024;

/// Bytes of a blob that are read in one job to prove it. Other jobs of the thread come in between: a long blob takes minutes.
const TURN: u64 = if cfg!(test) { 1 } else { 64 * 1024 * 1024 };

/// What became of bytes that were brought for broken blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mended {
    /// They are in place.
    Right,
    /// They are not what was there: nothing was changed.
    Unlike,
    /// Nothing was changed: the block with this index does not hold either, and only with it can the digest tell.
    Next(u64),
}

/// Adjacent blocks that do not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    /// Their bytes.
    pub range: ByteRange,
    /// Bytes of each block but the last of the body.
    pub block_size: u64,
}

/// Bytes for broken blocks: `range` begins and ends with blocks.
#[derive(Debug, Clone)]
pub struct Patch {
    /// Where they belong.
    pub range: ByteRange,
    /// All of them.
    pub bytes: Bytes,
}

/// What a blob will be with patches in place, as far as it was read.
#[derive(Default)]
struct Proof {
    hasher: Sha256,
    /// The block that is read next.
    next: u64,
    /// The first block that does not hold and has no patch.
    broken: Option<u64>,
}

impl Store {
    /// The blocks of `entry`'s blob from `block` on that do not hold, adjacent ones together. `None` when the
    /// block holds after all, since somebody else has mended it.
    ///
    /// # Errors
    /// [`ReadError::Gone`] when the blob is not stored any more, [`ReadError::Io`] when its file cannot be mended: it is
    /// not as long as it was, or cannot be written to.
    pub async fn broken(&self, entry: &Entry, block: u64) -> Result<Option<Broken>, ReadError> {
        let blob = self.blob_of(entry).await?;
        let job = Arc::clone(&blob);
        let range = blob.drive().pool.run(move || job.broken_from(block)).await??;
        let block_size = u64::from(blob.sums().block_size().bytes());
        Ok(range.map(|range| Broken { range, block_size }))
    }

    /// Puts `patches` in place, if the whole has its SHA-256 with them. Nothing less is believed: whoever knows the content can
    /// make other bytes with the same CRC-32C. Where other blocks do not hold either the digest cannot tell before those are
    /// brought as well. Reads the whole blob, so that a long one takes long.
    ///
    /// # Errors
    /// [`ReadError::Gone`] when the blob is not stored any more, [`ReadError::Io`] when the drive fails.
    pub async fn put_right(&self, entry: &Entry, patches: Vec<Patch>) -> Result<Mended, ReadError> {
        let blob = self.blob_of(entry).await?;
        let size = u64::from(blob.sums().block_size().bytes());
        let blocks: u64 = patches.iter().map(|patch| patch.range.len().div_ceil(size)).sum();
        let (patches, mut proof) = (Arc::new(patches), Proof::default());
        let mended = loop {
            let (job, patches) = (Arc::clone(&blob), Arc::clone(&patches));
            // The thread for what takes long: readers do not wait for it.
            let turn = move || job.mend(&patches, &mut proof).map(|mended| (mended, proof));
            match blob.drive().syncs.run(turn).await?? {
                (Some(mended), _) => break mended,
                (None, so_far) => proof = so_far,
            }
        };
        if mended == Mended::Right {
            self.inner.metrics.mended_blocks.inc_by(blocks);
        }
        Ok(mended)
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
        // Of a drive that fails nothing can be said.
        if blob.is_named() && !blob.life().is_gone() && blob.drive().in_service() {
            self.drop_blob(&mut table, blob.drive(), blob.digest(), Some(reason));
        }
    }

    /// A new copy of what is stored has arrived: it has the bytes of the stored one's broken blocks.
    pub(super) fn mend_from(stored: &Blob, copy: &File) {
        each_patch(stored.facts(), copy).for_each(|patch| Self::mend_with(stored, &patch));
    }

    /// The same with some bytes of the copy.
    pub(super) fn mend_with(stored: &Blob, patch: &Patch) {
        let block = stored.sums().block_size().block_of(patch.range.start());
        let mended = if stored.fits(patch) { stored.write_over(patch) } else { Err(ReadError::Damaged { block }) };
        if let Err(error) = mended {
            tracing::warn!(digest = %stored.digest(), block, %error, "a broken block could not be mended");
        }
    }
}

/// Bytes of a copy for the first blocks that do not hold.
pub(super) fn patches(facts: &Facts, copy: &File) -> Vec<Patch> {
    let mut bytes = 0;
    let fits = |patch: &Patch| {
        bytes += patch.range.len();
        bytes <= TOGETHER
    };
    each_patch(facts, copy).take_while(fits).collect()
}

/// Bytes of a copy for each block that does not hold.
fn each_patch<'a>(facts: &'a Facts, copy: &'a File) -> impl Iterator<Item = Patch> + 'a {
    facts.broken().into_iter().filter_map(|block| {
        let range = facts.sums.block_range(block)?;
        let bytes = disk::read_exact_at(copy, range.start(), usize::try_from(range.len()).ok()?);
        let bytes =
            bytes.inspect_err(|error| tracing::warn!(block, %error, "a copy could not be read to mend a block"));
        Some(Patch { range, bytes: bytes.ok()?.into() })
    })
}

impl Blob {
    /// See [`Store::broken`]. On one of the drive's threads.
    fn broken_from(&self, block: u64) -> Result<Option<ByteRange>, ReadError> {
        // Before anything is fetched for it.
        let writable = self.writable()?;
        if disk::identity(&writable)?.size() != self.length() {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
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
        if holds {
            self.facts().note_broken(block, false);
        } else {
            // Whoever reads it next is to look at its sum again.
            let _ = self.damaged(block);
        }
        holds
    }

    /// See [`Store::put_right`]. `None` when it has to go on.
    fn mend(&self, patches: &[Patch], proof: &mut Proof) -> Result<Option<Mended>, ReadError> {
        if proof.next == 0 {
            if !patches.iter().all(|patch| self.fits(patch)) {
                return Ok(Some(Mended::Unlike));
            }
            if let Some(block) = self.known_broken(patches) {
                return Ok(Some(Mended::Next(block)));
            }
        }
        if !self.prove(patches, proof)? {
            return Ok(None);
        }
        if let Some(block) = proof.broken {
            return Ok(Some(Mended::Next(block)));
        }
        if Digest::from_bytes(proof.hasher.finalize_reset().into()) != self.digest() {
            return Ok(Some(Mended::Unlike));
        }
        patches.iter().try_for_each(|patch| self.write_over(patch))?;
        Ok(Some(Mended::Right))
    }

    /// A block that does not hold and has no patch, as is known without reading all.
    fn known_broken(&self, patches: &[Patch]) -> Option<u64> {
        let is_patched = |range: &ByteRange| {
            patches.iter().any(|patch| patch.range.start() <= range.start() && range.end() <= patch.range.end())
        };
        let mut known = self.facts().broken().into_iter();
        known.find(|block| {
            self.sums().block_range(*block).is_some_and(|range| !is_patched(&range) && !self.holds(*block, range))
        })
    }

    /// The blocks of a patch, with the bytes for each.
    fn blocks<'a>(&self, patch: &'a Patch) -> impl Iterator<Item = (u64, &'a [u8])> {
        let size = self.sums().block_size();
        let bytes = usize::try_from(size.bytes()).unwrap_or(usize::MAX);
        (size.block_of(patch.range.start())..).zip(patch.bytes.chunks(bytes))
    }

    /// Whether each block of the patch sums to what it must.
    fn fits(&self, patch: &Patch) -> bool {
        patch.bytes.len() as u64 == patch.range.len()
            && self.sums().block_size().begin_of(self.sums().block_size().block_of(patch.range.start()))
                == patch.range.start()
            && self.blocks(patch).all(|(block, bytes)| self.sums().verify(block, bytes))
    }

    /// Goes on with the digest of the whole as it will be, and says whether that is its end. Each block is summed in the same
    /// pass, so what is read is what is hashed. Behind a block that does not hold the others are looked at all the same: they
    /// are fetched with it.
    fn prove(&self, patches: &[Patch], proof: &mut Proof) -> Result<bool, ReadError> {
        let patched: BTreeMap<u64, &[u8]> = patches.iter().flat_map(|patch| self.blocks(patch)).collect();
        let mut read = 0;
        while read < TURN {
            let block = proof.next;
            let Some(range) = self.sums().block_range(block) else { return Ok(true) };
            proof.next += 1;
            read += range.len();
            if let Some(bytes) = patched.get(&block) {
                proof.hasher.update(bytes);
                continue;
            }
            let mut sum = 0;
            let passed = disk::pass_through(self.file().file(), range.start(), range.len(), |piece| {
                sum = crc32c_append(sum, piece);
                proof.hasher.update(piece);
            });
            let fault = match passed {
                Ok(_) if self.sums().holds(block, sum) => continue,
                Ok(_) => self.damaged(block),
                Err(error) => self.unreadable(block, error),
            };
            // Of a drive that fails in another way nothing is known.
            if !matches!(fault, ReadError::Damaged { .. }) {
                return Err(fault);
            }
            proof.broken.get_or_insert(block);
        }
        Ok(false)
    }

    /// Writes right bytes over broken ones.
    fn write_over(&self, patch: &Patch) -> Result<(), ReadError> {
        let file = self.writable()?;
        disk::write_all_at(&file, std::slice::from_ref(&patch.bytes), patch.range.start())?;
        disk::sync_data(&file)?;
        self.file().recount();
        self.rewritten()?;
        for (block, _) in self.blocks(patch) {
            self.facts().note_broken(block, false);
        }
        Ok(())
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
