//! What commands print: results to standard output, faults to standard error.

use std::io::{self, Write};

use serde_json::json;

use crate::config::ConfigErrors;

/// `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON value.
    Json,
}

/// Writes a result. A reader that has gone away (`| head`) is no fault.
pub(super) fn result(text: &str) {
    let _ = write_line(&mut io::stdout().lock(), text);
}

/// Writes a fault.
pub(super) fn fault(text: &str) {
    let _ = write_line(&mut io::stderr().lock(), text);
}

/// The errors of a configuration, in both forms.
pub(super) fn config_errors(output: Output, errors: &ConfigErrors) -> String {
    match output {
        Output::Text => errors.to_string(),
        Output::Json => json!({ "valid": false, "errors": errors }).to_string(),
    }
}

fn write_line(stream: &mut impl Write, text: &str) -> io::Result<()> {
    stream.write_all(text.trim_end_matches('\n').as_bytes())?;
    stream.write_all(b"\n")?;
    stream.flush()
}
