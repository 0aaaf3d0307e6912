//! [`Quarry`]: contents of any number that cost no memory of their own, each unlike all others.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::Dice;
use super::pattern::Pattern;

/// One content under one entity tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) bytes: Bytes,
    pub(crate) tag: String,
    pub(crate) sha256: [u8; 32],
}

/// Random bytes of which contents are cut.
#[derive(Debug, Clone)]
pub(crate) struct Quarry {
    rock: Bytes,
    cut: u64,
}

impl Quarry {
    /// For contents of up to `longest` bytes.
    pub(crate) fn new(seed: u64, longest: u64) -> Self {
        Self { rock: Pattern::new(seed, longest + (1 << 20)).bytes().into(), cut: 0 }
    }

    /// A content of `len` bytes. It begins where no other one does, so no two have a byte run in the same place.
    pub(crate) fn cut(&mut self, len: u64) -> Content {
        // Odd multiples walk through all offsets below 2^20 before one comes again.
        let from = (self.cut * 0x5_43A7) % (1 << 20);
        self.cut += 1;
        let bytes = self.rock.slice(from as usize..(from + len) as usize);
        Content { tag: format!("\"{}-{len}\"", self.cut), sha256: Sha256::digest(&bytes).into(), bytes }
    }
}

impl Content {
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether `piece` is what stands at `at`.
    pub(crate) fn has(&self, at: u64, piece: &[u8]) -> bool {
        let at = at as usize;
        self.bytes.get(at..at + piece.len()) == Some(piece)
    }

    /// The path of its blob below a drive.
    pub(crate) fn blob(&self) -> String {
        let hex: String = self.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        let (first, rest) = hex.split_at(2);
        format!("blobs/sha256/{first}/{rest}")
    }
}

/// A length between 1 KiB and `longest`, short ones as likely as long ones.
pub(crate) fn some_length(dice: &mut Dice, longest: u64) -> u64 {
    let bits = 10 + dice.below(u64::from(longest.ilog2()) - 9);
    (1 << bits | dice.below(1 << bits)).min(longest)
}
