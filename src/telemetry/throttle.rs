//! [`Throttle`]: how often something may be said. Pure: the clock is the caller's.

use std::time::{Duration, Instant};

/// A token bucket that starts full.
#[derive(Debug)]
pub struct Throttle {
    /// Most tokens.
    burst: u32,
    /// Time in which one comes back.
    each: Duration,
    tokens: u32,
    /// When the last token that was counted came back.
    counted: Instant,
}

impl Throttle {
    /// `burst` times at once, and once more after each `each`.
    pub fn new(burst: u32, each: Duration, now: Instant) -> Self {
        Self { burst, each, tokens: burst, counted: now }
    }

    /// Whether it may be said at `now`; counts as said if so.
    pub fn allows(&mut self, now: Instant) -> bool {
        let gone = now.saturating_duration_since(self.counted).as_nanos() / self.each.as_nanos().max(1);
        let back = u32::try_from(gone).unwrap_or(u32::MAX).min(self.burst);
        if back > 0 {
            self.tokens = self.tokens.saturating_add(back).min(self.burst);
            let full = self.tokens == self.burst;
            self.counted = if full { now } else { self.counted + self.each * back };
        }
        let allowed = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_what_time_brings_back() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut throttle = Throttle::new(3, Duration::from_millis(500), begin);
        let allowed: Vec<bool> = (0..5).map(|_| throttle.allows(at(1))).collect();
        assert_eq!(allowed, [true, true, true, false, false]);
        assert!(!throttle.allows(at(499)));
        assert!(throttle.allows(at(501)) && !throttle.allows(at(502)));
        // Asking often does not put off what comes back.
        assert!((503..1000).all(|millis| !throttle.allows(at(millis))));
        assert!(throttle.allows(at(1001)) && !throttle.allows(at(1002)));
        // Never more than the burst, and a clock that stands still or goes back brings nothing.
        let later: Vec<bool> = (0..5).map(|_| throttle.allows(at(3_600_000))).collect();
        assert_eq!(later, [true, true, true, false, false]);
        assert!(!throttle.allows(begin));
    }
}
