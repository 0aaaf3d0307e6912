//! Parsers of single values: addresses, networks, numbers, words. Each says what is allowed.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::reader::{Fault, Parsed};
use super::tree::Value;
use super::units::{parse_duration, parse_size};

/// Who may use a port, before it becomes the owner's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClientWord {
    /// `any`.
    Any,
    /// `private`.
    Private,
    /// `loopback`.
    Loopback,
    /// A network or an address.
    Network(IpNet),
}

/// `true` or `false`.
pub(super) fn boolean(value: &Value) -> Parsed<bool> {
    match value {
        Value::Bool(value) => Ok(*value),
        _ => Err(Fault::new("this is not a yes or no", "write true or false")),
    }
}

/// A non-empty text.
pub(super) fn text(value: &Value) -> Parsed<&str> {
    match value {
        Value::Text(text) if !text.is_empty() => Ok(text),
        Value::Text(_) => Err(Fault::new("the text is empty", "write a value, or leave the setting out")),
        _ => Err(Fault::new("this is not a text", "write a text; quote it if it looks like a number")),
    }
}

/// `null` or a value.
pub(super) fn optional<T>(parse: impl FnOnce(&Value) -> Parsed<T>) -> impl FnOnce(&Value) -> Parsed<Option<T>> {
    |value| match value {
        Value::Null => Ok(None),
        value => parse(value).map(Some),
    }
}

/// A whole number in a range.
pub(super) fn whole(range: RangeInclusive<usize>) -> impl Fn(&Value) -> Parsed<usize> {
    move |value| {
        let number = match value {
            Value::Number(text) => text.parse().ok(),
            _ => None,
        };
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            let remedy = format!("write a whole number from {} to {}", range.start(), range.end());
            Fault::new("this is not an allowed number", remedy)
        })
    }
}

/// A size in bytes in a range; `allowed` says the range in words.
pub(super) fn size(range: RangeInclusive<u64>, allowed: &'static str) -> impl Fn(&Value) -> Parsed<u64> {
    move |value| {
        let (Value::Text(text) | Value::Number(text)) = value else {
            return Err(Fault::new("this is not a size", format!("write a size {allowed}")));
        };
        let bytes = parse_size(text).map_err(|error| {
            Fault::new(format!("this is not a size: {error}"), "write for example 10 GB, 1 MiB or 4096")
        })?;
        if range.contains(&bytes) {
            Ok(bytes)
        } else {
            Err(Fault::new("this size is not allowed", format!("write a size {allowed}")))
        }
    }
}

/// A time in a range; `allowed` says the range in words.
pub(super) fn duration(range: RangeInclusive<Duration>, allowed: &'static str) -> impl Fn(&Value) -> Parsed<Duration> {
    move |value| {
        let (Value::Text(text) | Value::Number(text)) = value else {
            return Err(Fault::new("this is not a time", format!("write a time {allowed}, for example 10s")));
        };
        let time = parse_duration(text).map_err(|error| {
            Fault::new(format!("this is not a time: {error}"), "write for example 500ms, 10s, 5m, 2h or 7d")
        })?;
        if range.contains(&time) {
            Ok(time)
        } else {
            Err(Fault::new("this time is not allowed", format!("write a time {allowed}")))
        }
    }
}

/// One of a few words.
pub(super) fn word<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&Value) -> Parsed<T> {
    move |value| {
        let found = match value {
            Value::Text(text) => words.iter().find(|(name, _)| name == text),
            _ => None,
        };
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
            Fault::new("this word is not known here", format!("write one of: {}", names.join(", ")))
        })
    }
}

/// A directory.
pub(super) fn path(value: &Value) -> Parsed<PathBuf> {
    let text = text(value)?;
    if text.contains('\0') {
        return Err(Fault::new("a path has no NUL in it", "write the path of a directory"));
    }
    Ok(PathBuf::from(text))
}

/// The address and port of a listener.
pub(super) fn listener(value: &Value) -> Parsed<SocketAddr> {
    text(value)?.parse().map_err(|_| {
        Fault::new(
            "this is not an address with a port",
            "write \"[::]:8081\" for all addresses, or one like \"192.168.1.5:8081\"; names are not looked up",
        )
    })
}

/// A network (`10.0.0.0/8`) or a single address.
pub(super) fn network(value: &Value) -> Parsed<IpNet> {
    let text = text(value)?;
    let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    network
        .map(|network| as_ipv4(network.trunc()))
        .ok_or_else(|| Fault::new("this is not a network", "write a network like 10.1.0.0/16 or an address"))
}

/// The IPv4 network that is written as one of IPv4-mapped addresses: addresses are compared in the shorter form.
fn as_ipv4(network: IpNet) -> IpNet {
    let mapped = match network.addr() {
        IpAddr::V6(address) => address.to_ipv4_mapped(),
        IpAddr::V4(_) => None,
    };
    let short = mapped.zip(network.prefix_len().checked_sub(96));
    short.and_then(|(address, length)| IpNet::new(address.into(), length).ok()).unwrap_or(network)
}

/// One entry of a list of clients.
pub(super) fn client(value: &Value) -> Parsed<ClientWord> {
    match text(value)? {
        "any" => Ok(ClientWord::Any),
        "private" => Ok(ClientWord::Private),
        "loopback" => Ok(ClientWord::Loopback),
        _ => network(value).map(ClientWord::Network).map_err(|_| {
            Fault::new(
                "this is not a network",
                "write private, loopback, any, a network like 10.1.0.0/16 or an address",
            )
        }),
    }
}

/// The same for who may ask by digest; `None` stands for `certified`, whoever has shown a certificate.
pub(super) fn digest_client(value: &Value) -> Parsed<Option<ClientWord>> {
    if text(value)? == "certified" {
        return Ok(None);
    }
    let remedy = "write certified, private, loopback, any, a network like 10.1.0.0/16 or an address";
    client(value).map(Some).map_err(|fault| Fault::new(fault.problem, remedy))
}

/// A token (RFC 9110 section 5.6.2).
pub(super) fn token(value: &Value) -> Parsed<String> {
    let text = text(value)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if text.len() <= 128 && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err(Fault::new("this is not a token", "write letters, digits, - . _ and no spaces, at most 128 characters"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_addresses() {
        for (text, network_text) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("fe80::1", "fe80::1/128"),
            ("fc00::/7", "fc00::/7"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(network(&text.into()).map(|n| n.to_string()), Ok(network_text.to_owned()));
        }
        for text in ["", "10.0.0.0/33", "10.0.0", "private", "host"] {
            assert!(network(&text.into()).is_err(), "{text}");
        }
        assert_eq!(client(&"any".into()), Ok(ClientWord::Any));
        assert!(client(&"ANY".into()).is_err());
    }

    #[test]
    fn listeners_need_an_address_and_a_port() {
        for text in ["[::]:8081", "0.0.0.0:80", "127.0.0.1:0"] {
            assert!(listener(&text.into()).is_ok(), "{text}");
        }
        for text in ["8081", ":8081", "localhost:8081", "::1", "1.2.3.4", "1.2.3.4:99999", "http://1.2.3.4:80"] {
            assert!(listener(&text.into()).is_err(), "{text}");
        }
        assert!(listener(&Value::Number("8081".into())).is_err());
    }

    #[test]
    fn ranges_are_kept() {
        let between = duration(Duration::from_secs(1)..=Duration::from_secs(10), "from 1s to 10s");
        assert_eq!(between(&"10s".into()), Ok(Duration::from_secs(10)));
        for text in ["999ms", "11s", "5", "soon"] {
            assert!(between(&text.into()).is_err(), "{text}");
        }
        assert_eq!(whole(1..=5)(&Value::Number("5".into())), Ok(5));
        for value in [Value::Number("6".into()), Value::Number("-1".into()), Value::Number("1.5".into()), "5".into()] {
            assert!(whole(1..=5)(&value).is_err(), "{value}");
        }
    }
}
