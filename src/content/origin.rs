//! [`Origin`]: where a resource comes from, as scheme, host and port.

use std::fmt;
use std::sync::Arc;

/// The two schemes an origin may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// Plain HTTP/1.1, default port 80.
    Http,
    /// HTTP/1.1 over TLS, default port 443.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// 80 or 443 (RFC 9110 section 4.2).
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Scheme, host and port of an origin server (RFC 9110 section 4.3.1). The host is lower case and has no
/// trailing dot; an IPv6 literal stands in brackets, as in a URI.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// How to speak to it.
    pub scheme: Scheme,
    /// Its name or literal address.
    pub host: Arc<str>,
    /// Its port.
    pub port: u16,
}

impl Origin {
    /// `host`, or `host:port` when the port is not the scheme's default: the value of a `Host` field.
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}
