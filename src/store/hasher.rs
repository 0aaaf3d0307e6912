//! [`PrefixHasher`]: SHA-256 over a body from its begin, which can be put down and taken up again.
//!
//! Where midstates are kept is `map_file`'s business.

use sha2::digest::common::hazmat::SerializableState as _;
use sha2::{Digest as _, Sha256};

use crate::content::Digest;

/// Bytes that SHA-256 takes at a time (FIPS 180-4 section 5.2.1).
const BLOCK: u64 = 64;

/// The SHA-256 of a body's first bytes, in progress.
#[derive(Debug, Clone, Default)]
pub(super) struct PrefixHasher {
    hash: Sha256,
    position: u64,
}

/// A [`PrefixHasher`] put down. Nothing but the standard decides what is in it, so it may rest on a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Midstate {
    /// Number of bytes that were hashed, a multiple of 64.
    pub(super) position: u64,
    /// The intermediate hash value after them (FIPS 180-4 section 6.2.2), as eight little-endian words.
    pub(super) state: [u8; 32],
}

impl PrefixHasher {
    /// Nothing is hashed yet.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Number of bytes hashed.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Hashes the bytes that follow.
    pub(super) fn update(&mut self, data: &[u8]) {
        self.hash.update(data);
        self.position = self.position.saturating_add(data.len() as u64);
    }

    /// The state to go on from later; `None` unless the position is a multiple of 64, when bytes are held back
    /// for the next step of the function.
    pub(super) fn midstate(&self) -> Option<Midstate> {
        if !self.position.is_multiple_of(BLOCK) {
            return None;
        }
        let mut state = [0; 32];
        state.copy_from_slice(self.hash.serialize().get(..32)?);
        Some(Midstate { position: self.position, state })
    }

    /// Goes on where `midstate` was taken; `None` when its position is not a multiple of 64.
    pub(super) fn resume(midstate: &Midstate) -> Option<Self> {
        if !midstate.position.is_multiple_of(BLOCK) {
            return None;
        }
        // The crate's form is the words, the number of steps made and the bytes held back, of which there are none.
        let mut form = Sha256::new().serialize();
        form.get_mut(..32)?.copy_from_slice(&midstate.state);
        form.get_mut(32..40)?.copy_from_slice(&(midstate.position / BLOCK).to_le_bytes());
        let hash = Sha256::deserialize(&form).ok()?;
        Some(Self { hash, position: midstate.position })
    }

    /// The digest of everything hashed.
    pub(super) fn finish(self) -> Digest {
        Digest::from_bytes(self.hash.finalize().into())
    }
}
