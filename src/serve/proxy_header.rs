//! The binary header of the PROXY protocol, version 2: what a proxy says of the connection that it relays (the text
//! "The PROXY protocol", sections 2.2 to 2.6, that comes with HAProxy). Pure: who may send one, and reading it from a
//! socket, are the listener's part.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The first bytes of every header; no request and no TLS record begins with them.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Longest header in bytes, all of it. What stands behind the addresses is skipped, so nothing needs more.
pub const LONGEST: usize = 4096;

/// Signature, version and command, family and transport, length of the rest.
const FIXED: usize = 16;

/// Whom a header names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// The proxy itself: the connection is its own, as for a health check (`LOCAL`).
    Proxy,
    /// A client, and its end of the connection to the proxy.
    Client(SocketAddr),
    /// A client of whom no address over TCP is told.
    Unknown,
}

/// What the bytes so far amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The header has `total` bytes at least, which is more than there are. None of them is behind it.
    NeedMore {
        /// In bytes, from the begin of the header.
        total: usize,
    },
    /// The header is complete.
    Complete {
        /// Where the bytes of the client begin.
        length: usize,
        /// Whom it names.
        named: Named,
    },
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// They do not begin like one.
    #[error("there is no PROXY protocol header of version 2")]
    Missing,
    /// A version, command, family or length that does not exist.
    #[error("the PROXY protocol header is malformed")]
    Malformed,
    /// Longer than [`LONGEST`].
    #[error("the PROXY protocol header is too long")]
    TooLong,
}

/// Looks at `bytes`, the first of a connection. What follows a header is not looked at, and whoever reads no more than
/// [`Progress::NeedMore`] asks for reads nothing of it. Bytes that cannot become a header are refused with the first
/// that does not fit.
///
/// # Errors
/// When they are no header.
pub fn parse(bytes: &[u8]) -> Result<Progress, HeaderError> {
    let begun = bytes.len().min(SIGNATURE.len());
    if bytes.get(..begun) != SIGNATURE.get(..begun) {
        return Err(HeaderError::Missing);
    }
    let Some((&[_, _, _, _, _, _, _, _, _, _, _, _, version, family, high, low], rest)) =
        bytes.split_first_chunk::<FIXED>()
    else {
        return Ok(Progress::NeedMore { total: FIXED });
    };
    let rest_length = usize::from(u16::from_be_bytes([high, low]));
    let length = FIXED.saturating_add(rest_length);
    let local = match version {
        0x20 => true,
        0x21 => false,
        _ => return Err(HeaderError::Malformed),
    };
    // Of a local connection the family says nothing.
    if !local && (family >> 4 > 3 || family & 0xf > 2) {
        return Err(HeaderError::Malformed);
    }
    if length > LONGEST {
        return Err(HeaderError::TooLong);
    }
    let least = match family {
        OVER_IPV4 => 12,
        OVER_IPV6 => 36,
        _ => 0,
    };
    if !local && rest_length < least {
        return Err(HeaderError::Malformed);
    }
    let Some(rest) = rest.get(..rest_length) else { return Ok(Progress::NeedMore { total: length }) };
    let named = if local { Named::Proxy } else { client(family, rest).map_or(Named::Unknown, Named::Client) };
    Ok(Progress::Complete { length, named })
}

/// TCP over IPv4, and over IPv6: the others are no addresses of clients of ours.
const OVER_IPV4: u8 = 0x11;
const OVER_IPV6: u8 = 0x21;

/// The source: both addresses stand first, then both ports. An IPv4-mapped address is written as IPv4.
fn client(family: u8, addresses: &[u8]) -> Option<SocketAddr> {
    let (ip, ports): (IpAddr, &[u8]) = match family {
        OVER_IPV4 => (Ipv4Addr::from(*addresses.first_chunk::<4>()?).into(), addresses.get(8..)?),
        OVER_IPV6 => (Ipv6Addr::from(*addresses.first_chunk::<16>()?).into(), addresses.get(32..)?),
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), u16::from_be_bytes(*ports.first_chunk::<2>()?)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header with these bytes behind the signature.
    fn header(version: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[version, family], &length, rest].concat()
    }

    fn over_ipv4() -> Vec<u8> {
        header(0x21, 0x11, &[192, 168, 1, 7, 10, 0, 0, 1, 0x30, 0x39, 0, 80])
    }

    fn over_ipv6(source: &str) -> Vec<u8> {
        let source = source.parse::<Ipv6Addr>().unwrap().octets();
        header(0x21, 0x21, &[&source[..], &[0; 16], &[0x30, 0x39, 0, 80]].concat())
    }

    fn named(bytes: &[u8]) -> Named {
        match parse(bytes) {
            Ok(Progress::Complete { length, named }) if length == bytes.len() => named,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn clients_over_tcp_are_named() {
        assert_eq!(named(&over_ipv4()), Named::Client("192.168.1.7:12345".parse().unwrap()));
        assert_eq!(named(&over_ipv6("fd00::7")), Named::Client("[fd00::7]:12345".parse().unwrap()));
        assert_eq!(named(&over_ipv6("::ffff:10.1.2.3")), Named::Client("10.1.2.3:12345".parse().unwrap()));
    }

    #[test]
    fn a_local_connection_is_the_proxys_own_whatever_the_family_says() {
        for family in [0, 0x11, 0x21, 0x31, 0x77, 0xff] {
            for rest in [&[][..], &[1, 2, 3]] {
                assert_eq!(named(&header(0x20, family, rest)), Named::Proxy, "{family:x}");
            }
        }
    }

    #[test]
    fn other_families_tell_of_no_client() {
        for family in [0, 0x01, 0x10, 0x12, 0x20, 0x22, 0x30, 0x31, 0x32] {
            assert_eq!(named(&header(0x21, family, &[9; 216])), Named::Unknown, "{family:x}");
        }
    }

    #[test]
    fn what_follows_the_addresses_is_skipped_up_to_a_length() {
        let extended = |more: usize| {
            let rest = [&over_ipv4()[FIXED..], &vec![0xff; more]].concat();
            header(0x21, 0x11, &rest)
        };
        for more in [1, 3, 700, LONGEST - FIXED - 12] {
            assert_eq!(named(&extended(more)), Named::Client("192.168.1.7:12345".parse().unwrap()), "{more}");
        }
        let longer = extended(LONGEST - FIXED - 11);
        assert_eq!(parse(&longer), Err(HeaderError::TooLong));
        assert_eq!(parse(&longer[..FIXED]), Err(HeaderError::TooLong), "seen before it is read");
        assert_eq!(parse(&header(0x20, 0, &[0; 60_000])), Err(HeaderError::TooLong));
    }

    #[test]
    fn what_does_not_exist_is_malformed() {
        for (version, family, rest) in [
            (0x11, 0x11, 12),
            (0x31, 0x11, 12),
            (0x22, 0x11, 12),
            (0x2f, 0x11, 12),
            (0x21, 0x41, 12),
            (0x21, 0x13, 12),
            (0x21, 0xf1, 12),
            (0x21, 0x11, 11),
            (0x21, 0x11, 0),
            (0x21, 0x21, 35),
        ] {
            let bytes = header(version, family, &vec![0; rest]);
            assert_eq!(parse(&bytes), Err(HeaderError::Malformed), "{version:x} {family:x} {rest}");
        }
    }

    #[test]
    fn other_beginnings_are_seen_at_their_first_byte_that_differs() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"G",
            b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
            &[0x16, 3, 1],
            b"\r\nG",
            b"\r\n\r\n\r",
        ] {
            assert_eq!(parse(bytes), Err(HeaderError::Missing), "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn a_header_is_read_to_its_last_byte_and_not_beyond(
            local: bool,
            family in prop::sample::select(vec![0x00_u8, 0x11, 0x12, 0x21, 0x22, 0x31]),
            rest in prop::collection::vec(any::<u8>(), 36..300),
            behind in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let bytes = header(if local { 0x20 } else { 0x21 }, family, &rest);
            let whole = parse(&bytes);
            // Asking for what is missing, as a reader does, never asks for a byte behind it.
            let mut have = 0;
            while let Ok(Progress::NeedMore { total }) = parse(&bytes[..have]) {
                prop_assert!(total > have && total <= bytes.len());
                have = total;
            }
            prop_assert_eq!(have, bytes.len());
            for cut in 0..bytes.len() {
                let needs_more = matches!(parse(&bytes[..cut]), Ok(Progress::NeedMore { .. }));
                prop_assert!(needs_more, "{cut}");
            }
            prop_assert_eq!(parse(&[bytes, behind].concat()), whole);
        }

        #[test]
        fn nothing_panics_and_nothing_is_longer_than_it_says(
            begins: bool,
            bytes in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            let bytes = if begins { [&SIGNATURE[..], &bytes].concat() } else { bytes };
            match parse(&bytes) {
                Ok(Progress::NeedMore { total }) => prop_assert!(total > bytes.len() && total <= LONGEST),
                Ok(Progress::Complete { length, .. }) => prop_assert!(length <= bytes.len() && length <= LONGEST),
                Err(_) => {}
            }
        }
    }
}
