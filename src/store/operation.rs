//! [`Operation`]: what an operation of `disk` is about to change on a drive, and the one way that all of them take. In
//! tests a recorder may stand there, from which what a power cut would have left is made (see `tests::power`); in a
//! program that serves, nothing does.

use std::fs::File;
#[cfg(not(test))]
use std::io;

use super::disk::Dir;
#[cfg(test)]
pub(super) use super::tests::power::recording::through;

/// A change on a drive. Names are relative to the directory.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(test), allow(dead_code, reason = "who reads it is there in tests only"))]
pub(super) enum Operation<'a> {
    /// A new file.
    Create { dir: &'a Dir, name: &'a str },
    /// Bytes of a file.
    Write { file: &'a File, offset: u64, length: u64 },
    /// Where a file ends.
    SetLength { file: &'a File, length: u64 },
    /// Blocks for bytes to come.
    Reserve { file: &'a File, offset: u64, length: u64 },
    /// A new directory.
    MakeDirectory { dir: &'a Dir, name: &'a str },
    /// Another name, in place of what had it.
    Rename { dir: &'a Dir, from: &'a str, to: &'a str },
    /// A name that goes.
    Unlink { dir: &'a Dir, name: &'a str },
    /// Bytes and length of a file become durable.
    SyncData { file: &'a File },
    /// The names in a directory become durable.
    SyncDirectory { dir: &'a Dir, name: &'a str },
}

/// Performs it.
#[cfg(not(test))]
#[inline(always)]
pub(super) fn through<T>(_: Operation<'_>, perform: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    perform()
}
