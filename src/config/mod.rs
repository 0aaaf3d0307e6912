//! The configuration: embedded defaults, a YAML file, environment variables and flags become the typed
//! settings of every part, or a list of everything that is wrong.
//!
//! The way of a value: [`Sources`] collects texts, `file` makes a tree of them, `environment` and `drop_in`
//! lay variables over it, `build` asks for each setting through `reader`, and `show` writes down what came
//! out. The settings structs live with the parts they belong to; nothing below the composition root imports
//! this module, and nothing here binds, opens or connects.

mod budget;
mod build;
mod builtin;
mod connect;
mod drop_in;
mod environment;
mod error;
mod file;
mod host;
mod listen;
mod origins;
mod reader;
mod show;
mod source;
mod source_variables;
mod sources;
mod tls;
mod tree;
mod units;
mod values;

use std::sync::Arc;

use crate::content::{Origin, Policy};
use crate::resolve::ConnectRule;
use crate::{admin, serve, store, telemetry, upstream};

pub use error::{ConfigError, ConfigErrors};
pub use show::{Effective, EffectiveSetting};
pub use source::Sources;
pub use tree::ValueSource;
pub use units::{UnitError, parse_duration, parse_size};

use reader::Report;

/// The settings of every part.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data listeners and what bounds them.
    pub serve: serve::Settings,
    /// Where content is kept.
    pub store: store::Settings,
    /// How sources are asked.
    pub upstream: upstream::Settings,
    /// Origin rules: own ones in the order of the file, then built-in ones. No host pattern is there twice.
    pub rules: Vec<Arc<Policy>>,
    /// The origin of requests that name no other. There need not be a rule for its host.
    pub default_origin: Option<Origin>,
    /// Where CONNECT may lead.
    pub connect: Vec<ConnectRule>,
    /// The admin listener.
    pub admin: admin::Settings,
    /// The logs.
    pub log: telemetry::LogSettings,
    /// What the operator should know, for the log: variables that are ignored, settings with a catch.
    pub notes: Vec<String>,
}

/// What a load gives.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The typed settings.
    pub config: Config,
    /// The same as text, with the source of each value.
    pub effective: Effective,
}

/// An element for each list of sections that is empty by default.
const ONE_OF_EACH: &str =
    "origins: [{ host: example.com }]\nupstream: { parents: [{ url: http://example.com }], budget: { windows: [{}] } }";

impl Config {
    /// Merges the sources and reads them.
    ///
    /// # Errors
    /// Everything that is wrong, each with its path, value, source and remedy. Only a text that is not YAML
    /// hides other errors.
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
        let (mut report, mut notes) = (Report::default(), Vec::new());
        let mut root = sources.merge(&mut report, &mut notes)?;
        let config = build::build(&mut root, &mut report, notes);
        ConfigErrors::check(report.errors)?;
        let config = config.ok_or_else(|| ConfigError {
            path: String::new(),
            source: String::new(),
            found: None,
            problem: "the settings could not be read".to_owned(),
            remedy: "this is a fault of the program: please report it".to_owned(),
        })?;
        let rules = config.rules.iter().map(|policy| format!("origin rule: {}", policy.rule));
        let remarks = rules.chain(config.notes.iter().map(|note| format!("note: {note}"))).collect();
        Ok(Loaded { effective: Effective::new(root, remarks), config })
    }

    /// The path of every setting that exists, list elements written `[]`: `storage.drives[].path`.
    pub fn setting_names() -> Vec<String> {
        let sources = Sources::new().file("names", ONE_OF_EACH);
        let mut report = Report::default();
        if let Ok(mut root) = sources.merge(&mut report, &mut Vec::new()) {
            build::build(&mut root, &mut report, Vec::new());
        }
        report.settings.into_iter().collect()
    }
}
