//! [`Identity`]: which drive a directory is, and which process may use it: `waystation.json` and the lock.

use std::fs::File;
use std::io;
use std::path::Path;

use crc32c::crc32c;

use super::disk::{self, Dir};
use super::drive::DriveId;
use super::error::OpenError;
use super::layout;

/// What `waystation.json` says.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Identity {
    format: u32,
    drive: String,
    /// The CRC-32C of the drive's id: with another id its content would be taken for another drive's. Files of earlier
    /// releases have none, and those releases pass it over.
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<String>,
}

/// The field [`Identity::check`] of a drive.
fn check_of(id: DriveId) -> String {
    format!("{:08x}", crc32c(&id.0.to_be_bytes()))
}

impl Identity {
    /// What the drive in `path` says of itself, of which there must be a readable one. Changes nothing.
    pub(super) fn read(dir: &Dir, path: &Path) -> Result<(DriveId, u32), OpenError> {
        Self::read_whole(dir, path, None).map(|(identity, id)| (id, identity.format))
    }

    /// The same of a path that is known as the drive `known`: with that id it is the check that is wrong, if any.
    pub(super) fn read_of(dir: &Dir, path: &Path, known: DriveId) -> Result<DriveId, OpenError> {
        Self::read_whole(dir, path, Some(known)).map(|(_, id)| id)
    }

    fn read_whole(dir: &Dir, path: &Path, known: Option<DriveId>) -> Result<(Self, DriveId), OpenError> {
        let damaged = |reason: &str| OpenError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
        let io = |source| OpenError::Io { path: path.to_owned(), action: "read waystation.json", source };
        let text = dir.read(layout::IDENTITY).map_err(io)?;
        // The version comes first: a newer format may have other fields.
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(|error| damaged(&error.to_string()))?;
        let found = value.get("format").and_then(serde_json::Value::as_u64).ok_or_else(|| damaged("no format"))?;
        if found > u64::from(layout::FORMAT) {
            let found = u32::try_from(found).unwrap_or(u32::MAX);
            return Err(OpenError::NewerFormat { path: path.to_owned(), found, known: layout::FORMAT });
        }
        let identity: Self = serde_json::from_value(value).map_err(|error| damaged(&error.to_string()))?;
        let id = u128::from_str_radix(&identity.drive, 16).map_err(|_| damaged("the drive id is no number"))?;
        let id = DriveId(id);
        if known != Some(id) && identity.check.as_ref().is_some_and(|check| *check != check_of(id)) {
            return Err(damaged(
                "its check does not fit its drive id; drives.json in the state directory has the id of this path: if it is the same, remove the check, else write that id into it",
            ));
        }
        Ok((identity, id))
    }
}

/// Takes the lock file in `dir`.
pub(super) fn take_lock(dir: &Dir, path: &Path) -> Result<File, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), action: "lock", source };
    let lock = dir.open_lock(layout::LOCK).map_err(io)?;
    if disk::try_lock(&lock).map_err(io)? { Ok(lock) } else { Err(OpenError::InUse { path: path.to_owned() }) }
}

/// Reads the identity of a drive that the path may be known as, or gives it one when nothing of ours is there.
pub(super) fn identify(dir: &Dir, path: &Path, known: Option<DriveId>) -> Result<DriveId, OpenError> {
    let io = |action| move |source| OpenError::Io { path: path.to_owned(), action, source };
    let damaged = |reason: &str| OpenError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
    if dir.stat(layout::IDENTITY).map_err(io("read waystation.json"))?.is_some() {
        let (identity, id) = Identity::read_whole(dir, path, known)?;
        let is_checked = identity.check.as_ref() == Some(&check_of(id));
        if identity.check.is_some() && !is_checked {
            tracing::warn!(drive = %path.display(), %id, "the check in waystation.json is damaged; the id is that of this path, and the check is written anew");
        }
        if identity.format < layout::FORMAT {
            // Before anything is written that the older release does not know.
            write_identity(dir, id).map_err(io("upgrade waystation.json"))?;
        } else if !is_checked && let Err(error) = write_identity(dir, id) {
            tracing::warn!(drive = %path.display(), %error, "waystation.json has no right check, and none could be written");
        }
        return Ok(id);
    }
    if dir.stat(layout::JOURNAL).map_err(io("look for a journal"))?.is_some() {
        return Err(damaged("it is missing, although a journal is there"));
    }
    let id = new_id().map_err(io("name the drive"))?;
    write_identity(dir, id).map_err(io("write waystation.json"))?;
    Ok(id)
}

/// A name for a new drive.
pub(super) fn new_id() -> io::Result<DriveId> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(DriveId(u128::from_be_bytes(random)))
}

/// Writes it down, durably.
pub(super) fn write_identity(dir: &Dir, id: DriveId) -> io::Result<()> {
    let identity = Identity { format: layout::FORMAT, drive: id.to_string(), check: Some(check_of(id)) };
    let text = serde_json::to_vec_pretty(&identity).map_err(io::Error::other)?;
    dir.unlink(layout::IDENTITY_NEW)?;
    let file = dir.create_file(layout::IDENTITY_NEW)?;
    disk::write_at(&file, &text, 0)?;
    disk::sync_data(&file)?;
    dir.rename(layout::IDENTITY_NEW, layout::IDENTITY)?;
    dir.sync_directory(".")
}
