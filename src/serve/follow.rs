//! Follows a body that is being filled: its bytes leave as they land, but for few ones behind the first, which linger for
//! more. The end of one with an expected digest leaves only once the body has it; `verify` says whether bytes leave before at all.
//!
//! For Delivery Optimization agents some bytes are held back while the fill is fast, and given out slowly when it
//! stalls: such an agent bans the cache for 15 minutes after 20 s below 4000 B/s, but takes a cut connection as a
//! reason to ask again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::body::{BodyCut, Segment};
use super::gather::Told;
use crate::content::ByteRange;
use crate::fill::{Arrived, Arriving, FlightGuard, Outlook};
use crate::store::Progress;

/// Behind the first bytes, fewer than this linger for more, but not for longer than that: a send costs about the same whatever
/// its size, and many may follow one fill.
const PIECE: u64 = 256 * 1024;
const LINGER: Duration = Duration::from_millis(30);

/// Most bytes held back from an agent.
const RESERVE: u64 = 128 * 1024;

/// A fill slower than this, in bytes per second, has nothing to hold back.
const RESERVE_RATE: u64 = 64 * 1024;

/// The fill's rate is measured over windows of at least this length.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// After this long without a new byte the reserve is given out.
const STALL: Duration = Duration::from_secs(12);

/// After this long without a new byte other clients are cut. They bear more than an agent, and a fill that goes on
/// after a pause is worth more to them than a new attempt. Who would wait for so long in vain is cut before.
const SILENCE: Duration = Duration::from_secs(60);

/// One sip of the reserve, given out each [`SIP_EVERY`]: 5 KB/s, above the agent's 4000 B/s.
const SIP: u64 = 1280;
const SIP_EVERY: Duration = Duration::from_millis(250);

/// The end of a body has been waiting for its digest for this long: it is given out slowly, but for the last bytes.
const HELD_FOR: Duration = Duration::from_secs(5);

/// Last bytes of a body with an expected digest: they leave only once it has that digest, so that nobody gets a wrong
/// body whole.
pub(super) const HELD_BACK: u64 = 16 * 1024;

/// Of these, the bytes that are not even given out slowly.
const NEVER_EARLY: u64 = 1024;

/// A range of a growing body on its way to a client.
pub(super) struct Follow {
    body: Arriving,
    position: u64,
    end: Option<u64>,
    hold: Option<HeldEnd>,
    reserve: Option<Reserve>,
    guard: Arc<FlightGuard>,
    outlook: watch::Receiver<Outlook>,
    begun: bool,
    lingering: Lingering,
    /// Whom to tell that the client was given wrong bytes.
    told: Option<Told>,
}

/// Bytes that leave only once the body has turned out to have its expected digest.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeldEnd {
    /// Length of the body, if it is known.
    length: Option<u64>,
    /// Since when nothing else has been left to send.
    since: Option<Instant>,
}

/// Whether few bytes may linger.
#[derive(Debug, Clone, Copy, Default)]
struct Lingering {
    /// When the last bytes were taken, if what comes behind them may.
    taken: Option<Instant>,
}

/// What is held back from an agent.
struct Reserve {
    /// End of the present run when it was last looked at.
    seen: u64,
    /// How far bytes may leave.
    free: u64,
    /// Begin of the window in which the fill's rate is measured, and how far the run reached then.
    window: (Instant, u64),
    fast: bool,
    /// No byte has come for [`STALL`]: the reserve is being given out.
    sipping: bool,
}

impl HeldEnd {
    /// What is held back of a body of `length` bytes with an expected digest. Of one without a length any byte may be
    /// among the last.
    pub(super) fn of(length: Option<u64>) -> Self {
        Self { length, since: None }
    }

    /// First byte that waits while the body is there up to `present`.
    pub(super) fn from(&self, present: u64) -> u64 {
        self.length.unwrap_or(present).saturating_sub(HELD_BACK)
    }
}

impl Follow {
    /// Follows `body` from `start` to `end`, or to its end when that is not known yet. `agent`: the client is a
    /// Delivery Optimization agent.
    pub(super) fn new(
        body: Arriving,
        start: u64,
        end: Option<u64>,
        hold: Option<HeldEnd>,
        agent: bool,
        guard: Arc<FlightGuard>,
    ) -> Self {
        let reserve = agent.then(|| {
            let present = body.present_until(start);
            Reserve { seen: present, free: present, window: (Instant::now(), present), fast: false, sipping: false }
        });
        let outlook = guard.outlook();
        Self {
            body,
            position: start,
            end,
            hold,
            reserve,
            guard,
            outlook,
            begun: false,
            lingering: Lingering::default(),
            told: None,
        }
    }

    /// The same, which tells `told` when bytes turn out to be wrong.
    pub(super) fn telling(mut self, told: Told) -> Self {
        self.told = Some(told);
        self
    }

    /// The bytes that are left to send; to the end of everything when the length is not known.
    pub(super) fn range(&self) -> Option<ByteRange> {
        ByteRange::new(self.position, self.end.unwrap_or(u64::MAX))
    }

    /// The next bytes that may leave, or `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Result<Segment, BodyCut>> {
        if self.end == Some(self.position) {
            return None;
        }
        if !std::mem::replace(&mut self.begun, true)
            && let Some(range) = self.range()
        {
            self.guard.turns_to(range);
        }
        let mut from = self.position;
        // Until when bytes linger.
        let mut lingers = None;
        loop {
            self.guard.advance(from);
            // How long to wait, and what to do then.
            let (patience, held) = self.patience();
            let latest = lingers.unwrap_or_else(|| Instant::now() + patience);
            let is_cut_then = !held && self.reserve.is_none() && lingers.is_none();
            let in_vain = |outlook: &Outlook| is_cut_then && outlook.shut_until.is_some_and(|until| until > latest);
            let waited = tokio::select! {
                biased;
                waited = timeout_at(latest, self.body.wait(from)) => waited,
                Ok(_) = self.outlook.wait_for(in_vain) => {
                    return Some(Err(BodyCut("the upstream budget is closed".to_owned())));
                }
            };
            if lingers.take().is_some() && !matches!(waited, Ok(Progress::Present(_))) {
                // They leave as they are, if they are still there, before anything else is said.
                self.lingering.taken = None;
                from = self.position;
                continue;
            }
            let progress = match waited {
                Ok(progress) => progress,
                Err(_) if held => return Some(self.take(self.position + SIP.min(self.early()))),
                Err(_) if self.reserve.is_some() => return Some(self.sip()),
                Err(_) => return Some(Err(BodyCut("no byte from upstream".to_owned()))),
            };
            let complete = self.body.is_complete();
            match progress {
                Progress::Present(until) => {
                    let landed = self.end.map_or(until, |end| until.min(end));
                    let free = match &mut self.reserve {
                        Some(reserve) if !complete && self.end != Some(landed) => {
                            reserve.release(landed, Instant::now())
                        }
                        _ => landed,
                    };
                    let held_from = self.hold.filter(|_| !complete).map(|hold| hold.from(until));
                    let free = held_from.map_or(free, |held| free.min(held));
                    if free > self.position {
                        let is_last = complete || self.end == Some(free);
                        lingers = self.lingering.until(free - self.position, Instant::now()).filter(|_| !is_last);
                        if lingers.is_none() {
                            return Some(self.take(free));
                        }
                    }
                    if held_from.is_some_and(|held| self.position >= held)
                        && let Some(hold) = &mut self.hold
                        && hold.length.is_some()
                    {
                        hold.since.get_or_insert_with(Instant::now);
                    }
                    from = until;
                }
                Progress::Ended(length) => {
                    let end = self.end.unwrap_or(length);
                    if end > length {
                        return Some(Err(BodyCut("the body is shorter than its range".to_owned())));
                    }
                    return (self.position < end).then(|| self.take(end));
                }
                Progress::Stopped => {
                    if let Some(told) = self.told.take().filter(|_| self.body.is_wrong()) {
                        told.is_wrong().await;
                    }
                    return Some(Err(BodyCut("the fill ended before the body did".to_owned())));
                }
            }
        }
    }

    /// How long to wait for a byte, and whether it is the digest that is waited for.
    fn patience(&self) -> (Duration, bool) {
        if let Some(since) = self.hold.and_then(|hold| hold.since)
            && self.early() > 0
        {
            let waited = since.elapsed();
            return (if waited < HELD_FOR { HELD_FOR - waited } else { SIP_EVERY }, true);
        }
        let patience = match &self.reserve {
            Some(reserve) if reserve.sipping => SIP_EVERY,
            Some(_) => STALL,
            None => SILENCE,
        };
        (patience, false)
    }

    /// How many of the bytes that wait for the digest are there and may leave slowly before it is known.
    fn early(&self) -> u64 {
        let Some(length) = self.hold.and_then(|hold| hold.length) else { return 0 };
        if self.position < length.saturating_sub(HELD_BACK) {
            return 0;
        }
        let present = self.body.present_until(self.position);
        let last = length.saturating_sub(NEVER_EARLY).min(self.end.unwrap_or(length));
        present.min(last).saturating_sub(self.position)
    }

    /// The next bytes, all up to `until` or the first of them.
    fn take(&mut self, until: u64) -> Result<Segment, BodyCut> {
        let gone = || BodyCut("others were too far ahead; the rest has to be asked for anew".to_owned());
        let position = self.position;
        match self.body.take(position, until).ok_or_else(gone)? {
            Arrived::Stored(reader, until) => {
                self.position = until;
                self.lingering.taken = Some(Instant::now());
                Ok(Segment::File { reader, offset: position, len: until - position })
            }
            Arrived::Bytes(bytes) => {
                self.position += bytes.len() as u64;
                // The pieces of a window stay as they are.
                self.lingering.taken = None;
                Ok(Segment::Bytes(bytes))
            }
        }
    }

    /// Gives out a little of what is held back; cuts when nothing is left.
    fn sip(&mut self) -> Result<Segment, BodyCut> {
        let seen = self.reserve.as_ref().map_or(0, |reserve| reserve.seen);
        let held_from = self.hold.map_or(u64::MAX, |hold| hold.from(seen));
        let held = seen.min(held_from).saturating_sub(self.position);
        if held == 0 {
            return Err(BodyCut("no byte from upstream".to_owned()));
        }
        let sip = self.take(self.position + held.min(SIP))?;
        if let Some(reserve) = &mut self.reserve {
            reserve.sipping = true;
            reserve.free = reserve.free.max(self.position);
        }
        Ok(sip)
    }
}

impl Lingering {
    /// Until when so many `bytes` linger; `None` when they leave at once.
    fn until(&self, bytes: u64, now: Instant) -> Option<Instant> {
        self.taken.map(|taken| taken + LINGER).filter(|until| bytes < PIECE && now < *until)
    }
}

impl Reserve {
    /// How far bytes may leave when they are present up to `until` at `now`.
    fn release(&mut self, until: u64, now: Instant) -> u64 {
        if until > self.seen {
            let held_before = self.seen.saturating_sub(self.free);
            let new = until - self.seen;
            self.seen = until;
            self.sipping = false;
            let (began, from) = self.window;
            let elapsed = now.saturating_duration_since(began);
            if elapsed >= RATE_WINDOW {
                let landed = u128::from(until.saturating_sub(from)) * 1000;
                self.fast = landed / elapsed.as_millis().max(1) > u128::from(RESERVE_RATE);
                self.window = (now, until);
            }
            // Half of what comes is kept at most, so that a reserve that is being built delays nothing. One that was
            // built is kept when the fill slows down: that is what it is for.
            let held = if self.fast { RESERVE.min(held_before + new / 2) } else { held_before };
            self.free = self.free.max(until.saturating_sub(held));
        }
        self.free
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reserve(now: Instant) -> Reserve {
        Reserve { seen: 0, free: 0, window: (now, 0), fast: false, sipping: false }
    }

    /// Lands `bytes` each 100 ms, `times` times; returns what is held back at the end.
    fn held_after(reserve: &mut Reserve, start: Instant, bytes: u64, times: u32) -> u64 {
        for step in 1..=times {
            let until = reserve.seen + bytes;
            reserve.release(until, start + Duration::from_millis(100) * step);
        }
        reserve.seen - reserve.free
    }

    #[test]
    fn few_bytes_linger_but_not_the_first_ones_and_not_for_long() {
        let now = Instant::now();
        assert_eq!(Lingering::default().until(1, now), None, "the first");
        let lingering = Lingering { taken: Some(now) };
        assert_eq!(lingering.until(PIECE - 1, now), Some(now + LINGER));
        assert_eq!(lingering.until(1, now + LINGER), None, "after that time");
        assert_eq!(lingering.until(PIECE, now), None, "enough");
    }

    #[test]
    fn only_a_fast_fill_builds_a_reserve() {
        let start = Instant::now();
        assert_eq!(held_after(&mut reserve(start), start, RESERVE_RATE / 10, 100), 0, "at the limit");
        assert_eq!(held_after(&mut reserve(start), start, 1_000_000, 100), RESERVE);
        assert_eq!(held_after(&mut reserve(start), start, 1_000_000, 9), 0, "not before the rate is known");
    }

    #[test]
    fn a_reserve_outlives_the_speed_that_built_it() {
        let start = Instant::now();
        let mut reserve = reserve(start);
        held_after(&mut reserve, start, 1_000_000, 100);
        let later = start + Duration::from_secs(10);
        assert_eq!(held_after(&mut reserve, later, 100, 50), RESERVE);
        let before = reserve.free;
        reserve.release(reserve.seen + 100, later + Duration::from_secs(6));
        assert_eq!(reserve.free, before + 100, "what comes slowly goes on at once");
    }

    proptest! {
        #[test]
        fn bytes_never_wait_for_nothing(landings in prop::collection::vec((1_u64..3_000_000, 0_u64..3_000), 1..60)) {
            let mut now = Instant::now();
            let mut reserve = reserve(now);
            for (bytes, pause) in landings {
                now += Duration::from_millis(pause);
                let (seen, free) = (reserve.seen + bytes, reserve.free);
                let after = reserve.release(seen, now);
                prop_assert!(after <= seen && seen - after <= RESERVE);
                prop_assert!(after >= free + bytes.div_ceil(2), "at least half of what came leaves");
            }
        }
    }
}
