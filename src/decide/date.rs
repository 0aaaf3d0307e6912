//! HTTP dates (RFC 9110 section 5.6.7): the three formats exactly, letters in any case. Anything else is no date;
//! what follows from that is the reader's business.

use http::{HeaderMap, HeaderName};

use super::list;
use crate::content::UnixMillis;

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The date in the only line of `name`.
pub(super) fn of(headers: &HeaderMap, name: &HeaderName) -> Option<UnixMillis> {
    parse(list::single(headers, name)?)
}

/// Parses a date. Dates before 1970 are refused, since [`UnixMillis`] cannot tell them apart.
pub(super) fn parse(text: &[u8]) -> Option<UnixMillis> {
    let text = std::str::from_utf8(text).ok()?;
    imf_fixdate(text).or_else(|| rfc850(text)).or_else(|| asctime(text))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(text: &str) -> Option<UnixMillis> {
    // Every part has its place, so nothing has to be searched.
    let separators = [(3, b','), (4, b' '), (7, b' '), (11, b' '), (16, b' '), (25, b' ')];
    let bytes: &[u8; 29] = text.as_bytes().try_into().ok()?;
    let part = |from: usize, to: usize| text.get(from..to);
    let is_laid_out = separators.iter().all(|(at, separator)| bytes.get(*at) == Some(separator));
    (is_laid_out && is_day(part(0, 3)?, 3) && part(26, 29)?.eq_ignore_ascii_case("GMT")).then_some(())?;
    moment(digits(part(12, 16)?, 4)?, month(part(8, 11)?)?, digits(part(5, 7)?, 2)?, part(17, 25)?)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`. Years below 70 are in this century, as in POSIX.
fn rfc850(text: &str) -> Option<UnixMillis> {
    let (day_name, rest) = text.split_once(", ")?;
    is_day(day_name, usize::MAX).then_some(())?;
    let mut parts = rest.split(' ');
    let mut date = parts.next()?.split('-');
    let day = digits(date.next()?, 2)?;
    let month = month(date.next()?)?;
    let year = digits(date.next()?, 2)?;
    date.next().is_none().then_some(())?;
    let time = parts.next()?;
    (parts.next()?.eq_ignore_ascii_case("GMT") && parts.next().is_none()).then_some(())?;
    moment(if year < 70 { 2000 + year } else { 1900 + year }, month, day, time)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(text: &str) -> Option<UnixMillis> {
    let (day_name, rest) = text.split_once(' ')?;
    is_day(day_name, 3).then_some(())?;
    let (month_name, rest) = rest.split_once(' ')?;
    let (day, rest) = match rest.strip_prefix(' ') {
        Some(rest) => rest.split_once(' ').and_then(|(day, rest)| Some((digits(day, 1)?, rest)))?,
        None => rest.split_once(' ').and_then(|(day, rest)| Some((digits(day, 2)?, rest)))?,
    };
    let (time, year) = rest.split_once(' ')?;
    moment(digits(year, 4)?, month(month_name)?, day, time)
}

/// Whether `name` is the begin of a day's name of this length, or the whole. That it is the right day is not asked.
fn is_day(name: &str, length: usize) -> bool {
    DAYS.iter().any(|day| day.get(..length).unwrap_or(day).eq_ignore_ascii_case(name))
}

/// 1 to 12.
fn month(name: &str) -> Option<u64> {
    let index = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name))?;
    Some(index as u64 + 1)
}

fn digits(text: &str, count: usize) -> Option<u64> {
    (text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

fn moment(year: u64, month: u64, day: u64, time: &str) -> Option<UnixMillis> {
    let mut parts = time.split(':');
    let mut part = || parts.next().and_then(|part| digits(part, 2));
    let (hour, minute, second) = (part()?, part()?, part()?);
    // 60 is a leap second.
    let valid = parts.next().is_none() && hour < 24 && minute < 60 && second <= 60;
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    };
    if !valid || year < 1970 || !(1..=length).contains(&day) {
        return None;
    }
    // Days since 1970-01-01 in the proleptic Gregorian calendar, counted in years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + (day - 1);
    let days = days.checked_sub(719_468)?;
    Some(UnixMillis::from_secs(days * 86_400 + hour * 3600 + minute * 60 + second))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use http::HeaderValue;
    use http::header::EXPIRES;
    use proptest::prelude::*;

    use super::*;

    fn seconds(text: &str) -> Option<u64> {
        parse(text.as_bytes()).map(UnixMillis::as_secs)
    }

    #[test]
    fn the_three_formats_in_any_case() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "SUN, 06 nov 1994 08:49:37 gMT",
            "sunday, 06-NOV-94 08:49:37 gmt",
            "Mon, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(seconds(text), Some(784_111_777), "{text}");
        }
        assert_eq!(seconds("Thursday, 18-Aug-50 02:01:18 GMT"), seconds("Thu, 18 Aug 2050 02:01:18 GMT"));
        assert_eq!(seconds("Thu Aug  8 02:01:18 2050"), seconds("Mon, 08 Aug 2050 02:01:18 GMT"));
        assert_eq!(seconds("Thu Aug 18 02:01:18 2050"), seconds("Thu, 18 Aug 2050 02:01:18 GMT"));
        assert_eq!(seconds("Sun, 21 Nov 2286 04:46:39 GMT"), Some(10_000_039_599));
        assert_eq!(seconds("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
    }

    #[test]
    fn everything_else_is_no_date() {
        for text in [
            "",
            "0",
            "-1",
            "foo",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 2050 02:01:18",
            "Thu, 18 Aug 2050 02:01:18 GMT+1",
            "Thu, 18 Aug 2050 02:01:18 GMT GMT",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu,  18 Aug 2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18-Aug-50 02:01:18 GMT",
            "Thursday, 18 Aug 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 8 Aug 2050 02:01:18 GMT",
            "Xyz, 18 Aug 2050 02:01:18 GMT",
            "Thu, 18 Aux 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 24:00:00 GMT",
            "Thu, 18 Aug 2050 02:60:18 GMT",
            "Thu, 00 Aug 2050 02:01:18 GMT",
            "Thu, 30 Feb 2050 02:01:18 GMT",
            "Thu, 29 Feb 2051 02:01:18 GMT",
            "Thu, 01 Jan 1969 00:00:00 GMT",
            "Thu Aug 8 02:01:18 2050",
            "Thu Aug  8 02:01:18 2050 GMT",
            "Thu, +8 Aug 2050 02:01:18 GMT",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn several_lines_are_no_date() {
        let value = HeaderValue::from_static("Thu, 18 Aug 2050 02:01:18 GMT");
        let mut headers = HeaderMap::from_iter([(EXPIRES, value.clone())]);
        assert!(of(&headers, &EXPIRES).is_some());
        headers.append(EXPIRES, value);
        assert_eq!(of(&headers, &EXPIRES), None);
    }

    proptest! {
        #[test]
        fn formatted_dates_are_read_back(seconds in 0u64..253_402_300_800) {
            let text = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            prop_assert_eq!(parse(text.as_bytes()), Some(UnixMillis::from_secs(seconds)));
        }

        #[test]
        fn any_bytes_are_read(text in prop::collection::vec(any::<u8>(), 0..40), like in "[A-Z][a-z]{2},? [0-9 ]{2}[ -][A-Za-z]{3}[ -][0-9:]{2,8} [0-9:]{0,9} ?(GMT|[é0-9]{0,4})") {
            parse(&text);
            parse(like.as_bytes());
        }
    }
}
