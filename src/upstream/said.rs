//! [`Said`]: how often something is said of each source, so that what one does hides nothing of another. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::plan::Source;
use crate::telemetry::Throttle;

/// Origins that have a measure of their own. Names under a wildcard rule are the clients' choice: the others share one.
const KNOWN: usize = 64;
/// So often at once, and once more after each [`EACH`].
const BURST: u32 = 5;
const EACH: Duration = Duration::from_secs(60);

/// A measure for each source.
#[derive(Debug)]
pub(super) struct Said {
    of: HashMap<Source, Throttle>,
    others: Throttle,
}

impl Said {
    pub(super) fn new(now: Instant) -> Self {
        Self { of: HashMap::new(), others: Throttle::new(BURST, EACH, now) }
    }

    /// Whether it may be said of `source` at `now`; counts as said if so. Parents always have a measure of their own.
    pub(super) fn allows(&mut self, source: &Source, now: Instant) -> bool {
        let is_known = self.of.contains_key(source) || source.parent.is_some() || self.of.len() < KNOWN;
        if !is_known {
            return self.others.allows(now);
        }
        self.of.entry(source.clone()).or_insert_with(|| Throttle::new(BURST, EACH, now)).allows(now)
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::ParentKind;
    use super::*;
    use crate::content::{Origin, Scheme};

    #[test]
    fn nobody_s_lines_take_those_of_another_one_and_made_up_names_share_some() {
        let now = Instant::now();
        let origin =
            |host: &str| Source::origin(Origin { scheme: Scheme::Http, host: host.into(), port: 80 }, None, false);
        let parent = |host: &str| Source { parent: Some(ParentKind::ConnectedCache), ..origin(host) };
        let mut said = Said::new(now);
        let mut count = |source: &Source| (0..20).filter(|_| said.allows(source, now)).count();
        assert_eq!((count(&parent("one")), count(&parent("other"))), (5, 5));
        let made_up: usize = (0..KNOWN + 20).map(|number| count(&origin(&format!("n{number}")))).sum();
        assert!(made_up <= (KNOWN + 1) * 5, "{made_up}");
        assert_eq!(count(&parent("third")), 5);
    }
}
