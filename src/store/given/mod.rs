//! [`Given`]: which version of a resource each client address was given, so that a client which comes for the rest without
//! saying of what gets the rest of that, or nothing.
//!
//! A Delivery Optimization agent resumes by a bare range and appends whatever comes; after a change upstream it would join
//! two versions. What is answered then is `decide::choose`'s business; how long a version is remembered, `holding`'s.
//!
//! # Bounds
//! 64 k pairs of address and resource, spread over shelves with a lock of their own each. When a shelf is full, pairs
//! whose downloads were handed out whole go first, then those that were given something least lately.
//!
//! # What a crash may take
//! Changes are kept in memory for 20 ms and then written to `<state>/versions.log`, which is synced each second. So what
//! is lost with a kill is at most the first gift of a pair within the last 20 ms, and with a power cut within the last
//! second. A client without an entry gets a version only if its range tells which, or if only one is stored: the one that
//! it was given is stored too, unless it went within that moment. What would mislead if it were lost is synced before the
//! first byte leaves: that a pair which was given one version is now given another one ([`Given::give`]), and that bytes
//! which were given turned out to be wrong ([`Given::spoil`]).
//!
//! The file goes with the state directory. Then nothing is known of clients that hold a part: one that resumes gets what is
//! stored if it is the only version, or has the length that its range tells.

mod holding;
mod keeper;
mod line;
mod shelf;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::content::{Held, KeyHash, PartialId, Spoiled, Version};
use holding::{Change, Share};
use keeper::Bell;
pub(super) use keeper::Keeper;
use line::{Address, Line};
use shelf::{Pair, Shelf};

/// Most pairs of address and resource.
const PAIRS: usize = 64 * 1024;
const SHELVES: usize = 64;
/// So many versions that were spoiled last are looked at whenever a client is given a version for the first time.
const LATE: usize = 16;
/// How long a request waits for what must be durable before its bytes leave. A state directory that fails must not keep
/// clients from their content; then only a crash would mislead.
const DURABLE_WITHIN: Duration = Duration::from_secs(1);

/// The memory of all pairs.
pub(in crate::store) struct Given {
    shelves: Vec<Mutex<Shelf>>,
    hasher: RandomState,
    started: Instant,
    /// Seconds that earlier processes ran, as far as they were written down.
    before: AtomicU32,
    bell: Bell,
    /// What was spoiled last, for those who are given bytes of it at the same time.
    spoiled: Mutex<VecDeque<(KeyHash, PartialId, Spoiled)>>,
    /// Whether there is any, so that most need not look.
    has_spoiled: AtomicBool,
}

/// What a client address was given of one resource.
#[derive(Debug, Clone, Default)]
pub struct Holdings {
    /// The versions, in no order.
    pub versions: Vec<Held>,
    /// There were more than are known.
    pub more: bool,
}

/// An answer with a whole body, on its way. Dropped, it counts as one that was cut.
#[derive(Debug)]
pub struct Gift {
    given: Arc<Given>,
    pair: Pair,
    birth: PartialId,
    whole: bool,
}

impl Given {
    /// Knows nothing yet.
    pub(super) fn new() -> Self {
        Self::with_capacity(PAIRS)
    }

    fn with_capacity(pairs: usize) -> Self {
        let shelves = (0..SHELVES).map(|_| Mutex::new(Shelf::new(pairs.div_ceil(SHELVES)))).collect();
        let (hasher, before) = (RandomState::default(), AtomicU32::new(0));
        Self {
            shelves,
            hasher,
            started: Instant::now(),
            before,
            bell: Bell::default(),
            spoiled: Mutex::default(),
            has_spoiled: AtomicBool::new(false),
        }
    }

    /// `client` is about to be given bytes of `version`: all of them, or a part. Returns when they may leave.
    pub(super) async fn give(
        self: &Arc<Self>,
        client: IpAddr,
        key: KeyHash,
        version: &Version,
        whole: bool,
    ) -> Option<Gift> {
        let pair = (address(client), key);
        let (has_lines, must_be_durable) = self.note(pair, version, whole);
        if has_lines {
            self.bell.ring();
        }
        if must_be_durable {
            // Whatever comes of it, see there.
            let _ = tokio::time::timeout(DURABLE_WITHIN, self.bell.durable()).await;
        }
        whole.then(|| Gift { given: Arc::clone(self), pair, birth: version.birth, whole: false })
    }

    /// As [`Given::give`] with the whole, if the bytes may leave at once. Otherwise nothing is noted.
    pub(super) fn give_now(self: &Arc<Self>, client: IpAddr, key: KeyHash, version: &Version) -> Option<Gift> {
        let pair = (address(client), key);
        let has_lines = {
            let mut shelf = self.shelf(&pair).lock();
            // Of one that was given it already there is nothing to be made durable. Of one that was given nothing there
            // may be, once there are spoiled versions; of one that was given another version there is.
            if !shelf.give_again(pair, version.birth, self.now()) {
                if shelf.has(&pair) || self.has_spoiled.load(Ordering::Acquire) {
                    return None;
                }
                shelf.give(pair, version, true, self.now());
            }
            shelf.has_lines()
        };
        if has_lines {
            self.bell.ring();
        }
        Some(Gift { given: Arc::clone(self), pair, birth: version.birth, whole: false })
    }

    /// Says whether there is something to write, and whether it must be durable before the bytes leave.
    fn note(&self, pair: Pair, version: &Version, whole: bool) -> (bool, bool) {
        let mut shelf = self.shelf(&pair).lock();
        let change = shelf.give(pair, version, whole, self.now());
        let mut must_be_durable = change == Change::Mixed;
        if change != Change::None {
            // A body whose bytes turn out to be wrong while the first of them leave for one more client.
            if let Some(spoiled) = self.spoiled_late(pair.1, version.birth) {
                must_be_durable |= shelf.spoil(pair.1, version.birth, spoiled);
            }
        }
        (shelf.has_lines(), must_be_durable)
    }

    fn spoiled_late(&self, key: KeyHash, birth: PartialId) -> Option<Spoiled> {
        if !self.has_spoiled.load(Ordering::Acquire) {
            return None;
        }
        let late = self.spoiled.lock();
        late.iter().rev().find(|late| (late.0, late.1) == (key, birth)).map(|late| late.2)
    }

    /// What `client` was given of `key`.
    pub(super) fn of(&self, client: IpAddr, key: KeyHash) -> Holdings {
        let pair = (address(client), key);
        let (versions, more) = self.shelf(&pair).lock().of(&pair, self.now());
        Holdings { versions, more }
    }

    /// A body is complete.
    pub(super) fn complete(&self, key: KeyHash, version: &Version) {
        let told = self.shelves.iter().filter(|shelf| shelf.lock().complete(key, version)).count();
        if told > 0 {
            self.bell.ring();
        }
    }

    /// The bytes of a version turned out to be wrong. Says whether anybody was given some: then that is to be made
    /// durable before there are right ones.
    pub(super) fn spoil(&self, key: KeyHash, birth: PartialId, spoiled: Spoiled) -> bool {
        {
            let mut late = self.spoiled.lock();
            if late.len() >= LATE {
                late.pop_front();
            }
            late.push_back((key, birth, spoiled));
            self.has_spoiled.store(true, Ordering::Release);
        }
        let told = self.shelves.iter().filter(|shelf| shelf.lock().spoil(key, birth, spoiled)).count();
        if told > 0 {
            self.bell.ring();
        }
        told > 0
    }

    /// Waits until everything so far is durable. For the drives' threads only.
    pub(super) fn wait_durable(&self) {
        self.bell.wait_durable(DURABLE_WITHIN);
    }

    /// Versions of `key` whose bytes are wrong and not yet compared with right ones.
    pub(super) fn spoiled_of(&self, key: KeyHash) -> Vec<PartialId> {
        let mut births: Vec<PartialId> = Vec::new();
        for shelf in &self.shelves {
            births.extend(shelf.lock().spoiled_of(key));
        }
        births.sort_unstable();
        births.dedup();
        births
    }

    /// Ends the keeper after it has written everything.
    pub(super) fn close(&self) {
        self.bell.close();
    }

    /// Takes in what an earlier process wrote down.
    fn recall(&self, lines: impl Iterator<Item = Line>) {
        let mut known: HashMap<(KeyHash, PartialId), Held> = HashMap::new();
        let mut last_of_all = 0;
        for line in lines {
            match line {
                Line::Format(_) => {}
                Line::Version { key, version } => {
                    let held = known.entry((key, version.birth)).or_insert(Held { version, spoiled: None });
                    held.version = version.completed_by(&held.version);
                }
                Line::Spoiled { key, birth, spoiled } => {
                    if let Some(held) = known.get_mut(&(key, birth)) {
                        held.spoiled = Some(spoiled);
                    }
                }
                Line::Share { address, key, birth, last, partly } => {
                    // Without the line that tells of the version it is one that nothing else is like.
                    let bare = Version { birth, validator: None, length: None, digest: None };
                    let held = known.entry((key, birth)).or_insert(Held { version: bare, spoiled: None });
                    let pair = (address, key);
                    self.shelf(&pair).lock().recall(pair, Share::noted(birth, partly, last), *held);
                    last_of_all = last_of_all.max(last);
                }
                Line::More { address, key, last } => {
                    let pair = (address, key);
                    self.shelf(&pair).lock().recall_more(&pair, last);
                    last_of_all = last_of_all.max(last);
                }
            }
        }
        // What was said of a version after its first holder came.
        for ((key, birth), held) in &known {
            for shelf in &self.shelves {
                let mut shelf = shelf.lock();
                if shelf.complete(*key, &held.version)
                    && let Some(spoiled) = held.spoiled
                {
                    shelf.spoil(*key, *birth, spoiled);
                }
            }
        }
        self.before.fetch_max(last_of_all, Ordering::Relaxed);
    }

    /// Seconds that the node has been running, in this process and in those before.
    fn now(&self) -> u32 {
        let now = u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX);
        self.before.load(Ordering::Relaxed).saturating_add(now)
    }

    fn shelf(&self, pair: &Pair) -> &Mutex<Shelf> {
        // There is one for each remainder.
        &self.shelves[self.hasher.hash_one(pair) as usize % SHELVES]
    }

    /// Takes the lines that wait to be written.
    fn take_lines(&self, out: &mut Vec<u8>) {
        for shelf in &self.shelves {
            out.extend(shelf.lock().take_lines());
        }
    }

    /// Everything as a file has it.
    fn snapshot(&self) -> Vec<u8> {
        let mut out = Line::format().encode().to_vec();
        for shelf in &self.shelves {
            let mut shelf = shelf.lock();
            // They are in what follows.
            drop(shelf.take_lines());
            shelf.snapshot(&mut out);
        }
        out
    }

    /// Bytes of a snapshot, roughly.
    fn size(&self) -> usize {
        self.shelves.iter().map(|shelf| shelf.lock().size()).sum()
    }
}

impl Gift {
    /// The last byte was handed out.
    pub fn handed_out(mut self) {
        self.whole = true;
    }
}

impl Drop for Gift {
    fn drop(&mut self) {
        let now = self.given.now();
        self.given.shelf(&self.pair).lock().ended(self.pair, self.birth, self.whole, now);
    }
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Given").finish_non_exhaustive()
    }
}

fn address(client: IpAddr) -> Address {
    match client {
        IpAddr::V4(client) => client.to_ipv6_mapped().octets(),
        IpAddr::V6(client) => client.octets(),
    }
}
