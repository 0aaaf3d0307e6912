//! [`Partial`]: a body that is not complete, as its readers see it: which bytes are present, reading them, and
//! waiting for more. Writing is `writer`'s business, the sequence of file operations behind it `fill_file`'s.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::at_rest::AtRest;
use super::blob::Blob;
use super::block_map::{BlockMap, BlockSize};
use super::disk;
use super::drive::{DataFile, Drive};
use super::entries::Entry;
use super::error::ReadError;
use super::fill_file::Core;
use super::inner::Inner;
use super::layout;
use super::map_file::DecodedMap;
use super::ready::Ready;
use crate::content::{ByteRange, Digest, ExpectedDigest, PartialId, RangeSet, UnixMillis};

/// A body that is not complete. It stays readable through this handle after it became a blob.
pub struct Partial {
    id: PartialId,
    pub(super) drive: Arc<Drive>,
    pub(super) store: Weak<Inner>,
    pub(super) state: Mutex<State>,
    /// What only the jobs of the writer touch. Taken before `state`, never while holding it.
    pub(super) core: Mutex<Core>,
    /// Changes whenever a waiter may have something to learn.
    changed: watch::Sender<()>,
}

/// Number of the writer that a new body has.
pub(super) const FIRST_WRITER: u64 = 1;

/// What a reader learns when it waits for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Bytes are present from the offset asked up to this position.
    Present(u64),
    /// The body is complete and verified, with this length, and ends at or before the offset asked.
    Ended(u64),
    /// Nobody is writing now, and the bytes are absent.
    Stopped,
}

/// What readers and the writer share.
pub(super) struct State {
    pub(super) map: BlockMap,
    /// Length of the complete body, when it is known.
    pub(super) length: Option<u64>,
    /// Blocks that an earlier process wrote: they count only when their CRC holds.
    pub(super) unchecked: HashSet<u64>,
    pub(super) at_rest: AtRest,
    /// First byte of the lowest block that was dropped since the hasher looked: what it hashed from there on is
    /// not what will be there.
    pub(super) rehash: Option<u64>,
    pub(super) phase: Phase,
    /// What is on its way: the run that is preallocated does not go beyond.
    pub(super) intended: RangeSet,
    /// Since when another version has its place, if one has: nobody begins to write it then.
    pub(super) superseded: Option<UnixMillis>,
    /// Counts writers, so that a job of a former one changes nothing.
    pub(super) writer: u64,
    /// The newest entry of this body.
    pub(super) entry: Weak<Entry>,
    /// The open data file; closed while nobody writes.
    pub(super) file: Option<Arc<DataFile>>,
    /// The file that readers of a body without a writer share while they read; it outlives its name.
    pub(super) lent: Weak<DataFile>,
    /// Real bytes of the data file while it is closed.
    pub(super) counted: u64,
}

/// Where a body is in its life. It only moves to `Ended` or `Failed`, and stays there.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// Nobody is writing.
    Idle,
    /// There is a writer.
    Writing,
    /// The digest is being made.
    Completing,
    /// It is a blob.
    Ended(Arc<Blob>),
    /// It was discarded, evicted or did not verify.
    Failed,
}

impl State {
    /// Whether all of `range` is absent and begins where its first block's present bytes end.
    pub(super) fn has_place(&self, range: ByteRange) -> bool {
        let size = self.map.block_size();
        let first = size.block_of(range.start());
        let valid = u64::from(self.map.block(first).map_or(0, |known| known.valid_len));
        let begins = size.begin_of(first) + valid == range.start();
        let absent = self.map.present().missing(range) == [range];
        begins && absent && self.length.is_none_or(|length| range.end() <= length)
    }
}

impl Partial {
    /// A new body whose files were just made; its writer is the first one.
    pub(super) fn created(
        id: PartialId,
        drive: Arc<Drive>,
        store: Weak<Inner>,
        block_size: BlockSize,
        length: Option<u64>,
        file: DataFile,
        core: Core,
    ) -> Arc<Self> {
        let state = State {
            map: BlockMap::new(block_size),
            length,
            unchecked: HashSet::new(),
            at_rest: AtRest::new(),
            rehash: None,
            intended: RangeSet::new(),
            phase: Phase::Writing,
            superseded: None,
            writer: FIRST_WRITER,
            entry: Weak::new(),
            counted: 0,
            file: Some(Arc::new(file)),
            lent: Weak::new(),
        };
        Self::with(id, drive, store, state, core)
    }

    /// A body that an earlier process left.
    pub(super) fn found(
        id: PartialId,
        drive: Arc<Drive>,
        store: Weak<Inner>,
        decoded: &DecodedMap,
        counted: u64,
    ) -> Arc<Self> {
        let state = State {
            map: decoded.map.clone(),
            length: decoded.record.length,
            unchecked: decoded.map.records().map(|record| u64::from(record.block)).collect(),
            at_rest: AtRest::new(),
            rehash: None,
            intended: RangeSet::new(),
            phase: Phase::Idle,
            superseded: decoded.superseded,
            writer: 0,
            entry: Weak::new(),
            counted,
            file: None,
            lent: Weak::new(),
        };
        let partial = Self::with(id, drive, store, state, Core::found(decoded));
        if decoded.has_one_header {
            partial.mend_header(decoded.record.clone());
        }
        partial
    }

    fn with(id: PartialId, drive: Arc<Drive>, store: Weak<Inner>, state: State, core: Core) -> Arc<Self> {
        let (changed, _) = watch::channel(());
        Arc::new(Self { id, drive, store, state: Mutex::new(state), core: Mutex::new(core), changed })
    }

    /// Its name on the drive.
    pub fn id(&self) -> PartialId {
        self.id
    }

    /// Resolves as soon as the byte at `offset` is present, or the body ended, or the writer stopped. No wake-up
    /// is missed and none is lost when the future is dropped.
    pub async fn wait(&self, offset: u64) -> Progress {
        let mut changed = self.changed.subscribe();
        loop {
            // Looked at after subscribing: what changes from here on wakes.
            if let Some(progress) = self.progress(offset) {
                return progress;
            }
            if changed.changed().await.is_err() {
                return Progress::Stopped;
            }
        }
    }

    fn progress(&self, offset: u64) -> Option<Progress> {
        let state = self.state.lock();
        match &state.phase {
            Phase::Ended(blob) if offset < blob.length() => Some(Progress::Present(blob.length())),
            Phase::Ended(blob) => Some(Progress::Ended(blob.length())),
            Phase::Failed => Some(Progress::Stopped),
            phase => match state.map.present().available_from(offset) {
                end if end > offset => Some(Progress::Present(end)),
                _ if matches!(phase, Phase::Idle) => Some(Progress::Stopped),
                _ => None,
            },
        }
    }

    /// Whether it became a blob.
    pub fn is_complete(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Ended(_))
    }

    /// Whether somebody is writing or completing it.
    pub fn has_writer(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Writing | Phase::Completing)
    }

    /// Number of bytes present.
    pub fn present_total(&self) -> u64 {
        let state = self.state.lock();
        match &state.phase {
            Phase::Ended(blob) => blob.length(),
            Phase::Failed => 0,
            _ => state.map.present().total(),
        }
    }

    /// First absent byte.
    pub fn contiguous(&self) -> u64 {
        self.present_until(0)
    }

    /// The bytes that are present.
    pub fn present(&self) -> RangeSet {
        let state = self.state.lock();
        match &state.phase {
            Phase::Ended(blob) => ByteRange::whole(blob.length()).into_iter().collect(),
            Phase::Failed => RangeSet::new(),
            _ => state.map.present().clone(),
        }
    }

    /// Size of its blocks in bytes: writes begin where a block does or where its present bytes end.
    pub fn block_size(&self) -> u64 {
        u64::from(self.state.lock().map.block_size().bytes())
    }

    /// The absent parts of `range`, in order.
    pub fn missing(&self, range: ByteRange) -> Vec<ByteRange> {
        let state = self.state.lock();
        match &state.phase {
            Phase::Ended(_) => Vec::new(),
            Phase::Failed => vec![range],
            _ => state.map.present().missing(range),
        }
    }

    pub(super) fn block_of(&self, offset: u64) -> u64 {
        self.state.lock().map.block_size().block_of(offset)
    }

    /// Where a write into the block of `offset` has to begin: the block's begin, or the end of what it has.
    pub fn write_position(&self, offset: u64) -> u64 {
        let state = self.state.lock();
        let size = state.map.block_size();
        let block = size.block_of(offset);
        size.begin_of(block) + u64::from(state.map.block(block).map_or(0, |state| state.valid_len))
    }

    /// End of the run of present bytes that contains `offset`; `offset` itself when it is absent.
    pub(super) fn present_until(&self, offset: u64) -> u64 {
        let state = self.state.lock();
        match &state.phase {
            Phase::Ended(blob) => blob.length().max(offset),
            Phase::Failed => offset,
            _ => state.map.present().available_from(offset),
        }
    }

    /// Complete length in bytes, when it is known.
    pub(super) fn length(&self) -> Option<u64> {
        let state = self.state.lock();
        match &state.phase {
            Phase::Ended(blob) => Some(blob.length()),
            _ => state.length,
        }
    }

    /// Whether it is complete and is not what it is expected to be: it was completed before that was known of it. Of
    /// an expectation in another algorithm that is not known.
    pub fn is_unlike(&self, expected: Option<ExpectedDigest>) -> bool {
        let expected = expected.and_then(|expected| expected.digest().sha_256());
        self.digest().zip(expected).is_some_and(|(digest, expected)| digest != expected)
    }

    pub(super) fn digest(&self) -> Option<Digest> {
        match &self.state.lock().phase {
            Phase::Ended(blob) => Some(blob.digest()),
            _ => None,
        }
    }

    pub(super) fn is_failed(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Failed)
    }

    /// Wakes everybody who waits.
    pub(super) fn wake(&self) {
        self.changed.send_replace(());
    }

    /// Reads on the calling thread, which is one of the drive's.
    pub(super) fn read_at(&self, offset: u64, max: usize) -> Result<Bytes, ReadError> {
        let (file, len) = match self.ready(offset, max as u64)? {
            Ready::Blob(blob) => return blob.read_at(offset, max),
            Ready::File(file, len) => (file, len),
        };
        let length = usize::try_from(len).map_err(|_| ReadError::Absent { offset })?;
        let content = disk::read_exact_at(file.file(), offset, length);
        content.map(Bytes::from).map_err(|error| self.unreadable(self.block_of(offset), error))
    }

    pub(super) fn unreadable(&self, block: u64, error: io::Error) -> ReadError {
        if error.kind() == io::ErrorKind::NotFound {
            self.is_missing();
            return ReadError::Gone;
        }
        if disk::is_unreadable(&error) {
            self.drop_block(block, false, "it cannot be read");
            return ReadError::Damaged { block };
        }
        self.drive.failed("read a partial body", &error);
        ReadError::Io(error)
    }

    /// Makes a block absent, unless somebody else did so meanwhile and other bytes came.
    pub(super) fn drop_block(&self, block: u64, was_unchecked: bool, reason: &str) {
        {
            let mut state = self.state.lock();
            let replaced = was_unchecked && !state.unchecked.contains(&block);
            if replaced || matches!(state.phase, Phase::Ended(_) | Phase::Failed) {
                return;
            }
            state.unchecked.remove(&block);
            let begin = state.map.block_size().begin_of(block);
            state.rehash = Some(state.rehash.map_or(begin, |other| other.min(begin)));
            // Not written down: after a restart the CRC says it again.
            state.map.drop_block(block);
        }
        if let Some(store) = self.store.upgrade() {
            store.metrics.damaged_blocks.inc();
        }
        tracing::warn!(partial = %self.id, block, reason, "a block of a partial body is fetched again");
        self.wake();
    }

    /// The data file, opened when need be, and kept open while somebody writes: bodies that wait to be resumed
    /// may be many more than there are descriptors.
    pub(super) fn file(&self) -> io::Result<Arc<DataFile>> {
        let open = |state: &State| state.file.clone().or_else(|| state.lent.upgrade());
        let known = open(&self.state.lock());
        // A name that is free again may be another body's.
        let named = match known {
            Some(_) => None,
            None if self.is_failed() => return Err(io::ErrorKind::NotFound.into()),
            None => Some(self.drive.dir.open_file(&layout::partial_data(self.id))?),
        };
        let mut state = self.state.lock();
        let file = match (open(&state).or(known), named) {
            (Some(file), _) => file,
            (None, Some(file)) => Arc::new(DataFile::new(file, Arc::clone(&self.drive), state.counted)),
            (None, None) => return Err(io::ErrorKind::NotFound.into()),
        };
        state.lent = Arc::downgrade(&file);
        if matches!(state.phase, Phase::Writing | Phase::Completing) {
            state.file = Some(Arc::clone(&file));
        }
        Ok(file)
    }

    /// Real bytes on the drive.
    pub(super) fn counted(&self) -> u64 {
        let state = self.state.lock();
        state.file.as_ref().map_or(state.counted, |file| file.counted())
    }

    /// Takes the body for writing; `None` when it has a writer, ended or is an older version. Returns the writer's number.
    pub(super) fn claim(&self) -> Option<u64> {
        let mut state = self.state.lock();
        if !matches!(state.phase, Phase::Idle) || state.superseded.is_some() {
            return None;
        }
        state.phase = Phase::Writing;
        state.writer += 1;
        Some(state.writer)
    }

    /// Ends it for good, if nobody is writing; or whoever does, when `forced`. Returns its file if it is open. Who reads
    /// what is there of one that nobody wrote reads on: its bytes are not in doubt.
    pub(super) fn fail(&self, forced: bool) -> Option<Option<Arc<DataFile>>> {
        let mut state = self.state.lock();
        let may = match state.phase {
            Phase::Idle => true,
            Phase::Writing | Phase::Completing => forced,
            Phase::Ended(_) | Phase::Failed => false,
        };
        if !may {
            return None;
        }
        let file = state.file.take().or_else(|| state.lent.upgrade());
        if !matches!(state.phase, Phase::Idle) {
            state.lent = Weak::new();
        }
        state.phase = Phase::Failed;
        if let Some(file) = &file {
            state.counted = file.counted();
        }
        drop(state);
        self.wake();
        Some(file)
    }
}

impl std::fmt::Debug for Partial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partial").field("id", &self.id).field("present", &self.present_total()).finish_non_exhaustive()
    }
}
