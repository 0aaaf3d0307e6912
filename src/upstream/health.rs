//! Whether a source is worth asking: a circuit breaker whose pauses grow with the time that the source is down. Pure: the time and the
//! jitter are given, and one value judges one source.
//!
//! Closed: everybody may ask. Open: nobody may, until a moment. Half-open: one request is the probe, the
//! others are refused until it is decided.

use std::time::{Duration, Instant};

/// Weight of faults in a row that opens the breaker.
const OPEN_AT: u32 = 10;
/// Faults older than this are forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(60);
/// Shortest pause before a probe.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// A pause is this part of the time that the source has been down: whoever waits for it learns soon that it is back, and
/// one that has been away for long is rarely asked.
const PAUSE_PART: u32 = 4;
/// Longest pause of a source that cannot be reached.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Longest pause of one that can, but cuts the connection.
const LONGEST_PAUSE_CUT: Duration = Duration::from_secs(5);
/// How an attempt went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It answered, and the body came to its end.
    Success,
    /// No address, no connection or no TLS.
    ConnectFailure,
    /// No answer in time.
    Timeout,
    /// A 500, 502, 503 or 504.
    ServerError,
    /// The body stopped coming.
    Stall,
    /// The connection ended before an answer, or before the first byte of its body.
    Cut,
    /// An answer that makes no sense for what was asked. It tells of one resource: the source is there.
    Malformed,
}

/// Whether a source may be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allowed,
    /// It may, as the only one: the outcome decides for all, and must be reported or abandoned under this name.
    Probe(ProbeId),
    /// It may not.
    Down {
        /// When to ask again.
        until: Instant,
    },
}

/// Tells a probe from those before it, whose outcome no longer matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeId(u32);

/// The health of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    state: State,
    next_probe: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed {
        weight: u32,
        last_fault: Option<Instant>,
    },
    /// `answers`: it can be reached, but its answers are of no use. Other resources of it may be fine, so after the pause
    /// everybody may ask again, and not one alone that may have met a bad one.
    Open {
        since: Instant,
        until: Instant,
        answers: bool,
    },
    HalfOpen {
        since: Instant,
        probe: ProbeId,
    },
}

impl Outcome {
    /// How much one such fault counts towards [`OPEN_AT`].
    fn weight(self) -> u32 {
        match self {
            Self::Success | Self::Malformed => 0,
            Self::ConnectFailure => 5,
            Self::Timeout | Self::Stall => 4,
            Self::Cut => 2,
            Self::ServerError => 1,
        }
    }

    /// Whether the source was reached, and said something.
    fn answers(self) -> bool {
        self == Self::ServerError
    }

    fn longest_pause(self) -> Duration {
        if self == Self::Cut { LONGEST_PAUSE_CUT } else { LONGEST_PAUSE }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self { state: State::Closed { weight: 0, last_fault: None }, next_probe: 0 }
    }
}

impl Health {
    /// Whether the source may be asked at `now`. [`Verdict::Probe`] is given to one caller only; it must end
    /// in [`Health::record`] with its id or in [`Health::abandon_probe`].
    pub fn verdict(&mut self, now: Instant) -> Verdict {
        match self.state {
            State::Closed { .. } => Verdict::Allowed,
            State::Open { until, .. } if now < until => Verdict::Down { until },
            State::Open { answers: true, .. } => {
                // The next fault of this kind is enough for the next pause.
                self.state = State::Closed { weight: OPEN_AT - 1, last_fault: Some(now) };
                Verdict::Allowed
            }
            State::Open { since, .. } => {
                let probe = ProbeId(self.next_probe);
                self.next_probe = self.next_probe.wrapping_add(1);
                self.state = State::HalfOpen { since, probe };
                Verdict::Probe(probe)
            }
            State::HalfOpen { .. } => Verdict::Down { until: now + FIRST_PAUSE },
        }
    }

    /// Takes note of an outcome at `now`. `probe` is the id of the attempt if it was a probe. `jitter`
    /// between 0 and 1 spreads the pauses of many caches by a quarter to either side.
    pub fn record(&mut self, now: Instant, outcome: Outcome, probe: Option<ProbeId>, jitter: f64) {
        let is_probe = matches!(self.state, State::HalfOpen { probe: current, .. } if probe == Some(current));
        if outcome == Outcome::Success || (outcome == Outcome::Malformed && is_probe) {
            self.state = State::Closed { weight: 0, last_fault: None };
            return;
        }
        if outcome == Outcome::Malformed {
            return;
        }
        match self.state {
            State::Closed { weight, last_fault } => {
                let recent = last_fault.is_some_and(|at| now.saturating_duration_since(at) <= FORGET_AFTER);
                let weight = if recent { weight } else { 0 }.saturating_add(outcome.weight());
                self.state = if weight >= OPEN_AT {
                    let until = now + pause(Duration::ZERO, outcome, jitter);
                    State::Open { since: now, until, answers: outcome.answers() }
                } else {
                    State::Closed { weight, last_fault: Some(now) }
                };
            }
            State::HalfOpen { since, probe: current } if probe == Some(current) => {
                let answers = outcome.answers();
                let down = if answers { Duration::ZERO } else { now.saturating_duration_since(since) };
                self.state = State::Open { since, until: now + pause(down, outcome, jitter), answers };
            }
            // Attempts that began before the breaker opened say nothing new.
            State::Open { .. } | State::HalfOpen { .. } => {}
        }
    }

    /// The probe ended without an outcome (its client left): the next request may be the probe.
    pub fn abandon_probe(&mut self, now: Instant, probe: ProbeId) {
        match self.state {
            State::HalfOpen { since, probe: current } if probe == current => {
                self.state = State::Open { since, until: now, answers: false };
            }
            _ => {}
        }
    }

    /// Until when the source is not asked; `None` when it may be. Changes nothing.
    pub fn down_until(&self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Closed { .. } => None,
            State::Open { until, .. } => Some(until.max(now)),
            State::HalfOpen { .. } => Some(now + FIRST_PAUSE),
        }
    }

    /// Whether nothing would be lost by forgetting this value.
    pub(super) fn is_forgettable(&self, now: Instant) -> bool {
        match self.state {
            State::Closed { last_fault, .. } => {
                last_fault.is_none_or(|at| now.saturating_duration_since(at) > FORGET_AFTER)
            }
            State::Open { until, .. } => now.saturating_duration_since(until) > LONGEST_PAUSE,
            State::HalfOpen { .. } => false,
        }
    }
}

/// The pause of a source that has been down for so long: a part of that time up to the outcome's longest, then spread.
fn pause(down: Duration, outcome: Outcome, jitter: f64) -> Duration {
    let jitter = if (0.0..=1.0).contains(&jitter) { jitter } else { 0.5 };
    (down / PAUSE_PART).clamp(FIRST_PAUSE, outcome.longest_pause()).mul_f64(0.75 + jitter / 2.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn probe(health: &mut Health, now: Instant) -> ProbeId {
        match health.verdict(now) {
            Verdict::Probe(probe) => probe,
            other => panic!("{other:?} instead of a probe"),
        }
    }

    fn opened_by(outcome: Outcome) -> usize {
        let now = Instant::now();
        let mut health = Health::default();
        for count in 1..100 {
            assert_eq!(health.verdict(now), Verdict::Allowed);
            health.record(now, outcome, None, 0.5);
            if health.down_until(now).is_some() {
                return count;
            }
        }
        0
    }

    #[test]
    fn faults_in_a_row_open_by_their_weight() {
        for (outcome, count) in [
            (Outcome::Success, 0),
            (Outcome::ConnectFailure, 2),
            (Outcome::Timeout, 3),
            (Outcome::Stall, 3),
            (Outcome::Cut, 5),
            (Outcome::ServerError, 10),
        ] {
            assert_eq!(opened_by(outcome), count, "{outcome:?}");
        }
    }

    #[test]
    fn a_success_or_a_quiet_minute_wipes_the_slate() {
        let now = Instant::now();
        let mut health = Health::default();
        health.record(now, Outcome::ConnectFailure, None, 0.5);
        health.record(now, Outcome::Success, None, 0.5);
        health.record(now, Outcome::ConnectFailure, None, 0.5);
        assert_eq!(health.verdict(now), Verdict::Allowed);
        let later = now + FORGET_AFTER + Duration::from_millis(1);
        health.record(later, Outcome::ConnectFailure, None, 0.5);
        assert_eq!(health.verdict(later), Verdict::Allowed);
        health.record(later, Outcome::ConnectFailure, None, 0.5);
        assert!(matches!(health.verdict(later), Verdict::Down { .. }));
    }

    #[test]
    fn pauses_are_a_quarter_of_the_time_down_up_to_the_longest_of_their_cause() {
        for (outcome, longest) in [(Outcome::ConnectFailure, 60_000), (Outcome::Timeout, 60_000), (Outcome::Cut, 5000)]
        {
            let start = Instant::now();
            let mut now = start;
            let mut health = Health::default();
            for _ in 0..10 {
                health.record(now, outcome, None, 0.5);
            }
            for _ in 0..40 {
                let down = now - start;
                let expected = (down / 4).clamp(Duration::from_millis(500), Duration::from_millis(longest));
                assert_eq!(health.verdict(now), Verdict::Down { until: now + expected });
                now += expected;
                let probe = probe(&mut health, now);
                assert!(matches!(health.verdict(now), Verdict::Down { .. }));
                health.record(now, outcome, Some(probe), 0.5);
            }
            assert!(now - start > Duration::from_millis(longest), "it came to the longest");
        }
    }

    #[test]
    fn a_source_that_answers_is_never_left_alone_for_long_and_everybody_may_ask_after_that() {
        let outcome = Outcome::ServerError;
        let mut now = Instant::now();
        let mut health = Health::default();
        for _ in 0..20 {
            while health.down_until(now).is_none() {
                assert_eq!(health.verdict(now), Verdict::Allowed);
                health.record(now, outcome, None, 0.5);
            }
            now += FIRST_PAUSE;
            assert_eq!(health.verdict(now), Verdict::Allowed);
            assert_eq!(health.verdict(now), Verdict::Allowed, "not one alone");
        }
        health.record(now, Outcome::Success, None, 0.5);
        health.record(now, outcome, None, 0.5);
        assert_eq!(health.verdict(now), Verdict::Allowed, "a good answer wipes the slate");
    }

    #[test]
    fn an_answer_without_sense_says_nothing_of_other_resources() {
        let now = Instant::now();
        assert_eq!(opened_by(Outcome::Malformed), 0);
        let mut health = Health::default();
        health.record(now, Outcome::ConnectFailure, None, 0.5);
        health.record(now, Outcome::ConnectFailure, None, 0.5);
        health.record(now, Outcome::Malformed, None, 0.5);
        assert!(health.down_until(now).is_some(), "it was asked before");
        let later = now + FIRST_PAUSE;
        let probe = probe(&mut health, later);
        health.record(later, Outcome::Malformed, Some(probe), 0.5);
        assert_eq!(health.verdict(later), Verdict::Allowed, "it is there");
    }

    #[test]
    fn only_the_probe_decides_and_an_abandoned_one_is_followed_by_another() {
        let now = Instant::now();
        let mut health = Health::default();
        health.record(now, Outcome::ConnectFailure, None, 0.0);
        health.record(now, Outcome::ConnectFailure, None, 0.0);
        let later = now + Duration::from_millis(750);
        let first = probe(&mut health, later);
        health.record(later, Outcome::Timeout, None, 0.0);
        assert!(matches!(health.verdict(later), Verdict::Down { .. }));
        health.abandon_probe(later, first);
        let second = probe(&mut health, later);
        health.record(later, Outcome::Timeout, Some(first), 0.0);
        health.abandon_probe(later, first);
        assert!(matches!(health.verdict(later), Verdict::Down { .. }), "the first probe decides nothing any more");
        health.record(later, Outcome::Success, Some(second), 0.0);
        assert_eq!(health.verdict(later), Verdict::Allowed);
        health.abandon_probe(later, second);
        assert_eq!(health.verdict(later), Verdict::Allowed);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Ask,
        Finish(Outcome, f64),
        Leave,
        Wait(u64),
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop::sample::select(vec![
            Outcome::Success,
            Outcome::ConnectFailure,
            Outcome::Timeout,
            Outcome::ServerError,
            Outcome::Stall,
            Outcome::Cut,
            Outcome::Malformed,
        ])
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Ask),
            4 => (outcome(), any::<f64>()).prop_map(|(o, j)| Step::Finish(o, j)),
            1 => Just(Step::Leave),
            2 => (0_u64..20_000).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn never_two_probes_and_always_a_way_back(steps in prop::collection::vec(step(), 0..200)) {
            let mut now = Instant::now();
            let mut health = Health::default();
            let mut attempts: Vec<Option<ProbeId>> = Vec::new();
            // The probe that nobody has decided yet; a success of any attempt ends its meaning.
            let mut live: Option<ProbeId> = None;
            for step in steps {
                match step {
                    Step::Ask => match health.verdict(now) {
                        Verdict::Allowed => attempts.push(None),
                        Verdict::Probe(probe) => {
                            prop_assert_eq!(live, None);
                            live = Some(probe);
                            attempts.push(Some(probe));
                        }
                        Verdict::Down { until } => {
                            prop_assert!(until > now);
                            prop_assert!(until <= now + LONGEST_PAUSE.mul_f64(1.25));
                        }
                    },
                    Step::Finish(outcome, jitter) => {
                        if let Some(probe) = attempts.pop() {
                            health.record(now, outcome, probe, jitter);
                            if outcome == Outcome::Success || (probe.is_some() && probe == live) {
                                live = None;
                            }
                            if outcome == Outcome::Success {
                                prop_assert_eq!(health.verdict(now), Verdict::Allowed);
                            }
                        }
                    }
                    Step::Leave => {
                        if let Some(Some(probe)) = attempts.pop() {
                            health.abandon_probe(now, probe);
                            if live == Some(probe) {
                                live = None;
                            }
                        }
                    }
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                }
            }
            // When everybody has left, the longest pause is enough for one more try.
            for probe in attempts.into_iter().flatten() {
                health.abandon_probe(now, probe);
            }
            now += LONGEST_PAUSE.mul_f64(1.25);
            let probe = match health.verdict(now) {
                Verdict::Probe(probe) => Some(probe),
                Verdict::Allowed => None,
                Verdict::Down { .. } => return Err(TestCaseError::fail("down for ever")),
            };
            health.record(now, Outcome::Success, probe, 0.5);
            prop_assert_eq!(health.verdict(now), Verdict::Allowed);
        }
    }
}
