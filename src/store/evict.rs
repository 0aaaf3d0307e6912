//! [`Sieve`]: which object has to go when a drive is full.
//!
//! SIEVE (Zhang et al., "SIEVE is Simpler than LRU", NSDI 2024): one queue in order of arrival, one bit per object
//! that says whether it was asked for, and a hand that moves from old to new, clears bits and takes the first
//! object without one. A look-up moves nothing, and a scan of objects that nobody asks for twice does not push
//! out those that are asked for. Deleting is the drive's business.

use std::hash::{BuildHasher as _, Hash};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// No neighbour.
const NIL: u32 = u32::MAX;

/// Objects of one drive in the order of eviction, with their sizes in bytes.
#[derive(Debug)]
pub(super) struct Sieve<K> {
    /// The nodes by their keys.
    places: HashTable<u32>,
    hasher: RandomState,
    nodes: Vec<Node<K>>,
    /// First of the unused nodes, linked through `older`.
    unused: u32,
    newest: u32,
    oldest: u32,
    /// Where the search goes on; `NIL` is the oldest.
    hand: u32,
    total: u64,
}

/// One object. With a digest as key it takes 56 bytes.
#[derive(Debug)]
struct Node<K> {
    key: K,
    size: u64,
    newer: u32,
    older: u32,
    visited: bool,
}

impl<K: Copy + Eq + Hash> Sieve<K> {
    /// Without objects.
    pub(super) fn new() -> Self {
        let (places, hasher, nodes) = (HashTable::new(), RandomState::default(), Vec::new());
        Self { places, hasher, nodes, unused: NIL, newest: NIL, oldest: NIL, hand: NIL, total: 0 }
    }

    /// Adds an object as the newest. One that is there already keeps its place, gets the new size and counts as
    /// asked for.
    pub(super) fn insert(&mut self, key: K, size: u64) {
        if self.resize(&key, size) {
            self.touch(&key);
            return;
        }
        let Some(place) = self.store(Node { key, size, newer: NIL, older: self.newest, visited: false }) else {
            return;
        };
        match self.newest {
            NIL => self.oldest = place,
            newest => self.node(newest).newer = place,
        }
        self.newest = place;
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        let rehash = |place: &u32| nodes.get(*place as usize).map_or(0, |node| hasher.hash_one(node.key));
        self.places.insert_unique(hasher.hash_one(key), place, rehash);
        self.total = self.total.wrapping_add(size);
    }

    /// Notes that an object was asked for. Unknown ones are ignored.
    pub(super) fn touch(&mut self, key: &K) {
        if let Some(place) = self.find(key) {
            self.node(place).visited = true;
        }
    }

    /// Changes the size of an object, as a partial body grows; `false` when it is unknown.
    pub(super) fn resize(&mut self, key: &K, size: u64) -> bool {
        let Some(place) = self.find(key) else { return false };
        let before = std::mem::replace(&mut self.node(place).size, size);
        self.total = self.total.wrapping_sub(before).wrapping_add(size);
        true
    }

    /// Forgets an object and returns its size.
    pub(super) fn remove(&mut self, key: &K) -> Option<u64> {
        let place = self.find(key)?;
        if let Ok(entry) = self.places.find_entry(self.hasher.hash_one(key), |other| *other == place) {
            entry.remove();
        }
        let (size, newer, older) = {
            let node = self.node(place);
            (node.size, node.newer, node.older)
        };
        match newer {
            NIL => self.newest = older,
            newer => self.node(newer).older = older,
        }
        match older {
            NIL => self.oldest = newer,
            older => self.node(older).newer = newer,
        }
        if self.hand == place {
            self.hand = newer;
        }
        self.node(place).older = self.unused;
        self.unused = place;
        self.total = self.total.wrapping_sub(size);
        Some(size)
    }

    /// Whether the object is known.
    pub(super) fn contains(&self, key: &K) -> bool {
        self.find(key).is_some()
    }

    /// Number of objects.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Size of all objects in bytes.
    #[cfg(test)]
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Chooses the next object to go, forgets it and returns it with its size. Objects for which `veto` is true
    /// stay; `None` when that is all of them. It looks at each object at most twice; over many calls an object
    /// that no veto holds costs one step for each time it was asked for.
    pub(super) fn next_victim(&mut self, mut veto: impl FnMut(&K) -> bool) -> Option<(K, u64)> {
        // The first round may only clear bits, so the second is sure to meet what may go.
        for _ in 0..self.places.len().saturating_mul(2) {
            let place = if self.hand == NIL { self.oldest } else { self.hand };
            let node = self.node(place);
            let (key, newer) = (node.key, node.newer);
            let visited = std::mem::take(&mut node.visited);
            self.hand = newer;
            if !visited && !veto(&key) {
                return self.remove(&key).map(|size| (key, size));
            }
        }
        None
    }

    fn find(&self, key: &K) -> Option<u32> {
        let is_it = |place: &u32| self.nodes.get(*place as usize).is_some_and(|node| node.key == *key);
        self.places.find(self.hasher.hash_one(key), is_it).copied()
    }

    /// Puts a node into an unused place or a new one; `None` when there are 2^32 - 1 objects.
    fn store(&mut self, node: Node<K>) -> Option<u32> {
        if self.unused == NIL {
            let place = u32::try_from(self.nodes.len()).ok().filter(|place| *place != NIL)?;
            self.nodes.push(node);
            return Some(place);
        }
        let place = self.unused;
        self.unused = self.node(place).older;
        *self.node(place) = node;
        Some(place)
    }

    /// `places` and the links only ever name places that `store` returned, and `nodes` never shrinks.
    fn node(&mut self, place: u32) -> &mut Node<K> {
        &mut self.nodes[place as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// SIEVE as the paper writes it, on a list from new to old.
    #[derive(Default)]
    struct Model {
        queue: Vec<(u8, u64, bool)>,
        hand: Option<u8>,
    }

    impl Model {
        fn place(&self, key: u8) -> Option<usize> {
            self.queue.iter().position(|(k, ..)| *k == key)
        }

        fn remove(&mut self, key: u8) -> Option<u64> {
            let place = self.place(key)?;
            if self.hand == Some(key) {
                self.hand = place.checked_sub(1).map(|newer| self.queue[newer].0);
            }
            Some(self.queue.remove(place).1)
        }

        fn next_victim(&mut self, vetoed: &[u8]) -> Option<(u8, u64)> {
            for _ in 0..2 * self.queue.len() {
                let place = self.hand.and_then(|hand| self.place(hand)).unwrap_or(self.queue.len() - 1);
                let (key, _, visited) = self.queue[place];
                self.queue[place].2 = false;
                self.hand = place.checked_sub(1).map(|newer| self.queue[newer].0);
                if !visited && !vetoed.contains(&key) {
                    return self.remove(key).map(|size| (key, size));
                }
            }
            None
        }
    }

    #[derive(Debug, Clone)]
    enum Op {
        Insert(u8, u64),
        Touch(u8),
        Resize(u8, u64),
        Remove(u8),
        Evict(Vec<u8>),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let key = || 0u8..20;
        let op = prop_oneof![
            4 => (key(), 0u64..100).prop_map(|(key, size)| Op::Insert(key, size)),
            3 => key().prop_map(Op::Touch),
            1 => (key(), 0u64..100).prop_map(|(key, size)| Op::Resize(key, size)),
            1 => key().prop_map(Op::Remove),
            3 => prop::collection::vec(key(), 0..20).prop_map(Op::Evict),
        ];
        prop::collection::vec(op, 0..120)
    }

    proptest! {
        #[test]
        fn it_chooses_what_the_paper_chooses(ops in ops()) {
            let mut sieve = Sieve::new();
            let mut model = Model::default();
            for op in ops {
                match op {
                    Op::Insert(key, size) => {
                        sieve.insert(key, size);
                        match model.place(key) {
                            Some(place) => model.queue[place] = (key, size, true),
                            None => model.queue.insert(0, (key, size, false)),
                        }
                    }
                    Op::Touch(key) => {
                        sieve.touch(&key);
                        model.place(key).into_iter().for_each(|place| model.queue[place].2 = true);
                    }
                    Op::Resize(key, size) => {
                        prop_assert_eq!(sieve.resize(&key, size), model.place(key).is_some());
                        model.place(key).into_iter().for_each(|place| model.queue[place].1 = size);
                    }
                    Op::Remove(key) => prop_assert_eq!(sieve.remove(&key), model.remove(key)),
                    Op::Evict(vetoed) => {
                        let mut asked = 0;
                        let victim = sieve.next_victim(|key| {
                            asked += 1;
                            vetoed.contains(key)
                        });
                        prop_assert!(asked <= 2 * model.queue.len());
                        prop_assert_eq!(victim, model.next_victim(&vetoed));
                        let held = model.queue.iter().all(|(key, ..)| vetoed.contains(key));
                        prop_assert!(victim.is_some() || held, "only vetoes keep it from choosing");
                    }
                }
                prop_assert_eq!(sieve.len(), model.queue.len());
                prop_assert_eq!(sieve.total(), model.queue.iter().map(|(_, size, _)| size).sum::<u64>());
                prop_assert!((0u8..20).all(|key| sieve.contains(&key) == model.place(key).is_some()));
            }
            prop_assert!(sieve.nodes.len() <= 20, "places are used again");
        }
    }

    #[test]
    fn an_object_takes_no_more_than_64_bytes() {
        assert!(size_of::<Node<crate::content::Digest>>() <= 64);
    }

    /// A cache of so many bytes that is asked for objects and fetches what it lacks.
    trait Cache {
        fn hit(&mut self, key: u32) -> bool;
        fn fetched(&mut self, key: u32, size: u64, capacity: u64);
    }

    impl Cache for Sieve<u32> {
        fn hit(&mut self, key: u32) -> bool {
            self.touch(&key);
            self.contains(&key)
        }

        fn fetched(&mut self, key: u32, size: u64, capacity: u64) {
            while self.total() + size > capacity {
                self.next_victim(|_| false).unwrap();
            }
            self.insert(key, size);
        }
    }

    #[derive(Default)]
    struct Lru {
        by_key: std::collections::HashMap<u32, (u64, u64)>,
        by_use: BTreeMap<u64, u32>,
        uses: u64,
        total: u64,
    }

    impl Cache for Lru {
        fn hit(&mut self, key: u32) -> bool {
            let Some((used, _)) = self.by_key.get_mut(&key) else { return false };
            self.by_use.remove(used);
            self.uses += 1;
            *used = self.uses;
            self.by_use.insert(self.uses, key);
            true
        }

        fn fetched(&mut self, key: u32, size: u64, capacity: u64) {
            while self.total + size > capacity {
                let (_, oldest) = self.by_use.pop_first().unwrap();
                self.total -= self.by_key.remove(&oldest).unwrap().1;
            }
            self.uses += 1;
            self.by_use.insert(self.uses, key);
            self.by_key.insert(key, (self.uses, size));
            self.total += size;
        }
    }

    struct Random(u64);

    impl Random {
        /// xorshift64* (Vigna 2016).
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
        }

        /// From 0 up to 1.
        fn fraction(&mut self) -> f64 {
            (self.next() >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    /// Sizes from 4 KiB to 4 MiB, as they are spread in a package repository.
    fn size_of_object(key: u32) -> u64 {
        let mut random = Random(u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.next();
        (4096.0 * 1024f64.powf(random.fraction())) as u64
    }

    /// Popular objects (Zipf, exponent 0.9), and again and again a run through objects that nobody wants twice.
    fn trace_with_scans() -> Vec<u32> {
        let mut random = Random(20_261_123);
        let mut weights: Vec<f64> = (1..=4000).map(|rank| f64::from(rank).powf(-0.9)).collect();
        for i in 1..weights.len() {
            weights[i] += weights[i - 1];
        }
        let all = weights[weights.len() - 1];
        let mut trace = Vec::new();
        let mut scanned = 1_000_000;
        for _ in 0..30 {
            for _ in 0..3000 {
                let point = random.fraction() * all;
                trace.push(weights.partition_point(|sum| *sum < point) as u32);
            }
            trace.extend(scanned..scanned + 200);
            scanned += 200;
        }
        trace
    }

    /// Share of requests and share of bytes that were hits.
    fn replay(trace: &[u32], cache: &mut dyn Cache, capacity: u64) -> (f64, f64) {
        let (mut hits, mut hit_bytes, mut all_bytes) = (0u32, 0, 0);
        for &key in trace {
            let size = size_of_object(key);
            all_bytes += size;
            if cache.hit(key) {
                hits += 1;
                hit_bytes += size;
            } else if size <= capacity {
                cache.fetched(key, size, capacity);
            }
        }
        (f64::from(hits) / trace.len() as f64, hit_bytes as f64 / all_bytes as f64)
    }

    #[test]
    fn scans_cost_it_fewer_hits_than_they_cost_lru() {
        let trace = trace_with_scans();
        let objects: std::collections::BTreeSet<u32> = trace.iter().copied().collect();
        let footprint: u64 = objects.iter().map(|key| size_of_object(*key)).sum();
        for percent in [1, 5, 20] {
            let capacity = footprint * percent / 100;
            let sieve = replay(&trace, &mut Sieve::new(), capacity);
            let lru = replay(&trace, &mut Lru::default(), capacity);
            println!("{percent} %: sieve {sieve:.3?} lru {lru:.3?}");
            assert!(sieve.0 >= lru.0 && sieve.1 >= lru.1, "{percent} %: {sieve:?} against {lru:?}");
        }
    }
}
