//! Copies the bodies of answers into a partial until it is whole, or as much of it as is wanted: it asks for ranges in
//! the order of need, goes on after cuts, and notices another version.
//!
//! How requests are made and what becomes of their answers is in `exchange`. What to ask for next is `schedule`'s business,
//! what an answer is to the body `judge`'s; whether to begin at all is `lead`'s.

mod exchange;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::avoid::Avoid;
use super::credentials::Refused;
use super::demand::{Demands, TO_THE_END};
use super::flight::{Outlook, Permit};
use super::giver::Giver;
use super::judge::Asked;
use super::part_check::Unfinished;
use super::patience::Patience;
use super::rate::Rate;
use super::schedule::{self, Claim, Next, Picture, Pieces};
use super::slide::Running;
use super::stream::Stream;
use super::{Inner, Want, write};
use crate::content::{Abandon, ByteRange, ExpectedDigest, FillMode, RangeSet, Record};
use crate::store::{PartialWriter, StoreError};
use crate::upstream::{Source, Standing, Urgency};
use exchange::Event;

/// How often what is to come is reckoned anew.
const TICK: std::time::Duration = std::time::Duration::from_millis(250);

/// No byte for this long from a source that cannot be asked: who comes now is told so at once.
pub(super) const DOWN_AFTER: std::time::Duration = std::time::Duration::from_secs(5);
/// Steps of one plan. Each takes a place, so a handful is all that can be.
const STEPS: usize = 16;

/// How a source may be asked for what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ways {
    /// In ranges, several at once.
    Ranged,
    /// In one stream from the first absent byte on.
    Rest,
    /// From the begin only, comparing what comes with what is there: without a strong validator, or without ranges.
    Again,
}

/// Where copying begins.
pub(super) struct Start {
    pub(super) stream: Stream,
    /// First byte that comes.
    pub(super) at: u64,
    /// Where it ends, if that is known.
    pub(super) end: Option<u64>,
    pub(super) ways: Ways,
}

/// Why copying ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The whole body is there, and this is its length.
    Whole(u64),
    /// Everything that anybody wants is there.
    Enough,
    /// All clients have left, and the policy is to stop then.
    Abandoned,
    /// Upstream has another version now.
    OtherVersion,
    /// Bytes that were given out are not what their message says of them.
    WrongPart,
    /// Upstream brings nothing more.
    GaveUp,
    StoreFailed,
    /// The drive fails while what is there is compared with what comes: whether that goes on where this ends is not known.
    NotCompared,
    /// The drive is full.
    Full,
}

/// One fill under way.
pub(super) struct Copying<'a> {
    inner: &'a Arc<Inner>,
    /// Whose request the fill makes: the leader's, as long as upstream takes its credentials.
    want: Cow<'a, Want>,
    refused: Refused,
    /// Requests up to this one were made with credentials that upstream does not take any more.
    refused_until: u64,
    pub(super) writer: PartialWriter,
    pub(super) ways: Ways,
    /// Length of the body, once anybody said it.
    pub(super) length: Option<u64>,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
    claims: Vec<Claim>,
    /// How much what each request brings matters.
    standings: Vec<(u64, Standing)>,
    /// Requests that were said to be less urgent, and when a byte of each came last.
    modest: Vec<(u64, Instant)>,
    /// How long it has been there among those that share the budget.
    age: Standing,
    next_id: u64,
    rate: Rate,
    patience: Patience,
    avoid: Avoid,
    /// Whose stream was cut, and whether by silence, until somebody brings more.
    cut: Option<(Source, bool)>,
    comebacks: watch::Receiver<u64>,
    /// The last of them that was heard of.
    heard: u64,
    retry_at: Option<Instant>,
    down: bool,
    /// When the budget opens, if that was closed when something was asked for last.
    shut_until: Option<Instant>,
    misfits: u32,
    wrong_parts: u32,
    unfinished: Unfinished,
    pub(super) giver: Giver,
    foreseen: Instant,
    /// The request whose bytes could not be written.
    pub(super) running: Option<Running>,
    /// What the first request brought before copying began: it need not be compared with itself when it gives that out.
    own: Option<(u64, RangeSet)>,
}

impl Ways {
    /// How the source of `record` may be asked.
    pub(super) fn of(inner: &Inner, want: &Want, record: &Record) -> Self {
        if !record.validator().is_strong() || inner.no_ranges.contains_key(&want.key.hash()) {
            Self::Again
        } else if inner.asks_ranges(want) {
            Self::Ranged
        } else {
            Self::Rest
        }
    }
}

impl<'a> Copying<'a> {
    pub(super) fn new(inner: &'a Arc<Inner>, want: &'a Want, writer: PartialWriter, ways: Ways) -> Self {
        let now = Instant::now();
        let comebacks = inner.upstream.comebacks();
        let heard = *comebacks.borrow();
        let length = writer.entry().record.length;
        let is_new = writer.partial().present_total() == 0;
        let giver = if is_new { Giver::default() } else { Giver::of_a_rest() };
        Self {
            inner,
            want: Cow::Borrowed(want),
            refused: Refused::default(),
            refused_until: 0,
            writer,
            ways,
            length,
            events: FuturesUnordered::new(),
            claims: Vec::new(),
            standings: Vec::new(),
            modest: Vec::new(),
            age: Standing::default(),
            next_id: 0,
            rate: Rate::new(now),
            patience: inner.patience(),
            avoid: Avoid::default(),
            cut: None,
            heard,
            comebacks,
            retry_at: None,
            down: false,
            shut_until: None,
            misfits: 0,
            wrong_parts: 0,
            unfinished: Unfinished::default(),
            giver,
            foreseen: now,
            running: None,
            own: None,
        }
    }

    /// Takes the body of an answer into one that was begun just now: what is there of it came with that answer.
    pub(super) fn of_new(inner: &'a Arc<Inner>, want: &'a Want, writer: PartialWriter, start: Start) -> Self {
        let own = writer.partial().present();
        let copying = Self { giver: Giver::default(), ..Self::new(inner, want, writer, start.ways) };
        let mut copying = copying.begin(start);
        copying.rate.note(Instant::now(), own.total());
        copying.own = Some((copying.next_id, own));
        copying
    }

    /// The same for a body that was begun before: what a source said then that it is, another one need not answer for.
    pub(super) fn of_begun(inner: &'a Arc<Inner>, want: &'a Want, writer: PartialWriter, ways: Ways) -> Self {
        let is_said = matches!(writer.entry().record.expected, Some(ExpectedDigest::Upstream(_)));
        let copying = Self::new(inner, want, writer, ways);
        if is_said { Self { giver: Giver::of_a_rest(), ..copying } } else { copying }
    }

    /// Takes the body of an answer.
    pub(super) fn begin(mut self, start: Start) -> Self {
        self.ways = start.ways;
        self.age = start.stream.standing().cloned().unwrap_or_default();
        self.giver.note(start.stream.source());
        let id = self.claim(start.at, start.end.or(self.length).unwrap_or(TO_THE_END));
        self.receive(id, Box::new(start.stream));
        self
    }

    /// Copies until there is a reason to end. The head is published already, so that those who read learn of the end
    /// from the partial.
    pub(super) async fn until_end(&mut self, permit: &Permit) -> End {
        loop {
            if let Some(length) = self.length.filter(|length| self.writer.partial().present_total() >= *length) {
                return self.all_there(length);
            }
            if let Some(end) = self.plan(permit) {
                return end;
            }
            let now = Instant::now();
            self.foresee(permit, now);
            let wake = self.retry_at.map_or(now + TICK, |at| at.min(now + TICK));
            tokio::select! {
                biased;
                () = permit.clients_left(), if !self.goes_on_alone() => {
                    if permit.close_if_unused() {
                        return End::Abandoned;
                    }
                }
                Some(event) = self.events.next(), if !self.events.is_empty() => {
                    if let Some(end) = self.handle(event, permit).await {
                        return end;
                    }
                }
                () = permit.demands().changed() => {}
                // Whoever it is: one that is still down says so at once.
                Ok(()) = self.comebacks.changed() => {
                    self.heard = *self.comebacks.borrow();
                    // Nobody is to give up at a word that holds no more.
                    (self.retry_at, self.down, self.shut_until) = (None, false, None);
                    self.foreseen = Instant::now();
                }
                () = sleep_until(wake) => {}
            }
        }
    }

    /// As many bytes are there as the body has. When some lie behind its end, which only the end could tell, it is another
    /// version that begins like the stored one.
    fn all_there(&self, length: u64) -> End {
        let behind = self.writer.partial().present().iter().any(|range| range.end() > length);
        if behind { End::OtherVersion } else { End::Whole(length) }
    }

    /// Whether the fill goes on without clients: its policy says so, or most of the body is there.
    fn goes_on_alone(&self) -> bool {
        let present = self.writer.partial().present_total();
        // What would have to be read from its begin again is not nearly done.
        let continues = self.ways != Ways::Again || !self.claims.is_empty();
        self.want.policy.abandon == Abandon::Complete
            || (continues && self.length.is_some_and(|length| present >= length.div_ceil(2) && present > 0))
    }

    /// Asks for what is to be asked for now.
    fn plan(&mut self, permit: &Permit) -> Option<End> {
        let now = Instant::now();
        self.rate.note(now, 0);
        self.weigh(permit);
        self.hurry(permit, now);
        // Who waits is to learn that nothing comes; what nobody waits for has time.
        if !permit.has_clients() && self.want.policy.budgeted && self.inner.upstream.is_shut() {
            self.patience.rest(now);
        }
        if self.claims.is_empty() && self.patience.is_over(now, !permit.has_clients()) {
            return Some(End::GaveUp);
        }
        if self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        self.retry_at = None;
        for _ in 0..STEPS {
            match self.next(permit.demands()) {
                Step::Ask(asked) => self.ask(asked, permit.demands()),
                Step::Shorten { id, end } => {
                    self.claims.iter_mut().filter(|claim| claim.id == id).for_each(|claim| claim.end = end);
                }
                Step::Wait => break,
            }
        }
        let idle = self.claims.is_empty();
        (idle && permit.close_unless(|demands| !matches!(self.next(demands), Step::Wait))).then_some(End::Enough)
    }

    /// Says of each request how much what it brings matters now.
    fn weigh(&mut self, permit: &Permit) {
        self.standings.retain(|(id, _)| self.claims.iter().any(|claim| claim.id == *id));
        if !self.inner.upstream.has_budget() {
            return;
        }
        let clients = permit.demands().clients();
        let present = self.writer.partial().present();
        for (id, standing) in &self.standings {
            let claim = self.claims.iter().find(|claim| claim.id == *id);
            standing.set(claim.map_or(Urgency::Background, |claim| schedule::urgency(claim, &clients, &present)));
        }
    }

    fn next(&self, demands: &Demands) -> Step {
        let idle = self.claims.is_empty();
        let Some(length) = self.length.filter(|_| self.ways != Ways::Again) else {
            return match self.ways {
                _ if !idle => Step::Wait,
                Ways::Again => Step::Ask(Asked::Whole),
                Ways::Ranged | Ways::Rest => Step::Ask(Asked::From(self.writer.contiguous())),
            };
        };
        let (waiting, mut owed) = demands.all();
        let pieces = if self.ways == Ways::Ranged { Pieces::Ranged } else { Pieces::Rest };
        if self.want.policy.fill == FillMode::Whole {
            ByteRange::whole(length).into_iter().for_each(|whole| owed.insert(whole));
        }
        let partial = self.writer.partial();
        let next = schedule::next(&Picture {
            pieces,
            length,
            block: partial.block_size(),
            present: &partial.present(),
            claims: &self.claims,
            waiting: &waiting,
            owed: &owed,
            rate: self.rate.per_second(),
        });
        match next {
            Next::Ask(range) => Step::Ask(Asked::Range(range)),
            Next::Shorten { id, end } => Step::Shorten { id, end },
            Next::Wait => Step::Wait,
        }
    }

    fn claim(&mut self, at: u64, end: u64) -> u64 {
        ByteRange::new(at, end).into_iter().for_each(|range| self.writer.intend(range));
        self.next_id += 1;
        self.claims.push(Claim { id: self.next_id, at, end });
        self.next_id
    }

    /// Writes what is absent of `range`. `Some(Some(end))` when that ends the fill, `Some(None)` when only the
    /// request is over.
    async fn put(&mut self, id: u64, range: ByteRange, bytes: &[Bytes]) -> Option<Option<End>> {
        // Only the first batch of the first request is there by itself: all that follows is compared.
        let own = self.own.take().filter(|(by, _)| *by == id).map(|(_, own)| own).unwrap_or_default();
        for part in own.missing(range).into_iter().filter(|_| self.ways == Ways::Again) {
            let bytes = write::slices(bytes, range.start(), part);
            match write::differs(self.writer.partial(), part, &bytes).await {
                Ok(false) => {}
                Ok(true) => return Some(Some(End::OtherVersion)),
                Err(error) => {
                    tracing::warn!(key = %self.want.key, %error, "what is stored cannot be compared with what comes");
                    return Some(Some(End::NotCompared));
                }
            }
        }
        match write::absent(&mut self.writer, range, bytes).await {
            Ok(0) => None,
            Ok(new) => {
                let now = Instant::now();
                self.rate.note(now, new);
                self.patience.progress(now, new);
                self.misfits = 0;
                None
            }
            // A block was found damaged meanwhile, so that the bytes have no place before others: those come first.
            Err(StoreError::Misplaced { .. }) => {
                self.fail(id);
                Some(None)
            }
            Err(error) => {
                tracing::warn!(key = %self.want.key, %error, "fill could not be written");
                let is_full = matches!(error, StoreError::NoSpace { .. });
                Some(Some(if is_full { End::Full } else { End::StoreFailed }))
            }
        }
    }

    /// Ends all requests that are under way, and says whose they were.
    pub(super) fn let_go(&mut self) -> Cow<'a, Want> {
        (self.events, self.claims) = (FuturesUnordered::new(), Vec::new());
        self.want.clone()
    }

    /// Tells clients what to expect.
    fn foresee(&mut self, permit: &Permit, now: Instant) {
        if now < self.foreseen {
            return;
        }
        self.foreseen = now + TICK;
        let left = self.length.map(|length| length.saturating_sub(self.writer.partial().present_total()));
        let whole_by = left.and_then(|left| self.rate.time_for(now, left)).map(|time| now + time);
        let is_silent = self.patience.silence(now) > DOWN_AFTER;
        let shut_until = self.shut_until.filter(|_| is_silent && self.claims.is_empty());
        let down_after = (self.down && is_silent).then_some(self.heard);
        permit.foresee(Outlook { whole_by, down_after, shut_until });
    }
}

enum Step {
    Ask(Asked),
    Shorten { id: u64, end: u64 },
    Wait,
}
