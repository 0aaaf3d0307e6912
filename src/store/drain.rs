//! Moves everything from one drive to the others, or removes it, so that the drive can be taken out, while no cache uses
//! them. It can be stopped and run again at any moment: a body is on its new drive, durable and named by the journal there,
//! before the old one forgets it.

mod partial;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::arrival::open_for_tool;
use super::block_sums::BlockSums;
use super::contents::{Contents, Place, RowKey, Stored};
use super::disk::{self, Dir};
use super::drive::Drive;
use super::error::OpenError;
use super::identity::take_lock;
use super::journal::{Journal, segments};
use super::journal_entry::{JournalEntry, Row};
use super::journal_format::{Frame, Frames, encode_frame, is_torn};
use super::journal_segment::{SEGMENT_HEADER_LEN, SegmentError, decode_segment_header};
use super::known_drives::KnownDrives;
use super::layout::{self, PartialFile};
use super::pinning;
use super::settings::Settings;
use super::verify::Progressed;
use crate::clock;
use crate::content::{Digest, PartialId, UnixMillis};
use crate::telemetry::Metrics;

/// Bodies that are made durable together: so many, or so many bytes.
const BATCH: usize = 64;
const BATCH_BYTES: u64 = 64 * 1024 * 1024;

/// What was done to a drive.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Drained {
    /// Complete bodies that went, to other drives or for good.
    pub blobs: u64,
    /// Bodies that are not complete, the same.
    pub partials: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What stayed: its name and why.
    pub left: Vec<(String, String)>,
    /// Bytes of what stayed since no drive had room.
    pub left_bytes: u64,
    /// What else was found: a name and what about it.
    pub told: Vec<(String, String)>,
}

/// A drive with its journal.
struct Side {
    drive: Arc<Drive>,
    journal: Journal,
    contents: Contents,
    /// Parts of its journal that say nothing any more: segment, begin and end.
    damaged: Vec<(u64, usize, usize)>,
}

struct Draining<'a> {
    source: Side,
    targets: Vec<Side>,
    /// The segment that was read last.
    cached: Option<(u64, Vec<u8>)>,
    drained: Drained,
    at: Progressed,
    progress: &'a mut dyn FnMut(Progressed),
}

/// A body that is under its name on its new drive, and not journalled there.
struct Moved {
    digest: Digest,
    target: usize,
    /// `None` when the drive had it.
    sums: Option<BlockSums>,
}

/// Empties the drive at `path`, which must be one of `settings`: its content goes to the others, or for good if `evict`
/// says so. `progress` is called with each body.
///
/// # Errors
/// When a drive cannot be opened or a cache uses it, `path` is none of the configured drives, or its journal cannot be read.
pub fn drain(
    settings: &Settings,
    path: &Path,
    evict: bool,
    progress: &mut dyn FnMut(Progressed),
) -> Result<Drained, OpenError> {
    let io = |action: &'static str| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, action, source }
    };
    // No cache may start meanwhile.
    disk::make_directories(&settings.state).map_err(io("create the state directory"))?;
    let state = Dir::open(&settings.state).map_err(io("open the state directory"))?;
    let _lock = take_lock(&state, &settings.state)?;
    let known = KnownDrives::read(&state, &settings.state);
    let metrics = Metrics::new().map_err(|error| io("start")(io::Error::other(error.to_string())))?;
    let is_source = |other: &Path| std::path::absolute(other).ok() == std::path::absolute(path).ok();
    if !settings.drives.iter().any(|drive| is_source(&drive.path)) {
        return Err(OpenError::NotConfigured { path: path.to_owned() });
    }
    let (mut source, mut targets) = (None, Vec::new());
    for drive in &settings.drives {
        if drive.path.join(layout::IDENTITY).symlink_metadata().is_err() {
            return Err(OpenError::NoDrive { path: drive.path.clone() });
        }
        let side =
            Side::open(open_for_tool(drive, known.of(&drive.path), &metrics)?).map_err(io("read the journal"))?;
        if is_source(&drive.path) { source = Some(side) } else { targets.push(side) }
    }
    let Some(source) = source else { return Err(OpenError::NotConfigured { path: path.to_owned() }) };
    let all = source.contents.blobs().iter().map(|(_, sums)| sums.length()).sum();
    let at = Progressed { done: 0, all };
    let mut draining = Draining { source, targets, cached: None, drained: Drained::default(), at, progress };
    draining.carry_pins();
    let outcome = draining.run(evict).map_err(io("move the content"));
    for side in draining.targets.iter().chain([&draining.source]) {
        side.drive.close();
        side.drive.unlock();
    }
    outcome.map(|()| draining.drained)
}

impl Side {
    fn open(drive: Arc<Drive>) -> io::Result<Self> {
        let segments = segments(&drive)?;
        let (mut contents, mut damaged) = (Contents::default(), Vec::new());
        for segment in &segments {
            let bytes = drive.dir.read(&layout::segment(*segment))?;
            match decode_segment_header(&bytes) {
                Ok(header) if header.drive != drive.id.0 => continue,
                Err(error @ SegmentError::NewerFormat { .. }) => return Err(io::Error::other(error)),
                // The frames carry their own checksums.
                Ok(_) | Err(_) => {}
            }
            let mut frames = Frames::new(&bytes, SEGMENT_HEADER_LEN);
            for frame in frames.by_ref() {
                match frame {
                    Frame::Entry { offset, entry, .. } => contents.apply((*segment, offset), &entry),
                    Frame::Damage { offset, end } => damaged.push((*segment, offset, end)),
                }
            }
            let end = frames.intact_end();
            if bytes.get(end..).is_some_and(|tail| !is_torn(tail)) {
                damaged.push((*segment, end, bytes.len()));
            }
        }
        let names = contents.blobs().into_iter().map(|(digest, _)| layout::blob(&digest)).collect::<Vec<_>>();
        let partials = drive.dir.list(layout::PARTIAL)?.into_iter().map(|name| format!("{}/{name}", layout::PARTIAL));
        for name in names.into_iter().chain(partials) {
            drive.take(drive.dir.stat(&name)?.map_or(0, |stat| disk::stat_allocated(&stat)));
        }
        let journal = Journal::new(Arc::clone(&drive), &segments);
        Ok(Self { drive, journal, contents, damaged })
    }

    /// Says something in the journal, durably.
    fn say(&mut self, entries: &[JournalEntry]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let begin = self.journal.begin_of_next()?;
        self.journal.append(&entries.iter().flat_map(encode_frame).collect::<Vec<u8>>())?;
        // Nobody reads there what was said just now.
        let at = (begin.segment, usize::try_from(begin.offset).unwrap_or(usize::MAX));
        entries.iter().for_each(|entry| self.contents.apply(at, entry));
        Ok(())
    }

    /// Whether a whole file has the blob's name.
    fn has_file(&self, digest: &Digest, length: u64) -> bool {
        let stat = self.drive.dir.stat(&layout::blob(digest)).ok().flatten();
        stat.and_then(|stat| u64::try_from(stat.st_size).ok()) == Some(length)
    }
}

impl Draining<'_> {
    /// Gives the others the pins. They keep content from eviction, and are no reason to keep it from its new drive.
    fn carry_pins(&mut self) {
        for number in 0..self.targets.len() {
            let Some(to) = self.targets.get(number).map(|side| Arc::clone(&side.drive)) else { continue };
            if let Err(error) = pinning::carry(&self.source.drive, &to) {
                self.leave(layout::PINS.to_owned(), format!("not taken over to {}: {error}", to.label()));
            }
        }
    }

    fn run(&mut self, evict: bool) -> io::Result<()> {
        let blobs: Vec<(Digest, BlockSums)> =
            self.source.contents.blobs().into_iter().map(|(digest, sums)| (digest, sums.clone())).collect();
        for batch in blobs.chunks(BATCH).filter(|_| evict) {
            (self.progress)(self.at);
            self.at.done += batch.iter().map(|(_, sums)| sums.length()).sum::<u64>();
            self.forget(&batch.iter().map(|(digest, _)| *digest).collect::<Vec<_>>())?;
        }
        let (mut batch, mut bytes): (Vec<Moved>, u64) = (Vec::new(), 0);
        for (digest, sums) in blobs.into_iter().filter(|_| !evict) {
            (self.progress)(self.at);
            self.at.done += sums.length();
            let length = sums.length();
            if let Some(moved) = self.copy(digest, sums)? {
                bytes += length;
                batch.push(moved);
            }
            if batch.len() >= BATCH || bytes >= BATCH_BYTES {
                self.commit(std::mem::take(&mut batch))?;
                bytes = 0;
            }
        }
        self.commit(batch)?;
        (self.progress)(self.at);
        for name in self.source.drive.dir.list(layout::PARTIAL)? {
            if let Some((id, PartialFile::Map)) = layout::parse_partial(&name) {
                self.partial(id, evict)?;
            }
        }
        self.unnamed(evict)
    }

    fn leave(&mut self, name: String, why: impl Into<String>) {
        self.drained.left.push((name, why.into()));
    }

    /// The other drive with the most room for so many bytes.
    fn target_for(&self, bytes: u64) -> Option<usize> {
        let room = |side: &Side| side.drive.settings.quota.saturating_sub(side.drive.used());
        let fitting = self.targets.iter().enumerate().filter(|(_, side)| side.drive.excess(bytes) == 0);
        fitting.max_by_key(|(_, side)| room(side)).map(|(number, _)| number)
    }

    /// Copies a blob and gives it its name. `None` when it stays, which has been noted.
    fn copy(&mut self, digest: Digest, sums: BlockSums) -> io::Result<Option<Moved>> {
        let name = layout::blob(&digest);
        let is_there = |side: &Side| side.contents.has(&digest) && side.has_file(&digest, sums.length());
        if let Some(target) = self.targets.iter().position(is_there) {
            return Ok(Some(Moved { digest, target, sums: None }));
        }
        let source = match self.source.drive.dir.open_to_read(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Only the journal says that it is there.
                self.forget(&[digest])?;
                return Ok(None);
            }
            Err(error) => {
                self.leave(name, error.to_string());
                return Ok(None);
            }
        };
        let Some(target) = self.target_for(sums.length()) else {
            self.drained.left_bytes += sums.length();
            self.leave(name, "no other drive has room for it");
            return Ok(None);
        };
        let Some(side) = self.targets.get(target) else { return Ok(None) };
        // Without a map it is a leftover, and removed when it is found.
        let id = new_id()?;
        let copied = copy_hashed(&source, &side.drive.dir, &layout::partial_data(id), sums.length());
        let right = match copied {
            Ok((hash, file)) if hash == digest => {
                disk::sync_data(&file)?;
                side.drive.take(disk::allocated(&file)?);
                Ok(())
            }
            Ok(_) => Err("its bytes do not have its digest".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = right {
            side.drive.dir.unlink(&layout::partial_data(id))?;
            self.leave(name, why);
            return Ok(None);
        }
        if side.drive.dir.make_directory(&layout::blob_directory(&digest))? {
            side.drive.dir.sync_directory(layout::BLOBS)?;
        }
        side.drive.dir.rename(&layout::partial_data(id), &name)?;
        Ok(Some(Moved { digest, target, sums: Some(sums) }))
    }

    /// Makes durable on their new drives what was copied, and has the old one forget it.
    fn commit(&mut self, batch: Vec<Moved>) -> io::Result<()> {
        for target in 0..self.targets.len() {
            let here: Vec<&Moved> = batch.iter().filter(|moved| moved.target == target).collect();
            let directories: BTreeSet<String> =
                here.iter().map(|moved| layout::blob_directory(&moved.digest)).collect();
            let mut entries = Vec::new();
            for moved in &here {
                entries.extend(self.entries(moved)?);
            }
            let Some(side) = self.targets.get_mut(target) else { continue };
            for directory in &directories {
                side.drive.dir.sync_directory(directory)?;
            }
            side.drive.dir.sync_directory(layout::PARTIAL)?;
            side.say(&entries)?;
        }
        self.forget(&batch.iter().map(|moved| moved.digest).collect::<Vec<_>>())
    }

    /// What the journal of the new drive is told of a blob. A row that is newer there stays.
    fn entries(&mut self, moved: &Moved) -> io::Result<Vec<JournalEntry>> {
        let mut entries = Vec::new();
        if let Some(sums) = &moved.sums {
            entries.push(JournalEntry::Blob { digest: moved.digest, sums: sums.clone() });
        }
        for (key, stored) in self.source.contents.pointing_to(&moved.digest) {
            let there = self.targets.get(moved.target).and_then(|side| side.contents.row(&key)).cloned();
            if there.as_ref().is_some_and(|there| there.response_time >= stored.response_time) {
                continue;
            }
            let supersedes = there.map(|_| UnixMillis::from(clock::now_for_deletion()));
            if let Some(row) = self.row(key, &stored)? {
                entries.push(JournalEntry::Stored { row, sums: None, supersedes });
            }
        }
        Ok(entries)
    }

    /// A row as the old drive's journal has it.
    fn row(&mut self, (key, _): RowKey, stored: &Stored) -> io::Result<Option<Row>> {
        let (segment, offset): Place = stored.at;
        if self.cached.as_ref().is_none_or(|(number, _)| *number != segment) {
            self.cached = Some((segment, self.source.drive.dir.read(&layout::segment(segment))?));
        }
        let Some((_, bytes)) = &self.cached else { return Ok(None) };
        let Some(Frame::Entry { entry, .. }) = Frames::new(bytes, offset).next() else { return Ok(None) };
        let (JournalEntry::Stored { row, .. } | JournalEntry::Updated { row }) = entry else { return Ok(None) };
        Ok((row.record.key.hash() == key).then(|| Row { superseded: stored.superseded, ..row }))
    }

    /// The old drive forgets these blobs, and their files go.
    fn forget(&mut self, digests: &[Digest]) -> io::Result<()> {
        let gone: Vec<JournalEntry> = digests.iter().map(|digest| JournalEntry::BlobGone { digest: *digest }).collect();
        self.source.say(&gone)?;
        for digest in digests {
            let name = layout::blob(digest);
            let length = self.source.drive.dir.stat(&name)?.map_or(0, |stat| stat.st_size);
            self.source.drive.dir.unlink(&name)?;
            self.drained.blobs += 1;
            self.drained.bytes += u64::try_from(length).unwrap_or(0);
        }
        Ok(())
    }
}

/// A name for a body on its way.
fn new_id() -> io::Result<PartialId> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(PartialId(u64::from_be_bytes(random)))
}

/// Copies `length` bytes into a new file and says what they hash to.
fn copy_hashed(from: &File, dir: &Dir, name: &str, length: u64) -> io::Result<(Digest, File)> {
    let to = dir.create_file(name)?;
    let (mut hasher, mut at) = (Sha256::new(), 0);
    copy_pieces(from, 0, length, |piece| {
        hasher.update(piece);
        disk::write_at(&to, piece, at)?;
        at += piece.len() as u64;
        Ok(())
    })?;
    Ok((Digest::from_bytes(hasher.finalize().into()), to))
}

/// Reads piece by piece, until `each` fails.
fn copy_pieces(from: &File, offset: u64, length: u64, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut outcome = Ok(());
    disk::pass_through(from, offset, length, |piece| {
        if outcome.is_ok() {
            outcome = each(piece);
        }
    })?;
    outcome
}
