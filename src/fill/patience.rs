//! [`Patience`]: when a source is asked again after a failure, and when it has been enough. Pure: the time is given.

use std::time::Duration;

use tokio::time::Instant;

/// Pause after the second failure in a row; it doubles up to the longest. After the first one there is none.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause where an origin is asked.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause of a fill that nobody waits for.
const LONGEST_PAUSE_ALONE: Duration = Duration::from_secs(30);

/// How long a fill that somebody waits for tries to go on while no byte comes: longer than any client waits.
const WITH_CLIENTS: Duration = Duration::from_secs(90);
/// How long one that goes on alone does. What is there stays, and the next request goes on with it.
const ALONE: Duration = Duration::from_secs(3600);

/// The next failure is the first one again when this much has come since the last, in bytes.
const WORTH: u64 = 64 * 1024;
/// Or when what came took so long: then asking at once cannot become a habit.
const WORTH_TIME: Duration = Duration::from_secs(1);

/// The longest pause after a failure before which anything came: a source that comes and goes is not to be missed.
const SOME_PAUSE: Duration = FIRST_PAUSE;

/// So long a request that was said to be less urgent may bring nothing while a client waits for what it brings.
pub(super) const MODEST: Duration = Duration::from_secs(2);

/// Failures since something worth the asking has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// When the last byte came.
    progress: Instant,
    /// When the source may be asked since the last failure.
    asked: Instant,
    /// Bytes since then.
    gained: u64,
    pause: Duration,
    longest: Duration,
}

impl Patience {
    /// With pauses up to `longest` while somebody waits.
    pub(super) fn new(now: Instant, longest: Duration) -> Self {
        Self { progress: now, asked: now, gained: 0, pause: Duration::ZERO, longest }
    }

    /// Bytes have come that were not there. A source that gives a few and then fails, again and again, is asked slowly all
    /// the same: each request costs more than they are worth.
    pub(super) fn progress(&mut self, now: Instant, bytes: u64) {
        self.progress = now;
        self.gained = self.gained.saturating_add(bytes);
        if self.gained >= WORTH || now.saturating_duration_since(self.asked) >= WORTH_TIME {
            self.pause = Duration::ZERO;
        }
        self.pause = self.pause.min(SOME_PAUSE);
    }

    /// Nobody was to be asked: that is no silence.
    pub(super) fn rest(&mut self, now: Instant) {
        self.progress = now;
    }

    /// A request failed: when to ask again.
    pub(super) fn failed(&mut self, now: Instant, alone: bool) -> Instant {
        let longest = if alone { LONGEST_PAUSE_ALONE } else { self.longest };
        let next = now + self.pause.min(longest);
        self.pause = (self.pause * 2).max(FIRST_PAUSE).min(longest);
        (self.asked, self.gained) = (next, 0);
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
        let mut patience = Patience::new(start, LONGEST_PAUSE);
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
        patience.progress(at, WORTH);
        assert_eq!(patience.failed(at, false), at);
    }

    #[test]
    fn no_pause_is_longer_than_the_longest_however_short_that_is() {
        for longest in [Duration::from_millis(500), Duration::from_millis(25), Duration::ZERO] {
            let mut now = Instant::now();
            let mut patience = Patience::new(now, longest);
            for _ in 0..7 {
                let next = patience.failed(now, false);
                assert!(next - now <= longest);
                now = next;
            }
            assert_eq!(patience.failed(now, false) - now, longest);
        }
    }

    /// Pauses of a source that gives so many bytes in this time after each request and then fails.
    fn pauses(bytes: u64, after: Duration) -> Vec<u128> {
        let mut now = Instant::now();
        let mut patience = Patience::new(now, LONGEST_PAUSE);
        let failures = (0..7).map(|_| {
            now += after;
            patience.progress(now, bytes);
            let next = patience.failed(now, false);
            let pause = next - now;
            now = next;
            pause.as_millis()
        });
        failures.collect()
    }

    #[test]
    fn a_few_bytes_for_each_request_are_no_reason_to_ask_at_once() {
        let soon = Duration::from_millis(10);
        assert_eq!(pauses(100, soon), [0, 100, 100, 100, 100, 100, 100]);
        assert_eq!(pauses(WORTH, soon), [0; 7]);
        assert_eq!(pauses(100, WORTH_TIME), [0; 7], "a slow link is not a bad one");
    }

    #[test]
    fn any_byte_ends_the_silence() {
        let start = Instant::now();
        let mut patience = Patience::new(start, LONGEST_PAUSE);
        let late = start + WITH_CLIENTS * 2;
        patience.progress(late, 1);
        assert_eq!((patience.silence(late), patience.is_over(late, false)), (Duration::ZERO, false));
    }
}
