//! Metrics and logs: names, registry, formats. Imports nothing of the crate.

mod metrics;
mod settings;

pub use metrics::Metrics;
pub use settings::{LogFormat, LogSettings, ParseLogFormatError};
