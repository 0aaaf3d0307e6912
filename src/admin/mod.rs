//! The admin listener: health, readiness, metrics and the summary. It reads state through read handles
//! and changes nothing.

mod settings;

pub use settings::{AccessList, DEFAULT_PORT, Settings};
