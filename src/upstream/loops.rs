//! Fields that keep a request from running in circles: `Via` (RFC 9110 section 7.6.3) and `CDN-Loop` (RFC
//! 8586). Pure.

use std::borrow::Cow;

use http::header::VIA;
use http::{HeaderMap, HeaderName, HeaderValue};

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// Whether this cache, known as `pseudonym`, has already handled the request.
pub fn request_loops(headers: &HeaderMap, pseudonym: &str) -> bool {
    if !headers.contains_key(CDN_LOOP) && !headers.contains_key(VIA) {
        return false;
    }
    let pseudonym = token(pseudonym);
    let own = |name: &[u8]| name.eq_ignore_ascii_case(pseudonym.as_bytes());
    let in_cdn_loop = headers.get_all(CDN_LOOP).iter().any(|value| {
        members(value.as_bytes())
            .any(|member| member.split(|&b| b == b';').next().is_some_and(|id| own(id.trim_ascii())))
    });
    // `1.1 name (comment)`: the second word is who received the request.
    let in_via = headers.get_all(VIA).iter().any(|value| {
        members(value.as_bytes()).any(|member| {
            let mut words = member.split(|&b| b == b' ' || b == b'\t' || b == b'(').filter(|word| !word.is_empty());
            words.nth(1).is_some_and(own)
        })
    });
    in_cdn_loop || in_via
}

/// Whether another cache of this kind asks.
pub fn has_passed_a_cache(headers: &HeaderMap) -> bool {
    headers.contains_key(CDN_LOOP)
}

/// Both fields for a request that goes on under another form, as CONNECT does: those of the one that was `received`, and this
/// cache behind them.
pub(super) fn passed_on(received: &HeaderMap, pseudonym: &str) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for name in [VIA, CDN_LOOP] {
        fields.extend(received.get_all(&name).iter().map(|value| (name.clone(), value.clone())));
    }
    mark_request(&mut fields, pseudonym);
    fields
}

/// Adds this cache to both fields; what others wrote stays.
pub(super) fn mark_request(headers: &mut HeaderMap, pseudonym: &str) {
    let pseudonym = token(pseudonym);
    for (name, value) in [(VIA, format!("1.1 {pseudonym}")), (CDN_LOOP, format!("{pseudonym}; v=1"))] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.append(name, value);
        }
    }
}

/// The pseudonym as a token (RFC 9110 section 5.6.2): other characters become `-`.
fn token(pseudonym: &str) -> Cow<'_, str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if pseudonym.is_empty() {
        Cow::Borrowed("waystation")
    } else if pseudonym.chars().all(allowed) {
        Cow::Borrowed(pseudonym)
    } else {
        Cow::Owned(pseudonym.chars().map(|c| if allowed(c) { c } else { '-' }).collect())
    }
}

/// The members of a comma-separated list; commas in quoted strings and comments do not separate.
fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped, mut depth) = (false, false, 0_usize);
    let separates = move |&byte: &u8| {
        if escaped {
            escaped = false;
            return false;
        }
        match byte {
            b'\\' if quoted || depth > 0 => escaped = true,
            b'"' if depth == 0 => quoted = !quoted,
            b'(' if !quoted => depth = depth.saturating_add(1),
            b')' if !quoted => depth = depth.saturating_sub(1),
            b',' => return !quoted && depth == 0,
            _ => {}
        }
        false
    };
    value.split(separates).map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn own_marks_are_found_and_those_of_others_are_not() {
        for (name, value, loops) in [
            ("cdn-loop", "me", true),
            ("cdn-loop", "ME; v=1", true),
            ("cdn-loop", "other.example, me;v=2", true),
            ("cdn-loop", "other.example; of=\"a, me\"", false),
            ("cdn-loop", "other.example; of=\"a\\\", me\", me", true),
            ("cdn-loop", "me.example, home, me2", false),
            ("cdn-loop", "other; me", false),
            ("cdn-loop", "", false),
            ("via", "1.1 me", true),
            ("via", "1.0 fred, HTTP/1.1 me (Apache, 2)", true),
            ("via", "1.1 me(x)", true),
            ("via", "1.1 other (1.1 x, 1.1 me)", false),
            ("via", "1.1 other, me", false),
            ("x-via", "1.1 me", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("1.1 someone"));
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            assert_eq!(request_loops(&headers, "me"), loops, "{name}: {value}");
        }
    }

    #[test]
    fn marks_are_added_and_others_kept() {
        let mut headers = HeaderMap::new();
        headers.insert(CDN_LOOP, HeaderValue::from_static("other; x=1"));
        mark_request(&mut headers, "site-7");
        assert_eq!(headers.get_all(CDN_LOOP).iter().collect::<Vec<_>>(), ["other; x=1", "site-7; v=1"]);
        assert_eq!(headers[VIA], "1.1 site-7");
    }

    #[test]
    fn what_goes_on_has_the_marks_of_all_and_nothing_else() {
        let mut received = HeaderMap::new();
        for (name, value) in [("via", "1.1 a"), ("via", "1.0 b (x)"), ("cdn-loop", "a"), ("cookie", "secret")] {
            received.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let fields = passed_on(&received, "me");
        assert_eq!(fields.get_all(VIA).iter().collect::<Vec<_>>(), ["1.1 a", "1.0 b (x)", "1.1 me"]);
        assert_eq!(fields.get_all(CDN_LOOP).iter().collect::<Vec<_>>(), ["a", "me; v=1"]);
        assert_eq!(fields.len(), 5);
    }

    proptest! {
        #[test]
        fn whoever_marks_a_request_knows_it_again(pseudonym in ".{0,40}", other in "[ -~]{0,60}") {
            let mut headers = HeaderMap::new();
            headers.append(CDN_LOOP, HeaderValue::try_from(other.as_str()).unwrap());
            let _ = request_loops(&headers, &pseudonym);
            mark_request(&mut headers, &pseudonym);
            prop_assert!(request_loops(&headers, &pseudonym));
        }
    }
}
