//! A client's preconditions against a stored response (RFC 9110 section 13, RFC 9111 section 4.3.2), and `If-Range`.
//! Conditions that this cache sends upstream are in `decision`.

use std::time::Duration;

use http::header::{ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, Method, StatusCode};

use super::freshness::sent_at;
use super::{date, list};
use crate::content::{EntityTag, Record};

/// A modification date names one version only if the response is at least this much younger (RFC 9110 section
/// 8.8.2.2).
const STRONG_AFTER: Duration = Duration::from_secs(60);

/// What a client's preconditions come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing forbids the answer.
    Proceed,
    /// 304: the client has it.
    NotModified,
    /// 412: it is not the version that the client wants.
    Failed,
}

/// Evaluates the preconditions of a request in the order of RFC 9110 section 13.2.2, all but `If-Range`. Only a
/// stored 200 has any (RFC 9110 section 13.2.1).
pub fn preconditions(method: &Method, request: &HeaderMap, record: &Record) -> Precondition {
    const CONDITIONS: [HeaderName; 4] = [IF_MATCH, IF_UNMODIFIED_SINCE, IF_NONE_MATCH, IF_MODIFIED_SINCE];
    if record.status != StatusCode::OK || !CONDITIONS.iter().any(|name| request.contains_key(name)) {
        return Precondition::Proceed;
    }
    let stored = entity_tag(&record.headers);
    let modified = date::of(&record.headers, &LAST_MODIFIED);
    let is_read = method == Method::GET || method == Method::HEAD;
    if request.contains_key(IF_MATCH) {
        if !lists(request, &IF_MATCH, |tag| stored.as_ref().is_some_and(|stored| stored.strong_eq(tag))) {
            return Precondition::Failed;
        }
    } else if modified.zip(date::of(request, &IF_UNMODIFIED_SINCE)).is_some_and(|(modified, since)| modified > since) {
        return Precondition::Failed;
    }
    if request.contains_key(IF_NONE_MATCH) {
        if lists(request, &IF_NONE_MATCH, |tag| stored.as_ref().is_some_and(|stored| stored.weak_eq(tag))) {
            return if is_read { Precondition::NotModified } else { Precondition::Failed };
        }
    } else if let Some(since) = date::of(request, &IF_MODIFIED_SINCE).filter(|_| is_read) {
        // Without a modification date that of the response stands in (RFC 9111 section 4.3.2).
        if modified.unwrap_or_else(|| sent_at(record)) <= since {
            return Precondition::NotModified;
        }
    }
    Precondition::Proceed
}

/// Whether ranges may be answered (RFC 9110 section 13.1.5): without `If-Range` always, with it only when it names
/// the stored version by a strong entity tag or a strong date.
pub(super) fn if_range_holds(request: &HeaderMap, record: &Record) -> bool {
    if !request.contains_key(IF_RANGE) {
        return true;
    }
    let Some(condition) = list::single(request, &IF_RANGE) else { return false };
    if let Some(tag) = std::str::from_utf8(condition).ok().and_then(EntityTag::parse) {
        return entity_tag(&record.headers).is_some_and(|stored| stored.strong_eq(&tag));
    }
    let (Some(modified), Some(wanted)) = (date::of(&record.headers, &LAST_MODIFIED), date::parse(condition)) else {
        return false;
    };
    modified == wanted && sent_at(record).since(modified) >= STRONG_AFTER
}

/// The well-formed entity tag of a response.
pub(super) fn entity_tag(response: &HeaderMap) -> Option<EntityTag> {
    std::str::from_utf8(list::single(response, &ETAG)?).ok().and_then(EntityTag::parse)
}

/// Whether the entity tags of `name` are `*` or have one that `equals` (RFC 9110 sections 13.1.1 and 13.1.2).
/// Members that are no entity tags are skipped.
fn lists(request: &HeaderMap, name: &HeaderName, equals: impl Fn(&EntityTag) -> bool) -> bool {
    if list::single(request, name) == Some(b"*") {
        return true;
    }
    let lines = request.get_all(name).iter().filter_map(|line| std::str::from_utf8(line.as_bytes()).ok());
    lines.flat_map(entity_tags).any(|tag| equals(&tag))
}

/// The entity tags of one line. Unlike quoted strings they know no escapes, so a backslash is a character of theirs.
fn entity_tags(line: &str) -> Vec<EntityTag> {
    let mut tags = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return tags;
        }
        let quoted = rest.strip_prefix("W/").unwrap_or(rest);
        let open = rest.len() - quoted.len();
        let close = quoted.strip_prefix('"').and_then(|inner| inner.find('"')).map(|at| open + at + 2);
        let end = close.or_else(|| rest.find(',')).unwrap_or(rest.len());
        let (member, after) = rest.split_at(end);
        tags.extend(EntityTag::parse(member));
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::decide::sample::{date, fields, record};

    type Fields<'a> = &'a [(&'static str, &'a str)];

    fn judge(request: Fields<'_>, stored: Fields<'_>) -> Precondition {
        preconditions(&Method::GET, &fields(request), &record(200, stored))
    }

    #[test]
    fn if_none_match_compares_weakly() {
        use Precondition::{NotModified, Proceed};
        for (condition, etag, expected) in [
            ("\"abcdef\"", "\"abcdef\"", NotModified),
            ("W/\"abcdef\"", "W/\"abcdef\"", NotModified),
            ("W/\"abcdef\"", "\"abcdef\"", NotModified),
            ("\"abcdef\", \"1234\", \"5678\"", "\"abcdef\"", NotModified),
            ("\"1234\", \"abcdef\", \"5678\"", "\"abcdef\"", NotModified),
            ("\"1234\",\"5678\" ,W/\"abcdef\"", "\"abcdef\"", NotModified),
            ("\"a,b\", x, \"c\\\"", "\"c\\\"", NotModified),
            ("x\"y, \"abcdef\"", "\"abcdef\"", NotModified),
            ("*", "\"abcdef\"", NotModified),
            ("\"1234\"", "\"abcdef\"", Proceed),
            ("abcdef", "\"abcdef\"", Proceed),
            ("\"abcdef\"", "abcdef", Proceed),
            ("\"a,b\"", "\"b\"", Proceed),
            ("\"abcdef", "\"abcdef\"", Proceed),
            ("", "\"abcdef\"", Proceed),
        ] {
            assert_eq!(judge(&[("if-none-match", condition)], &[("etag", etag)]), expected, "{condition} {etag}");
        }
        let lines = [("if-none-match", "\"1234\""), ("if-none-match", "\"abcdef\"")];
        assert_eq!(judge(&lines, &[("etag", "\"abcdef\"")]), NotModified);
        assert_eq!(judge(&[("if-none-match", "*")], &[]), NotModified);
    }

    #[test]
    fn if_modified_since_compares_dates() {
        use Precondition::{NotModified, Proceed};
        let (modified, later, earlier) = (&*date(-3000), &*date(-2000), &*date(-5000));
        for (since, stored, expected) in [
            (modified, &[("last-modified", modified)][..], NotModified),
            (later, &[("last-modified", modified)], NotModified),
            (earlier, &[("last-modified", modified)], Proceed),
            ("yesterday", &[("last-modified", modified)], Proceed),
            (modified, &[("date", later)], Proceed),
            (later, &[("date", modified)], NotModified),
            (later, &[], Proceed),
            (&*date(1), &[], NotModified),
        ] {
            assert_eq!(judge(&[("if-modified-since", since)], stored), expected, "{since} {stored:?}");
        }
        let twice = [("if-modified-since", modified), ("if-modified-since", modified)];
        assert_eq!(judge(&twice, &[("last-modified", modified)]), Proceed);
        let obsolete = "Sunday, 06-Nov-94 08:49:37 GMT";
        let stored = [("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")];
        assert_eq!(judge(&[("if-modified-since", obsolete)], &stored), NotModified);
    }

    #[test]
    fn the_order_is_that_of_rfc_9110_section_13_2_2() {
        use Precondition::{Failed, NotModified, Proceed};
        let (modified, later, earlier) = (&*date(-5000), &*date(-10), &*date(-10_000));
        let stored = [("etag", "\"a\""), ("last-modified", modified)];
        for (request, expected) in [
            (&[("if-none-match", "\"a\""), ("if-modified-since", earlier)][..], NotModified),
            (&[("if-none-match", "\"b\""), ("if-modified-since", later)], Proceed),
            (&[("if-none-match", "nonsense"), ("if-modified-since", later)], Proceed),
            (&[("if-match", "\"a\"")], Proceed),
            (&[("if-match", "*")], Proceed),
            (&[("if-match", "\"b\", \"a\"")], Proceed),
            (&[("if-match", "W/\"a\"")], Failed),
            (&[("if-match", "\"b\"")], Failed),
            (&[("if-match", "")], Failed),
            (&[("if-match", "\"a\""), ("if-unmodified-since", earlier)], Proceed),
            (&[("if-match", "\"a\""), ("if-none-match", "\"a\"")], NotModified),
            (&[("if-match", "\"b\""), ("if-none-match", "\"a\"")], Failed),
            (&[("if-unmodified-since", earlier)], Failed),
            (&[("if-unmodified-since", modified)], Proceed),
            (&[("if-unmodified-since", "x")], Proceed),
            (&[("if-unmodified-since", later), ("if-modified-since", later)], NotModified),
        ] {
            assert_eq!(judge(request, &stored), expected, "{request:?}");
        }
        assert_eq!(judge(&[("if-match", "\"a\"")], &[]), Failed);
        assert_eq!(judge(&[("if-unmodified-since", earlier)], &[]), Proceed);
    }

    #[test]
    fn only_a_200_is_judged_and_only_reading_is_not_modified() {
        let request = fields(&[("if-none-match", "\"a\"")]);
        let stored = [("etag", "\"a\"")];
        for status in [203, 204, 301, 404, 503] {
            let judged = preconditions(&Method::GET, &request, &record(status, &stored));
            assert_eq!(judged, Precondition::Proceed, "{status}");
        }
        assert_eq!(preconditions(&Method::HEAD, &request, &record(200, &stored)), Precondition::NotModified);
        assert_eq!(preconditions(&Method::PUT, &request, &record(200, &stored)), Precondition::Failed);
    }

    #[test]
    fn if_range_wants_a_strong_validator() {
        let (modified, recent) = (&*date(-60), &*date(-59));
        for (condition, stored, expected) in [
            (&["\"a\""][..], &[("etag", "\"a\"")][..], true),
            (&["\"b\""], &[("etag", "\"a\"")], false),
            (&["W/\"a\""], &[("etag", "W/\"a\"")], false),
            (&["\"a\""], &[("etag", "W/\"a\"")], false),
            (&["\"a\", \"b\""], &[("etag", "\"a\"")], false),
            (&["\"a\"", "\"a\""], &[("etag", "\"a\"")], false),
            (&["*"], &[("etag", "\"a\"")], false),
            (&["\"a\""], &[], false),
            (&[modified], &[("last-modified", modified)], true),
            (&[modified], &[("last-modified", modified), ("etag", "\"a\"")], true),
            (&[modified], &[("last-modified", modified), ("date", modified)], false),
            (&[recent], &[("last-modified", recent)], false),
            (&[recent], &[("last-modified", modified)], false),
            (&[modified], &[("last-modified", recent)], false),
            (&[modified], &[], false),
            (&["x"], &[("last-modified", modified)], false),
            (&[], &[], true),
        ] {
            let request: Vec<_> = condition.iter().map(|value| ("if-range", *value)).collect();
            assert_eq!(if_range_holds(&fields(&request), &record(200, stored)), expected, "{condition:?} {stored:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(condition in prop::collection::vec(any::<u8>(), 0..60), tags in "[W/\", a*\\\\]{0,40}") {
            for value in [HeaderValue::from_bytes(&condition), HeaderValue::from_str(&tags)].into_iter().flatten() {
                let mut request = HeaderMap::new();
                for name in [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE] {
                    request.insert(name, value.clone());
                }
                let stored = record(200, &[("etag", "\"a\""), ("last-modified", &date(-100))]);
                preconditions(&Method::GET, &request, &stored);
                if_range_holds(&request, &stored);
            }
        }

        #[test]
        fn a_listed_tag_is_found(before in prop::collection::vec("(W/)?\"[a-z,]{0,5}\"", 0..4), after in prop::collection::vec("(W/)?\"[a-z,]{0,5}\"", 0..4)) {
            let condition = [before, vec!["\"IT\"".to_owned()], after].concat().join(", ");
            prop_assert_eq!(judge(&[("if-none-match", &condition)], &[("etag", "\"IT\"")]), Precondition::NotModified);
        }
    }
}
