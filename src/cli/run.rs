//! `waystation run`: the configuration, then the node.

use std::process::ExitCode;

use crate::config::{Config, ConfigErrors, Loaded};

use super::exit_codes::Exit;
use super::output::{self, Output};
use super::settings::RunArgs;

/// Loads the configuration and runs the node until it has drained.
pub(super) fn run(args: &RunArgs, output: Output) -> ExitCode {
    match load(args) {
        Ok(loaded) => {
            let args = args.clone();
            crate::node::run(loaded, Box::new(move || load(&args)))
        }
        Err(errors) => {
            output::fault(&output::config_errors(output, &errors));
            Exit::Usage.into()
        }
    }
}

fn load(args: &RunArgs) -> Result<Loaded, ConfigErrors> {
    Config::load(&args.settings.sources(args.config.as_deref())?)
}
