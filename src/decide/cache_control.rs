//! `Cache-Control` of requests and responses (RFC 9111 section 5.2), read tolerantly: what is unknown is ignored,
//! and of what is doubled or malformed the most restrictive reading counts; and `CDN-Cache-Control` (RFC 9213), which is a
//! structured field and takes the place of the other. What follows from a directive is decided elsewhere.

use std::borrow::Cow;
use std::time::Duration;

use http::header::{CACHE_CONTROL, PRAGMA};
use http::{HeaderMap, HeaderName};

use super::dictionary::{Value, dictionary};
use super::list;

/// The targeted field that speaks to caches like this one, which stand for the origin towards many clients (RFC 9213
/// section 3.1).
const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// A larger number of seconds counts as this one (RFC 9111 section 1.2.2).
const MOST_SECONDS: u64 = 1 << 31;

/// Directives of a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ResponseDirectives {
    pub(super) no_store: bool,
    /// With or without field names: a shared cache stores none of it.
    pub(super) private: bool,
    /// With or without field names.
    pub(super) no_cache: bool,
    pub(super) must_revalidate: bool,
    pub(super) proxy_revalidate: bool,
    pub(super) must_understand: bool,
    pub(super) public: bool,
    /// RFC 8246.
    pub(super) immutable: bool,
    /// Zero when malformed.
    pub(super) s_maxage: Option<Duration>,
    /// Zero when malformed.
    pub(super) max_age: Option<Duration>,
    /// RFC 5861 section 3; zero when malformed.
    pub(super) stale_while_revalidate: Option<Duration>,
    /// RFC 5861 section 4; zero when malformed.
    pub(super) stale_if_error: Option<Duration>,
    /// They come from a targeted field, beside which `Expires` does not count (RFC 9213 section 2.2).
    pub(super) is_targeted: bool,
}

/// Directives of a request. Malformed ones are ignored: they are preferences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RequestDirectives {
    pub(super) no_cache: bool,
    pub(super) no_store: bool,
    pub(super) only_if_cached: bool,
    pub(super) max_age: Option<Duration>,
    pub(super) min_fresh: Option<Duration>,
    /// The longest duration when any staleness will do.
    pub(super) max_stale: Option<Duration>,
    /// RFC 5861 section 4.
    pub(super) stale_if_error: Option<Duration>,
}

/// The directives that a response addresses to this cache. The only place that knows in which fields they are.
pub(super) fn response_directives(headers: &HeaderMap) -> ResponseDirectives {
    if headers.contains_key(CDN_CACHE_CONTROL)
        && let Some(found) = targeted(headers)
    {
        return found;
    }
    let mut found = ResponseDirectives::default();
    for (name, value) in directives(headers) {
        let seconds = || value.as_deref().and_then(delta_seconds).unwrap_or(Duration::ZERO);
        match name.as_str() {
            "no-store" => found.no_store = true,
            "private" => found.private = true,
            "no-cache" => found.no_cache = true,
            "must-revalidate" => found.must_revalidate = true,
            "proxy-revalidate" => found.proxy_revalidate = true,
            "must-understand" => found.must_understand = true,
            "public" => found.public = true,
            "immutable" => found.immutable = true,
            "s-maxage" => shortest(&mut found.s_maxage, seconds()),
            "max-age" => shortest(&mut found.max_age, seconds()),
            "stale-while-revalidate" => shortest(&mut found.stale_while_revalidate, seconds()),
            "stale-if-error" => shortest(&mut found.stale_if_error, seconds()),
            _ => {}
        }
    }
    found
}

/// The directives of `CDN-Cache-Control`; `None` when it is empty or no dictionary, so that it counts as absent (RFC 9213
/// section 2.1). A value of another type than the directive has is malformed; names are in small letters.
fn targeted(headers: &HeaderMap) -> Option<ResponseDirectives> {
    let members = dictionary(headers, &CDN_CACHE_CONTROL).filter(|members| !members.is_empty())?;
    let mut found = ResponseDirectives { is_targeted: true, ..ResponseDirectives::default() };
    for (name, value) in members {
        let seconds = match value {
            Value::Integer(seconds) => Duration::from_secs(seconds.max(0).unsigned_abs().min(MOST_SECONDS)),
            _ => Duration::ZERO,
        };
        // What forbids something may have an argument that says for what; what allows something may not.
        let (forbids, allows) = (value != Value::Boolean(false), value == Value::Boolean(true));
        match name.as_str() {
            "no-store" => found.no_store = forbids,
            "private" => found.private = forbids,
            "no-cache" => found.no_cache = forbids,
            "must-revalidate" => found.must_revalidate = forbids,
            "proxy-revalidate" => found.proxy_revalidate = forbids,
            "must-understand" => found.must_understand = allows,
            "public" => found.public = allows,
            "immutable" => found.immutable = allows,
            "s-maxage" => found.s_maxage = Some(seconds),
            "max-age" => found.max_age = Some(seconds),
            "stale-while-revalidate" => found.stale_while_revalidate = Some(seconds),
            "stale-if-error" => found.stale_if_error = Some(seconds),
            _ => {}
        }
    }
    Some(found)
}

/// The directives of a request. `Pragma: no-cache` counts as `no-cache` when there is no `Cache-Control` (RFC 9111
/// section 5.4).
pub(super) fn request_directives(headers: &HeaderMap) -> RequestDirectives {
    let mut found = RequestDirectives::default();
    for (name, value) in directives(headers) {
        let seconds = || value.as_deref().and_then(delta_seconds);
        match name.as_str() {
            "no-cache" => found.no_cache = true,
            "no-store" => found.no_store = true,
            "only-if-cached" => found.only_if_cached = true,
            "max-age" => seconds().into_iter().for_each(|time| shortest(&mut found.max_age, time)),
            "min-fresh" => found.min_fresh = found.min_fresh.max(seconds()),
            "max-stale" if value.is_none() => shortest(&mut found.max_stale, Duration::MAX),
            "max-stale" => seconds().into_iter().for_each(|time| shortest(&mut found.max_stale, time)),
            "stale-if-error" => seconds().into_iter().for_each(|time| shortest(&mut found.stale_if_error, time)),
            _ => {}
        }
    }
    if !headers.contains_key(CACHE_CONTROL) {
        found.no_cache = list::members(headers, &PRAGMA).any(|member| member.eq_ignore_ascii_case(b"no-cache"));
    }
    found
}

/// A number of seconds (RFC 9111 section 1.2.2): digits only; too large ones are cut.
pub(super) fn delta_seconds(text: &[u8]) -> Option<Duration> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = text.iter().fold(0u64, |sum, digit| (sum * 10 + u64::from(digit - b'0')).min(MOST_SECONDS));
    Some(Duration::from_secs(seconds))
}

fn shortest(slot: &mut Option<Duration>, time: Duration) {
    *slot = Some(slot.map_or(time, |other| other.min(time)));
}

/// Names in lower case with their arguments, of which quoted ones come unquoted.
fn directives(headers: &HeaderMap) -> impl Iterator<Item = (String, Option<Cow<'_, [u8]>>)> {
    list::members(headers, &CACHE_CONTROL).map(|member| {
        let mut parts = member.splitn(2, |byte| *byte == b'=');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next());
        let trimmed = list::trim(name);
        // White space around `=` is not allowed: the argument is then no valid one.
        let value = if trimmed.len() == name.len() { value.map(unquote) } else { value.map(|_| Cow::from(&b""[..])) };
        (String::from_utf8_lossy(trimmed).to_ascii_lowercase(), value)
    })
}

/// The content of a quoted string (RFC 9110 section 5.6.4); anything else as it is.
fn unquote(value: &[u8]) -> Cow<'_, [u8]> {
    let Some(inner) = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return Cow::from(value);
    };
    if !inner.contains(&b'\\') {
        return Cow::from(inner);
    }
    let mut content = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        content.extend(if *byte == b'\\' { bytes.next() } else { Some(byte) });
    }
    Cow::from(content)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn fields(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (CACHE_CONTROL, HeaderValue::from_str(line).unwrap())).collect()
    }

    fn max_age(lines: &[&str]) -> Option<u64> {
        response_directives(&fields(lines)).max_age.map(|time| time.as_secs())
    }

    #[test]
    fn lifetimes_are_read_as_rfc_9111_section_4_2_1_says() {
        for (lines, expected) in [
            (&["max-age=3600"][..], Some(3600)),
            (&["MaX-aGe=3600"], Some(3600)),
            (&["foobar, max-age=3600"], Some(3600)),
            (&["max-age=\"3600\""], Some(3600)),
            (&["max-age=\"36\\00\""], Some(3600)),
            (&["max-age=003600"], Some(3600)),
            (&["extension=\"max-age=3600\", max-age=1"], Some(1)),
            (&["max-age=1, extension=\"max-age=3600\""], Some(1)),
            (&["extension=\"max-age=3600\""], None),
            (&["max-age=1800, max-age=1"], Some(1)),
            (&["max-age=1", "max-age=1800"], Some(1)),
            (&["max-age=99999999999999999999999999"], Some(1 << 31)),
            (&["nothing-to-see-here"], None),
            // Malformed: stale.
            (&["max-age=-3600"], Some(0)),
            (&["max-age='3600'"], Some(0)),
            (&["max-age=3600.0"], Some(0)),
            (&["max-age=a3600"], Some(0)),
            (&["max-age=3600a"], Some(0)),
            (&["max-age =3600"], Some(0)),
            (&["max-age= 3600"], Some(0)),
            (&["max-age="], Some(0)),
            (&["max-age"], Some(0)),
            (&["max-age=x, max-age=3600"], Some(0)),
        ] {
            assert_eq!(max_age(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_targeted_field_takes_the_place_of_cache_control() {
        let read = |targeted: &[&str]| {
            let mut headers = fields(&["max-age=1, must-revalidate"]);
            headers.extend(targeted.iter().map(|line| (CDN_CACHE_CONTROL, HeaderValue::from_str(line).unwrap())));
            response_directives(&headers)
        };
        for (lines, expected) in [
            (&["max-age=3600"][..], Some(3600)),
            (&["foobar, max-age=3600"], Some(3600)),
            (&["max-age=3600;x=y"], Some(3600)),
            (&["foobar", "max-age=3600"], Some(3600)),
            (&["max-age=5, max-age=10"], Some(10)),
            (&["max-age=99999999999"], Some(1 << 31)),
            (&["no-cache"], None),
            // Malformed: stale.
            (&["max-age=-1"], Some(0)),
            (&["max-age=\"3600\""], Some(0)),
            (&["max-age=3600.0"], Some(0)),
            (&["max-age"], Some(0)),
        ] {
            let found = read(lines);
            assert!(found.is_targeted && !found.must_revalidate, "{lines:?}");
            assert_eq!(found.max_age.map(|time| time.as_secs()), expected, "{lines:?}");
        }
        // What is empty or no dictionary is as good as absent.
        for lines in [&[][..], &[""], &["max-age =3600"], &["max-age= 3600"], &["MaX-aGe=3600"], &["max-age=3600, &&&"]]
        {
            let found = read(lines);
            assert!(!found.is_targeted && found.must_revalidate, "{lines:?}");
            assert_eq!(found.max_age, Some(Duration::from_secs(1)), "{lines:?}");
        }
        let found =
            read(&["no-store, private=\"a\", no-cache=?0, public=1, stale-if-error=9, stale-while-revalidate=8"]);
        assert!(found.no_store && found.private && !found.no_cache && !found.public);
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
        assert_eq!((seconds(found.stale_if_error), seconds(found.stale_while_revalidate)), (Some(9), Some(8)));
    }

    #[test]
    fn flags_count_with_or_without_arguments() {
        let found =
            response_directives(&fields(&["No-StOrE, private=\"set-cookie\"", "no-cache=\"a, b\" , must-understand"]));
        assert!(found.no_store && found.private && found.no_cache && found.must_understand);
        assert!(!found.public && !found.must_revalidate);
        // A quote that is never closed hides nothing.
        assert!(response_directives(&fields(&["x=\"y, no-store"])).no_store);
        assert!(!response_directives(&fields(&["x=\"no-store\""])).no_store);
    }

    #[test]
    fn requests_state_preferences() {
        let found =
            request_directives(&fields(&["max-age=10, max-age=5, min-fresh=3, min-fresh=7, max-stale, max-stale=9"]));
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
        assert_eq!(seconds(found.max_age), Some(5));
        assert_eq!(seconds(found.min_fresh), Some(7));
        assert_eq!(seconds(found.max_stale), Some(9));
        assert_eq!(request_directives(&fields(&["max-stale"])).max_stale, Some(Duration::MAX));
        assert_eq!(request_directives(&fields(&["max-age=x, max-stale=x"])), RequestDirectives::default());
    }

    #[test]
    fn pragma_counts_only_alone() {
        let mut headers = HeaderMap::from_iter([(PRAGMA, HeaderValue::from_static("foo, No-Cache"))]);
        assert!(request_directives(&headers).no_cache);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("nothing-to-see-here"));
        assert!(!request_directives(&headers).no_cache);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(line in prop::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                let fields = [(CACHE_CONTROL, value.clone()), (PRAGMA, value.clone()), (CDN_CACHE_CONTROL, value)];
                let headers = HeaderMap::from_iter(fields);
                response_directives(&headers);
                request_directives(&headers);
            }
        }

        #[test]
        fn another_directive_never_lengthens(first in "[ -~]{0,40}", second in "(max-age|s-maxage)=[0-9a\"]{0,6}") {
            let before = response_directives(&fields(&[&first]));
            let after = response_directives(&fields(&[&first, &second]));
            prop_assert!(before.max_age.is_none() || after.max_age <= before.max_age);
            prop_assert!(before.s_maxage.is_none() || after.s_maxage <= before.s_maxage);
        }
    }
}
