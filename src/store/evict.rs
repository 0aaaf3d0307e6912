//! [`Sieve`]: which object has to go when a drive is full.
//!
//! SIEVE (Zhang et al., "SIEVE is Simpler than LRU", NSDI 2024): one queue in order of arrival, one bit per object
//! that says whether it was asked for, and a hand that moves from old to new, clears bits and takes the first
//! object without one. A look-up moves nothing, and a scan of objects that nobody asks for twice does not push
//! out those that are asked for. Deleting is the drive's business.

use std::collections::HashMap;
use std::hash::Hash;

/// No neighbour.
const NIL: u32 = u32::MAX;

/// Objects of one drive in the order of eviction, with their sizes in bytes.
#[derive(Debug)]
pub(super) struct Sieve<K> {
    places: HashMap<K, u32>,
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
        Self { places: HashMap::new(), nodes: Vec::new(), unused: NIL, newest: NIL, oldest: NIL, hand: NIL, total: 0 }
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
        self.places.insert(key, place);
        self.total = self.total.wrapping_add(size);
    }

    /// Notes that an object was asked for. Unknown ones are ignored.
    pub(super) fn touch(&mut self, key: &K) {
        if let Some(&place) = self.places.get(key) {
            self.node(place).visited = true;
        }
    }

    /// Changes the size of an object, as a partial body grows; `false` when it is unknown.
    pub(super) fn resize(&mut self, key: &K, size: u64) -> bool {
        let Some(&place) = self.places.get(key) else { return false };
        let before = std::mem::replace(&mut self.node(place).size, size);
        self.total = self.total.wrapping_sub(before).wrapping_add(size);
        true
    }

    /// Forgets an object and returns its size.
    pub(super) fn remove(&mut self, key: &K) -> Option<u64> {
        let place = self.places.remove(key)?;
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
        self.places.contains_key(key)
    }

    /// Number of objects.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Size of all objects in bytes.
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
