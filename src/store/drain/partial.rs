//! The bodies of a drained drive that are not complete, and files of it that its journal does not name.

use std::io;
use std::sync::Arc;

use super::super::disk::{self, Dir};
use super::super::layout;
use super::super::map_file::{self, DecodedMap, MapError};
use super::{Draining, copy_pieces};
use crate::content::{Digest, PartialId};

impl Draining<'_> {
    /// Moves a body that is not complete: its bytes, then its map, by which it is found.
    pub(super) fn partial(&mut self, id: PartialId, evict: bool) -> io::Result<()> {
        let (data, map) = (layout::partial_data(id), layout::partial_map(id));
        let source = Arc::clone(&self.source.drive);
        let bytes = source.dir.read(&map)?;
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
        let there = self.targets.iter().position(|side| matches!(side.drive.dir.stat(&map), Ok(Some(_))));
        let held_there = match there.and_then(|number| self.targets.get(number)) {
            Some(side) => side
                .drive
                .dir
                .read(&map)
                .ok()
                .and_then(|bytes| map_file::decode(&bytes).ok())
                .map_or(0, |theirs| sound_bytes(&side.drive.dir, id, &theirs)),
            None => 0,
        };
        // A drain that was stopped leaves two, and a cache that ran since may have gone on with one of them.
        if there.is_some() && held_there >= sound_bytes(&source.dir, id, &decoded) {
            return self.remove_partial(id, present);
        }
        let Some(target) = there.or_else(|| self.target_for(present)).and_then(|number| self.targets.get(number))
        else {
            self.drained.left_bytes += present;
            self.leave(data, "no other drive has room for it");
            return Ok(());
        };
        let dir = &target.drive.dir;
        // What an earlier attempt may have left.
        let new = layout::partial_map_new(id);
        for name in [&map, &new, &data] {
            dir.unlink(name)?;
        }
        let (from, to) = (source.dir.open_to_read(&data)?, dir.create_file(&data)?);
        let copied = decoded.map.present().iter().try_for_each(|range| {
            let mut at = range.start();
            copy_pieces(&from, range.start(), range.len(), |piece| {
                disk::write_at(&to, piece, at)?;
                at += piece.len() as u64;
                Ok(())
            })
        });
        if let Err(error) = copied.and_then(|()| disk::sync_data(&to)) {
            dir.unlink(&data)?;
            self.leave(data, error.to_string());
            return Ok(());
        }
        let written = dir.create_file(&new)?;
        disk::write_at(&written, &bytes, 0)?;
        disk::sync_data(&written)?;
        dir.rename(&new, &map)?;
        dir.sync_directory(layout::PARTIAL)?;
        target.drive.take(disk::allocated(&to)?);
        self.remove_partial(id, present)
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

/// Bytes of a body whose blocks have their sums.
fn sound_bytes(dir: &Dir, id: PartialId, decoded: &DecodedMap) -> u64 {
    let Ok(data) = dir.open_to_read(&layout::partial_data(id)) else { return 0 };
    let size = decoded.map.block_size();
    let is_sound = |block: u64, length: usize| {
        let bytes = disk::read_exact_at(&data, size.begin_of(block), length);
        bytes.is_ok_and(|bytes| decoded.map.block(block).is_some_and(|state| state.verify(&bytes)))
    };
    let blocks = decoded.map.records().map(|record| (u64::from(record.block), record.valid_len));
    blocks.filter(|(block, length)| is_sound(*block, *length as usize)).map(|(_, length)| u64::from(length)).sum()
}
