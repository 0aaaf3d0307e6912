//! Lifetime and age of a stored response (RFC 9111 section 4.2).

use std::time::Duration;

use http::header::{AGE, DATE, EXPIRES, LAST_MODIFIED};
use http::{HeaderMap, StatusCode};

use super::cache_control::response_directives;
use super::dates::date_field;
use crate::content::{self, MissingLifetime, Record, UnixMillis};

/// Longest heuristic lifetime.
const LONGEST_HEURISTIC: Duration = Duration::from_secs(24 * 3600);

/// Largest age that is told or reckoned with, in seconds (RFC 9111 section 1.2.2).
const MAX_AGE: u64 = 1 << 31;

/// How fresh a stored response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// How long the response is fresh, counted from its generation at the origin.
    pub lifetime: Duration,
    /// Time since its generation; `None` when it was received in the future: the clock cannot be trusted.
    pub age: Option<Duration>,
    /// Who says how long it is fresh.
    pub source: LifetimeSource,
}

/// Who says how long a response is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifetimeSource {
    /// `s-maxage` (RFC 9111 section 5.2.2.10).
    SMaxage,
    /// `max-age` (RFC 9111 section 5.2.2.1).
    MaxAge,
    /// `Expires` (RFC 9111 section 5.3).
    Expires,
    /// The rule: content at this path never changes.
    Immutable,
    /// 10 % of the time since the last modification (RFC 9111 section 4.2.2).
    Heuristic,
    /// The rule's fixed lifetime.
    Rule,
    /// The rule's lifetime for 404 and 410.
    Negative,
    /// Nobody.
    Nobody,
}

impl Freshness {
    /// Whether the response may be served without asking (RFC 9111 section 4.2).
    pub fn is_fresh(&self) -> bool {
        self.source == LifetimeSource::Immutable || self.age.is_some_and(|age| age < self.lifetime)
    }

    /// Seconds until it is stale, negative after that (RFC 9211 section 2.5).
    pub fn ttl(&self) -> i64 {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        seconds(self.lifetime).saturating_sub(seconds(self.age.unwrap_or(self.lifetime)))
    }

    /// How long it has been stale; zero while it is fresh.
    pub fn staleness(&self) -> Duration {
        self.age.map_or(Duration::ZERO, |age| age.saturating_sub(self.lifetime))
    }
}

/// Judges `record` for a path and the freshness part of its rule.
pub fn freshness(record: &Record, rule: &content::Freshness, path: &str, now: UnixMillis) -> Freshness {
    let (lifetime, source) = lifetime(record.status, &record.headers, rule, path, record.response_time);
    let age = (record.response_time <= now).then(|| current_age(record, now));
    Freshness { lifetime, age, source }
}

/// The age to tell a client (RFC 9111 section 5.1).
pub fn age(record: &Record, now: UnixMillis) -> Duration {
    current_age(record, now)
}

/// Whether a response has a lifetime that its origin set (RFC 9111 section 4.2.1).
pub(super) fn has_explicit_lifetime(headers: &HeaderMap) -> bool {
    let directives = response_directives(headers);
    directives.s_maxage.is_some() || directives.max_age.is_some() || headers.contains_key(EXPIRES)
}

/// Lifetime of a response that was received at `received`.
pub(super) fn lifetime(
    status: StatusCode,
    headers: &HeaderMap,
    rule: &content::Freshness,
    path: &str,
    received: UnixMillis,
) -> (Duration, LifetimeSource) {
    let directives = response_directives(headers);
    if status == StatusCode::OK && rule.immutable.matches(path) {
        return (Duration::MAX, LifetimeSource::Immutable);
    }
    if let Some(seconds) = directives.s_maxage {
        return (Duration::from_secs(seconds), LifetimeSource::SMaxage);
    }
    if let Some(seconds) = directives.max_age {
        return (Duration::from_secs(seconds), LifetimeSource::MaxAge);
    }
    let date = date_field(headers, &DATE).unwrap_or(received);
    if headers.contains_key(EXPIRES) {
        // An unreadable date is in the past (RFC 9111 section 5.3).
        let lifetime = date_field(headers, &EXPIRES).map_or(Duration::ZERO, |expires| expires.since(date));
        return (lifetime, LifetimeSource::Expires);
    }
    if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) && !rule.negative.is_zero() {
        return (rule.negative, LifetimeSource::Negative);
    }
    if !is_heuristically_cacheable(status) {
        return (Duration::ZERO, LifetimeSource::Nobody);
    }
    match (rule.default, date_field(headers, &LAST_MODIFIED)) {
        (MissingLifetime::Fixed(lifetime), _) => (lifetime, LifetimeSource::Rule),
        (MissingLifetime::Heuristic, Some(modified)) => {
            ((date.since(modified) / 10).min(LONGEST_HEURISTIC), LifetimeSource::Heuristic)
        }
        (MissingLifetime::Heuristic, None) => (Duration::ZERO, LifetimeSource::Nobody),
    }
}

/// Statuses that may be stored without an explicit lifetime (RFC 9110 section 15.1).
pub(super) fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// RFC 9111 section 4.2.3.
fn current_age(record: &Record, now: UnixMillis) -> Duration {
    let date = date_field(&record.headers, &DATE).unwrap_or(record.response_time);
    let apparent_age = record.response_time.since(date);
    let response_delay = record.response_time.since(record.request_time);
    let corrected_age_value = age_value(&record.headers).saturating_add(response_delay);
    let resident_time = now.since(record.response_time);
    let age = apparent_age.max(corrected_age_value).saturating_add(resident_time);
    age.min(Duration::from_secs(MAX_AGE))
}

/// `Age` of a response: the first member of the first line; what is no number is ignored (RFC 9111 section 5.1).
fn age_value(headers: &HeaderMap) -> Duration {
    let line = headers.get(AGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let first = line.split(',').next().unwrap_or_default().trim();
    let valid = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit());
    Duration::from_secs(if valid { first.parse().unwrap_or(MAX_AGE).min(MAX_AGE) } else { 0 })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::CACHE_CONTROL;
    use proptest::prelude::*;

    use super::super::tests::record;
    use super::*;
    use crate::content::PathPatterns;

    const NOW: u64 = 1_795_435_200;

    fn http_date(seconds: u64) -> String {
        httpdate::fmt_http_date(UnixMillis::from_secs(seconds).to_system_time())
    }

    #[test]
    fn lifetime_comes_from_the_first_who_says() {
        let rule =
            content::Freshness { immutable: PathPatterns::new(&["*.deb"]).unwrap(), ..content::Freshness::default() };
        let fixed = content::Freshness { default: MissingLifetime::Fixed(Duration::from_secs(7)), ..rule.clone() };
        let modified = http_date(NOW - 1000);
        let expires = http_date(NOW + 50);
        let date = http_date(NOW);
        use LifetimeSource::*;
        let rows: &[(u16, &[(&str, &str)], &content::Freshness, &str, u64, LifetimeSource)] = &[
            (200, &[("cache-control", "max-age=5, s-maxage=9"), ("expires", &expires)], &rule, "/x", 9, SMaxage),
            (200, &[("cache-control", "max-age=5"), ("expires", &expires)], &rule, "/x", 5, MaxAge),
            (200, &[("expires", &expires)], &rule, "/x", 50, Expires),
            (200, &[("expires", "0"), ("last-modified", &modified)], &rule, "/x", 0, Expires),
            (200, &[("last-modified", &modified)], &rule, "/x", 100, Heuristic),
            (200, &[], &rule, "/x", 0, Nobody),
            (200, &[], &fixed, "/x", 7, Rule),
            (404, &[], &fixed, "/x", 10, Negative),
            (404, &[], &rule, "/x.deb", 10, Negative),
            (302, &[("last-modified", &modified)], &rule, "/x", 0, Nobody),
            (200, &[("cache-control", "max-age=0")], &rule, "/x.deb", u64::MAX, Immutable),
        ];
        for (status, fields, rule, path, seconds, source) in rows {
            let mut record = record(NOW, fields);
            record.status = StatusCode::from_u16(*status).unwrap();
            record.headers.insert(DATE, HeaderValue::from_str(&date).unwrap());
            let found = freshness(&record, rule, path, UnixMillis::from_secs(NOW));
            assert_eq!((found.lifetime.as_secs(), found.source), (*seconds, *source), "{status} {fields:?} {path}");
        }
    }

    #[test]
    fn age_adds_up() {
        for (fields, after, expected) in [
            (&[][..], 5, 5),
            (&[("age", "100")], 5, 105),
            (&[("age", "100, 0")], 0, 100),
            (&[("age", "0, 100")], 0, 0),
            (&[("age", "100.0")], 0, 0),
            (&[("age", "-100")], 0, 0),
            (&[("age", "abc")], 0, 0),
            (&[("age", "99999999999999999999")], 0, MAX_AGE),
        ] {
            let record = record(NOW, fields);
            assert_eq!(age(&record, UnixMillis::from_secs(NOW + after)).as_secs(), expected, "{fields:?}");
        }
        let mut slow = record(NOW, &[]);
        slow.headers.insert(DATE, HeaderValue::from_str(&http_date(NOW - 30)).unwrap());
        assert_eq!(age(&slow, UnixMillis::from_secs(NOW)).as_secs(), 30, "apparent age");
        slow.request_time = UnixMillis::from_secs(NOW - 60);
        assert_eq!(age(&slow, UnixMillis::from_secs(NOW)).as_secs(), 60, "response delay");
    }

    #[test]
    fn a_response_from_the_future_is_not_fresh() {
        let record = record(NOW, &[("cache-control", "max-age=100")]);
        let found = freshness(&record, &content::Freshness::default(), "/", UnixMillis::from_secs(NOW - 1));
        assert!(!found.is_fresh());
        assert_eq!(found.age, None);
    }

    proptest! {
        #[test]
        fn age_never_shrinks_and_lifetimes_only_shorten(age_field in "\\PC{0,12}", max_age in 0u64..10_000, a in 0u64..1_000, b in 0u64..1_000) {
            let mut record = record(NOW, &[]);
            if let Ok(value) = HeaderValue::from_str(&age_field) {
                record.headers.insert(AGE, value);
            }
            let at = |t| age(&record, UnixMillis::from_secs(NOW + t));
            prop_assert!(at(a) <= at(a + b));
            record.headers.insert(CACHE_CONTROL, HeaderValue::from_str(&format!("max-age={max_age}")).unwrap());
            let rule = content::Freshness::default();
            let one = freshness(&record, &rule, "/", UnixMillis::from_secs(NOW + a));
            record.headers.append(CACHE_CONTROL, HeaderValue::from_static("max-age=10"));
            let stricter = freshness(&record, &rule, "/", UnixMillis::from_secs(NOW + a));
            prop_assert!(stricter.is_fresh() <= one.is_fresh());
        }
    }
}
