//! Tests of the choice among versions.

use proptest::prelude::*;

use super::*;
use crate::content::PartialId;
use crate::decide::sample::{fields, record};

fn resume(line: &str, to_the_end: bool) -> Resume {
    Resume::of(&fields(&[("range", line)]), 16, to_the_end).unwrap()
}

/// A version with a strong validator of its own.
fn version(number: u64, length: u64) -> Version {
    Version { birth: PartialId(number), validator: Some(number), length: Some(length), digest: None }
}

fn held(version: Version) -> Held {
    Held { version, spoiled: None }
}

#[test]
fn only_ranges_after_byte_0_that_name_no_version_are_resumes() {
    for (line, expected) in [
        ("bytes=0-", None),
        ("bytes=0-99", None),
        ("items=5-", None),
        ("bytes=5-4", None),
        ("bytes=5-", Some((5, None))),
        ("bytes=5-99", Some((5, Some(99)))),
        ("bytes=0-9, 50-59", Some((50, Some(59)))),
        ("bytes=50-59, 0-", Some((50, None))),
        ("bytes=-5", Some((u64::MAX, None))),
    ] {
        let found = Resume::of(&fields(&[("range", line)]), 16, false);
        assert_eq!(found.map(|resume| (resume.first, resume.last)), expected, "{line}");
    }
    let lines = fields(&[("range", "bytes=5-99"), ("range", "bytes=50-99")]);
    assert_eq!(Resume::of(&lines, 16, true).map(|resume| resume.first), Some(50), "the last is meant");
    assert_eq!(Resume::of(&fields(&[("range", "bytes=5-"), ("if-range", "\"a\"")]), 16, false), None);
    assert_eq!(Resume::of(&fields(&[("range", "bytes=5-6, 7-8")]), 1, false), None, "it is not honoured");
    assert_eq!(Resume::of(&fields(&[]), 16, true), None);
}

#[test]
fn a_client_gets_the_version_that_it_was_given() {
    let (old, new, other) = (version(1, 100), version(2, 100), version(3, 200));
    for line in ["bytes=10-99", "bytes=10-", "bytes=10-20", "bytes=-5", "bytes=10-5000"] {
        for to_the_end in [false, true] {
            let asks = resume(line, to_the_end);
            let is_resume = !to_the_end || asks.last.is_none_or(|last| last == 99);
            let expected = |choice| if is_resume { choice } else { Choice::Absent };
            assert_eq!(choose(&asks, &[held(old)], false, &[new, old]), expected(Choice::Stored(1)), "{line}");
            assert_eq!(choose(&asks, &[held(new)], false, &[new, old]), expected(Choice::Stored(0)), "{line}");
            assert_eq!(choose(&asks, &[held(old)], false, &[new]), expected(Choice::Absent), "{line}");
            assert_eq!(choose(&asks, &[held(old)], true, &[new, old]), Choice::Ambiguous, "{line}");
        }
    }
    // Another body of the same version.
    let again = Version { birth: PartialId(9), ..old };
    assert_eq!(choose(&resume("bytes=10-99", true), &[held(old)], false, &[new, again]), Choice::Stored(1));
    let nothing = choose(&resume("bytes=10-99", true), &[held(old)], false, &[]);
    assert_eq!(nothing, Choice::Absent, "upstream may have it");
    // Its range speaks of a length that only another version has.
    assert_eq!(choose(&resume("bytes=10-199", true), &[held(old)], false, &[other, old]), Choice::Stored(0));
    assert_eq!(choose(&resume("bytes=10-199", false), &[held(old)], false, &[other, old]), Choice::Stored(0));
}

#[test]
fn several_versions_are_told_apart_by_their_length_or_not_at_all() {
    let (old, new, longer) = (version(1, 100), version(2, 100), version(3, 200));
    let to_99 = resume("bytes=10-99", true);
    assert_eq!(choose(&to_99, &[held(old), held(new)], false, &[new, old]), Choice::Ambiguous);
    assert_eq!(choose(&to_99, &[held(old), held(new)], false, &[new]), Choice::Ambiguous, "though one is gone");
    assert_eq!(choose(&to_99, &[held(old), held(longer)], false, &[longer, old]), Choice::Stored(1));
    assert_eq!(choose(&to_99, &[held(old), held(longer)], false, &[longer]), Choice::Absent);
    let open = resume("bytes=10-", false);
    assert_eq!(choose(&open, &[held(old), held(longer)], false, &[longer, old]), Choice::Ambiguous);
    // Two bodies of one version are one.
    let again = Version { birth: PartialId(9), ..old };
    assert_eq!(choose(&open, &[held(old), held(again)], false, &[old]), Choice::Stored(0));
}

#[test]
fn without_a_memory_the_length_decides_or_that_there_is_only_one() {
    let (old, new, longer) = (version(1, 100), version(2, 100), version(3, 200));
    for (line, to_the_end, stored, expected) in [
        ("bytes=10-99", true, &[][..], Choice::Any),
        ("bytes=10-99", true, &[new], Choice::Stored(0)),
        ("bytes=10-99", true, &[longer], Choice::Absent),
        ("bytes=10-99", true, &[longer, old], Choice::Stored(1)),
        ("bytes=10-99", true, &[new, old], Choice::Ambiguous),
        ("bytes=10-299", true, &[new], Choice::Absent),
        // Others may mean a part.
        ("bytes=10-19", false, &[longer], Choice::Any),
        ("bytes=10-9999", false, &[longer], Choice::Any),
        ("bytes=10-", false, &[longer], Choice::Any),
        ("bytes=10-19", false, &[longer, old], Choice::Ambiguous),
        ("bytes=10-99", false, &[longer, old], Choice::Stored(1)),
        ("bytes=10-", false, &[longer, old], Choice::Ambiguous),
    ] as [(&str, bool, &[Version], Choice); 12]
    {
        assert_eq!(choose(&resume(line, to_the_end), &[], false, stored), expected, "{line} {to_the_end} {stored:?}");
    }
    let growing = Version { length: None, ..new };
    assert_eq!(choose(&resume("bytes=10-99", true), &[], false, &[growing]), Choice::Stored(0));
    assert_eq!(choose(&resume("bytes=10-99", true), &[], false, &[growing, old]), Choice::Ambiguous);
}

#[test]
fn wrong_bytes_may_be_gone_on_with_only_before_the_first_difference() {
    let bad = version(1, 100);
    let good = Version { digest: Some([7; 16]), ..version(1, 100) };
    // The same validator, but the bytes were wrong.
    let good = Version { birth: PartialId(2), ..good };
    let spoiled = |spoiled| [Held { version: bad, spoiled: Some(spoiled) }];
    let from = |first_difference| spoiled(Spoiled::From { first_difference, right: [7; 16] });
    let at_50 = resume("bytes=50-99", true);
    assert_eq!(choose(&at_50, &spoiled(Spoiled::Throughout), false, &[good]), Choice::Absent);
    assert_eq!(choose(&at_50, &from(50), false, &[good]), Choice::Stored(0));
    assert_eq!(choose(&at_50, &from(49), false, &[good]), Choice::Absent);
    let other = Version { digest: Some([8; 16]), ..good };
    assert_eq!(choose(&at_50, &from(50), false, &[other]), Choice::Absent, "it was compared with another one");
    assert_eq!(choose(&resume("bytes=-5", false), &from(99), false, &[good]), Choice::Absent);
    // Who started anew may go on where both agree.
    let both = |first| [from(first)[0], held(good)];
    assert_eq!(choose(&at_50, &both(50), false, &[good]), Choice::Stored(0));
    assert_eq!(choose(&at_50, &both(49), false, &[good]), Choice::Ambiguous);
    // A body that was too short.
    let short = [Held { version: Version { length: Some(80), ..bad }, ..from(60)[0] }];
    assert_eq!(choose(&resume("bytes=50-79", true), &short, false, &[good]), Choice::Absent, "it would be cut there");
}

#[test]
fn if_range_names_a_version() {
    let stored = record(200, &[("etag", "\"a\"")]);
    assert!(names_version(&fields(&[("if-range", "\"a\"")]), &stored));
    assert!(!names_version(&fields(&[("if-range", "\"b\"")]), &stored));
    assert!(!names_version(&fields(&[("if-range", "W/\"a\"")]), &stored));
    assert!(!names_version(&fields(&[]), &stored));
}

/// What is known of a body that has the content `content`: its number, which its validator and digest stand for.
#[derive(Debug, Clone, Copy)]
struct Seen {
    content: u64,
    body: u64,
    has_validator: bool,
    has_length: bool,
    has_digest: bool,
}

/// Contents come in two lengths only, so that many are alike.
fn length_of(content: u64) -> u64 {
    90 + content % 2
}

fn digest_of(content: u64) -> [u8; 16] {
    [content as u8; 16]
}

impl Seen {
    fn version(self) -> Version {
        Version {
            birth: PartialId(self.content * 100 + self.body),
            validator: self.has_validator.then_some(self.content),
            length: self.has_length.then(|| length_of(self.content)),
            digest: self.has_digest.then(|| digest_of(self.content)),
        }
    }
}

fn any_seen() -> impl Strategy<Value = Seen> {
    let has = (any::<bool>(), prop::bool::weighted(0.8), any::<bool>());
    (0u64..4, 0u64..2, has).prop_map(|(content, body, (has_validator, has_length, has_digest))| Seen {
        content,
        body,
        has_validator,
        has_length,
        has_digest,
    })
}

/// A client that has the first bytes of one content asks for more of it. Its address was given that content, among
/// others perhaps; or nothing is remembered, and the content is stored.
#[derive(Debug, Clone)]
struct Scene {
    held: Vec<Seen>,
    stored: Vec<Seen>,
    has: Seen,
    first: u64,
    /// Up to its end; else up to a byte that is no version's end.
    to_the_end: Option<bool>,
}

fn any_scene() -> impl Strategy<Value = Scene> {
    let seen = |range| prop::collection::vec(any_seen(), range);
    let ask = (1u64..80, prop::option::of(any::<bool>()), any::<prop::sample::Index>());
    (seen(0..4), seen(1..4), ask).prop_map(|(held, stored, (first, to_the_end, which))| {
        let has = if held.is_empty() { stored[which.index(stored.len())] } else { held[which.index(held.len())] };
        Scene { held, stored, has, first, to_the_end }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nobody_gets_bytes_of_another_version(scene in any_scene()) {
        let Scene { held: seen, stored, has, first, to_the_end } = scene;
        let last = match to_the_end {
            Some(_) => Some(length_of(has.content) - 1),
            None => Some(first + 1),
        };
        let resume = Resume { first, last, to_the_end: to_the_end == Some(true) };
        let known: Vec<_> = seen.iter().map(|seen| held(seen.version())).collect();
        let versions: Vec<_> = stored.iter().map(|seen| seen.version()).collect();
        let open = Resume { last: None, to_the_end: false, ..resume };
        for asks in [resume, open] {
            let place = match choose(&asks, &known, false, &versions) {
                Choice::Stored(place) => place,
                Choice::Any => 0,
                Choice::Absent | Choice::Ambiguous => continue,
            };
            prop_assert_eq!(stored[place].content, has.content, "{:?}", asks);
        }
    }

    #[test]
    fn nobody_goes_on_behind_a_wrong_byte(
        first in 1u64..80, first_difference in prop::option::of(0u64..80), stored in prop::collection::vec(any_seen(), 1..4),
        also_holds in prop::option::of(any_seen()), to_the_end in any::<bool>(),
    ) {
        // Wrong bytes that came under the name of content 0.
        let bad = Seen { content: 0, body: 99, has_validator: true, has_length: true, has_digest: false };
        let spoiled = match first_difference {
            Some(first_difference) => Spoiled::From { first_difference, right: digest_of(0) },
            None => Spoiled::Throughout,
        };
        let mut known = vec![Held { version: bad.version(), spoiled: Some(spoiled) }];
        known.extend(also_holds.map(|seen| held(seen.version())));
        let versions: Vec<_> = stored.iter().map(|seen| seen.version()).collect();
        let resume = Resume { first, last: Some(length_of(0) - 1), to_the_end };
        let place = match choose(&resume, &known, false, &versions) {
            Choice::Stored(place) => place,
            choice => {
                prop_assert_ne!(choice, Choice::Any);
                return Ok(());
            }
        };
        prop_assert_eq!(stored[place].content, 0);
        prop_assert!(first_difference.is_some_and(|difference| first <= difference));
    }
}
