//! [`HostPattern`]: which hosts an origin rule is for, as written in the settings. How requests are matched
//! is `resolve`'s business; here is only what makes sense to write.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::reader::{Fault, Parsed};

/// `packages.example.com`, `*.example.com`, `192.0.2.1` or `[2001:db8::1]`: lower case, without trailing dot,
/// names outside ASCII in their A-label form (RFC 5890), IPv6 literals in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct HostPattern {
    text: String,
    literal: Option<IpAddr>,
}

impl HostPattern {
    /// Parses a pattern.
    pub(super) fn parse(text: &str) -> Parsed<Self> {
        if let Some(suffix) = text.strip_prefix("*.") {
            let Host { text, literal } = Host::parse(suffix)?;
            if literal.is_some() {
                return Err(Fault::new("an address has no subdomains", "write the address alone"));
            }
            return Ok(Self { text: format!("*.{text}"), literal: None });
        }
        if text.contains('*') {
            return Err(Fault::new(
                "a star is allowed only as the whole first label",
                "write a name, or *.suffix for all names below it; there is no pattern for every host, since the cache is never an open proxy",
            ));
        }
        let Host { text, literal } = Host::parse(text)?;
        Ok(Self { text, literal })
    }

    /// The pattern, normalised.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// The address, when the pattern is a literal one.
    pub(super) fn literal(&self) -> Option<IpAddr> {
        self.literal
    }

    /// Whether a normalised host is meant. `*.example.com` is not `example.com`.
    pub(super) fn matches(&self, host: &str) -> bool {
        match self.text.strip_prefix('*') {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => host == self.text,
        }
    }
}

/// A host without port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    /// Normalised as in [`HostPattern`].
    pub(super) text: String,
    /// The address, when it is a literal one.
    pub(super) literal: Option<IpAddr>,
}

impl Host {
    /// Parses a name or an address.
    pub(super) fn parse(text: &str) -> Parsed<Self> {
        if text.contains("://") || text.contains(['/', '?', '#', '@']) {
            return Err(Fault::new("this is not a host", "write the name alone: no scheme, user, path or query"));
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<Ipv6Addr>() {
            return Ok(Self { text: format!("[{address}]"), literal: Some(address.into()) });
        }
        if text.contains([':', '[', ']']) {
            return Err(Fault::new("a host has no port here", "write the name alone and the port under `port`"));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Self { text: address.to_string(), literal: Some(address.into()) });
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let name = idna::domain_to_ascii(name)
            .map_err(|_| Fault::new("this is not a host name", "write a name like packages.example.com"))?;
        let label_is_proper = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        };
        let last = name.rsplit('.').next().unwrap_or_default();
        if name.len() > 253 || !name.split('.').all(label_is_proper) {
            return Err(Fault::new("this is not a host name", "write a name like packages.example.com"));
        }
        // `127.1` and `0x7f000001` are addresses to some resolvers.
        if last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") {
            return Err(Fault::new("this spelling of an address is not allowed", "write four numbers with dots"));
        }
        Ok(Self { text: name, literal: None })
    }
}

/// Parses `host:port` and gives both normalised.
pub(super) fn parse_host_port(text: &str) -> Parsed<(Host, u16)> {
    let fault =
        || Fault::new("this is not host:port", "write for example 10.1.2.3:8080, [2001:db8::1]:80 or mirror.lan:80");
    if text.contains('@') {
        return Err(Fault::new("user and password are not allowed here", "write host:port alone"));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(fault)?;
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) || host.contains(':') != host.starts_with('[') {
        return Err(fault());
    }
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(fault)?;
    Ok((Host::parse(host)?, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_normalised() {
        for (text, pattern) in [
            ("Packages.Example.COM.", "packages.example.com"),
            ("*.Example.com", "*.example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("my_host.lan", "my_host.lan"),
            ("localhost", "localhost"),
            ("192.0.2.1", "192.0.2.1"),
            ("2001:DB8::1", "[2001:db8::1]"),
            ("[2001:db8:0::1]", "[2001:db8::1]"),
        ] {
            assert_eq!(HostPattern::parse(text).map(|p| p.text), Ok(pattern.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in [
            "",
            "*",
            "*.",
            "**.a",
            "a.*.b",
            "a*.b",
            ".a",
            "a..b",
            "a b",
            "-a.b",
            "a/b",
            "http://a",
            "u@a",
            "a:80",
            "127.1",
            "0x7f000001",
            "2130706433",
            "1.2.3.4.5",
            "*.1.2.3.4",
            "[::1",
            "a\0b",
        ] {
            assert!(HostPattern::parse(text).is_err(), "{text}");
        }
        assert!(HostPattern::parse(&"a".repeat(64)).is_err());
    }

    #[test]
    fn a_suffix_is_only_what_is_below_it() {
        let suffix = HostPattern::parse("*.example.com").unwrap();
        for (host, expected) in
            [("a.example.com", true), ("a.b.example.com", true), ("example.com", false), ("badexample.com", false)]
        {
            assert_eq!(suffix.matches(host), expected, "{host}");
        }
    }

    #[test]
    fn host_and_port() {
        for text in ["10.1.2.3:8080", "[::1]:80", "mirror.lan:65535"] {
            assert!(parse_host_port(text).is_ok(), "{text}");
        }
        for text in ["a", "a:", "a:0", "a:65536", "::1:80", "u:p@a:80", "http://a:80", "a:+80", "[::1]", ":80"] {
            assert!(parse_host_port(text).is_err(), "{text}");
        }
    }
}
