//! A cut between the rename of a body and the journal's entry leaves a file in `blobs/` that nothing names, and its
//! map in `partial/` without data. The map says what the file has to hold, so the file is found and put back: the
//! body is then a partial one with all its bytes, and is completed without a transfer.

use std::io;
use std::path::Path;

use super::block_map::BlockMap;
use super::disk;
use super::drive::Drive;
use super::index::Index;
use super::layout;
use super::map_file::DecodedMap;
use crate::content::{Digest, PartialId};

/// Puts the data of `id` back, if some file in `blobs/` is it. Says whether it did.
pub(super) fn put_back(drive: &Drive, index: Option<&Index>, id: PartialId, decoded: &DecodedMap) -> bool {
    let length = decoded.map.contiguous();
    let complete = decoded.map.to_sums(length).is_some() && decoded.record.length.is_none_or(|known| known == length);
    if !complete {
        return false;
    }
    let found = match decoded.record.expected {
        Some(expected) => {
            Ok(Some(expected.digest()).filter(|digest| is_it(drive, index, digest, &decoded.map, length)))
        }
        None => search(drive, index, &decoded.map, length),
    };
    let moved = found.and_then(|found| match found {
        Some(digest) => drive.dir.rename(&layout::blob(&digest), &layout::partial_data(id)).map(|()| true),
        None => Ok(false),
    });
    moved.unwrap_or_else(|error| {
        drive.failed("put a body back", &error);
        false
    })
}

/// Looks at all files that no journal names. Rare and slow: only after a cut at the wrong moment.
fn search(drive: &Drive, index: Option<&Index>, map: &BlockMap, length: u64) -> io::Result<Option<Digest>> {
    for directory in drive.dir.list(layout::BLOBS)? {
        let path = Path::new(layout::BLOBS).join(&directory);
        let Some(path) = path.to_str().filter(|_| directory.len() == 2) else { continue };
        for name in drive.dir.list(path)? {
            let digest = layout::parse_blob(&directory, &name);
            if let Some(digest) = digest.filter(|digest| is_it(drive, index, digest, map, length)) {
                return Ok(Some(digest));
            }
        }
    }
    Ok(None)
}

/// Whether a blob is unknown to the index and has exactly the content that `map` describes.
fn is_it(drive: &Drive, index: Option<&Index>, digest: &Digest, map: &BlockMap, length: u64) -> bool {
    let name = layout::blob(digest);
    let stat = drive.dir.stat(&name).ok().flatten();
    if stat.and_then(|stat| u64::try_from(stat.st_size).ok()) != Some(length) {
        return false;
    }
    // Without an index nothing is known of what is named, and nothing may be taken away.
    let orphan = index.is_some_and(|index| matches!(index.has_blob(digest, drive.id), Ok(false)));
    orphan && drive.dir.open_file(&name).is_ok_and(|file| holds(&file, map).unwrap_or(false))
}

fn holds(file: &std::fs::File, map: &BlockMap) -> io::Result<bool> {
    for record in map.records() {
        let block = u64::from(record.block);
        let begin = map.block_size().begin_of(block);
        let content = disk::read_exact_at(file, begin, record.valid_len as usize)?;
        if !map.verify(block, &content) {
            return Ok(false);
        }
    }
    Ok(true)
}
