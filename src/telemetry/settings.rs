//! Settings of the logs.

use std::fmt;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;

/// What is logged and how lines look. Everything goes to standard output, one line each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// How a line looks.
    pub format: LogFormat,
    /// Events less severe than this are left out. Access lines do not depend on it.
    pub level: LevelFilter,
    /// Whether each request gets an access line.
    pub access: bool,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Time, level, message, fields: for people.
    #[default]
    Human,
    /// One JSON object on each line.
    Json,
    /// As the IoT Edge hub writes them, with the syslog priority that `iotedge logs` and `UploadModuleLogs`
    /// filter by: `<6> 2026-11-23 17:42:45.123 +00:00 [INF] - message`.
    IotEdge,
}

/// A log format with this name does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown log format; allowed are human, json, iotedge")]
pub struct ParseLogFormatError;

impl LogFormat {
    /// Every format, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Human, Self::Json, Self::IotEdge];

    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Json => "json",
            Self::IotEdge => "iotedge",
        }
    }
}

impl FromStr for LogFormat {
    type Err = ParseLogFormatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|format| format.as_str() == text).ok_or(ParseLogFormatError)
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::default(), level: LevelFilter::INFO, access: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_is_parsed_from_its_name() {
        for format in LogFormat::ALL {
            assert_eq!(format.as_str().parse(), Ok(format));
        }
        assert_eq!("JSON".parse::<LogFormat>(), Err(ParseLogFormatError));
    }
}
