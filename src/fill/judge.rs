//! What an answer is to a body that is partly there. Pure: bytes of two answers are joined only when this says so.

use http::StatusCode;

use crate::content::{ByteRange, Record, Validator};
use crate::upstream::{ContentRange, FetchResponse, Framing};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// A range, with the stored version as the condition.
    Range(ByteRange),
    /// Everything from here on, with the stored version as the condition.
    From(u64),
    /// The whole, without a condition.
    Whole,
}

/// What the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judged {
    /// Bytes of the stored version: these positions.
    Part { at: u64, end: u64 },
    /// The whole from its begin, of the stored version as far as its fields tell: its bytes have to be compared with
    /// those that are there.
    Again,
    /// Another version.
    OtherVersion,
    /// It does not fit what was asked: a fault of the source.
    Misfit,
    /// A failure that may pass.
    Passing,
    /// A failure that will not pass by asking again.
    Final,
}

/// The head of an answer, as far as it matters here.
#[derive(Debug, Clone)]
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) validator: Validator,
    pub(super) range: Option<ContentRange>,
    /// Length of the representation by a 416.
    pub(super) unsatisfied_total: Option<u64>,
    /// Length of the message's content.
    pub(super) length: Option<u64>,
}

impl Answered {
    pub(super) fn of(response: &FetchResponse) -> Self {
        Self {
            status: response.status,
            validator: Validator::of(&response.headers),
            range: response.content_range,
            unsatisfied_total: response.unsatisfied_total,
            length: match response.framing {
                Framing::Length(length) => Some(length),
                Framing::Empty => Some(0),
                Framing::Chunked | Framing::UntilClose => None,
            },
        }
    }
}

/// Judges an answer for the body of `record`, whose length is `length` as far as it is known.
pub(super) fn judge(record: &Record, length: Option<u64>, asked: Asked, answer: &Answered) -> Judged {
    match answer.status {
        StatusCode::PARTIAL_CONTENT => match answer.range {
            Some(range) => part(record, length, asked, answer, range),
            None => Judged::Misfit,
        },
        StatusCode::OK => whole(record, length, answer, answer.length),
        StatusCode::RANGE_NOT_SATISFIABLE => match (answer.unsatisfied_total, length) {
            (Some(total), Some(length)) if total == length => Judged::Misfit,
            (None, _) | (_, None) => Judged::Misfit,
            _ => Judged::OtherVersion,
        },
        StatusCode::PRECONDITION_FAILED => Judged::OtherVersion,
        // No request for bytes makes the condition that this answers (RFC 9110 section 15.4.5).
        StatusCode::NOT_MODIFIED => Judged::Misfit,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Judged::Passing,
        status if status.is_server_error() => Judged::Passing,
        _ => Judged::Final,
    }
}

/// A 206 (RFC 9110 section 15.3.7): its bytes are joined only under the same strong validator (RFC 9111 section 3.4),
/// at the place that was asked for, in a body of the same length.
fn part(record: &Record, length: Option<u64>, asked: Asked, answer: &Answered, range: ContentRange) -> Judged {
    let end = range.last.saturating_add(1);
    let (start, limit) = match asked {
        Asked::Range(range) => (range.start(), range.end()),
        Asked::From(start) => (start, u64::MAX),
        Asked::Whole if range.first == 0 && range.total == Some(end) => {
            return whole(record, length, answer, Some(end));
        }
        Asked::Whole => return Judged::Misfit,
    };
    if !record.validator().same_strong(&answer.validator) {
        return if answer.validator.is_present() { Judged::OtherVersion } else { Judged::Misfit };
    }
    let total_fits = match (range.total, length) {
        (Some(total), Some(length)) => total == length,
        (None, None) => false,
        _ => true,
    };
    let fits = range.first == start && end <= limit && length.is_none_or(|length| end <= length);
    if total_fits && fits { Judged::Part { at: start, end } } else { Judged::Misfit }
}

fn whole(record: &Record, length: Option<u64>, answer: &Answered, answered: Option<u64>) -> Judged {
    let (stored, new) = (record.validator(), &answer.validator);
    let other_tag = stored.etag.as_ref().zip(new.etag.as_ref()).is_some_and(|(a, b)| !a.weak_eq(b));
    let other_date = stored.last_modified.zip(new.last_modified).is_some_and(|(a, b)| a != b);
    let other_length = length.zip(answered).is_some_and(|(a, b)| a != b);
    // What had a tag and has none now may be anything.
    let lost_tag = stored.etag.is_some() && new.etag.is_none();
    if other_tag || other_date || other_length || lost_tag { Judged::OtherVersion } else { Judged::Again }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::{ETAG, HeaderValue};
    use proptest::prelude::*;

    use super::*;
    use crate::content::{BodyRef, CacheKey, PartialId, UnixMillis};

    fn record(tag: Option<&str>) -> Record {
        let headers = tag.map(|tag| (ETAG, HeaderValue::from_str(tag).unwrap()));
        Record {
            key: CacheKey::new("a/b"),
            status: StatusCode::OK,
            headers: HeaderMap::from_iter(headers),
            request_time: UnixMillis(0),
            response_time: UnixMillis(0),
            vary: Vec::new(),
            length: Some(1000),
            expected: None,
            token_protected: false,
            body: BodyRef::Partial(PartialId(1)),
        }
    }

    fn answered(status: u16, tag: Option<&str>, range: Option<&str>, length: u64) -> Answered {
        let range = range.map(|text| ContentRange::parse(text.as_bytes()).unwrap());
        Answered {
            status: StatusCode::from_u16(status).unwrap(),
            validator: record(tag).validator(),
            range,
            unsatisfied_total: None,
            length: Some(length),
        }
    }

    const ASKED: Asked = Asked::Range(match ByteRange::new(100, 200) {
        Some(range) => range,
        None => panic!("not empty"),
    });

    #[test]
    fn a_part_is_joined_only_in_its_place_and_version() {
        let (a, b, weak) = (Some("\"a\""), Some("\"b\""), Some("W/\"a\""));
        let part = |tag, range| judge(&record(a), Some(1000), ASKED, &answered(206, tag, Some(range), 100));
        assert_eq!(part(a, "bytes 100-199/1000"), Judged::Part { at: 100, end: 200 });
        assert_eq!(part(a, "bytes 100-149/1000"), Judged::Part { at: 100, end: 150 }, "less than asked is welcome");
        assert_eq!(part(a, "bytes 100-199/*"), Judged::Part { at: 100, end: 200 });
        for other in ["bytes 101-199/1000", "bytes 0-199/1000", "bytes 100-200/1000", "bytes 100-199/1001"] {
            assert_eq!(part(a, other), Judged::Misfit, "{other}");
        }
        assert_eq!(part(b, "bytes 100-199/1000"), Judged::OtherVersion);
        assert_eq!(part(weak, "bytes 100-199/1000"), Judged::OtherVersion);
        assert_eq!(part(None, "bytes 100-199/1000"), Judged::Misfit);
        let of_weak = judge(&record(weak), Some(1000), ASKED, &answered(206, weak, Some("bytes 100-199/1000"), 100));
        assert_eq!(of_weak, Judged::OtherVersion, "a weak validator joins nothing");
    }

    #[test]
    fn a_whole_is_compared_unless_its_fields_say_that_it_is_another() {
        let whole = |stored, tag, length| judge(&record(stored), Some(1000), ASKED, &answered(200, tag, None, length));
        let (a, b, weak) = (Some("\"a\""), Some("\"b\""), Some("W/\"a\""));
        assert_eq!(whole(a, a, 1000), Judged::Again);
        assert_eq!(whole(None, None, 1000), Judged::Again);
        assert_eq!(whole(None, a, 1000), Judged::Again, "the bytes will tell");
        assert_eq!(whole(weak, weak, 1000), Judged::Again);
        assert_eq!(whole(a, b, 1000), Judged::OtherVersion);
        assert_eq!(whole(a, None, 1000), Judged::OtherVersion);
        assert_eq!(whole(a, a, 999), Judged::OtherVersion);
        assert_eq!(whole(None, None, 999), Judged::OtherVersion);
        let unasked = answered(206, a, Some("bytes 0-999/1000"), 1000);
        assert_eq!(judge(&record(a), Some(1000), Asked::Whole, &unasked), Judged::Again);
        let unasked = answered(206, a, Some("bytes 0-998/1000"), 999);
        assert_eq!(judge(&record(a), Some(1000), Asked::Whole, &unasked), Judged::Misfit);
    }

    #[test]
    fn failures_are_told_apart() {
        let of = |status| judge(&record(Some("\"a\"")), Some(1000), ASKED, &answered(status, None, None, 0));
        for (status, judged) in [
            (500, Judged::Passing),
            (503, Judged::Passing),
            (429, Judged::Passing),
            (408, Judged::Passing),
            (404, Judged::Final),
            (403, Judged::Final),
            (412, Judged::OtherVersion),
            (304, Judged::Misfit),
            (416, Judged::Misfit),
        ] {
            assert_eq!(of(status), judged, "{status}");
        }
        let total = |total| {
            let answer = Answered { unsatisfied_total: Some(total), ..answered(416, None, None, 0) };
            judge(&record(None), Some(1000), ASKED, &answer)
        };
        assert_eq!((total(1000), total(50)), (Judged::Misfit, Judged::OtherVersion));
    }

    proptest! {
        #[test]
        fn no_part_is_joined_outside_what_was_asked(
            start in 0u64..1000, len in 1u64..500, first in 0u64..1500, size in 1u64..600, total in prop::option::of(500u64..1500),
        ) {
            let (last, range) = (first + size - 1, ByteRange::new(start, start + len).unwrap());
            prop_assume!(total.is_none_or(|total| last < total));
            let answer = Answered {
                range: Some(ContentRange { first, last, total }),
                ..answered(206, Some("\"a\""), None, size)
            };
            if let Judged::Part { at, end } = judge(&record(Some("\"a\"")), Some(1000), Asked::Range(range), &answer) {
                prop_assert_eq!((at, first), (start, start));
                prop_assert!(end == last + 1 && end <= range.end() && end <= 1000);
                prop_assert!(total.is_none_or(|total| total == 1000));
            }
        }
    }
}
