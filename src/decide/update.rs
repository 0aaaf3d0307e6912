//! What a 304, or the answer to a HEAD, does to the stored response that it is about (RFC 9111 sections 3.2, 4.3.4, 4.3.5).

use http::header::{
    AGE, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, LAST_MODIFIED,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, StatusCode};

use super::conditional::entity_tag;
use super::date;
use crate::content::{Record, UnixMillis};

/// Fields of a 304 that say nothing about the stored response: those of the message and the connection, and those that
/// describe the bytes we have.
const NOT_UPDATED: [HeaderName; 15] = [
    CONTENT_LENGTH,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    CONTENT_RANGE,
    HeaderName::from_static("content-digest"),
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authentication-info"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Whether a 304 with these fields, the answer to conditions made from `record` alone, means `record`. Only a
/// validator that both have and that differs says no: many origins send a 304 without any, and some say `W/"a"` in
/// one answer and `"a"` in the other.
pub fn not_modified_selects(record: &Record, not_modified: &HeaderMap) -> bool {
    if let (Some(stored), Some(current)) = (entity_tag(&record.headers), entity_tag(not_modified)) {
        return stored.weak_eq(&current);
    }
    let modified = |headers| date::of(headers, &LAST_MODIFIED);
    modified(&record.headers).zip(modified(not_modified)).is_none_or(|(stored, current)| stored == current)
}

/// Whether the answer to a HEAD, 200 with these fields and this `Content-Length`, is about `record`, so that it freshens it as a
/// 304 does (RFC 9111 section 4.3.5). Unlike a 304 it answers no condition, so a validator has to say so.
pub fn head_selects(record: &Record, head: &HeaderMap, length: Option<u64>) -> bool {
    let tags = entity_tag(&record.headers).zip(entity_tag(head));
    let modified = |headers| date::of(headers, &LAST_MODIFIED);
    let same_date = modified(&record.headers).zip(modified(head)).map(|(stored, current)| stored == current);
    let is_same = tags.map(|(stored, current)| stored.strong_eq(&current)).or(same_date).unwrap_or(false);
    let is_as_long = length.is_none_or(|length| record.length == Some(length));
    record.status == StatusCode::OK && is_same && is_as_long
}

/// `record` with the fields of the 304 that validated it. Its age counts anew from `request_time` and
/// `response_time`, when the 304 was asked for and arrived.
pub fn merge_304(
    record: &Record,
    not_modified: &HeaderMap,
    request_time: UnixMillis,
    response_time: UnixMillis,
) -> Record {
    let mut merged = record.clone();
    merged.request_time = request_time;
    merged.response_time = response_time;
    // They tell when the old answer was made, which would count against the new one.
    merged.headers.remove(AGE);
    merged.headers.remove(DATE);
    for name in not_modified.keys() {
        // Equal but for its strength; the stored one came with the bytes.
        let has_tag = *name == ETAG && merged.headers.contains_key(ETAG);
        // Where cookies are not stored, those of a 304 are meant for one client.
        let is_new_cookie = *name == SET_COOKIE && !record.headers.contains_key(SET_COOKIE);
        if has_tag || is_new_cookie || NOT_UPDATED.contains(name) {
            continue;
        }
        merged.headers.remove(name);
        for value in not_modified.get_all(name) {
            merged.headers.append(name.clone(), value.clone());
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::Freshness;
    use crate::decide::sample::{RECEIVED, at, date, fields, policy, record};

    type Fields<'a> = &'a [(&'static str, &'a str)];

    #[test]
    fn only_a_different_validator_means_another_version() {
        let (modified, other) = (&*date(-3600), &*date(-3601));
        for (stored, current, expected) in [
            (&[("etag", "\"a\"")][..], &[("etag", "\"a\"")][..], true),
            (&[("etag", "\"a\"")], &[("etag", "\"b\"")], false),
            (&[("etag", "W/\"a\"")], &[("etag", "\"a\"")], true),
            (&[("etag", "\"a\"")], &[("etag", "W/\"a\"")], true),
            (
                &[("etag", "\"a\""), ("last-modified", modified)],
                &[("etag", "\"b\""), ("last-modified", modified)],
                false,
            ),
            (&[("etag", "\"a\""), ("last-modified", modified)], &[("etag", "\"a\""), ("last-modified", other)], true),
            (&[("last-modified", modified)], &[("last-modified", modified)], true),
            (&[("last-modified", modified)], &[("last-modified", other)], false),
            (&[("last-modified", modified)], &[("etag", "\"a\""), ("last-modified", other)], false),
            (&[("last-modified", modified)], &[("etag", "\"a\"")], true),
            (&[("etag", "\"a\""), ("last-modified", modified)], &[], true),
            (&[], &[], true),
        ] as [(Fields<'_>, Fields<'_>, bool); 12]
        {
            assert_eq!(
                not_modified_selects(&record(200, stored), &fields(current)),
                expected,
                "{stored:?} {current:?}"
            );
        }
    }

    #[test]
    fn a_head_is_about_what_is_stored_only_by_its_validator_and_length() {
        let (modified, other) = (&*date(-3600), &*date(-3601));
        for (stored, head, length, expected) in [
            (&[("etag", "\"a\"")][..], &[("etag", "\"a\"")][..], Some(1000), true),
            (&[("etag", "\"a\"")], &[("etag", "\"a\"")], None, true),
            (&[("etag", "\"a\"")], &[("etag", "\"a\"")], Some(999), false),
            (&[("etag", "\"a\"")], &[("etag", "\"b\"")], Some(1000), false),
            (&[("etag", "\"a\"")], &[("etag", "W/\"a\"")], Some(1000), false),
            (&[("etag", "\"a\"")], &[], Some(1000), false),
            (&[("last-modified", modified)], &[("last-modified", modified)], Some(1000), true),
            (&[("last-modified", modified)], &[("last-modified", other)], Some(1000), false),
            (&[], &[], Some(1000), false),
        ] as [(Fields<'_>, Fields<'_>, Option<u64>, bool); 9]
        {
            assert_eq!(head_selects(&record(200, stored), &fields(head), length), expected, "{stored:?} {head:?}");
        }
        assert!(!head_selects(&record(404, &[("etag", "\"a\"")]), &fields(&[("etag", "\"a\"")]), None));
    }

    #[test]
    fn fields_of_the_304_replace_stored_ones() {
        let stored = record(
            200,
            &[
                ("cache-control", "max-age=1"),
                ("cache-control", "must-revalidate"),
                ("content-type", "text/plain"),
                ("etag", "\"a\""),
                ("x-old", "1"),
                ("x-both", "1"),
            ],
        );
        let not_modified = [
            ("cache-control", "max-age=3600"),
            ("content-length", "10"),
            ("content-type", "text/html"),
            ("content-encoding", "gzip"),
            ("content-range", "bytes 0-1/2"),
            ("connection", "x"),
            ("set-cookie", "a=b"),
            ("etag", "W/\"a\""),
            ("x-both", "2"),
            ("x-both", "3"),
            ("x-new", "4"),
        ];
        let merged = merge_304(&stored, &fields(&not_modified), at(90), at(100));
        let expected = [
            ("cache-control", "max-age=3600"),
            ("content-type", "text/plain"),
            ("etag", "\"a\""),
            ("x-old", "1"),
            ("x-both", "2"),
            ("x-both", "3"),
            ("x-new", "4"),
        ];
        assert_eq!(merged.headers, fields(&expected));
        assert_eq!((merged.request_time, merged.response_time), (at(90), at(100)));
        assert_eq!((merged.length, merged.body), (stored.length, stored.body));
    }

    #[test]
    fn a_304_makes_a_response_young_again() {
        let (old, new) = (&*date(0), &*date(1000));
        let stored = record(200, &[("cache-control", "max-age=60"), ("date", old), ("age", "50")]);
        for not_modified in [&[][..], &[("date", new)], &[("date", new), ("age", "0")]] {
            let merged = merge_304(&stored, &fields(not_modified), at(1000), at(1000));
            let freshness = Freshness::of(&merged, &policy(), "/a", at(1059));
            assert_eq!(freshness.ttl(), 1, "{not_modified:?}");
        }
        let aged = merge_304(&stored, &fields(&[("date", new), ("age", "55")]), at(1000), at(1000));
        assert_eq!(Freshness::of(&aged, &policy(), "/a", at(1000)).ttl(), 5);
        assert_eq!(stored.response_time, RECEIVED);
    }
}
