//! [`Rules`]: which hosts are served, and by which policy.
//!
//! A host is found by its exact name first, then by the longest `*.suffix`; the cost is one look-up for each
//! label. IP literals are found only by a rule for exactly that address.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::content::Policy;

use super::error::Shown;
use super::host::{HostFault, parse_host_port};

/// The origin rules.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    exact: HashMap<Box<str>, Arc<Policy>>,
    /// By the part after `*.`.
    suffixes: HashMap<Box<str>, Arc<Policy>>,
}

/// A rule's `host` that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError {
    pattern: Shown,
    fault: PatternFault,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PatternFault {
    Host(HostFault),
    Port,
    AddressSuffix,
}

impl Rules {
    /// Adds a rule for the pattern in [`Policy::rule`]: an exact host, or `*.suffix` for every host below the
    /// suffix but not the suffix itself. Gives back the rule that had this pattern before. Letter case and a
    /// trailing dot do not matter; an internationalised name stands for its A-label form.
    ///
    /// # Errors
    /// When the pattern holds no usable host.
    pub fn insert(&mut self, policy: Policy) -> Result<Option<Arc<Policy>>, PatternError> {
        let pattern = Arc::clone(&policy.rule);
        let (table, host) = match pattern.strip_prefix("*.") {
            Some(suffix) => (&mut self.suffixes, suffix),
            None => (&mut self.exact, &*pattern),
        };
        let error = |fault| PatternError { pattern: Shown::new(pattern.as_bytes()), fault };
        let parsed = match parse_host_port(host) {
            Err(HostFault::NonAscii { ascii: Some(ascii) }) if !host.contains(':') => parse_host_port(&ascii),
            parsed => parsed,
        }
        .map_err(|fault| error(PatternFault::Host(fault)))?;
        if parsed.port.is_some() {
            return Err(error(PatternFault::Port));
        }
        if parsed.literal && pattern.starts_with("*.") {
            return Err(error(PatternFault::AddressSuffix));
        }
        Ok(table.insert(parsed.host.into(), Arc::new(policy)))
    }

    /// The policy for a host as [`parse_host_port`] writes it.
    pub fn find(&self, host: &str) -> Option<&Arc<Policy>> {
        if let Some(policy) = self.exact.get(host) {
            return Some(policy);
        }
        let mut rest = host;
        while let Some((_, suffix)) = rest.split_once('.') {
            if let Some(policy) = self.suffixes.get(suffix) {
                return Some(policy);
            }
            rest = suffix;
        }
        None
    }

    /// All policies, in the order of their patterns.
    pub fn policies(&self) -> Vec<&Arc<Policy>> {
        let mut all: Vec<_> = self.exact.values().chain(self.suffixes.values()).collect();
        all.sort_by(|a, b| a.rule.cmp(&b.rule));
        all
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host \"{}\" ", self.pattern)?;
        match &self.fault {
            PatternFault::Host(fault) => write!(f, "{fault}; allowed are a host name, *.suffix or an IP address"),
            PatternFault::Port => f.write_str("has a port; write it as port: of the rule"),
            PatternFault::AddressSuffix => f.write_str("is a wildcard over addresses; list each address"),
        }
    }
}

impl std::error::Error for PatternError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(patterns: &[&str]) -> Rules {
        let mut rules = Rules::default();
        for pattern in patterns {
            assert!(rules.insert(Policy::for_host(pattern)).unwrap().is_none(), "{pattern} twice");
        }
        rules
    }

    #[test]
    fn exact_names_win_then_the_longest_suffix() {
        let rules = rules(&["*.example.com", "*.a.example.com", "x.a.example.com", "*.local", "10.0.0.1", "[fd00::1]"]);
        for (host, rule) in [
            ("b.example.com", Some("*.example.com")),
            ("c.b.example.com", Some("*.example.com")),
            ("a.example.com", Some("*.example.com")),
            ("b.a.example.com", Some("*.a.example.com")),
            ("x.a.example.com", Some("x.a.example.com")),
            ("y.x.a.example.com", Some("*.a.example.com")),
            ("printer.local", Some("*.local")),
            ("10.0.0.1", Some("10.0.0.1")),
            ("[fd00::1]", Some("[fd00::1]")),
            ("example.com", None),
            ("local", None),
            ("badexample.com", None),
            ("example.com.evil.example", None),
            ("10.0.0.2", None),
            ("[fd00::2]", None),
            ("", None),
        ] {
            assert_eq!(rules.find(host).map(|p| &*p.rule), rule, "{host}");
        }
    }

    #[test]
    fn patterns_take_any_spelling_of_a_name() {
        let rules = rules(&["*.Example.COM.", "bücher.example", "*.straße.example", "[FD00:0::1]"]);
        for host in ["a.example.com", "xn--bcher-kva.example", "a.xn--strae-oqa.example", "[fd00::1]"] {
            assert!(rules.find(host).is_some(), "{host}");
        }
    }

    #[test]
    fn a_second_rule_for_a_pattern_replaces_the_first() {
        let mut rules = rules(&["dl.example.com", "*.b.example"]);
        let replaced = rules.insert(Policy::for_host("DL.example.com.")).unwrap();
        assert_eq!(replaced.map(|p| p.rule.to_string()).as_deref(), Some("dl.example.com"));
        let names: Vec<_> = rules.policies().iter().map(|p| p.rule.to_string()).collect();
        assert_eq!(names, ["*.b.example", "DL.example.com."]);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for pattern in [
            "",
            "*",
            "*.",
            "*.*.example",
            "a.*.example",
            "*example.com",
            "h:80",
            "*.1.2.3.4",
            "*.[::1]",
            "http://h",
            "127.1",
        ] {
            let error = Rules::default().insert(Policy::for_host(pattern)).unwrap_err();
            assert!(error.to_string().starts_with("host \""), "{error}");
        }
    }
}
