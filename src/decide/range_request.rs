//! `Range` (RFC 9110 section 14): from what the client wrote to ranges of a known length.

use http::header::RANGE;
use http::{HeaderMap, HeaderValue};

use super::conditional::if_range_holds;
use crate::content::{ByteRange, Record};

/// Ranges that overlap or whose gap is smaller than this are sent as one: a part's own head is longer.
const SMALL_GAP: u64 = 80;

/// Most ranges that are looked at in one field; beyond, the whole is sent.
const MOST_SPECS: usize = 1000;

/// What a `Range` means for a representation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RangeOutcome {
    /// The whole is sent: no range was asked, or none that counts.
    Whole,
    /// One range, as a plain 206.
    Single(ByteRange),
    /// Several, as `multipart/byteranges`.
    Multiple(Vec<ByteRange>),
    /// 416.
    Unsatisfiable,
    /// A range was asked, but the length is not known yet.
    NeedsLength,
}

/// One range as written: positions are inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spec {
    /// `a-b` or `a-`.
    From(u64, Option<u64>),
    /// `-n`: the last n bytes.
    Suffix(u64),
}

/// What the `Range` and `If-Range` of a request mean for `record`, whose representation has `length` bytes. At most
/// `limit` parts are sent; a request for more, or for more bytes than there are, gets the whole (RFC 9110 section
/// 17.15).
///
/// The Delivery Optimization agent never clears its field list: each resume adds a `Range` line, and the last one is
/// meant. So of several lines with one range each the last counts.
pub fn ranges(request: &HeaderMap, record: &Record, length: Option<u64>, limit: usize) -> RangeOutcome {
    let Some(specs) = specs(request) else { return RangeOutcome::Whole };
    if !if_range_holds(request, record) {
        return RangeOutcome::Whole;
    }
    let Some(length) = length else { return RangeOutcome::NeedsLength };
    let found: Vec<ByteRange> = specs.iter().filter_map(|spec| spec.within(length)).collect();
    if found.is_empty() {
        return RangeOutcome::Unsatisfiable;
    }
    let asked = found.iter().fold(0u64, |sum, range| sum.saturating_add(range.len()));
    let parts = merged(found);
    match parts.as_slice() {
        [one] => RangeOutcome::Single(*one),
        _ if parts.len() > limit || asked > length => RangeOutcome::Whole,
        _ => RangeOutcome::Multiple(parts),
    }
}

/// The ranges of the request; `None` when the field is absent, malformed or of another unit, and so ignored (RFC 9110
/// section 14.2).
fn specs(request: &HeaderMap) -> Option<Vec<Spec>> {
    let mut lines = request.get_all(RANGE).iter();
    let mut last = parse(lines.next()?)?;
    for line in lines {
        let next = parse(line)?;
        if last.len() != 1 || next.len() != 1 {
            return None;
        }
        last = next;
    }
    Some(last)
}

fn parse(line: &HeaderValue) -> Option<Vec<Spec>> {
    let text = line.to_str().ok()?.trim();
    let (unit, set) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut specs = Vec::new();
    for spec in set.split(',').map(|spec| spec.trim_matches([' ', '\t'])).filter(|spec| !spec.is_empty()) {
        if specs.len() == MOST_SPECS {
            return None;
        }
        specs.push(spec_of(spec)?);
    }
    (!specs.is_empty()).then_some(specs)
}

fn spec_of(text: &str) -> Option<Spec> {
    let (first, last) = text.split_once('-')?;
    match (first, last) {
        ("", suffix) => position(suffix).map(Spec::Suffix),
        (first, "") => Some(Spec::From(position(first)?, None)),
        (first, last) => {
            let (first, last) = (position(first)?, position(last)?);
            (first <= last).then_some(Spec::From(first, Some(last)))
        }
    }
}

/// A position; what is larger than any file counts as the largest number.
fn position(digits: &str) -> Option<u64> {
    let valid = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    valid.then(|| digits.parse().unwrap_or(u64::MAX))
}

impl Spec {
    fn within(self, length: u64) -> Option<ByteRange> {
        match self {
            Self::From(first, last) => {
                let end = last.map_or(length, |last| last.saturating_add(1).min(length));
                ByteRange::new(first, end)
            }
            Self::Suffix(count) => ByteRange::new(length.saturating_sub(count), length),
        }
    }
}

/// Joins ranges that overlap or nearly touch, wherever they stand in the list; the order of the rest is the client's
/// (RFC 9110 section 15.3.7.2).
fn merged(ranges: Vec<ByteRange>) -> Vec<ByteRange> {
    let mut parts: Vec<ByteRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        let mut range = range;
        let mut place = parts.len();
        let mut index = 0;
        while let Some(part) = parts.get(index).copied() {
            let near = range.start() <= part.end().saturating_add(SMALL_GAP)
                && part.start() <= range.end().saturating_add(SMALL_GAP);
            if near {
                range = ByteRange::new(part.start().min(range.start()), part.end().max(range.end())).unwrap_or(part);
                parts.remove(index);
                place = place.min(index);
                // What it grew by may touch parts that were passed already.
                index = 0;
            } else {
                index += 1;
            }
        }
        parts.insert(place.min(parts.len()), range);
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{fields, record};
    use super::*;

    fn outcome(lines: &[&str], length: u64) -> RangeOutcome {
        let lines: Vec<_> = lines.iter().map(|line| ("range", *line)).collect();
        ranges(&fields(&lines), &record(0, &[]), Some(length), 16)
    }

    fn single(start: u64, end: u64) -> RangeOutcome {
        RangeOutcome::Single(ByteRange::new(start, end).unwrap())
    }

    #[test]
    fn one_range_in_all_spellings() {
        for (line, expected) in [
            ("bytes=0-0", single(0, 1)),
            ("bytes=0-99", single(0, 100)),
            ("bytes=0-1000", single(0, 100)),
            ("bytes=50-", single(50, 100)),
            ("bytes=-10", single(90, 100)),
            ("bytes=-1000", single(0, 100)),
            ("BYTES=0-0", single(0, 1)),
            ("bytes= 0-0 , ", single(0, 1)),
            ("bytes=99-99999999999999999999999", single(99, 100)),
            ("bytes=100-", RangeOutcome::Unsatisfiable),
            ("bytes=100-200", RangeOutcome::Unsatisfiable),
            ("bytes=-0", RangeOutcome::Unsatisfiable),
            ("bytes=99999999999999999999999-", RangeOutcome::Unsatisfiable),
            ("bytes=5-4", RangeOutcome::Whole),
            ("bytes=", RangeOutcome::Whole),
            ("bytes=a-b", RangeOutcome::Whole),
            ("bytes=+1-2", RangeOutcome::Whole),
            ("bytes=1-2-3", RangeOutcome::Whole),
            ("bytes 0-1", RangeOutcome::Whole),
            ("lines=0-1", RangeOutcome::Whole),
            ("bytes=0-1, x", RangeOutcome::Whole),
        ] {
            assert_eq!(outcome(&[line], 100), expected, "{line}");
        }
        for line in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
            assert_eq!(outcome(&[line], 0), RangeOutcome::Unsatisfiable, "{line} of nothing");
        }
    }

    #[test]
    fn of_several_lines_the_last_is_meant() {
        assert_eq!(outcome(&["bytes=10-99", "bytes=40-99", "bytes=70-99"], 100), single(70, 100));
        assert_eq!(outcome(&["bytes=10-99", "bytes=0-1,5-6"], 100), RangeOutcome::Whole);
        assert_eq!(outcome(&["bytes=10-99", "nonsense"], 100), RangeOutcome::Whole);
    }

    #[test]
    fn several_ranges_are_merged_and_bounded() {
        let range = |a, b| ByteRange::new(a, b).unwrap();
        assert_eq!(
            outcome(&["bytes=500-599, 0-99"], 1000),
            RangeOutcome::Multiple(vec![range(500, 600), range(0, 100)]),
            "the client's order stays"
        );
        assert_eq!(outcome(&["bytes=0-99, 100-199"], 1000), single(0, 200));
        assert_eq!(outcome(&["bytes=0-99, 150-199"], 1000), single(0, 200), "a small gap is sent along");
        assert_eq!(outcome(&["bytes=0-9, 5000-, 2000-2001"], 1000), single(0, 10), "only what exists counts");
        assert_eq!(outcome(&["bytes=0-9,200-209,100-189"], 1000), single(0, 210));
        let many: Vec<String> = (0..17).map(|i| format!("{}-{}", i * 100, i * 100)).collect();
        assert_eq!(outcome(&[&format!("bytes={}", many.join(","))], 10_000), RangeOutcome::Whole);
        let overlapping = format!("bytes={}", vec!["0-999,2000-2999"; 200].join(","));
        assert_eq!(outcome(&[&overlapping], 3000), RangeOutcome::Whole);
        let endless = format!("bytes={}", vec!["0-0"; 5000].join(","));
        assert_eq!(outcome(&[&endless], 3000), RangeOutcome::Whole);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_fault(bytes in prop::collection::vec(any::<u8>(), 0..100), length: u64) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let request = HeaderMap::from_iter([(RANGE, value)]);
                let _ = ranges(&request, &record(0, &[]), Some(length), 16);
            }
        }

        #[test]
        fn parts_are_within_the_length_and_cover_what_was_asked(
            asked in prop::collection::vec((0u64..5000, 0u64..5000), 1..8),
            length in 0u64..5000,
        ) {
            let specs: Vec<_> = asked.iter().map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))).collect();
            let parts = match outcome(&[&format!("bytes={}", specs.join(","))], length) {
                RangeOutcome::Single(one) => vec![one],
                RangeOutcome::Multiple(parts) => parts,
                RangeOutcome::Unsatisfiable => {
                    prop_assert!(asked.iter().all(|(a, b)| *a.min(b) >= length));
                    vec![]
                }
                RangeOutcome::Whole => Vec::from_iter(ByteRange::whole(length)),
                RangeOutcome::NeedsLength => unreachable!(),
            };
            for (i, part) in parts.iter().enumerate() {
                prop_assert!(part.end() <= length);
                prop_assert!(parts[..i].iter().all(|other| other.intersect(*part).is_none()));
            }
            for (a, b) in asked {
                if let Some(range) = ByteRange::new(a.min(b), (a.max(b) + 1).min(length)) {
                    prop_assert!(parts.iter().any(|part| part.covers(range)));
                }
            }
        }

        #[test]
        fn suffix_and_open_ranges_mean_the_same(length in 1u64..1_000_000, count in 1u64..1_000_000) {
            let count = count.min(length);
            prop_assert_eq!(
                outcome(&[&format!("bytes=-{count}")], length),
                outcome(&[&format!("bytes={}-", length - count)], length)
            );
        }
    }
}
