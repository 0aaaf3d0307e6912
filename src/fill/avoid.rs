//! [`Avoid`]: the source that failed last in a fill, to be asked after the others for a while. Pure: the clock is the
//! caller's. Whether a source is worth asking by anybody is its health's business.

use std::time::Duration;

use tokio::time::Instant;

use crate::upstream::Source;

/// So long a source that broke off comes last. Then the best one may be the best again.
const FOR: Duration = Duration::from_secs(30);

/// Who broke off, and when.
#[derive(Debug, Default)]
pub(super) struct Avoid(Option<(Source, Instant)>);

impl Avoid {
    /// A source broke off, or brought something of no use.
    pub(super) fn note(&mut self, source: Source, now: Instant) {
        self.0 = Some((source, now));
    }

    /// Whom to ask last at `now`.
    pub(super) fn at(&self, now: Instant) -> Option<Source> {
        let (source, since) = self.0.as_ref()?;
        (now.saturating_duration_since(*since) < FOR).then(|| source.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Origin, Scheme};

    #[test]
    fn who_broke_off_comes_last_for_a_while() {
        let (mut avoid, now) = (Avoid::default(), Instant::now());
        assert_eq!(avoid.at(now), None);
        let source = Source::origin(Origin { scheme: Scheme::Http, host: "a".into(), port: 80 }, None, false);
        avoid.note(source.clone(), now);
        assert_eq!(avoid.at(now + FOR / 2), Some(source));
        assert_eq!(avoid.at(now + FOR), None);
    }
}
