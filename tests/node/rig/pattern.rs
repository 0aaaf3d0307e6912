//! Content that can be computed at any position: files of any length without memory, checked byte for byte.

use sha2::{Digest as _, Sha256};

/// A body of `len` bytes, a function of `seed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pattern {
    pub(crate) seed: u64,
    pub(crate) len: u64,
}

/// The `index`-th 8 bytes of the pattern of `seed` (splitmix64).
pub(crate) fn word(seed: u64, index: u64) -> [u8; 8] {
    let mut z = seed.wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)).to_le_bytes()
}

impl Pattern {
    pub(crate) fn new(seed: u64, len: u64) -> Self {
        Self { seed, len }
    }

    /// Writes the bytes from `offset` on into `out`.
    pub(crate) fn fill(&self, offset: u64, out: &mut [u8]) {
        let mut index = offset / 8;
        let skip = (offset % 8) as usize;
        let mut out = out;
        if skip > 0 {
            let head = word(self.seed, index);
            let take = (8 - skip).min(out.len());
            let (now, rest) = out.split_at_mut(take);
            now.copy_from_slice(&head[skip..skip + take]);
            (out, index) = (rest, index + 1);
        }
        let mut words = out.chunks_exact_mut(8);
        for place in &mut words {
            place.copy_from_slice(&word(self.seed, index));
            index += 1;
        }
        let rest = words.into_remainder();
        let tail = word(self.seed, index);
        rest.copy_from_slice(&tail[..rest.len()]);
    }

    /// The bytes `from..to`.
    pub(crate) fn slice(&self, from: u64, to: u64) -> Vec<u8> {
        let mut bytes = vec![0; (to - from) as usize];
        self.fill(from, &mut bytes);
        bytes
    }

    /// All bytes; for small patterns.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.slice(0, self.len)
    }

    /// Where `bytes`, standing at `offset`, first differ from the pattern or leave its end.
    pub(crate) fn first_difference(&self, offset: u64, bytes: &[u8]) -> Option<u64> {
        let mut want = [0; 16 * 1024];
        let mut at = offset;
        for chunk in bytes.chunks(want.len()) {
            let want = &mut want[..chunk.len()];
            self.fill(at, want);
            if want != chunk {
                let same = want.iter().zip(chunk).take_while(|(a, b)| a == b).count();
                return Some(at + same as u64);
            }
            at += chunk.len() as u64;
        }
        (at > self.len).then_some(self.len)
    }

    /// The SHA-256 of the whole.
    pub(crate) fn sha256(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 * 1024];
        let mut at = 0;
        while at < self.len {
            let take = (self.len - at).min(buffer.len() as u64) as usize;
            self.fill(at, &mut buffer[..take]);
            hash.update(&buffer[..take]);
            at += take as u64;
        }
        hash.finalize().into()
    }
}

#[test]
fn a_pattern_is_the_same_from_every_offset() {
    let pattern = Pattern::new(7, 100);
    let whole = pattern.bytes();
    for from in 0..100 {
        for to in from..=100 {
            assert_eq!(pattern.slice(from, to), whole[from as usize..to as usize], "{from}..{to}");
        }
    }
    assert_eq!(pattern.first_difference(3, &whole[3..50]), None);
    let mut wrong = whole.clone();
    wrong[41] ^= 1;
    assert_eq!(pattern.first_difference(3, &wrong[3..]), Some(41));
    assert_eq!(pattern.first_difference(90, &[&whole[90..], &[1][..]].concat()), Some(100));
}
