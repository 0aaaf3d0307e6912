//! The address guard's rule: which addresses an origin may not have. An allow-listed name that resolves to
//! an inner address would make the cache a bridge into the network it stands in.
//!
//! Only the judgement. Name resolution, and the rule that the address checked is the one connected to, are
//! the connector's business.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is refused (IANA special-purpose address registries, RFC 6890, and cloud platforms).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressRefusal {
    /// `0.0.0.0/8` and `::`: "this host", which many systems connect to themselves (RFC 1122, RFC 4291).
    Unspecified,
    /// `127.0.0.0/8` and `::1` (RFC 1122, RFC 4291).
    Loopback,
    /// `10.0.0.0/8`, `172.16.0.0/12`, `192.168.0.0/16` (RFC 1918).
    Private,
    /// `100.64.0.0/10`: between a provider and its customers (RFC 6598).
    SharedSpace,
    /// `169.254.0.0/16` and `fe80::/10` (RFC 3927, RFC 4291).
    LinkLocal,
    /// `169.254.169.254`: the metadata service of cloud machines, which gives out credentials.
    Metadata,
    /// `168.63.129.16`: the Azure platform as its virtual machines see it; a public address by its look.
    AzurePlatform,
    /// `192.0.0.0/24` and the rest of `2001::/23`: protocol assignments (RFC 6890, RFC 2928).
    ProtocolAssignment,
    /// `192.0.2.0/24`, `198.51.100.0/24`, `203.0.113.0/24`, `2001:db8::/32`, `3fff::/20` (RFC 5737, RFC 3849,
    /// RFC 9637).
    Documentation,
    /// `198.18.0.0/15` and `2001:2::/48`: benchmarks (RFC 2544, RFC 5180).
    Benchmark,
    /// `224.0.0.0/4` and `ff00::/8` (RFC 5771, RFC 4291).
    Multicast,
    /// `255.255.255.255` (RFC 919).
    Broadcast,
    /// `240.0.0.0/4` (RFC 1112) and IPv6 outside of `2000::/3`, the only space given out (RFC 4291).
    Reserved,
    /// `fc00::/7` (RFC 4193) and the former site-local `fec0::/10`.
    UniqueLocal,
    /// `::ffff:0:0/96` and the translated form `::ffff:0:0:0/96` (RFC 4291, RFC 2765).
    Ipv4Mapped,
    /// `::/96` but for `::` and `::1` (RFC 4291).
    Ipv4Compatible,
    /// `2002::/16` and the relay `192.88.99.0/24` (RFC 3056, RFC 7526).
    SixToFour,
    /// `64:ff9b::/96` and `64:ff9b:1::/48` (RFC 6052, RFC 8215).
    Nat64,
    /// `2001::/32` (RFC 4380).
    Teredo,
}

/// Judges an address: `None` when an origin on the public Internet may have it.
pub fn refuse_address(address: IpAddr) -> Option<AddressRefusal> {
    match address {
        IpAddr::V4(address) => refuse_v4(address),
        IpAddr::V6(address) => refuse_v6(address),
    }
}

fn refuse_v4(address: Ipv4Addr) -> Option<AddressRefusal> {
    use AddressRefusal as Is;
    let reason = match address.octets() {
        [0, ..] => Is::Unspecified,
        [127, ..] => Is::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Is::Private,
        [100, 64..=127, ..] => Is::SharedSpace,
        [169, 254, 169, 254] => Is::Metadata,
        [169, 254, ..] => Is::LinkLocal,
        [168, 63, 129, 16] => Is::AzurePlatform,
        [192, 0, 0, _] => Is::ProtocolAssignment,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Is::Documentation,
        [198, 18..=19, ..] => Is::Benchmark,
        [192, 88, 99, _] => Is::SixToFour,
        [224..=239, ..] => Is::Multicast,
        [255, 255, 255, 255] => Is::Broadcast,
        [240..=255, ..] => Is::Reserved,
        _ => return None,
    };
    Some(reason)
}

fn refuse_v6(address: Ipv6Addr) -> Option<AddressRefusal> {
    use AddressRefusal as Is;
    let [a, b, c, d, e, f, g, h] = address.segments();
    let (reason, embedded) = match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0] if g == 0 && h == 0 => (Is::Unspecified, None),
        [0, 0, 0, 0, 0, 0] if g == 0 && h == 1 => (Is::Loopback, None),
        [0, 0, 0, 0, 0, 0] => (Is::Ipv4Compatible, Some((g, h))),
        [0, 0, 0, 0, 0, 0xffff] | [0, 0, 0, 0, 0xffff, 0] => (Is::Ipv4Mapped, Some((g, h))),
        [0x64, 0xff9b, 0, 0, 0, 0] => (Is::Nat64, Some((g, h))),
        [0x64, 0xff9b, 1, ..] => (Is::Nat64, None),
        [0x2001, 0, ..] => (Is::Teredo, None),
        [0x2001, 2, 0, ..] => (Is::Benchmark, None),
        [0x2001, 0..=0x1ff, ..] => (Is::ProtocolAssignment, None),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => (Is::Documentation, None),
        [0x2002, ..] => (Is::SixToFour, Some((b, c))),
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => (Is::UniqueLocal, None),
        [0xfe80..=0xfebf, ..] => (Is::LinkLocal, None),
        [0xff00..=0xffff, ..] => (Is::Multicast, None),
        [0x2000..=0x3fff, ..] => return None,
        _ => (Is::Reserved, None),
    };
    // An embedded platform address keeps its own reason, since no setting lifts that one.
    let platform = embedded
        .and_then(|(high, low)| refuse_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))))
        .filter(|inner| matches!(inner, Is::Metadata | Is::AzurePlatform));
    Some(platform.unwrap_or(reason))
}

impl AddressRefusal {
    /// The reason for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::SharedSpace => "shared-space",
            Self::LinkLocal => "link-local",
            Self::Metadata => "metadata",
            Self::AzurePlatform => "azure-platform",
            Self::ProtocolAssignment => "protocol-assignment",
            Self::Documentation => "documentation",
            Self::Benchmark => "benchmark",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Reserved => "reserved",
            Self::UniqueLocal => "unique-local",
            Self::Ipv4Mapped => "ipv4-mapped",
            Self::Ipv4Compatible => "ipv4-compatible",
            Self::SixToFour => "6to4",
            Self::Nat64 => "nat64",
            Self::Teredo => "teredo",
        }
    }

    /// Whether a rule with `allow_private` may lift the refusal. Addresses that are no single host, and the
    /// platform services that hand out credentials, stay refused.
    pub fn lifted_by_allow_private(self) -> bool {
        !matches!(
            self,
            Self::Unspecified
                | Self::Metadata
                | Self::AzurePlatform
                | Self::Multicast
                | Self::Broadcast
                | Self::Reserved
        )
    }
}

impl fmt::Display for AddressRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::AddressRefusal as Is;
    use super::*;

    fn judge(text: &str) -> Option<AddressRefusal> {
        refuse_address(text.parse().unwrap())
    }

    #[test]
    fn special_addresses_are_refused_with_their_reason() {
        let table = [
            (Is::Unspecified, "0.0.0.0 0.1.2.3 0.255.255.255 ::"),
            (Is::Loopback, "127.0.0.1 127.255.255.255 ::1"),
            (Is::Private, "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.0 192.168.255.255"),
            (Is::SharedSpace, "100.64.0.0 100.127.255.255"),
            (Is::LinkLocal, "169.254.0.0 169.254.169.253 169.254.255.255 fe80::1 febf::1"),
            (Is::Metadata, "169.254.169.254 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1"),
            (Is::AzurePlatform, "168.63.129.16 ::ffff:168.63.129.16"),
            (Is::ProtocolAssignment, "192.0.0.0 192.0.0.192 192.0.0.255 2001:1::1 2001:1ff::1"),
            (Is::Documentation, "192.0.2.1 198.51.100.1 203.0.113.255 2001:db8::1 3fff::1 3fff:fff::1"),
            (Is::Benchmark, "198.18.0.0 198.19.255.255 2001:2::1"),
            (Is::Multicast, "224.0.0.1 239.255.255.255 ff02::1 ffff::1"),
            (Is::Broadcast, "255.255.255.255"),
            (Is::Reserved, "240.0.0.0 255.255.255.254 100::1 4000::1 5f00::1 fbff::1 1::1"),
            (Is::UniqueLocal, "fc00::1 fdff::1 fd00:ec2::254 fec0::1 feff::1"),
            (Is::Ipv4Mapped, "::ffff:8.8.8.8 ::ffff:127.0.0.1 ::ffff:0:8.8.8.8"),
            (Is::Ipv4Compatible, "::8.8.8.8 ::127.0.0.1 ::2"),
            (Is::SixToFour, "2002::1 2002:808:808::1 192.88.99.1"),
            (Is::Nat64, "64:ff9b::8.8.8.8 64:ff9b:1::1 64:ff9b:1:ffff::1"),
            (Is::Teredo, "2001::1 2001:0:ffff::1"),
        ];
        for (reason, addresses) in table {
            for address in addresses.split(' ') {
                assert_eq!(judge(address), Some(reason), "{address}");
            }
        }
    }

    #[test]
    fn public_addresses_pass_up_to_the_edges() {
        let addresses = "1.0.0.0 9.255.255.255 11.0.0.0 126.255.255.255 128.0.0.0 172.15.255.255 172.32.0.0 \
             192.167.255.255 192.169.0.0 100.63.255.255 100.128.0.0 169.253.255.255 169.255.0.0 168.63.129.15 \
             168.63.129.17 192.0.1.0 198.17.255.255 198.20.0.0 223.255.255.255 2000::1 2001:200::1 2001:4860:4860::8888 \
             2001:db7::1 2003::1 2606:4700::1111 3ffe::1 3fff:1000::1";
        for address in addresses.split_whitespace() {
            assert_eq!(judge(address), None, "{address}");
        }
    }

    #[test]
    fn allow_private_lifts_inner_addresses_but_no_platform_service() {
        for address in ["127.0.0.1", "10.0.0.1", "fd00::1", "fe80::1", "100.64.0.1", "64:ff9b::8.8.8.8"] {
            assert!(judge(address).unwrap().lifted_by_allow_private(), "{address}");
        }
        for address in ["169.254.169.254", "168.63.129.16", "0.0.0.0", "::", "224.0.0.1", "255.255.255.255"] {
            assert!(!judge(address).unwrap().lifted_by_allow_private(), "{address}");
        }
    }
}
