//! Reads a drive that no process uses, byte by byte, and says what of it does not hold. Changes nothing: a cache mends
//! what it can when it runs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crc32c::crc32c_append;
use sha2::{Digest as _, Sha256};

use super::block_sums::BlockSums;
use super::disk::{self, Dir};
use super::drive::DriveId;
use super::error::OpenError;
use super::identity::{Identity, take_lock};
use super::journal_entry::JournalEntry;
use super::journal_format::{Frame, Frames};
use super::journal_segment::{SEGMENT_HEADER_LEN, SegmentError, decode_segment_header};
use super::layout::{self, PartialFile};
use super::map_file::{self, DecodedMap};
use crate::content::{ByteRange, Digest};

/// Something that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A blob that the journal names is not there.
    Missing(Digest),
    /// Blocks of a blob do not have their sums, with their indices; they are fetched again when they are asked for.
    Blocks(Digest, Vec<u64>),
    /// All blocks of a blob have their sums, and the whole does not have its digest.
    WrongDigest(Digest),
    /// Blocks of a partial body do not have their sums; they are fetched again.
    Partial(String, Vec<u64>),
    /// A file that should be readable is not.
    Unreadable(String, String),
    /// Bytes of the journal are damaged; what they said is lost.
    Journal(u64, u64, u64),
}

/// What was read of a drive.
#[derive(Debug, Default)]
pub struct Verification {
    /// Complete blobs.
    pub blobs: u64,
    /// Partial bodies.
    pub partials: u64,
    /// Bytes of both.
    pub bytes: u64,
    /// What does not hold.
    pub findings: Vec<Finding>,
}

/// How far it is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progressed {
    /// Bytes read.
    pub done: u64,
    /// Bytes to be read.
    pub all: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(digest) => write!(f, "blob {digest} is missing; it is fetched again when it is asked for"),
            Self::Blocks(digest, blocks) => {
                write!(f, "blob {digest}: damaged blocks {blocks:?}; they are fetched again when they are asked for")
            }
            Self::WrongDigest(digest) => write!(f, "blob {digest}: its bytes do not have this digest"),
            Self::Partial(name, blocks) => write!(f, "partial body {name}: damaged blocks {blocks:?}"),
            Self::Unreadable(name, error) => write!(f, "{name} cannot be read: {error}"),
            Self::Journal(segment, from, to) => {
                write!(f, "journal segment {segment} is damaged from byte {from} to {to}; what it said there is lost")
            }
        }
    }
}

/// Reads the drive in `path`; `progress` is called with each piece.
///
/// # Errors
/// When there is no drive, it cannot be read, or a process uses it.
pub fn verify(path: &Path, progress: impl FnMut(Progressed)) -> Result<Verification, OpenError> {
    Ok(verify_some(path, None, progress)?.1)
}

/// The same of so many of its blobs, chosen by chance, and of no partial body; of all without a number. Also says which drive
/// it is.
pub(super) fn verify_some(
    path: &Path,
    most: Option<usize>,
    mut progress: impl FnMut(Progressed),
) -> Result<(DriveId, Verification), OpenError> {
    let io = |action: &'static str| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, action, source }
    };
    let dir = Dir::open(path).map_err(io("open the directory"))?;
    if dir.stat(layout::IDENTITY).map_err(io("look for waystation.json"))?.is_none() {
        return Err(OpenError::NoDrive { path: path.to_owned() });
    }
    let _lock = take_lock(&dir, path)?;
    let (id, _) = Identity::read(&dir, path)?;
    let mut verification = Verification::default();
    let named = named_blobs(&dir, id.0, &mut verification.findings).map_err(io("read the journal"))?;
    let sums = most.map_or_else(|| named.clone(), |most| some_of(&named, most));
    let partials = match most {
        None => partials(&dir, &mut verification.findings).map_err(io("list the partial bodies"))?,
        Some(_) => Vec::new(),
    };
    let of_partials = partials.iter().map(|(_, map)| map.map.present().total());
    let all = sums.values().map(BlockSums::length).chain(of_partials).sum();
    let mut reading = Reading { dir: &dir, done: 0, all, progress: &mut progress };
    for (digest, sums) in &sums {
        verification.findings.extend(reading.blob(*digest, sums));
    }
    for (name, map) in &partials {
        verification.findings.extend(reading.partial(name, map));
    }
    (verification.blobs, verification.partials) = (sums.len() as u64, partials.len() as u64);
    verification.bytes = reading.done;
    Ok((id, verification))
}

/// So many of the blobs: those that follow a digest chosen by chance.
fn some_of(named: &BTreeMap<Digest, BlockSums>, most: usize) -> BTreeMap<Digest, BlockSums> {
    let mut random = [0; 32];
    // Without randomness it begins at the first one.
    let _ = getrandom::fill(&mut random);
    let start = Digest::from_bytes(random);
    let some = named.range(start..).chain(named.range(..start)).take(most);
    some.map(|(digest, sums)| (*digest, sums.clone())).collect()
}

/// The blobs that the drive's journal names.
fn named_blobs(dir: &Dir, drive: u128, findings: &mut Vec<Finding>) -> std::io::Result<BTreeMap<Digest, BlockSums>> {
    let names = dir.list(layout::JOURNAL)?;
    let mut segments: Vec<u64> = names.iter().filter_map(|name| layout::parse_segment(name)).collect();
    segments.sort_unstable();
    let mut blobs = BTreeMap::new();
    for segment in segments {
        let bytes = match dir.read(&layout::segment(segment)) {
            Ok(bytes) => bytes,
            Err(error) => {
                findings.push(Finding::Unreadable(layout::segment(segment), error.to_string()));
                continue;
            }
        };
        match decode_segment_header(&bytes) {
            Ok(header) if header.drive != drive => continue,
            Err(error @ SegmentError::NewerFormat { .. }) => {
                findings.push(Finding::Unreadable(layout::segment(segment), error.to_string()));
                continue;
            }
            // The frames carry their own checksums.
            Ok(_) | Err(_) => {}
        }
        for frame in Frames::new(&bytes, SEGMENT_HEADER_LEN) {
            match frame {
                Frame::Entry { entry, .. } => note(&mut blobs, entry),
                Frame::Damage { offset, end } => {
                    findings.push(Finding::Journal(segment, offset as u64, end as u64));
                }
            }
        }
    }
    Ok(blobs)
}

fn note(blobs: &mut BTreeMap<Digest, BlockSums>, entry: JournalEntry) {
    match entry {
        JournalEntry::Stored { row, sums: Some(sums), .. } => {
            if let crate::content::BodyRef::Blob(digest) = row.record.body {
                blobs.insert(digest, sums);
            }
        }
        JournalEntry::Blob { digest, sums } => drop(blobs.insert(digest, sums)),
        JournalEntry::BlobGone { digest } => drop(blobs.remove(&digest)),
        JournalEntry::Stored { sums: None, .. }
        | JournalEntry::Updated { .. }
        | JournalEntry::Forgotten { .. }
        | JournalEntry::Superseded { .. } => {}
    }
}

/// The partial bodies whose maps can be read, by the names of their data.
fn partials(dir: &Dir, findings: &mut Vec<Finding>) -> std::io::Result<Vec<(String, DecodedMap)>> {
    let mut found = Vec::new();
    for name in dir.list(layout::PARTIAL)? {
        let Some((id, PartialFile::Map)) = layout::parse_partial(&name) else { continue };
        let map = layout::partial_map(id);
        let decoded = dir.read(&map).map_err(|error| error.to_string());
        match decoded.and_then(|bytes| map_file::decode(&bytes).map_err(|error| error.to_string())) {
            // One whose data was moved to its blob: the journal says whether it is whole.
            Ok(_) if dir.stat(&layout::partial_data(id))?.is_none() => {}
            Ok(decoded) => found.push((layout::partial_data(id), decoded)),
            Err(error) => findings.push(Finding::Unreadable(map, error)),
        }
    }
    Ok(found)
}

struct Reading<'a> {
    dir: &'a Dir,
    done: u64,
    all: u64,
    progress: &'a mut dyn FnMut(Progressed),
}

impl Reading<'_> {
    fn blob(&mut self, digest: Digest, sums: &BlockSums) -> Option<Finding> {
        let name = layout::blob(&digest);
        let file = match self.dir.open_to_read(&name) {
            Ok(file) => file,
            Err(error) => {
                self.advance(sums.length());
                let missing = error.kind() == std::io::ErrorKind::NotFound;
                let unreadable = || Finding::Unreadable(name, error.to_string());
                return Some(if missing { Finding::Missing(digest) } else { unreadable() });
            }
        };
        let mut hasher = Sha256::new();
        let mut broken = Vec::new();
        for block in 0..sums.crcs().len() as u64 {
            let Some(range) = sums.block_range(block) else { break };
            let sum = self.sum(&file, range, |piece| hasher.update(piece));
            if !sum.is_ok_and(|sum| sums.holds(block, sum)) {
                broken.push(block);
            }
        }
        if !broken.is_empty() {
            return Some(Finding::Blocks(digest, broken));
        }
        let longer = disk::identity(&file).is_ok_and(|identity| identity.size() != sums.length());
        let wrong = longer || Digest::from_bytes(hasher.finalize().into()) != digest;
        wrong.then_some(Finding::WrongDigest(digest))
    }

    fn partial(&mut self, name: &str, map: &DecodedMap) -> Option<Finding> {
        let file = match self.dir.open_to_read(name) {
            Ok(file) => file,
            Err(error) => return Some(Finding::Unreadable(name.to_owned(), error.to_string())),
        };
        let size = map.map.block_size();
        let mut broken = Vec::new();
        for record in map.map.records() {
            let begin = size.begin_of(u64::from(record.block));
            let Some(range) = ByteRange::new(begin, begin + u64::from(record.valid_len)) else { continue };
            if !self.sum(&file, range, |_| {}).is_ok_and(|sum| sum == record.crc) {
                broken.push(u64::from(record.block));
            }
        }
        (!broken.is_empty()).then(|| Finding::Partial(name.to_owned(), broken))
    }

    fn sum(&mut self, file: &std::fs::File, range: ByteRange, mut each: impl FnMut(&[u8])) -> std::io::Result<u32> {
        let mut sum = 0;
        let read = disk::pass_through(file, range.start(), range.len(), |piece| {
            sum = crc32c_append(sum, piece);
            each(piece);
        });
        self.advance(range.len());
        read.map(|()| sum)
    }

    fn advance(&mut self, bytes: u64) {
        self.done = self.done.saturating_add(bytes);
        (self.progress)(Progressed { done: self.done, all: self.all });
    }
}
