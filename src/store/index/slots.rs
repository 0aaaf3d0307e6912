//! [`Slots`]: values in numbered places of one vector, which are used again once they are free.

use std::ops::Range;

/// Values by number. A number stays the value's until it is removed.
#[derive(Debug)]
pub(super) struct Slots<T> {
    places: Vec<T>,
    free: Vec<u32>,
}

/// No place.
pub(super) const NONE: u32 = u32::MAX;

impl<T> Slots<T> {
    /// Without values.
    pub(super) fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    /// Makes room for so many more, and no more than these.
    pub(super) fn reserve(&mut self, count: usize) {
        self.places.reserve_exact(count);
    }

    /// Adds a value; `None` when there are 2^32 - 1.
    pub(super) fn insert(&mut self, value: T) -> Option<u32> {
        if let Some(number) = self.free.pop() {
            *self.at(number) = value;
            return Some(number);
        }
        let number = u32::try_from(self.places.len()).ok().filter(|number| *number != NONE)?;
        self.places.push(value);
        Some(number)
    }

    /// The place may be used again; what is in it stays readable until then.
    pub(super) fn remove(&mut self, number: u32) {
        self.free.push(number);
    }

    /// The numbers of all places that were ever used.
    pub(super) fn numbers(&self) -> Range<u32> {
        0..u32::try_from(self.places.len()).unwrap_or(NONE)
    }

    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// What is in this place, if it was ever used.
    pub(super) fn peek(&self, number: u32) -> Option<&T> {
        self.places.get(number as usize)
    }

    /// The value with this number.
    pub(super) fn get(&self, number: u32) -> &T {
        #[allow(clippy::indexing_slicing, reason = "numbers come from `insert` alone, and no place ever goes")]
        &self.places[number as usize]
    }

    /// The same, to be changed.
    pub(super) fn at(&mut self, number: u32) -> &mut T {
        #[allow(clippy::indexing_slicing, reason = "numbers come from `insert` alone, and no place ever goes")]
        &mut self.places[number as usize]
    }
}
