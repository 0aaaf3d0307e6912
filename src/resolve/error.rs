//! [`Refusal`]: why a request is not resolved, as a status, a reason for logs and a message for people.
//!
//! Messages name the field, the value and the remedy. They never show user-info, queries or tokens.

use std::fmt;

use http::{Method, StatusCode};

use super::host::HostFault;
use super::target::{MAX_TARGET_BYTES, TargetFault};

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The target has this many bytes, more than are looked at: 414.
    TargetTooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The target is malformed or hostile: 400.
    Target(TargetFault),
    /// The place that names the origin holds no usable host: 400.
    Host {
        /// Where it stood.
        field: HostField,
        /// What is wrong.
        fault: HostFault,
        /// The value, made safe for logs.
        value: Shown,
    },
    /// An HTTP/1.1 request without `Host` (RFC 9112 section 3.2): 400.
    HostMissing,
    /// More than one `Host` (RFC 9112 section 3.2): 400.
    HostRepeated,
    /// `cacheHostOrigin` occurs several times and the last one is not the final parameter: 400.
    OriginRepeated,
    /// A request by digest that names no whole SHA-256 (RFC 6920 section 9.4): 400.
    Digest,
    /// Nothing in the request names an origin: 400.
    NoOrigin,
    /// The named host matches no rule: 403.
    UnknownOrigin {
        /// Where it stood.
        field: HostField,
        /// The host.
        host: Shown,
    },
    /// The rule of the host does not allow this port: 403.
    Port {
        /// The host.
        host: Shown,
        /// The port that was asked for.
        port: u16,
        /// The port of the rule.
        allowed: Option<u16>,
    },
    /// `https` was asked for in an absolute URL, and the rule would fetch in the clear: 403.
    Downgrade {
        /// The host.
        host: Shown,
    },
    /// The rule does not pass this method: 405.
    Method {
        /// The method that was used.
        method: Shown,
        /// What may be used, as an `Allow` value.
        allow: String,
    },
    /// CONNECT to what is not listed for it: 405.
    Connect {
        /// The target.
        authority: Shown,
    },
    /// CONNECT to what is no `host:port` (RFC 9110 section 9.3.6): 400.
    ConnectTarget,
    /// CONNECT with content: 400.
    ConnectContent,
}

/// Where a request names its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostField {
    /// The query parameter that Delivery Optimization agents append.
    CacheHostOrigin,
    /// The authority of an absolute URL or of CONNECT.
    Target,
    /// The segment behind `/-/`.
    Path,
    /// The `Host` field.
    Host,
    /// The authority in the `Location` of a redirect.
    Location,
}

/// Foreign text made safe to show: escaped, cut to 80 characters, and without what may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    /// Makes `bytes` safe. A query is cut off, a text with user-info is left out whole.
    pub fn new(bytes: &[u8]) -> Self {
        const MOST: usize = 80;
        if bytes.contains(&b'@') {
            return Self("(not shown: it has user-info)".to_owned());
        }
        let end = bytes.iter().position(|b| matches!(b, b'?' | b'#' | b'&')).unwrap_or(bytes.len());
        let (safe, cut) = bytes.split_at(end);
        let mut text: String = safe.iter().take(MOST).map(|b| b.escape_ascii().to_string()).collect();
        if safe.len() > MOST || !cut.is_empty() {
            text.push_str("...");
        }
        Self(text)
    }

    /// The safe text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Refusal {
    /// The status to answer with.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TargetTooLong { .. } => StatusCode::URI_TOO_LONG,
            Self::Target(_)
            | Self::Host { .. }
            | Self::HostMissing
            | Self::HostRepeated
            | Self::OriginRepeated
            | Self::Digest
            | Self::NoOrigin
            | Self::ConnectTarget
            | Self::ConnectContent => StatusCode::BAD_REQUEST,
            Self::UnknownOrigin { .. } | Self::Port { .. } | Self::Downgrade { .. } => StatusCode::FORBIDDEN,
            Self::Method { .. } | Self::Connect { .. } => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    /// The reason for logs and metrics; a small fixed set.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::TargetTooLong { .. } => "target-too-long",
            Self::Target(fault) => fault.as_str(),
            Self::Host { fault, .. } => fault.as_str(),
            Self::HostMissing => "host-missing",
            Self::HostRepeated => "host-repeated",
            Self::OriginRepeated => "origin-repeated",
            Self::Digest => "digest",
            Self::NoOrigin => "no-origin",
            Self::UnknownOrigin { .. } => "unknown-origin",
            Self::Port { .. } => "port-not-allowed",
            Self::Downgrade { .. } => "https-downgrade",
            Self::Method { .. } => "method-not-allowed",
            Self::Connect { .. } => "connect-not-allowed",
            Self::ConnectTarget => "connect-target",
            Self::ConnectContent => "connect-content",
        }
    }

    /// The `Allow` value that a 405 must carry (RFC 9110 section 15.5.6).
    pub fn allow(&self) -> Option<&str> {
        match self {
            Self::Method { allow, .. } => Some(allow),
            Self::Connect { .. } => Some("GET, HEAD"),
            _ => None,
        }
    }

    pub(super) fn method(method: &Method, allowed: &[Method]) -> Self {
        let allow = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        Self::Method { method: Shown::new(method.as_str().as_bytes()), allow }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TargetTooLong { length } => {
                write!(f, "request target has {length} bytes; shorten it to {MAX_TARGET_BYTES} at most")
            }
            Self::Target(fault) => write!(f, "request target {fault}"),
            Self::Host { field, fault, value } => write!(f, "{field} \"{value}\" {fault}"),
            Self::HostMissing => f.write_str("Host is missing; HTTP/1.1 requests carry exactly one"),
            Self::HostRepeated => f.write_str("Host occurs more than once; send exactly one"),
            Self::OriginRepeated => f.write_str(
                "cacheHostOrigin occurs more than once and not as the final parameter; send it once, at the end",
            ),
            Self::Digest => f.write_str(
                "this names no whole SHA-256; ask for /.well-known/ni/sha-256/ and 43 characters of base64url",
            ),
            Self::NoOrigin => f.write_str(
                "no origin is named; add ?cacheHostOrigin=HOST, ask for http://HOST/path, /-/HOST/path, or send Host",
            ),
            Self::UnknownOrigin { field, host } => {
                write!(f, "{field} \"{host}\" matches no configured origin; add it under origins or ask it directly")
            }
            Self::Port { host, port, allowed: Some(allowed) } => {
                write!(
                    f,
                    "port {port} of \"{host}\" is not allowed; its rule allows {allowed} and the scheme's default"
                )
            }
            Self::Port { host, port, allowed: None } => {
                write!(f, "port {port} of \"{host}\" is not allowed; leave it out or set port in the rule")
            }
            Self::Downgrade { host } => {
                write!(f, "https was asked for, but the rule of \"{host}\" says http; ask for http or change the rule")
            }
            Self::Method { method, allow } => write!(f, "method {method} is not passed to this origin; use {allow}"),
            Self::Connect { authority } => {
                write!(
                    f,
                    "CONNECT to \"{authority}\" is not allowed; add it under connect.allow, or connect without this cache"
                )
            }
            Self::ConnectTarget => f.write_str("CONNECT names no host and port; send CONNECT HOST:PORT"),
            Self::ConnectContent => f.write_str("CONNECT has content; send the tunnel's bytes behind an answer of 200"),
        }
    }
}

impl std::error::Error for Refusal {}

impl HostField {
    /// The name in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CacheHostOrigin => "cacheHostOrigin",
            Self::Target => "authority of the request target",
            Self::Path => "host in the path (/-/HOST/path)",
            Self::Host => "Host",
            Self::Location => "host in Location",
        }
    }
}

impl fmt::Display for HostField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_text_is_escaped_cut_and_free_of_secrets() {
        assert_eq!(Shown::new(b"h\0\r\n\"\xff").as_str(), "h\\x00\\r\\n\\\"\\xff");
        assert_eq!(Shown::new(b"https://h/p?sig=secret").as_str(), "https://h/p...");
        assert!(!Shown::new(b"user:secret@h").as_str().contains("secret"));
        assert_eq!(Shown::new(&[b'a'; 81]).as_str(), format!("{}...", "a".repeat(80)));
    }

    #[test]
    fn messages_name_field_value_and_remedy() {
        let refusal = Refusal::Host {
            field: HostField::CacheHostOrigin,
            fault: HostFault::NonAscii { ascii: Some("xn--bcher-kva.example".to_owned()) },
            value: Shown::new("bücher.example".as_bytes()),
        };
        let message = "cacheHostOrigin \"b\\xc3\\xbccher.example\" is not ASCII; write xn--bcher-kva.example";
        assert_eq!(refusal.to_string(), message);
        assert_eq!((refusal.status().as_u16(), refusal.as_str()), (400, "host-non-ascii"));
    }
}
