//! Power cuts. Every file operation of a store passes one place, where a recorder stands in these tests
//! ([`recording`]). From what it noted, a simulated disk ([`disk`]) says what may be on the medium when the power went at
//! any step: what was synced, and of the rest some, none, or pieces. Random stories ([`story`]) are told to a real store,
//! cut, and what a store finds then is held against what the first one had shown and promised ([`model`]).

mod disk;
mod disk_tests;
mod model;
pub(in crate::store) mod recording;
mod seen;
mod story;

/// Cuts of one story.
const CUTS: usize = 20;

/// Checks so many cases on `threads` threads, or the one story that `WAYSTATION_SEED` says.
fn check_cases(cases: usize, threads: usize) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let stories = (cases / CUTS) as u64;
    let first = number("WAYSTATION_SEED");
    let seeds = first.map_or(1..stories + 1, |seed| seed..seed + 1);
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut faults = Vec::new();
        loop {
            let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if seed >= seeds.end {
                return faults;
            }
            for fault in runtime.block_on(model::check(seed, CUTS)) {
                println!("WAYSTATION_SEED={seed}: {fault}");
                faults.push(seed);
            }
        }
    };
    let faults: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let all = (seeds.end - seeds.start) * CUTS as u64;
    println!("{all} cuts of {} stories, {} violations", seeds.end - seeds.start, faults.len());
    assert!(faults.is_empty(), "replay a story with WAYSTATION_SEED=<seed>: {faults:?}");
}

#[test]
fn some_hundred_cuts_leave_what_was_promised() {
    check_cases(300, 2);
}

#[test]
#[ignore = "ten thousand cases"]
fn cuts_at_random_steps_leave_what_was_promised() {
    let cases = std::env::var("WAYSTATION_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(10_000);
    check_cases(cases, 2);
}

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
