//! Tables for RFC 9111 sections 4, 4.2.4, 4.3.1 and 5.2.1, and laws of the decision.

use proptest::prelude::*;

use super::*;
use crate::content::{PartialId, PathPatterns};
use crate::decide::sample::{at, date, fields, policy, record, secs};

type Fields<'a> = &'a [(&'static str, &'a str)];

const REFETCH: Options = Options { clients_may_refetch: true };
const TAG: (&str, &str) = ("etag", "\"a\"");

fn judge_as(request: Fields<'_>, stored: &Record, path: &str, options: Options, now: i64) -> Decision {
    let request = fields(request);
    let facts = RequestFacts { method: &Method::GET, headers: &request };
    decide(&facts, Some(stored), &policy(), path, &options, at(now))
}

/// The decision in a word, `now` seconds after `stored` was received.
fn judge(request: Fields<'_>, stored: Fields<'_>, now: i64) -> &'static str {
    word(&judge_as(request, &record(200, stored), "/a", REFETCH, now))
}

fn word(decision: &Decision) -> &'static str {
    match decision {
        Decision::Serve { .. } => "serve",
        Decision::ServeMeanwhile { .. } => "stale meanwhile",
        Decision::Revalidate { reason: FwdReason::Stale, must: false, .. } => "stale",
        Decision::Revalidate { reason: FwdReason::Stale, must: true, .. } => "stale must",
        Decision::Revalidate { reason: FwdReason::Request, must: false, .. } => "request",
        Decision::Revalidate { .. } => "?",
        Decision::Fetch(reason) => reason.as_str(),
        Decision::Bypass(_) => "bypass",
        Decision::OnlyIfCachedMiss => "only-if-cached",
    }
}

#[test]
fn nothing_is_stored() {
    let judge = |method: Method, request: Fields<'_>| {
        let request = fields(request);
        let facts = RequestFacts { method: &method, headers: &request };
        decide(&facts, None, &policy(), "/a", &REFETCH, at(0))
    };
    for (request, expected) in [
        (&[][..], Decision::Fetch(FwdReason::UriMiss)),
        (&[("cache-control", "no-cache")], Decision::Fetch(FwdReason::UriMiss)),
        (&[("cache-control", "no-store")], Decision::Bypass(BypassReason::NoStore)),
        (&[("cache-control", "only-if-cached, no-store")], Decision::OnlyIfCachedMiss),
    ] {
        assert_eq!(judge(Method::GET, request), expected);
        assert_eq!(judge(Method::HEAD, request), expected);
    }
    assert_eq!(judge(Method::POST, &[]), Decision::Bypass(BypassReason::Method));
}

#[test]
fn fresh_content_is_served_and_stale_content_validated() {
    for (directives, now, expected) in [
        ("max-age=10", 9, "serve"),
        ("max-age=10", 10, "stale"),
        ("max-age=10", -31, "stale"),
        ("max-age=10, must-revalidate", 9, "serve"),
        ("max-age=10, must-revalidate", 10, "stale must"),
        ("max-age=10, proxy-revalidate", 10, "stale must"),
        ("s-maxage=10", 10, "stale must"),
        ("max-age=10, no-cache", 1, "stale must"),
        ("max-age=10, No-CaChE=\"a\"", 1, "stale must"),
        ("max-age=10, private", 1, "stale must"),
        ("max-age=10, no-store", 1, "stale must"),
        ("max-age=10, no-store, must-understand", 1, "serve"),
        ("max-age=10, stale-while-revalidate=5", 9, "serve"),
        ("max-age=10, stale-while-revalidate=5", 15, "stale meanwhile"),
        ("max-age=10, stale-while-revalidate=5", 16, "stale"),
        ("max-age=10, stale-while-revalidate=5, must-revalidate", 15, "stale must"),
        ("max-age=10, stale-while-revalidate=5", -31, "stale"),
        ("max-age=10, stale-if-error=5", 15, "stale"),
        ("nothing-to-see-here", 0, "stale"),
    ] {
        assert_eq!(judge(&[], &[("cache-control", directives), TAG], now), expected, "{directives} {now}");
    }
    let without = judge_as(&[], &record(200, &[("cache-control", "max-age=10")]), "/a", REFETCH, 10);
    assert_eq!(without, Decision::Fetch(FwdReason::Stale));
}

#[test]
fn stale_content_is_served_while_it_is_validated_only_within_its_window_and_whole() {
    let mut stored = record(200, &[("cache-control", "max-age=10, stale-while-revalidate=5")]);
    let judge = |stored: &Record, wish: &str, now| judge_as(&[("cache-control", wish)], stored, "/a", REFETCH, now);
    match judge(&stored, "x", 15) {
        Decision::ServeMeanwhile { freshness, conditions } => {
            assert_eq!((freshness.ttl(), conditions.len()), (-5, 0), "also without a validator");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(judge(&stored, "x", 16), Decision::Fetch(FwdReason::Stale));
    assert_eq!(judge(&stored, "only-if-cached", 15), Decision::OnlyIfCachedMiss);
    for wish in ["no-cache", "max-age=99", "min-fresh=1"] {
        assert_eq!(judge(&stored, wish, 15), Decision::Fetch(FwdReason::Stale), "{wish}");
    }
    let old = record(404, &[("cache-control", "max-age=10, stale-while-revalidate=5")]);
    assert_eq!(judge(&old, "x", 15), Decision::Fetch(FwdReason::Stale), "an agent takes an old 404 for a lasting one");
    stored.body = BodyRef::Partial(PartialId(1));
    assert_eq!(judge(&stored, "x", 15), Decision::Fetch(FwdReason::Stale), "it goes on by being asked for");
}

#[test]
fn what_needs_its_origin_s_word_is_not_for_anybody() {
    for (directives, expected) in [
        ("max-age=10", true),
        ("public, immutable", true),
        ("max-age=10, must-revalidate", false),
        ("max-age=10, proxy-revalidate", false),
        ("s-maxage=10", false),
        ("no-cache", false),
        ("private", false),
        ("no-store", false),
    ] {
        assert_eq!(is_for_anybody(&record(200, &[("cache-control", directives)])), expected, "{directives}");
    }
    let shown = Record { token_protected: true, ..record(200, &[("cache-control", "max-age=10")]) };
    assert!(!is_for_anybody(&shown));
}

#[test]
fn requests_prefer() {
    let hour = [("cache-control", "max-age=3600"), TAG];
    let immutable = [("cache-control", "max-age=3600, immutable"), TAG];
    for (wish, stored, now, expected) in [
        ("nothing-to-see-here", &hour[..], 60, "serve"),
        ("no-cache", &hour, 60, "request"),
        ("max-age=0", &hour, 0, "request"),
        ("max-age=59", &hour, 60, "request"),
        ("max-age=60", &hour, 60, "serve"),
        ("min-fresh=3540", &hour, 60, "serve"),
        ("min-fresh=3541", &hour, 60, "request"),
        ("max-age=x", &hour, 60, "serve"),
        ("no-store", &hour, 60, "serve"),
        ("only-if-cached", &hour, 60, "serve"),
        ("only-if-cached, max-age=0", &hour, 60, "only-if-cached"),
        ("only-if-cached", &hour, 3600, "only-if-cached"),
        ("no-store", &hour, 3600, "stale"),
        ("no-store, no-cache", &hour, 60, "request"),
        ("max-stale", &hour, 9999, "serve"),
        ("max-stale=10", &hour, 3610, "serve"),
        ("max-stale=10", &hour, 3611, "stale"),
        ("max-stale=x", &hour, 3600, "stale"),
        ("max-stale", &hour, -31, "stale"),
        ("max-stale", &[("cache-control", "s-maxage=1"), TAG], 60, "stale must"),
        ("max-stale", &[("cache-control", "max-age=1, must-revalidate"), TAG], 60, "stale must"),
        ("max-age=0", &immutable, 60, "serve"),
        ("min-fresh=9999", &immutable, 60, "serve"),
        ("no-cache", &immutable, 60, "request"),
        ("max-age=0", &immutable, 3600, "stale"),
        ("max-age=0", &[("cache-control", "max-age=1, stale-while-revalidate=9"), TAG], 5, "stale"),
        ("no-cache", &[("cache-control", "max-age=3600")], 60, "request"),
    ] {
        assert_eq!(judge(&[("cache-control", wish)], stored, now), expected, "{wish} {stored:?} {now}");
    }
    assert_eq!(judge(&[("pragma", "no-cache")], &hour, 60), "request");
    assert_eq!(judge(&[("pragma", "no-cache"), ("cache-control", "nothing-to-see-here")], &hour, 60), "serve");
}

#[test]
fn the_operator_may_ignore_what_costs_the_uplink() {
    let never = Options { clients_may_refetch: false };
    let stored = record(200, &[("cache-control", "max-age=3600, stale-while-revalidate=60"), TAG]);
    for wish in ["no-cache", "max-age=0", "min-fresh=99999"] {
        assert_eq!(word(&judge_as(&[("cache-control", wish)], &stored, "/a", never, 60)), "serve", "{wish}");
        assert_eq!(
            word(&judge_as(&[("cache-control", wish)], &stored, "/a", never, 3601)),
            "stale meanwhile",
            "{wish}"
        );
        assert_eq!(word(&judge_as(&[("cache-control", wish)], &stored, "/a", never, 3661)), "stale", "{wish}");
    }
}

#[test]
fn content_that_never_changes_is_not_validated() {
    let stored = record(200, &[("cache-control", "no-cache, max-age=0"), TAG]);
    for wish in ["no-cache", "max-age=0", "min-fresh=99999", "no-store"] {
        assert_eq!(word(&judge_as(&[("cache-control", wish)], &stored, "/a.deb", REFETCH, 99_999)), "serve", "{wish}");
    }
    assert_eq!(word(&judge_as(&[], &stored, "/a.deb", REFETCH, -99_999)), "serve");
}

#[test]
fn an_answer_asked_for_after_the_request_came_serves_it() {
    let mut stored = record(200, &[("cache-control", "no-cache"), TAG]);
    stored.request_time = at(1);
    stored.response_time = at(9);
    let judge = |stored: &Record| word(&judge_as(&[("cache-control", "no-cache")], stored, "/a", REFETCH, 0));
    assert_eq!(judge(&stored), "serve");
    stored.request_time = at(0);
    assert_eq!(judge(&stored), "stale must", "asked for in the same moment, perhaps before");
    (stored.request_time, stored.response_time) = (at(50), at(51));
    assert_eq!(judge(&stored), "stale must", "the clock was set back");
}

#[test]
fn no_store_adds_nothing_to_a_partial_body() {
    let mut stored = record(200, &[("cache-control", "max-age=1"), TAG]);
    stored.body = BodyRef::Partial(PartialId(1));
    let judge = |request: Fields<'_>| judge_as(request, &stored, "/a", REFETCH, 60);
    assert_eq!(judge(&[("cache-control", "no-store")]), Decision::Bypass(BypassReason::NoStore));
    assert_eq!(word(&judge(&[])), "stale");
}

#[test]
fn conditions_are_the_stored_validators() {
    let modified = &*date(-3600);
    let conditions_of = |status, stored: Fields<'_>| match judge_as(&[], &record(status, stored), "/a", REFETCH, 99_999)
    {
        Decision::Revalidate { conditions, .. } => conditions,
        decision => {
            assert_eq!(decision, Decision::Fetch(FwdReason::Stale));
            HeaderMap::new()
        }
    };
    for (stored, expected) in [
        (&[("etag", "\"a\"")][..], &[("if-none-match", "\"a\"")][..]),
        (&[("etag", "W/\"a\"")], &[("if-none-match", "W/\"a\"")]),
        (&[("last-modified", modified)], &[("if-modified-since", modified)]),
        (&[TAG, ("last-modified", modified)], &[("if-none-match", "\"a\""), ("if-modified-since", modified)]),
        (&[("etag", "a"), ("last-modified", "yesterday")], &[]),
        (&[TAG, ("etag", "\"b\"")], &[]),
    ] {
        assert_eq!(conditions_of(200, stored), fields(expected), "{stored:?}");
    }
    for status in [301, 404, 503] {
        assert!(conditions_of(status, &[TAG, ("cache-control", "max-age=1")]).is_empty(), "{status}");
    }
}

#[test]
fn stale_content_stands_in_unless_forbidden() {
    let stands_in = |status, directives: &str, policy: &Policy, request: Fields<'_>, now| {
        let request = fields(request);
        let facts = RequestFacts { method: &Method::GET, headers: &request };
        may_serve_stale(&record(status, &[("cache-control", directives)]), &facts, policy, "/a", at(now))
    };
    let unlimited = policy();
    let mut limited = policy();
    limited.freshness.stale_if_error = StaleIfError::Limited(secs(100));
    for (directives, now, expected, expected_limited) in [
        ("max-age=2", 102, true, true),
        ("max-age=2", 103, true, false),
        ("max-age=2", -31, true, true),
        ("max-age=2, stale-if-error=200", 202, true, true),
        ("max-age=2, stale-if-error=200", 203, true, false),
        ("max-age=2, stale-while-revalidate=200", 202, true, true),
        ("max-age=2, stale-if-error=0", 102, true, true),
        ("max-age=2, must-revalidate", 3, false, false),
        ("max-age=2, proxy-revalidate", 3, false, false),
        ("max-age=2, s-maxage=2", 3, false, false),
        ("max-age=2, no-cache", 1, false, false),
        ("max-age=2, private", 1, false, false),
        ("max-age=2, must-revalidate, stale-if-error=60", 3, false, false),
        ("max-age=2, must-revalidate", -31, false, false),
        // Still fresh: the request wanted a validation that cannot be had.
        ("max-age=2, must-revalidate", 1, true, true),
        ("s-maxage=2", 1, true, true),
    ] {
        assert_eq!(stands_in(200, directives, &unlimited, &[], now), expected, "{directives} {now}");
        assert_eq!(stands_in(200, directives, &limited, &[], now), expected_limited, "limited: {directives} {now}");
    }
    let no_cache = [("cache-control", "no-cache, stale-if-error=300")];
    assert!(stands_in(200, "max-age=2", &limited, &no_cache, 302));
    assert!(!stands_in(200, "max-age=2", &limited, &no_cache, 303));
    assert!(stands_in(301, "max-age=2", &unlimited, &[], 60));
    for status in [404, 410, 500, 503] {
        assert!(stands_in(status, "max-age=2", &unlimited, &[], 1), "{status}");
        assert!(!stands_in(status, "max-age=2", &unlimited, &[], 3), "{status}");
    }
    let mut never_changes = limited;
    never_changes.freshness.immutable = PathPatterns::new(&["/a"]).unwrap();
    assert!(stands_in(200, "no-cache, must-revalidate, max-age=2", &never_changes, &[], 99_999));
}

proptest! {
    #[test]
    fn any_fields_are_decided(wish in "[ -~]{0,40}", directives in "[ -~]{0,40}", tag in "[ -~]{0,10}", received in any::<u64>(), now in any::<u64>()) {
        let mut stored = record(200, &[("cache-control", &directives), ("etag", &tag)]);
        (stored.request_time, stored.response_time) = (UnixMillis(received), UnixMillis(received));
        let request = fields(&[("cache-control", &wish)]);
        let facts = RequestFacts { method: &Method::GET, headers: &request };
        let decision = decide(&facts, Some(&stored), &policy(), "/a", &REFETCH, UnixMillis(now));
        may_serve_stale(&stored, &facts, &policy(), "/a", UnixMillis(now));
        if let Decision::Revalidate { conditions, .. } = decision {
            prop_assert!(!conditions.is_empty());
        }
    }

    #[test]
    fn a_stricter_side_never_serves_more(
        own in "(max-age|s-maxage)=[0-9]{1,4}(, (immutable|must-revalidate|stale-while-revalidate=9))?",
        added in "(no-cache|no-store|private|max-age=0, s-maxage=0)",
        wish in "(|no-cache|max-age=[0-9]{1,4}|min-fresh=[0-9]{1,4})",
        now in 0i64..10_000,
    ) {
        let served = |directives: &str, wish: &str| {
            judge(&[("cache-control", wish)], &[("cache-control", directives), TAG], now) == "serve"
        };
        let stricter = format!("{own}, {added}");
        prop_assert!(!served(&stricter, &wish));
        prop_assert!(!served(&own, &wish) || served(&own, ""));
    }

    #[test]
    fn what_may_not_be_served_stale_never_stands_in(
        word in "(must-revalidate|proxy-revalidate|no-cache|s-maxage=[0-9]{1,3})", other in "(stale-if-error=99999|max-age=[0-9]{1,3})", now in 1000i64..100_000,
    ) {
        let directives = format!("{other}, {word}");
        prop_assert_ne!(judge(&[("cache-control", "max-stale")], &[("cache-control", &directives), TAG], now), "serve");
        let request = HeaderMap::new();
        let facts = RequestFacts { method: &Method::GET, headers: &request };
        let stored = record(200, &[("cache-control", &directives)]);
        prop_assert!(!may_serve_stale(&stored, &facts, &policy(), "/a", at(now)));
    }
}
