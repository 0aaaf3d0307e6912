//! [`Disk`]: a disk that forgets. It takes the steps of a recording and knows what is durable; of the rest, a cut keeps,
//! forgets or tears each by itself.
//!
//! Durable are the bytes and the length of a file with `fdatasync`, and the names in a directory with its `fsync`; the
//! name of a directory is one in the directory above it. Nothing else is, although the common file systems promise more:
//! - a write that was not synced is there, or not, or up to some sector; behind the old end its place may have zeros;
//! - names that were made or removed since the last `fsync` of their directory are so or not, each by itself, or in order
//!   up to some point;
//! - a rename is done, or not, or left under both names; never under neither. It is durable with the directory that
//!   loses the name, or for the new name with the directory that gets it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::Random;
use super::recording::{FileId, Step};
use crate::store::disk::preallocate;

const SECTOR: usize = 512;
/// Places of zeros of this size are left as holes.
const PAGE: usize = 4096;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    File(FileId),
    Directory,
}

/// A change of names that is not durable.
#[derive(Debug, Clone)]
enum NameChange {
    Link { name: String, node: Node },
    Unlink { name: String, node: Node },
    Rename { from: String, to: String, node: Node },
}

/// A change of a file that is not durable.
#[derive(Debug, Clone)]
enum ByteChange {
    Write { offset: u64, bytes: Vec<u8> },
    SetLength(u64),
    Reserve(u64),
}

/// A file on the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// End of what is reserved for it.
    pub(super) reserved: u64,
}

#[derive(Debug, Clone, Default)]
struct Stored {
    durable: Content,
    pending: Vec<ByteChange>,
}

/// The disk, between two steps.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    files: BTreeMap<FileId, Stored>,
    /// Names as the running system sees them.
    seen: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
    pending: Vec<NameChange>,
}

/// What is on the medium after a cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remains {
    pub(super) names: BTreeMap<String, Node>,
    pub(super) files: BTreeMap<FileId, Content>,
}

/// How a cut deals with what is not durable: chances in percent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// That names change in order up to a point, and not each by itself.
    pub(super) in_order: bool,
    /// That a change of names is kept.
    pub(super) names: usize,
    /// That a rename is kept without taking the old name away.
    pub(super) both_names: usize,
    /// That a change of bytes is kept whole.
    pub(super) bytes: usize,
    /// That one that is not kept whole leaves a part.
    pub(super) torn: usize,
}

impl Cut {
    /// Some way.
    pub(super) fn any(random: &mut Random) -> Self {
        const CHANCES: [usize; 5] = [0, 15, 50, 85, 100];
        let chance = |random: &mut Random| CHANCES[random.below(CHANCES.len())];
        Self {
            in_order: random.chance(30),
            names: chance(random),
            both_names: if random.chance(20) { 50 } else { 0 },
            bytes: chance(random),
            torn: chance(random),
        }
    }
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl Disk {
    /// With these directories, which are durable.
    pub(super) fn new(directories: &[&str]) -> Self {
        let seen: BTreeMap<_, _> = directories.iter().map(|name| ((*name).to_owned(), Node::Directory)).collect();
        Self { files: BTreeMap::new(), durable: seen.clone(), seen, pending: Vec::new() }
    }

    /// Takes one step.
    pub(super) fn apply(&mut self, step: &Step) {
        match step {
            Step::Create { name, file } => {
                self.files.insert(*file, Stored::default());
                self.link(name, Node::File(*file));
            }
            Step::MakeDirectory { name } => {
                if !self.seen.contains_key(name) {
                    self.link(name, Node::Directory);
                }
            }
            Step::Unlink { name } => {
                if let Some(node) = self.seen.remove(name) {
                    self.pending.push(NameChange::Unlink { name: name.clone(), node });
                }
            }
            Step::Rename { from, to } => {
                // The index, which is set aside when it cannot be used, is not on this disk.
                let Some(node) = self.seen.get(from).copied() else { return };
                // Two names of one file stay as they are (POSIX).
                if self.seen.get(to) != Some(&node) {
                    self.seen.remove(from);
                    self.seen.insert(to.clone(), node);
                    self.pending.push(NameChange::Rename { from: from.clone(), to: to.clone(), node });
                }
            }
            Step::SyncDirectory { name } => self.sync_directory(name),
            Step::Write { file, offset, bytes } => {
                self.changed(*file, ByteChange::Write { offset: *offset, bytes: bytes.clone() });
            }
            Step::SetLength { file, length } => self.changed(*file, ByteChange::SetLength(*length)),
            Step::Reserve { file, end } => self.changed(*file, ByteChange::Reserve(*end)),
            Step::SyncData { file } => {
                if let Some(stored) = self.files.get_mut(file) {
                    for change in std::mem::take(&mut stored.pending) {
                        stored.durable.apply(&change);
                    }
                }
            }
            Step::Damage { file, offset } => {
                if let Some(byte) = self.files.get_mut(file).and_then(|s| s.durable.bytes.get_mut(*offset as usize)) {
                    *byte ^= 1;
                }
            }
        }
    }

    fn link(&mut self, name: &str, node: Node) {
        self.seen.insert(name.to_owned(), node);
        self.pending.push(NameChange::Link { name: name.to_owned(), node });
    }

    fn changed(&mut self, file: FileId, change: ByteChange) {
        if let Some(stored) = self.files.get_mut(&file) {
            stored.pending.push(change);
        }
    }

    fn sync_directory(&mut self, directory: &str) {
        let here = |name: &str| parent(name) == directory;
        let mut waiting: Vec<NameChange> = Vec::new();
        for change in std::mem::take(&mut self.pending) {
            match change {
                NameChange::Link { ref name, node } if here(name) => drop(self.durable.insert(name.clone(), node)),
                NameChange::Unlink { ref name, node } if here(name) => remove(&mut self.durable, name, node),
                NameChange::Rename { from, to, node } if here(&from) || here(&to) => {
                    // What was to become of the new name before is over.
                    waiting = waiting.into_iter().filter_map(|earlier| without(earlier, &to)).collect();
                    self.durable.insert(to, node);
                    if here(&from) {
                        remove(&mut self.durable, &from, node);
                    } else {
                        waiting.push(NameChange::Unlink { name: from, node });
                    }
                }
                other => waiting.push(other),
            }
        }
        self.pending = waiting;
    }
}

impl Disk {
    /// What the medium has when the power goes now.
    pub(super) fn cut(&self, how: Cut, random: &mut Random) -> Remains {
        let mut names = self.durable.clone();
        let in_order = random.below(self.pending.len() + 1);
        for (number, change) in self.pending.iter().enumerate() {
            let kept = if how.in_order { number < in_order } else { random.chance(how.names) };
            if kept {
                let both = !how.in_order && random.chance(how.both_names);
                keep(&mut names, change, both);
            }
        }
        // Names below a directory that has none are not there.
        let directories: BTreeSet<String> =
            names.iter().filter(|(_, n)| **n == Node::Directory).map(|(n, _)| n.clone()).collect();
        names.retain(|name, _| name.match_indices('/').all(|(at, _)| directories.contains(&name[..at])));
        let mut files = BTreeMap::new();
        for node in names.values() {
            if let Node::File(file) = node {
                files.entry(*file).or_insert_with(|| self.files[file].cut(how, random));
            }
        }
        Remains { names, files }
    }

    /// What a process finds that begins now, without a cut.
    pub(super) fn now(&self) -> Remains {
        let whole = |stored: &Stored| {
            let mut content = stored.durable.clone();
            stored.pending.iter().for_each(|change| content.apply(change));
            content
        };
        let files = self.files.iter().filter(|(file, _)| self.seen.values().any(|node| *node == Node::File(**file)));
        Remains { names: self.seen.clone(), files: files.map(|(file, stored)| (*file, whole(stored))).collect() }
    }
}

/// What is left to do of a change once the name `settled` stands for something else for good.
fn without(change: NameChange, settled: &str) -> Option<NameChange> {
    match change {
        NameChange::Link { name, .. } | NameChange::Unlink { name, .. } if name == settled => None,
        NameChange::Rename { from, to, node } if to == settled => Some(NameChange::Unlink { name: from, node }),
        other => Some(other),
    }
}

fn keep(names: &mut BTreeMap<String, Node>, change: &NameChange, both: bool) {
    match change {
        NameChange::Link { name, node } => drop(names.insert(name.clone(), *node)),
        NameChange::Unlink { name, node } => remove(names, name, *node),
        // Into a directory that is not there it cannot have been moved.
        NameChange::Rename { to, .. } if names.get(parent(to)) != Some(&Node::Directory) => {}
        NameChange::Rename { from, to, node } => {
            names.insert(to.clone(), *node);
            if !both {
                remove(names, from, *node);
            }
        }
    }
}

fn remove(names: &mut BTreeMap<String, Node>, name: &str, node: Node) {
    if names.get(name) == Some(&node) {
        names.remove(name);
    }
}

impl Content {
    fn apply(&mut self, change: &ByteChange) {
        match change {
            ByteChange::Write { offset, bytes } => self.write(*offset as usize, bytes),
            ByteChange::SetLength(length) => {
                self.bytes.resize(*length as usize, 0);
                self.reserved = 0;
            }
            ByteChange::Reserve(end) => self.reserved = self.reserved.max(*end),
        }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
    }
}

impl Stored {
    fn cut(&self, how: Cut, random: &mut Random) -> Content {
        let mut content = self.durable.clone();
        for change in &self.pending {
            if random.chance(how.bytes) {
                content.apply(change);
            } else if let ByteChange::Write { offset, bytes } = change
                && random.chance(how.torn)
            {
                let (begin, end) = (*offset as usize, *offset as usize + bytes.len());
                // Up to the end of some sector; or its length alone.
                let sectors = end / SECTOR - begin / SECTOR;
                let torn = ((begin / SECTOR + random.below(sectors + 1)) * SECTOR).clamp(begin, end);
                content.write(begin, &bytes[..torn - begin]);
                if random.chance(50) && content.bytes.len() < end {
                    content.bytes.resize(end, 0);
                }
            }
        }
        content
    }
}

impl Remains {
    /// Whether a file has more than one.
    pub(super) fn has_two_names(&self) -> bool {
        let mut met = BTreeSet::new();
        self.names.values().any(|node| matches!(node, Node::File(file) if !met.insert(*file)))
    }

    /// Makes it so in an empty directory.
    pub(super) fn write_to(&self, root: &Path) {
        let mut written: BTreeMap<FileId, &str> = BTreeMap::new();
        for (name, node) in &self.names {
            let path = root.join(name);
            match node {
                Node::Directory => fs::create_dir(path).unwrap(),
                Node::File(file) => match written.get(file) {
                    Some(first) => fs::hard_link(root.join(first), path).unwrap(),
                    None => {
                        self.files[file].write_to(&path);
                        written.insert(*file, name);
                    }
                },
            }
        }
    }
}

impl Content {
    fn write_to(&self, path: &Path) {
        let file = File::create_new(path).unwrap();
        for (number, page) in self.bytes.chunks(PAGE).enumerate() {
            if page.iter().any(|byte| *byte != 0) {
                file.write_all_at(page, (number * PAGE) as u64).unwrap();
            }
        }
        file.set_len(self.bytes.len() as u64).unwrap();
        if self.reserved > self.bytes.len() as u64 {
            preallocate(&file, 0, self.reserved).unwrap();
        }
    }
}
