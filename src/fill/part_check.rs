//! [`PartCheck`]: whether a part of a body is what its `Content-Digest` says, and how long its bytes wait for that. Pure:
//! the time is given.
//!
//! A short part is held in memory until it is checked, so that nobody gets a byte of a wrong one. A long one would take
//! the machine's memory, and one that comes slowly the client's patience: their bytes are given out as they come, and
//! hashed on the way. That one of those was wrong is known only at its end.

use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::stream::{Batch, Ending};
use crate::content::{ByteRange, Digest};

/// A part that is longer is not held, in bytes.
const HELD: u64 = 8 * 1024 * 1024;
/// Nor one that takes longer: as long as a client waits for the digest of a whole body.
const HELD_FOR: Duration = Duration::from_secs(8);

/// The check of one part while it comes.
pub(super) struct PartCheck {
    expected: Digest,
    part: ByteRange,
    hash: Sha256,
    received: u64,
    held: Option<Held>,
}

/// What waits for the verdict.
struct Held {
    bytes: Vec<Bytes>,
    until: Instant,
}

impl PartCheck {
    /// The bytes of `part`, whose content must hash to `expected`, are about to come.
    pub(super) fn new(expected: Digest, part: ByteRange, now: Instant) -> Self {
        let held = (part.len() <= HELD).then(|| Held { bytes: Vec::new(), until: now + HELD_FOR });
        Self { expected, part, hash: Sha256::new(), received: 0, held }
    }

    /// Takes what came, and gives what may be given out; `None` while that is nothing.
    pub(super) fn take(&mut self, mut batch: Batch, now: Instant) -> Option<Batch> {
        batch.bytes.iter().for_each(|piece| self.hash.update(piece));
        self.received = self.received.saturating_add(batch.size);
        // With its last byte a part is whole, whatever comes behind: who has all may not wait for the mark of the end.
        let is_whole = batch.end == Some(Ending::Marked) || self.received >= self.part.len();
        let is_wrong = is_whole && Digest::from_bytes(self.hash.clone().finalize().into()) != self.expected;
        let given_out = self.held.is_none();
        if let Some(held) = &mut self.held {
            held.bytes.append(&mut batch.bytes);
            batch.at = self.part.start();
            batch.size = 0;
            match batch.end {
                _ if is_whole => {}
                None if now < held.until => return None,
                None => {}
                // What is not whole cannot be checked.
                Some(_) => return Some(batch),
            }
            if !is_wrong {
                batch.bytes = self.held.take().map(|held| held.bytes).unwrap_or_default();
                batch.size = self.received;
            }
        }
        if is_wrong {
            (batch.bytes, batch.size) = (Vec::new(), 0);
            batch.end = Some(Ending::WrongDigest { given_out });
        } else if is_whole {
            batch.end = Some(Ending::Marked);
        }
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: ByteRange = match ByteRange::new(100, 106) {
        Some(part) => part,
        None => unreachable!(),
    };

    fn batch(at: u64, bytes: &'static [u8], end: Option<Ending>) -> Batch {
        Batch { at, bytes: vec![Bytes::from_static(bytes)], size: bytes.len() as u64, end }
    }

    fn shown(batch: &Batch) -> (u64, Vec<u8>, Option<Ending>) {
        assert_eq!(batch.size, batch.bytes.concat().len() as u64);
        (batch.at, batch.bytes.concat(), batch.end)
    }

    #[test]
    fn a_short_part_is_given_out_once_it_is_checked() {
        let now = Instant::now();
        let mut check = PartCheck::new(Digest::of(b"abcdef"), PART, now);
        assert!(check.take(batch(100, b"abc", None), now).is_none());
        let whole = check.take(batch(103, b"def", None), now).unwrap();
        assert_eq!(shown(&whole), (100, b"abcdef".to_vec(), Some(Ending::Marked)), "the last byte is the end");
    }

    #[test]
    fn nothing_is_given_out_of_a_short_part_that_is_wrong_or_cut() {
        let now = Instant::now();
        let wrong = Some(Ending::WrongDigest { given_out: false });
        for (last, end, shows) in [
            (&b"deX"[..], None, wrong),
            (b"de", Some(Ending::Marked), wrong),
            (b"de", Some(Ending::Closed), Some(Ending::Closed)),
        ] {
            let mut check = PartCheck::new(Digest::of(b"abcdef"), PART, now);
            assert!(check.take(batch(100, b"abc", None), now).is_none());
            assert_eq!(shown(&check.take(batch(103, last, end), now).unwrap()), (100, Vec::new(), shows));
        }
    }

    #[test]
    fn a_long_or_slow_part_is_given_out_as_it_comes_and_judged_at_its_end() {
        let now = Instant::now();
        let (later, long) = (now + HELD_FOR, ByteRange::new(100, 101 + HELD).unwrap());
        let mut check = PartCheck::new(Digest::of(b""), long, now);
        assert_eq!(shown(&check.take(batch(100, b"abc", None), now).unwrap()), (100, b"abc".to_vec(), None));
        for (last, end) in [(b"def", Ending::Marked), (b"deX", Ending::WrongDigest { given_out: true })] {
            let mut check = PartCheck::new(Digest::of(b"abcdef"), PART, now);
            assert!(check.take(batch(100, b"ab", None), now).is_none());
            let slow = check.take(batch(102, b"c", None), later).unwrap();
            assert_eq!(shown(&slow), (100, b"abc".to_vec(), None), "what was held comes, too");
            let last = check.take(batch(103, last, None), later).unwrap();
            let bytes = if end == Ending::Marked { b"def".to_vec() } else { Vec::new() };
            assert_eq!(shown(&last), (103, bytes, Some(end)));
        }
    }
}
