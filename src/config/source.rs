//! [`Sources`]: where values come from, collected before anything is read from them, so that tests can give
//! their own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use super::environment::{self, CONFIG_FILE};
use super::error::{ConfigError, ConfigErrors};
use super::reader::{Fault, Report};
use super::tree::{Node, ValueSource, parse_path};
use super::{drop_in, file, source_variables};

/// The settings of a standalone node; every setting outside of lists has its value here.
const DEFAULTS: &str = include_str!("../../config/default.yaml");

/// The same, parsed once.
static DEFAULT_TREE: LazyLock<Result<Node, ConfigError>> =
    LazyLock::new(|| file::parse(DEFAULTS, &ValueSource::Default));

/// The sources of one load: a file, variables and flags over the embedded defaults. Later ones go before
/// earlier ones: defaults, Connected Cache variables, file, `WAYSTATION_*` variables, flags.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    file: Option<(String, String)>,
    variables: BTreeMap<String, String>,
    flags: Vec<Flag>,
}

/// A value from the command line.
#[derive(Debug, Clone)]
struct Flag {
    name: String,
    path: String,
    value: String,
}

impl Sources {
    /// The embedded defaults alone.
    pub fn new() -> Self {
        Self::default()
    }

    /// The environment of this process and the file: `path`, or else the one that `WAYSTATION_CONFIG` names,
    /// or else none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn of_process(path: Option<&Path>) -> Result<Self, ConfigErrors> {
        // A variable that is not Unicode can be none of ours.
        let variables: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let (path, source) = match (path, variables.get(CONFIG_FILE).filter(|path| !path.is_empty())) {
            (Some(path), _) => (Some(path), "command line".to_owned()),
            (None, Some(path)) => (Some(Path::new(path)), format!("variable {CONFIG_FILE}")),
            (None, None) => (None, String::new()),
        };
        let file = match path {
            None => None,
            Some(path) => {
                let name = path.display().to_string();
                let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
                    path: String::new(),
                    source,
                    found: None,
                    problem: format!("the configuration file {name} cannot be read: {error}"),
                    remedy: "name a readable YAML file; without any, the embedded defaults are used".to_owned(),
                })?;
                Some((name, text))
            }
        };
        Ok(Self { file, variables, flags: Vec::new() })
    }

    /// With a configuration file of this name and content.
    #[must_use]
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.file = Some((name.to_owned(), text.to_owned()));
        self
    }

    /// With an environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// With a value (YAML) for the setting at `path`, given by a flag of this name.
    #[must_use]
    pub fn set(mut self, flag: &str, path: &str, value: &str) -> Self {
        self.flags.push(Flag { name: flag.to_owned(), path: path.to_owned(), value: value.to_owned() });
        self
    }

    /// All layers on top of each other.
    pub(super) fn merge(&self, report: &mut Report, notes: &mut Vec<String>) -> Result<Node, ConfigErrors> {
        let mut root = DEFAULT_TREE.clone()?;
        drop_in::overlay(&mut root, &self.variables, report, notes);
        source_variables::overlay(&mut root, &self.variables, notes);
        if let Some((name, text)) = &self.file {
            root.merge(file::parse(text, &ValueSource::File(name.as_str().into()))?);
        }
        environment::overlay(&mut root, &self.variables, report);
        for flag in &self.flags {
            let source = ValueSource::Flag(flag.name.as_str().into());
            let Some(path) = parse_path(&flag.path) else {
                let remedy = "write for example listen.data or storage.drives[0].path";
                report.error(&flag.path, &source, Fault::new("this is not the name of a setting", remedy));
                continue;
            };
            if let Err(gap) = root.set(&path, file::parse_value(&flag.value, &source)) {
                report.error(&environment::written(&path), &source, environment::gap_fault(&gap));
            }
        }
        drop_in::finish(&mut root, &self.variables, notes);
        Ok(root)
    }
}
