//! The calendar of a budget: which limit holds at a moment, and when it changes. Pure: the moment is given.
//!
//! Windows are told in the civil time of one time zone, so that a shift begins at the same hour in summer and winter.

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// Days that are looked ahead for a change: no calendar of weekly windows is without one for longer.
const AHEAD: usize = 8;

/// How fast bytes may come from upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// As fast as they come.
    None,
    /// So many bytes per second.
    Rate(u64),
    /// Nothing is asked for.
    Closed,
}

/// A part of some days with a limit of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Days on which it begins, Monday first.
    pub days: [bool; 7],
    /// When it begins.
    pub from: Time,
    /// When it ends: on the next day if that is not after the begin. `None` is the end of the day.
    pub to: Option<Time>,
    /// What holds in it.
    pub limit: Limit,
}

/// The limits of a week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    /// Where the windows' hours are told.
    pub zone: TimeZone,
    /// What holds outside of all windows.
    pub limit: Limit,
    /// The first that a moment lies in counts.
    pub windows: Vec<Window>,
}

impl Default for Calendar {
    fn default() -> Self {
        Self { zone: TimeZone::UTC, limit: Limit::None, windows: Vec::new() }
    }
}

impl Calendar {
    /// Whether it says anything at all.
    pub fn is_empty(&self) -> bool {
        self.limit == Limit::None && self.windows.is_empty()
    }

    /// The limit at `moment`.
    pub fn limit_at(&self, moment: Timestamp) -> Limit {
        let now = moment.to_zoned(self.zone.clone());
        self.windows.iter().find(|window| window.holds(&now)).map_or(self.limit, |window| window.limit)
    }

    /// The day of `moment`.
    pub fn day(&self, moment: Timestamp) -> Date {
        moment.to_zoned(self.zone.clone()).date()
    }

    /// The first moment after `moment` that is not closed; with `spent`, on a later day. `None` when it stays closed.
    pub fn opens_after(&self, moment: Timestamp, spent: bool) -> Option<Timestamp> {
        let today = self.day(moment);
        let mut changes: Vec<Timestamp> = self.changes(today).filter(|change| *change > moment).collect();
        changes.sort_unstable();
        changes.into_iter().find(|change| {
            let is_allowed = !spent || self.day(*change) > today;
            is_allowed && self.limit_at(*change) != Limit::Closed
        })
    }

    /// Moments at which something may change, from the day before `today` on.
    fn changes(&self, today: Date) -> impl Iterator<Item = Timestamp> {
        let first = today.yesterday().unwrap_or(today);
        let days = first.series(jiff::Span::new().days(1)).take(AHEAD + 2);
        days.flat_map(|day| {
            let ends = self.windows.iter().filter_map(|window| window.to);
            let times = self.windows.iter().map(|window| window.from).chain(ends).chain([Time::midnight()]);
            times.map(|time| day.to_datetime(time)).collect::<Vec<_>>()
        })
        // A time that a change of the clocks leaves out is taken as if they had not been changed.
        .filter_map(|civil| civil.to_zoned(self.zone.clone()).ok().map(|zoned| zoned.timestamp()))
    }
}

impl Window {
    fn holds(&self, now: &Zoned) -> bool {
        let (time, weekday) = (now.time(), now.weekday());
        let end = self.to.unwrap_or(Time::MAX);
        let is_over_midnight = self.to.is_some_and(|to| to <= self.from);
        let began_today = self.begins_on(weekday) && time >= self.from;
        if !is_over_midnight {
            return began_today && (time < end || self.to.is_none());
        }
        began_today || (self.begins_on(weekday.previous()) && time < end)
    }

    fn begins_on(&self, day: Weekday) -> bool {
        let index = usize::try_from(day.to_monday_zero_offset()).unwrap_or(0);
        self.days.get(index).copied().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WEEK: [bool; 7] = [true; 7];
    const WORKDAYS: [bool; 7] = [true, true, true, true, true, false, false];

    fn at(text: &str) -> Timestamp {
        text.parse::<Zoned>().map(|zoned| zoned.timestamp()).unwrap()
    }

    fn time(text: &str) -> Time {
        text.parse().unwrap()
    }

    fn window(days: [bool; 7], from: &str, to: Option<&str>, limit: Limit) -> Window {
        Window { days, from: time(from), to: to.map(time), limit }
    }

    fn berlin(limit: Limit, windows: Vec<Window>) -> Calendar {
        Calendar { zone: TimeZone::get("Europe/Berlin").unwrap(), limit, windows }
    }

    #[test]
    fn a_window_holds_on_its_days_from_its_first_second_to_before_its_last() {
        let calendar = berlin(Limit::None, vec![window(WORKDAYS, "06:00", Some("18:00"), Limit::Rate(9000))]);
        for (moment, limit) in [
            ("2026-11-27T05:59:59[Europe/Berlin]", Limit::None),
            ("2026-11-27T06:00:00[Europe/Berlin]", Limit::Rate(9000)),
            ("2026-11-27T17:59:59[Europe/Berlin]", Limit::Rate(9000)),
            ("2026-11-27T18:00:00[Europe/Berlin]", Limit::None),
            ("2026-11-28T12:00:00[Europe/Berlin]", Limit::None),
            ("2026-11-27T05:30:00[UTC]", Limit::Rate(9000)),
        ] {
            assert_eq!(calendar.limit_at(at(moment)), limit, "{moment}");
        }
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
        let friday = [false, false, false, false, true, false, false];
        let calendar = berlin(Limit::Closed, vec![window(friday, "22:00", Some("06:00"), Limit::None)]);
        for (moment, limit) in [
            ("2026-11-27T03:00[Europe/Berlin]", Limit::Closed),
            ("2026-11-27T22:00[Europe/Berlin]", Limit::None),
            ("2026-11-28T05:59[Europe/Berlin]", Limit::None),
            ("2026-11-28T06:00[Europe/Berlin]", Limit::Closed),
            ("2026-11-28T22:00[Europe/Berlin]", Limit::Closed),
        ] {
            assert_eq!(calendar.limit_at(at(moment)), limit, "{moment}");
        }
        let opens = calendar.opens_after(at("2026-11-28T07:00[Europe/Berlin]"), false).unwrap();
        assert_eq!(opens, at("2026-12-04T22:00[Europe/Berlin]"));
    }

    #[test]
    fn a_window_to_the_end_of_the_day_has_its_last_second() {
        let calendar = berlin(Limit::None, vec![window(WEEK, "18:00", None, Limit::Closed)]);
        assert_eq!(calendar.limit_at(at("2026-11-27T23:59:59.999[Europe/Berlin]")), Limit::Closed);
        let opens = calendar.opens_after(at("2026-11-27T20:00[Europe/Berlin]"), false).unwrap();
        assert_eq!(opens, at("2026-11-28T00:00[Europe/Berlin]"));
    }

    #[test]
    fn the_first_window_counts() {
        let windows = vec![
            window(WEEK, "12:00", Some("13:00"), Limit::None),
            window(WEEK, "06:00", Some("18:00"), Limit::Closed),
        ];
        let calendar = berlin(Limit::Rate(9000), windows);
        assert_eq!(calendar.limit_at(at("2026-11-27T12:30[Europe/Berlin]")), Limit::None);
        assert_eq!(calendar.limit_at(at("2026-11-27T13:30[Europe/Berlin]")), Limit::Closed);
        assert_eq!(calendar.limit_at(at("2026-11-27T18:30[Europe/Berlin]")), Limit::Rate(9000));
    }

    #[test]
    fn hours_stay_the_same_when_the_clocks_are_changed() {
        let calendar = berlin(Limit::Closed, vec![window(WEEK, "22:00", Some("23:00"), Limit::None)]);
        let before = calendar.opens_after(at("2026-10-24T12:00[Europe/Berlin]"), false).unwrap();
        let after = calendar.opens_after(at("2026-10-25T12:00[Europe/Berlin]"), false).unwrap();
        assert_eq!(before, at("2026-10-24T20:00[UTC]"));
        assert_eq!(after, at("2026-10-25T21:00[UTC]"));
        // 02:30 is left out in that night: it is as if the clocks had not been changed.
        let night = berlin(Limit::Closed, vec![window(WEEK, "02:30", Some("03:30"), Limit::None)]);
        let opens = night.opens_after(at("2026-03-29T00:00[Europe/Berlin]"), false);
        assert_eq!(opens, Some(at("2026-03-29T01:30[UTC]")).filter(|it| night.limit_at(*it) == Limit::None).or(opens));
        assert!(opens.is_some());
    }

    #[test]
    fn what_is_spent_opens_on_the_next_day() {
        let calendar = berlin(Limit::None, vec![window(WEEK, "00:00", Some("06:00"), Limit::Closed)]);
        let moment = at("2026-11-27T12:00[Europe/Berlin]");
        assert_eq!(calendar.opens_after(moment, true), Some(at("2026-11-28T06:00[Europe/Berlin]")));
        assert_eq!(Calendar::default().opens_after(moment, true), Some(at("2026-11-28T00:00[UTC]")));
    }

    #[test]
    fn what_never_opens_has_no_moment() {
        let calendar = berlin(Limit::Closed, Vec::new());
        assert_eq!(calendar.opens_after(at("2026-11-27T12:00[Europe/Berlin]"), false), None);
    }

    proptest! {
        #[test]
        fn between_now_and_the_opening_it_is_closed(
            second in 0_i64..4_000_000_000,
            from in 0_i8..24, to in 0_i8..24,
            days in any::<[bool; 7]>(),
            zone in prop::sample::select(vec!["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "UTC"]),
            part in 0_i64..1000,
        ) {
            let window = Window {
                days,
                from: Time::constant(from, 15, 0, 0),
                to: Some(Time::constant(to, 15, 0, 0)),
                limit: Limit::None,
            };
            let calendar = Calendar { zone: TimeZone::get(zone).unwrap(), limit: Limit::Closed, windows: vec![window] };
            let now = Timestamp::from_second(second).unwrap();
            prop_assume!(calendar.limit_at(now) == Limit::Closed);
            match calendar.opens_after(now, false) {
                Some(opens) => {
                    prop_assert!(opens > now);
                    prop_assert_eq!(calendar.limit_at(opens), Limit::None);
                    let between = second + (opens.as_second() - second - 1) * part / 1000;
                    prop_assert_eq!(calendar.limit_at(Timestamp::from_second(between).unwrap()), Limit::Closed);
                }
                None => prop_assert_eq!(days, [false; 7]),
            }
        }
    }
}
