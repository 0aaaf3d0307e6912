//! Metrics and logs: names, registry, formats. Imports nothing of the crate.

mod access;
mod line;
mod lines;
mod log;
mod metrics;
mod names;
mod process;
mod requests;
mod settings;
mod throttle;

pub use access::{AccessLine, AccessLog};
pub use log::{InstallError, LogGuard, install};
pub use metrics::Metrics;
pub use names::{Description, Kind, LABELS, PREFIX};
pub use requests::RequestResult;
pub use settings::{LogFormat, LogSettings, ParseLogFormatError};
pub use throttle::Throttle;
