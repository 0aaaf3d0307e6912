//! Host parsing: the text between a scheme and a path, as a lower-case host and an optional port.
//!
//! Stricter than RFC 3986 section 3.2.2 on purpose: what passes here is either a plain ASCII name or an IP
//! literal in its canonical spelling, so no resolver ever sees a spelling that we have not understood.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use percent_encoding::percent_decode;

/// A host as the crate writes it (lower case, no trailing dot, IPv6 in brackets) and the port that was
/// written out beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// The name or literal address.
    pub host: String,
    /// The port, when one was written.
    pub port: Option<u16>,
    /// Whether `host` is an IP literal and not a name.
    pub literal: bool,
}

/// What is wrong with a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostFault {
    /// Nothing there, or nothing but dots.
    Empty,
    /// Bytes beyond ASCII; holds the A-label form (RFC 5890) when there is one.
    NonAscii {
        /// What to write instead.
        ascii: Option<String>,
    },
    /// User-info (`user@host`), which a target must not have (RFC 9110 section 4.2.4).
    UserInfo,
    /// A scheme, path, query or fragment beside the host.
    NotOnlyAHost,
    /// A character that no host name has, white space and controls among them.
    Character,
    /// An empty label, one over 63 bytes, or one with a hyphen at its edge (RFC 1034 section 3.5).
    Label,
    /// More than 253 bytes.
    TooLong,
    /// A port that is no number from 1 to 65535.
    Port,
    /// An IPv4 address that is not written as four plain decimal numbers (`0x7f.1`, `2130706433`).
    IpSpelling,
    /// An IPv6 address without brackets, with a zone, or malformed.
    Ipv6,
}

/// Parses `host[:port]`. One trailing dot is dropped, letters become lower case, an IPv6 literal is written
/// anew in its shortest form (RFC 5952).
///
/// # Errors
/// The first thing that is wrong with it.
pub fn parse_host_port(text: &str) -> Result<HostPort, HostFault> {
    if text.is_empty() {
        return Err(HostFault::Empty);
    }
    if text.contains('@') {
        return Err(HostFault::UserInfo);
    }
    if text.contains(['/', '?', '#', '\\']) {
        return Err(HostFault::NotOnlyAHost);
    }
    if !text.is_ascii() {
        return Err(HostFault::NonAscii { ascii: ascii_form(text) });
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or(HostFault::Ipv6)?;
        let address: Ipv6Addr = address.parse().map_err(|_| HostFault::Ipv6)?;
        let port = match port.strip_prefix(':') {
            Some(port) => Some(parse_port(port)?),
            None if port.is_empty() => None,
            None => return Err(HostFault::Port),
        };
        return Ok(HostPort { host: format!("[{address}]"), port, literal: true });
    }
    let (name, port) = match text.split_once(':') {
        Some((_, port)) if port.contains(':') => return Err(HostFault::Ipv6),
        Some((name, port)) => (name, Some(parse_port(port)?)),
        None => (text, None),
    };
    parse_name(name).map(|(host, literal)| HostPort { host, port, literal })
}

/// As [`parse_host_port`], for a value that is percent-encoded (decoded once).
///
/// # Errors
/// As [`parse_host_port`]; bytes that are no UTF-8 are [`HostFault::NonAscii`].
pub fn parse_encoded_host_port(encoded: &str) -> Result<HostPort, HostFault> {
    let decoded = percent_decode(encoded.as_bytes()).decode_utf8().map_err(|_| HostFault::NonAscii { ascii: None })?;
    parse_host_port(&decoded)
}

fn parse_name(text: &str) -> Result<(String, bool), HostFault> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err(HostFault::Empty);
    }
    if name.len() > 253 {
        return Err(HostFault::TooLong);
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err(HostFault::Character);
    }
    let well_formed = |label: &str| (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-');
    if !name.split('.').all(well_formed) {
        return Err(HostFault::Label);
    }
    let name = name.to_ascii_lowercase();
    if !ends_in_number(&name) {
        return Ok((name, false));
    }
    // The standard parser takes exactly the canonical spelling; with a trailing dot it is none.
    match name.parse::<Ipv4Addr>() {
        Ok(_) if !text.ends_with('.') => Ok((name, true)),
        _ => Err(HostFault::IpSpelling),
    }
}

/// Whether system resolvers would try to read the name as an IPv4 address: its last label is a decimal,
/// octal or hexadecimal number.
fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    last.bytes().all(|b| b.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn parse_port(text: &str) -> Result<u16, HostFault> {
    if !(1..=5).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(HostFault::Port);
    }
    text.parse().ok().filter(|port| *port != 0).ok_or(HostFault::Port)
}

/// The A-label form of an internationalised name, unless it hides an IP address behind other digits.
fn ascii_form(text: &str) -> Option<String> {
    let name = text.split(':').next().unwrap_or(text);
    let ascii = idna::domain_to_ascii(name).ok()?;
    parse_host_port(&ascii).ok().filter(|parsed| !parsed.literal).map(|parsed| parsed.host)
}

impl HostFault {
    /// The fault for logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Empty => "host-empty",
            Self::NonAscii { .. } => "host-non-ascii",
            Self::UserInfo => "host-user-info",
            Self::NotOnlyAHost => "host-not-only-a-host",
            Self::Character => "host-character",
            Self::Label => "host-label",
            Self::TooLong => "host-too-long",
            Self::Port => "host-port",
            Self::IpSpelling => "host-ip-spelling",
            Self::Ipv6 => "host-ipv6",
        }
    }
}

impl fmt::Display for HostFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "is empty; name a host, for example dl.example.com",
            Self::NonAscii { ascii: Some(ascii) } => return write!(f, "is not ASCII; write {ascii}"),
            Self::NonAscii { ascii: None } => "is not ASCII; write the name in its A-label form (xn--...)",
            Self::UserInfo => "has user-info; leave out everything up to and including the @",
            Self::NotOnlyAHost => "is more than a host; leave out scheme, path and query",
            Self::Character => "has a character that host names lack; use letters, digits, - _ and .",
            Self::Label => "has a label that is empty, over 63 bytes long or has a - at its edge",
            Self::TooLong => "is longer than 253 bytes",
            Self::Port => "has a port that is no number from 1 to 65535",
            Self::IpSpelling => "is an unusual spelling of an IPv4 address; write four decimal numbers",
            Self::Ipv6 => "is a malformed IPv6 address; write it in brackets and without a zone, as [2001:db8::1]",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> (String, Option<u16>, bool) {
        let HostPort { host, port, literal } = parse_host_port(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
        (host, port, literal)
    }

    #[test]
    fn hosts_take_one_spelling() {
        let name = |host: &str, port| (host.to_owned(), port, false);
        let address = |host: &str, port| (host.to_owned(), port, true);
        assert_eq!(parsed("DL.Example.COM"), name("dl.example.com", None));
        assert_eq!(parsed("dl.example.com."), name("dl.example.com", None));
        assert_eq!(parsed("dl.example.com.:8080"), name("dl.example.com", Some(8080)));
        assert_eq!(parsed("origin_1"), name("origin_1", None));
        assert_eq!(parsed("XN--bcher-KVA.example"), name("xn--bcher-kva.example", None));
        assert_eq!(parsed("inst--acct.b.nlu.dl.adu.microsoft.com").0, "inst--acct.b.nlu.dl.adu.microsoft.com");
        assert_eq!(parsed("1.2.3.4"), address("1.2.3.4", None));
        assert_eq!(parsed("1.2.3.4:80"), address("1.2.3.4", Some(80)));
        assert_eq!(parsed("[2001:DB8:0:0::1]:8443"), address("[2001:db8::1]", Some(8443)));
        assert_eq!(parsed("[::FFFF:7F00:1]"), address("[::ffff:127.0.0.1]", None));
        assert_eq!(parsed("3com.example").0, "3com.example");
        assert_eq!(parsed("1.2.3.4.example").0, "1.2.3.4.example");
    }

    #[test]
    fn faulty_hosts_are_named() {
        let long_label = format!("{}.example", "a".repeat(64));
        let long_name = format!("{}example", "a.".repeat(130));
        let table: [(HostFault, &[&str]); 9] = [
            (HostFault::Empty, &["", ".", ":80"]),
            (HostFault::UserInfo, &["user@h.example", "user:pass@h.example:80", "@h.example"]),
            (HostFault::NotOnlyAHost, &["https://h.example", "h.example/", "h.example?x", "h.example#f", "h\\x"]),
            (HostFault::Character, &["h example", " h", "h\t", "h\0", "h%2e", "h,i", "h\r\nx", "*.h", "h+i", "a[b]"]),
            (HostFault::Label, &["h..example", ".h", "h..", "-h.example", "h-.example", &long_label]),
            (HostFault::TooLong, &[&long_name]),
            (HostFault::Port, &["h:", "h:0", "h:65536", "h:-1", "h:+80", "h:8o", "h:000080", "[::1]x", "[::1]:"]),
            (
                HostFault::IpSpelling,
                &[
                    "0x7f.1",
                    "2130706433",
                    "0177.0.0.1",
                    "127.1",
                    "127.0.0.01",
                    "0x7f000001",
                    "0X7F.0.0.1",
                    "1.2.3.4.",
                    "256.1.1.1",
                    "1.2.3.4.5",
                    "1.2.3.0x4",
                    "0",
                    "h.0x",
                    "017700000001:80",
                ],
            ),
            (HostFault::Ipv6, &["::1", "[::1", "[fe80::1%25eth0]", "[1.2.3.4]", "[]", "[v1.x]", "2001:db8::1:80"]),
        ];
        for (fault, texts) in table {
            for text in texts {
                assert_eq!(parse_host_port(text), Err(fault.clone()), "{text:?}");
            }
        }
    }

    #[test]
    fn internationalised_names_get_their_ascii_form_as_remedy() {
        let fault = |text| parse_host_port(text).unwrap_err();
        assert_eq!(fault("bücher.example"), HostFault::NonAscii { ascii: Some("xn--bcher-kva.example".into()) });
        assert_eq!(fault("BÜCHER.example:80"), HostFault::NonAscii { ascii: Some("xn--bcher-kva.example".into()) });
        // Full-width digits map to 127.0.0.1, which nobody shall be pointed at.
        assert_eq!(fault("１２７.0.0.1"), HostFault::NonAscii { ascii: None });
        assert_eq!(parse_encoded_host_port("b%C3%BCcher.example").unwrap_err(), fault("bücher.example"));
        assert_eq!(parse_encoded_host_port("%ff.example"), Err(HostFault::NonAscii { ascii: None }));
    }

    #[test]
    fn encoded_hosts_are_decoded_once() {
        assert_eq!(parse_encoded_host_port("dl%2Eexample%2ecom%3a8080").unwrap().host, "dl.example.com");
        assert_eq!(parse_encoded_host_port("dl%252eexample"), Err(HostFault::Character));
        assert_eq!(parse_encoded_host_port("h%00.example"), Err(HostFault::Character));
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_its_result_parses_to_itself(text in "\\PC{0,40}|[a-z0-9.:\\[\\]x-]{0,24}") {
            if let Ok(parsed) = parse_host_port(&text) {
                let again = parse_host_port(&parsed.host).unwrap();
                prop_assert_eq!(again, HostPort { port: None, ..parsed });
            }
        }
    }
}
