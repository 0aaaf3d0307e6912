//! The data port: accept, resolve, decide, serve.

mod settings;

pub use settings::{ClientAllowList, Limits, Settings};
