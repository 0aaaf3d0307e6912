//! [`Patience`]: when a source is asked again after a failure, and when it has been enough. Pure: the time is given.

use std::time::Duration;

use tokio::time::Instant;

/// Pause after the second failure in a row; it doubles up to [`LONGEST_PAUSE`]. After the first one there is none.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause of a fill that nobody waits for.
const LONGEST_PAUSE_ALONE: Duration = Duration::from_secs(30);

/// How long a fill that somebody waits for tries to go on while no byte comes: longer than any client waits.
const WITH_CLIENTS: Duration = Duration::from_secs(90);
/// How long one that goes on alone does. What is there stays, and the next request goes on with it.
const ALONE: Duration = Duration::from_secs(3600);

/// Failures since the last byte.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    progress: Instant,
    pause: Duration,
}

impl Patience {
    pub(super) fn new(now: Instant) -> Self {
        Self { progress: now, pause: Duration::ZERO }
    }

    /// A byte has come that was not there.
    pub(super) fn progress(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// A request failed: when to ask again.
    pub(super) fn failed(&mut self, now: Instant, alone: bool) -> Instant {
        let longest = if alone { LONGEST_PAUSE_ALONE } else { LONGEST_PAUSE };
        let next = now + self.pause.min(longest);
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, longest);
        next
    }

    /// How long no byte has come.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.progress)
    }

    /// Whether it has been enough; `alone`: nobody waits, and the policy is to go on all the same.
    pub(super) fn is_over(&self, now: Instant, alone: bool) -> bool {
        self.silence(now) > if alone { ALONE } else { WITH_CLIENTS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_costs_no_time_and_later_ones_more_and_more() {
        let start = Instant::now();
        let mut patience = Patience::new(start);
        let mut at = start;
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let next = patience.failed(at, false);
            pauses.push((next - at).as_millis());
            at = next;
        }
        assert_eq!(pauses, [0, 100, 200, 400, 800, 1600, 2000]);
        assert!(!patience.is_over(at, false));
        assert!(patience.is_over(start + WITH_CLIENTS * 2, false) && !patience.is_over(start + WITH_CLIENTS * 2, true));
        patience.progress(at);
        assert_eq!(patience.failed(at, false), at);
    }
}
