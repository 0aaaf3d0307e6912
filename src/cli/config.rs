//! `waystation config check` and `waystation config show`.

use std::path::PathBuf;

use serde_json::json;

use crate::config::{Config, ConfigErrors, Loaded};

use super::exit_codes::Exit;
use super::output::{self, Output};
use super::settings::SettingFlags;

/// What to do with the configuration.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum ConfigCommand {
    /// Say everything that is wrong with the settings
    Check(FileArgs),
    /// Print the settings in effect, each with where it came from; the output can be used as a file
    Show(FileArgs),
}

/// The file and flags of which configuration.
#[derive(Debug, Clone, clap::Args)]
pub struct FileArgs {
    /// YAML file with settings; without it `WAYSTATION_CONFIG` names one, or else the defaults are used
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The same, as `run` takes it
    #[arg(long, short, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    /// Flags that are settings.
    #[command(flatten)]
    settings: SettingFlags,
}

impl FileArgs {
    /// The settings in effect.
    pub(super) fn load(&self) -> Result<Loaded, ConfigErrors> {
        Config::load(&self.settings.sources(self.file.as_deref().or(self.config.as_deref()))?)
    }
}

/// Checks or shows.
pub(super) fn run(command: &ConfigCommand, output: Output) -> Exit {
    let (ConfigCommand::Check(args) | ConfigCommand::Show(args)) = command;
    let loaded = match args.load() {
        Ok(loaded) => loaded,
        Err(errors) => {
            let text = output::config_errors(output, &errors);
            match output {
                Output::Text => output::fault(&text),
                Output::Json => output::result(&text),
            }
            return Exit::Usage;
        }
    };
    let notes = &loaded.config.notes;
    output::result(&match (command, output) {
        (ConfigCommand::Check(_), Output::Text) => {
            notes.iter().fold("the settings are valid".to_owned(), |text, note| format!("{text}\nnote: {note}"))
        }
        (ConfigCommand::Check(_), Output::Json) => json!({ "valid": true, "errors": [], "notes": notes }).to_string(),
        (ConfigCommand::Show(_), Output::Text) => loaded.effective.to_yaml(),
        (ConfigCommand::Show(_), Output::Json) => {
            let rules: Vec<&str> = loaded.config.rules.iter().map(|policy| &*policy.rule).collect();
            json!({ "settings": loaded.effective.settings(), "origin_rules": rules, "notes": notes }).to_string()
        }
    });
    Exit::Success
}
