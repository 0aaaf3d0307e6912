//! Tables for RFC 9111 sections 4.2 and 5.1, and laws of age and lifetime.

use proptest::prelude::*;

use super::*;
use crate::decide::sample::{RECEIVED, at, date, policy, record, secs};

fn fresh_for(status: u16, headers: &[(&'static str, &str)]) -> (u64, LifetimeSource) {
    let freshness = Freshness::of(&record(status, headers), &policy(), "/a", RECEIVED);
    (freshness.lifetime.as_secs(), freshness.source)
}

#[test]
fn lifetime_takes_the_first_of_its_sources() {
    use LifetimeSource::*;
    let (now, hour, past, day) = (&*date(0), &*date(3600), &*date(-7200), &*date(-86_400));
    for (headers, expected) in [
        (&[("cache-control", "max-age=10, s-maxage=20"), ("expires", hour), ("date", now)][..], (20, SMaxage)),
        (&[("cache-control", "max-age=10"), ("expires", hour), ("date", now)], (10, MaxAge)),
        (&[("cache-control", "max-age=3600"), ("expires", past), ("date", now)], (3600, MaxAge)),
        (&[("cache-control", "max-age=0, s-maxage=3600"), ("expires", past)], (3600, SMaxage)),
        (&[("cache-control", "max-age=x"), ("expires", hour)], (0, MaxAge)),
        (&[("expires", hour), ("date", now)], (3600, Expires)),
        (&[("expires", hour), ("date", past)], (10_800, Expires)),
        (&[("expires", hour), ("date", "foo")], (3600, Expires)),
        (&[("expires", hour)], (3600, Expires)),
        (&[("expires", past), ("date", now)], (0, Expires)),
        (&[("expires", "0"), ("date", now), ("last-modified", day)], (0, Expires)),
        (&[("expires", hour), ("expires", hour), ("date", now)], (0, Expires)),
        (&[("expires", "Thu, 18 Aug 2050 02:01:18 UTC")], (0, Expires)),
        (&[("last-modified", day), ("date", now)], (8640, Heuristic)),
        (&[("last-modified", day)], (8640, Heuristic)),
        (&[("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT")], (86_400, Heuristic)),
        (&[("last-modified", hour)], (0, Heuristic)),
        (&[("etag", "\"a\""), ("date", now)], (0, None)),
    ] {
        assert_eq!(fresh_for(200, headers), expected, "{headers:?}");
    }
}

#[test]
fn lifetimes_are_guessed_only_for_some_statuses() {
    let modified = &*date(-86_400);
    for status in [200, 203, 204, 300, 301, 308, 405, 414, 501] {
        assert_eq!(fresh_for(status, &[("last-modified", modified)]), (8640, LifetimeSource::Heuristic), "{status}");
    }
    for status in [201, 202, 302, 307, 400, 403, 500, 502, 503, 504, 599] {
        assert_eq!(fresh_for(status, &[("last-modified", modified)]), (0, LifetimeSource::None), "{status}");
    }
    let public = [("last-modified", modified), ("cache-control", "public")];
    assert_eq!(fresh_for(599, &public).0, 8640);
    assert_eq!(fresh_for(503, &public).0, 0);
    for status in [404, 410] {
        assert_eq!(fresh_for(status, &[("last-modified", modified)]), (10, LifetimeSource::Negative));
        assert_eq!(fresh_for(status, &[("cache-control", "max-age=60")]), (60, LifetimeSource::MaxAge));
    }
}

#[test]
fn the_policy_may_fix_a_lifetime() {
    let mut policy = policy();
    policy.freshness.default = MissingLifetime::Fixed(secs(100));
    let of = |status, headers: &[(&'static str, &str)]| {
        let freshness = Freshness::of(&record(status, headers), &policy, "/a", RECEIVED);
        (freshness.lifetime.as_secs(), freshness.source)
    };
    let modified = &*date(-86_400);
    assert_eq!(of(200, &[("last-modified", modified)]), (100, LifetimeSource::Fixed));
    assert_eq!(of(301, &[]), (100, LifetimeSource::Fixed));
    assert_eq!(of(200, &[("cache-control", "max-age=5")]), (5, LifetimeSource::MaxAge));
    assert_eq!(of(404, &[]), (10, LifetimeSource::Negative));
    assert_eq!(of(302, &[]), (0, LifetimeSource::None));
    assert_eq!(of(501, &[("last-modified", modified)]), (8640, LifetimeSource::Heuristic));
}

#[test]
fn content_that_never_changes_stays_fresh() {
    let stored = record(200, &[("cache-control", "max-age=0"), ("age", "999999")]);
    for now in [at(-100_000), at(0), at(1_000_000_000)] {
        assert!(Freshness::of(&stored, &policy(), "/pool/a.deb", now).is_fresh());
        assert!(!Freshness::of(&stored, &policy(), "/pool/a", now).is_fresh());
    }
    let absent = record(404, &[]);
    assert!(!Freshness::of(&absent, &policy(), "/pool/a.deb", at(11)).is_fresh());
}

#[test]
fn age_is_calculated_as_rfc_9111_section_4_2_3_says() {
    let age_at = |headers: &[(&'static str, &str)], now| age(&record(200, headers), at(now)).as_secs();
    let (now, past, future) = (&*date(0), &*date(-10), &*date(10));
    for (headers, expected) in [
        (&[][..], 5),
        (&[("date", now)], 5),
        (&[("date", past)], 15),
        (&[("date", future)], 5),
        (&[("date", "foo")], 5),
        (&[("date", past), ("date", now)], 5),
        (&[("date", past), ("age", "3")], 15),
        (&[("date", past), ("age", "30")], 35),
        (&[("age", "abc")], 5),
        (&[("age", "-7200")], 5),
        (&[("age", "7200.0")], 5),
        (&[("age", "7200;foo=bar")], 5),
        (&[("age", "7200, 0")], 7205),
        (&[("age", "0, 7200")], 5),
        (&[("age", "7200"), ("age", "0")], 7205),
        (&[("age", "0"), ("age", "7200")], 5),
        (&[("age", "2147483649")], (1 << 31) + 5),
        (&[("age", "99999999999999999999999")], (1 << 31) + 5),
    ] {
        assert_eq!(age_at(headers, 5), expected, "{headers:?}");
    }
    let mut slow = record(200, &[("age", "30")]);
    slow.request_time = at(-7);
    assert_eq!(age(&slow, at(5)).as_secs(), 42, "the response was under way for 7 s");
}

#[test]
fn a_response_from_the_future_is_of_unknown_age() {
    let stored = record(200, &[("cache-control", "max-age=3600")]);
    let freshness = |now| Freshness::of(&stored, &policy(), "/a", now);
    assert_eq!(freshness(at(-31)).age, None);
    assert!(!freshness(at(-31)).is_fresh());
    assert_eq!(freshness(at(-31)).ttl(), 0);
    assert_eq!(age(&stored, at(-31)), Duration::ZERO);
    // It was stored while the request waited.
    assert_eq!(freshness(at(-14)).age, Some(Duration::ZERO));
    assert!(freshness(at(-14)).is_fresh());
}

#[test]
fn lifetime_ends_when_age_reaches_it() {
    let stored = record(200, &[("cache-control", "max-age=10")]);
    let freshness = |now| Freshness::of(&stored, &policy(), "/a", now);
    assert!(freshness(at(9)).is_fresh() && freshness(at(9)).ttl() == 1);
    assert!(!freshness(at(10)).is_fresh() && freshness(at(10)).ttl() == 0);
    assert_eq!(freshness(at(15)).ttl(), -5);
    assert_eq!(freshness(at(15)).staleness(), Some(secs(5)));
    for headers in [
        &[("date", &*date(-10)), ("expires", &*date(10)), ("age", "25")][..],
        &[("date", &*date(10)), ("expires", &*date(20)), ("age", "15")],
        &[("date", &*date(400)), ("expires", &*date(300))],
        &[("date", &*date(0)), ("expires", &*date(0))],
        &[("cache-control", "max-age=3600"), ("age", "7200")],
    ] {
        assert!(!Freshness::of(&record(200, headers), &policy(), "/a", RECEIVED).is_fresh(), "{headers:?}");
    }
}

proptest! {
    #[test]
    fn age_never_falls(age_field in "[0-9]{0,12}", date_offset in -100_000i64..100_000, first in -40i64..100_000, then in 0i64..100_000) {
        let stored = record(200, &[("age", &age_field), ("date", &date(date_offset))]);
        prop_assert!(age(&stored, at(first)) <= age(&stored, at(first + then)));
    }

    #[test]
    fn a_stricter_field_never_freshens(
        own in "(max-age=[0-9]{1,5}|s-maxage=[0-9]{1,5}|public|[a-z]{0,5})",
        added in prop_oneof![
            Just(("cache-control", "max-age=0")),
            Just(("cache-control", "s-maxage=0")),
            Just(("cache-control", "max-age=0, s-maxage=0")),
            Just(("age", "2147483648")),
        ],
        modified in -1_000_000i64..0,
        now in 0i64..100_000,
    ) {
        let stored = record(200, &[("cache-control", &own), ("last-modified", &date(modified)), added]);
        let after = Freshness::of(&stored, &policy(), "/a", at(now));
        // `max-age` does not count beside `s-maxage`.
        let overruled = own.starts_with("s-maxage") && added.1 == "max-age=0";
        prop_assert!(overruled || !after.is_fresh(), "{:?}", after);
    }

    #[test]
    fn any_fields_are_judged(cache_control in "[ -~]{0,60}", expires in "[ -~]{0,40}", age_field in "[ -~]{0,30}", received in any::<u64>(), now in any::<u64>()) {
        let mut stored = record(200, &[("cache-control", &cache_control), ("expires", &expires), ("age", &age_field)]);
        (stored.request_time, stored.response_time) = (UnixMillis(0), UnixMillis(received));
        let freshness = Freshness::of(&stored, &policy(), "/a", UnixMillis(now));
        prop_assert!(!(freshness.is_fresh() && freshness.ttl() < 0));
    }
}

proptest! {
    #[test]
    fn a_smaller_number_never_keeps_a_response_fresh_for_longer(
        name in "(cache-control|cdn-cache-control)", word in "(max-age|s-maxage)", seconds in 0u64..1 << 33, less in 0u64..1 << 33,
        age in 0u64..1 << 40, now in 0i64..1 << 33,
    ) {
        let name: &'static str = if name == "cache-control" { "cache-control" } else { "cdn-cache-control" };
        let is_fresh = |seconds: u64, age: u64| {
            let stored = record(200, &[(name, &format!("{word}={seconds}")), ("age", &age.to_string())]);
            Freshness::of(&stored, &policy(), "/a", at(now)).is_fresh()
        };
        prop_assert!(!is_fresh(seconds.saturating_sub(less), age) || is_fresh(seconds, age));
        prop_assert!(!is_fresh(seconds, age.saturating_add(less)) || is_fresh(seconds, age));
    }
}
