//! [`PartCheck`]: whether a part of a body is what its `Content-Digest` says, and how long its bytes wait for that. Pure:
//! the time is given.
//!
//! A short part is held in memory until it is checked, so that nobody gets a byte of a wrong one. A long one would take
//! the machine's memory, as many short ones at a time would, and one that comes slowly the client's patience: their bytes
//! are given out as they come, and hashed on the way. That one of those was wrong is known only at its end.
//!
//! A part that is cut was paid for and cannot be checked yet: what came of it is given out, and the check goes on with what
//! other messages bring of its bytes ([`Unfinished`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::stream::{Batch, Ending};
use super::write;
use crate::content::{AnyDigest, ByteRange, Verifier};

/// A part that is longer is not held, in bytes.
const HELD: u64 = 8 * 1024 * 1024;
/// Most bytes that are held of all parts together.
const HELD_IN_ALL: u64 = 64 * 1024 * 1024;
/// Bytes of one permit.
const PERMIT: u64 = 1024;
/// Nor one that takes longer: as long as a client waits for the digest of a whole body.
const HELD_FOR: Duration = Duration::from_secs(8);
/// Most checks of cut parts that go on: each hashes the bytes once more.
const MOST_UNFINISHED: usize = 4;

/// Room in memory for parts that are held.
#[derive(Debug, Clone)]
pub(super) struct HeldRoom(Arc<Semaphore>);

/// The check of one part while it comes.
pub(super) struct PartCheck {
    part: ByteRange,
    verifier: Verifier,
    received: u64,
    held: Option<Held>,
}

/// What waits for the verdict.
struct Held {
    bytes: Vec<Bytes>,
    until: Instant,
    _room: OwnedSemaphorePermit,
}

/// The checks of parts that were cut, oldest first.
#[derive(Default)]
pub(super) struct Unfinished(VecDeque<PartCheck>);

impl HeldRoom {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new((HELD_IN_ALL / PERMIT) as usize)))
    }

    /// Room for a part of so many bytes, if it may be held.
    fn take(&self, len: u64) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(len.div_ceil(PERMIT)).ok().filter(|_| len <= HELD)?;
        Arc::clone(&self.0).try_acquire_many_owned(permits).ok()
    }
}

impl PartCheck {
    /// The bytes of `part`, whose content must hash to `expected`, are about to come.
    pub(super) fn new(expected: AnyDigest, part: ByteRange, room: &HeldRoom, now: Instant) -> Self {
        let room = room.take(part.len());
        let held = room.map(|room| Held { bytes: Vec::new(), until: now + HELD_FOR, _room: room });
        Self { part, verifier: expected.verifier(), received: 0, held }
    }

    /// Takes what came, and gives what may be given out; `None` while that is nothing.
    pub(super) fn take(&mut self, mut batch: Batch, now: Instant) -> Option<Batch> {
        batch.bytes.iter().for_each(|piece| self.verifier.update(piece));
        self.received = self.received.saturating_add(batch.size);
        // With its last byte a part is whole, whatever comes behind: who has all may not wait for the mark of the end.
        let is_whole = batch.end == Some(Ending::Marked) || self.received >= self.part.len();
        let given_out = self.held.is_none();
        if let Some(held) = &mut self.held {
            held.bytes.append(&mut batch.bytes);
            if !is_whole && batch.end.is_none() && now < held.until {
                return None;
            }
            (batch.at, batch.size) = (self.part.start(), self.received);
            batch.bytes = self.held.take().map(|held| held.bytes).unwrap_or_default();
        }
        if is_whole && !self.verifier.is_right() {
            (batch.bytes, batch.size) = (Vec::new(), 0);
            batch.end = Some(Ending::WrongDigest { given_out });
        } else if is_whole {
            batch.end = Some(Ending::Marked);
        }
        Some(batch)
    }

    /// Goes on with `bytes` of another message, of which the first is the one at `at`. Whether the part is right, once all
    /// of it has come.
    fn go_on(&mut self, at: u64, bytes: &[Bytes]) -> Option<bool> {
        let next = self.part.start().saturating_add(self.received);
        if let Some(rest) = ByteRange::new(next, self.part.end()).filter(|_| at <= next) {
            for piece in write::slices(bytes, at, rest) {
                self.verifier.update(&piece);
                self.received = self.received.saturating_add(piece.len() as u64);
            }
        }
        (self.received >= self.part.len()).then(|| self.verifier.is_right())
    }
}

impl Unfinished {
    /// The part of this check was cut.
    pub(super) fn add(&mut self, check: PartCheck) {
        if self.0.len() >= MOST_UNFINISHED {
            self.0.pop_front();
        }
        self.0.push_back(check);
    }

    /// Whether `bytes`, of which the first is the one at `at`, show that a part is wrong.
    pub(super) fn is_wrong(&mut self, at: u64, bytes: &[Bytes]) -> bool {
        let mut is_wrong = false;
        self.0.retain_mut(|check| {
            let verdict = check.go_on(at, bytes);
            is_wrong |= verdict == Some(false);
            verdict.is_none()
        });
        is_wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Digest;

    const PART: ByteRange = match ByteRange::new(100, 106) {
        Some(part) => part,
        None => unreachable!(),
    };

    fn check_of_letters(now: Instant) -> PartCheck {
        PartCheck::new(Digest::of(b"abcdef").into(), PART, &HeldRoom::new(), now)
    }

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
        let mut check = check_of_letters(now);
        assert!(check.take(batch(100, b"abc", None), now).is_none());
        let whole = check.take(batch(103, b"def", None), now).unwrap();
        assert_eq!(shown(&whole), (100, b"abcdef".to_vec(), Some(Ending::Marked)), "the last byte is the end");
    }

    #[test]
    fn a_part_may_be_said_by_its_sha_512() {
        let now = Instant::now();
        for (last, size, end) in [(b"def", 6, Ending::Marked), (b"deX", 0, Ending::WrongDigest { given_out: false })] {
            let mut check = PartCheck::new(AnyDigest::sha_512_of(b"abcdef"), PART, &HeldRoom::new(), now);
            assert!(check.take(batch(100, b"abc", None), now).is_none());
            let whole = check.take(batch(103, last, None), now).unwrap();
            assert_eq!((whole.size, whole.end), (size, Some(end)));
        }
    }

    #[test]
    fn nothing_is_given_out_of_a_short_part_that_is_wrong() {
        let now = Instant::now();
        for (last, end) in [(&b"deX"[..], None), (b"de", Some(Ending::Marked))] {
            let mut check = check_of_letters(now);
            assert!(check.take(batch(100, b"abc", None), now).is_none());
            let shows = Some(Ending::WrongDigest { given_out: false });
            assert_eq!(shown(&check.take(batch(103, last, end), now).unwrap()), (100, Vec::new(), shows));
        }
    }

    #[test]
    fn a_part_that_is_cut_is_given_out_and_judged_with_its_rest() {
        let now = Instant::now();
        let bytes = |text: &'static [u8]| [Bytes::from_static(text)];
        for (begin, rest, is_wrong) in [(b"abcd", &b"ef"[..], false), (b"Xbcd", b"ef", true), (b"abcd", b"eXg", true)] {
            let (mut check, mut unfinished) = (check_of_letters(now), Unfinished::default());
            assert!(check.take(batch(100, begin, None), now).is_none());
            let cut = check.take(batch(104, b"", Some(Ending::Closed)), now).unwrap();
            assert_eq!(shown(&cut), (100, begin.to_vec(), Some(Ending::Closed)));
            unfinished.add(check);
            assert!(!unfinished.is_wrong(90, &bytes(b"0123456789")), "bytes before it");
            assert!(!unfinished.is_wrong(105, &bytes(b"f")), "bytes behind a gap");
            assert!(!unfinished.is_wrong(102, &bytes(b"cd")), "bytes that it has");
            assert!(!unfinished.is_wrong(104, &bytes(&rest[..1])));
            assert_eq!(unfinished.is_wrong(105, &bytes(&rest[1..])), is_wrong, "{begin:?} {rest:?}");
            assert!(unfinished.0.is_empty());
        }
    }

    #[test]
    fn there_is_room_for_some_parts_at_a_time() {
        let (now, room, long) = (Instant::now(), HeldRoom::new(), ByteRange::new(0, HELD).unwrap());
        let expected = AnyDigest::from(Digest::of(b""));
        let held: Vec<_> = (0..=HELD_IN_ALL / HELD).map(|_| PartCheck::new(expected, long, &room, now)).collect();
        let holds = |check: &PartCheck| check.held.is_some();
        assert!(held[1..].iter().rev().skip(1).all(holds) && !holds(&held[held.len() - 1]));
        drop(held);
        assert!(holds(&PartCheck::new(expected, long, &room, now)), "it is given back");
    }

    #[test]
    fn a_long_or_slow_part_is_given_out_as_it_comes_and_judged_at_its_end() {
        let now = Instant::now();
        let (later, long) = (now + HELD_FOR, ByteRange::new(100, 101 + HELD).unwrap());
        let mut check = PartCheck::new(Digest::of(b"").into(), long, &HeldRoom::new(), now);
        assert_eq!(shown(&check.take(batch(100, b"abc", None), now).unwrap()), (100, b"abc".to_vec(), None));
        for (last, end) in [(b"def", Ending::Marked), (b"deX", Ending::WrongDigest { given_out: true })] {
            let mut check = check_of_letters(now);
            assert!(check.take(batch(100, b"ab", None), now).is_none());
            let slow = check.take(batch(102, b"c", None), later).unwrap();
            assert_eq!(shown(&slow), (100, b"abc".to_vec(), None), "what was held comes, too");
            let last = check.take(batch(103, last, None), later).unwrap();
            let bytes = if end == Ending::Marked { b"def".to_vec() } else { Vec::new() };
            assert_eq!(shown(&last), (103, bytes, Some(end)));
        }
    }
}
