//! Ways in for the fuzz targets: field values as the private parsers see them. No serving build has this.

use std::time::Duration;

use http::header::{ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_LANGUAGE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::cache_control::{request_directives, response_directives};
use super::dictionary::{Value, dictionary as members};
use super::language::{is_favourite, normalised};

const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// Reads the lines of `name` as a dictionary of structured fields (RFC 9651 section 3.2).
///
/// # Panics
/// When one that is accepted has an impossible member, or does not take another one at its end.
pub fn dictionary(headers: &HeaderMap, name: &HeaderName) {
    let Some(found) = members(headers, name) else { return };
    let is_key = |key: &str| {
        key.starts_with(|c: char| c.is_ascii_lowercase() || c == '*')
            && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b))
    };
    for (at, (key, value)) in found.iter().enumerate() {
        assert!(is_key(key), "{key:?}");
        assert!(!found.iter().take(at).any(|(other, _)| other == key), "{key} is there twice");
        assert!(!matches!(value, Value::Integer(number) if number.unsigned_abs() > 999_999_999_999_999));
    }
    let mut more = headers.clone();
    more.append(name, HeaderValue::from_static("another=1"));
    // An empty field is no member that a comma could follow.
    if !found.is_empty() {
        let last = members(&more, name).and_then(|found| found.into_iter().find(|(key, _)| key == "another"));
        assert_eq!(last, Some(("another".to_owned(), Value::Integer(1))));
    }
}

/// Reads the directives for caches of a request and of an answer, and checks that whatever else is there cannot take away
/// what forbids something.
///
/// # Panics
/// When it can.
pub fn directives(fields: &HeaderMap) {
    let longest = Duration::from_secs(1 << 31);
    let found = response_directives(fields);
    for time in [found.max_age, found.s_maxage, found.stale_if_error, found.stale_while_revalidate] {
        assert!(time.is_none_or(|time| time <= longest));
    }
    let with = |name: HeaderName, value: &'static str| {
        let mut more = fields.clone();
        more.append(name, HeaderValue::from_static(value));
        more
    };
    if found.is_targeted {
        let stricter = response_directives(&with(CDN_CACHE_CONTROL, "no-store, max-age=0"));
        assert!(stricter.is_targeted && stricter.no_store && stricter.max_age == Some(Duration::ZERO));
        // The other field means nothing beside it.
        assert_eq!(response_directives(&with(CACHE_CONTROL, "no-store")), found);
    } else {
        let stricter = response_directives(&with(CACHE_CONTROL, "no-store, private, max-age=0"));
        assert!(stricter.no_store && stricter.private && stricter.max_age == Some(Duration::ZERO));
    }
    let asked = request_directives(&with(CACHE_CONTROL, "no-cache, no-store, only-if-cached, max-age=0"));
    assert!(asked.no_cache && asked.no_store && asked.only_if_cached && asked.max_age == Some(Duration::ZERO));
    assert!(request_directives(fields).max_age.is_none_or(|time| time <= longest));
}

/// Reads the languages that a request wants, and checks that their one spelling means what they do.
///
/// # Panics
/// When it does not.
pub fn languages(request: &HeaderMap, language: &HeaderValue) {
    let Some(value) = normalised(request) else { return };
    let again = HeaderMap::from_iter([(ACCEPT_LANGUAGE, value.clone())]);
    assert_eq!(normalised(&again), Some(value));
    let answer = HeaderMap::from_iter([(CONTENT_LANGUAGE, language.clone())]);
    assert_eq!(is_favourite(&again, &answer), is_favourite(request, &answer));
}
