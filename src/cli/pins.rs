//! `waystation store pin|unpin|pins`: what must not be evicted, told to the cache that runs. How it is asked is `admin_client`'s
//! business, what a target means the cache's own.

use std::time::{Duration, SystemTime};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::admin_client::ask;
use super::exit_codes::Exit;
use super::output::{self, Output};
use super::settings::RunArgs;
use crate::admin;
use crate::config::{Config, parse_duration};
use crate::content::UnixMillis;

/// What to keep, why, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct PinArgs {
    /// URLs as devices ask for them, or sha256:HEX
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Why, for those who read the list
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// How long: 12h, 30d; without --for and --until it holds until it is taken off
    #[arg(long = "for", value_name = "TIME", conflicts_with = "until", value_parser = duration)]
    pub time: Option<Duration>,
    /// When it ends: 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// The settings of the cache.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What to let go.
#[derive(Debug, Clone, clap::Args)]
pub struct UnpinArgs {
    /// Targets as they were pinned, or as they are listed
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<String>,
    /// The settings of the cache.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Pins.
pub(super) fn pin(args: &PinArgs, output: Output) -> Exit {
    let ends = |time: Duration| UnixMillis::from(SystemTime::now()).plus(time).to_rfc3339();
    let expires = args.until.clone().or_else(|| args.time.map(ends));
    let body = json!({ "targets": args.targets, "reason": args.reason, "expires": expires }).to_string();
    told(&args.run, output, "POST", "/api/v1/pins", &body, lines)
}

/// Takes pins off, one after the other: a URL may be long. [`Exit::Success`] when each target had one.
pub(super) fn unpin(args: &UnpinArgs, output: Output) -> Exit {
    let admin = match admin_of(&args.run, output) {
        Ok(admin) => admin,
        Err(exit) => return exit,
    };
    let mut exit = Exit::Success;
    let mut unpinned = Vec::new();
    for target in &args.targets {
        let path = format!("/api/v1/pins?target={}", utf8_percent_encode(target, NON_ALPHANUMERIC));
        match ask(&admin, "DELETE", &path, "") {
            Ok(value) => unpinned.extend(strings(&value["unpinned"])),
            Err(error) => exit = failed(output, &format!("{target}: {error}")),
        }
    }
    match output {
        Output::Text => unpinned.iter().for_each(|target| output::result(&format!("not pinned any more: {target}"))),
        Output::Json => output::result(&json!({ "unpinned": unpinned }).to_string()),
    }
    exit
}

/// Lists pins.
pub(super) fn list(run: &RunArgs, output: Output) -> Exit {
    told(run, output, "GET", "/api/v1/pins", "", lines)
}

fn told(
    run: &RunArgs,
    output: Output,
    method: &str,
    target: &str,
    body: &str,
    text: impl Fn(&Value) -> String,
) -> Exit {
    let admin = match admin_of(run, output) {
        Ok(admin) => admin,
        Err(exit) => return exit,
    };
    match (ask(&admin, method, target, body), output) {
        (Ok(value), Output::Text) => output::result(&text(&value)),
        (Ok(value), Output::Json) => output::result(&value.to_string()),
        (Err(error), _) => return failed(output, &error),
    }
    Exit::Success
}

fn admin_of(run: &RunArgs, output: Output) -> Result<admin::Settings, Exit> {
    let loaded = run.settings.sources(run.config.as_deref()).and_then(|sources| Config::load(&sources));
    loaded.map(|loaded| loaded.config.admin).map_err(|errors| {
        output::fault(&output::config_errors(output, &errors));
        Exit::Usage
    })
}

fn failed(output: Output, error: &str) -> Exit {
    match output {
        Output::Text => output::fault(error),
        Output::Json => output::fault(&json!({ "error": error }).to_string()),
    }
    Exit::Failure
}

/// Two lines for each pin.
fn lines(value: &Value) -> String {
    let pins = value["pins"].as_array().map(Vec::as_slice).unwrap_or_default();
    if pins.is_empty() {
        return "nothing is pinned\n".to_owned();
    }
    let line = |pin: &Value| {
        let word = |name: &str| pin[name].as_str().unwrap_or_default().to_owned();
        let stored = match (pin["complete"].as_bool(), pin["bytes"].as_u64().unwrap_or_default()) {
            (Some(true), bytes) => format!("{bytes} bytes"),
            (_, 0) => "not stored yet".to_owned(),
            (_, bytes) => format!("{bytes} bytes of it"),
        };
        let until =
            pin["expires"].as_str().map_or_else(|| "until it is taken off".to_owned(), |at| format!("until {at}"));
        format!("{}\n  {stored}, {until}: {}\n", word("target"), word("reason"))
    };
    pins.iter().map(line).collect()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_two_lines() {
        let pin = |bytes: u64, complete: bool, expires: Option<&str>| json!({ "target": "dl.example.com/a", "reason": "why", "bytes": bytes, "complete": complete, "expires": expires });
        let text = lines(&json!({ "pins": [
            pin(7, true, None), pin(0, false, Some("2027-01-31T00:00:00Z")), pin(3, false, None)
        ]}));
        let expected = "dl.example.com/a\n  7 bytes, until it is taken off: why\n\
                        dl.example.com/a\n  not stored yet, until 2027-01-31T00:00:00Z: why\n\
                        dl.example.com/a\n  3 bytes of it, until it is taken off: why\n";
        assert_eq!(text, expected);
        assert_eq!(lines(&json!({ "pins": [] })), "nothing is pinned\n");
    }
}
