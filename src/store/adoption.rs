//! Making a new drive, and taking over one of another cache: which drive a path is known as is written down in the state
//! directory (see `known_drives`), and only these tools change what is there. A running cache is not disturbed.

use std::path::Path;

use super::disk::{self, Dir};
use super::drive::DriveId;
use super::error::OpenError;
use super::identity::{Identity, new_id, take_lock, write_identity};
use super::known_drives::{Before, KnownDrives};
use super::layout;
use super::verify::{Finding, Progressed, Verification, verify_some};

/// Blobs that are read before a drive is taken over, unless all are to be.
const SAMPLE: usize = 32;

/// The directory that some file systems have at their root.
const LOST_AND_FOUND: &str = "lost+found";

/// What was found on a drive that is to be taken over.
#[derive(Debug)]
pub struct Adopted {
    /// Its id.
    pub id: String,
    /// The drive that the path was known as, if it was known as another one.
    pub before: Option<String>,
    /// What was read of it.
    pub verification: Verification,
    /// Whether it was taken over: not so when its journal cannot be read, or bytes are not what their name says although
    /// their sums hold, since then somebody has made them so.
    pub accepted: bool,
    /// The name that the file with the pins of the cache before has on the drive now: they do not count here.
    pub pins_aside: Option<&'static str>,
}

/// Makes an empty drive at `path`, and returns its id. `state` is the state directory of the cache that is to use it: if it
/// is there, the path is known as the new drive from now on.
///
/// # Errors
/// When a drive or anything else is there, or it cannot be written.
pub fn init_drive(path: &Path, state: &Path) -> Result<String, OpenError> {
    let io = |action: &'static str| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, action, source }
    };
    disk::make_directories(path).map_err(io("create the directory"))?;
    let dir = Dir::open(path).map_err(io("open the directory"))?;
    let mut names = dir.list(".").map_err(io("look into the directory"))?;
    if names.iter().any(|name| name == layout::IDENTITY) {
        let (id, _) = Identity::read(&dir, path)?;
        return Err(OpenError::IsDrive { path: path.to_owned(), id: id.to_string() });
    }
    names.sort_unstable();
    // An attempt that was stopped may have left the lock and a new identity without its name.
    let ours = [LOST_AND_FOUND, layout::LOCK, layout::IDENTITY_NEW];
    if let Some(found) = names.into_iter().find(|name| !ours.contains(&name.as_str())) {
        return Err(OpenError::NotEmpty { path: path.to_owned(), found });
    }
    let _lock = take_lock(&dir, path)?;
    let id = new_id().map_err(io("name the drive"))?;
    write_identity(&dir, id).map_err(io("write waystation.json"))?;
    if state.is_dir() {
        note(state, path, id)?;
    }
    Ok(id.to_string())
}

/// Takes over the drive at `path`, whatever the path was known as in the state directory `state`, after reading some of its
/// blobs, or `all`. The pins of another cache are set aside: they would hold on all drives. `progress` is called with each piece.
///
/// # Errors
/// When there is no drive, it is of a newer format, a process uses it, or it cannot be read.
pub fn adopt_drive(
    path: &Path,
    state: &Path,
    all: bool,
    progress: impl FnMut(Progressed),
) -> Result<Adopted, OpenError> {
    let (id, verification) = verify_some(path, (!all).then_some(SAMPLE), progress)?;
    let refused = |finding: &Finding| matches!(finding, Finding::WrongDigest(_) | Finding::Unreadable(..));
    let accepted = !verification.findings.iter().any(refused);
    let io = |source| OpenError::Io { path: state.to_owned(), action: "open the state directory", source };
    disk::make_directories(state).map_err(io)?;
    let known = KnownDrives::read(&Dir::open(state).map_err(io)?, state);
    let before = match known.of(path) {
        Before::Drive(before) if before != id => Some(before.to_string()),
        _ => None,
    };
    let mut pins_aside = None;
    if accepted {
        if !known.has(id) && set_pins_aside(path)? {
            pins_aside = Some(layout::PINS_ADOPTED);
        }
        note(state, path, id)?;
    }
    Ok(Adopted { id: id.to_string(), before, verification, accepted, pins_aside })
}

/// Gives the file with the pins of a drive another name, if there is one.
fn set_pins_aside(path: &Path) -> Result<bool, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), action: "set the pins aside", source };
    let dir = Dir::open(path).map_err(io)?;
    let _lock = take_lock(&dir, path)?;
    if dir.stat(layout::PINS).map_err(io)?.is_none() {
        return Ok(false);
    }
    dir.rename(layout::PINS, layout::PINS_ADOPTED).map_err(io)?;
    dir.sync_directory(".").map_err(io)?;
    Ok(true)
}

fn note(state: &Path, path: &Path, id: DriveId) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { path: state.to_owned(), action: "note the drive", source };
    let dir = Dir::open(state).map_err(io)?;
    KnownDrives::read(&dir, state).note_as(&dir, [(path, id)].into_iter()).map_err(io)
}
