//! The file operations behind a partial body: what one write, one sync, one resumption and one completion do on
//! the drive. All of it runs on the drive's threads. When they are called is `writer`'s business.
//!
//! Order within a write: bytes, then readers may see them, then the map record (unsynced), then the hash. The map
//! may get ahead of the data on the medium; its CRC then says that the block is not there.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::block_map::{BlockSize, MapRecord};
use super::block_sums::BlockSums;
use super::disk;
use super::drive::{DataFile, Victim};
use super::error::{CompleteError, ReadError, StoreError};
use super::hasher::{Midstate, PrefixHasher};
use super::layout;
use super::map_file::{self, DecodedMap};
use super::partial::{Partial, Phase, State};
use super::wide_hasher::WideHasher;
use crate::content::{AnyDigest, ByteRange, Digest, PartialId, RangeSet, Record};

/// How often what is written is made to last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Data, then map are synced after this many bytes.
    pub(super) sync_bytes: u64,
    /// Or after this time of writing.
    pub(super) sync_time: Duration,
    /// Bytes hashed between two midstates.
    pub(super) midstate_bytes: u64,
}

const PACE: Pace =
    Pace { sync_bytes: 64 * 1024 * 1024, sync_time: Duration::from_secs(5), midstate_bytes: 64 * 1024 * 1024 };
/// Most that is preallocated at a time.
const CLAIM: u64 = 64 * 1024 * 1024;
/// Smaller bodies are not preallocated: one write makes them.
const CLAIM_FROM: u64 = 256 * 1024;

/// What the writer's jobs keep between them.
pub(super) struct Core {
    pub(super) pace: Pace,
    pub(super) map: Option<Arc<File>>,
    /// Where the next record goes; records that could not be written whole are written over.
    pub(super) map_end: u64,
    pub(super) hasher: PrefixHasher,
    /// Set when the source says a SHA-512 of the body and nothing else.
    pub(super) wide: Option<WideHasher>,
    /// The state at the last block's begin that the hasher passed.
    pub(super) boundary: Option<Midstate>,
    /// Position of the last midstate in the map.
    pub(super) saved: u64,
    unsynced: u64,
    synced: Instant,
    /// Whether the names of the two files are durable.
    named: bool,
    /// Runs that were preallocated; several when parts of a body come at once.
    claimed: RangeSet,
}

/// Why a write did not happen.
#[derive(Debug)]
pub(super) enum WriteFailure {
    /// The drive is full; nothing changed, so it may be tried again.
    Full,
    /// Anything else.
    Other(StoreError),
}

/// What a completed body is made of.
pub(super) struct Finished {
    pub(super) digest: Digest,
    /// Set when it is expected.
    pub(super) sha_512: Option<AnyDigest>,
    pub(super) sums: BlockSums,
    pub(super) file: Arc<DataFile>,
    /// The map, when progress of the body is durable: it must say what became of the body before the data moves.
    pub(super) map: Option<Arc<File>>,
    /// Blocks whose bytes this process neither wrote nor checked.
    pub(super) unchecked: std::collections::HashSet<u64>,
}

/// A hasher for what the source says of a body.
fn wide_of(record: &Record) -> Option<WideHasher> {
    matches!(record.expected.map(|expected| expected.digest()), Some(AnyDigest::Sha512(_))).then(WideHasher::default)
}

impl Core {
    /// Makes the files of a new body.
    pub(super) fn create(dir: &disk::Dir, id: PartialId, record: &Record, size: BlockSize) -> io::Result<(Self, File)> {
        let header = map_file::encode_begin(record, size);
        let make = || -> io::Result<(File, File)> {
            let map = dir.create_file(&layout::partial_map(id))?;
            disk::write_at(&map, &header, 0)?;
            Ok((map, dir.create_file(&layout::partial_data(id))?))
        };
        let made = make();
        if made.is_err() {
            // Best effort; a map without data is removed at the next start.
            let _ = dir.unlink(&layout::partial_map(id));
        }
        let (map, data) = made?;
        let closed = Self::closed(header.len() as u64, PrefixHasher::new());
        Ok((Self { map: Some(Arc::new(map)), wide: wide_of(record), ..closed }, data))
    }

    /// Of a body that an earlier process left.
    pub(super) fn found(decoded: &DecodedMap) -> Self {
        let midstate = decoded.midstate;
        let hasher = midstate.as_ref().and_then(PrefixHasher::resume).unwrap_or_default();
        let saved = hasher.position();
        // Aligned upwards, since the header's padding may be cut off.
        let end = (decoded.records_end as u64).next_multiple_of(16);
        let wide = wide_of(&decoded.record);
        Self { boundary: midstate, wide, saved, named: true, ..Self::closed(end, hasher) }
    }

    fn closed(map_end: u64, hasher: PrefixHasher) -> Self {
        Self {
            pace: PACE,
            map: None,
            map_end,
            hasher,
            wide: None,
            boundary: None,
            saved: 0,
            unsynced: 0,
            synced: Instant::now(),
            named: false,
            claimed: RangeSet::new(),
        }
    }

    /// Number of bytes hashed.
    #[cfg(test)]
    pub(super) fn hashed(&self) -> u64 {
        self.hasher.position()
    }

    fn append_bytes(&mut self, partial: &Partial, bytes: &[u8]) {
        let Some(map) = &self.map else { return };
        // A record that is lost costs a re-fetch after a restart, nothing now.
        match disk::write_at(map, bytes, self.map_end) {
            Ok(()) => self.map_end += bytes.len() as u64,
            Err(error) => partial.drive.failed("append to a block map", &error),
        }
    }

    fn hash(&mut self, size: BlockSize, data: &[u8]) {
        let position = self.hasher.position();
        self.wide.iter_mut().for_each(|wide| wide.follow(position, data));
        let mut rest = data;
        while !rest.is_empty() {
            let position = self.hasher.position();
            let to_boundary = size.begin_of(size.block_of(position) + 1) - position;
            let (piece, later) = rest.split_at(rest.len().min(usize::try_from(to_boundary).unwrap_or(usize::MAX)));
            self.hasher.update(piece);
            if piece.len() as u64 == to_boundary {
                self.boundary = self.hasher.midstate();
            }
            rest = later;
        }
    }

    /// Goes back when a block below the hasher's position was dropped.
    fn go_back(&mut self, state: &mut State) {
        let Some(begin) = state.rehash.take() else { return };
        self.wide.iter_mut().for_each(|wide| wide.go_back(begin));
        if self.hasher.position() <= begin {
            return;
        }
        self.boundary = self.boundary.filter(|boundary| boundary.position <= begin);
        self.hasher = self.boundary.as_ref().and_then(PrefixHasher::resume).unwrap_or_default();
        self.saved = self.saved.min(self.hasher.position());
    }

    /// Keeps the newest midstate in the map.
    fn save_midstate(&mut self, partial: &Partial) {
        let bytes = {
            let state = partial.state.lock();
            let boundary = self.boundary.as_ref().filter(|boundary| boundary.position > self.saved);
            match boundary {
                Some(boundary) if state.rehash.is_none() => map_file::encode_midstate(boundary, &state.map),
                _ => None,
            }
        };
        if let Some(bytes) = bytes {
            self.append_bytes(partial, &bytes);
            self.saved = self.boundary.map_or(0, |boundary| boundary.position);
        }
    }
}

impl Partial {
    /// Writes `data` at `offset` for the writer with this number. Says by how many bytes the file has grown, and
    /// whether a sync is due.
    pub(super) fn write_at(&self, writer: u64, offset: u64, data: &[Bytes]) -> Result<(u64, bool), WriteFailure> {
        let mut core = self.core.lock();
        let length: u64 = data.iter().map(|bytes| bytes.len() as u64).sum();
        let misplaced = || WriteFailure::Other(StoreError::Misplaced { offset });
        let end = offset.checked_add(length).filter(|end| i64::try_from(*end).is_ok()).ok_or_else(misplaced)?;
        let Some(range) = ByteRange::new(offset, end) else { return Ok((0, false)) };
        let (size, body_length, run) = {
            let mut state = self.state.lock();
            if !matches!(state.phase, Phase::Writing) || state.writer != writer {
                let gone = io::Error::other("the body has no writer any more");
                return Err(WriteFailure::Other(StoreError::Io(gone)));
            }
            if !state.has_place(range) {
                return Err(misplaced());
            }
            state.at_rest.is_written();
            (state.map.block_size(), state.length, state.intended.available_from(offset))
        };
        let file = self.file().map_err(|error| self.write_failed(error))?;
        if let Some(length) = body_length.filter(|length| *length > CLAIM_FROM) {
            let claimed = core.claimed.covers(range);
            let claim = ByteRange::new(offset, length.min(run).min(offset.saturating_add(CLAIM)).max(end));
            if let Some(claim) = claim.filter(|_| !claimed) {
                match disk::preallocate(file.file(), claim.start(), claim.len()) {
                    // Where there is no room for the whole run there may be for these bytes: the write tells.
                    Err(error) if !disk::is_full(&error) => return Err(self.write_failed(error)),
                    Ok(()) | Err(_) => core.claimed.insert(claim),
                }
            }
        }
        disk::write_all_at(file.file(), data, offset).map_err(|error| self.write_failed(error))?;

        let records = {
            let mut state = self.state.lock();
            let mut records: Vec<MapRecord> = Vec::new();
            let mut at = offset;
            for bytes in data {
                for record in state.map.extend(at, bytes).map_err(|_| misplaced())? {
                    // The last state of a block counts, so one record for each is enough.
                    records.pop_if(|last| last.block == record.block);
                    records.push(record);
                }
                at += bytes.len() as u64;
            }
            records
        };
        self.wake();
        let encoded: Vec<u8> = records.iter().flat_map(MapRecord::encode).collect();
        core.append_bytes(self, &encoded);
        core.go_back(&mut self.state.lock());
        if core.hasher.position() == offset {
            data.iter().for_each(|bytes| core.hash(size, bytes));
        }
        // What fails to be hashed now is hashed at completion, or was dropped and is fetched again.
        let _ = self.advance(&mut core);
        core.unsynced += length;
        if core.boundary.is_some_and(|boundary| boundary.position >= core.saved + core.pace.midstate_bytes) {
            core.save_midstate(self);
        }
        let due = core.unsynced >= core.pace.sync_bytes || core.synced.elapsed() >= core.pace.sync_time;
        if due {
            core.unsynced = 0;
            core.synced = Instant::now();
        }
        Ok((file.recount(), due))
    }

    fn write_failed(&self, error: io::Error) -> WriteFailure {
        self.drive.failed("write a partial body", &error);
        if disk::is_full(&error) { WriteFailure::Full } else { WriteFailure::Other(StoreError::Io(error)) }
    }

    /// Hashes what is contiguous behind the hasher.
    pub(super) fn advance(&self, core: &mut Core) -> Result<(), ReadError> {
        loop {
            core.go_back(&mut self.state.lock());
            if !self.pass_present(core.hasher.position(), |size, bytes| core.hash(size, bytes))? {
                return Ok(());
            }
        }
    }

    /// Gives what is present from `position` on of its block to `each`, from the page cache; checked, if an earlier process
    /// wrote it. Says whether anything is; after an error `each` may have had some of it.
    pub(super) fn pass_present(
        &self,
        position: u64,
        mut each: impl FnMut(BlockSize, &[u8]),
    ) -> Result<bool, ReadError> {
        let (size, valid_end, unchecked) = {
            let state = self.state.lock();
            let size = state.map.block_size();
            let block = size.block_of(position);
            let valid = u64::from(state.map.block(block).map_or(0, |known| known.valid_len));
            (size, size.begin_of(block) + valid, state.unchecked.contains(&block))
        };
        let Some(wanted) = ByteRange::new(position, valid_end) else { return Ok(false) };
        if !unchecked {
            disk::pass_through(self.file()?.file(), position, wanted.len(), |bytes| each(size, bytes))?;
            return Ok(true);
        }
        let block = size.block_of(position);
        let content = self.check(block)?;
        let from = usize::try_from(position - size.begin_of(block)).unwrap_or(usize::MAX);
        let bytes = content.get(from..).filter(|bytes| !bytes.is_empty());
        each(size, bytes.ok_or(ReadError::Absent { offset: position })?);
        Ok(true)
    }

    /// Makes what was written so far durable: data, then map.
    pub(super) fn sync(&self) -> io::Result<()> {
        let (map, data, named) = {
            let mut core = self.core.lock();
            core.save_midstate(self);
            core.unsynced = 0;
            core.synced = Instant::now();
            (core.map.clone(), self.state.lock().file.clone(), core.named)
        };
        if let Some(data) = data {
            // After an error nobody knows what the medium has, and the next sync would say that all is well.
            disk::sync_data(data.file()).inspect_err(|_| self.state.lock().distrust())?;
        }
        if let Some(map) = map {
            disk::sync_data(&map)?;
        }
        if !named {
            self.drive.dir.sync_directory(layout::PARTIAL)?;
            self.core.lock().named = true;
        }
        Ok(())
    }

    /// The writer is gone: syncs and closes the files, unless somebody took over meanwhile.
    pub(super) fn close(&self) -> io::Result<()> {
        let synced = self.sync();
        let mut core = self.core.lock();
        let file = {
            let mut state = self.state.lock();
            if !matches!(state.phase, Phase::Idle) {
                return synced;
            }
            // Nobody watches the file from here on.
            state.distrust();
            state.file.take()
        };
        core.map = None;
        core.claimed = RangeSet::new();
        if let Some(file) = file {
            // Cutting it at its own length gives back what was preallocated behind its end.
            let length = disk::identity(file.file()).map(|identity| identity.size());
            if let Err(error) = length.and_then(|length| disk::set_length(file.file(), length)) {
                self.drive.failed("give back preallocated blocks", &error);
            }
            file.recount();
            self.state.lock().counted = file.counted();
            self.drive.sieve.lock().resize(&Victim::partial(self.id()), file.counted());
        }
        synced
    }

    /// Opens the files for a new writer and hashes up to the first absent byte. A block whose CRC does not hold is
    /// dropped on the way, so that the body may be shorter afterwards.
    pub(super) fn reopen(&self, writer: u64) -> io::Result<()> {
        let mut core = self.core.lock();
        {
            let state = self.state.lock();
            // Gone already, and so is the job that would close the files.
            if !matches!(state.phase, Phase::Writing) || state.writer != writer {
                return Err(io::Error::other("the body has no writer any more"));
            }
        }
        self.file()?;
        if core.map.is_none() {
            let map = self.drive.dir.open_file(&layout::partial_map(self.id()))?;
            disk::set_length(&map, core.map_end)?;
            core.map = Some(Arc::new(map));
        }
        match self.advance(&mut core) {
            Ok(()) | Err(ReadError::Damaged { .. } | ReadError::Absent { .. }) => Ok(()),
            Err(ReadError::Gone) => Err(io::Error::from(io::ErrorKind::NotFound)),
            Err(ReadError::Io(error)) => Err(error),
        }
    }

    /// Hashes the rest, as `expected` is hashed too, and makes sure that exactly `length` bytes are there. The phase becomes
    /// `Completing`.
    pub(super) fn finish(
        &self,
        writer: u64,
        length: u64,
        expected: Option<AnyDigest>,
    ) -> Result<Finished, CompleteError> {
        let mut core = self.core.lock();
        {
            let mut state = self.state.lock();
            if !matches!(state.phase, Phase::Writing) || state.writer != writer {
                return Err(io::Error::other("the body has no writer any more").into());
            }
            state.phase = Phase::Completing;
        }
        let is_wide = matches!(expected, Some(AnyDigest::Sha512(_)));
        let hashed = self.advance(&mut core).and_then(|()| match is_wide {
            true => self.sha_512(&mut core).map(Some),
            false => Ok(None),
        });
        let sha_512 = match hashed {
            Ok(sha_512) => sha_512,
            // What is missing tells why.
            Err(ReadError::Damaged { .. } | ReadError::Absent { .. }) => None,
            Err(ReadError::Gone) => return Err(io::Error::from(io::ErrorKind::NotFound).into()),
            Err(ReadError::Io(error)) => return Err(error.into()),
        };
        let file = self.file()?;
        let (sums, unchecked) = {
            let state = self.state.lock();
            let present = state.map.present().total();
            if present > length {
                let text = format!("{present} bytes are present, more than the final length of {length}");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text).into());
            }
            let Some(sums) = state.map.to_sums(length) else {
                return Err(CompleteError::Short { missing: length - present.min(length) });
            };
            (sums, state.unchecked.clone())
        };
        if core.hasher.position() != length {
            return Err(io::Error::other("the body changed while it was hashed").into());
        }
        // Also gives back what was preallocated beyond the end.
        disk::set_length(file.file(), length)?;
        file.recount();
        let digest = std::mem::take(&mut core.hasher).finish();
        core.boundary = None;
        core.append_bytes(self, &map_file::encode_digest(length, &digest));
        // Readers may hold this body for long.
        let map = core.map.take().filter(|_| core.named);
        Ok(Finished { digest, sha_512, sums, file, map, unchecked })
    }
}
