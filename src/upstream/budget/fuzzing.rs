//! Ways in for the fuzz targets: the calendar of a budget, and the file of its day. No serving build has this.

use jiff::Timestamp;

use super::calendar::{Calendar, Limit};
use super::day::Day;

/// Asks what holds at a moment and when that is over.
///
/// # Panics
/// When it opens before it is asked, or is closed then.
pub fn calendar(calendar: &Calendar, seconds: i64) {
    let Ok(moment) = Timestamp::from_second(seconds) else { return };
    let _ = calendar.limit_at(moment);
    for is_spent in [false, true] {
        let Some(opens) = calendar.opens_after(moment, is_spent) else { continue };
        assert!(opens > moment && calendar.limit_at(opens) != Limit::Closed);
        assert!(!is_spent || calendar.day(opens) > calendar.day(moment));
    }
}

/// Reads the file of a day; what is accepted must come back the same.
///
/// # Panics
/// When it does not.
pub fn day(text: &str) {
    if let Some(day) = Day::parse(text) {
        assert_eq!(Day::parse(&day.to_string()), Some(day));
        let mut later = day;
        later.turn_to(day.date());
        assert_eq!(later, day, "the same day begins anew");
    }
}
