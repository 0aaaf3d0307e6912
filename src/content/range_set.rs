//! [`RangeSet`]: which bytes of a representation are there. Sorted, disjoint, coalesced.

use super::ByteRange;

/// A set of byte positions, kept as sorted ranges that neither overlap nor touch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeSet {
    ranges: Vec<ByteRange>,
}

impl RangeSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `range`; positions that are present already stay present.
    pub fn insert(&mut self, range: ByteRange) {
        let first = self.ranges.partition_point(|r| r.end() < range.start());
        let last = self.ranges.partition_point(|r| r.start() <= range.end());
        let merged = self.ranges[first..last].iter().fold(range, |all, r| joined(all, *r));
        self.ranges.splice(first..last, [merged]);
    }

    /// Removes `range`: a block whose bytes turned out to be wrong.
    pub fn remove(&mut self, range: ByteRange) {
        let kept = self.ranges.iter().flat_map(|r| {
            let before = ByteRange::new(r.start(), r.end().min(range.start()));
            let after = ByteRange::new(r.start().max(range.end()), r.end());
            before.into_iter().chain(after)
        });
        self.ranges = kept.collect();
    }

    /// Whether every position of `range` is present.
    pub fn covers(&self, range: ByteRange) -> bool {
        self.available_from(range.start()) >= range.end()
    }

    /// The end of the run of present bytes that contains `position`; `position` itself when it is absent.
    pub fn available_from(&self, position: u64) -> u64 {
        let after = self.ranges.partition_point(|r| r.start() <= position);
        let end = after.checked_sub(1).and_then(|i| self.ranges.get(i)).map_or(0, ByteRange::end);
        end.max(position)
    }

    /// The parts of `range` that are absent, in order.
    pub fn missing(&self, range: ByteRange) -> Vec<ByteRange> {
        let mut rest = RangeSet { ranges: vec![range] };
        self.ranges.iter().filter(|r| r.intersect(range).is_some()).for_each(|r| rest.remove(*r));
        rest.ranges
    }

    /// The ranges in order.
    pub fn iter(&self) -> impl Iterator<Item = ByteRange> + '_ {
        self.ranges.iter().copied()
    }

    /// Number of bytes present.
    pub fn total(&self) -> u64 {
        self.ranges.iter().map(ByteRange::len).sum()
    }

    /// Whether nothing is present.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

fn joined(a: ByteRange, b: ByteRange) -> ByteRange {
    let (start, end) = (a.start().min(b.start()), a.end().max(b.end()));
    ByteRange::new(start, end).unwrap_or(a)
}

impl FromIterator<ByteRange> for RangeSet {
    fn from_iter<I: IntoIterator<Item = ByteRange>>(ranges: I) -> Self {
        let mut set = Self::new();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn range() -> impl Strategy<Value = ByteRange> {
        (0u64..60, 1u64..20).prop_filter_map("empty", |(start, len)| ByteRange::new(start, start + len))
    }

    fn positions(ranges: impl IntoIterator<Item = ByteRange>) -> BTreeSet<u64> {
        ranges.into_iter().flat_map(|r| r.start()..r.end()).collect()
    }

    proptest! {
        #[test]
        fn behaves_like_a_set_of_positions(ops in prop::collection::vec((any::<bool>(), range()), 0..24), probe in range()) {
            let mut set = RangeSet::new();
            let mut model = BTreeSet::new();
            for (insert, range) in ops {
                if insert {
                    set.insert(range);
                    model.extend(range.start()..range.end());
                } else {
                    set.remove(range);
                    model.retain(|p| !(range.start()..range.end()).contains(p));
                }
            }
            prop_assert_eq!(positions(set.iter()), model.clone());
            let ranges: Vec<_> = set.iter().collect();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end() < pair[1].start()), "coalesced: {:?}", ranges);
            prop_assert_eq!(set.total(), model.len() as u64);
            let wanted = positions([probe]);
            prop_assert_eq!(set.covers(probe), wanted.is_subset(&model));
            prop_assert_eq!(positions(set.missing(probe)), &wanted - &model);
            let available = set.available_from(probe.start());
            prop_assert!((probe.start()..available).all(|p| model.contains(&p)));
            prop_assert!(!model.contains(&available));
        }

        #[test]
        fn order_of_insertion_does_not_matter(ranges in prop::collection::vec(range(), 0..16)) {
            let forward: RangeSet = ranges.iter().copied().collect();
            let backward: RangeSet = ranges.iter().rev().copied().collect();
            prop_assert_eq!(forward, backward);
        }
    }
}
