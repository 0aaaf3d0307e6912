//! [`Faults`]: file operations below a directory that fail as on a full drive, from the n-th on.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rustix::io::Errno;

use crate::store::operation::Operation;

static FAULTS: RwLock<Vec<Arc<Mutex<State>>>> = RwLock::new(Vec::new());

/// Counts the operations below a directory that need room, and has some of them fail, until it is dropped.
pub(crate) struct Faults(Arc<Mutex<State>>);

struct State {
    root: PathBuf,
    count: u64,
    /// The first one that fails, counted from 1, and how many do.
    fails: (u64, u64),
    error: Errno,
    struck: u64,
}

impl Faults {
    /// Those below `root` from the `first`-th on, so many of them, fail with `error`.
    pub(crate) fn below(root: &Path, first: u64, many: u64, error: Errno) -> Self {
        let root = root.canonicalize().unwrap();
        let state = Arc::new(Mutex::new(State { root, count: 0, fails: (first, many), error, struck: 0 }));
        FAULTS.write().push(Arc::clone(&state));
        Self(state)
    }

    /// Operations that need room so far.
    pub(crate) fn count(&self) -> u64 {
        self.0.lock().count
    }

    /// How many have failed.
    pub(crate) fn struck(&self) -> u64 {
        self.0.lock().struck
    }

    /// What is about to be done, if it is below one of the directories and its turn has come.
    pub(in crate::store) fn strike(operation: &Operation<'_>) -> io::Result<()> {
        let all = FAULTS.read().clone();
        if all.is_empty() {
            return Ok(());
        }
        // Those that may need a block. What only gives room back does not fail for want of it.
        let path = match operation {
            Operation::Write { file, .. } | Operation::Reserve { file, .. } | Operation::SyncData { file } => {
                path_of(file)
            }
            Operation::Create { dir, .. } | Operation::MakeDirectory { dir, .. } | Operation::Rename { dir, .. } => {
                path_of(dir.fd())
            }
            Operation::SetLength { .. } | Operation::Unlink { .. } | Operation::SyncDirectory { .. } => return Ok(()),
        };
        let Some(state) = all.iter().find(|state| path.starts_with(&state.lock().root)) else { return Ok(()) };
        let mut state = state.lock();
        state.count += 1;
        let (first, many) = state.fails;
        if state.count < first || state.count - first >= many {
            return Ok(());
        }
        state.struck += 1;
        if let Operation::Write { file, offset, length } = operation {
            short_write(file, *offset, length / 2);
        }
        Err(state.error.into())
    }
}

/// A part of the bytes may be there, and nobody knows which.
fn short_write(file: &File, offset: u64, length: u64) {
    let most = usize::try_from(length.min(10_000)).unwrap();
    file.write_all_at(&vec![0xee; most], offset).unwrap();
}

fn path_of(file: impl AsFd) -> PathBuf {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())).unwrap_or_default()
}

impl Drop for Faults {
    fn drop(&mut self) {
        FAULTS.write().retain(|state| !Arc::ptr_eq(state, &self.0));
    }
}
