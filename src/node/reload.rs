//! SIGHUP: the settings are read anew, and what can be obeyed while the process runs is obeyed at once. The rest is
//! named, and waits for the next start. Settings that are wrong change nothing.

use std::collections::BTreeMap;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{ConfigErrors, Effective, Loaded};
use crate::upstream::Upstream;

/// Settings that a running process takes up, as the begin or the end of their paths.
const BUDGET: &str = "upstream.budget.";
const RATE: &str = ".rate";

/// Reads the settings again, from where they were read first.
pub type Reread = Box<dyn Fn() -> Result<Loaded, ConfigErrors> + Send>;

/// Takes up settings when it is told to.
pub(super) struct Reload {
    hangup: Signal,
    reread: Reread,
    effective: Effective,
}

impl Reload {
    /// Catches SIGHUP from now on; until then it ends the process. `effective` are the settings that are obeyed.
    ///
    /// # Errors
    /// When the handler cannot be installed.
    pub(super) fn catch(effective: Effective, reread: Reread) -> io::Result<Self> {
        Ok(Self { hangup: signal(SignalKind::hangup())?, reread, effective })
    }

    /// Obeys until the process ends.
    pub(super) async fn obeyed(mut self, upstream: Upstream) {
        while self.hangup.recv().await.is_some() {
            match (self.reread)() {
                Ok(loaded) => self.take_up(loaded, &upstream),
                Err(errors) => {
                    tracing::error!("the settings are wrong; those before are obeyed on");
                    errors.as_slice().iter().for_each(|error| tracing::error!("{}", one_line(&error.to_string())));
                }
            }
        }
    }

    fn take_up(&mut self, loaded: Loaded, upstream: &Upstream) {
        let (taken_up, waiting) = changes(&self.effective, &loaded.effective);
        // Whatever it is compared with: one that was changed before may have been changed back.
        upstream.set_budget(loaded.config.upstream.budget);
        let texts = [taken_up.join(", "), waiting.join(", ")];
        match &texts {
            [now, later] if now.is_empty() && later.is_empty() => tracing::info!("the settings are as before"),
            [now, later] => {
                if !now.is_empty() {
                    tracing::info!(settings = now, "changed settings are obeyed");
                }
                if !later.is_empty() {
                    tracing::warn!(settings = later, "changed settings are obeyed from the next start on");
                }
            }
        }
        // What waits is told of each time.
        if waiting.is_empty() {
            self.effective = loaded.effective;
        }
    }
}

/// What differs: what is taken up now, and what is not.
fn changes(before: &Effective, after: &Effective) -> (Vec<String>, Vec<String>) {
    let of = |effective: &Effective| -> BTreeMap<String, String> {
        effective.settings().into_iter().map(|setting| (setting.path, setting.value)).collect()
    };
    let (before, after) = (of(before), of(after));
    let all = before.keys().chain(after.keys().filter(|path| !before.contains_key(*path)));
    let changed = all.filter(|path| before.get(*path) != after.get(*path)).cloned();
    changed.partition(|path| is_taken_up(path))
}

fn is_taken_up(path: &str) -> bool {
    let of_source = path.starts_with("origins[") || path.starts_with("upstream.parents[");
    path.starts_with(BUDGET) || (of_source && path.ends_with(RATE))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    fn effective(yaml: &str) -> Effective {
        Config::load(&Sources::new().file("test", yaml)).unwrap().effective
    }

    #[test]
    fn a_budget_is_taken_up_and_a_listener_is_not() {
        let before = effective("upstream: { budget: { rate: 1 MB/s } }");
        let after = effective(
            "upstream: { budget: { rate: closed, windows: [{ rate: 2 MB/s }] } }\nlisten: { data: \"127.0.0.1:1\" }",
        );
        let (now, later) = changes(&before, &after);
        assert!(now.iter().all(|path| path.starts_with("upstream.budget.")), "{now:?}");
        assert!(now.contains(&"upstream.budget.rate".to_owned()));
        assert_eq!(later, ["listen.data"]);
        assert_eq!(changes(&after, &after), (vec![], vec![]));
    }

    #[test]
    fn the_rate_of_a_parent_is_taken_up_and_its_address_is_not() {
        let before = effective("upstream: { parents: [{ url: http://a.example }] }");
        let after = effective("upstream: { parents: [{ url: http://b.example, rate: 2 MB/s }] }");
        let (now, later) = changes(&before, &after);
        assert_eq!(
            (now, later),
            (vec!["upstream.parents[0].rate".to_owned()], vec!["upstream.parents[0].url".to_owned()])
        );
    }
}
