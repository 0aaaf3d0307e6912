//! CONNECT (RFC 9110 section 9.3.6): where a tunnel may lead. It names a host and a port and no content, so it has
//! its own list and its own result; whether the addresses of the host may be connected to is judged later.

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

use super::error::{HostField, Refusal, Shown};
use super::host::{HostPort, parse_host_port};
use super::inbound::Inbound;

/// An entry of `connect.allow` or `connect.allow_private`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectRule {
    /// An exact host as [`parse_host_port`] writes it, or `*.suffix` for all names below it.
    pub host: Arc<str>,
    /// The only port.
    pub port: u16,
    /// Whether the host may have a private or loopback address.
    pub allow_private: bool,
}

/// Where a tunnel leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectTarget {
    /// Name or literal address, lower case.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
    /// Whether the host may have a private or loopback address.
    pub allow_private: bool,
}

impl ConnectRule {
    fn matches(&self, target: &HostPort, port: u16) -> bool {
        self.port == port
            && match self.host.strip_prefix('*') {
                // An address has no subdomains, whatever its text ends in.
                Some(suffix) => !target.literal && target.host.len() > suffix.len() && target.host.ends_with(suffix),
                None => *self.host == target.host,
            }
    }
}

/// Finds out where a CONNECT may lead. `Host` is not looked at: the target alone counts (RFC 9112 section 3.2.2).
///
/// # Errors
/// 400 for a target that is no `host:port` and for a request with content, 405 for what no rule lists.
pub fn resolve_connect(request: &Inbound<'_>, rules: &[ConnectRule]) -> Result<ConnectTarget, Refusal> {
    let (None, None, Some(authority)) = (request.uri.scheme(), request.uri.path_and_query(), request.uri.authority())
    else {
        return Err(Refusal::ConnectTarget);
    };
    // Content would be ambiguous: is it the request's, or the tunnel's first bytes?
    let length = request.headers.get(CONTENT_LENGTH).map_or(b"0".as_slice(), |length| length.as_bytes());
    if request.headers.contains_key(TRANSFER_ENCODING) || length.iter().any(|digit| *digit != b'0') {
        return Err(Refusal::ConnectContent);
    }
    let value = || Shown::new(authority.as_str().as_bytes());
    let target = parse_host_port(authority.as_str()).map_err(|fault| Refusal::Host {
        field: HostField::Target,
        fault,
        value: value(),
    })?;
    let port = target.port.ok_or(Refusal::ConnectTarget)?;
    let mut matching = rules.iter().filter(|rule| rule.matches(&target, port)).peekable();
    if matching.peek().is_none() {
        return Err(Refusal::Connect { authority: value() });
    }
    let allow_private = matching.any(|rule| rule.allow_private);
    Ok(ConnectTarget { host: target.host.into(), port, allow_private })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method, Uri, Version};

    use super::*;
    use crate::content::Scheme;

    fn rule(host: &str, port: u16, allow_private: bool) -> ConnectRule {
        ConnectRule { host: host.into(), port, allow_private }
    }

    fn rules() -> Vec<ConnectRule> {
        vec![
            rule("dl.example.com", 443, false),
            rule("*.vendor.example", 443, false),
            rule("inner.vendor.example", 443, true),
            rule("192.0.2.1", 8883, false),
            rule("[2001:db8::1]", 443, false),
        ]
    }

    fn ask(target: &str, headers: &HeaderMap) -> Option<Result<ConnectTarget, Refusal>> {
        let uri: Uri = target.parse().ok()?;
        let (method, version, scheme) = (&Method::CONNECT, Version::HTTP_11, Scheme::Http);
        Some(resolve_connect(&Inbound { method, uri: &uri, version, headers, scheme }, &rules()))
    }

    fn connect(target: &str) -> Option<Result<ConnectTarget, Refusal>> {
        ask(target, &HeaderMap::new())
    }

    #[test]
    fn what_is_listed_is_found_in_any_spelling() {
        let target =
            |host: &str, port, allow_private| Some(Ok(ConnectTarget { host: host.into(), port, allow_private }));
        for (authority, expected) in [
            ("dl.example.com:443", target("dl.example.com", 443, false)),
            ("DL.Example.com.:443", target("dl.example.com", 443, false)),
            ("a.vendor.example:443", target("a.vendor.example", 443, false)),
            ("a.b.vendor.example:443", target("a.b.vendor.example", 443, false)),
            ("inner.vendor.example:443", target("inner.vendor.example", 443, true)),
            ("192.0.2.1:8883", target("192.0.2.1", 8883, false)),
            ("[2001:DB8:0::1]:443", target("[2001:db8::1]", 443, false)),
        ] {
            assert_eq!(connect(authority), expected, "{authority}");
        }
    }

    #[test]
    fn what_is_not_listed_gets_405() {
        for authority in [
            "other.example:443",
            "dl.example.com:80",
            "x.dl.example.com:443",
            "vendor.example:443",
            "evilvendor.example:443",
            "192.0.2.2:8883",
            "[2001:db8::2]:443",
        ] {
            let refusal = connect(authority).expect(authority).expect_err(authority);
            assert_eq!((refusal.status().as_u16(), refusal.allow()), (405, Some("GET, HEAD")), "{authority}");
        }
    }

    #[test]
    fn what_is_no_host_and_port_gets_400_or_never_comes_here() {
        let long = format!("{}.example:443", "a".repeat(64));
        for target in [
            "dl.example.com",
            "dl.example.com:",
            "dl.example.com:0",
            "dl.example.com:443443",
            "dl.example.com:x",
            "user@dl.example.com:443",
            "/dl.example.com:443",
            "http://dl.example.com:443/",
            "*",
            "127.1:443",
            "0x7f000001:443",
            "2130706433:443",
            "[fe80::1%25eth0]:443",
            ":443",
            long.as_str(),
        ] {
            let status = connect(target).map(|result| result.map_err(|refusal| refusal.status().as_u16()));
            assert!(matches!(status, None | Some(Err(400))), "{target}: {status:?}");
        }
    }

    #[test]
    fn a_request_with_content_is_refused() {
        for (name, value, accepted) in [
            (CONTENT_LENGTH, "0", true),
            (CONTENT_LENGTH, "5", false),
            (CONTENT_LENGTH, "50", false),
            (TRANSFER_ENCODING, "chunked", false),
        ] {
            let headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static(value))]);
            assert_eq!(ask("dl.example.com:443", &headers).map(|r| r.is_ok()), Some(accepted), "{name}: {value}");
        }
    }
}
