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
/// A source that gave a good answer so lately is there: what it fails or cuts now tells of single resources. Asking it costs
/// no more than a moment, and others ask it for what it has.
const GOOD_FOR: Duration = Duration::from_secs(5);

/// How an attempt went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It answered, and the body came to its end.
    Success,
    /// No address, or no connection.
    ConnectFailure,
    /// A connection that nothing can be asked over: a certificate that is not trusted, a proxy that says no.
    Refused,
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

/// Whether a source can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Nobody has tried.
    Untried,
    /// It can.
    Up,
    /// There is no connection to it.
    Away,
    /// It is there, and cannot be used, for this reason.
    Refused(String),
    /// It can be reached, and has failed or said nothing several times.
    Failing,
}

impl Condition {
    /// The name in answers.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Untried => "untried",
            Self::Up => "up",
            Self::Away => "away",
            Self::Refused(_) => "refused",
            Self::Failing => "failing",
        }
    }
}

/// Tells a probe from those before it, whose outcome no longer matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeId(u32);

/// The health of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    state: State,
    next_probe: u32,
    last_good: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed {
        weight: u32,
        last_fault: Option<Instant>,
    },
    /// When the last `cause` was an answer of no use, other resources of it may be fine: after the pause everybody may ask
    /// again, and not one alone that may have met a bad one.
    Open {
        since: Instant,
        until: Instant,
        cause: Outcome,
    },
    HalfOpen {
        since: Instant,
        probe: ProbeId,
        cause: Outcome,
    },
}

impl Outcome {
    /// How much one such fault counts towards [`OPEN_AT`].
    fn weight(self) -> u32 {
        match self {
            Self::Success | Self::Malformed => 0,
            Self::ConnectFailure | Self::Refused => 5,
            Self::Timeout | Self::Stall => 4,
            Self::Cut => 2,
            Self::ServerError => 1,
        }
    }

    /// Whether the source was reached, and said something.
    fn answers(self) -> bool {
        self == Self::ServerError
    }

    /// Whether it may lie in the resource that was asked for, at a source that is well.
    fn may_be_of_one_resource(self) -> bool {
        matches!(self, Self::ServerError | Self::Cut)
    }

    /// Whether something has come of the source.
    pub(super) fn is_contact(self) -> bool {
        !matches!(self, Self::ConnectFailure | Self::Timeout | Self::Stall)
    }

    fn longest_pause(self) -> Duration {
        if self == Self::Cut { LONGEST_PAUSE_CUT } else { LONGEST_PAUSE }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self { state: State::Closed { weight: 0, last_fault: None }, next_probe: 0, last_good: None }
    }
}

impl Health {
    /// Whether the source may be asked at `now`. [`Verdict::Probe`] is given to one caller only; it must end
    /// in [`Health::record`] with its id or in [`Health::abandon_probe`].
    pub fn verdict(&mut self, now: Instant) -> Verdict {
        match self.state {
            State::Closed { .. } => Verdict::Allowed,
            State::Open { until, .. } if now < until => Verdict::Down { until },
            State::Open { cause, .. } if cause.answers() => {
                // The next fault of this kind is enough for the next pause.
                self.state = State::Closed { weight: OPEN_AT - 1, last_fault: Some(now) };
                Verdict::Allowed
            }
            State::Open { since, cause, .. } => {
                let probe = ProbeId(self.next_probe);
                self.next_probe = self.next_probe.wrapping_add(1);
                self.state = State::HalfOpen { since, probe, cause };
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
            self.last_good = Some(now);
            return;
        }
        if outcome == Outcome::Malformed {
            return;
        }
        match self.state {
            // A probe that began before it was reached says nothing new.
            State::Closed { .. } if probe.is_some() => {}
            State::Closed { weight, last_fault } => {
                let recent = last_fault.is_some_and(|at| now.saturating_duration_since(at) <= FORGET_AFTER);
                let weight = if recent { weight } else { 0 }.saturating_add(outcome.weight());
                let is_there = self.last_good.is_some_and(|at| now.saturating_duration_since(at) <= GOOD_FOR);
                self.state = if weight >= OPEN_AT && !(is_there && outcome.may_be_of_one_resource()) {
                    let until = now + pause(Duration::ZERO, outcome, jitter);
                    State::Open { since: now, until, cause: outcome }
                } else {
                    State::Closed { weight, last_fault: Some(now) }
                };
            }
            State::HalfOpen { since, probe: current, .. } if probe == Some(current) => {
                let down = if outcome.answers() { Duration::ZERO } else { now.saturating_duration_since(since) };
                self.state = State::Open { since, until: now + pause(down, outcome, jitter), cause: outcome };
            }
            // Attempts that began before the breaker opened say nothing new.
            State::Open { .. } | State::HalfOpen { .. } => {}
        }
    }

    /// The probe ended without an outcome (its client left): the next request may be the probe.
    pub fn abandon_probe(&mut self, now: Instant, probe: ProbeId) {
        match self.state {
            State::HalfOpen { since, probe: current, cause } if probe == current => {
                self.state = State::Open { since, until: now, cause };
            }
            _ => {}
        }
    }

    /// Whether the source is down because there is no connection to it.
    pub fn is_unreachable(&self) -> bool {
        let (State::Open { cause, .. } | State::HalfOpen { cause, .. }) = self.state else { return false };
        cause == Outcome::ConnectFailure
    }

    /// There is a connection to it at `now`: everybody may ask, and the next fault is enough for the next pause. Whether it
    /// was waited for.
    pub fn reached(&mut self, now: Instant) -> bool {
        let was_unreachable = self.is_unreachable();
        if was_unreachable {
            self.state = State::Closed { weight: OPEN_AT - 1, last_fault: Some(now) };
        }
        was_unreachable
    }

    /// There is somebody at `now`, who refuses or is refused: one request may learn why, and the others wait for that. Whether
    /// the source was waited for.
    pub fn refuses(&mut self, now: Instant) -> bool {
        let was_unreachable = self.is_unreachable();
        if was_unreachable {
            self.state = State::Open { since: now, until: now, cause: Outcome::Refused };
        }
        was_unreachable
    }

    /// The same, whatever was known of it. Whether it was not down.
    pub fn note_refused(&mut self, now: Instant) -> bool {
        let was_well = self.down_until(now).is_none();
        if !self.is_refused() {
            self.state = State::Open { since: now, until: now, cause: Outcome::Refused };
        }
        was_well
    }

    /// There is no connection to it to be had at `now`, whatever was known of it. Whether it was not down.
    pub fn note_gone(&mut self, now: Instant) -> bool {
        let (was_well, since) = match self.state {
            State::Closed { .. } => (true, now),
            State::Open { since, .. } | State::HalfOpen { since, .. } => (false, since),
        };
        if !self.is_unreachable() {
            self.state = State::Open { since, until: now + FIRST_PAUSE, cause: Outcome::ConnectFailure };
        }
        was_well
    }

    /// Bytes come of it at `now`.
    pub fn note_bytes(&mut self, now: Instant) {
        self.last_good = Some(now);
    }

    /// Whether somebody may ask it at `now`. Changes nothing.
    pub fn may_be_asked(&self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until, cause, .. } => until <= now && cause != Outcome::ConnectFailure,
            State::HalfOpen { .. } => false,
        }
    }

    /// It says nothing at `now`, and another source gives what it was asked for: that is not because of what it was asked for.
    /// Whether it was not down.
    pub fn note_outdone(&mut self, now: Instant) -> bool {
        let is_there = self.last_good.is_some_and(|at| now.saturating_duration_since(at) <= GOOD_FOR);
        let was_well = matches!(self.state, State::Closed { .. }) && !is_there;
        if was_well {
            self.state = State::Open { since: now, until: now + FIRST_PAUSE, cause: Outcome::Timeout };
        }
        was_well
    }

    /// It does not refuse any more: everybody may ask, and the next fault is enough for the next pause. Whether it did.
    pub fn note_accepted(&mut self, now: Instant) -> bool {
        let was_refused = self.is_refused();
        if was_refused {
            self.state = State::Closed { weight: OPEN_AT - 1, last_fault: Some(now) };
        }
        was_refused
    }

    /// It was looked for at `now`, and could not be reached.
    pub fn still_away(&mut self, now: Instant) {
        if let State::Open { until, cause: Outcome::ConnectFailure, .. } = &mut self.state
            && *until <= now
        {
            *until = now + FIRST_PAUSE;
        }
    }

    /// Whether it is down since it refuses, or is refused, before anything can be asked.
    pub fn is_refused(&self) -> bool {
        let (State::Open { cause, .. } | State::HalfOpen { cause, .. }) = self.state else { return false };
        cause == Outcome::Refused
    }

    /// Whether it is down without a word.
    pub fn is_away(&self) -> bool {
        let (State::Open { cause, .. } | State::HalfOpen { cause, .. }) = self.state else { return false };
        !cause.answers() && cause != Outcome::Refused
    }

    /// When it has given a good answer last.
    pub fn last_good(&self) -> Option<Instant> {
        self.last_good
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
                let is_old = |at: Instant, time| now.saturating_duration_since(at) > time;
                last_fault.is_none_or(|at| is_old(at, FORGET_AFTER))
                    && self.last_good.is_none_or(|at| is_old(at, GOOD_FOR))
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
#[path = "health_tests.rs"]
mod tests;
