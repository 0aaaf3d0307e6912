//! [`Bucket`]: how many bytes may come now at a rate. Pure: the time is given.

use std::time::{Duration, Instant};

/// What may come at once after a pause, as a time at the rate: a pause is no savings.
const BURST: Duration = Duration::from_millis(250);

/// A token bucket. What is taken may be more than it holds; it is then in debt until time has paid it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    /// Bytes; negative is debt.
    balance: f64,
    at: Instant,
    rate: Option<u64>,
}

impl Bucket {
    /// A bucket without a rate.
    pub(super) fn new(now: Instant) -> Self {
        Self { balance: 0.0, at: now, rate: None }
    }

    /// Lets time pass at the present rate, and goes on at `rate` bytes per second; `None` is no limit.
    pub(super) fn turn_to(&mut self, now: Instant, rate: Option<u64>) {
        let passed = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        if let Some(rate) = self.rate {
            self.balance += passed.as_secs_f64() * rate as f64;
        }
        let most = rate.map_or(0.0, |rate| rate as f64 * BURST.as_secs_f64());
        // A debt at another rate is a debt in bytes all the same; without a rate nobody waits for it.
        self.balance = if rate.is_none() { 0.0 } else { self.balance.min(most) };
        self.rate = rate;
    }

    /// Whether bytes may be taken.
    pub(super) fn has_some(&self) -> bool {
        self.rate.is_none() || self.balance > 0.0
    }

    /// When they may be, at the latest `longest` from now.
    pub(super) fn wait(&self, longest: Duration) -> Duration {
        match self.rate {
            Some(rate) if self.balance <= 0.0 => {
                let seconds = (1.0 - self.balance) / (rate.max(1) as f64);
                Duration::try_from_secs_f64(seconds).map_or(longest, |wait| wait.min(longest))
            }
            _ => Duration::ZERO,
        }
    }

    /// Takes bytes.
    pub(super) fn take(&mut self, bytes: u64) {
        if self.rate.is_some() {
            self.balance -= bytes as f64;
        }
    }

    /// Gives back what was taken and not used.
    pub(super) fn give_back(&mut self, bytes: u64) {
        if self.rate.is_some() {
            self.balance += bytes as f64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pause_saves_a_quarter_of_a_second() {
        let now = Instant::now();
        let mut bucket = Bucket::new(now);
        bucket.turn_to(now, Some(100_000));
        bucket.turn_to(now + Duration::from_secs(3600), Some(100_000));
        bucket.take(24_999);
        assert!(bucket.has_some());
        bucket.take(1);
        assert!(!bucket.has_some());
        assert!(bucket.wait(Duration::from_secs(1)) < Duration::from_millis(1));
    }

    #[test]
    fn a_new_rate_holds_at_once() {
        let now = Instant::now();
        let mut bucket = Bucket::new(now);
        bucket.turn_to(now, Some(1000));
        bucket.take(10_000);
        assert_eq!(bucket.wait(Duration::from_secs(60)).as_secs(), 10);
        bucket.turn_to(now, Some(100_000));
        assert_eq!(bucket.wait(Duration::from_secs(60)).as_millis(), 100);
        bucket.turn_to(now, None);
        assert!(bucket.has_some());
    }

    proptest! {
        #[test]
        fn over_time_no_more_comes_than_the_rate(
            rate in 8_000_u64..10_000_000,
            steps in prop::collection::vec((0_u64..500, 1_u64..65_536), 1..200),
        ) {
            let start = Instant::now();
            let (mut now, mut came, mut largest) = (start, 0_u64, 0);
            let mut bucket = Bucket::new(start);
            bucket.turn_to(start, Some(rate));
            for (pause, piece) in steps {
                now += Duration::from_millis(pause);
                bucket.turn_to(now, Some(rate));
                if bucket.has_some() {
                    bucket.take(piece);
                    came += piece;
                    largest = largest.max(piece);
                }
            }
            let allowed = (now - start).as_secs_f64() * rate as f64 + rate as f64 * BURST.as_secs_f64();
            prop_assert!((came as f64) <= allowed + largest as f64);
        }
    }
}
