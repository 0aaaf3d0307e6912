//! `waystation store`: whether every byte that is stored is what it was when it came. The words for pins are in `pins`.

use std::path::Path;

use serde_json::json;

use super::config::FileArgs;
use super::exit_codes::Exit;
use super::output::{self, Output};
use super::pins::{self, PinArgs, UnpinArgs};
use super::progress::bar;
use super::settings::RunArgs;
use crate::store::{Finding, OpenError, Verification, verify};

/// What to do with the store.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum StoreCommand {
    /// Read everything that is stored and compare it with its checksums; the cache must not run. Changes nothing
    Verify(FileArgs),
    /// Keep something from eviction, until a time or until it is taken off
    Pin(PinArgs),
    /// Take pins off
    Unpin(UnpinArgs),
    /// List what is pinned, why, and how much of it is stored
    Pins(RunArgs),
}

/// Does what the command says.
pub(super) fn run(command: &StoreCommand, output: Output) -> Exit {
    match command {
        StoreCommand::Verify(args) => verify_all(args, output),
        StoreCommand::Pin(args) => pins::pin(args, output),
        StoreCommand::Unpin(args) => pins::unpin(args, output),
        StoreCommand::Pins(run) => pins::list(run, output),
    }
}

/// Reads all drives; [`Exit::Success`] when everything holds.
fn verify_all(args: &FileArgs, output: Output) -> Exit {
    let loaded = match args.load() {
        Ok(loaded) => loaded,
        Err(errors) => {
            output::fault(&output::config_errors(output, &errors));
            return Exit::Usage;
        }
    };
    let mut exit = Exit::Success;
    let mut reports = Vec::new();
    for drive in &loaded.config.store.drives {
        let bar = bar(&drive.path);
        let verified = verify(&drive.path, |at| {
            bar.set_length(at.all);
            bar.set_position(at.done);
        });
        bar.finish_and_clear();
        if !verified.as_ref().is_ok_and(|verification| verification.findings.is_empty()) {
            exit = Exit::Failure;
        }
        match output {
            Output::Text => text(&drive.path, &verified),
            Output::Json => reports.push(report(&drive.path, &verified)),
        }
    }
    if output == Output::Json {
        output::result(&json!({ "holds": exit == Exit::Success, "drives": reports }).to_string());
    }
    exit
}

fn text(path: &Path, verified: &Result<Verification, OpenError>) {
    match verified {
        Ok(verification) => {
            verification.findings.iter().for_each(|finding| output::fault(&format!("{}: {finding}", path.display())));
            let Verification { blobs, partials, bytes, findings } = verification;
            let verdict = match findings.len() {
                0 => "everything holds".to_owned(),
                count => format!("{count} findings"),
            };
            let path = path.display();
            output::result(&format!("{path}: {blobs} blobs and {partials} partial bodies, {bytes} bytes: {verdict}"));
        }
        Err(error) => output::fault(&error.to_string()),
    }
}

fn report(path: &Path, verified: &Result<Verification, OpenError>) -> serde_json::Value {
    let path = path.display().to_string();
    match verified {
        Ok(Verification { blobs, partials, bytes, findings }) => {
            let findings: Vec<String> = findings.iter().map(Finding::to_string).collect();
            json!({ "drive": path, "blobs": blobs, "partials": partials, "bytes": bytes, "findings": findings })
        }
        Err(error) => json!({ "drive": path, "error": error.to_string() }),
    }
}
