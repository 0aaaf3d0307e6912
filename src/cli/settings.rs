//! Flags that are settings: `--config`, `--set` and a few handy ones, as sources of a configuration.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::config::{ConfigErrors, Sources, parse_size};

/// Flags that change settings; they go before variables and the file.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SettingFlags {
    /// Set one setting, for example `log.level=debug` or `storage.drives[0].quota="40 GB"` (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// Address for devices, instead of the configured ones (repeatable)
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub data: Vec<String>,
    /// Address of the admin listener, instead of the configured ones (repeatable)
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub admin: Vec<String>,
    /// Directory for what can be made anew
    #[arg(long, value_name = "DIR")]
    pub state: Option<String>,
    /// Directory for content, instead of the configured ones, with or without a quota: `/mnt/a=100GB` (repeatable)
    #[arg(long, value_name = "DIR[=SIZE]")]
    pub drive: Vec<String>,
}

impl SettingFlags {
    /// The sources of this process with these flags on top.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn sources(&self, file: Option<&Path>) -> Result<Sources, ConfigErrors> {
        Ok(self.apply(Sources::of_process(file)?))
    }

    /// Lays the flags over `sources`; `--set` comes last.
    pub fn apply(&self, mut sources: Sources) -> Sources {
        if !self.data.is_empty() {
            sources = sources.set("--data", "listen.data", &json!(self.data).to_string());
        }
        if !self.admin.is_empty() {
            sources = sources.set("--admin", "listen.admin", &json!(self.admin).to_string());
        }
        if let Some(state) = &self.state {
            sources = sources.set("--state", "storage.state", &json!(state).to_string());
        }
        if !self.drive.is_empty() {
            let drives: Vec<_> = self.drive.iter().map(|text| drive(text)).collect();
            sources = sources.set("--drive", "storage.drives", &json!(drives).to_string());
        }
        self.set.iter().fold(sources, |sources, (key, value)| sources.set("--set", key, value))
    }
}

/// The file and the flags of `run`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RunArgs {
    /// YAML file with settings; without it `WAYSTATION_CONFIG` names one, or else the defaults are used
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Flags that are settings.
    #[command(flatten)]
    pub settings: SettingFlags,
}

fn drive(text: &str) -> serde_json::Value {
    match text.rsplit_once('=').filter(|(_, size)| parse_size(size).is_ok()) {
        Some((path, size)) => json!({ "path": path, "quota": size }),
        None => json!({ "path": text }),
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "write KEY=VALUE, for example log.level=debug".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn flags_become_settings() {
        let text = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let flags = SettingFlags {
            set: vec![
                ("log.level".to_owned(), "debug".to_owned()),
                ("storage.drives[1].min_free".to_owned(), "2 GB".to_owned()),
            ],
            data: text(&["127.0.0.1:0", "[::1]:0"]),
            admin: text(&["127.0.0.1:0"]),
            state: Some("/s".to_owned()),
            drive: text(&["/a=20GB", "/b=c"]),
        };
        let config = Config::load(&flags.apply(Sources::new())).unwrap().config;
        assert_eq!(config.serve.data.len(), 2);
        assert_eq!(config.store.state, Path::new("/s"));
        let drives: Vec<_> =
            config.store.drives.iter().map(|d| (d.path.to_str().unwrap(), d.quota, d.min_free)).collect();
        assert_eq!(drives, [("/a", 20_000_000_000, 1_000_000_000), ("/b=c", 10_000_000_000, 2_000_000_000)]);
        assert_eq!(config.log.level, tracing::level_filters::LevelFilter::DEBUG);
    }
}
