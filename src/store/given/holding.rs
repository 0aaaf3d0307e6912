//! [`Holding`]: what one client address was given of one resource. Pure: times come from outside.
//!
//! # The rule
//! An address is not a device: several may stand behind one. Whatever version an address was given stays in its holding
//! beside the others, also when a download of another version begins at byte 0, since the one that began and the one that
//! holds a part of the former version may be two. So a device that starts anew is always served, and a resume from an
//! address that holds two versions is answered only when something else tells them apart (`decide::choose`).
//!
//! A version leaves a holding only by time, counted while the node runs. When all that is known to have begun was handed
//! out to its last byte, nobody should come for more of it: it leaves after a day, since the last bytes may still have
//! been lost on their way. Otherwise a part of it may wait on a paused device: it leaves a week after bytes of it were
//! given last.

use crate::content::PartialId;

/// Most versions in a holding. With more, nothing is told apart any more.
const MOST: usize = 4;
/// How long a version stays that was handed out whole, in seconds.
const DAY: u32 = 24 * 3600;
/// How long one stays that was handed out in part.
const WEEK: u32 = 7 * DAY;
/// How old what is written down may get, in seconds.
const REFRESH: u32 = 3600;

/// One version of which the address was given bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// Its first body ([`crate::content::Version::birth`]).
    pub(super) birth: PartialId,
    /// When bytes of it were given last, in seconds of the node's running time.
    pub(super) last: u32,
    /// When that was written down last.
    pub(super) noted: u32,
    /// Answers with the whole of it that are under way.
    open: u16,
    /// An answer with a part of it was given, or one with the whole was cut.
    partly: bool,
}

/// All versions of one resource of which one address was given bytes.
#[derive(Debug, Clone)]
pub(super) struct Holding {
    first: Share,
    others: Vec<Share>,
    /// When there were more than can be kept.
    more: Option<u32>,
}

/// What a gift changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing that has to be written down.
    None,
    /// The version is new here, the only one.
    New,
    /// The version is new here, and there are others: what was written down before is wrong now.
    Mixed,
    /// It is known, but what was written down gets old.
    Refreshed,
}

impl Share {
    /// Bytes of `birth` are given at `now`: the whole of it, or a part.
    fn begun(birth: PartialId, whole: bool, now: u32) -> Self {
        Self { birth, last: now, noted: now, open: u16::from(whole), partly: !whole }
    }

    /// As it was written down.
    pub(super) fn noted(birth: PartialId, partly: bool, last: u32) -> Self {
        Self { birth, last, noted: last, open: 0, partly }
    }

    /// Whether a part of it may wait on a device.
    pub(super) fn is_partly(&self) -> bool {
        self.partly || self.open > 0
    }

    fn is_live(&self, now: u32) -> bool {
        let stays = if self.is_partly() { WEEK } else { DAY };
        now.saturating_sub(self.last) < stays
    }
}

impl Holding {
    /// Of an address that is given bytes of `birth` for the first time.
    pub(super) fn begun(birth: PartialId, whole: bool, now: u32) -> Self {
        Self::of(Share::begun(birth, whole, now))
    }

    /// With one version in it.
    pub(super) fn of(share: Share) -> Self {
        Self { first: share, others: Vec::new(), more: None }
    }

    /// Everything in it, whether it still counts or not.
    pub(super) fn shares(&self) -> impl Iterator<Item = &Share> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn shares_mut(&mut self) -> impl Iterator<Item = &mut Share> {
        std::iter::once(&mut self.first).chain(&mut self.others)
    }

    /// What counts at `now`, and whether there was more than is known.
    pub(super) fn live(&self, now: u32) -> (impl Iterator<Item = PartialId>, bool) {
        let more = self.more.is_some_and(|at| now.saturating_sub(at) < WEEK);
        (self.shares().filter(move |share| share.is_live(now)).map(|share| share.birth), more)
    }

    /// Bytes of `birth` are given, the whole of it or a part. `None` when it is not here yet.
    pub(super) fn give_more(&mut self, birth: PartialId, whole: bool, now: u32) -> Option<Change> {
        let share = self.shares_mut().find(|share| share.birth == birth)?;
        share.last = share.last.max(now);
        share.open = share.open.saturating_add(u16::from(whole));
        share.partly |= !whole;
        if now.saturating_sub(share.noted) < REFRESH {
            return Some(Change::None);
        }
        share.noted = now;
        Some(Change::Refreshed)
    }

    /// The same of a version that is not here yet. `is_one` says of two versions whether both are complete and have the
    /// same content: of them one is enough.
    pub(super) fn give(
        &mut self,
        birth: PartialId,
        whole: bool,
        now: u32,
        is_one: impl Fn(PartialId, PartialId) -> bool,
    ) -> Change {
        let mut mixed = false;
        self.add(Share::begun(birth, whole, now), now, |other| {
            mixed |= !is_one(other, birth);
            is_one(other, birth)
        });
        if mixed || self.more.is_some() { Change::Mixed } else { Change::New }
    }

    /// Adds what was written down.
    pub(super) fn recall(&mut self, share: Share, is_one: impl Fn(PartialId, PartialId) -> bool) {
        if let Some(known) = self.shares_mut().find(|known| known.birth == share.birth) {
            known.last = known.last.max(share.last);
            known.noted = known.last;
            known.partly |= share.partly;
            return;
        }
        self.add(share, share.last, |other| is_one(other, share.birth));
    }

    /// Notes that there were more versions than are known.
    pub(super) fn recall_more(&mut self, at: u32) {
        self.more = Some(self.more.map_or(at, |more| more.max(at)));
    }

    /// When there were more than can be kept.
    pub(super) fn more(&self) -> Option<u32> {
        self.more
    }

    /// An answer with the whole of `birth` has ended: handed out to its last byte, or not.
    pub(super) fn ended(&mut self, birth: PartialId, whole: bool, now: u32) {
        if let Some(share) = self.shares_mut().find(|share| share.birth == birth) {
            share.last = share.last.max(now);
            share.open = share.open.saturating_sub(1);
            share.partly |= !whole;
        }
    }

    /// Whether a part of something in it may wait on a device.
    pub(super) fn is_partly(&self) -> bool {
        self.more.is_some() || self.shares().any(Share::is_partly)
    }

    /// When anything of it was given last.
    pub(super) fn last(&self) -> u32 {
        self.shares().map(|share| share.last).max().unwrap_or(0)
    }

    /// Adds a share; those that do not count any more go, and those that `replaced` names.
    fn add(&mut self, share: Share, now: u32, mut replaced: impl FnMut(PartialId) -> bool) {
        let mut open = share.open;
        let mut partly = share.partly;
        let mut kept = Vec::with_capacity(self.others.len() + 1);
        for other in std::mem::take(&mut self.others).into_iter().chain([self.first]) {
            if !other.is_live(now) {
                continue;
            }
            if replaced(other.birth) {
                open = open.saturating_add(other.open);
                partly |= other.partly;
                continue;
            }
            kept.push(other);
        }
        self.more = self.more.filter(|at| now.saturating_sub(*at) < WEEK);
        if kept.len() >= MOST {
            kept.sort_by_key(|share| std::cmp::Reverse(share.last));
            kept.truncate(MOST - 1);
            self.more = Some(now);
        }
        self.first = Share { open, partly, ..share };
        self.others = kept;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn births(holding: &Holding, now: u32) -> Vec<u64> {
        let mut births: Vec<_> = holding.live(now).0.map(|birth| birth.0).collect();
        births.sort_unstable();
        births
    }

    fn never(_: PartialId, _: PartialId) -> bool {
        false
    }

    fn give(holding: &mut Holding, birth: u64, whole: bool, now: u32) -> Change {
        let more = holding.give_more(PartialId(birth), whole, now);
        more.unwrap_or_else(|| holding.give(PartialId(birth), whole, now, never))
    }

    #[test]
    fn a_version_that_was_handed_out_whole_leaves_after_a_day_and_a_part_after_a_week() {
        for (whole, ends_whole, stays) in [(true, true, DAY), (true, false, WEEK), (false, true, WEEK)] {
            let mut holding = Holding::begun(PartialId(1), whole, 100);
            if whole {
                holding.ended(PartialId(1), ends_whole, 200);
            }
            let last = if whole { 200 } else { 100 };
            assert_eq!(births(&holding, last + stays - 1), [1]);
            assert!(births(&holding, last + stays).is_empty());
        }
        let under_way = Holding::begun(PartialId(1), true, 100);
        assert_eq!(births(&under_way, 100 + DAY), [1]);
    }

    #[test]
    fn a_new_beginning_stands_beside_what_was_there() {
        let mut holding = Holding::begun(PartialId(1), false, 100);
        assert_eq!(give(&mut holding, 1, false, 200), Change::None);
        assert_eq!(give(&mut holding, 2, true, 300), Change::Mixed);
        assert_eq!(births(&holding, 300), [1, 2]);
        assert_eq!(give(&mut holding, 2, true, 300 + REFRESH), Change::Refreshed);
        assert_eq!(give(&mut holding, 2, true, 301 + REFRESH), Change::None);
        let mut whole = Holding::begun(PartialId(1), true, 100);
        whole.ended(PartialId(1), true, 110);
        assert_eq!(give(&mut whole, 2, true, 110 + DAY), Change::New, "nobody holds the first any more");
        assert_eq!(births(&whole, 110 + DAY), [2]);
    }

    #[test]
    fn of_the_same_content_one_is_enough_and_nothing_is_forgotten_of_it() {
        let mut holding = Holding::begun(PartialId(1), false, 100);
        assert_eq!(holding.give(PartialId(2), true, 200, |_, _| true), Change::New);
        holding.ended(PartialId(2), true, 300);
        assert_eq!(births(&holding, 300 + DAY), [2], "somebody has a part of it");
    }

    #[test]
    fn more_versions_than_can_be_kept_are_not_told_apart() {
        let mut holding = Holding::begun(PartialId(0), false, 0);
        for number in 1..10 {
            assert_eq!(give(&mut holding, number, false, number as u32), Change::Mixed);
            assert_eq!(holding.live(10).1, number as usize >= MOST);
        }
        assert_eq!(births(&holding, 10), [6, 7, 8, 9]);
        assert!(holding.live(9 + WEEK - 1).1 && !holding.live(9 + WEEK).1);
        give(&mut holding, 77, false, 9 + WEEK);
        assert_eq!((births(&holding, 9 + WEEK), holding.more()), (vec![77], None));
    }

    proptest! {
        /// Whoever was given a part within a week is in the holding, or it says that there was more.
        #[test]
        fn nothing_that_may_wait_on_a_device_is_forgotten(
            gifts in prop::collection::vec((0u64..7, any::<bool>(), 0u32..200_000), 1..40),
        ) {
            let mut now = 0;
            let mut given: Vec<(u64, u32)> = Vec::new();
            let mut holding: Option<Holding> = None;
            for (birth, whole, pause) in gifts {
                now += pause;
                match &mut holding {
                    None => holding = Some(Holding::begun(PartialId(birth), whole, now)),
                    Some(holding) => drop(give(holding, birth, whole, now)),
                }
                if whole {
                    holding.iter_mut().for_each(|holding| holding.ended(PartialId(birth), birth % 2 == 0, now));
                }
                if !whole || birth % 2 == 1 {
                    given.push((birth, now));
                }
                let holding = holding.as_ref().unwrap();
                let live = births(holding, now);
                let missing = given.iter().any(|(birth, at)| now - at < WEEK && !live.contains(birth));
                prop_assert!(!missing || holding.live(now).1, "{given:?} at {now}: {holding:?}");
            }
        }
    }
}
