//! `Cache-Control` (RFC 9111 section 5.2) and `Pragma` of requests and responses, read tolerantly.
//!
//! Unknown directives are ignored. Of a directive that is there several times the most restrictive counts (RFC 9111
//! section 4.2.1 asks for the first or for stale). What the directives mean is judged elsewhere.

use http::HeaderMap;
use http::header::{CACHE_CONTROL, PRAGMA};

/// Largest delta-seconds (RFC 9111 section 1.2.2).
const MAX_SECONDS: u64 = 1 << 31;

/// What a response says (RFC 9111 section 5.2.2, RFC 5861, RFC 8246). Times in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponseDirectives {
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache`, with or without field names.
    pub no_cache: bool,
    /// `private`, with or without field names.
    pub private: bool,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `immutable` (RFC 8246).
    pub immutable: bool,
    /// `max-age`.
    pub max_age: Option<u64>,
    /// `s-maxage`.
    pub s_maxage: Option<u64>,
    /// `stale-while-revalidate` (RFC 5861 section 3).
    pub stale_while_revalidate: Option<u64>,
    /// `stale-if-error` (RFC 5861 section 4).
    pub stale_if_error: Option<u64>,
}

/// What a request says (RFC 9111 section 5.2.1). Times in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestDirectives {
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache`, or `Pragma: no-cache` without `Cache-Control`.
    pub no_cache: bool,
    /// `only-if-cached`.
    pub only_if_cached: bool,
    /// `max-age`.
    pub max_age: Option<u64>,
    /// `min-fresh`.
    pub min_fresh: Option<u64>,
    /// `max-stale`; without a value any staleness is fine.
    pub max_stale: Option<u64>,
}

/// Reads what a response says.
pub fn response_directives(headers: &HeaderMap) -> ResponseDirectives {
    let mut found = ResponseDirectives::default();
    for (name, value) in directives(headers) {
        match name.as_str() {
            "no-store" => found.no_store = true,
            "no-cache" => found.no_cache = true,
            "private" => found.private = true,
            "public" => found.public = true,
            "must-revalidate" => found.must_revalidate = true,
            "proxy-revalidate" => found.proxy_revalidate = true,
            "must-understand" => found.must_understand = true,
            "immutable" => found.immutable = true,
            "max-age" => found.max_age = shorter(found.max_age, lifetime(value.as_deref())),
            "s-maxage" => found.s_maxage = shorter(found.s_maxage, lifetime(value.as_deref())),
            "stale-while-revalidate" => {
                found.stale_while_revalidate = shorter(found.stale_while_revalidate, lifetime(value.as_deref()));
            }
            "stale-if-error" => found.stale_if_error = shorter(found.stale_if_error, lifetime(value.as_deref())),
            _ => {}
        }
    }
    found
}

/// Reads what a request says.
pub fn request_directives(headers: &HeaderMap) -> RequestDirectives {
    let mut found = RequestDirectives::default();
    for (name, value) in directives(headers) {
        match name.as_str() {
            "no-store" => found.no_store = true,
            "no-cache" => found.no_cache = true,
            "only-if-cached" => found.only_if_cached = true,
            "max-age" => found.max_age = shorter(found.max_age, lifetime(value.as_deref())),
            // Of two the longer asks for more freshness.
            "min-fresh" => {
                found.min_fresh = found.min_fresh.max(Some(seconds(value.as_deref()).unwrap_or(MAX_SECONDS)))
            }
            "max-stale" => {
                let limit = value.as_deref().map_or(MAX_SECONDS, |value| seconds(Some(value)).unwrap_or(0));
                found.max_stale = shorter(found.max_stale, limit);
            }
            _ => {}
        }
    }
    if !headers.contains_key(CACHE_CONTROL) {
        let pragmas = headers.get_all(PRAGMA).iter().filter_map(|value| value.to_str().ok());
        found.no_cache |= pragmas.flat_map(|value| value.split(',')).any(|v| v.trim().eq_ignore_ascii_case("no-cache"));
    }
    found
}

fn shorter(known: Option<u64>, new: u64) -> Option<u64> {
    Some(known.map_or(new, |known| known.min(new)))
}

/// A lifetime that cannot be read is no lifetime: stale.
fn lifetime(value: Option<&str>) -> u64 {
    seconds(value).unwrap_or(0)
}

/// delta-seconds (RFC 9111 section 1.2.2): digits only; what is too large counts as 2^31.
fn seconds(value: Option<&str>) -> Option<u64> {
    let digits = value?;
    let valid = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    valid.then(|| digits.parse().unwrap_or(MAX_SECONDS).min(MAX_SECONDS))
}

/// All directives of all `Cache-Control` lines: names in lower case, values without quotes.
fn directives(headers: &HeaderMap) -> impl Iterator<Item = (String, Option<String>)> + '_ {
    headers.get_all(CACHE_CONTROL).iter().flat_map(|line| Directives { rest: line.as_bytes() })
}

struct Directives<'a> {
    rest: &'a [u8],
}

impl Iterator for Directives<'_> {
    type Item = (String, Option<String>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let skip = self.rest.iter().take_while(|b| matches!(b, b',' | b' ' | b'\t')).count();
            self.rest = self.rest.get(skip..)?;
            if self.rest.is_empty() {
                return None;
            }
            let name_len = self.rest.iter().take_while(|b| !matches!(b, b',' | b'=')).count();
            let (name, rest) = self.rest.split_at(name_len);
            self.rest = rest;
            let mut value = None;
            if let Some((b'=', rest)) = rest.split_first() {
                let (text, rest) = argument(rest);
                value = Some(text);
                self.rest = rest;
            }
            let name = String::from_utf8_lossy(name).trim().to_ascii_lowercase();
            if !name.is_empty() {
                return Some((name, value));
            }
        }
    }
}

/// The argument of a directive up to the next comma outside of quotes, and what follows it.
fn argument(text: &[u8]) -> (String, &[u8]) {
    let mut value = Vec::new();
    let mut quoted = false;
    let mut bytes = text.iter().enumerate();
    while let Some((at, &byte)) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if quoted => value.extend(bytes.next().map(|(_, &escaped)| escaped)),
            b',' if !quoted => return (finish(&value), text.get(at..).unwrap_or_default()),
            _ => value.push(byte),
        }
    }
    (finish(&value), &[])
}

fn finish(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_matches([' ', '\t']).to_owned()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn lines(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (CACHE_CONTROL, HeaderValue::from_str(line).unwrap())).collect()
    }

    #[test]
    fn lifetimes_are_read_with_care() {
        for (text, expected) in [
            (&["max-age=3600"][..], Some(3600)),
            (&["MAX-AGE=3600"], Some(3600)),
            (&["max-age=\"3600\""], Some(3600)),
            (&["max-age=003600"], Some(3600)),
            (&["max-age=99999999999999999999"], Some(MAX_SECONDS)),
            (&["max-age=3600", "max-age=1"], Some(1)),
            (&["max-age=1, max-age=3600"], Some(1)),
            (&["max-age=-3600"], Some(0)),
            (&["max-age=3600.0"], Some(0)),
            (&["max-age='3600'"], Some(0)),
            (&["max-age"], Some(0)),
            (&["extension=\"max-age=3600\""], None),
            (&["extension=\"max-age=1, a\", max-age=3600"], Some(3600)),
            (&["extension=\"max-age=1\\\", a\", max-age=3600"], Some(3600)),
            (&["max-age =3600"], Some(3600)),
            (&[", ,max-age=3600,"], Some(3600)),
            (&["maxage=1", "xmax-age=2"], None),
        ] {
            assert_eq!(response_directives(&lines(text)).max_age, expected, "{text:?}");
        }
    }

    #[test]
    fn flags_may_carry_field_names() {
        let found = response_directives(&lines(&["private=\"set-cookie\", No-Cache=\"a, b\", public,immutable"]));
        assert!(found.private && found.no_cache && found.public && found.immutable && !found.no_store);
    }

    #[test]
    fn pragma_counts_only_without_cache_control() {
        let mut headers = HeaderMap::new();
        headers.insert(PRAGMA, HeaderValue::from_static("No-Cache"));
        assert!(request_directives(&headers).no_cache);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-stale"));
        let found = request_directives(&headers);
        assert!(!found.no_cache);
        assert_eq!(found.max_stale, Some(MAX_SECONDS));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_fault(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let headers = HeaderMap::from_iter([(CACHE_CONTROL, value)]);
                let _ = (response_directives(&headers), request_directives(&headers));
            }
        }

        #[test]
        fn more_directives_are_never_less_strict(a in "[a-z=0-9,\" -]{0,40}", age in 0u64..5000) {
            let one = response_directives(&lines(&[&format!("max-age={age}")]));
            let both = response_directives(&lines(&[&format!("max-age={age}"), &a]));
            prop_assert!(both.max_age <= one.max_age);
            prop_assert!(both.no_store >= one.no_store);
        }
    }
}
