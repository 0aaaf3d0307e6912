//! Where everything lies on a drive: the tree, and every path made in one place. No I/O.
//!
//! ```text
//! <drive>/lock                      held (flock) by the process that uses the drive
//! <drive>/waystation.probe          written over and over to find out whether the drive keeps bytes
//! <drive>/waystation.json           format version, drive id
//! <drive>/blobs/sha256/ab/<62 hex>  exactly the content: `sha256sum` of the file equals its name
//! <drive>/partial/<16 hex>.data     a body that is not complete, sparse
//! <drive>/partial/<16 hex>.map      its record and its block map (see `map_file`)
//! <drive>/journal/<16 hex>.log      append-only segments in order of their number (see `journal_format`)
//! <drive>/pins                      what must not be evicted, the same on each drive (see `pins`)
//! <drive>/pins.adopted              the same of the cache that had the drive before; does not count
//! <drive>/index.snapshot            what the journal says, so far (see `index`); may be deleted
//! <drive>/quarantine/<name>         what did not verify, beside it <name>.reason
//! <state>/lock                      held by the process that uses the directory
//! <state>/drives.json               which paths are drives (see `known_drives`)
//! <state>/versions.log              which version each client was given (see `given`)
//! <state>/mirror/                   sled: second copy of journal entries; may be deleted
//! ```
//! All paths of a drive are relative to its directory. Anything else that lies there is not ours and left alone.

use crate::content::{Digest, PartialId};

/// The format of the tree that this release writes. 2 has journals that keep older versions of a response; a drive of
/// format 1 becomes one of format 2 when it is opened.
pub(super) const FORMAT: u32 = 2;

pub(super) const LOCK: &str = "lock";
pub(super) const PROBE: &str = "waystation.probe";
pub(super) const IDENTITY: &str = "waystation.json";
pub(super) const IDENTITY_NEW: &str = "waystation.json.new";
pub(super) const BLOBS: &str = "blobs/sha256";
pub(super) const PARTIAL: &str = "partial";
pub(super) const JOURNAL: &str = "journal";
pub(super) const QUARANTINE: &str = "quarantine";
pub(super) const PINS: &str = "pins";
pub(super) const PINS_ADOPTED: &str = "pins.adopted";
pub(super) const PINS_NEW: &str = "pins.new";
pub(super) const PINS_DAMAGED: &str = "pins.damaged";
pub(super) const SNAPSHOT: &str = "index.snapshot";
pub(super) const SNAPSHOT_NEW: &str = "index.snapshot.new";
pub(super) const MIRROR: &str = "mirror";
pub(super) const MIRROR_REJECTED: &str = "mirror.rejected";
/// What earlier releases had there.
pub(super) const FORMER_INDEX: &str = "index";
pub(super) const GIVEN: &str = "versions.log";
pub(super) const GIVEN_NEW: &str = "versions.log.new";

/// Directories of a drive, parents first.
pub(super) const DIRECTORIES: [&str; 5] = ["blobs", BLOBS, PARTIAL, JOURNAL, QUARANTINE];

/// The directory of a blob, relative to the drive.
pub(super) fn blob_directory(digest: &Digest) -> String {
    let [first, ..] = digest.as_bytes();
    format!("{BLOBS}/{first:02x}")
}

/// A blob.
pub(super) fn blob(digest: &Digest) -> String {
    let hex = digest.to_hex();
    let (first, rest) = hex.split_at(2);
    format!("{BLOBS}/{first}/{rest}")
}

/// The bytes of a partial body.
pub(super) fn partial_data(id: PartialId) -> String {
    format!("{PARTIAL}/{id}.data")
}

/// The map of a partial body.
pub(super) fn partial_map(id: PartialId) -> String {
    format!("{PARTIAL}/{id}.map")
}

/// A new map of a partial body before it takes the old one's place.
pub(super) fn partial_map_new(id: PartialId) -> String {
    format!("{PARTIAL}/{id}.map.new")
}

/// What a file in `partial/` is; `None` for foreign ones.
pub(super) fn parse_partial(name: &str) -> Option<(PartialId, PartialFile)> {
    let (id, suffix) = name.split_once('.')?;
    let kind = match suffix {
        "data" => PartialFile::Data,
        "map" => PartialFile::Map,
        "map.new" => PartialFile::NewMap,
        _ => return None,
    };
    Some((PartialId(hex16(id)?), kind))
}

/// The files of a partial body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartialFile {
    /// Its bytes.
    Data,
    /// Its map.
    Map,
    /// A map that was being replaced.
    NewMap,
}

/// A journal segment.
pub(super) fn segment(number: u64) -> String {
    format!("{JOURNAL}/{number:016x}.log")
}

/// The number of a journal segment; `None` for foreign files.
pub(super) fn parse_segment(name: &str) -> Option<u64> {
    hex16(name.strip_suffix(".log")?)
}

/// Exactly 16 lower-case hexadecimal digits.
fn hex16(text: &str) -> Option<u64> {
    let ours = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    ours.then(|| u64::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_foreign_ones_do_not() {
        let id = PartialId(0xab);
        assert_eq!(partial_data(id), "partial/00000000000000ab.data");
        assert_eq!(parse_partial("00000000000000ab.data"), Some((id, PartialFile::Data)));
        assert_eq!(parse_partial("00000000000000ab.map"), Some((id, PartialFile::Map)));
        assert_eq!(parse_partial("00000000000000ab.map.new"), Some((id, PartialFile::NewMap)));
        for name in ["", "ab.data", "00000000000000AB.data", "00000000000000ab.txt", "+0000000000000ab.data"] {
            assert_eq!(parse_partial(name), None, "{name}");
        }
        assert_eq!(segment(16), "journal/0000000000000010.log");
        assert_eq!(parse_segment("0000000000000010.log"), Some(16));
        let digest = Digest::of(b"");
        let path = blob(&digest);
        assert!(path.starts_with("blobs/sha256/e3/b0c44298"), "{path}");
    }
}
