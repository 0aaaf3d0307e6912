//! How old a stored response is and how long it is fresh (RFC 9111 section 4.2), policy included. What a request
//! makes of that is in `decision`.

use std::time::Duration;

use http::header::{AGE, DATE, EXPIRES, LAST_MODIFIED};
use http::{HeaderMap, StatusCode};

use super::cache_control::{ResponseDirectives, delta_seconds, response_directives};
use super::{date, list};
use crate::content::{MissingLifetime, Policy, Record, UnixMillis};

/// Longest lifetime that is guessed from the time since the last modification.
const LONGEST_GUESS: Duration = Duration::from_secs(24 * 3600);

/// Lifetime of what never changes, as long as `Cache-Control` can say (RFC 9111 section 1.2.2).
const FOREVER: Duration = Duration::from_secs(1 << 31);

/// A response time that is later than now by at most this counts as now: requests keep the time at which they came
/// while they wait for an answer that is stored meanwhile.
pub(super) const SAME_TIME: Duration = Duration::from_secs(30);

/// How long a response is fresh and how old it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// Its freshness lifetime; zero when nothing gives it one.
    pub lifetime: Duration,
    /// Its age; `None` when it was received in the future, so that the clock cannot tell.
    pub age: Option<Duration>,
    /// What the lifetime comes from.
    pub source: LifetimeSource,
}

/// What gives a response its freshness lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifetimeSource {
    /// The policy: content of this path never changes.
    Immutable,
    /// `s-maxage` (RFC 9111 section 5.2.2.10).
    SMaxage,
    /// `max-age` (RFC 9111 section 5.2.2.1).
    MaxAge,
    /// `Expires` (RFC 9111 section 5.3).
    Expires,
    /// The policy: lifetime of 404 and 410.
    Negative,
    /// The policy: lifetime of answers that carry none.
    Fixed,
    /// A tenth of the time since the last modification (RFC 9111 section 4.2.2).
    Heuristic,
    /// Nothing: the response is stale at once.
    None,
}

impl Freshness {
    /// Of `record` under `policy`, whose patterns are matched with `path`, at `now`.
    pub fn of(record: &Record, policy: &Policy, path: &str, now: UnixMillis) -> Self {
        Self::judged(record, &response_directives(&record.headers), policy, path, now)
    }

    /// The same for a record whose directives have been read already.
    pub(super) fn judged(
        record: &Record,
        directives: &ResponseDirectives,
        policy: &Policy,
        path: &str,
        now: UnixMillis,
    ) -> Self {
        let (lifetime, source) = lifetime(record, directives, policy, path);
        Self { lifetime, age: known_age(record, now), source }
    }

    /// The same after `elapsed` has passed.
    #[must_use]
    pub fn later(self, elapsed: Duration) -> Self {
        Self { age: self.age.map(|age| age.saturating_add(elapsed)), ..self }
    }

    /// Whether the response may be used without asking upstream. Of unknown age only what never changes is.
    pub fn is_fresh(&self) -> bool {
        self.source == LifetimeSource::Immutable || self.age.is_some_and(|age| age < self.lifetime)
    }

    /// Remaining lifetime in seconds, negative once it is over (`ttl` of RFC 9211 section 2.4); 0 when the age is
    /// not known.
    pub fn ttl(&self) -> i64 {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        match (self.age, self.source) {
            (Some(age), _) => seconds(self.lifetime).saturating_sub(seconds(age)),
            (None, LifetimeSource::Immutable) => seconds(self.lifetime),
            (None, _) => 0,
        }
    }

    /// How long ago the lifetime ended; zero while it lasts, `None` when the age is not known.
    pub(super) fn staleness(&self) -> Option<Duration> {
        self.age.map(|age| age.saturating_sub(self.lifetime))
    }
}

/// The age of `record` at `now` (RFC 9111 section 4.2.3), for the `Age` field; zero when it is not known.
pub fn age(record: &Record, now: UnixMillis) -> Duration {
    known_age(record, now).unwrap_or_default()
}

/// Whether the response carries a lifetime of its own, be it zero or malformed.
pub(super) fn has_explicit_lifetime(directives: &ResponseDirectives, headers: &HeaderMap) -> bool {
    directives.s_maxage.is_some() || directives.max_age.is_some() || has_expires(directives, headers)
}

/// Whether there is an `Expires` that counts.
fn has_expires(directives: &ResponseDirectives, headers: &HeaderMap) -> bool {
    !directives.is_targeted && headers.contains_key(EXPIRES)
}

/// Whether a lifetime may be guessed or fixed by policy: the status is cacheable by default (RFC 9110 section 15.1),
/// or the response is marked `public` (RFC 9111 section 4.2.2) and does not tell of a passing fault.
pub(super) fn allows_guess(status: StatusCode, directives: &ResponseDirectives) -> bool {
    match status.as_u16() {
        200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501 => true,
        408 | 429 | 500 | 502 | 503 | 504 => false,
        _ => directives.public,
    }
}

/// Whether the policy says that this answer never changes.
pub(super) fn is_immutable(status: StatusCode, policy: &Policy, path: &str) -> bool {
    status == StatusCode::OK && policy.freshness.immutable.matches(path)
}

/// Whether `status` says that there is nothing.
pub(super) fn is_negative(status: StatusCode) -> bool {
    status == StatusCode::NOT_FOUND || status == StatusCode::GONE
}

/// The lifetime that the policy gives an answer of this status without one of its own; zero when it gives none.
pub(super) fn policy_lifetime(status: StatusCode, directives: &ResponseDirectives, policy: &Policy) -> Duration {
    match policy.freshness.default {
        _ if is_negative(status) => policy.freshness.negative,
        MissingLifetime::Fixed(time) if status.as_u16() < 400 && allows_guess(status, directives) => time,
        MissingLifetime::Fixed(_) | MissingLifetime::Heuristic => Duration::ZERO,
    }
}

fn lifetime(
    record: &Record,
    directives: &ResponseDirectives,
    policy: &Policy,
    path: &str,
) -> (Duration, LifetimeSource) {
    if is_immutable(record.status, policy, path) {
        return (FOREVER, LifetimeSource::Immutable);
    }
    if let Some(time) = directives.s_maxage {
        return (time, LifetimeSource::SMaxage);
    }
    if let Some(time) = directives.max_age {
        return (time, LifetimeSource::MaxAge);
    }
    if has_expires(directives, &record.headers) {
        let end = date::of(&record.headers, &EXPIRES);
        let time = end.map_or(Duration::ZERO, |end| end.since(sent_at(record)));
        return (time, LifetimeSource::Expires);
    }
    let by_policy = policy_lifetime(record.status, directives, policy);
    if is_negative(record.status) {
        return (by_policy, LifetimeSource::Negative);
    }
    if !by_policy.is_zero() {
        return (by_policy, LifetimeSource::Fixed);
    }
    match date::of(&record.headers, &LAST_MODIFIED) {
        Some(modified) if allows_guess(record.status, directives) => {
            let guess = sent_at(record).since(modified) / 10;
            (guess.min(LONGEST_GUESS), LifetimeSource::Heuristic)
        }
        _ => (Duration::ZERO, LifetimeSource::None),
    }
}

/// The response's `Date`; without a valid one the time of its reception (RFC 9110 section 6.6.1).
pub(super) fn sent_at(record: &Record) -> UnixMillis {
    date::of(&record.headers, &DATE).unwrap_or(record.response_time)
}

fn known_age(record: &Record, now: UnixMillis) -> Option<Duration> {
    if record.response_time.since(now) > SAME_TIME {
        return None;
    }
    // A date has whole seconds, so both ends are compared in them.
    let received = UnixMillis::from_secs(record.response_time.as_secs());
    let apparent_age = received.since(sent_at(record));
    let response_delay = record.response_time.since(record.request_time);
    let corrected_age = age_value(&record.headers).saturating_add(response_delay);
    let resident_time = now.since(record.response_time);
    Some(apparent_age.max(corrected_age).saturating_add(resident_time))
}

/// The first member of `Age` counts; one that is not a number of seconds is ignored (RFC 9111 section 5.1).
fn age_value(headers: &HeaderMap) -> Duration {
    list::members(headers, &AGE).next().and_then(delta_seconds).unwrap_or_default()
}

#[cfg(test)]
#[path = "freshness_tests.rs"]
mod tests;
