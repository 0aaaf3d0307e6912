//! [`Proxy`]: a forward proxy between this cache and a source, and [`Proxies`]: which origin is asked through which one.
//! Pure: reading settings is `config`'s business, connecting [`super::connect`]'s.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use ipnet::IpNet;

use crate::content::{Origin, Scheme};

/// A forward proxy that speaks HTTP/1.1 without TLS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Proxy {
    /// Its name or address; an IPv6 address stands in brackets.
    pub host: Arc<str>,
    /// Its port.
    pub port: u16,
    /// What it is shown of who we are.
    pub credentials: Option<Credentials>,
}

/// User and password as the value of `Proxy-Authorization` (RFC 7617 section 2). Never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credentials(HeaderValue);

/// Which proxy stands before origins.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Proxies {
    /// For origins that are spoken to by http.
    pub http: Option<Arc<Proxy>>,
    /// For origins that are spoken to by https, by CONNECT.
    pub https: Option<Arc<Proxy>>,
    /// For these there is none.
    pub except: Vec<Exception>,
}

/// One entry of `no_proxy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exception {
    /// `*`: everything.
    All,
    /// A name and all below it, on one port or any.
    Name(String, Option<u16>),
    /// Addresses, for origins that are named by one.
    Network(IpNet),
}

impl Credentials {
    /// Of a user and a password; `None` with a colon in the user's name, which the scheme cannot carry.
    pub fn basic(user: &str, password: &str) -> Option<Self> {
        if user.contains(':') {
            return None;
        }
        let value = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        Some(Self(value))
    }

    /// The value of the field.
    pub(super) fn value(&self) -> &HeaderValue {
        &self.0
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(***)")
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Proxies {
    /// The proxy through which `origin` is asked.
    pub fn of(&self, origin: &Origin) -> Option<Arc<Proxy>> {
        let proxy = match origin.scheme {
            Scheme::Http => self.http.as_ref(),
            Scheme::Https => self.https.as_ref(),
        }?;
        let is_excepted = self.except.iter().any(|exception| exception.covers(&origin.host, origin.port));
        (!is_excepted).then(|| Arc::clone(proxy))
    }
}

impl Exception {
    /// Reads one entry: `*`, a name (also with a leading dot or `*.`), `name:port`, an address or a network.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(network) = bare.parse::<IpNet>() {
            return Some(Self::Network(network));
        }
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Some(Self::Network(address.into()));
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok()?)),
            None => (text, None),
        };
        let name = name.strip_prefix("*.").or_else(|| name.strip_prefix('.')).unwrap_or(name);
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let proper = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        (!name.is_empty() && name.bytes().all(proper)).then_some(Self::Name(name, port))
    }

    fn covers(&self, host: &str, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Name(name, only) => {
                let below = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
                below && only.is_none_or(|only| only == port)
            }
            Self::Network(network) => {
                let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
                bare.parse::<IpAddr>().is_ok_and(|address| network.contains(&address))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(scheme: Scheme, host: &str, port: u16) -> Origin {
        Origin { scheme, host: host.into(), port }
    }

    #[test]
    fn each_scheme_has_its_proxy_and_exceptions_have_none() {
        let proxy = |host: &str| Some(Arc::new(Proxy { host: host.into(), port: 3128, credentials: None }));
        let except = ["local", ".example.com", "*.test", "10.0.0.0/8", "2001:db8::1", "other.net:81"];
        let except = except.iter().map(|text| Exception::parse(text).unwrap()).collect();
        let proxies = Proxies { http: proxy("plain"), https: proxy("secure"), except };
        for (host, port, expected) in [
            ("dl.example.org", 80, true),
            ("local", 80, false),
            ("a.local", 80, false),
            ("notlocal", 80, true),
            ("example.com", 80, false),
            ("dl.example.com", 80, false),
            ("x.test", 8080, false),
            ("10.1.2.3", 80, false),
            ("11.1.2.3", 80, true),
            ("[2001:db8::1]", 80, false),
            ("other.net", 81, false),
            ("other.net", 80, true),
        ] {
            assert_eq!(proxies.of(&origin(Scheme::Http, host, port)).is_some(), expected, "{host}:{port}");
        }
        assert_eq!(&*proxies.of(&origin(Scheme::Https, "a.org", 443)).unwrap().host, "secure");
        let none = Proxies { except: vec![Exception::All], ..proxies };
        assert_eq!(none.of(&origin(Scheme::Https, "a.org", 443)), None);
    }

    #[test]
    fn entries_that_name_nothing_are_refused() {
        for text in ["", ".", "*.", "a b", "http://x", "x:y", "x:70000", "10.0.0.0/40"] {
            assert_eq!(Exception::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn credentials_are_those_of_the_rfc_and_never_shown() {
        let credentials = Credentials::basic("Aladdin", "open sesame").unwrap();
        assert_eq!(credentials.value(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        let proxy = Proxy { host: "p".into(), port: 3128, credentials: Some(credentials) };
        assert!(!format!("{proxy} {proxy:?}").contains("QWx"));
        assert!(Credentials::basic("a:b", "c").is_none());
    }
}
