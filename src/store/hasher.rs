//! [`PrefixHasher`]: SHA-256 over a body from its begin, which can be put down and taken up again.
//!
//! Where midstates are kept is `map_file`'s business.

use sha2::digest::common::hazmat::SerializableState as _;
use sha2::{Digest as _, Sha256};

use crate::content::{Digest, Digester};

/// Bytes that SHA-256 takes at a time (FIPS 180-4 section 5.2.1).
const BLOCK: u64 = 64;

/// No midstate lies beyond: the standard counts up to 2^64 bits, and there must be room to go on.
const LAST_POSITION: u64 = 1 << 60;

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

    /// Goes on where `midstate` was taken; `None` when its position is not a multiple of 64 or beyond 2^60.
    pub(super) fn resume(midstate: &Midstate) -> Option<Self> {
        if !midstate.position.is_multiple_of(BLOCK) || midstate.position > LAST_POSITION {
            return None;
        }
        // The crate's form is the words, the number of steps made and the bytes held back, of which there are none.
        let mut form = Sha256::new().serialize();
        form.get_mut(..32)?.copy_from_slice(&midstate.state);
        form.get_mut(32..40)?.copy_from_slice(&(midstate.position / BLOCK).to_le_bytes());
        let hash = Sha256::deserialize(&form).ok()?;
        Some(Self { hash, position: midstate.position })
    }

    /// The same for bytes that follow elsewhere.
    pub(super) fn digester(&self) -> Digester {
        self.hash.clone().into()
    }

    /// The digest of everything hashed.
    pub(super) fn finish(self) -> Digest {
        Digest::from_bytes(self.hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The stored form must not follow a change in the crate's own: this is the standard's value after one block
    /// of zeros.
    #[test]
    fn a_midstate_is_what_the_standard_says() {
        let mut hasher = PrefixHasher::new();
        hasher.update(&[0; 64]);
        let words: Vec<u32> = {
            let state = hasher.midstate().unwrap().state;
            state.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
        };
        let expected = [0xda5698be, 0x17b9b469, 0x62335799, 0x779fbeca, 0x8ce5d491, 0xc0d26243, 0xbafef9ea, 0x1837a9d8];
        assert_eq!(words, expected);
    }

    #[test]
    fn midstates_exist_only_between_steps() {
        let mut hasher = PrefixHasher::new();
        assert_eq!(hasher.midstate().map(|midstate| midstate.position), Some(0));
        hasher.update(b"x");
        assert_eq!(hasher.midstate(), None);
        for position in [1, 63, LAST_POSITION + 64, u64::MAX - 63, u64::MAX] {
            assert!(PrefixHasher::resume(&Midstate { position, state: [0; 32] }).is_none(), "{position}");
        }
        let mut hasher = PrefixHasher::resume(&Midstate { position: LAST_POSITION, state: [0; 32] }).unwrap();
        hasher.update(&[0; 200]);
        hasher.finish();
    }

    proptest! {
        #[test]
        fn put_down_and_taken_up_anywhere_the_digest_is_the_same(
            data in prop::collection::vec(any::<u8>(), 0..2000),
            cuts in prop::collection::vec(0usize..200, 0..20),
        ) {
            let mut hasher = PrefixHasher::new();
            let mut rest = &data[..];
            for cut in cuts {
                let (piece, later) = rest.split_at(cut.min(rest.len()));
                hasher.update(piece);
                rest = later;
                prop_assert_eq!(hasher.position(), (data.len() - rest.len()) as u64);
                // Go on to the next step's begin, as one who wants a midstate does.
                let to_step = (hasher.position().next_multiple_of(BLOCK) - hasher.position()) as usize;
                if to_step <= rest.len() {
                    let (piece, later) = rest.split_at(to_step);
                    hasher.update(piece);
                    rest = later;
                    hasher = PrefixHasher::resume(&hasher.midstate().unwrap()).unwrap();
                }
            }
            hasher.update(rest);
            prop_assert_eq!(hasher.finish(), Digest::of(&data));
        }
    }
}
