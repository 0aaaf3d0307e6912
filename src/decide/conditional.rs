//! Preconditions of a client (RFC 9110 section 13), judged against a stored response.

use http::header::{ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, Method, StatusCode};

use super::dates::{date_field, parse_date};
use crate::content::{EntityTag, Record, UnixMillis, Validator};

/// What the preconditions of a request come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// The request is answered as usual.
    Proceed,
    /// 304: the client has it.
    NotModified,
    /// 412.
    Failed,
}

/// Judges in the order of RFC 9110 section 13.2.2.
pub fn preconditions(method: &Method, request: &HeaderMap, record: &Record) -> Precondition {
    if record.status != StatusCode::OK || (*method != Method::GET && *method != Method::HEAD) {
        return Precondition::Proceed;
    }
    let etag = record.headers.get(ETAG).and_then(|value| value.to_str().ok()).and_then(EntityTag::parse);
    let modified = date_field(&record.headers, &LAST_MODIFIED);
    if request.contains_key(IF_MATCH) {
        if !lists(request, &IF_MATCH, etag.as_ref(), EntityTag::strong_eq) {
            return Precondition::Failed;
        }
    } else if let Some(since) = date_field(request, &IF_UNMODIFIED_SINCE)
        && modified.is_some_and(|modified| modified > since)
    {
        return Precondition::Failed;
    }
    if request.contains_key(IF_NONE_MATCH) {
        if lists(request, &IF_NONE_MATCH, etag.as_ref(), EntityTag::weak_eq) {
            return Precondition::NotModified;
        }
    } else if let Some(since) = date_field(request, &IF_MODIFIED_SINCE)
        && modified.is_some_and(|modified| modified <= since)
    {
        return Precondition::NotModified;
    }
    Precondition::Proceed
}

/// Whether `If-Range` lets the `Range` of the request count (RFC 9110 section 13.1.5): it is absent, or names the
/// stored version by a strong entity tag or by exactly its strong date.
pub(super) fn if_range_holds(request: &HeaderMap, record: &Record) -> bool {
    let mut values = request.get_all(IF_RANGE).iter();
    let Some(value) = values.next() else { return true };
    let Ok(text) = value.to_str() else { return false };
    if values.next().is_some() {
        return false;
    }
    let stored = Validator::of(&record.headers);
    if let Some(tag) = EntityTag::parse(text) {
        return stored.etag.is_some_and(|etag| etag.strong_eq(&tag));
    }
    let same_date = parse_date(text).is_some_and(|date| stored.last_modified.map(UnixMillis::from) == Some(date));
    same_date && stored.date_is_strong
}

/// Whether the list in the field has `*` or a tag that equals `etag`.
fn lists(
    request: &HeaderMap,
    name: &HeaderName,
    etag: Option<&EntityTag>,
    equal: impl Fn(&EntityTag, &EntityTag) -> bool,
) -> bool {
    request
        .get_all(name)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .any(|line| line.trim() == "*" || etag.is_some_and(|etag| tags(line).any(|tag| equal(&tag, etag))))
}

/// The entity tags of a list. A comma inside the quotes belongs to the tag.
fn tags(line: &str) -> impl Iterator<Item = EntityTag> + '_ {
    let mut rest = line;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            let open = rest.find('"')?;
            let close = rest.get(open + 1..)?.find('"')? + open + 2;
            let (text, after) = rest.split_at(close);
            rest = after;
            if let Some(tag) = EntityTag::parse(text) {
                return Some(tag);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{fields, record};
    use super::*;

    const OLD: &str = "Mon, 23 Nov 2026 10:00:00 GMT";
    const MODIFIED: &str = "Mon, 23 Nov 2026 11:00:00 GMT";
    const NEW: &str = "Mon, 23 Nov 2026 12:00:00 GMT";

    fn stored() -> Record {
        record(1_795_435_200, &[("etag", "\"v,1\""), ("last-modified", MODIFIED), ("date", NEW)])
    }

    #[test]
    fn the_order_of_the_rfc() {
        use Precondition::*;
        for (request, expected) in [
            (&[][..], Proceed),
            (&[("if-none-match", "\"v,1\"")], NotModified),
            (&[("if-none-match", "W/\"v,1\"")], NotModified),
            (&[("if-none-match", "\"a\", \"v,1\"")], NotModified),
            (&[("if-none-match", "\"a\""), ("if-none-match", "\"v,1\"")], NotModified),
            (&[("if-none-match", "*")], NotModified),
            (&[("if-none-match", "\"v\", 1\"")], Proceed),
            (&[("if-none-match", "\"a\""), ("if-modified-since", NEW)], Proceed),
            (&[("if-modified-since", MODIFIED)], NotModified),
            (&[("if-modified-since", NEW)], NotModified),
            (&[("if-modified-since", OLD)], Proceed),
            (&[("if-modified-since", "yesterday")], Proceed),
            (&[("if-match", "\"v,1\"")], Proceed),
            (&[("if-match", "*")], Proceed),
            (&[("if-match", "W/\"v,1\"")], Failed),
            (&[("if-match", "\"a\"")], Failed),
            (&[("if-unmodified-since", OLD)], Failed),
            (&[("if-unmodified-since", MODIFIED)], Proceed),
            (&[("if-match", "\"v,1\""), ("if-unmodified-since", OLD)], Proceed),
            (&[("if-match", "\"a\""), ("if-none-match", "\"v,1\"")], Failed),
        ] {
            assert_eq!(preconditions(&Method::GET, &fields(request), &stored()), expected, "{request:?}");
        }
    }

    #[test]
    fn if_range_wants_the_exact_strong_validator() {
        for (value, expected) in [
            ("\"v,1\"", true),
            ("W/\"v,1\"", false),
            ("\"a\"", false),
            (MODIFIED, true),
            (OLD, false),
            (NEW, false),
            ("nonsense", false),
        ] {
            assert_eq!(if_range_holds(&fields(&[("if-range", value)]), &stored()), expected, "{value}");
        }
        assert!(if_range_holds(&HeaderMap::new(), &stored()));
        let weak_date = record(0, &[("last-modified", MODIFIED), ("date", MODIFIED)]);
        assert!(!if_range_holds(&fields(&[("if-range", MODIFIED)]), &weak_date));
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_fault(text in "\\PC{0,60}") {
            if let Ok(value) = http::HeaderValue::from_str(&text) {
                for name in [IF_MATCH, IF_NONE_MATCH, IF_RANGE, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE] {
                    let request = HeaderMap::from_iter([(name, value.clone())]);
                    let _ = preconditions(&Method::GET, &request, &stored());
                    let _ = if_range_holds(&request, &stored());
                }
            }
        }
    }
}
