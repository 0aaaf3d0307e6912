//! How many requests and bytes are hits in the order of [`Sieve`], against LRU.

use std::collections::BTreeMap;

use super::*;

impl Object for u32 {
    type Name = Self;

    fn name(&self) -> Self {
        *self
    }
}

/// A cache of so many bytes that is asked for objects and fetches what it lacks.
pub(in crate::store) trait Cache {
    fn hit(&mut self, key: u32) -> bool;
    fn fetched(&mut self, key: u32, size: u64, capacity: u64);
}

impl Cache for Sieve<u32> {
    fn hit(&mut self, key: u32) -> bool {
        self.touch(&key);
        self.contains(&key)
    }

    fn fetched(&mut self, key: u32, size: u64, capacity: u64) {
        while self.extent().bytes + size > capacity {
            self.next_victim(|_| false).unwrap();
        }
        self.insert(key, size);
    }
}

#[derive(Default)]
pub(in crate::store) struct Lru {
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

pub(in crate::store) struct Random(u64);

impl Random {
    /// xorshift64* (Vigna 2016).
    pub(in crate::store) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From 0 up to 1.
    pub(in crate::store) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// What a trace is made of.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Shape {
    pub(in crate::store) seed: u64,
    /// Of the Zipf distribution of what is popular.
    pub(in crate::store) exponent: f64,
    pub(in crate::store) popular: u32,
    /// How often a run through objects that nobody wants twice follows on requests for popular ones.
    pub(in crate::store) rounds: u32,
    pub(in crate::store) requests: u32,
    pub(in crate::store) scanned: u32,
    /// Sizes in bytes: from the one to so many times it, as they are spread in a package repository.
    pub(in crate::store) least: u64,
    pub(in crate::store) spread: f64,
}

/// From 4 KiB to 4 MiB.
const REPOSITORY: Shape = Shape {
    seed: 20_261_123,
    exponent: 0.9,
    popular: 4000,
    rounds: 30,
    requests: 3000,
    scanned: 200,
    least: 4096,
    spread: 1024.0,
};

impl Shape {
    /// A multiple of 4 KiB, as files take it.
    pub(in crate::store) fn size_of(&self, key: u32) -> u64 {
        let mut random = Random(u64::from(key).wrapping_add(self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.next();
        ((self.least as f64 * self.spread.powf(random.fraction())) as u64).next_multiple_of(4096)
    }

    /// Popular objects, and again and again a run through others.
    pub(in crate::store) fn trace(&self) -> Vec<u32> {
        let mut random = Random(self.seed | 1);
        let mut weights: Vec<f64> = (1..=self.popular).map(|rank| f64::from(rank).powf(-self.exponent)).collect();
        for i in 1..weights.len() {
            weights[i] += weights[i - 1];
        }
        let all = weights[weights.len() - 1];
        let mut trace = Vec::new();
        let mut scanned = 1_000_000;
        for _ in 0..self.rounds {
            for _ in 0..self.requests {
                let point = random.fraction() * all;
                trace.push(weights.partition_point(|sum| *sum < point) as u32);
            }
            trace.extend(scanned..scanned + self.scanned);
            scanned += self.scanned;
        }
        trace
    }

    /// Bytes of all objects of a trace.
    pub(in crate::store) fn footprint(&self, trace: &[u32]) -> u64 {
        let objects: std::collections::BTreeSet<u32> = trace.iter().copied().collect();
        objects.iter().map(|key| self.size_of(*key)).sum()
    }

    /// What a cache of so many bytes makes of a trace.
    pub(in crate::store) fn replay(&self, trace: &[u32], cache: &mut dyn Cache, capacity: u64) -> Ratios {
        let mut ratios = Ratios::default();
        for &key in trace {
            let size = self.size_of(key);
            let hit = cache.hit(key);
            ratios.count(size, hit);
            if !hit && size <= capacity {
                cache.fetched(key, size, capacity);
            }
        }
        ratios
    }
}

/// How much was hits.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::store) struct Ratios {
    hits: u64,
    all: u64,
    hit_bytes: u64,
    all_bytes: u64,
}

impl Ratios {
    pub(in crate::store) fn count(&mut self, size: u64, hit: bool) {
        self.all += 1;
        self.all_bytes += size;
        self.hits += u64::from(hit);
        self.hit_bytes += if hit { size } else { 0 };
    }

    /// Of requests.
    pub(in crate::store) fn requests(&self) -> f64 {
        self.hits as f64 / self.all as f64
    }

    /// Of bytes.
    pub(in crate::store) fn bytes(&self) -> f64 {
        self.hit_bytes as f64 / self.all_bytes as f64
    }
}

/// Compares at 1, 5 and 20 % of the footprint, prints a row for each, and returns where LRU has more bytes or requests.
fn compare(shape: &Shape) -> Vec<String> {
    let trace = shape.trace();
    let footprint = shape.footprint(&trace);
    let mut worse = Vec::new();
    for percent in [1, 5, 20] {
        let capacity = footprint * percent / 100;
        let sieve = shape.replay(&trace, &mut Sieve::new(), capacity);
        let lru = shape.replay(&trace, &mut Lru::default(), capacity);
        let row = format!(
            "| {} | {} | {percent} % | {:.3} | {:.3} | {:.3} | {:.3} |",
            shape.exponent,
            shape.seed,
            sieve.bytes(),
            lru.bytes(),
            sieve.requests(),
            lru.requests(),
        );
        println!("{row}");
        if sieve.bytes() < lru.bytes() || sieve.requests() < lru.requests() {
            worse.push(row);
        }
    }
    worse
}

const HEAD: &str = "| exponent | seed | of the footprint | bytes | bytes, LRU | requests | requests, LRU |";

#[test]
fn scans_cost_it_fewer_hits_than_they_cost_lru() {
    println!("{HEAD}");
    let shapes = [0.7, 0.9, 1.1].map(|exponent| Shape { exponent, rounds: 12, ..REPOSITORY });
    let worse: Vec<_> = [REPOSITORY].iter().chain(&shapes).flat_map(compare).collect();
    assert!(worse.is_empty(), "{worse:#?}");
}

#[test]
#[ignore = "prints a table"]
fn figures_of_evictions() {
    println!("{HEAD}");
    let mut worse = Vec::new();
    for exponent in [0.7, 0.9, 1.1] {
        for seed in 1..=5 {
            worse.extend(compare(&Shape { seed, exponent, ..REPOSITORY }));
        }
    }
    assert!(worse.is_empty(), "{worse:#?}");
}
