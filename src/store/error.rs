//! Errors at the store's boundary.

use std::io;
use std::path::PathBuf;

use super::disk;
use crate::content::{AnyDigest, Digest};

/// The store could not be opened. Each message names the path and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the drive.
    #[error("drive {path}: another process is using it; stop that process or choose another path")]
    InUse {
        /// The drive.
        path: PathBuf,
    },
    /// The drive's format is newer than this release.
    #[error(
        "drive {path}: written by a newer release (format {found}, this release knows up to {known}); upgrade Waystation or use another drive"
    )]
    NewerFormat {
        /// The drive.
        path: PathBuf,
        /// Version found.
        found: u32,
        /// Newest version this release opens.
        known: u32,
    },
    /// `waystation.json` cannot be understood.
    #[error("drive {path}: waystation.json is damaged ({reason}); restore it or move the drive's content aside")]
    Damaged {
        /// The drive.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It was a drive before and has no `waystation.json` now.
    #[error(
        "drive {path}: waystation.json is missing, although this was a drive before; mount it, or for a new and empty drive run `waystation drive init {path} --config ...`"
    )]
    Lost {
        /// The drive.
        path: PathBuf,
    },
    /// There is no `waystation.json`, and it cannot be told whether this was a drive before.
    #[error(
        "drive {path}: there is no waystation.json, and {file} cannot be read ({reason}), so nobody can tell whether a drive was here; mount it, or for a new and empty drive run `waystation drive init {path} --config ...`; {file} is written anew at a start with all drives here"
    )]
    Unsure {
        /// The path.
        path: PathBuf,
        /// The file that says which paths are drives.
        file: PathBuf,
        /// Why it cannot be read.
        reason: String,
    },
    /// Another drive than the one that the path is known as.
    #[error(
        "drive {path}: drive {found} is here, and drive {known} was before; mount the right one, or run `waystation drive adopt {path}` to keep this one here"
    )]
    OtherDrive {
        /// The drive.
        path: PathBuf,
        /// Id of the one that is here.
        found: String,
        /// Id of the one that was.
        known: String,
    },
    /// It is a drive, and no empty one can be made there.
    #[error(
        "drive {path}: it is a drive already, {id}; to use it with this cache, name it in storage.drives, or run `waystation drive adopt {path}`"
    )]
    IsDrive {
        /// The drive.
        path: PathBuf,
        /// Its id.
        id: String,
    },
    /// Something else is there.
    #[error(
        "drive {path}: the directory has {found:?} in it; a new drive begins empty: choose an empty directory, or one below it"
    )]
    NotEmpty {
        /// The path.
        path: PathBuf,
        /// One of the names in it.
        found: String,
    },
    /// The configuration does not name it.
    #[error("drive {path}: it is none of storage.drives; name the configuration that has it, with --config")]
    NotConfigured {
        /// The path.
        path: PathBuf,
    },
    /// It did not answer.
    #[error("drive {path}: it did not answer within {seconds} s; check the disk and its file system")]
    Hung {
        /// The drive.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// It is no drive.
    #[error("drive {path}: there is no waystation.json, so it is no drive; check the path, and that it is mounted")]
    NoDrive {
        /// The path.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("{path}: {action}: {source}; check that the path exists and is writable by this user")]
    Io {
        /// The path.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

/// A body could not be written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No drive has room, after eviction.
    #[error("no drive has room for {needed} bytes")]
    NoSpace {
        /// Bytes that were wanted.
        needed: u64,
    },
    /// The drive failed.
    #[error("drive: {0}")]
    Io(#[from] io::Error),
    /// The write does not continue what is present.
    #[error("write at {offset} does not begin at a block's begin or valid length")]
    Misplaced {
        /// Offset of the write.
        offset: u64,
    },
}

/// A body could not be completed.
#[derive(Debug, thiserror::Error)]
pub enum CompleteError {
    /// Bytes are missing; the body stays partial.
    #[error("{missing} bytes are missing")]
    Short {
        /// How many.
        missing: u64,
    },
    /// The digest is not the expected one; the bytes are quarantined.
    #[error("digest is {actual}, expected {expected}")]
    Mismatch {
        /// What was expected.
        expected: AnyDigest,
        /// The SHA-256 of the bytes, whatever was expected.
        actual: Digest,
    },
    /// The drive failed.
    #[error("drive: {0}")]
    Io(#[from] io::Error),
}

/// Bytes could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The body is not there any more.
    #[error("the body is gone")]
    Gone,
    /// A block's checksum did not hold; the body is out of service.
    #[error("block {block} is damaged")]
    Damaged {
        /// Index of the block.
        block: u64,
    },
    /// The bytes asked for are absent.
    #[error("byte {offset} is not present")]
    Absent {
        /// The first of them.
        offset: u64,
    },
    /// The drive failed.
    #[error("drive: {0}")]
    Io(#[from] io::Error),
}

impl ReadError {
    /// Whether a file stays as it is: not as long as it was, on a drive that takes no bytes any more, or on a bad place of
    /// it. A want of descriptors or of room passes, and is no reason to give content up.
    pub fn is_lasting(&self) -> bool {
        use io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem};
        let Self::Io(error) = self else { return false };
        matches!(error.kind(), NotFound | PermissionDenied | ReadOnlyFilesystem) || disk::is_unreadable(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_no_reason_to_give_content_up() {
        let of = |errno: rustix::io::Errno| ReadError::Io(errno.into()).is_lasting();
        use rustix::io::Errno;
        assert!(of(Errno::ROFS) && of(Errno::IO) && of(Errno::NOENT) && of(Errno::ACCESS));
        assert!(!of(Errno::MFILE) && !of(Errno::NOSPC) && !of(Errno::DQUOT) && !of(Errno::INTR));
        assert!(!ReadError::Gone.is_lasting() && !ReadError::Damaged { block: 0 }.is_lasting());
    }
}
