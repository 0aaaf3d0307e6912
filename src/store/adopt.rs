//! A cut between the rename of a body and the journal's entry leaves a file in `blobs/` that nothing names, and its
//! map in `partial/` without data. The map says which digest the body has, so the file is found and put back: the
//! body is then a partial one with all its bytes, each block to be checked, and is completed without a transfer.

use super::drive::Drive;
use super::index::Index;
use super::layout;
use super::map_file::DecodedMap;
use crate::content::PartialId;

/// Puts the data of `id` back, if it is in `blobs/` under its digest and nothing else needs it. Says whether it did.
pub(super) fn put_back(drive: &Drive, index: &Index, id: PartialId, decoded: &DecodedMap) -> bool {
    let Some((length, digest)) = decoded.complete.filter(|(length, _)| decoded.map.to_sums(*length).is_some()) else {
        return false;
    };
    if index.has_blob(&digest, drive.id) {
        return false;
    }
    let name = layout::blob(&digest);
    let stat = drive.dir.stat(&name).ok().flatten();
    if stat.and_then(|stat| u64::try_from(stat.st_size).ok()) != Some(length) {
        return false;
    }
    match drive.dir.rename(&name, &layout::partial_data(id)) {
        Ok(()) => true,
        Err(error) => {
            drive.failed("put a body back", &error);
            false
        }
    }
}
