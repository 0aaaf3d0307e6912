//! The command line: words and flags, what they print, and the table of exit codes. What commands do lives in
//! the parts that they call.

mod admin_client;
mod config;
mod demo;
mod drive;
mod exit_codes;
mod healthcheck;
mod output;
mod pins;
mod progress;
mod run;
mod settings;
mod store;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use config::{ConfigCommand, FileArgs};
pub use drive::{DriveArgs, DriveCommand};
pub use exit_codes::Exit;
pub use healthcheck::HealthcheckArgs;
pub use output::Output;
pub use pins::{PinArgs, UnpinArgs};
pub use settings::{RunArgs, SettingFlags};
pub use store::StoreCommand;

const EXAMPLES: &str = "\
Examples:
  waystation run                                  defaults: port 8081, ./data, 10 GB
  waystation run --config site.yaml --set log.level=debug
  waystation run --data 0.0.0.0:80 --drive /mnt/cache=500GB
  waystation config check site.yaml               everything that is wrong, at once
  waystation config show                          what is in effect, and why
  waystation store verify --config site.yaml      whether every stored byte is what it was
  waystation store pin http://host/a.swu --reason line-4 --for 30d   it stays when room is made
  waystation drive drain /mnt/old --config site.yaml  its content moves to the other drives
  waystation demo                                 a cache and its origin on this machine, no network needed

Settings come from flags, WAYSTATION_* variables (WAYSTATION_LISTEN__DATA), the file and built-in defaults, in
this order.";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "waystation", version, about = "A content cache for software updates in nested networks")]
#[command(after_help = EXAMPLES, after_long_help = long_help())]
pub struct Cli {
    /// How results and faults are printed
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Output,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the cache
    Run(RunArgs),
    /// Show a cache at work on this machine, with an origin of its own and no network; for people, as text alone
    Demo,
    /// Check or show the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at what is stored, and say what must stay
    #[command(subcommand)]
    Store(StoreCommand),
    /// Make, take over or empty a drive
    #[command(subcommand)]
    Drive(DriveCommand),
    /// Ask a running cache whether it is alive; for container health checks
    Healthcheck(HealthcheckArgs),
}

/// Runs the command that the arguments (the program's name first) name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way, too; a closed pipe is no fault.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Success.into() };
        }
    };
    match &cli.command {
        Command::Run(args) => run::run(args, cli.output),
        Command::Demo => demo::run(cli.output),
        Command::Config(command) => config::run(command, cli.output).into(),
        Command::Store(command) => store::run(command, cli.output).into(),
        Command::Drive(command) => drive::run(command, cli.output).into(),
        Command::Healthcheck(args) => healthcheck::run(args, cli.output).into(),
    }
}

fn long_help() -> String {
    let codes = Exit::ALL.map(|exit| format!("  {}  {}", exit.code(), exit.meaning()));
    format!("{EXAMPLES}\n\nExit codes:\n{}", codes.join("\n"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn words_and_flags_are_understood() {
        for line in [
            "waystation run",
            "waystation run --config a.yaml --set log.level=debug --set a.b=1 --data 0.0.0.0:80 --data [::]:80",
            "waystation run --state /s --drive /a --drive /b=10GB",
            "waystation --output json config check",
            "waystation config check a.yaml --output json",
            "waystation config show --config a.yaml",
            "waystation healthcheck --address 127.0.0.1:5001",
            "waystation demo",
            "waystation store pin http://a/b sha256:00 --reason why --for 30d --config a.yaml",
            "waystation store pin http://a/b --reason why --until 2027-01-31T00:00:00Z",
            "waystation store unpin a/b --admin 127.0.0.1:5001",
            "waystation store pins --output json",
            "waystation drive init /mnt/new",
            "waystation drive adopt /mnt/new --verify --config a.yaml",
            "waystation drive drain /mnt/old --evict --state /s --drive /mnt/old --output json",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
        for line in [
            "waystation",
            "waystation fly",
            "waystation run --set novalue",
            "waystation run --set =1",
            "waystation config",
            "waystation drive init",
            "waystation store pin --reason why",
            "waystation store pin http://a/b",
            "waystation store pin http://a/b --reason why --for soon",
            "waystation store pin http://a/b --reason why --for 1d --until 2027-01-31T00:00:00Z",
            "waystation store unpin",
            "waystation config show a.yaml --config b.yaml",
            "waystation healthcheck --address localhost",
        ] {
            assert!(parse(line).is_err_and(|error| error.use_stderr()), "{line}");
        }
    }

    #[test]
    fn help_shows_examples_and_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        for part in ["waystation config check", "Exit codes", "  2  "] {
            assert!(help.contains(part), "{part}");
        }
        assert!(parse("waystation --version").is_err_and(|error| !error.use_stderr()));
    }
}
