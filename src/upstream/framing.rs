//! How the body of an answer ends, and what its length and range fields say. Pure, and strict: what two
//! readers could understand differently is refused (RFC 9112 section 6.3, RFC 9110 sections 8.6 and 14.4).

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode};

use crate::content::ByteRange;

use super::answer_fault::AnswerFault;

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// The answer has no body: HEAD, 204, 205, 304.
    Empty,
    /// This many bytes, by `Content-Length`.
    Length(u64),
    /// By the last chunk.
    Chunked,
    /// By the end of the connection: nobody can tell a complete body from a cut one.
    UntilClose,
}

/// A satisfied `Content-Range` in bytes: `bytes first-last/total`, `first <= last < total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// First position.
    pub first: u64,
    /// Last position, inclusive.
    pub last: u64,
    /// Length of the whole, `None` for `*`.
    pub total: Option<u64>,
}

/// What the fields of an answer say of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dimensions {
    pub(super) framing: Framing,
    /// `Content-Length` as said, also where no body follows.
    pub(super) length: Option<u64>,
    /// Of a single-part 206.
    pub(super) content_range: Option<ContentRange>,
    /// The total of a 416 (`bytes */total`).
    pub(super) unsatisfied_total: Option<u64>,
    /// Two readers could see another end of it, so that nothing that follows on its connection is sure to be an answer.
    pub(super) is_last: bool,
}

impl ContentRange {
    /// Parses `bytes 0-499/1234` or `bytes 0-499/*`. The unit is case-insensitive; other units,
    /// backward ranges and ends beyond the total or 2^64 - 2 give `None`.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (range, total) = split_range(value)?;
        let dash = range.iter().position(|&b| b == b'-')?;
        let (first, last) = range.split_at(dash);
        let (first, last) = (number(first)?, number(last.strip_prefix(b"-")?)?);
        let total = if total == b"*" { None } else { Some(number(total)?) };
        let range = Self { first, last, total };
        (range.range().is_some() && total.is_none_or(|total| last < total)).then_some(range)
    }

    /// The same as a half-open range.
    pub fn range(&self) -> Option<ByteRange> {
        ByteRange::new(self.first, self.last.checked_add(1)?)
    }
}

/// Reads the fields of a final answer to `method`.
pub(super) fn dimensions(method: &Method, status: StatusCode, headers: &HeaderMap) -> Result<Dimensions, AnswerFault> {
    if status.as_u16() >= 600 {
        return Err(AnswerFault::Status);
    }
    // 205 must not have a body either (RFC 9110 section 15.3.6), but RFC 9112 has it framed like others.
    let is_empty = matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
    let no_body = is_empty || *method == Method::HEAD || status == StatusCode::NOT_MODIFIED;
    let is_coded = headers.contains_key(TRANSFER_ENCODING);
    let length = content_length(headers);
    let framing = if no_body {
        Framing::Empty
    } else if is_coded {
        only_chunked(headers)?;
        Framing::Chunked
    } else {
        length?.map_or(Framing::UntilClose, Framing::Length)
    };
    let is_last = if is_empty {
        is_coded || !matches!(length, Ok(Some(0))) && (status == StatusCode::RESET_CONTENT || length != Ok(None))
    } else {
        // RFC 9112 section 6.1.
        is_coded && headers.contains_key(CONTENT_LENGTH)
    };
    // Without a body a wrong length harms nobody; it is just not known. A coding overrides any length.
    let length = if is_coded { None } else { length.unwrap_or(None) };
    let content_range = if status == StatusCode::PARTIAL_CONTENT { part(headers, framing)? } else { None };
    let unsatisfied_total =
        if status == StatusCode::RANGE_NOT_SATISFIABLE { only(headers).and_then(unsatisfied) } else { None };
    Ok(Dimensions { framing, length, content_range, unsatisfied_total, is_last })
}

/// The value of all `Content-Length` fields. A list of equal numbers counts as the number (RFC 9110 section
/// 8.6); anything else is a fault.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, AnswerFault> {
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for member in value.as_bytes().split(|&b| b == b',') {
            let member = number(member.trim_ascii()).ok_or(AnswerFault::Length)?;
            if length.is_some_and(|known| known != member) {
                return Err(AnswerFault::Length);
            }
            length = Some(member);
        }
    }
    Ok(length)
}

/// We announce no transfer coding in `TE`, so nothing but one `chunked` may come.
fn only_chunked(headers: &HeaderMap) -> Result<(), AnswerFault> {
    let mut values = headers.get_all(TRANSFER_ENCODING).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(AnswerFault::TransferEncoding),
    }
}

/// `Content-Range` of a 206; a multipart one has none of its own.
fn part(headers: &HeaderMap, framing: Framing) -> Result<Option<ContentRange>, AnswerFault> {
    if !headers.contains_key(CONTENT_RANGE) {
        let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        let multipart = kind.get(..10).is_some_and(|kind| kind.eq_ignore_ascii_case(b"multipart/"));
        return if multipart { Ok(None) } else { Err(AnswerFault::ContentRange) };
    }
    let range = only(headers).and_then(ContentRange::parse).ok_or(AnswerFault::ContentRange)?;
    match framing {
        Framing::Length(length) if Some(length) != range.range().map(|range| range.len()) => {
            Err(AnswerFault::ContentRange)
        }
        _ => Ok(Some(range)),
    }
}

/// The one `Content-Range`, or `None` when there are several.
fn only(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(CONTENT_RANGE).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.as_bytes()),
        _ => None,
    }
}

/// The total of `bytes */1234`.
fn unsatisfied(value: &[u8]) -> Option<u64> {
    let (range, total) = split_range(value)?;
    if range == b"*" { number(total) } else { None }
}

/// `bytes a/b` into `a` and `b`.
fn split_range(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let value = value.trim_ascii();
    let (unit, rest) = value.split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes ") {
        return None;
    }
    let slash = rest.iter().position(|&b| b == b'/')?;
    let (range, total) = rest.split_at(slash);
    Some((range, total.strip_prefix(b"/")?))
}

/// `1*DIGIT` that fits: no sign, no space.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        map
    }

    #[test]
    fn bodies_end_as_rfc_9112_says_or_the_answer_is_refused() {
        let cl = "content-length";
        let te = "transfer-encoding";
        type Row<'a> = (&'a [(&'a str, &'a str)], Result<Framing, AnswerFault>);
        let ok = |framing| Ok(framing);
        let table: &[Row] = &[
            (&[], ok(Framing::UntilClose)),
            (&[(cl, "0")], ok(Framing::Length(0))),
            (&[(cl, "0042")], ok(Framing::Length(42))),
            (&[(cl, "18446744073709551615")], ok(Framing::Length(u64::MAX))),
            (&[(cl, "5, 5")], ok(Framing::Length(5))),
            (&[(cl, "5"), (cl, "5")], ok(Framing::Length(5))),
            (&[(cl, "5"), (cl, "6")], Err(AnswerFault::Length)),
            (&[(cl, "5, 6")], Err(AnswerFault::Length)),
            (&[(cl, "")], Err(AnswerFault::Length)),
            (&[(cl, "5,")], Err(AnswerFault::Length)),
            (&[(cl, "+5")], Err(AnswerFault::Length)),
            (&[(cl, "-5")], Err(AnswerFault::Length)),
            (&[(cl, "0x5")], Err(AnswerFault::Length)),
            (&[(cl, "5 5")], Err(AnswerFault::Length)),
            (&[(cl, "18446744073709551616")], Err(AnswerFault::Length)),
            (&[(te, "chunked")], ok(Framing::Chunked)),
            (&[(te, "Chunked")], ok(Framing::Chunked)),
            (&[(te, "chunked"), (cl, "x")], ok(Framing::Chunked)),
            (&[(te, "gzip, chunked")], Err(AnswerFault::TransferEncoding)),
            (&[(te, "chunked, chunked")], Err(AnswerFault::TransferEncoding)),
            (&[(te, "chunked"), (te, "chunked")], Err(AnswerFault::TransferEncoding)),
            (&[(te, "identity")], Err(AnswerFault::TransferEncoding)),
            (&[(te, ",chunked")], Err(AnswerFault::TransferEncoding)),
            (&[(te, "")], Err(AnswerFault::TransferEncoding)),
        ];
        for (fields, expected) in table {
            let got = dimensions(&Method::GET, StatusCode::OK, &headers(fields)).map(|d| d.framing);
            assert_eq!(got, *expected, "{fields:?}");
        }
    }

    #[test]
    fn head_204_and_304_have_a_length_but_no_body() {
        let fields = headers(&[("content-length", "7")]);
        for (method, status) in [(Method::HEAD, 200), (Method::GET, 304), (Method::GET, 204), (Method::POST, 204)] {
            let got = dimensions(&method, StatusCode::from_u16(status).unwrap(), &fields).unwrap();
            assert_eq!((got.framing, got.length), (Framing::Empty, Some(7)), "{method} {status}");
        }
        let broken = headers(&[("content-length", "7, 8"), ("transfer-encoding", "cow")]);
        let got = dimensions(&Method::HEAD, StatusCode::OK, &broken).unwrap();
        assert_eq!((got.framing, got.length), (Framing::Empty, None));
    }

    #[test]
    fn a_connection_goes_on_only_when_nobody_sees_another_end() {
        let (cl, te) = ("content-length", "transfer-encoding");
        type Row<'a> = (u16, &'a [(&'a str, &'a str)], bool);
        let table: &[Row] = &[
            (200, &[(cl, "5")], false),
            (200, &[(te, "chunked")], false),
            (200, &[(te, "chunked"), (cl, "5")], true),
            (200, &[(cl, "5"), (te, "chunked")], true),
            (204, &[], false),
            (204, &[(cl, "0")], false),
            (204, &[(cl, "5")], true),
            (204, &[(cl, "x")], true),
            (204, &[(te, "chunked")], true),
            (205, &[(cl, "0")], false),
            (205, &[(cl, "5")], true),
            (205, &[(te, "chunked")], true),
            (205, &[], true),
            (304, &[(cl, "5")], false),
        ];
        for (status, fields, is_last) in table {
            let status = StatusCode::from_u16(*status).unwrap();
            let got = dimensions(&Method::GET, status, &headers(fields)).unwrap();
            assert_eq!(got.is_last, *is_last, "{status} {fields:?}");
            assert!(status == StatusCode::OK || got.framing == Framing::Empty, "{status} {fields:?}");
        }
        for status in [600, 999] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(dimensions(&Method::GET, status, &HeaderMap::new()), Err(AnswerFault::Status));
        }
    }

    #[test]
    fn a_206_must_say_which_part_it_is() {
        let range = |value: &str, length: &str| {
            let fields = headers(&[("content-range", value), ("content-length", length)]);
            dimensions(&Method::GET, StatusCode::PARTIAL_CONTENT, &fields).map(|d| d.content_range)
        };
        let some = |first, last, total| Ok(Some(ContentRange { first, last, total }));
        assert_eq!(range("bytes 0-4/10", "5"), some(0, 4, Some(10)));
        assert_eq!(range("Bytes 5-9/10", "5"), some(5, 9, Some(10)));
        assert_eq!(range("bytes 5-9/*", "5"), some(5, 9, None));
        for (value, length) in [
            ("bytes 4-9/10", "5"),
            ("bytes 9-4/10", "5"),
            ("bytes 0-9/5", "10"),
            ("bytes */10", "10"),
            ("bytes 0-4", "5"),
            ("bytes=0-4/10", "5"),
            ("bytes 0--4/10", "5"),
            ("bytes 0-4/10/10", "5"),
            ("bytes 0 -4/10", "5"),
            ("items 0-4/10", "5"),
            ("bytes 0-18446744073709551615/*", "0"),
            ("bytes 0-18446744073709551616/*", "5"),
            ("", "5"),
        ] {
            assert_eq!(range(value, length), Err(AnswerFault::ContentRange), "{value:?}");
        }
        let partial = |fields| dimensions(&Method::GET, StatusCode::PARTIAL_CONTENT, &headers(fields));
        assert_eq!(partial(&[]).unwrap_err(), AnswerFault::ContentRange);
        assert_eq!(
            partial(&[("content-range", "bytes 0-4/5"), ("content-range", "bytes 0-4/5")]).unwrap_err(),
            AnswerFault::ContentRange
        );
        assert_eq!(partial(&[("content-type", "Multipart/byteranges; boundary=x")]).unwrap().content_range, None);
    }

    #[test]
    fn a_range_means_nothing_outside_206_and_416() {
        let fields = headers(&[("content-range", "bytes 0-4/5"), ("content-length", "5")]);
        assert_eq!(dimensions(&Method::GET, StatusCode::OK, &fields).unwrap().content_range, None);
        let total = |value| {
            let fields = headers(&[("content-range", value)]);
            dimensions(&Method::GET, StatusCode::RANGE_NOT_SATISFIABLE, &fields).unwrap().unsatisfied_total
        };
        assert_eq!(total("bytes */1234"), Some(1234));
        for value in ["bytes 0-1/1234", "bytes */*", "*/1234", "bytes */"] {
            assert_eq!(total(value), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_harm(value in prop::collection::vec(any::<u8>(), 0..64), status in 200_u16..600) {
            let _ = ContentRange::parse(&value);
            let _ = unsatisfied(&value);
            let _ = number(&value);
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let status = StatusCode::from_u16(status).unwrap();
                for name in [CONTENT_LENGTH, CONTENT_RANGE, TRANSFER_ENCODING, CONTENT_TYPE] {
                    let fields = HeaderMap::from_iter([(name, value.clone())]);
                    let _ = dimensions(&Method::GET, status, &fields);
                }
            }
        }

        #[test]
        fn near_misses_parse_to_what_they_say(value in "[Bb]ytes [0-9]{0,21}-?[0-9*]{0,21}/?[0-9*]{0,21}") {
            if let Some(range) = ContentRange::parse(value.as_bytes()) {
                prop_assert!(range.first <= range.last);
                prop_assert!(range.total.is_none_or(|total| range.last < total));
            }
        }

        #[test]
        fn what_is_written_is_read(first: u64, last: u64, total: Option<u64>) {
            let written = total.map_or("*".to_owned(), |total| total.to_string());
            let parsed = ContentRange::parse(format!("bytes {first}-{last}/{written}").as_bytes());
            let valid = first <= last && last < u64::MAX && total.is_none_or(|total| last < total);
            prop_assert_eq!(parsed, valid.then_some(ContentRange { first, last, total }));
        }

        #[test]
        fn lengths_are_read_exactly(length: u64, zeros in 0_usize..5) {
            let text = format!("{}{length}", "0".repeat(zeros));
            let fields = headers(&[("content-length", &text)]);
            prop_assert_eq!(content_length(&fields), Ok(Some(length)));
        }
    }
}
