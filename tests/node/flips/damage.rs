//! What happens to a file.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::BLOCK;
use super::site::Site;
use crate::rig::Dice;
use crate::rig::running_node::{Setup, files_below};

/// Kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Blob,
    PartialData,
    PartialMap,
    Journal,
    /// The state directory: index, which drives there are, who was given what.
    State,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Flip { at: u64, bit: u8 },
    Overwrite { at: u64, len: u64 },
    Truncate { to: u64 },
    Delete,
}

/// One damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) class: Class,
    pub(super) kind: Kind,
    file: String,
}

impl Class {
    /// For which a journal may have to be read that lacks something.
    pub(super) fn is_of_journals(self) -> bool {
        matches!(self, Self::Journal | Self::State)
    }

    fn files(self, setup: &Setup) -> Vec<PathBuf> {
        let drive = setup.path("drive1");
        let (directory, suffix) = match self {
            Self::Blob => (drive.join("blobs"), ""),
            Self::PartialData => (drive.join("partial"), ".data"),
            Self::PartialMap => (drive.join("partial"), ".map"),
            Self::Journal => (drive.join("journal"), ""),
            Self::State => (setup.path("state"), ""),
        };
        let mut files = files_below(&directory);
        files.retain(|file| file.to_string_lossy().ends_with(suffix) && length(file) > 0);
        files
    }

    /// Of those whose files a running node reads.
    fn chosen_live(dice: &mut Dice) -> Self {
        if dice.below(3) == 0 { Self::PartialData } else { Self::Blob }
    }

    fn chosen(dice: &mut Dice) -> Self {
        match dice.below(100) {
            0..=39 => Self::Blob,
            40..=54 => Self::PartialData,
            55..=69 => Self::PartialMap,
            70..=84 => Self::Journal,
            _ => Self::State,
        }
    }
}

impl Damage {
    /// Changes a file of a node that runs, or does not.
    pub(super) fn strike(setup: &Setup, dice: &mut Dice, is_live: bool) -> Self {
        let mut class = if is_live { Class::chosen_live(dice) } else { Class::chosen(dice) };
        let mut files = class.files(setup);
        if files.is_empty() {
            class = Class::Blob;
            files = class.files(setup);
        }
        let file = &files[dice.below(files.len() as u64) as usize];
        let length = length(file);
        let kind = match dice.below(100) {
            0..=74 => Kind::Flip { at: dice.below(length), bit: dice.below(8) as u8 },
            75..=86 => Kind::Overwrite { at: dice.below(length), len: 64 << dice.below(11) },
            87..=93 => Kind::Truncate { to: dice.below(length) },
            _ => Kind::Delete,
        };
        kind.apply(file, dice);
        let name = file.strip_prefix(setup.path("")).unwrap_or(file).display().to_string();
        Self { class, kind, file: name }
    }

    pub(super) fn is_flip(&self) -> bool {
        matches!(self.kind, Kind::Flip { .. })
    }

    /// Bytes of partial bodies that may have to be fetched again. Of blobs the drive itself tells.
    pub(super) fn of_partials(&self, site: &Site) -> u64 {
        match (self.class, self.kind) {
            (Class::Blob | Class::Journal | Class::State, _) => 0,
            (_, Kind::Flip { .. }) => BLOCK,
            (Class::PartialData, Kind::Overwrite { at, len }) => ((at + len - 1) / BLOCK - at / BLOCK + 1) * BLOCK,
            // Blocks are fetched whole.
            _ => site.longest_partial().next_multiple_of(BLOCK),
        }
    }
}

impl Kind {
    pub(super) fn apply(self, path: &Path, dice: &mut Dice) {
        if self == Self::Delete {
            return std::fs::remove_file(path).unwrap();
        }
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        match self {
            Self::Flip { at, bit } => {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ (1 << bit)], at).unwrap();
            }
            Self::Overwrite { at, len } => {
                let len = len.min(length(path) - at);
                let bytes: Vec<u8> = (0..len).map(|_| dice.below(256) as u8).collect();
                file.write_all_at(&bytes, at).unwrap();
            }
            Self::Truncate { to } => file.set_len(to).unwrap(),
            Self::Delete => {}
        }
    }
}

pub(super) fn length(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |facts| facts.len())
}
