//! [`Rate`]: how fast a fill is at present. Pure: the time is given.

use std::time::Duration;

use tokio::time::Instant;

/// A sample is taken after this time.
const WINDOW: Duration = Duration::from_millis(100);
/// Or after this many bytes, on a link so fast that the window would be most of the fill.
const MANY: u64 = 1024 * 1024;
/// Samples that are longer than this count in full: whatever was before is old.
const MEMORY: Duration = Duration::from_secs(2);

/// A rate that has been measured for so long says something of the time to come.
const SETTLED: Duration = Duration::from_secs(1);

/// Bytes per second, a moving average over about two seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    since: Instant,
    landed: u64,
    average: Option<f64>,
    /// When the first byte came.
    begun: Option<Instant>,
}

impl Rate {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, landed: 0, average: None, begun: None }
    }

    /// Notes that `bytes` have landed; 0 lets time pass.
    pub(super) fn note(&mut self, now: Instant, bytes: u64) {
        self.landed = self.landed.saturating_add(bytes);
        let elapsed = now.saturating_duration_since(self.since);
        // What has not begun yet has no rate, and silence before the first byte is no slowness.
        if self.average.is_none() && self.landed == 0 {
            self.since = now;
            return;
        }
        self.begun.get_or_insert(now);
        if elapsed < WINDOW && self.landed < MANY {
            return;
        }
        let seconds = elapsed.as_secs_f64().max(1e-6);
        let sample = self.landed as f64 / seconds;
        let weight = (seconds / MEMORY.as_secs_f64()).clamp(0.05, 1.0);
        self.average = Some(self.average.map_or(sample, |average| average + (sample - average) * weight));
        (self.since, self.landed) = (now, 0);
    }

    /// Bytes per second; `None` before the first sample.
    pub(super) fn per_second(&self) -> Option<u64> {
        // Saturates, and is never negative.
        self.average.map(|average| average as u64)
    }

    /// How long `bytes` take at this rate, at most a day; `None` in the first second, when one late packet would decide.
    pub(super) fn time_for(&self, now: Instant, bytes: u64) -> Option<Duration> {
        let day = 86_400.0;
        let settled = self.begun.is_some_and(|begun| now.saturating_duration_since(begun) >= SETTLED);
        self.average
            .filter(|_| settled)
            .map(|average| Duration::from_secs_f64((bytes as f64 / average.max(1.0)).min(day)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_fill_has_its_rate_and_a_stalled_one_loses_it() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        rate.note(start + Duration::from_secs(3), 0);
        assert_eq!(rate.per_second(), None, "nothing has come yet");
        for step in 1..=50 {
            rate.note(start + Duration::from_secs(3) + Duration::from_millis(100) * step, 100_000);
        }
        let steady = rate.per_second().unwrap();
        assert!((990_000..=1_010_000).contains(&steady), "{steady}");
        assert_eq!(rate.time_for(start + Duration::from_secs(8), 5_000_000).unwrap().as_secs_f64().round(), 5.0);
        assert_eq!(rate.time_for(start + Duration::from_secs(3), 5_000_000), None, "too early to tell");
        for step in 1..=20 {
            rate.note(start + Duration::from_secs(8) + Duration::from_millis(500) * step, 0);
        }
        assert!(rate.per_second().unwrap() < 60_000, "{rate:?}");
    }

    #[test]
    fn a_fast_fill_has_a_rate_at_once() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        rate.note(start + Duration::from_millis(2), 2 * MANY);
        assert!(rate.per_second().unwrap() > 500_000_000);
    }
}
