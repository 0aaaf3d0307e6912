//! [`Table`]: a bounded table of what may be lost at any time, for whoever asks on the way of each request: a look-up is
//! one short read lock that few share, and keeps no books. What goes first is what was not asked for since the hand
//! passed last. What the values are is not known here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicUsize, Ordering};

use parking_lot::RwLock;

/// Places for values whose hashes have the same low bits: as many as a byte has bits for their marks.
const WAYS: usize = 8;
/// A power of two. Values of 1.5 KiB are about five in each when they take 32 MiB: while they come, one in forty finds its
/// set full. The sets and what was heard take 0.63 MiB beside the room.
const SETS: usize = 4096;
/// A power of two: for so many hashes it is known that they were asked for once.
const HEARD: usize = 65_536;
/// One in so many is put in all the same: two whose hashes share a place there would keep each other out.
const LUCKY: usize = 8;

/// Values by the hashes of their keys. Two keys with one hash take each other's place: whoever asks must compare.
pub(super) struct Table<V> {
    sets: Box<[Set<V>]>,
    /// Most memory for values, in bytes.
    room: usize,
    /// What they take.
    total: AtomicUsize,
    weigh: fn(&V) -> usize,
    /// The place that is looked at next when room is needed.
    hand: AtomicUsize,
    /// Bits of the hashes that were asked for in vain.
    heard: Box<[AtomicU16]>,
    /// Counts them.
    vain: AtomicUsize,
}

/// Two lines of the processor's cache, of which the first one tells most that are not there.
#[repr(align(64))]
struct Set<V> {
    ways: RwLock<Ways<V>>,
    /// A bit for each way: it was asked for since the hand passed.
    marks: AtomicU8,
}

#[repr(C)]
struct Ways<V> {
    /// The high bits of the hash of each value; those of free places mean nothing.
    tags: [u32; WAYS],
    values: [Option<Arc<V>>; WAYS],
}

impl<V> Table<V> {
    /// With room for values of `room` bytes together, as `weigh` has it.
    pub(super) fn new(room: usize, weigh: fn(&V) -> usize) -> Self {
        let ways = || Ways { tags: [0; WAYS], values: [const { None }; WAYS] };
        let set = |_| Set { ways: RwLock::new(ways()), marks: AtomicU8::new(0) };
        let (total, hand, vain) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(1));
        let heard = (0..HEARD).map(|_| AtomicU16::new(0)).collect();
        Self { sets: (0..SETS).map(set).collect(), room, total, weigh, hand, heard, vain }
    }

    /// Notes that `hash`, which is not there, was asked for, and says whether a value should be put in: while an eighth of
    /// the room is left any, else mostly what is asked for a second time, so that what is asked for once does not push out
    /// the rest.
    pub(super) fn hear(&self, hash: u64) -> bool {
        if self.weight() < self.room - self.room / 8 {
            return true;
        }
        let tag = (hash >> 48) as u16;
        let is_heard = |place: &AtomicU16| place.swap(tag, Ordering::Relaxed) == tag;
        let is_second = self.heard.get(hash as usize % HEARD).is_some_and(is_heard);
        is_second || self.vain.fetch_add(1, Ordering::Relaxed).is_multiple_of(LUCKY)
    }

    /// The value that was put in with `hash`, or with another one that has the same 44 bits.
    pub(super) fn get(&self, hash: u64) -> Option<Arc<V>> {
        let (set, tag) = self.place(hash)?;
        let ways = set.ways.read();
        let way = ways.position(tag)?;
        let value = Arc::clone(ways.values.get(way)?.as_ref()?);
        drop(ways);
        // Looked at first, so that what many ask for is not written to by all of them.
        if set.marks.load(Ordering::Relaxed) & bit(way) == 0 {
            set.marks.fetch_or(bit(way), Ordering::Relaxed);
        }
        Some(value)
    }

    /// Puts in a value, in the place of what had its hash.
    pub(super) fn insert(&self, hash: u64, value: Arc<V>) {
        let Some((set, tag)) = self.place(hash) else { return };
        let weight = (self.weigh)(&value);
        let mut ways = set.ways.write();
        let way = set.way_for(&ways, tag);
        let before = ways.replace(way, tag, value);
        set.marks.fetch_and(!bit(way), Ordering::Relaxed);
        // Under the lock, so that what is taken out was put in before.
        self.total.fetch_add(weight, Ordering::Relaxed);
        self.forget(before);
        drop(ways);
        self.make_room();
    }

    /// What its values take, in bytes.
    pub(super) fn weight(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    fn place(&self, hash: u64) -> Option<(&Set<V>, u32)> {
        // The low bits name the set, and the high ones the value in it.
        let set = self.sets.get(hash as usize % SETS)?;
        Some((set, (hash >> 32) as u32))
    }

    fn forget(&self, value: Option<Arc<V>>) {
        if let Some(value) = value {
            self.total.fetch_sub((self.weigh)(&value), Ordering::Relaxed);
        }
    }

    /// Takes out what was not asked for since the hand was there last, until the rest has room: within two rounds, unless
    /// others go on putting in and asking.
    fn make_room(&self) {
        for _ in 0..2 * SETS * WAYS {
            if self.weight() <= self.room {
                return;
            }
            let next = self.hand.fetch_add(1, Ordering::Relaxed);
            let way = next % WAYS;
            let Some(set) = self.sets.get(next / WAYS % SETS) else { return };
            if set.marks.fetch_and(!bit(way), Ordering::Relaxed) & bit(way) == 0 {
                let mut ways = set.ways.write();
                self.forget(ways.values.get_mut(way).and_then(Option::take));
            }
        }
    }
}

impl<V> Set<V> {
    /// Where a value with `tag` goes: to its own place, a free one, or that of one that was not asked for.
    fn way_for(&self, ways: &Ways<V>, tag: u32) -> usize {
        let marks = self.marks.load(Ordering::Relaxed);
        ways.position(tag)
            .or_else(|| ways.values.iter().position(Option::is_none))
            .or_else(|| (0..WAYS).find(|way| marks & bit(*way) == 0))
            .unwrap_or_else(|| {
                self.marks.store(0, Ordering::Relaxed);
                tag as usize % WAYS
            })
    }
}

impl<V> Ways<V> {
    /// Where the value with `tag` is.
    fn position(&self, tag: u32) -> Option<usize> {
        let mut ways = self.tags.iter().zip(&self.values);
        ways.position(|(of, value)| *of == tag && value.is_some())
    }

    /// Puts in a value, and returns what was there.
    fn replace(&mut self, way: usize, tag: u32, value: Arc<V>) -> Option<Arc<V>> {
        if let Some(of) = self.tags.get_mut(way) {
            *of = tag;
        }
        self.values.get_mut(way)?.replace(value)
    }
}

fn bit(way: usize) -> u8 {
    1 << (way % WAYS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(room: usize) -> Table<usize> {
        Table::new(room, |value| *value)
    }

    /// A hash that names `set` and, in it, `tag`.
    fn hash(set: u64, tag: u64) -> u64 {
        tag << 32 | set
    }

    #[test]
    fn what_was_put_in_is_found_until_another_one_takes_its_place() {
        let table = table(100);
        assert_eq!(table.get(hash(1, 2)), None);
        table.insert(hash(1, 2), Arc::new(3));
        table.insert(hash(1, 3), Arc::new(4));
        table.insert(hash(2, 2), Arc::new(5));
        assert_eq!(table.get(hash(1, 2)).as_deref(), Some(&3));
        table.insert(hash(1, 2), Arc::new(6));
        assert_eq!(table.get(hash(1, 2)).as_deref(), Some(&6));
        assert_eq!((table.get(hash(1, 3)).as_deref(), table.get(hash(2, 2)).as_deref()), (Some(&4), Some(&5)));
        assert_eq!(table.weight(), 15);
    }

    #[test]
    fn what_is_asked_for_stays_while_others_pass() {
        let table = table(100);
        table.insert(hash(7, 1), Arc::new(10));
        for other in 0..100_000 {
            assert!(table.get(hash(7, 1)).is_some(), "lost after {other} others");
            table.insert(hash(other % 4096, other + 2), Arc::new(10));
        }
    }

    #[test]
    fn a_full_set_gives_up_what_nobody_asked_for() {
        let table = table(1000);
        (0..8).for_each(|tag| table.insert(hash(7, tag), Arc::new(1)));
        (0..8).filter(|tag| *tag != 5).for_each(|tag| assert!(table.get(hash(7, tag)).is_some()));
        table.insert(hash(7, 8), Arc::new(1));
        assert!((0..9).all(|tag| table.get(hash(7, tag)).is_some() == (tag != 5)));
        // Now all are asked for: one of them goes all the same.
        table.insert(hash(7, 9), Arc::new(1));
        assert!(table.get(hash(7, 9)).is_some());
        assert_eq!(table.weight(), 8);
    }

    #[test]
    fn what_nobody_asks_for_gives_way_to_what_is_new() {
        let table = table(1000);
        let spread = |value: u64| hash(value % 4096, value);
        (0..1000).for_each(|old| table.insert(spread(old), Arc::new(1)));
        (1000..3000).for_each(|new| table.insert(spread(new), Arc::new(1)));
        let found = (2000..3000).filter(|new| table.get(spread(*new)).is_some()).count();
        assert!(found > 900, "{found} of the last 1000 are there");
    }

    #[test]
    fn once_it_is_nearly_full_what_is_asked_for_once_is_seldom_kept() {
        let table = table(16);
        let once = |value: u64| hash(value, value << 16);
        assert!((0..100).all(|value| table.hear(once(value))));
        table.insert(once(200), Arc::new(14));
        let due = (1..=800).filter(|value| table.hear(once(*value))).count();
        assert_eq!(due, 100);
        assert!((1..=800).all(|value| table.hear(once(value))));
    }

    #[test]
    fn the_account_holds_when_many_put_in_at_once() {
        let table = table(5000);
        std::thread::scope(|threads| {
            for thread in 0..4 {
                let table = &table;
                threads.spawn(move || {
                    for value in 0..20_000 {
                        table.insert(hash(value * 7 % 500, value % 12 + thread % 2), Arc::new(value as usize % 20));
                        table.get(hash(value * 3 % 500, value % 12));
                    }
                });
            }
        });
        assert_eq!(here(&table), table.weight());
        assert!(table.weight() <= 5000);
    }

    /// What the values in it weigh.
    fn here(table: &Table<usize>) -> usize {
        table.sets.iter().flat_map(|set| set.ways.read().values.clone()).flatten().map(|value| *value).sum()
    }

    proptest! {
        #[test]
        fn it_takes_no_more_than_its_room(values in prop::collection::vec((0u64..9000, 0u64..4, prop_oneof![20 => 0usize..40, 1 => Just(300)], any::<bool>()), 0..300)) {
            let table = table(200);
            for (set, tag, weight, ask) in values {
                table.insert(hash(set, tag), Arc::new(weight));
                prop_assert!(table.weight() <= 200);
                if ask {
                    table.get(hash(set, tag));
                }
            }
            prop_assert_eq!(here(&table), table.weight());
        }
    }
}
