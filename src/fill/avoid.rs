//! [`Avoid`]: the sources that failed in a fill, to be asked after the others for a while. Pure: the clock is the caller's.
//! Whether a source is worth asking by anybody is its health's business.

use std::time::Duration;

use tokio::time::Instant;

use super::patience::MODEST;
use crate::upstream::Source;

/// So long a source that broke off comes last. Then the best one may be the best again.
const FOR: Duration = Duration::from_secs(30);

/// A source that has said nothing in mid-file for so long is given up for another one: a client must not notice, and an agent's
/// patience ends soon after the source's own limit. Where ranges work a new request costs next to nothing.
pub(super) const SILENT: Duration = Duration::from_secs(6);
/// However long nothing has come, the next one gets so much time to say something: what is asked anew for a client that stands
/// before it is asked so late at most.
const SHORTEST: Duration = SILENT.saturating_sub(MODEST);

/// Who broke off, and when, the last one at the end.
#[derive(Debug, Default)]
pub(super) struct Avoid(Vec<(Source, Instant)>);

impl Avoid {
    /// A source broke off, said nothing, or brought something of no use.
    pub(super) fn note(&mut self, source: Source, now: Instant) {
        self.0.retain(|(known, since)| *known != source && is_recent(*since, now));
        self.0.push((source, now));
    }

    /// Whom to ask last at `now`, the very last one at the end.
    pub(super) fn at(&self, now: Instant) -> Vec<Source> {
        self.0.iter().filter(|(_, since)| is_recent(*since, now)).map(|(source, _)| source.clone()).collect()
    }
}

/// How long the next source may say nothing when that has lasted for `silence`, and there is another one.
pub(super) fn silence_left(silence: Duration) -> Duration {
    SILENT.saturating_sub(silence).max(SHORTEST)
}

fn is_recent(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < FOR
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Origin, Scheme};

    #[test]
    fn who_broke_off_comes_last_for_a_while() {
        let (mut avoid, now) = (Avoid::default(), Instant::now());
        assert_eq!(avoid.at(now), []);
        let source = |host: &str| {
            let origin = Origin { scheme: Scheme::Http, host: host.into(), port: 80 };
            Source::origin(origin, None, false)
        };
        let [one, other] = ["a", "b"].map(source);
        avoid.note(one.clone(), now);
        avoid.note(other.clone(), now + FOR / 4);
        assert_eq!(avoid.at(now + FOR / 2), [one.clone(), other.clone()]);
        assert_eq!(avoid.at(now + FOR), std::slice::from_ref(&other));
        avoid.note(one.clone(), now + FOR / 2);
        assert_eq!(avoid.at(now + FOR / 2), [other, one]);
        assert_eq!(avoid.at(now + FOR * 2), []);
    }
}
