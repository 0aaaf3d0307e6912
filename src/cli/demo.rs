//! `waystation demo`.

use std::process::ExitCode;

/// Runs the demonstration.
pub(super) fn run() -> ExitCode {
    ExitCode::FAILURE
}
