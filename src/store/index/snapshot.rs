//! The index of one drive in a file beside its journal: what a start need not read from the journal again. It is written
//! from time to time and when the store closes, and says up to which place of the journal it goes. One that does not
//! hold is worth nothing, and costs nothing but time: the journal says it all.
//!
//! Numbers are little-endian.
//! ```text
//! snapshot  magic (8), version u32, drive u128, segment u64 and offset u64 up to which it goes, number of blobs u64;
//!           blobs; CRC-32C u32 of all that
//! blob      digest (32), place, units of 4 KiB u32, number of rows u32; rows
//! row       hash of the key (16), place among its rows u64, place, 0 or 1 u8; after a 1 since when it is older, u64
//! place     segment u32, offset u32; all bits set for none
//! ```

use std::fs::File;
use std::io::{self, Read};

use crc32c::crc32c_append;

use super::super::disk;
use super::super::drive::{Drive, DriveId};
use super::super::layout;
use super::objects::{At, Objects};
use super::{Index, State, Watermark};
use crate::content::{Digest, KeyHash, UnixMillis};

const MAGIC: [u8; 8] = *b"WSTNIDX\0";
const VERSION: u32 = 1;
/// Length of the header, of a blob without its rows, and of a row that is no older version.
const HEADER: u64 = 52;
const BLOB: usize = 48;
const ROW: usize = 33;
/// Bytes that are written and read at a time.
const PIECE: usize = 256 * 1024;

/// What came of reading a snapshot.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Loaded {
    /// The index of the drive goes up to here.
    UpTo(Watermark),
    /// There is none.
    Missing,
    /// There is one that cannot be used, and why.
    Unusable(String),
}

impl Index {
    /// Takes what is known of a drive from its snapshot, if that holds.
    pub(in super::super) fn load(&self, drive: DriveId) -> Loaded {
        let Some(known) = self.of(drive) else { return Loaded::Missing };
        let file = match known.drive.dir.open_to_read(layout::SNAPSHOT) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Loaded::Missing,
            Err(error) => return Loaded::Unusable(error.to_string()),
        };
        let read =
            disk::identity(&file).and_then(|identity| decode(Beating { file: &file, at: 0 }, identity.size(), drive));
        match read {
            Ok((objects, mark)) => {
                *known.state.write() = State { objects, mark: Some(mark), saved: Some(mark), ..State::empty() };
                Loaded::UpTo(mark)
            }
            Err(error) => Loaded::Unusable(error.to_string()),
        }
    }

    /// Up to where the snapshot of a drive goes.
    pub(in super::super) fn saved(&self, drive: DriveId) -> Option<Watermark> {
        self.of(drive)?.state.read().saved
    }

    /// Writes the snapshot of a drive, durable, in place of the one before.
    ///
    /// # Errors
    /// When the drive fails; the one before stays then.
    pub(in super::super) fn save(&self, drive: DriveId) -> io::Result<()> {
        let Some(known) = self.of(drive) else { return Ok(()) };
        let mark = {
            let state = known.state.read();
            let is_due = |mark: &Watermark| state.saved != Some(*mark) && !state.incomplete;
            let Some(mark) = state.mark.filter(is_due) else { return Ok(()) };
            write(&known.drive, &state.objects, mark).inspect_err(|_| {
                // It takes room for nothing.
                let _ = known.drive.dir.unlink(layout::SNAPSHOT_NEW);
            })?;
            mark
        };
        known.state.write().saved = Some(mark);
        Ok(())
    }
}

fn write(drive: &Drive, objects: &Objects, mark: Watermark) -> io::Result<()> {
    drive.dir.unlink(layout::SNAPSHOT_NEW)?;
    let file = drive.dir.create_file(layout::SNAPSHOT_NEW)?;
    let mut output = Output { file: &file, offset: 0, check: 0, piece: Vec::with_capacity(PIECE) };
    encode(objects, drive.id, mark, &mut output)?;
    disk::sync_data(&file)?;
    drive.dir.rename(layout::SNAPSHOT_NEW, layout::SNAPSHOT)?;
    drive.dir.sync_directory(".")
}

/// Where a snapshot goes, piece by piece.
struct Output<'a> {
    file: &'a File,
    offset: u64,
    check: u32,
    piece: Vec<u8>,
}

impl Output<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() < PIECE { Ok(()) } else { self.write() }
    }

    fn place(&mut self, at: At) -> io::Result<()> {
        self.put(&at.segment.to_le_bytes())?;
        self.put(&at.offset.to_le_bytes())
    }

    fn write(&mut self) -> io::Result<()> {
        self.check = crc32c_append(self.check, &self.piece);
        disk::write_at(self.file, &self.piece, self.offset)?;
        self.offset = self.offset.saturating_add(self.piece.len() as u64);
        self.piece.clear();
        Ok(())
    }
}

fn encode(objects: &Objects, drive: DriveId, mark: Watermark, output: &mut Output<'_>) -> io::Result<()> {
    output.put(&MAGIC)?;
    output.put(&VERSION.to_le_bytes())?;
    output.put(&drive.0.to_le_bytes())?;
    output.put(&mark.segment.to_le_bytes())?;
    output.put(&mark.offset.to_le_bytes())?;
    output.put(&(objects.len().1 as u64).to_le_bytes())?;
    objects.each_slot(|blob, rows| {
        output.put(blob.digest.as_bytes())?;
        output.place(blob.at)?;
        output.put(&blob.units.to_le_bytes())?;
        output.put(&u32::try_from(rows.len()).unwrap_or(u32::MAX).to_le_bytes())?;
        for row in rows {
            output.put(row.key.as_bytes())?;
            output.put(&row.place.to_le_bytes())?;
            output.place(row.at)?;
            output.put(&[u8::from(row.superseded.is_some())])?;
            if let Some(since) = row.superseded {
                output.put(&since.0.to_le_bytes())?;
            }
        }
        Ok::<_, io::Error>(())
    })?;
    output.write()?;
    let check = output.check;
    output.put(&check.to_le_bytes())?;
    output.write()
}

/// A file that is read as all of a drive is: a read that does not end is seen.
struct Beating<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Beating<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = disk::read_up_to(self.file, self.at, buffer.len())?;
        buffer.iter_mut().zip(&bytes).for_each(|(to, from)| *to = *from);
        self.at = self.at.saturating_add(bytes.len() as u64);
        Ok(bytes.len())
    }
}

/// Reads fields and sums them up: many together, since the sum of a few bytes takes as long as that of many.
struct Input<R> {
    from: R,
    piece: Vec<u8>,
    /// What of the piece has been taken.
    taken: usize,
    /// The checksum of what was taken of the pieces before.
    check: u32,
}

impl<R: Read> Input<R> {
    fn new(from: R) -> Self {
        Self { from, piece: Vec::with_capacity(PIECE), taken: 0, check: 0 }
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        if self.piece.len() - self.taken < N {
            self.refill(N)?;
        }
        let rest = self.piece.get(self.taken..).and_then(|rest| rest.first_chunk());
        self.taken += N;
        rest.copied().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Brings the next piece, or as much of it as there is, but not less than `least` bytes.
    fn refill(&mut self, least: usize) -> io::Result<()> {
        self.sum_up();
        while self.piece.len() < least {
            let wanted = PIECE.saturating_sub(self.piece.len()) as u64;
            if self.from.by_ref().take(wanted).read_to_end(&mut self.piece)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// The checksum of all that was taken.
    fn sum_up(&mut self) -> u32 {
        let taken = self.piece.drain(..self.taken.min(self.piece.len()));
        self.check = crc32c_append(self.check, taken.as_slice());
        drop(taken);
        self.taken = 0;
        self.check
    }

    fn blob(&mut self) -> io::Result<(Digest, At, u32, u32)> {
        let bytes: [u8; BLOB] = self.take()?;
        let (digest, numbers) = bytes.split_at(32);
        let (words, _) = numbers.as_chunks::<4>();
        match (digest.try_into(), words) {
            (Ok(digest), [segment, offset, units, rows]) => {
                let [segment, offset, units, rows] =
                    [segment, offset, units, rows].map(|word| u32::from_le_bytes(*word));
                Ok((Digest::from_bytes(digest), At { segment, offset }, units, rows))
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn row(&mut self) -> io::Result<(KeyHash, u64, At, Option<UnixMillis>)> {
        let bytes: [u8; ROW] = self.take()?;
        let (key, numbers) = bytes.split_at(16);
        let (words, is_older) = numbers.as_chunks::<4>();
        match (key.try_into(), words) {
            (Ok(key), [low, high, segment, offset]) => {
                let [low, high, segment, offset] = [low, high, segment, offset].map(|word| u32::from_le_bytes(*word));
                let place = (u64::from(high) << 32) | u64::from(low);
                let since = if is_older == [0] { None } else { Some(UnixMillis(u64::from_le_bytes(self.take()?))) };
                Ok((KeyHash::from_bytes(key), place, At { segment, offset }, since))
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Reads a snapshot of `length` bytes.
///
/// # Errors
/// When it cannot be read, does not hold, or is of another drive.
fn decode(from: impl Read, length: u64, drive: DriveId) -> io::Result<(Objects, Watermark)> {
    let invalid = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason.to_owned());
    let mut input = Input::new(from);
    if input.take()? != MAGIC {
        return Err(invalid("it is no snapshot"));
    }
    if u32::from_le_bytes(input.take()?) != VERSION {
        return Err(invalid("it is of another release"));
    }
    if u128::from_le_bytes(input.take()?) != drive.0 {
        return Err(invalid("it is of another drive"));
    }
    let mark = Watermark { segment: u64::from_le_bytes(input.take()?), offset: u64::from_le_bytes(input.take()?) };
    let blobs = u64::from_le_bytes(input.take()?);
    // So many can be there at most: a damaged number must not ask for memory.
    if blobs > length.saturating_sub(HEADER) / BLOB as u64 {
        return Err(invalid("it says to have more than there is"));
    }
    let mut objects = Objects::with_room(usize::try_from(blobs).unwrap_or(0));
    for _ in 0..blobs {
        let (digest, at, units, rows) = input.blob()?;
        // Nothing is there twice, or the checksum does not hold.
        let blob = objects.push_blob(digest, at, units).ok_or_else(|| invalid("it has more than there can be"))?;
        for _ in 0..rows {
            let (key, place, at, superseded) = input.row()?;
            objects.push_row(blob, key, place, at, superseded);
        }
    }
    let check = input.sum_up();
    if u32::from_le_bytes(input.take()?) != check {
        return Err(invalid("its checksum does not hold"));
    }
    objects.pushed();
    Ok((objects, mark))
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
