//! Where bytes come from: the plan of sources, their health, and one fetch attempt over HTTP.

mod settings;

pub use settings::{Settings, Timeouts};
