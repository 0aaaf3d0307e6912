//! `waystation run`: the configuration, then the node.

use std::process::ExitCode;

use crate::config::Config;

use super::exit_codes::Exit;
use super::output::{self, Output};
use super::settings::RunArgs;

/// Loads the configuration and runs the node until it has drained.
pub(super) fn run(args: &RunArgs, output: Output) -> ExitCode {
    let sources = args.settings.sources(args.config.as_deref());
    match sources.and_then(|sources| Config::load(&sources)) {
        Ok(loaded) => crate::node::run(loaded),
        Err(errors) => {
            output::fault(&output::config_errors(output, &errors));
            Exit::Usage.into()
        }
    }
}
