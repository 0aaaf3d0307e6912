//! [`ConfigError`] and [`ConfigErrors`]: what is wrong with the settings, all of it at once.

use std::fmt;

/// One thing that is wrong: where, what was found, what is allowed instead.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ConfigError {
    /// The setting, for example `origins[2].query`; empty when the source as a whole is concerned.
    pub path: String,
    /// Where the value came from: a file, a variable, a flag.
    pub source: String,
    /// The value that was found, as YAML on one line; user-info is blotted out.
    pub found: Option<String>,
    /// What is wrong with it.
    pub problem: String,
    /// What to write instead, or what to do.
    pub remedy: String,
}

/// Every [`ConfigError`] of one load; never empty.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// `Err` with the errors, `Ok` when there are none.
    pub(super) fn check(errors: Vec<ConfigError>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self(errors)) }
    }

    /// The errors in the order of the settings.
    pub fn as_slice(&self) -> &[ConfigError] {
        &self.0
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.problem)?;
        if let Some(found) = &self.found {
            write!(f, ", found {found}")?;
        }
        write!(f, " ({})", self.source)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "\n    {}", self.remedy) }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "error" } else { "errors" };
        write!(f, "{} {plural} in the settings", self.0.len())?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for ConfigError {}

impl std::error::Error for ConfigErrors {}
