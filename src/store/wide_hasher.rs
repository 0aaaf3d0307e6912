//! [`WideHasher`]: SHA-512 over a body from its begin, for bodies of which their source says nothing else (RFC 9530), and
//! whether what is there has the digest that it should have.
//!
//! It follows the bytes as they are hashed for the body's name, and reads from the file what it has missed: what came
//! before a restart, since no state of it is kept there, and what follows a block that was dropped.

use std::io;

use sha2::{Digest as _, Sha512};

use super::disk;
use super::error::ReadError;
use super::fill_file::{Core, Finished};
use super::partial::Partial;
use crate::content::{AnyDigest, Verifier};

/// Bytes that are read at a time.
const PIECE: u64 = 1024 * 1024;

/// The SHA-512 of a body's first bytes, in progress.
#[derive(Debug, Clone, Default)]
pub(super) struct WideHasher {
    hash: Sha512,
    position: u64,
}

impl WideHasher {
    /// Hashes `data`, whose first byte is the one at `position`, if it follows what is hashed.
    pub(super) fn follow(&mut self, position: u64, data: &[u8]) {
        if position == self.position {
            self.hash.update(data);
            self.position = self.position.saturating_add(data.len() as u64);
        }
    }

    /// What was hashed from `begin` on is not what will be there.
    pub(super) fn go_back(&mut self, begin: u64) {
        if self.position > begin {
            *self = Self::default();
        }
    }
}

impl Partial {
    /// Hashes as far as the body's own hasher has come.
    fn catch_up(&self, core: &mut Core) -> Result<WideHasher, ReadError> {
        let mut wide = core.wide.take().unwrap_or_default();
        let caught_up = loop {
            if wide.position >= core.hasher.position() {
                break Ok(());
            }
            // Not beyond: what lies there the two hash together.
            let (begin, end) = (wide.position, core.hasher.position());
            let passed = self.pass_present(begin, |_, bytes| {
                let most = usize::try_from(end - wide.position).unwrap_or(usize::MAX);
                wide.follow(wide.position, bytes.get(..most).unwrap_or(bytes));
            });
            match passed {
                Ok(true) => {}
                Ok(false) => break Err(ReadError::Absent { offset: begin }),
                Err(error) => break Err(error),
            }
        };
        core.wide = Some(wide.clone());
        caught_up.map(|()| wide)
    }

    /// What holds the bytes from `length` on against `expected`, if exactly those before are there without a gap and can be
    /// read.
    pub(super) fn verifier_of_begin(&self, length: u64, expected: AnyDigest) -> Option<Verifier> {
        let mut core = self.core.lock();
        // What cannot be read is not among them.
        let _ = self.advance(&mut core);
        if core.hasher.position() != length {
            return None;
        }
        match expected {
            AnyDigest::Sha256(digest) => Some(Verifier::sha_256(digest, core.hasher.digester())),
            AnyDigest::Sha512(digest) => {
                let wide = self.catch_up(&mut core).ok()?;
                Some(Verifier::sha_512(digest, wide.hash))
            }
        }
    }

    /// The SHA-512 of all that is hashed.
    pub(super) fn sha_512(&self, core: &mut Core) -> Result<AnyDigest, ReadError> {
        let wide = self.catch_up(core)?;
        Ok(AnyDigest::Sha512(wide.hash.finalize().into()))
    }
}

impl Finished {
    /// Whether the body has this digest.
    pub(super) fn has(&self, expected: AnyDigest) -> io::Result<bool> {
        match (expected, self.sha_512) {
            (AnyDigest::Sha256(expected), _) => Ok(expected == self.digest),
            (AnyDigest::Sha512(_), Some(wide)) => Ok(expected == wide),
            // It was not expected before.
            (AnyDigest::Sha512(_), None) => {
                let (mut verifier, mut at, length) = (expected.verifier(), 0, self.sums.length());
                while at < length {
                    let size = PIECE.min(length - at);
                    verifier.update(&disk::read_exact_at(self.file.file(), at, size as usize)?);
                    at += size;
                }
                Ok(verifier.is_right())
            }
        }
    }
}
