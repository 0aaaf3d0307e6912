//! Which paths are known as drives: a path that is, and has no identity, has lost its mount. It must not become a new
//! drive on the file system below. Lost with the state directory; then any empty directory is a new drive. When the file is
//! there and cannot be read, nobody can tell which paths were drives, and none becomes a new one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crc32c::crc32c;

use super::disk::{self, Dir};
use super::drive::{Drive, DriveId};

const NAME: &str = "drives.json";
const NEW: &str = "drives.json.new";
/// Stands among the paths; the first releases wrote none. A path of a drive is absolute.
const CHECK: &str = "check";

/// Paths of drives and their ids.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct KnownDrives {
    drives: BTreeMap<String, String>,
    /// The file is there and cannot be read.
    doubt: Option<Arc<Doubt>>,
}

/// What a path was before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Before {
    /// No drive: an empty directory becomes a new one.
    Nothing,
    /// This one.
    Drive(DriveId),
    /// It cannot be told: whatever drive is there is used, and no new one is made.
    Unsure(Arc<Doubt>),
}

/// A file that cannot be read, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Doubt {
    pub(super) file: PathBuf,
    pub(super) reason: String,
}

impl Before {
    /// The drive that the path is known as.
    pub(super) fn drive(&self) -> Option<DriveId> {
        if let Self::Drive(id) = self { Some(*id) } else { None }
    }
}

impl From<Option<DriveId>> for Before {
    fn from(known: Option<DriveId>) -> Self {
        known.map_or(Self::Nothing, Self::Drive)
    }
}

impl KnownDrives {
    /// Reads what the state directory at `path` says.
    pub(super) fn read(state: &Dir, path: &Path) -> Self {
        let unreadable = |reason: String| {
            let file = path.join(NAME);
            tracing::error!(
                file = %file.display(), reason,
                "it cannot be told which paths were drives; no directory becomes a new drive before all drives are here"
            );
            Self { doubt: Some(Arc::new(Doubt { file, reason })), ..Self::default() }
        };
        match state.read(NAME) {
            Ok(text) => decode(&text).map_or_else(unreadable, |drives| Self { drives, doubt: None }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => unreadable(error.to_string()),
        }
    }

    /// What `path` was before. An id that is none is the id of no drive.
    pub(super) fn of(&self, path: &Path) -> Before {
        match (&self.doubt, self.drives.get(&name(path))) {
            (Some(doubt), _) => Before::Unsure(Arc::clone(doubt)),
            (None, Some(id)) => Before::Drive(DriveId(u128::from_str_radix(id, 16).unwrap_or(0))),
            (None, None) => Before::Nothing,
        }
    }

    /// All drives that are configured are here: what they are is known now, whatever the file said.
    pub(super) fn all_are_here(&mut self) {
        self.doubt = None;
    }

    /// Adds those that were opened; what was known and is not configured any more is forgotten only with the file.
    pub(super) fn note<'a>(&mut self, state: &Dir, drives: impl Iterator<Item = &'a Drive>) -> io::Result<()> {
        self.note_as(state, drives.map(|drive| (drive.settings.path.as_path(), drive.id)))
    }

    /// From now on these paths are these drives. A file that cannot be read is left as it is: what it said of others would
    /// be lost.
    pub(super) fn note_as<'a>(
        &mut self,
        state: &Dir,
        drives: impl Iterator<Item = (&'a Path, DriveId)>,
    ) -> io::Result<()> {
        let before = self.drives.clone();
        self.drives.extend(drives.map(|(path, id)| (name(path), id.to_string())));
        if self.drives == before || self.doubt.is_some() {
            return Ok(());
        }
        let text = encode(&self.drives).map_err(io::Error::other)?;
        state.unlink(NEW)?;
        let file = state.create_file(NEW)?;
        disk::write_at(&file, &text, 0)?;
        disk::sync_data(&file)?;
        state.rename(NEW, NAME)?;
        state.sync_directory(".")
    }
}

fn name(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// The CRC-32C of paths and ids.
fn check_of(drives: &BTreeMap<String, String>) -> String {
    let text: String = drives.iter().flat_map(|(path, id)| [path, "\n", id, "\n"]).collect();
    format!("{:08x}", crc32c(text.as_bytes()))
}

fn encode(drives: &BTreeMap<String, String>) -> serde_json::Result<Vec<u8>> {
    let mut all = drives.clone();
    all.insert(CHECK.to_owned(), check_of(drives));
    serde_json::to_vec_pretty(&all)
}

fn decode(text: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let mut drives: BTreeMap<String, String> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    match drives.remove(CHECK) {
        Some(check) if check != check_of(&drives) => Err("its check does not hold".to_owned()),
        _ => Ok(drives),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_a_changed_bit_is_seen() {
        let drives: BTreeMap<_, _> =
            [("/mnt/a", "0a"), ("/mnt/b", "0b")].map(|(path, id)| (path.to_owned(), id.to_owned())).into();
        let text = encode(&drives).unwrap();
        assert_eq!(decode(&text).as_ref(), Ok(&drives));
        for bit in 0..text.len() * 8 {
            let mut changed = text.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            // Between words any kind of space is as good as another; a check of another name is no check, and no path.
            let read = decode(&changed).map(|mut read| {
                read.retain(|path, _| path.starts_with('/'));
                read
            });
            assert!(read.is_err() || read.as_ref() == Ok(&drives), "{}", String::from_utf8_lossy(&changed));
        }
        assert_eq!(decode(br#"{ "/mnt/a": "0a", "/mnt/b": "0b" }"#), Ok(drives), "the first releases wrote no check");
    }
}
