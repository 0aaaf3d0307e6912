//! The bodies of a drained drive that are not complete, and files of it that its journal does not name. Complete bodies are
//! the business of `drain` itself.

use std::io;
use std::sync::Arc;

use crc32c::crc32c;

use super::super::block_map::MapRecord;
use super::super::disk::{self, Dir};
use super::super::drive::Drive;
use super::super::layout;
use super::super::map_file::{self, DecodedMap, MapError};
use super::{Draining, new_id};
use crate::content::{Digest, PartialId};

impl Draining<'_> {
    /// Moves a body that is not complete: its bytes, then its map, by which it is found.
    pub(super) fn partial(&mut self, id: PartialId, evict: bool) -> io::Result<()> {
        let (data, map) = (layout::partial_data(id), layout::partial_map(id));
        let source = Arc::clone(&self.source.drive);
        let bytes = match source.dir.read(&map) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.leave(map, error.to_string());
                return Ok(());
            }
        };
        let decoded = match map_file::decode(&bytes) {
            Ok(decoded) => decoded,
            Err(error @ MapError::NewerFormat { .. }) => {
                self.leave(map, error.to_string());
                return Ok(());
            }
            Err(error) if !evict => {
                self.leave(map, format!("{error}; use --evict to remove it"));
                return Ok(());
            }
            Err(_) => {
                self.remove_partial(id, 0)?;
                return Ok(());
            }
        };
        let present = decoded.map.present().total();
        if evict {
            return self.remove_partial(id, present);
        }
        if source.dir.stat(&data)?.is_none() {
            return self.without_data(id, &decoded);
        }
        // A drain that was stopped leaves two, and a cache that ran since may have gone on with one of them.
        let held = each_sound(&source.dir, id, &bytes, &decoded, |_, _| Ok(()));
        let there = self.held_by_others(id);
        let (there, held) = match (there, held) {
            (Ok(there), Ok(held)) => (there, held),
            (Err(error), _) | (_, Err(error)) => {
                self.leave(data, error.to_string());
                return Ok(());
            }
        };
        if there.is_some_and(|(_, held_there)| held_there >= held) {
            return self.remove_partial(id, present);
        }
        let target = there.map(|(number, _)| number).or_else(|| self.target_for(present));
        let Some(target) = target.and_then(|number| self.targets.get(number)) else {
            self.drained.left_bytes += present;
            self.leave(data, "no other drive has room for it");
            return Ok(());
        };
        let drive = Arc::clone(&target.drive);
        if let Err(error) = copy_sound(&source.dir, &drive, id, &bytes, &decoded) {
            self.leave(data, error.to_string());
            return Ok(());
        }
        self.remove_partial(id, present)
    }

    /// The other drive that has the body, if one has, and how many right bytes of it.
    fn held_by_others(&self, id: PartialId) -> io::Result<Option<(usize, u64)>> {
        for (number, side) in self.targets.iter().enumerate() {
            let dir = &side.drive.dir;
            if dir.stat(&layout::partial_map(id))?.is_none() {
                continue;
            }
            let bytes = dir.read(&layout::partial_map(id))?;
            let held = match map_file::decode(&bytes) {
                Ok(theirs) => each_sound(dir, id, &bytes, &theirs, |_, _| Ok(()))?,
                Err(error @ MapError::NewerFormat { .. }) => return Err(io::Error::other(error)),
                Err(_) => 0,
            };
            return Ok(Some((number, held)));
        }
        Ok(None)
    }

    /// A map has no bytes beside it: they may have the name of a blob already, by which a cache finds them.
    fn without_data(&mut self, id: PartialId, decoded: &DecodedMap) -> io::Result<()> {
        let map = layout::partial_map(id);
        if let Some((_, digest)) = decoded.complete {
            let blob = layout::blob(&digest);
            if self.source.drive.dir.stat(&blob)?.is_some() && !self.source.contents.has(&digest) {
                self.leave(
                    map,
                    format!("its bytes are in {blob}, which the journal does not name; start the cache once with this drive and run this again"),
                );
                return Ok(());
            }
        }
        self.drained.told.push((map.clone(), "there were no bytes to it; it was removed".to_owned()));
        self.source.drive.dir.unlink(&map)?;
        self.source.drive.dir.sync_directory(layout::PARTIAL)
    }

    /// The source has it no more.
    fn remove_partial(&mut self, id: PartialId, bytes: u64) -> io::Result<()> {
        let dir = &self.source.drive.dir;
        dir.unlink(&layout::partial_map(id))?;
        dir.unlink(&layout::partial_data(id))?;
        dir.sync_directory(layout::PARTIAL)?;
        self.drained.partials += 1;
        self.drained.bytes += bytes;
        Ok(())
    }

    /// Says where the journal is damaged, and which blobs stay since nothing names them, or removes those.
    pub(super) fn unnamed(&mut self, evict: bool) -> io::Result<()> {
        let dir = Arc::clone(&self.source.drive);
        for (segment, from, end) in std::mem::take(&mut self.source.damaged) {
            let why = format!(
                "damaged from byte {from} to {end}; what it said there is not known, and what it named stays. Started once with this drive, the cache takes it from its second copy where that has it"
            );
            self.drained.told.push((layout::segment(segment), why));
        }
        for first in dir.dir.list(layout::BLOBS)? {
            let directory = format!("{}/{first}", layout::BLOBS);
            for rest in dir.dir.list(&directory)? {
                let name = format!("{directory}/{rest}");
                let Ok(digest) = Digest::from_hex(&format!("{first}{rest}")) else { continue };
                // Other spellings of a digest are foreign.
                if layout::blob(&digest) != name || self.source.contents.has(&digest) {
                    continue;
                }
                if evict {
                    self.forget(&[digest])?;
                } else {
                    let why = "the journal does not name it; start the cache once with this drive, which finds what belongs to it, and run this again, or use --evict to remove it";
                    self.leave(name, why);
                }
            }
        }
        Ok(())
    }
}

/// Copies the right bytes of a body and its map, durably. What has their names there is replaced once the copy is whole.
fn copy_sound(from: &Dir, to: &Drive, id: PartialId, bytes: &[u8], decoded: &DecodedMap) -> io::Result<()> {
    let (data, map, new_map) = (layout::partial_data(id), layout::partial_map(id), layout::partial_map_new(id));
    // Without a map it is a leftover, and removed when it is found.
    let new_data = layout::partial_data(new_id()?);
    let copy = || {
        let copied = to.dir.create_file(&new_data)?;
        each_sound(from, id, bytes, decoded, |offset, sound| disk::write_at(&copied, sound, offset))?;
        disk::sync_data(&copied)?;
        // What an earlier attempt may have left.
        to.dir.unlink(&new_map)?;
        let written = to.dir.create_file(&new_map)?;
        disk::write_at(&written, bytes, 0)?;
        disk::sync_data(&written)?;
        let replaced = to.dir.stat(&data)?.map_or(0, |stat| disk::stat_allocated(&stat));
        to.dir.rename(&new_data, &data)?;
        to.dir.rename(&new_map, &map)?;
        to.dir.sync_directory(layout::PARTIAL)?;
        to.take(disk::allocated(&copied)?);
        to.release(replaced);
        Ok(())
    };
    copy().inspect_err(|_| {
        // They take room for nothing.
        for name in [&new_data, &new_map] {
            let _ = to.dir.unlink(name);
        }
    })
}

/// Gives the bytes of each block of a body that has its sum to `each`, with their offset, and says how many they are. `bytes`
/// are those of its map, `decoded` what they say. A file that is missing or cut short has so much less.
fn each_sound(
    dir: &Dir,
    id: PartialId,
    bytes: &[u8],
    decoded: &DecodedMap,
    mut each: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<u64> {
    let data = match dir.open_to_read(&layout::partial_data(id)) {
        Ok(data) => data,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let size = decoded.map.block_size();
    let mut held = 0;
    for record in decoded.map.records() {
        let (block, begin) = (u64::from(record.block), size.begin_of(u64::from(record.block)));
        let there = disk::read_up_to(&data, begin, record.valid_len as usize)?;
        let holds = decoded.map.block(block).is_some_and(|state| state.verify(&there));
        let sound = if holds { &there[..] } else { earlier(bytes, block, &there) };
        if !sound.is_empty() {
            each(begin, sound)?;
            held += sound.len() as u64;
        }
    }
    Ok(held)
}

/// What of a block holds as it was before its last state: a cut may leave that.
fn earlier<'a>(map: &[u8], block: u64, there: &'a [u8]) -> &'a [u8] {
    let states = map_file::states_of(map, block).into_iter().rev();
    let held = |state: MapRecord| there.get(..state.valid_len as usize).filter(|bytes| crc32c(bytes) == state.crc);
    states.filter(|state| state.valid_len > 0).find_map(held).unwrap_or_default()
}
