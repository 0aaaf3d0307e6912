//! Waystation, an on-premises connected content cache for nested-edge networks.

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod content;
pub mod decide;
pub mod fill;
pub mod node;
pub mod resolve;
pub mod serve;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod upstream;
