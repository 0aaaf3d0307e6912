//! [`Lost`]: the bodies of a batch that could not be made durable, and whether their files stay. Who makes them durable is
//! `commit`.

use std::collections::HashMap;
use std::io;

use super::disk;
use crate::content::Digest;

/// Bodies that count as missing.
#[derive(Debug, Default)]
pub(super) struct Lost {
    bodies: HashMap<Digest, Files>,
}

/// What becomes of the files of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Files {
    /// They go.
    Go,
    /// The next start finds them and puts the body back (see `adopt`): all its bytes are durable, and only what came after
    /// failed, since the drive did.
    Stay,
}

impl Lost {
    /// Whether it is among them.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.bodies.contains_key(digest)
    }

    /// What becomes of the files of a body, if it is among them.
    pub(super) fn files(&self, digest: &Digest) -> Option<Files> {
        self.bodies.get(digest).copied()
    }

    /// The bytes of a body may not be durable.
    pub(super) fn without_bytes(&mut self, digest: Digest) {
        self.bodies.insert(digest, Files::Go);
    }

    /// What was to be done with bodies after their bytes were durable failed. For want of room they go, since nothing else
    /// would ever make some; and so they do while the drive `is_in_service`, since it takes more, and nobody counts them.
    pub(super) fn with_bytes(&mut self, digests: impl Iterator<Item = Digest>, error: &io::Error, is_in_service: bool) {
        let files = if is_in_service || disk::is_full(error) { Files::Go } else { Files::Stay };
        digests.for_each(|digest| {
            self.bodies.entry(digest).or_insert(files);
        });
    }
}
