//! Which paths are known as drives: a path that is, and has no identity, has lost its mount. It must not become a new
//! drive on the file system below. Lost with the state directory; then any empty directory is a new drive.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::disk::{self, Dir};
use super::drive::{Drive, DriveId};

const NAME: &str = "drives.json";
const NEW: &str = "drives.json.new";

/// Paths of drives and their ids.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub(super) struct KnownDrives {
    drives: BTreeMap<String, String>,
}

impl KnownDrives {
    /// Reads what the state directory says; a file that cannot be read says nothing.
    pub(super) fn read(state: &Dir) -> Self {
        match state.read(NAME) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::warn!(%error, "{NAME} cannot be read and is written anew");
                Self::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => {
                tracing::warn!(%error, "{NAME} cannot be read");
                Self::default()
            }
        }
    }

    /// Which drive `path` was before. An id that is none is the id of no drive.
    pub(super) fn of(&self, path: &Path) -> Option<DriveId> {
        let id = self.drives.get(&name(path))?;
        Some(DriveId(u128::from_str_radix(id, 16).unwrap_or(0)))
    }

    /// Adds those that were opened; what was known and is not configured any more is forgotten only with the file.
    pub(super) fn note<'a>(&mut self, state: &Dir, drives: impl Iterator<Item = &'a Drive>) -> io::Result<()> {
        self.note_as(state, drives.map(|drive| (drive.settings.path.as_path(), drive.id)))
    }

    /// From now on these paths are these drives.
    pub(super) fn note_as<'a>(
        &mut self,
        state: &Dir,
        drives: impl Iterator<Item = (&'a Path, DriveId)>,
    ) -> io::Result<()> {
        let before = self.clone();
        self.drives.extend(drives.map(|(path, id)| (name(path), id.to_string())));
        if *self == before {
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
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
