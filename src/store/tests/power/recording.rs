//! [`Recording`]: every operation that changes one store's drives and its state directory, in order, with the files they
//! were about. The index is not among them: of it copies are kept, as it was at some of the steps.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rustix::fs::AtFlags;

use super::super::copy;
use super::super::faults::Faults;
use super::Random;
use crate::store::disk::Dir;
use crate::store::layout;
use crate::store::operation::Operation;

/// A file, whatever its names.
pub(super) type FileId = usize;

/// One operation. Names are relative to the root of all directories.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Create {
        name: String,
        file: FileId,
    },
    Write {
        file: FileId,
        offset: u64,
        bytes: Vec<u8>,
    },
    SetLength {
        file: FileId,
        length: u64,
    },
    Reserve {
        file: FileId,
        end: u64,
    },
    MakeDirectory {
        name: String,
    },
    Rename {
        from: String,
        to: String,
    },
    Unlink {
        name: String,
    },
    SyncData {
        file: FileId,
    },
    SyncDirectory {
        name: String,
    },
    /// The medium has another byte there.
    Damage {
        file: FileId,
        offset: u64,
    },
}

impl Step {
    /// For people.
    pub(super) fn tell(&self) -> String {
        match self {
            Self::Write { file, offset, bytes } => format!("Write {{ file: {file}, {offset}+{} }}", bytes.len()),
            other => format!("{other:?}"),
        }
    }
}

/// Device and inode.
type Key = (u64, u64);

/// Notes what is done below `root` until it is dropped.
pub(super) struct Recording {
    root: PathBuf,
    state: Arc<Mutex<State>>,
}

struct State {
    root: PathBuf,
    directories: HashMap<Key, String>,
    files: HashMap<Key, FileId>,
    count: FileId,
    steps: Vec<Step>,
    copies: Vec<(usize, PathBuf)>,
    random: Random,
    next_copy: usize,
}

static RECORDINGS: RwLock<Vec<Arc<Mutex<State>>>> = RwLock::new(Vec::new());

/// The place that every operation passes: it is performed and noted as one.
pub(in crate::store) fn through<T>(operation: Operation<'_>, perform: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    Faults::strike(&operation)?;
    let recordings = RECORDINGS.read().clone();
    if recordings.is_empty() {
        return perform();
    }
    let (key, is_directory) = match &operation {
        Operation::Write { file, .. }
        | Operation::SetLength { file, .. }
        | Operation::Reserve { file, .. }
        | Operation::SyncData { file } => (key_of(&rustix::fs::fstat(file)?), false),
        Operation::Create { dir, .. }
        | Operation::MakeDirectory { dir, .. }
        | Operation::Rename { dir, .. }
        | Operation::Unlink { dir, .. }
        | Operation::SyncDirectory { dir, .. } => (key_of(&rustix::fs::fstat(dir.fd())?), true),
    };
    for recording in &recordings {
        let mut state = recording.lock();
        let ours = if is_directory { state.directories.contains_key(&key) } else { state.files.contains_key(&key) };
        if ours {
            let done = perform()?;
            state.note(&operation, key);
            return Ok(done);
        }
    }
    let done = perform()?;
    if let Operation::Create { dir, name } = &operation {
        // An inode that a recorded file had may be used again.
        let key = new_key(dir, name);
        for recording in &recordings {
            recording.lock().files.remove(&key);
        }
    }
    Ok(done)
}

fn key_of(stat: &rustix::fs::Stat) -> Key {
    (stat.st_dev, stat.st_ino)
}

fn new_key(dir: &Dir, name: &str) -> Key {
    key_of(&rustix::fs::statat(dir.fd(), name, AtFlags::SYMLINK_NOFOLLOW).unwrap())
}

impl State {
    fn note(&mut self, operation: &Operation<'_>, key: Key) {
        let root = self.directories.get(&key).cloned().unwrap_or_default();
        let name = |name: &str| if name == "." { root.clone() } else { format!("{root}/{name}") };
        let file = self.files.get(&key).copied().unwrap_or(FileId::MAX);
        let step = match *operation {
            Operation::Create { dir, name: new } => {
                let step = Step::Create { name: name(new), file: self.count };
                self.files.insert(new_key(dir, new), self.count);
                self.count += 1;
                step
            }
            Operation::Write { file: open, offset, length } => {
                let mut bytes = vec![0; length as usize];
                open.read_exact_at(&mut bytes, offset).unwrap();
                Step::Write { file, offset, bytes }
            }
            Operation::SetLength { length, .. } => Step::SetLength { file, length },
            Operation::Reserve { offset, length, .. } => Step::Reserve { file, end: offset + length },
            Operation::MakeDirectory { name: new, .. } => Step::MakeDirectory { name: name(new) },
            Operation::Rename { from, to, .. } => Step::Rename { from: name(from), to: name(to) },
            Operation::Unlink { name: old, .. } => Step::Unlink { name: name(old) },
            Operation::SyncData { .. } => Step::SyncData { file },
            Operation::SyncDirectory { name: directory, .. } => Step::SyncDirectory { name: name(directory) },
        };
        self.push(step);
    }

    fn push(&mut self, step: Step) {
        self.steps.push(step);
        if self.steps.len() >= self.next_copy {
            self.next_copy = self.steps.len() + 1 + self.random.below(60);
            let index = self.root.join("state").join(layout::MIRROR);
            if index.is_dir() {
                let to = self.root.join(format!("copy{}", self.copies.len()));
                fs::create_dir(&to).unwrap();
                copy(&index, &to);
                self.copies.push((self.steps.len(), to));
            }
        }
    }
}

impl Recording {
    /// Notes what is done in these directories of `root`, which are made.
    pub(super) fn start(root: &Path, directories: &[&str], seed: u64) -> Self {
        let key = |name: &&str| {
            let path = root.join(name);
            fs::create_dir_all(&path).unwrap();
            let meta = fs::metadata(&path).unwrap();
            ((meta.dev(), meta.ino()), (*name).to_owned())
        };
        let state = State {
            root: root.to_owned(),
            directories: directories.iter().map(key).collect(),
            files: HashMap::new(),
            count: 0,
            steps: Vec::new(),
            copies: Vec::new(),
            random: Random::new(seed),
            next_copy: 0,
        };
        let state = Arc::new(Mutex::new(state));
        RECORDINGS.write().push(Arc::clone(&state));
        Self { root: root.to_owned(), state }
    }

    /// Number of steps so far.
    pub(super) fn len(&self) -> usize {
        self.state.lock().steps.len()
    }

    /// What was done.
    pub(super) fn steps(&self) -> Vec<Step> {
        self.state.lock().steps.clone()
    }

    /// Copies of the index, each with the number of steps before it was made.
    pub(super) fn copies(&self) -> Vec<(usize, PathBuf)> {
        self.state.lock().copies.clone()
    }

    /// Flips a bit on the medium; `false` when there is no such byte.
    pub(super) fn damage(&self, name: &str, offset: u64) -> bool {
        let mut state = self.state.lock();
        let Ok(file) = File::options().read(true).write(true).open(self.root.join(name)) else { return false };
        let meta = file.metadata().unwrap();
        let mut byte = [0];
        if file.read_exact_at(&mut byte, offset).is_err() {
            return false;
        }
        file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
        let file = state.files[&(meta.dev(), meta.ino())];
        state.push(Step::Damage { file, offset });
        true
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        RECORDINGS.write().retain(|state| !Arc::ptr_eq(state, &self.state));
    }
}
