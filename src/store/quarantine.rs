//! What did not verify: kept aside with the reason, a bounded number of files on each drive, never served.

use std::io;

use super::disk;
use super::drive::Drive;
use super::layout;

/// Most files with content kept on a drive; the oldest goes first.
const KEPT: usize = 16;
/// Most of the quota that they take, 1/20: an upstream that sends wrong bytes must not push out right ones.
const SHARE: u64 = 20;
const REASON: &str = ".reason";

/// A file in quarantine, ordered by age.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kept {
    changed: (i64, i64),
    size: u64,
    name: String,
}

/// Moves a file into quarantine under `name`. Its blocks still count as used.
pub(super) fn put(drive: &Drive, from: &str, name: &str, reason: &str) -> io::Result<()> {
    let to = format!("{}/{name}", layout::QUARANTINE);
    let replaced = drive.dir.stat(&to)?.map_or(0, |stat| disk::stat_allocated(&stat));
    drive.dir.rename(from, &to)?;
    drive.release(replaced);
    let note = format!("{to}{REASON}");
    let write = || {
        drive.dir.unlink(&note)?;
        disk::write_at(&drive.dir.create_file(&note)?, format!("{reason}\n").as_bytes(), 0)?;
        drive.dir.sync_directory(layout::QUARANTINE)
    };
    // The move is what matters; the note is for people.
    if let Err(error) = write() {
        drive.failed("note the reason of a quarantine", &error);
    }
    if let Err(error) = prune(drive) {
        drive.failed("prune the quarantine", &error);
    }
    Ok(())
}

/// Removes a file from quarantine, with its note.
pub(super) fn remove(drive: &Drive, name: &str) -> io::Result<()> {
    let path = format!("{}/{name}", layout::QUARANTINE);
    let size = drive.dir.stat(&path)?.map_or(0, |stat| disk::stat_allocated(&stat));
    drive.dir.unlink(&path)?;
    drive.release(size);
    drive.dir.unlink(&format!("{path}{REASON}"))
}

/// Real bytes in quarantine.
pub(super) fn size(drive: &Drive) -> io::Result<u64> {
    Ok(files(drive)?.into_iter().map(|file| file.size).sum())
}

fn prune(drive: &Drive) -> io::Result<()> {
    let mut files = files(drive)?;
    files.sort();
    let mut count = files.len();
    let mut bytes: u64 = files.iter().map(|file| file.size).sum();
    for Kept { size, name, .. } in files {
        if count <= KEPT && bytes <= drive.settings.quota / SHARE {
            break;
        }
        count -= 1;
        bytes = bytes.saturating_sub(size);
        drive.dir.unlink(&format!("{}/{name}", layout::QUARANTINE))?;
        drive.release(size);
        drive.dir.unlink(&format!("{}/{name}{REASON}", layout::QUARANTINE))?;
    }
    Ok(())
}

/// Time of the last change, real size and name of each file that is ours.
#[allow(clippy::unnecessary_cast, reason = "the fields' types differ between architectures")]
fn files(drive: &Drive) -> io::Result<Vec<Kept>> {
    let mut files = Vec::new();
    for name in drive.dir.list(layout::QUARANTINE)? {
        let ours = matches!(name.len(), 16 | 64) && name.bytes().all(|b| b.is_ascii_hexdigit());
        if let Some(stat) = drive.dir.stat(&format!("{}/{name}", layout::QUARANTINE))?.filter(|_| ours) {
            let changed = (stat.st_ctime as i64, stat.st_ctime_nsec as i64);
            files.push(Kept { changed, size: disk::stat_allocated(&stat), name });
        }
    }
    Ok(files)
}
