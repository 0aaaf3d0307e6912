//! Where a redirect leads (RFC 9110 section 15.4, RFC 3986 section 5.2) and what may go there. Pure: whether
//! the target is allowed is the caller's rule table's business.

use std::net::Ipv6Addr;
use std::sync::Arc;

use http::header::{AUTHORIZATION, COOKIE, HeaderName, LOCATION, PROXY_AUTHORIZATION};
use http::{HeaderMap, Method, StatusCode};

use crate::content::{Origin, Policy, Scheme};

use super::error::RedirectRefusal;

/// Redirects that are followed in a row.
pub(super) const MAX_REDIRECTS: usize = 5;

/// Longest `Location` that is looked at, in bytes.
const MAX_LOCATION: usize = 8 * 1024;

/// The rules about where redirects may lead.
pub trait Redirects: Send + Sync {
    /// The policy for `target` (path and query) at `origin`, or `None` when no rule allows it.
    fn allow(&self, origin: &Origin, target: &str) -> Option<Arc<Policy>>;
}

/// Fields that prove who asks; they are for one origin.
const CREDENTIALS: [HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

/// The `Location` to follow, or `None` when the answer is no redirect of a safe method. The answers 300, 304
/// and 305 and any redirect without a target are answers like others.
pub(super) fn location<'a>(method: &Method, status: StatusCode, headers: &'a HeaderMap) -> Option<&'a [u8]> {
    let safe = *method == Method::GET || *method == Method::HEAD;
    let redirect = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
    if safe && redirect { headers.get(LOCATION).map(|value| value.as_bytes()) } else { None }
}

/// The start of a `Location`, up to its query, which may hold secrets.
pub(super) fn shown(location: &[u8]) -> String {
    let end = location.iter().position(|&b| b == b'?').unwrap_or(location.len()).min(100);
    location.get(..end).unwrap_or_default().escape_ascii().to_string()
}

/// What a field of an answer names (RFC 9110 sections 8.7 and 10.2.2): its origin, and path with query. `None` when it is no
/// reference that could be asked for.
pub fn named_by(origin: &Origin, target: &str, reference: &[u8]) -> Option<(Origin, String)> {
    resolve(origin, target, reference).ok()
}

/// Resolves `location` against what was asked.
pub(super) fn resolve(origin: &Origin, target: &str, location: &[u8]) -> Result<(Origin, String), RedirectRefusal> {
    let location = location.trim_ascii();
    if location.is_empty() || location.len() > MAX_LOCATION {
        return Err(RedirectRefusal::Malformed);
    }
    let location = escape(location);
    let location = location.split('#').next().unwrap_or_default();
    let (scheme, rest) = match scheme(location) {
        Some(("http", rest)) => (Scheme::Http, rest),
        Some(("https", rest)) => (Scheme::Https, rest),
        Some(_) => return Err(RedirectRefusal::Malformed),
        None => (origin.scheme, location),
    };
    let (new_origin, reference) = if let Some(rest) = rest.strip_prefix("//") {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, reference) = rest.split_at(end);
        let reference = if reference.starts_with('/') { reference.to_owned() } else { format!("/{reference}") };
        (parse_authority(scheme, authority).ok_or(RedirectRefusal::Malformed)?, reference)
    } else if rest.len() != location.len() {
        // `http:path` without an authority.
        return Err(RedirectRefusal::Malformed);
    } else {
        (origin.clone(), merge(target, rest))
    };
    if origin.scheme == Scheme::Https && new_origin.scheme == Scheme::Http {
        return Err(RedirectRefusal::Downgrade);
    }
    let (path, query) = split_query(&reference);
    Ok((new_origin, format!("{}{query}", remove_dot_segments(path))))
}

/// Drops what must not reach another origin.
pub(super) fn drop_credentials(headers: &mut HeaderMap) {
    for name in CREDENTIALS {
        headers.remove(name);
    }
}

/// Percent-encodes what no URI may contain but sources send: spaces, non-ASCII and a few others.
fn escape(location: &[u8]) -> String {
    let mut text = String::with_capacity(location.len());
    for &byte in location {
        if byte.is_ascii_graphic() && !br#""<>\^`{|}"#.contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// `https://x` into `https` and `//x`; a colon after a slash, question mark or in a relative path's later segment is
/// no scheme's.
fn scheme(location: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = location.split_once(':')?;
    let mut bytes = scheme.bytes();
    let valid = bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    if !valid {
        return None;
    }
    let known = ["http", "https"].into_iter().find(|known| scheme.eq_ignore_ascii_case(known));
    Some((known.unwrap_or(scheme), rest))
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`; no user information. A host that had other bytes than ASCII is
/// refused: sources write such names in their ASCII form.
fn parse_authority(scheme: Scheme, authority: &str) -> Option<Origin> {
    let (host, port) = if authority.starts_with('[') {
        let (host, port) = authority.split_at(authority.find(']')? + 1);
        let literal: Ipv6Addr = host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()?;
        (format!("[{literal}]"), if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
    } else {
        let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let valid = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        if host.is_empty() || host.len() > 253 || host.split('.').any(str::is_empty) || !host.bytes().all(valid) {
            return None;
        }
        (host, port)
    };
    let port = match port {
        None | Some("") => scheme.default_port(),
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => port.parse().ok().filter(|&port| port != 0)?,
        Some(_) => return None,
    };
    Some(Origin { scheme, host: host.into(), port })
}

/// A reference without authority against the target that was asked (RFC 3986 section 5.2.2).
fn merge(target: &str, reference: &str) -> String {
    let (path, _) = split_query(target);
    if reference.starts_with('/') {
        reference.to_owned()
    } else if reference.starts_with('?') {
        format!("{path}{reference}")
    } else if reference.is_empty() {
        target.to_owned()
    } else {
        let directory = path.rfind('/').map_or("/", |slash| path.split_at(slash + 1).0);
        format!("{directory}{reference}")
    }
}

/// Path, and query with its question mark.
fn split_query(target: &str) -> (&str, &str) {
    target.find('?').map_or((target, ""), |mark| target.split_at(mark))
}

/// RFC 3986 section 5.2.4 for an absolute path.
fn remove_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn origin(scheme: Scheme) -> Origin {
        Origin { scheme, host: "a.example".into(), port: scheme.default_port() }
    }

    fn followed(scheme: Scheme, location: &str) -> Result<String, RedirectRefusal> {
        resolve(&origin(scheme), "/b/c/d?q=1", location.as_bytes()).map(|(origin, target)| format!("{origin}{target}"))
    }

    #[test]
    fn locations_resolve_as_rfc_3986_says() {
        for (location, expected) in [
            ("http://b.example/x?y=1", "http://b.example/x?y=1"),
            ("HTTP://B.Example.:80/x#frag", "http://b.example/x"),
            ("https://b.example:8443", "https://b.example:8443/"),
            ("http://b.example?x", "http://b.example/?x"),
            ("http://[2001:DB8:0::1]:81/x", "http://[2001:db8::1]:81/x"),
            ("//b.example/x", "http://b.example/x"),
            ("/x", "http://a.example/x"),
            ("x", "http://a.example/b/c/x"),
            ("./x", "http://a.example/b/c/x"),
            ("../x/", "http://a.example/b/x/"),
            ("../../../x", "http://a.example/x"),
            ("..", "http://a.example/b/"),
            ("?z", "http://a.example/b/c/d?z"),
            ("#frag", "http://a.example/b/c/d?q=1"),
            ("x?y=/../z", "http://a.example/b/c/x?y=/../z"),
            ("/x//y", "http://a.example/x//y"),
            ("/%2e%2E/x", "http://a.example/%2e%2E/x"),
            ("/a b/\u{e9}", "http://a.example/a%20b/%C3%A9"),
            ("/x:y", "http://a.example/x:y"),
            (" /x ", "http://a.example/x"),
        ] {
            assert_eq!(followed(Scheme::Http, location).as_deref(), Ok(expected), "{location:?}");
        }
    }

    #[test]
    fn what_cannot_or_must_not_be_followed_is_refused() {
        for location in [
            "",
            "ftp://b.example/x",
            "file:///etc/passwd",
            "http:x",
            "http://",
            "http:///x",
            "//",
            "javascript:alert(1)",
            "http://user@b.example/",
            "http://user:secret@b.example/",
            "http://b.example:0/",
            "http://b.example:99999/",
            "http://b.example:+80/",
            "http://b..example/",
            "http://b%2eexample/",
            "http://[::1/",
            "http://[v1.x]/",
            "http://[::1]x/",
            "http://b\u{e9}.example/",
        ] {
            assert_eq!(followed(Scheme::Http, location), Err(RedirectRefusal::Malformed), "{location:?}");
        }
        assert_eq!(followed(Scheme::Https, "http://a.example/x"), Err(RedirectRefusal::Downgrade));
        assert_eq!(followed(Scheme::Https, "//b.example/x").as_deref(), Ok("https://b.example/x"));
        assert_eq!(followed(Scheme::Http, "https://b.example/x").as_deref(), Ok("https://b.example/x"));
    }

    #[test]
    fn only_redirects_of_safe_methods_with_a_target_are_followed() {
        let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static("/x"))]);
        for (method, status, follows) in [
            (Method::GET, 301, true),
            (Method::HEAD, 302, true),
            (Method::GET, 303, true),
            (Method::GET, 307, true),
            (Method::GET, 308, true),
            (Method::POST, 307, false),
            (Method::GET, 300, false),
            (Method::GET, 304, false),
            (Method::GET, 201, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(location(&method, status, &headers).is_some(), follows, "{method} {status}");
            assert_eq!(location(&method, status, &HeaderMap::new()), None);
        }
    }

    proptest! {
        #[test]
        fn any_location_gives_a_plain_target_or_is_refused(
            location in prop::collection::vec(any::<u8>(), 0..80),
            near in "(https?:)?(//[a-z.:\\[\\]@]{0,12})?[/.?#a-z:%]{0,20}",
        ) {
            for location in [location.as_slice(), near.as_bytes()] {
                if let Ok((origin, target)) = resolve(&origin(Scheme::Http), "/b/c?d", location) {
                    prop_assert!(target.starts_with('/'));
                    prop_assert!(target.bytes().all(|b| b.is_ascii_graphic()));
                    prop_assert!(!target.contains('#'));
                    let (path, _) = split_query(&target);
                    prop_assert!(!path.split('/').any(|segment| segment == "." || segment == ".."));
                    prop_assert!(!origin.host.is_empty());
                }
            }
        }
    }
}
