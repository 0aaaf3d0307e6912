//! [`AccessList`]: which client addresses may use something. Finding out a client's address is `serve`'s business.

use std::net::IpAddr;

use ipnet::IpNet;

/// Who may use a listener or a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessList {
    /// Everybody.
    Any,
    /// Addresses in these networks; an empty list is nobody.
    Networks(Vec<IpNet>),
}

impl AccessList {
    /// Nobody.
    pub fn nobody() -> Self {
        Self::Networks(Vec::new())
    }

    /// Loopback addresses.
    pub fn loopback() -> Self {
        Self::networks(&["127.0.0.0/8", "::1/128"])
    }

    /// Loopback, RFC 1918, fc00::/7, link-local and 100.64/10: written `private`.
    pub fn private() -> Self {
        Self::networks(&[
            "127.0.0.0/8",
            "::1/128",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "fc00::/7",
            "169.254.0.0/16",
            "fe80::/10",
            "100.64.0.0/10",
        ])
    }

    /// Whether `address` is on the list. An IPv4-mapped IPv6 address counts as the IPv4 one.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        match self {
            Self::Any => true,
            Self::Networks(networks) => networks.iter().any(|network| network.contains(&address)),
        }
    }

    fn networks(list: &[&str]) -> Self {
        Self::Networks(list.iter().filter_map(|network| network.parse().ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_allow_whom_they_name() {
        let rows = [
            (AccessList::nobody(), "127.0.0.1", false),
            (AccessList::Any, "203.0.113.1", true),
            (AccessList::loopback(), "127.0.0.1", true),
            (AccessList::loopback(), "::1", true),
            (AccessList::loopback(), "::ffff:127.0.0.1", true),
            (AccessList::loopback(), "10.0.0.1", false),
            (AccessList::private(), "172.17.0.1", true),
            (AccessList::private(), "::ffff:192.168.1.7", true),
            (AccessList::private(), "203.0.113.1", false),
            (AccessList::private(), "2001:db8::1", false),
        ];
        for (list, address, expected) in rows {
            assert_eq!(list.allows(address.parse().unwrap()), expected, "{list:?} {address}");
        }
    }
}
