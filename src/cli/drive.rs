//! `waystation drive init|adopt|drain`: making drives, taking them over, and emptying them.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::exit_codes::Exit;
use super::output::{self, Output};
use super::progress::bar;
use super::settings::RunArgs;
use crate::store::{Adopted, Drained, Finding, OpenError, adopt_drive, drain, init_drive};

/// What to do with a drive.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum DriveCommand {
    /// Make a new, empty drive in an empty directory
    Init(DriveArgs),
    /// Use a drive of another cache, or another drive than the one that was at this path
    Adopt {
        /// Which one.
        #[command(flatten)]
        drive: DriveArgs,
        /// Read all of it first, instead of a sample
        #[arg(long)]
        verify: bool,
    },
    /// Move everything from a drive to the others, so that it can be taken out; the cache must not run. May be stopped and
    /// run again at any moment
    Drain {
        /// Which one.
        #[command(flatten)]
        drive: DriveArgs,
        /// Remove the content instead of moving it
        #[arg(long)]
        evict: bool,
    },
}

/// A drive and the configuration that it belongs to.
#[derive(Debug, Clone, clap::Args)]
pub struct DriveArgs {
    /// Directory of the drive
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// The settings of the cache.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What a command came to: for people, and as JSON.
struct Told {
    exit: Exit,
    text: String,
    json: Value,
}

/// Runs it; [`Exit::Success`] when all of it was done.
pub(super) fn run(command: &DriveCommand, output: Output) -> Exit {
    let (DriveCommand::Init(args) | DriveCommand::Adopt { drive: args, .. } | DriveCommand::Drain { drive: args, .. }) =
        command;
    let loaded =
        args.run.settings.sources(args.run.config.as_deref()).and_then(|sources| crate::config::Config::load(&sources));
    let store = match loaded {
        Ok(loaded) => loaded.config.store,
        Err(errors) => {
            output::fault(&output::config_errors(output, &errors));
            return Exit::Usage;
        }
    };
    let path = &args.path;
    let told = match command {
        DriveCommand::Init(_) => init_drive(path, &store.state).map(|id| initialised(path, &id)),
        DriveCommand::Adopt { verify, .. } => {
            let bar = bar(path);
            let adopted = adopt_drive(path, &store.state, *verify, |at| {
                bar.set_length(at.all);
                bar.set_position(at.done);
            });
            bar.finish_and_clear();
            adopted.map(|adopted| told_of_adoption(path, &adopted))
        }
        DriveCommand::Drain { evict, .. } => {
            let bar = bar(path);
            let drained = drain(&store, path, *evict, &mut |at| {
                bar.set_length(at.all);
                bar.set_position(at.done);
            });
            bar.finish_and_clear();
            drained.map(|drained| told_of_drain(path, &drained, *evict))
        }
    };
    let told = told.unwrap_or_else(|error| failed(path, &error));
    match output {
        Output::Json => output::result(&told.json.to_string()),
        Output::Text if told.exit == Exit::Success => output::result(&told.text),
        Output::Text => output::fault(&told.text),
    }
    told.exit
}

fn failed(path: &Path, error: &OpenError) -> Told {
    let json = json!({ "drive": path.display().to_string(), "done": false, "error": error.to_string() });
    Told { exit: Exit::Failure, text: error.to_string(), json }
}

fn initialised(path: &Path, id: &str) -> Told {
    let text = format!("{}: an empty drive, {id}; name it in storage.drives", path.display());
    let json = json!({ "drive": path.display().to_string(), "done": true, "id": id });
    Told { exit: Exit::Success, text, json }
}

fn told_of_adoption(path: &Path, adopted: &Adopted) -> Told {
    let Adopted { id, before, verification, accepted, pins_aside } = adopted;
    let findings: Vec<String> = verification.findings.iter().map(Finding::to_string).collect();
    let json = json!({
        "drive": path.display().to_string(),
        "done": accepted,
        "id": id,
        "before": before,
        "blobsRead": verification.blobs,
        "bytesRead": verification.bytes,
        "findings": findings,
        "pinsSetAside": pins_aside,
    });
    let path = path.display();
    let read = format!("{} blobs with {} bytes were read", verification.blobs, verification.bytes);
    let found: String = findings.iter().map(|finding| format!("{path}: {finding}\n")).collect();
    let (exit, verdict) = if *accepted {
        let before = before.as_ref().map_or(String::new(), |before| format!(" instead of {before}"));
        let pins = pins_aside.map_or(String::new(), |name| {
            format!("; the pins of the cache that had it do not count here, and are set aside in its file {name}")
        });
        (
            Exit::Success,
            format!(
                "the path is drive {id} from now on{before}; a cache that runs sees it within seconds, or after a restart when it had the other one in use{pins}"
            ),
        )
    } else {
        (Exit::Failure, "it is not taken over, since its content is not what it says; move it aside and run `waystation drive init`".to_owned())
    };
    Told { exit, text: format!("{found}{path}: {read}; {verdict}"), json }
}

fn told_of_drain(path: &Path, drained: &Drained, evict: bool) -> Told {
    let Drained { blobs, partials, bytes, left, left_bytes, told } = drained;
    let verb = if evict { "removed" } else { "moved" };
    let json = json!({
        "drive": path.display().to_string(),
        "done": left.is_empty(),
        "blobs": blobs,
        "partials": partials,
        "bytes": bytes,
        "told": told.iter().map(|(name, what)| json!({ "name": name, "what": what })).collect::<Vec<_>>(),
        "left": left.iter().map(|(name, why)| json!({ "name": name, "why": why })).collect::<Vec<_>>(),
        "leftBytes": left_bytes,
    });
    let path = path.display();
    let found: String = told.iter().map(|(name, what)| format!("{path}: {name}: {what}\n")).collect();
    let stayed: String = left.iter().map(|(name, why)| format!("{path}: {name} stays: {why}\n")).collect();
    let done = format!("{path}: {blobs} blobs and {partials} partial bodies with {bytes} bytes {verb}");
    let (exit, verdict) = match left.len() {
        0 => (Exit::Success, "the drive is empty; take it out of storage.drives".to_owned()),
        count => (
            Exit::Failure,
            format!(
                "{count} files stay, {left_bytes} bytes of them for want of room; make room on the others and run this again, or use --evict"
            ),
        ),
    };
    Told { exit, text: format!("{found}{stayed}{done}; {verdict}"), json }
}
