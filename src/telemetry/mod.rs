//! Metrics and logs: names, registry, formats. Imports nothing of the crate.

mod metrics;

pub use metrics::Metrics;
