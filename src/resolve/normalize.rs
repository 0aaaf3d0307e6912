//! Key normalisation: which spellings of a path and query mean the same resource. For the key only; what is
//! forwarded stays as it was received.
//!
//! RFC 3986 section 6.2.2: escapes of unreserved characters are decoded, the others are written in upper
//! case. Nothing else is touched: an origin may tell `%2F` from `/`, `//` from `/`, and `?` from nothing.

use std::borrow::Cow;

use crate::content::QueryPolicy;

use super::query::{self, Parameter};

/// Normalises a path. With `plus_is_literal`, `%2B` becomes `+` too.
pub fn normalize_path(path: &str, plus_is_literal: bool) -> Cow<'_, str> {
    normalize_escapes(path, |byte| is_unreserved(byte) || (plus_is_literal && byte == b'+'))
}

/// Normalises a query or a parameter of one.
pub fn normalize_query(query: &str) -> Cow<'_, str> {
    normalize_escapes(query, is_unreserved)
}

/// The part of a query that belongs to the key: parameters kept by `policy` that are not secret, normalised,
/// in their order. `None` means that the key has no query, `Some("")` that it has an empty one.
pub fn key_query(query: &str, policy: &QueryPolicy, is_secret: impl Fn(&Parameter<'_>) -> bool) -> Option<String> {
    let is_among = |names: &[String], p: &Parameter<'_>| names.iter().any(|name| p.is_named(name));
    let kept = match policy {
        QueryPolicy::Keep => query::retain(query, |p| !is_secret(p)),
        QueryPolicy::Drop => None,
        QueryPolicy::DropNamed(names) => query::retain(query, |p| !is_secret(p) && !is_among(names, p)),
        QueryPolicy::KeepNamed(names) => query::retain(query, |p| !is_secret(p) && is_among(names, p)),
    }?;
    Some(normalize_query(&kept).into_owned())
}

/// Unreserved characters of RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Decodes the escapes that `decode` accepts (ASCII only) and upper-cases the others. A `%` that begins no
/// escape becomes `%25`, so that no second pass can read it as one.
fn normalize_escapes(text: &str, decode: impl Fn(u8) -> bool) -> Cow<'_, str> {
    let Some(first) = text.find('%') else { return Cow::Borrowed(text) };
    let (clean, mut rest) = text.split_at(first);
    let mut normal = String::with_capacity(text.len());
    normal.push_str(clean);
    while let Some(after) = rest.strip_prefix('%') {
        rest = match escape_value(after.as_bytes()) {
            Some(byte) if byte.is_ascii() && decode(byte) => {
                normal.push(char::from(byte));
                after.get(2..).unwrap_or_default()
            }
            Some(_) => {
                let (digits, tail) = after.split_at(2);
                normal.push('%');
                normal.push_str(&digits.to_ascii_uppercase());
                tail
            }
            None => {
                normal.push_str("%25");
                after
            }
        };
        let next = rest.find('%').unwrap_or(rest.len());
        let (plain, tail) = rest.split_at(next);
        normal.push_str(plain);
        rest = tail;
    }
    Cow::Owned(normal)
}

/// The byte that two hexadecimal digits at the start of `text` stand for.
pub(super) fn escape_value(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| text.get(at).and_then(|b| char::from(*b).to_digit(16));
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unreserved_escapes_are_decoded_and_the_others_upper_cased() {
        for (path, expected) in [
            ("/a%2Eb%2dc%5F%7e%41", "/a.b-c_~A"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%3fb", "/a%3Fb"),
            ("/a//b", "/a//b"),
            ("/a%2541", "/a%2541"),
            ("/a%c3%a9", "/a%C3%A9"),
            ("/a+b%2b", "/a+b%2B"),
            ("/%", "/%25"),
            ("/%4", "/%254"),
            ("/%%341", "/%2541"),
            ("/%zé", "/%25zé"),
        ] {
            assert_eq!(normalize_path(path, false), expected, "{path}");
        }
        assert_eq!(normalize_path("/g++_1%2b%2B.deb", true), "/g++_1++.deb");
    }

    #[test]
    fn query_policies_choose_parameters_by_decoded_name() {
        let names = || vec!["v".to_owned(), "token".to_owned()];
        let none = |_: &Parameter<'_>| false;
        let key = |query, policy: QueryPolicy| key_query(query, &policy, none);
        let query = "v=%7e1&TOKEN=a&%74oken=b&w=%2f";
        assert_eq!(key(query, QueryPolicy::Keep).as_deref(), Some("v=~1&TOKEN=a&token=b&w=%2F"));
        assert_eq!(key(query, QueryPolicy::Drop), None);
        assert_eq!(key(query, QueryPolicy::DropNamed(names())).as_deref(), Some("TOKEN=a&w=%2F"));
        assert_eq!(key(query, QueryPolicy::KeepNamed(names())).as_deref(), Some("v=~1&token=b"));
        assert_eq!(key("", QueryPolicy::Keep).as_deref(), Some(""));
        assert_eq!(key("", QueryPolicy::Drop), None);
        assert_eq!(key("x=1", QueryPolicy::KeepNamed(names())), None);
        assert_eq!(key_query("sig=1", &QueryPolicy::Keep, |p| p.is_named("sig")), None);
        assert_eq!(key_query("&sig=1", &QueryPolicy::Keep, |p| p.is_named("sig")).as_deref(), Some(""));
    }

    proptest! {
        #[test]
        fn normalising_twice_is_normalising_once(text in "([a-z/%]|%[0-9a-fA-F]{2}|é|%){0,20}", plus: bool) {
            let once = normalize_path(&text, plus).into_owned();
            prop_assert_eq!(&*normalize_path(&once, plus), &once);
        }

        #[test]
        fn normalising_keeps_the_decoded_bytes(text in "([a-zA-Z/.?&=+-]|%[0-9a-fA-F]{2}){0,20}", plus: bool) {
            let normal = normalize_path(&text, plus);
            prop_assert!(percent_decode_str(&normal).eq(percent_decode_str(&text)));
        }
    }
}
