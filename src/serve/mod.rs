//! The data port: accept, resolve, decide, serve.

pub mod limits;
pub mod listener;
pub mod wire;

mod settings;

pub use settings::{ClientAllowList, Limits, Settings};
