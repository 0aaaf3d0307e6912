//! The composition root.

use std::process::ExitCode;

/// Runs a node with these settings until it has drained.
pub fn run(_config: crate::config::Loaded) -> ExitCode {
    ExitCode::SUCCESS
}
