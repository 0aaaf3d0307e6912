//! A cut between the rename of a body and the journal's entry leaves a file in `blobs/` that nothing names, and its
//! map in `partial/` without data. The map says which digest the body has, so the file is found and put back: the
//! body is then a partial one with all its bytes, each block to be checked, and is completed without a transfer. What
//! could not be told in one start stays for the next one.

use std::collections::HashSet;
use std::io;

use super::drive::Drive;
use super::index::Index;
use super::layout::{self, PartialFile};
use super::map_file::DecodedMap;
use crate::content::PartialId;

/// What became of the files of a partial body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It is there to be gone on with.
    Taken,
    /// They are worth nothing, for certain.
    Worthless,
    /// It could not be found out what they are worth: they stay, and what they lead to.
    Unknown,
}

/// Puts the data of `id` back, if it is in `blobs/` under its digest and nothing else needs it.
pub(super) fn put_back(drive: &Drive, index: &Index, id: PartialId, decoded: &DecodedMap) -> Found {
    let Some((length, digest)) = decoded.complete.filter(|(length, _)| decoded.map.to_sums(*length).is_some()) else {
        return Found::Worthless;
    };
    if index.has_blob(&digest, drive.id) {
        return Found::Worthless;
    }
    let name = layout::blob(&digest);
    let moved = match drive.dir.stat(&name) {
        Ok(stat) if stat.and_then(|stat| u64::try_from(stat.st_size).ok()) != Some(length) => return Found::Worthless,
        Ok(_) => drive.dir.rename(&name, &layout::partial_data(id)),
        Err(error) => Err(error),
    };
    match moved {
        Ok(()) => Found::Taken,
        Err(error) => {
            drive.failed("put a body back", &error);
            Found::Unknown
        }
    }
}

/// Whether there is a map without data: what is in `blobs/` and has no other name may be its body.
///
/// # Errors
/// When the names cannot be had.
pub(super) fn any_waits(drive: &Drive) -> io::Result<bool> {
    let names = drive.dir.list(layout::PARTIAL)?;
    let of_kind = |wanted: PartialFile| {
        let parsed = names.iter().filter_map(|name| layout::parse_partial(name));
        parsed.filter(move |(_, kind)| *kind == wanted).map(|(id, _)| id)
    };
    let data: HashSet<PartialId> = of_kind(PartialFile::Data).collect();
    Ok(of_kind(PartialFile::Map).any(|id| !data.contains(&id)))
}
