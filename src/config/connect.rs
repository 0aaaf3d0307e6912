//! `connect`: the hosts and ports that CONNECT may name.

use std::time::Duration;

use crate::resolve::ConnectRule;

use super::host::HostPattern;
use super::origins::guard;
use super::reader::{Fault, Parsed, Section};
use super::tree::Value;
use super::values;

const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What the section says.
pub(super) struct Connect {
    pub(super) rules: Vec<ConnectRule>,
    pub(super) idle_time: Duration,
}

/// Reads the section.
pub(super) fn connect(section: &mut Section<'_>) -> Option<Connect> {
    let public = section.values("allow", None, |value| {
        rule(value, false, "list it under connect.allow_private if it is a machine of your own")
    });
    let private = section.values("allow_private", None, |value| rule(value, true, ""));
    let idle_time =
        section.value("idle_time", values::duration(Duration::from_millis(10)..=LONGEST, "from 10ms to 1d"));
    Some(Connect { rules: [public?, private?].concat(), idle_time: idle_time? })
}

fn rule(value: &Value, allow_private: bool, remedy: &str) -> Parsed<ConnectRule> {
    let text = values::text(value)?;
    let fault = || {
        Fault::new("this is not host:port", "write for example dl.example.com:443, *.example.com:443 or 192.0.2.1:8883")
    };
    if text.contains('@') {
        return Err(Fault::new("user and password are not allowed here", "write host:port alone"));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(fault)?;
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) || host.contains(':') != host.starts_with('[') {
        return Err(fault());
    }
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(fault)?;
    let pattern = HostPattern::parse(host)?;
    match pattern.literal().and_then(|literal| guard(literal, allow_private, remedy)) {
        Some(fault) => Err(fault),
        None => Ok(ConnectRule { host: pattern.as_str().into(), port, allow_private }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_take_one_spelling() {
        for (text, host, port) in [
            ("DL.example.com.:443", "dl.example.com", 443),
            ("*.Example.com:8883", "*.example.com", 8883),
            ("[2606:4700:0::1111]:443", "[2606:4700::1111]", 443),
            ("8.8.8.8:853", "8.8.8.8", 853),
        ] {
            let expected = ConnectRule { host: host.into(), port, allow_private: false };
            assert_eq!(rule(&text.into(), false, ""), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        for text in [
            "",
            "dl.example.com",
            "dl.example.com:",
            "dl.example.com:0",
            "dl.example.com:65536",
            "dl.example.com:https",
            "https://dl.example.com:443",
            "user:secret@dl.example.com:443",
            "*:443",
            "a.*.example:443",
            "*.8.8.8.8:443",
            "2606:4700::1111:443",
            "127.1:443",
            ":443",
        ] {
            assert!(rule(&text.into(), false, "").is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_of_inner_networks_stand_in_the_list_for_them() {
        for (text, public, private) in [
            ("8.8.8.8:443", true, true),
            ("10.1.2.3:443", false, true),
            ("127.0.0.1:443", false, true),
            ("169.254.169.254:443", false, false),
        ] {
            assert_eq!(rule(&text.into(), false, "").is_ok(), public, "{text}");
            assert_eq!(rule(&text.into(), true, "").is_ok(), private, "{text}");
        }
    }
}
