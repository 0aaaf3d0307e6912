//! Power cuts. Every file operation of a store passes one place, where a recorder stands in these tests
//! ([`recording`]). From what it noted, a simulated disk ([`disk`]) says what may be on the medium when the power went at
//! any step: what was synced, and of the rest some, none, or pieces. Random stories ([`story`]) are told to a real store,
//! cut, and what a store finds then is held against what the first one had shown and promised ([`model`]).

mod disk;
mod disk_tests;
mod model;
pub(in crate::store) mod recording;
mod story;

use super::*;

/// Pseudo-random numbers (xorshift64*, Vigna 2016): the same ones for the same seed.
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 7
    }

    /// From 0 up to `end`, without it.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len()))
    }
}
