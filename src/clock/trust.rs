//! [`Watch`]: whether the system clock can be believed, and what time it is most likely when it cannot. Pure: both clocks are
//! read by the caller. Times are since 1970; the steady clock counts from somewhere, and never jumps.

use std::time::Duration;

/// A step of the system clock up to this long is a correction.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);
/// A clock that has run steadily for so long after a jump is believed again: what is deleted after a day of it has then been
/// there for a day. Whoever sets a clock right can restart the process, too.
const STEADY: Duration = Duration::from_secs(24 * 3600);
/// No release is in use for longer than this: neither a clock nor a kept time beyond is believed.
const LONGEST_USE: Duration = Duration::from_secs(3653 * 24 * 3600);
/// A plausible clock is held to have been set back by at most this long. When the kept time is further ahead of it, the kept
/// time is the wrong one: it must not make every certificate expire.
const SET_BACK: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why the system clock is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distrust {
    /// It says a time before this release was made.
    BeforeBuild,
    /// It says a time before the one that was kept when the clock was last believed.
    BehindKept,
    /// It says a time at which nobody uses this release any more.
    TooLate,
    /// It jumped while the process ran.
    Jumped,
}

/// What was seen of the system clock.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    /// When this release was made.
    built: Duration,
    /// The newest time that an earlier process kept.
    kept: Option<Duration>,
    /// When the watch began, by the steady clock.
    began: Duration,
    /// How far the system clock was ahead of the steady one when it was last believed, in milliseconds.
    believed: Option<i64>,
    /// The same of a clock that is not believed, and since when it runs so by the steady clock.
    other: Option<(i64, Duration)>,
}

impl Distrust {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::BeforeBuild, Self::BehindKept, Self::TooLate, Self::Jumped];

    /// A stable name for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BeforeBuild => "before-build",
            Self::BehindKept => "behind-kept-time",
            Self::TooLate => "too-late",
            Self::Jumped => "jumped",
        }
    }

    /// The reason for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::BeforeBuild => "it says a time before this release was made",
            Self::BehindKept => "it says a time before the last one that is known",
            Self::TooLate => "it says a time more than ten years after this release was made",
            Self::Jumped => "it jumped by more than 5 minutes",
        }
    }
}

impl Watch {
    /// Of a release made at `built`, from `steady` on.
    pub(super) fn new(built: Duration, steady: Duration) -> Self {
        Self { built, kept: None, began: steady, believed: None, other: None }
    }

    /// An earlier process kept this time. One that cannot be is not believed.
    pub(super) fn keep(&mut self, kept: Duration) {
        if kept <= self.latest() {
            self.kept = self.kept.max(Some(kept));
        }
    }

    /// Why the clock, which says `system` at `steady`, is not believed; `None` when it is.
    pub(super) fn look(&mut self, system: Duration, steady: Duration) -> Option<Distrust> {
        if system < self.built {
            return Some(Distrust::BeforeBuild);
        }
        if system > self.latest() {
            return Some(Distrust::TooLate);
        }
        let ahead = millis(system).saturating_sub(millis(steady));
        let is_near = |other: i64| ahead.abs_diff(other) <= TOLERANCE.as_millis() as u64;
        let behind_kept = self.kept.is_some_and(|kept| system + TOLERANCE < kept);
        let is_right = match self.believed {
            Some(believed) => is_near(believed),
            None => !behind_kept,
        };
        let since = self.other.filter(|(other, _)| is_near(*other)).map_or(steady, |(_, since)| since);
        if is_right || steady.saturating_sub(since) >= STEADY {
            (self.believed, self.other, self.kept) = (Some(ahead), None, self.kept.filter(|_| !behind_kept));
            return None;
        }
        self.other = Some((ahead, since));
        Some(if self.believed.is_some() { Distrust::Jumped } else { Distrust::BehindKept })
    }

    /// How far the most likely time is ahead of the steady clock, in milliseconds, for a clock that is not believed: as it
    /// was when it last was, else from the last time that is known.
    pub(super) fn likely_ahead(&self) -> i64 {
        self.believed.unwrap_or_else(|| millis(self.floor()).saturating_sub(millis(self.began)))
    }

    /// The time at which certificates are judged: never before what is known to be over. A clock that is plausible counts
    /// more than a kept time far ahead of it.
    pub(super) fn certificate_time(&self, system: Duration, steady: Duration) -> Duration {
        if system < self.built {
            let likely = millis(steady).saturating_add(self.likely_ahead());
            return Duration::from_millis(u64::try_from(likely).unwrap_or(0)).max(self.floor());
        }
        let kept = self.kept.filter(|kept| *kept <= system + SET_BACK);
        kept.map_or(system, |kept| kept.max(system))
    }

    fn floor(&self) -> Duration {
        self.kept.unwrap_or_default().max(self.built)
    }

    fn latest(&self) -> Duration {
        self.built + LONGEST_USE
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const DAY: Duration = Duration::from_secs(24 * 3600);
    const BUILT: Duration = Duration::from_secs(20_000 * 24 * 3600);

    fn watch(kept: Option<Duration>) -> Watch {
        let mut watch = Watch::new(BUILT, MINUTE);
        kept.into_iter().for_each(|kept| watch.keep(kept));
        watch
    }

    /// The most likely time at `steady`.
    fn likely(watch: &Watch, steady: Duration) -> Duration {
        Duration::from_millis((millis(steady) + watch.likely_ahead()) as u64)
    }

    #[test]
    fn a_clock_that_was_never_set_is_not_believed_until_it_is() {
        let mut watch = watch(Some(BUILT + 100 * DAY));
        assert_eq!(watch.look(DAY, MINUTE), Some(Distrust::BeforeBuild));
        assert_eq!(likely(&watch, 11 * MINUTE), BUILT + 100 * DAY + 10 * MINUTE, "time passes all the same");
        assert_eq!(watch.certificate_time(DAY, 11 * MINUTE), BUILT + 100 * DAY + 10 * MINUTE);
        assert_eq!(watch.look(BUILT + 50 * DAY, MINUTE), Some(Distrust::BehindKept));
        assert_eq!(watch.look(BUILT + 101 * DAY, 2 * MINUTE), None, "now it is set");
        assert_eq!(watch.look(BUILT + 101 * DAY + MINUTE, 3 * MINUTE), None);
        assert_eq!(watch.certificate_time(BUILT + 101 * DAY, MINUTE), BUILT + 101 * DAY);
    }

    #[test]
    fn a_jump_is_not_believed_until_it_is_undone_or_a_day_old() {
        let (start, mut watch) = (BUILT + DAY, watch(None));
        assert_eq!(watch.look(start, MINUTE), None);
        assert_eq!(watch.look(start + 5 * MINUTE, 2 * MINUTE), None, "a correction");
        let right = |steady: Duration| start + 3 * MINUTE + steady;
        for (jump, steady) in [(300 * DAY, 3 * MINUTE), (6 * MINUTE, 4 * MINUTE)] {
            assert_eq!(watch.look(right(steady) + jump, steady), Some(Distrust::Jumped));
            assert_eq!(likely(&watch, steady), right(steady));
            assert_eq!(
                watch.look(right(steady) - jump, steady),
                Some(if jump > DAY { Distrust::BeforeBuild } else { Distrust::Jumped })
            );
            assert_eq!(watch.look(right(steady) + MINUTE, steady), None, "it is undone");
            assert_eq!(watch.look(right(steady), steady), None);
        }
        let jumped = |steady: Duration| right(steady) + 30 * DAY;
        assert_eq!(watch.look(jumped(DAY), DAY), Some(Distrust::Jumped));
        assert_eq!(watch.look(jumped(DAY + STEADY - MINUTE), DAY + STEADY - MINUTE), Some(Distrust::Jumped));
        assert_eq!(watch.look(jumped(DAY + STEADY), DAY + STEADY), None);
        assert_eq!(watch.look(right(3 * DAY), 3 * DAY), Some(Distrust::Jumped), "and back is a jump, too");
    }

    #[test]
    fn a_kept_time_that_is_wrong_locks_nobody_out() {
        let mut absurd = watch(Some(BUILT + LONGEST_USE + DAY));
        assert_eq!(absurd.look(BUILT + DAY, MINUTE), None);
        // Years ahead, when the clock was wrong then: certificates are judged by the clock, and it is believed in a day.
        let (now, mut wrong) = (BUILT + 10 * DAY, watch(Some(BUILT + 2000 * DAY)));
        assert_eq!(wrong.certificate_time(now, MINUTE), now);
        assert_eq!(wrong.look(now, MINUTE), Some(Distrust::BehindKept));
        assert_eq!(wrong.look(now + STEADY, MINUTE + STEADY), None);
        assert_eq!(wrong.certificate_time(now + STEADY, MINUTE + STEADY), now + STEADY);
        // Days ahead, as after a battery has died: a certificate that expired meanwhile stays expired.
        let set_back = watch(Some(now + 20 * DAY));
        assert_eq!(set_back.certificate_time(now, MINUTE), now + 20 * DAY);
    }

    #[test]
    fn a_clock_in_a_far_future_is_not_believed() {
        let mut watch = watch(Some(BUILT + DAY));
        let late = BUILT + LONGEST_USE + DAY;
        assert_eq!(watch.look(late, MINUTE), Some(Distrust::TooLate));
        assert_eq!(watch.look(late + 2 * DAY, MINUTE + 2 * DAY), Some(Distrust::TooLate), "however long it runs so");
        assert_eq!(likely(&watch, MINUTE + 2 * DAY), BUILT + 3 * DAY);
    }

    proptest! {
        #[test]
        fn certificates_are_never_judged_before_the_build(
            kept in prop::option::of(0_u64..40_000), looks in prop::collection::vec((0_u64..40_000, 0_u64..100), 1..20),
        ) {
            let mut watch = watch(kept.map(|days| DAY * days as u32));
            let mut steady = MINUTE;
            for (system, passed) in looks {
                steady += MINUTE * passed as u32;
                let system = DAY * system as u32;
                let distrust = watch.look(system, steady);
                prop_assert!(watch.certificate_time(system, steady) >= BUILT);
                prop_assert!(watch.certificate_time(system, steady) >= system);
                prop_assert!(likely(&watch, steady) >= BUILT || distrust.is_none());
            }
        }
    }
}
