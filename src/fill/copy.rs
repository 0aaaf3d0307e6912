//! Copies the bodies of answers into a partial until it is whole, or as much of it as is wanted: it asks for ranges in
//! the order of need, goes on after cuts, and notices another version.
//!
//! What to ask for next is `schedule`'s business, what an answer is to the body `judge`'s; whether to begin at all is
//! `lead`'s.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::Method;
use tokio::time::{Instant, sleep_until};

use super::demand::{Demands, TO_THE_END};
use super::flight::{Outlook, Permit};
use super::judge::{Answered, Asked, Judged, judge};
use super::patience::Patience;
use super::rate::Rate;
use super::schedule::{self, Claim, Next, Picture, Pieces};
use super::stream::{Batch, Ending, Stream};
use super::{Inner, Want, fields, write};
use crate::content::{Abandon, ByteRange, FillMode, Record};
use crate::store::{PartialWriter, StoreError};
use crate::upstream::{FetchError, FetchResponse};

/// How often what is to come is reckoned anew.
const TICK: std::time::Duration = std::time::Duration::from_millis(250);

/// Answers that do not fit what was asked before a source counts as one that does no ranges.
const MISFITS: u32 = 4;
/// Parts whose content is not what their digest says before the source is given up.
const WRONG_PARTS: u32 = 3;
/// No byte for this long from a source that cannot be asked: who comes now is told so at once.
const DOWN_AFTER: std::time::Duration = std::time::Duration::from_secs(5);
/// A stream that is silent for so long is given up for a new request, which costs next to nothing where ranges work: a
/// client must not notice, and an agent's patience ends soon after the source's own limit.
const SILENT: std::time::Duration = std::time::Duration::from_secs(6);
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
}

enum Event {
    Answered(u64, Asked, Box<Result<FetchResponse, FetchError>>),
    Came(u64, Box<Stream>, Batch),
}

/// One fill under way.
pub(super) struct Copying<'a> {
    inner: &'a Arc<Inner>,
    want: &'a Want,
    pub(super) writer: PartialWriter,
    pub(super) ways: Ways,
    /// Length of the body, once anybody said it.
    pub(super) length: Option<u64>,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
    claims: Vec<Claim>,
    next_id: u64,
    rate: Rate,
    patience: Patience,
    retry_at: Option<Instant>,
    down: bool,
    misfits: u32,
    wrong_parts: u32,
    foreseen: Instant,
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
        let length = writer.entry().record.length;
        Self {
            inner,
            want,
            writer,
            ways,
            length,
            events: FuturesUnordered::new(),
            claims: Vec::new(),
            next_id: 0,
            rate: Rate::new(now),
            patience: Patience::new(now),
            retry_at: None,
            down: false,
            misfits: 0,
            wrong_parts: 0,
            foreseen: now,
        }
    }

    /// Takes the body of an answer.
    pub(super) fn begin(mut self, start: Start) -> Self {
        self.ways = start.ways;
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
                    if let Some(end) = self.handle(event).await {
                        return end;
                    }
                }
                () = permit.demands().changed() => {}
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
        self.want.policy.abandon == Abandon::Complete
            || self.length.is_some_and(|length| present >= length.div_ceil(2) && present > 0)
    }

    /// Asks for what is to be asked for now.
    fn plan(&mut self, permit: &Permit) -> Option<End> {
        let now = Instant::now();
        self.rate.note(now, 0);
        if self.claims.is_empty() && self.patience.is_over(now, !permit.has_clients()) {
            return Some(End::GaveUp);
        }
        if self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        self.retry_at = None;
        for _ in 0..STEPS {
            match self.next(permit.demands()) {
                Step::Ask(asked) => self.ask(asked),
                Step::Shorten { id, end } => {
                    self.claims.iter_mut().filter(|claim| claim.id == id).for_each(|claim| claim.end = end);
                }
                Step::Wait => break,
            }
        }
        let idle = self.claims.is_empty();
        (idle && permit.close_unless(|demands| !matches!(self.next(demands), Step::Wait))).then_some(End::Enough)
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

    fn ask(&mut self, asked: Asked) {
        let validator = self.writer.entry().record.validator();
        let mut headers = fields::for_fetch(&self.want.headers, &self.want.policy);
        let (at, end) = match asked {
            Asked::Range(range) => {
                let open = self.ways == Ways::Rest && self.length == Some(range.end());
                let last = if open { None } else { Some(range.last()) };
                fields::ask_range(&mut headers, range.start(), last, Some(&validator));
                (range.start(), range.end())
            }
            Asked::From(start) => {
                fields::ask_range(&mut headers, start, None, Some(&validator));
                (start, TO_THE_END)
            }
            Asked::Whole => (0, self.length.unwrap_or(TO_THE_END)),
        };
        let id = self.claim(at, end);
        let deadline = Instant::now() + self.inner.upstream.settings().timeouts.request;
        let request = self.want.request(Method::GET, headers, None, deadline);
        let inner = Arc::clone(self.inner);
        self.events.push(Box::pin(async move {
            let answer = inner.upstream.fetch(request, &*inner.redirects).await;
            Event::Answered(id, asked, Box::new(answer))
        }));
    }

    fn receive(&self, id: u64, mut stream: Box<Stream>) {
        let limit = (self.ways != Ways::Again).then_some(SILENT);
        self.events.push(Box::pin(async move {
            let batch = stream.next(limit).await;
            Event::Came(id, stream, batch)
        }));
    }

    async fn handle(&mut self, event: Event) -> Option<End> {
        let (id, asked, answer) = match event {
            Event::Came(id, stream, batch) => return self.came(id, stream, batch).await,
            Event::Answered(id, asked, answer) => (id, asked, *answer),
        };
        match answer {
            Ok(response) => {
                let end = self.answered(id, asked, response);
                if end.is_some() { self.whole_after_all().await.or(end) } else { end }
            }
            Err(FetchError::KnownDown { until, .. }) => {
                self.claims.retain(|claim| claim.id != id);
                self.down = true;
                self.retry_at = Some(Instant::from_std(until));
                None
            }
            Err(error) => {
                tracing::debug!(key = %self.want.key, %error, "a source failed while a body is filled");
                let may_pass = error.is_passing_fault();
                self.fail(id);
                (!may_pass).then_some(End::GaveUp)
            }
        }
    }

    /// The request came to nothing: its place is free, and the next one waits a little.
    fn fail(&mut self, id: u64) {
        self.claims.retain(|claim| claim.id != id);
        // Without clients nobody minds a longer pause.
        self.retry_at = Some(self.patience.failed(Instant::now(), false));
    }

    fn answered(&mut self, id: u64, asked: Asked, response: FetchResponse) -> Option<End> {
        self.down = false;
        let record = &self.writer.entry().record;
        match judge(record, self.length, asked, &Answered::of(&response)) {
            Judged::Part { at, end } => {
                self.length = self.length.or(response.content_range.and_then(|range| range.total));
                let claim = self.claims.iter_mut().find(|claim| claim.id == id)?;
                claim.end = claim.end.min(end);
                let part = ByteRange::new(at, end)?;
                self.receive(id, Box::new(Stream::part(response, part)));
            }
            Judged::Again => {
                if matches!(asked, Asked::Range(_) | Asked::From(_)) {
                    self.inner.no_ranges.insert(self.want.key.hash(), ());
                }
                self.length = self.length.or(Answered::of(&response).length);
                // It brings everything, so nobody else is needed.
                self.ways = Ways::Again;
                (self.events, self.claims) = (FuturesUnordered::new(), Vec::new());
                let id = self.claim(0, self.length.unwrap_or(TO_THE_END));
                self.receive(id, Box::new(Stream::new(response, 0)));
            }
            Judged::OtherVersion => return Some(End::OtherVersion),
            Judged::Misfit => {
                self.misfits += 1;
                if self.misfits >= MISFITS {
                    self.ways = Ways::Again;
                    self.inner.no_ranges.insert(self.want.key.hash(), ());
                }
                self.fail(id);
            }
            Judged::Passing => self.fail(id),
            Judged::Final => return Some(End::GaveUp),
        }
        None
    }

    async fn came(&mut self, id: u64, stream: Box<Stream>, batch: Batch) -> Option<End> {
        let claim = *self.claims.iter().find(|claim| claim.id == id)?;
        let came_to = batch.at.saturating_add(batch.size);
        let range = ByteRange::new(batch.at, came_to.min(claim.end));
        if let Some(range) = range {
            if let Some(end) = self.put(id, range, &batch.bytes).await {
                return end;
            }
            self.claims.iter_mut().filter(|claim| claim.id == id).for_each(|claim| claim.at = range.end());
        }
        let reached = came_to >= claim.end;
        match batch.end {
            None if !reached => self.receive(id, stream),
            // What comes behind is somebody else's.
            None => self.claims.retain(|claim| claim.id != id),
            Some(Ending::Marked) if reached || self.length.is_none() => {
                self.claims.retain(|claim| claim.id != id);
                self.length = self.length.or(Some(came_to));
            }
            Some(Ending::WrongDigest { given_out: true }) => return Some(End::WrongPart),
            Some(Ending::WrongDigest { given_out: false }) => {
                tracing::warn!(key = %self.want.key, at = claim.at, "a part is not what its Content-Digest says");
                self.wrong_parts += 1;
                self.fail(id);
                return (self.wrong_parts >= WRONG_PARTS).then_some(End::GaveUp);
            }
            Some(ending) => {
                tracing::debug!(key = %self.want.key, at = came_to, ?ending, "an upstream body was cut");
                self.fail(id);
                return self.whole_after_all().await;
            }
        }
        None
    }

    /// The length that was told may have been wrong, or none was told: then only the expected digest can say that what is
    /// there is all.
    async fn whole_after_all(&mut self) -> Option<End> {
        self.writer.is_whole().await.map(End::Whole)
    }

    /// Writes what is absent of `range`. `Some(Some(end))` when that ends the fill, `Some(None)` when only the
    /// request is over.
    async fn put(&mut self, id: u64, range: ByteRange, bytes: &[Bytes]) -> Option<Option<End>> {
        if self.ways == Ways::Again && write::differs(self.writer.partial(), range, bytes).await {
            return Some(Some(End::OtherVersion));
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
                Some(Some(End::StoreFailed))
            }
        }
    }

    /// Tells clients what to expect.
    fn foresee(&mut self, permit: &Permit, now: Instant) {
        if now < self.foreseen {
            return;
        }
        self.foreseen = now + TICK;
        let left = self.length.map(|length| length.saturating_sub(self.writer.partial().present_total()));
        let whole_by = left.and_then(|left| self.rate.time_for(now, left)).map(|time| now + time);
        let down = self.down && self.patience.silence(now) > DOWN_AFTER;
        permit.foresee(Outlook { whole_by, down });
    }
}

enum Step {
    Ask(Asked),
    Shorten { id: u64, end: u64 },
    Wait,
}
