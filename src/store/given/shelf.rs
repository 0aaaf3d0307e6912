//! [`Shelf`]: one share of the memory, with what still has to be written down of it. Pure: no I/O, no clock.

use std::collections::VecDeque;

use foldhash::{HashMap, HashMapExt as _};

use super::holding::{Change, Holding, Share};
use super::line::{Address, LINE, Line};
use crate::content::{Held, KeyHash, PartialId, Spoiled, Version};

/// So many of the oldest are looked at to choose which has to go.
const SAMPLE: usize = 16;

/// One client address and one resource.
pub(super) type Pair = (Address, KeyHash);

/// Some of the pairs, all that is known of the versions in their holdings, and lines that wait to be written.
pub(super) struct Shelf {
    holdings: HashMap<Pair, Holding>,
    /// Oldest first.
    order: VecDeque<Pair>,
    capacity: usize,
    versions: HashMap<(KeyHash, PartialId), Known>,
    lines: Vec<u8>,
}

/// What is known of a version.
#[derive(Debug, Clone, Copy)]
struct Known {
    held: Held,
    /// Holdings that have it.
    holders: u32,
}

impl Shelf {
    /// With room for `capacity` holdings.
    pub(super) fn new(capacity: usize) -> Self {
        Self { holdings: HashMap::new(), order: VecDeque::new(), capacity, versions: HashMap::new(), lines: Vec::new() }
    }

    /// `pair` is given bytes of `version`, the whole of it or a part. Of [`Change::Mixed`] what was written down before
    /// would mislead after a crash.
    pub(super) fn give(&mut self, pair: Pair, version: &Version, whole: bool, now: u32) -> Change {
        let birth = version.birth;
        let known = self.holdings.get_mut(&pair);
        let again = known.and_then(|holding| holding.give_more(birth, whole, now));
        let change = match (again, self.holdings.get_mut(&pair)) {
            (Some(change), _) => change,
            (None, Some(holding)) => {
                let before = births(holding);
                let versions = &self.versions;
                let one = |a, b| is_one(versions, pair.1, a, b, version);
                let change = holding.give(birth, whole, now, one);
                let after = births(holding);
                self.count(pair.1, &before, &after, version);
                change
            }
            (None, None) => {
                self.insert(pair, Holding::begun(birth, whole, now));
                self.count(pair.1, &[], &[birth], version);
                Change::New
            }
        };
        self.learn(pair.1, version);
        if change != Change::None {
            // After a crash nobody knows how its answers ended: it counts as one of which a part was given.
            self.note(&Line::Share { address: pair.0, key: pair.1, birth, last: now, partly: true });
        }
        if let Some(last) = self.holdings.get(&pair).and_then(Holding::more).filter(|_| change == Change::Mixed) {
            self.note(&Line::More { address: pair.0, key: pair.1, last });
        }
        change
    }

    /// The same with the whole of a version of which `pair` was given bytes before; `false` when it was not.
    pub(super) fn give_again(&mut self, pair: Pair, birth: PartialId, now: u32) -> bool {
        let Some(change) = self.holdings.get_mut(&pair).and_then(|holding| holding.give_more(birth, true, now)) else {
            return false;
        };
        if change != Change::None {
            self.note(&Line::Share { address: pair.0, key: pair.1, birth, last: now, partly: true });
        }
        true
    }

    /// Whether `pair` was given anything.
    pub(super) fn has(&self, pair: &Pair) -> bool {
        self.holdings.contains_key(pair)
    }

    /// An answer with the whole of `birth` has ended: handed out to its last byte, or not.
    pub(super) fn ended(&mut self, pair: Pair, birth: PartialId, whole: bool, now: u32) {
        if let Some(holding) = self.holdings.get_mut(&pair) {
            holding.ended(birth, whole, now);
        }
    }

    /// What `pair` was given, and whether there was more than is known.
    pub(super) fn of(&self, pair: &Pair, now: u32) -> (Vec<Held>, bool) {
        let Some(holding) = self.holdings.get(pair) else { return (Vec::new(), false) };
        let (live, more) = holding.live(now);
        (live.filter_map(|birth| self.versions.get(&(pair.1, birth))).map(|known| known.held).collect(), more)
    }

    /// A body is complete: its digest is known. Says whether anybody holds a part of it.
    pub(super) fn complete(&mut self, key: KeyHash, version: &Version) -> bool {
        let known = self.versions.contains_key(&(key, version.birth));
        if known {
            self.learn(key, version);
        }
        known
    }

    /// The bytes of a version are wrong. Says whether anybody holds a part of it.
    pub(super) fn spoil(&mut self, key: KeyHash, birth: PartialId, spoiled: Spoiled) -> bool {
        let Some(known) = self.versions.get_mut(&(key, birth)) else { return false };
        known.held.spoiled = Some(spoiled);
        self.note(&Line::Spoiled { key, birth, spoiled });
        true
    }

    /// Versions of `key` whose bytes are wrong, nobody knows from where on.
    pub(super) fn spoiled_of(&self, key: KeyHash) -> impl Iterator<Item = PartialId> {
        let unknown = move |known: &&Known| known.held.spoiled == Some(Spoiled::Throughout);
        let of_key = self.versions.iter().filter(move |((of, _), _)| *of == key).map(|(_, known)| known);
        of_key.filter(unknown).map(|known| known.held.version.birth)
    }

    /// Takes in what was written down of a pair. `known` tells of the version.
    pub(super) fn recall(&mut self, pair: Pair, share: Share, known: Held) {
        let key = pair.1;
        self.versions.entry((key, share.birth)).or_insert(Known { held: known, holders: 0 });
        match self.holdings.get_mut(&pair) {
            Some(holding) => {
                let before = births(holding);
                let versions = &self.versions;
                holding.recall(share, |a, b| is_one(versions, key, a, b, &known.version));
                let after = births(holding);
                self.count(key, &before, &after, &known.version);
            }
            None => {
                self.insert(pair, Holding::of(share));
                self.count(key, &[], &[share.birth], &known.version);
            }
        }
    }

    /// Takes in that a pair was given more than is known.
    pub(super) fn recall_more(&mut self, pair: &Pair, last: u32) {
        if let Some(holding) = self.holdings.get_mut(pair) {
            holding.recall_more(last);
        }
    }

    /// Whether lines wait to be written.
    pub(super) fn has_lines(&self) -> bool {
        !self.lines.is_empty()
    }

    /// The lines that wait to be written, which are the caller's from now on.
    pub(super) fn take_lines(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.lines)
    }

    /// Everything as lines.
    pub(super) fn snapshot(&self, out: &mut Vec<u8>) {
        for ((key, birth), known) in &self.versions {
            out.extend_from_slice(&Line::Version { key: *key, version: known.held.version }.encode());
            if let Some(spoiled) = known.held.spoiled {
                out.extend_from_slice(&Line::Spoiled { key: *key, birth: *birth, spoiled }.encode());
            }
        }
        // In their order, so that it is the same after the next start.
        for pair in &self.order {
            let Some(holding) = self.holdings.get(pair) else { continue };
            let (address, key) = *pair;
            for share in holding.shares() {
                let Share { birth, last, .. } = *share;
                let line = Line::Share { address, key, birth, last, partly: share.is_partly() };
                out.extend_from_slice(&line.encode());
            }
            if let Some(last) = holding.more() {
                out.extend_from_slice(&Line::More { address, key, last }.encode());
            }
        }
    }

    /// Number of lines that a snapshot has, roughly.
    pub(super) fn size(&self) -> usize {
        (self.holdings.len() + self.versions.len()) * LINE
    }

    /// Number of holdings.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.order.len(), self.holdings.len());
        let holders: u32 = self.versions.values().map(|known| known.holders).sum();
        assert_eq!(holders as usize, self.holdings.values().map(|holding| holding.shares().count()).sum::<usize>());
        assert!(self.versions.values().all(|known| known.holders > 0));
        self.holdings.len()
    }

    fn note(&mut self, line: &Line) {
        self.lines.extend_from_slice(&line.encode());
    }

    /// Adds what `version` says beyond what is known, and writes it down.
    fn learn(&mut self, key: KeyHash, version: &Version) {
        let Some(known) = self.versions.get_mut(&(key, version.birth)) else { return };
        let before = known.held.version;
        let now = before.completed_by(version);
        known.held.version = now;
        if now != before {
            self.note(&Line::Version { key, version: now });
        }
    }

    /// A holding had the versions `before` and has those `after`, one of which is `version`.
    fn count(&mut self, key: KeyHash, before: &[PartialId], after: &[PartialId], version: &Version) {
        for birth in after.iter().filter(|birth| !before.contains(birth)) {
            if let Some(known) = self.versions.get_mut(&(key, *birth)) {
                known.holders += 1;
                continue;
            }
            let held = Held { version: *version, spoiled: None };
            self.versions.insert((key, *birth), Known { held, holders: 1 });
            self.note(&Line::Version { key, version: *version });
        }
        for birth in before.iter().filter(|birth| !after.contains(birth)) {
            let Some(known) = self.versions.get_mut(&(key, *birth)) else { continue };
            known.holders = known.holders.saturating_sub(1);
            if known.holders == 0 {
                self.versions.remove(&(key, *birth));
            }
        }
    }

    fn insert(&mut self, pair: Pair, holding: Holding) {
        if self.holdings.len() >= self.capacity {
            self.make_room();
        }
        self.holdings.insert(pair, holding);
        self.order.push_back(pair);
    }

    /// One of the oldest goes: the one that was given something least lately, but rather one that was handed out whole
    /// than one of which a part may wait on a device.
    fn make_room(&mut self) {
        let sample: Vec<Pair> = (0..SAMPLE).map_while(|_| self.order.pop_front()).collect();
        let need = |pair: &&Pair| self.holdings.get(*pair).map(|holding| (holding.is_partly(), holding.last()));
        let Some(gone) = sample.iter().min_by_key(need).copied() else { return };
        self.order.extend(sample.into_iter().filter(|pair| *pair != gone));
        if let Some(holding) = self.holdings.remove(&gone)
            && let Some(known) = holding.shares().next().and_then(|share| self.versions.get(&(gone.1, share.birth)))
        {
            let version = known.held.version;
            self.count(gone.1, &births(&holding), &[], &version);
        }
    }
}

fn births(holding: &Holding) -> Vec<PartialId> {
    holding.shares().map(|share| share.birth).collect()
}

/// Whether two versions, one of which is `given`, are complete bodies with the same content. Of a body that is complete
/// it is known whether it is right.
fn is_one(
    versions: &HashMap<(KeyHash, PartialId), Known>,
    key: KeyHash,
    one: PartialId,
    other: PartialId,
    given: &Version,
) -> bool {
    let digest = |birth: PartialId| match versions.get(&(key, birth)) {
        Some(known) if known.held.spoiled.is_some() => None,
        Some(known) => known.held.version.digest.or_else(|| (given.birth == birth).then_some(given.digest)?),
        None => (given.birth == birth).then_some(given.digest)?,
    };
    digest(one).is_some_and(|digest_of_one| digest(other) == Some(digest_of_one))
}
