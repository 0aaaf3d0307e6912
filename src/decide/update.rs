//! Freshening a stored response with a 304 (RFC 9111 sections 3.2 and 4.3.4).

use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName};

use crate::content::{Record, UnixMillis, Validator};

/// Fields that describe the stored body itself, so a 304 does not change them.
const KEPT: [HeaderName; 8] =
    [CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, CONNECTION, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// Whether a 304 with these fields is about `record` (RFC 9111 section 4.3.4): a validator that it carries must be the
/// stored one.
pub fn not_modified_selects(record: &Record, not_modified: &HeaderMap) -> bool {
    let (stored, new) = (record.validator(), Validator::of(not_modified));
    match (&stored.etag, &new.etag) {
        (Some(stored), Some(new)) => stored.weak_eq(new),
        (None, Some(_)) => false,
        (_, None) => new.last_modified.is_none() || stored.last_modified == new.last_modified,
    }
}

/// `record` with the fields and times of a 304 that is about it.
pub fn merge_304(
    record: &Record,
    not_modified: &HeaderMap,
    request_time: UnixMillis,
    response_time: UnixMillis,
) -> Record {
    let mut merged = record.clone();
    for name in not_modified.keys().filter(|name| !KEPT.contains(name)) {
        merged.headers.remove(name);
        for value in not_modified.get_all(name) {
            merged.headers.append(name.clone(), value.clone());
        }
    }
    // The age of the stored response is over; without the field it begins anew.
    if !not_modified.contains_key(http::header::AGE) {
        merged.headers.remove(http::header::AGE);
    }
    merged.request_time = request_time;
    merged.response_time = response_time;
    merged
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fields, record};
    use super::*;

    #[test]
    fn new_fields_replace_old_ones_but_the_body_s_own_stay() {
        let stored = record(
            5,
            &[("etag", "\"1\""), ("age", "7"), ("content-type", "a/b"), ("x-a", "1"), ("x-a", "2"), ("x-b", "1")],
        );
        let new = fields(&[
            ("x-a", "3"),
            ("content-type", "c/d"),
            ("content-encoding", "gzip"),
            ("cache-control", "max-age=9"),
        ]);
        let merged = merge_304(&stored, &new, UnixMillis(1), UnixMillis(2));
        let values = |name: &str| {
            merged.headers.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(values("x-a"), ["3"]);
        assert_eq!(values("x-b"), ["1"]);
        assert_eq!(values("content-type"), ["a/b"]);
        assert_eq!(values("cache-control"), ["max-age=9"]);
        assert!(values("age").is_empty() && values("content-encoding").is_empty());
        assert_eq!((merged.request_time, merged.response_time), (UnixMillis(1), UnixMillis(2)));
    }

    #[test]
    fn a_304_for_another_version_is_told_apart() {
        let stored = record(5, &[("etag", "\"1\""), ("last-modified", "Mon, 23 Nov 2026 11:00:00 GMT")]);
        for (new, expected) in [
            (&[][..], true),
            (&[("etag", "\"1\"")], true),
            (&[("etag", "W/\"1\"")], true),
            (&[("etag", "\"2\"")], false),
            (&[("last-modified", "Mon, 23 Nov 2026 11:00:00 GMT")], true),
            (&[("last-modified", "Mon, 23 Nov 2026 12:00:00 GMT")], false),
        ] {
            assert_eq!(not_modified_selects(&stored, &fields(new)), expected, "{new:?}");
        }
        assert!(!not_modified_selects(&record(5, &[]), &fields(&[("etag", "\"1\"")])));
    }
}
