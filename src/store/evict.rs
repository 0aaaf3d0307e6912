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

/// What can be in the order.
pub(super) trait Object {
    /// What stands for it there. Objects with one name have one place.
    type Name: Copy + Eq + Hash;

    /// Its name.
    fn name(&self) -> Self::Name;
}

/// How much there is to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// Number of objects.
    pub(super) objects: usize,
    /// Their size in bytes.
    pub(super) bytes: u64,
}

/// Objects of one drive in the order of eviction, with their sizes in bytes.
#[derive(Debug)]
pub(super) struct Sieve<K: Object> {
    /// The nodes by their keys.
    places: HashTable<u32>,
    hasher: RandomState,
    nodes: Vec<Node<K::Name>>,
    /// First of the unused nodes, linked through `older`.
    unused: u32,
    newest: u32,
    oldest: u32,
    /// Where the search goes on; `NIL` is the oldest.
    hand: u32,
    total: u64,
}

/// One object. With the name of a blob it takes 36 bytes.
#[derive(Debug)]
struct Node<N> {
    name: N,
    visited: bool,
    newer: u32,
    older: u32,
    /// The halves of a number, so that it needs no more room around it than the others.
    size: [u32; 2],
}

impl<N> Node<N> {
    fn size(&self) -> u64 {
        let [high, low] = self.size;
        (u64::from(high) << 32) | u64::from(low)
    }
}

fn halves(size: u64) -> [u32; 2] {
    [(size >> 32) as u32, size as u32]
}

impl<K: Object> Sieve<K> {
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
        let (name, size_halves) = (key.name(), halves(size));
        let node = Node { name, visited: false, newer: NIL, older: self.newest, size: size_halves };
        let Some(place) = self.store(node) else { return };
        match self.newest {
            NIL => self.oldest = place,
            newest => self.node(newest).newer = place,
        }
        self.newest = place;
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        let rehash = |place: &u32| nodes.get(*place as usize).map_or(0, |node| hasher.hash_one(node.name));
        self.places.insert_unique(hasher.hash_one(name), place, rehash);
        self.total = self.total.wrapping_add(size);
    }

    /// Notes that an object was asked for. Unknown ones are ignored.
    pub(super) fn touch(&mut self, key: &K) {
        if let Some(place) = self.find(&key.name()) {
            self.node(place).visited = true;
        }
    }

    /// Changes the size of an object, as a partial body grows; `false` when it is unknown.
    pub(super) fn resize(&mut self, key: &K, size: u64) -> bool {
        let Some(place) = self.find(&key.name()) else { return false };
        let node = self.node(place);
        let before = node.size();
        node.size = halves(size);
        self.total = self.total.wrapping_sub(before).wrapping_add(size);
        true
    }

    /// Forgets an object and returns its size.
    pub(super) fn remove(&mut self, key: &K) -> Option<u64> {
        self.remove_named(&key.name())
    }

    fn remove_named(&mut self, name: &K::Name) -> Option<u64> {
        let place = self.find(name)?;
        if let Ok(entry) = self.places.find_entry(self.hasher.hash_one(name), |other| *other == place) {
            entry.remove();
        }
        let (size, newer, older) = {
            let node = self.node(place);
            (node.size(), node.newer, node.older)
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
        self.find(&key.name()).is_some()
    }

    /// How much there is.
    pub(super) fn extent(&self) -> Extent {
        Extent { objects: self.places.len(), bytes: self.total }
    }

    /// Chooses the next object to go, forgets it and returns its name and size. Objects for which `veto` is true
    /// stay; `None` when that is all of them. It looks at each object at most twice; over many calls an object
    /// that no veto holds costs one step for each time it was asked for.
    pub(super) fn next_victim(&mut self, mut veto: impl FnMut(&K::Name) -> bool) -> Option<(K::Name, u64)> {
        // The first round may only clear bits, so the second is sure to meet what may go.
        for _ in 0..self.places.len().saturating_mul(2) {
            let place = if self.hand == NIL { self.oldest } else { self.hand };
            let node = self.node(place);
            let (name, newer) = (node.name, node.newer);
            let visited = std::mem::take(&mut node.visited);
            self.hand = newer;
            if !visited && !veto(&name) {
                return self.remove_named(&name).map(|size| (name, size));
            }
        }
        None
    }

    fn find(&self, name: &K::Name) -> Option<u32> {
        let is_it = |place: &u32| self.nodes.get(*place as usize).is_some_and(|node| node.name == *name);
        self.places.find(self.hasher.hash_one(name), is_it).copied()
    }

    /// Puts a node into an unused place or a new one; `None` when there are 2^32 - 1 objects.
    fn store(&mut self, node: Node<K::Name>) -> Option<u32> {
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
    fn node(&mut self, place: u32) -> &mut Node<K::Name> {
        &mut self.nodes[place as usize]
    }
}

#[cfg(test)]
#[path = "evict_tests.rs"]
mod tests;
#[cfg(test)]
#[path = "evict_traces.rs"]
pub(super) mod traces;
