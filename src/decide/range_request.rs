//! Which bytes a `Range` field asks for (RFC 9110 section 14), given a stored response.

use http::HeaderMap;
use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE};

use super::conditional::if_range_holds;
use super::list;
use crate::content::{ByteRange, Record};

/// Ranges with a smaller gap are answered as one: a part's own head is longer (RFC 9110 section 15.3.7.2).
const SMALLEST_GAP: u64 = 80;

/// What is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RangeOutcome {
    /// The whole, as 200: no range is asked for, or none that has to be honoured.
    Whole,
    /// One range, as 206.
    Single(ByteRange),
    /// Several, as 206 with `multipart/byteranges`; disjoint, in the order in which they were asked for.
    Multiple(Vec<ByteRange>),
    /// 416: none of the ranges has a byte in it.
    Unsatisfiable,
    /// A range is asked for, and which bytes it means depends on the length, which is not known.
    NeedsLength,
}

/// Where the first bytes lie that a request asks for, as far as that can be told without the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstAsked {
    /// From here to the end of the representation.
    ToEnd(u64),
    /// Within this range.
    Within(ByteRange),
    /// So many bytes before the end.
    Suffix(u64),
}

/// What a client wrote, without knowing the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spec {
    /// `first-last` or `first-`.
    From { first: u64, last: Option<u64> },
    /// `-length`.
    Suffix(u64),
}

/// Judges the `Range` and `If-Range` fields of a GET for a representation of `length` bytes. More than `limit` ranges,
/// or ranges that together are longer than the representation, are not honoured (RFC 9110 section 17.15).
pub fn ranges(request: &HeaderMap, record: &Record, length: Option<u64>, limit: usize) -> RangeOutcome {
    let Some(specs) = requested(request).filter(|specs| specs.len() <= limit) else { return RangeOutcome::Whole };
    if !if_range_holds(request, record) {
        return RangeOutcome::Whole;
    }
    let Some(length) = length else { return RangeOutcome::NeedsLength };
    let wanted: Vec<_> = specs.into_iter().filter_map(|spec| spec.within(length)).collect();
    if let [range] = wanted[..] {
        return RangeOutcome::Single(range);
    }
    let sum = wanted.iter().fold(0u64, |sum, range| sum.saturating_add(range.len()));
    if sum > length {
        return RangeOutcome::Whole;
    }
    match coalesced(wanted)[..] {
        [] => RangeOutcome::Unsatisfiable,
        [range] => RangeOutcome::Single(range),
        ref several => RangeOutcome::Multiple(several.to_vec()),
    }
}

/// Whether `part` of a representation of `length` bytes, as a 206 says, is what `request` asks for, or the begin of it (RFC
/// 9110 section 15.3.7: a server may send less). Of several ranges it may be some that were joined.
pub fn is_asked_for(request: &HeaderMap, part: ByteRange, length: Option<u64>) -> bool {
    let specs = requested(request).unwrap_or_default();
    // Without the length nobody can tell where the last bytes begin; then no part has them.
    let wanted: Vec<_> = specs.into_iter().filter_map(|spec| spec.within(length.unwrap_or(u64::MAX))).collect();
    let end = wanted.iter().map(ByteRange::end).max();
    wanted.iter().any(|range| range.start() == part.start()) && end.is_some_and(|end| part.end() <= end)
}

/// Whether `request` asks for just one range: that is answered without a frame around it (RFC 9110 section 15.3.7.2).
pub fn is_for_one_range(request: &HeaderMap) -> bool {
    requested(request).is_some_and(|specs| specs.len() == 1)
}

/// What a fill should begin with for `request`, before anything is known of the representation.
pub fn first_asked(request: &HeaderMap) -> FirstAsked {
    match requested(request).as_deref() {
        None | Some([]) => FirstAsked::ToEnd(0),
        Some([Spec::Suffix(count), ..]) => FirstAsked::Suffix(*count),
        Some([Spec::From { first, last: None }, ..]) => FirstAsked::ToEnd(*first),
        Some([Spec::From { first, last: Some(last) }, ..]) => match ByteRange::new(*first, last.saturating_add(1)) {
            Some(range) => FirstAsked::Within(range),
            None => FirstAsked::ToEnd(*first),
        },
    }
}

/// Whether `request` asks for one range of which a representation of `length` bytes has none, whatever the
/// representation is: no condition has to be judged first (RFC 9110 section 13.2.2).
pub fn is_behind(request: &HeaderMap, length: u64) -> bool {
    let conditions = [IF_RANGE, IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE];
    let is_plain = !conditions.iter().any(|condition| request.contains_key(condition));
    is_plain && matches!(requested(request).as_deref(), Some([spec]) if spec.within(length).is_none())
}

impl Spec {
    /// The bytes meant in a representation of `length` bytes, if any.
    fn within(self, length: u64) -> Option<ByteRange> {
        match self {
            Self::From { first, last } => {
                ByteRange::new(first, last.map_or(length, |last| last.saturating_add(1).min(length)))
            }
            Self::Suffix(count) => ByteRange::new(length.saturating_sub(count), length),
        }
    }
}

/// What the `Range` field asks for; `None` without one that is valid. Delivery Optimization agents repeat the whole
/// field at each resume, oldest first: of several lines with one range each the last is meant.
pub(super) fn requested(request: &HeaderMap) -> Option<Vec<Spec>> {
    let mut lines = request.get_all(RANGE).iter().map(|line| range_set(line.as_bytes()));
    let mut specs = lines.next()??;
    for line in lines {
        let next = line?;
        if specs.len() != 1 || next.len() != 1 {
            return None;
        }
        specs = next;
    }
    Some(specs)
}

/// `bytes=` and a list of ranges. `None` for another unit and for anything invalid, which is then to be ignored (RFC
/// 9110 section 14.2).
fn range_set(line: &[u8]) -> Option<Vec<Spec>> {
    let line = list::trim(line);
    let equals = line.iter().position(|byte| *byte == b'=')?;
    let (unit, set) = (line.get(..equals)?, line.get(equals + 1..)?);
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let members = set.split(|byte| *byte == b',').map(list::trim).filter(|member| !member.is_empty());
    let specs: Vec<_> = members.map(spec).collect::<Option<_>>()?;
    (!specs.is_empty()).then_some(specs)
}

fn spec(member: &[u8]) -> Option<Spec> {
    let dash = member.iter().position(|byte| *byte == b'-')?;
    let (first, last) = (member.get(..dash)?, member.get(dash + 1..)?);
    match (first, last) {
        (b"", count) => Some(Spec::Suffix(position(count)?)),
        (first, b"") => Some(Spec::From { first: position(first)?, last: None }),
        (first, last) => {
            let (first, last) = (position(first)?, position(last)?);
            (first <= last).then_some(Spec::From { first, last: Some(last) })
        }
    }
}

/// A position; one that is too large for a number is beyond every end anyway.
fn position(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

/// Joins what overlaps or nearly touches; each joined range stands where its first part was asked for.
fn coalesced(wanted: Vec<ByteRange>) -> Vec<ByteRange> {
    let mut by_start: Vec<_> = wanted.into_iter().enumerate().collect();
    by_start.sort_unstable_by_key(|(_, range)| *range);
    let mut joined: Vec<(usize, ByteRange)> = Vec::with_capacity(by_start.len());
    for (asked, range) in by_start {
        match joined.last_mut() {
            Some((first_asked, last)) if range.start() < last.end().saturating_add(SMALLEST_GAP) => {
                *first_asked = asked.min(*first_asked);
                *last = ByteRange::new(last.start(), last.end().max(range.end())).unwrap_or(*last);
            }
            _ => joined.push((asked, range)),
        }
    }
    joined.sort_unstable_by_key(|(asked, _)| *asked);
    joined.into_iter().map(|(_, range)| range).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::content::RangeSet;
    use crate::decide::sample::{date, fields, record};

    const LIMIT: usize = 16;

    fn of(lines: &[&str], length: Option<u64>) -> RangeOutcome {
        let request: Vec<_> = lines.iter().map(|line| ("range", *line)).collect();
        ranges(&fields(&request), &record(200, &[]), length, LIMIT)
    }

    fn single(start: u64, end: u64) -> RangeOutcome {
        RangeOutcome::Single(ByteRange::new(start, end).unwrap())
    }

    fn several(ranges: &[(u64, u64)]) -> RangeOutcome {
        RangeOutcome::Multiple(ranges.iter().map(|(start, end)| ByteRange::new(*start, *end).unwrap()).collect())
    }

    #[test]
    fn a_range_is_behind_the_end_whatever_is_there_only_alone_and_without_a_condition() {
        let behind = |request: &[(&'static str, &'static str)]| is_behind(&fields(request), 1000);
        for range in ["bytes=1000-1001", "bytes=1000-", "bytes=-0"] {
            assert!(behind(&[("range", range)]), "{range}");
        }
        for range in ["bytes=999-1001", "bytes=0-", "bytes=-5", "bytes=1000-,2000-", "lines=1000-", "bytes=9-1"] {
            assert!(!behind(&[("range", range)]), "{range}");
        }
        assert!(!behind(&[]));
        for condition in ["if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since"] {
            assert!(!behind(&[("range", "bytes=1000-"), (condition, "\"a\"")]), "{condition}");
        }
        assert!(behind(&[("range", "bytes=0-1"), ("range", "bytes=1000-1001")]), "the last one is meant");
    }

    #[test]
    fn one_range_of_a_thousand_bytes() {
        use RangeOutcome::{Unsatisfiable, Whole};
        for (line, expected) in [
            ("bytes=0-0", single(0, 1)),
            ("bytes=0-499", single(0, 500)),
            ("bytes=500-", single(500, 1000)),
            ("bytes=-1", single(999, 1000)),
            ("bytes=-5000", single(0, 1000)),
            ("bytes=0-", single(0, 1000)),
            ("bytes=999-2000", single(999, 1000)),
            ("BYTES=0-1", single(0, 2)),
            (" bytes=0-1 ", single(0, 2)),
            ("bytes= 0-1 , ", single(0, 2)),
            ("bytes=000000000000000000000000-1", single(0, 2)),
            ("bytes=5-99999999999999999999999999", single(5, 1000)),
            ("bytes=-99999999999999999999999999", single(0, 1000)),
            ("bytes=1000-", Unsatisfiable),
            ("bytes=1000-1001, 2000-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=99999999999999999999999999-", Unsatisfiable),
            ("bytes=18446744073709551615-18446744073709551615", Unsatisfiable),
            // Invalid, so ignored.
            ("", Whole),
            ("bytes", Whole),
            ("bytes=", Whole),
            ("bytes=,", Whole),
            ("bytes=-", Whole),
            ("bytes=a-b", Whole),
            ("bytes=5-4", Whole),
            ("bytes=0-1, 5-4", Whole),
            ("bytes=0-1-2", Whole),
            ("bytes=--1", Whole),
            ("bytes=+1-2", Whole),
            ("bytes=0 -1", Whole),
            ("bytes =0-1", Whole),
            ("bytes=0x1-2", Whole),
            ("bytes=0-1;2-3", Whole),
            ("items=0-1", Whole),
            ("0-1", Whole),
        ] {
            assert_eq!(of(&[line], Some(1000)), expected, "{line}");
        }
        assert_eq!(of(&[], Some(1000)), Whole);
    }

    #[test]
    fn several_ranges_are_joined_and_kept_in_order() {
        for (line, expected) in [
            ("bytes=0-9, 500-599", several(&[(0, 10), (500, 600)])),
            ("bytes=500-599, 0-9", several(&[(500, 600), (0, 10)])),
            ("bytes=500-599, 0-9, 600-609", several(&[(500, 610), (0, 10)])),
            ("bytes=0-9, 90-99", several(&[(0, 10), (90, 100)])),
            ("bytes=0-9, 89-99", single(0, 100)),
            ("bytes=0-99, 50-149", single(0, 150)),
            ("bytes=0-9, 2000-", single(0, 10)),
            ("bytes=0-499, 500-999", single(0, 1000)),
            ("bytes=0-, 0-", RangeOutcome::Whole),
            ("bytes=0-999, -1", RangeOutcome::Whole),
        ] {
            assert_eq!(of(&[line], Some(1000)), expected, "{line}");
        }
        let many = |count: u64| {
            let ranges: Vec<_> = (0..count).map(|n| format!("{}-{}", n * 1000, n * 1000)).collect();
            of(&[&format!("bytes={}", ranges.join(","))], Some(1_000_000))
        };
        assert!(matches!(many(LIMIT as u64), RangeOutcome::Multiple(ranges) if ranges.len() == LIMIT));
        assert_eq!(many(LIMIT as u64 + 1), RangeOutcome::Whole);
    }

    #[test]
    fn of_several_lines_the_last_is_meant() {
        let length = Some(8_000_000);
        let resumed = ["bytes=2200000-7999999", "bytes=4400000-7999999"];
        assert_eq!(of(&resumed, length), single(4_400_000, 8_000_000));
        assert_eq!(of(&[resumed[0], resumed[1], "bytes=5500000-"], length), single(5_500_000, 8_000_000));
        assert_eq!(of(&["bytes=0-1", "bytes=0-1"], length), single(0, 2));
        for lines in [
            ["bytes=0-1", "bytes=5-6, 700-800"],
            ["bytes=5-6, 700-800", "bytes=0-1"],
            ["bytes=0-1", "items=0-1"],
            ["nonsense", "bytes=0-1"],
        ] {
            assert_eq!(of(&lines, length), RangeOutcome::Whole, "{lines:?}");
        }
    }

    #[test]
    fn length_may_be_zero_or_unknown() {
        for line in ["bytes=0-", "bytes=0-0", "bytes=-5", "bytes=3-"] {
            assert_eq!(of(&[line], Some(0)), RangeOutcome::Unsatisfiable, "{line}");
            assert_eq!(of(&[line], None), RangeOutcome::NeedsLength, "{line}");
        }
        assert_eq!(of(&["bytes=x"], None), RangeOutcome::Whole);
        assert_eq!(of(&[], None), RangeOutcome::Whole);
        assert_eq!(of(&["bytes=0-"], Some(u64::MAX)), single(0, u64::MAX));
    }

    #[test]
    fn if_range_lets_the_whole_be_sent() {
        let modified = &*date(-3600);
        let stored = record(200, &[("etag", "\"a\""), ("last-modified", modified)]);
        for (condition, expected) in
            [("\"a\"", single(890, 1000)), ("\"b\"", RangeOutcome::Whole), (modified, single(890, 1000))]
        {
            let request = fields(&[("range", "bytes=890-"), ("if-range", condition)]);
            assert_eq!(ranges(&request, &stored, Some(1000), LIMIT), expected, "{condition}");
        }
        let request = fields(&[("range", "bytes=890-"), ("if-range", "\"b\"")]);
        assert_eq!(ranges(&request, &stored, None, LIMIT), RangeOutcome::Whole);
    }

    #[test]
    fn a_part_is_what_was_asked_for_or_its_begin() {
        let fits = |line: &str, start, end, length| {
            is_asked_for(&fields(&[("range", line)]), ByteRange::new(start, end).unwrap(), length)
        };
        for (line, start, end) in [
            ("bytes=40-99", 40, 100),
            ("bytes=40-99", 40, 60),
            ("bytes=40-", 40, 1000),
            ("bytes=900-2000", 900, 1000),
            ("bytes=-10", 990, 1000),
            ("bytes=-10", 990, 995),
            ("bytes=0-9, 20-29", 20, 30),
            ("bytes=20-29, 0-9", 0, 30),
        ] {
            assert!(fits(line, start, end, Some(1000)), "{line} {start} {end}");
            assert!(!fits(line, start + 1, end, Some(1000)) && !fits(line, start, 1000, Some(999)), "{line}");
        }
        for (line, start, end) in [("bytes=40-99", 40, 101), ("bytes=40-99", 39, 100), ("bytes=0-9, 20-29", 0, 31)] {
            assert!(!fits(line, start, end, Some(1000)), "{line} {start} {end}");
        }
        assert!(fits("bytes=40-", 40, 1000, None) && !fits("bytes=-10", 990, 1000, None));
        for line in ["items=0-1", "bytes=x", "bytes=5-4"] {
            assert!(!fits(line, 0, 2, Some(1000)), "{line}");
        }
        assert!(!is_asked_for(&HeaderMap::new(), ByteRange::new(0, 1).unwrap(), Some(1)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(line in prop::collection::vec(any::<u8>(), 0..60), length in any::<Option<u64>>()) {
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                ranges(&HeaderMap::from_iter([(RANGE, value)]), &record(200, &[]), length, LIMIT);
            }
        }

        #[test]
        fn ranges_are_within_the_length_apart_and_what_was_asked_for(
            specs in prop::collection::vec((0u64..2000, prop::option::of(0u64..300), any::<bool>()), 1..8), length in 0u64..2500,
        ) {
            let member = |(first, len, suffix): &(u64, Option<u64>, bool)| match (len, suffix) {
                (_, true) => format!("-{first}"),
                (None, _) => format!("{first}-"),
                (Some(len), _) => format!("{first}-{}", first + len),
            };
            let line = format!("bytes={}", specs.iter().map(member).collect::<Vec<_>>().join(","));
            let meant: RangeSet = specs.iter().filter_map(|(first, len, suffix)| match (len, suffix) {
                (_, true) => ByteRange::new(length.saturating_sub(*first), length),
                (None, _) => ByteRange::new(*first, length),
                (Some(len), _) => ByteRange::new(*first, (first + len + 1).min(length)),
            }).collect();
            let sent = match of(&[&line], Some(length)) {
                RangeOutcome::Single(range) => vec![range],
                RangeOutcome::Multiple(ranges) => ranges,
                RangeOutcome::Unsatisfiable => {
                    prop_assert_eq!(meant.total(), 0);
                    return Ok(());
                }
                outcome => {
                    prop_assert_eq!(outcome, RangeOutcome::Whole);
                    prop_assert!(specs.len() > 1);
                    return Ok(());
                }
            };
            let covered: RangeSet = sent.iter().copied().collect();
            prop_assert!(sent.iter().all(|range| range.end() <= length));
            prop_assert_eq!(covered.total(), sent.iter().map(ByteRange::len).sum::<u64>(), "disjoint");
            prop_assert!(meant.iter().all(|range| covered.covers(range)));
            prop_assert!(covered.total() <= meant.total() + SMALLEST_GAP * specs.len() as u64);
        }

        #[test]
        fn a_range_has_several_spellings(start in 0u64..1000, length in 1000u64..100_000) {
            let open = of(&[&format!("bytes={start}-")], Some(length));
            prop_assert_eq!(&open, &of(&[&format!("bytes={start}-{}", length - 1)], Some(length)));
            prop_assert_eq!(&open, &of(&[&format!("bytes=-{}", length - start)], Some(length)));
            prop_assert_eq!(open, single(start, length));
        }
    }
}
