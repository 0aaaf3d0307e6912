//! Which part of a body is asked for next. Pure: a picture of the flight in, one step out.
//!
//! The order of need: first what a client stands before and nobody is bringing, then what lies ahead of clients, the
//! nearest first, then what is owed without a client. Requests are as long as the link is fast (1 to 8 MiB, about two
//! seconds), as content delivery networks like them, and as many at once as its speed is worth: on a slow link a second
//! one would only take from the first.
//!
//! The digest is made from the begin on, and what lies behind an absent byte has to be read from the drive again for it. So
//! nothing is read ahead that would make that too much, as long as the absent byte comes or is to come; who stands before
//! an absent byte, or near to one, gets it all the same.

use crate::content::{ByteRange, RangeSet};
use crate::upstream::Urgency;

const MIB: u64 = 1024 * 1024;

/// Shortest and longest range that is asked for at once, in bytes.
const SHORTEST: u64 = MIB;
const LONGEST: u64 = 8 * MIB;
/// A range should take about this many seconds.
const SECONDS: u64 = 2;
/// Most requests at once.
const MOST_STREAMS: u64 = 4;
/// Each stream more than the first needs this speed, in bytes per second.
const WORTH_A_STREAM: u64 = 512 * 1024;
/// For clients that stand before an absent byte a stream more is worth less: so much keeps a Delivery Optimization
/// agent (4000 B/s) alive.
const WORTH_A_CLIENT: u64 = 16 * 1024;
/// Most bytes that are read ahead behind the first absent one, where the digest waits.
const UNHASHED: u64 = 64 * MIB;
/// What lies no further than this before a client is not held up for the digest.
const NEAR: u64 = MOST_STREAMS * LONGEST;
/// A client this far behind the head of the stream that would bring its bytes, in bytes and in seconds at the present
/// rate, gets a request of its own.
const FAR: u64 = MIB;
const FAR_SECONDS: u64 = 3;

/// What one request is bringing: the bytes from where it is to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    /// Names the request.
    pub(super) id: u64,
    /// The next byte that comes.
    pub(super) at: u64,
    /// Where it ends; beyond the length when that is not known.
    pub(super) end: u64,
}

/// How the source can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pieces {
    /// In ranges of a few MiB, several at once.
    Ranged,
    /// In one stream from the first absent byte; ranges only for clients that are far ahead of it.
    Rest,
}

/// Everything that the next step depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Picture<'a> {
    pub(super) pieces: Pieces,
    /// Length of the body.
    pub(super) length: u64,
    /// Size of the store's blocks: bytes are written from the begin of a block on.
    pub(super) block: u64,
    pub(super) present: &'a RangeSet,
    pub(super) claims: &'a [Claim],
    /// From where each client is to the end of what it reads.
    pub(super) waiting: &'a [ByteRange],
    /// What is fetched although nobody waits for it.
    pub(super) owed: &'a RangeSet,
    /// Bytes per second, when it is known.
    pub(super) rate: Option<u64>,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask for this range.
    Ask(ByteRange),
    /// Let the claim end here, so that the range behind it can be asked for on its own.
    Shorten { id: u64, end: u64 },
    /// Nothing to do until something changes.
    Wait,
}

/// The next step. To be asked again after each step until it says [`Next::Wait`].
pub(super) fn next(picture: &Picture<'_>) -> Next {
    let taken = picture.taken();
    let rate = picture.rate.unwrap_or(0);
    let busy = picture.busy(rate);
    // A client that stands before an absent byte which nobody brings.
    let stranded = picture.waiting().filter(|range| taken.available_from(range.start()) == range.start());
    if let Some(range) = stranded.min_by_key(ByteRange::start) {
        if busy < (rate / WORTH_A_CLIENT).clamp(1, MOST_STREAMS) {
            return picture.ask(&taken, range.start(), range.end());
        }
        return Next::Wait;
    }
    if let Some(step) = picture.far_client(rate, busy) {
        return step;
    }
    let most = match picture.pieces {
        Pieces::Ranged => (1 + rate / WORTH_A_STREAM).min(MOST_STREAMS),
        Pieces::Rest => 1,
    };
    if busy >= most {
        return Next::Wait;
    }
    let gap = |range: ByteRange| taken.missing(range).first().map(|gap| (gap.start(), range));
    let ahead = picture.waiting().filter_map(gap).min_by_key(|(at, range)| at - range.start());
    let owed = || picture.owed.iter().filter_map(|range| gap(picture.within(range)?)).min_by_key(|(at, _)| *at);
    let Some((at, range)) = ahead.or_else(owed) else { return Next::Wait };
    let is_near = ahead.is_some() && at - range.start() < NEAR;
    match picture.unhashed(&taken) {
        Some((absent, end)) if !is_near && taken.available_from(absent) == absent => picture.ask(&taken, absent, end),
        Some(_) if !is_near => Next::Wait,
        _ => picture.ask(&taken, at, range.end()),
    }
}

/// How much what `claim` brings matters: most when a client stands before it, or will in a moment. To no client does it matter
/// more than that client's bytes may.
pub(super) fn urgency(claim: &Claim, clients: &[(ByteRange, Urgency)], present: &RangeSet) -> Urgency {
    let stands_in = |range: &ByteRange| {
        let absent = present.available_from(range.start());
        let is_near = absent < range.end() && absent - range.start() < FAR;
        is_near && (claim.at..claim.end).contains(&absent)
    };
    let own = |range: &ByteRange| if stands_in(range) { Urgency::Awaited } else { Urgency::Ahead };
    clients.iter().map(|(range, most)| own(range).max(*most)).min().unwrap_or(Urgency::Background)
}

/// The same of a request that is made now, beside those that bring `others` at `rate`: what they bring within half a second is
/// as good as there. Who is told how urgent a request is will not be told again.
pub(super) fn urgency_to_tell(
    claim: &Claim,
    others: &[Claim],
    clients: &[(ByteRange, Urgency)],
    present: &RangeSet,
    rate: Option<u64>,
) -> Urgency {
    let soon = rate.unwrap_or(0) / 2 / (others.len().max(1) as u64);
    let mut there = present.clone();
    let nearly_done = others.iter().filter(|other| other.end.saturating_sub(other.at) <= soon);
    nearly_done.filter_map(|other| ByteRange::new(other.at, other.end)).for_each(|range| there.insert(range));
    urgency(claim, clients, &there)
}

/// The range to begin with when nothing is known of the body but that it has to be fetched from `from` on, up to
/// `until` if that is known; `block` is the size of blocks.
pub(super) fn first(from: u64, until: Option<u64>, block: u64) -> Option<ByteRange> {
    let start = from - from % block;
    let wanted = until.unwrap_or(u64::MAX).max(start.saturating_add(1));
    // A bounded range costs what it asks for; the begin of a whole one says how to go on.
    let longest = if until.is_some() { LONGEST } else { SHORTEST };
    let end = wanted.min(start.saturating_add(longest.max(block)));
    ByteRange::new(start, end.checked_next_multiple_of(block).unwrap_or(end))
}

/// The request that closes `gap` or begins to, when nothing else is on its way.
pub(super) fn only(pieces: Pieces, length: u64, block: u64, present: &RangeSet, gap: ByteRange) -> Option<ByteRange> {
    let owed = RangeSet::new();
    let picture = Picture { pieces, length, block, present, claims: &[], waiting: &[gap], owed: &owed, rate: None };
    match next(&picture) {
        Next::Ask(range) => Some(range),
        Next::Shorten { .. } | Next::Wait => None,
    }
}

impl Picture<'_> {
    /// What is present or on its way.
    fn taken(&self) -> RangeSet {
        let mut taken = self.present.clone();
        let claimed = self.claims.iter().filter_map(|claim| ByteRange::new(claim.at, claim.end));
        claimed.for_each(|range| taken.insert(range));
        taken
    }

    /// The first absent byte and the end of what is wanted from there on, if one request more might make too much of what
    /// lies behind it, and anybody wants it: otherwise waiting for it would be in vain.
    fn unhashed(&self, taken: &RangeSet) -> Option<(u64, u64)> {
        let absent = self.present.available_from(0);
        let behind = taken.total().saturating_sub(absent);
        if self.pieces == Pieces::Rest || behind.saturating_add(LONGEST.max(self.block)) <= UNHASHED {
            return None;
        }
        let comes = self.claims.iter().filter(|claim| claim.at <= absent && absent < claim.end).map(|claim| claim.end);
        let owed = self.owed.iter().filter_map(|range| self.within(range));
        let wanted = self.waiting().chain(owed).filter(|range| range.start() <= absent && absent < range.end());
        comes.chain(wanted.map(|range| range.end())).max().map(|end| (absent, end))
    }

    /// The part of a range that is within the body.
    fn within(&self, range: ByteRange) -> Option<ByteRange> {
        ByteRange::new(range.start(), range.end().min(self.length))
    }

    fn waiting(&self) -> impl Iterator<Item = ByteRange> + '_ {
        self.waiting.iter().filter_map(|range| self.within(*range))
    }

    /// Requests that have more than half a second to go: the others are as good as done, and what comes after them
    /// should be on its way when they are.
    fn busy(&self, rate: u64) -> u64 {
        let soon = rate / 2 / (self.claims.len().max(1) as u64);
        let mut left: Vec<u64> = self.claims.iter().map(|claim| claim.end.saturating_sub(claim.at)).collect();
        left.sort_unstable();
        // One at most, so that the number of requests has a bound.
        let done = usize::from(left.first().is_some_and(|left| *left <= soon));
        (left.len() - done) as u64
    }

    /// Asks for what is absent from `at` on, up to `until` or a reasonable length, whole blocks.
    fn ask(&self, taken: &RangeSet, at: u64, until: u64) -> Next {
        let begin = at - at % self.block;
        // Behind what is there of the block.
        let start = taken.available_from(begin).min(at);
        let until = until.checked_next_multiple_of(self.block).unwrap_or(until).min(self.length);
        let longest = match self.pieces {
            Pieces::Ranged => (self.rate.unwrap_or(0) * SECONDS).clamp(SHORTEST, LONGEST).max(self.block),
            Pieces::Rest => u64::MAX,
        };
        let end = until.min(start.saturating_add(longest));
        let end = end.checked_next_multiple_of(self.block).unwrap_or(end).min(self.length);
        let gap = ByteRange::new(start, end).and_then(|range| taken.missing(range).first().copied());
        gap.map_or(Next::Wait, Next::Ask)
    }

    /// A client so far ahead of the stream that would bring its bytes that it gets one of its own.
    fn far_client(&self, rate: u64, busy: u64) -> Option<Next> {
        if busy >= (rate / WORTH_A_CLIENT).clamp(1, MOST_STREAMS) {
            return None;
        }
        let far = (rate.saturating_mul(FAR_SECONDS) / busy.max(1)).max(FAR);
        self.waiting().find_map(|range| {
            let begin = range.start() - range.start() % self.block;
            let absent = self.present.available_from(range.start()) == range.start();
            let claim = self.claims.iter().find(|claim| claim.at < begin && range.start() < claim.end)?;
            let is_far = absent && begin - claim.at > far && self.rate.is_some();
            is_far.then_some(Next::Shorten { id: claim.id, end: begin })
        })
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
