//! How metrics are named, and the list of them for the documentation. What they count stands in `metrics.rs`.

use std::cell::RefCell;

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// What every name begins with.
pub const PREFIX: &str = "waystation";

/// Every label and what bounds its values. A label that is not here may not be used: URLs, clients and digests
/// have no bound.
pub const LABELS: [(&str, &str); 8] = [
    ("result", "`hit`, `partial`, `miss`, `stale`, `revalidated`, `bypass`, `refused` or `error`"),
    ("class", "`2xx`, `3xx`, `4xx` or `5xx`"),
    ("reason", "one of a fixed set"),
    ("outcome", "one of a fixed set"),
    ("direction", "`to-host` or `to-client`"),
    ("drive", "one for each configured drive"),
    ("parent", "one for each configured parent"),
    ("version", "one"),
];

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; starts at 0 with the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts in buckets, with their sum.
    Histogram,
}

/// One metric, as the documentation lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The full name.
    pub name: String,
    /// How it behaves.
    pub kind: Kind,
    /// Its HELP line.
    pub help: String,
    /// Names of its labels.
    pub labels: Vec<String>,
}

/// Makes metrics, registers them and remembers how they are described.
pub(super) struct Registrar {
    registry: Registry,
    described: RefCell<Vec<Description>>,
}

impl Kind {
    /// The word in a TYPE line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Registrar {
    pub(super) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new_custom(Some(PREFIX.to_owned()), None)?;
        Ok(Self { registry, described: RefCell::default() })
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::new(name, help)?, Kind::Counter, name, help, &[])
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?, Kind::Counter, name, help, labels)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::new(name, help)?, Kind::Gauge, name, help, &[])
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?, Kind::Gauge, name, help, labels)
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(options)?, Kind::Histogram, name, help, &[])
    }

    pub(super) fn finish(self) -> (Registry, Vec<Description>) {
        (self.registry, self.described.into_inner())
    }

    fn register<M: Collector + Clone + 'static>(
        &self,
        metric: M,
        kind: Kind,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<M> {
        self.registry.register(Box::new(metric.clone()))?;
        self.described.borrow_mut().push(Description {
            name: format!("{PREFIX}_{name}"),
            kind,
            help: help.to_owned(),
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
        });
        Ok(metric)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::telemetry::{Metrics, RequestResult};

    fn described() -> Vec<Description> {
        Metrics::new().unwrap().descriptions().to_vec()
    }

    #[test]
    fn names_follow_the_rules_of_the_text_format() {
        for Description { name, kind, help, labels } in described() {
            assert!(name.starts_with("waystation_"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
            assert!(!name.contains("__"), "{name}");
            assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}: only counters end in _total");
            for suffix in ["_count", "_sum", "_bucket"] {
                assert!(!name.ends_with(suffix), "{name}: {suffix} belongs to the parts of a histogram");
            }
            for unit in ["_ms", "_milliseconds", "_minutes", "_kb", "_kib", "_mb", "_mib", "_gb", "_percent", "_ratio"]
            {
                let base = name.trim_end_matches("_total");
                assert!(!base.ends_with(unit), "{name}: units are seconds and bytes");
            }
            if kind == Kind::Histogram {
                assert!(name.ends_with("_seconds") || name.ends_with("_bytes"), "{name}: a histogram names its unit");
            }
            for (word, unit) in [("bytes", "_bytes"), ("octets", "_bytes"), ("time", "_seconds"), ("age", "_seconds")] {
                if name.split('_').any(|part| part == word) {
                    assert!(name.trim_end_matches("_total").ends_with(unit), "{name}: {word} are given in {unit}");
                }
            }
            assert!(!help.is_empty() && !help.ends_with('.') && !help.contains('\n'), "{name}: help {help:?}");
            assert!(help.starts_with(|c: char| c.is_ascii_uppercase()), "{name}: help {help:?}");
            for label in &labels {
                assert!(
                    LABELS.iter().any(|(known, _)| known == label),
                    "{name}: label {label} is not known as bounded"
                );
            }
        }
    }

    #[test]
    fn every_label_that_is_listed_is_used() {
        let used: Vec<String> = described().into_iter().flat_map(|d| d.labels).collect();
        for (label, _) in LABELS {
            assert!(used.iter().any(|u| u == label), "{label}");
        }
        let results = RequestResult::ALL.map(|result| format!("`{result}`"));
        assert!(results.iter().all(|result| LABELS[0].1.contains(result)));
    }

    #[test]
    fn the_documented_list_is_the_registered_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let expected = document(described());
        if std::env::var_os("WAYSTATION_UPDATE_DOCS").is_some() {
            std::fs::write(path, &expected).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == expected,
            "docs/metrics.md is out of date; run: WAYSTATION_UPDATE_DOCS=1 cargo test --lib telemetry::names"
        );
    }

    fn document(mut described: Vec<Description>) -> String {
        described.sort_by(|a, b| a.name.cmp(&b.name));
        let mut text = "# Metrics\n\n\
            `/metrics` on the admin listener answers in the Prometheus text format 0.0.4. This list is made from the\n\
            code by `WAYSTATION_UPDATE_DOCS=1 cargo test --lib telemetry::names`, and a test compares them.\n\n\
            | name | type | labels | what it tells |\n| --- | --- | --- | --- |\n"
            .to_owned();
        for Description { name, kind, help, labels } in described {
            let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
            writeln!(text, "| `{name}` | {} | {labels} | {help} |", kind.as_str()).unwrap();
        }
        text.push_str("\n| label | values |\n| --- | --- |\n");
        for (label, values) in LABELS {
            writeln!(text, "| `{label}` | {values} |").unwrap();
        }
        text
    }
}
