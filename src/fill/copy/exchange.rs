//! The requests of a fill: how they are made, and what becomes of what they bring.

use std::borrow::Cow;
use std::sync::Arc;

use futures_util::stream::FuturesUnordered;
use http::{Method, StatusCode};
use tokio::time::Instant;

use super::{Copying, End, Ways};
use crate::content::ByteRange;
use crate::fill::avoid::{SILENT, silence_left};
use crate::fill::demand::{Demands, TO_THE_END};
use crate::fill::fields;
use crate::fill::flight::Permit;
use crate::fill::giver::Giver;
use crate::fill::judge::{Answered, Asked, Judged, judge};
use crate::fill::patience::MODEST;
use crate::fill::schedule::{Claim, urgency, urgency_to_tell};
use crate::fill::slide::Running;
use crate::fill::stream::{Batch, Ending, Stream};
use crate::upstream::{BodyError, FetchError, FetchRequest, FetchResponse, Source, Subject, Urgency};

/// Answers that do not fit what was asked before a source counts as one that does no ranges.
const MISFITS: u32 = 4;
/// Parts whose content is not what their digest says before the source is given up.
const WRONG_PARTS: u32 = 3;

/// What a request has come to.
pub(super) enum Event {
    Answered(u64, Asked, Box<Result<FetchResponse, FetchError>>),
    Came(u64, Box<Stream>, Batch),
}

impl Copying<'_> {
    pub(super) fn ask(&mut self, asked: Asked, demands: &Demands) {
        let validator = self.writer.entry().record.validator();
        let mut headers = fields::for_fetch(&self.want);
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
        let claim = Claim { id: self.next_id, at, end };
        let (clients, present) = (demands.clients(), self.writer.partial().present());
        let told = urgency_to_tell(&claim, &self.claims, &clients, &present, self.rate.per_second());
        let id = self.claim(at, end);
        if told != Urgency::Awaited && self.inner.upstream.tells_urgency() {
            self.modest.push((id, Instant::now()));
        }
        let now = Instant::now();
        let deadline = now + self.inner.upstream.settings().timeouts.request;
        let (avoid, wrong) = (self.avoid.at(now), self.inner.wrong_source(&self.want));
        let silence = Some(silence_left(self.patience.silence(now)));
        let standing = self.age.of_the_same();
        standing.set(told);
        let request = self.want.request(Method::GET, headers, None, deadline);
        let request = FetchRequest { avoid, wrong, silence, standing, ..request };
        let inner = Arc::clone(self.inner);
        self.events.push(Box::pin(async move {
            let answer = inner.upstream.fetch(request, &*inner.redirects).await;
            Event::Answered(id, asked, Box::new(answer))
        }));
    }

    pub(super) fn receive(&mut self, id: u64, mut stream: Box<Stream>) {
        if self.ways != Ways::Again {
            stream.can_be_resumed(SILENT);
        }
        // It is about what comes next, and of who was told so.
        let (now, yields) = (Instant::now(), stream.yields());
        let is_known = self.modest.iter().any(|(known, _)| *known == id);
        self.modest.retain(|(known, _)| *known != id);
        // The first one of a fill was asked for by who leads it. All of what cannot be resumed would have to come again.
        if yields && (is_known || self.ways != Ways::Again) {
            self.modest.push((id, now));
        }
        if !self.standings.iter().any(|(known, _)| *known == id) {
            self.standings.extend(stream.standing().map(|standing| (id, standing.clone())));
        }
        self.events.push(Box::pin(async move {
            let batch = stream.next().await;
            Event::Came(id, stream, batch)
        }));
    }

    pub(super) async fn handle(&mut self, event: Event, permit: &Permit) -> Option<End> {
        let (id, asked, answer) = match event {
            Event::Came(id, stream, batch) => return self.came(id, stream, batch, permit).await,
            // It was let go, and somebody else was asked: what it is told is about nothing that is waited for.
            Event::Answered(id, ..) if !self.claims.iter().any(|claim| claim.id == id) => return None,
            Event::Answered(id, asked, answer) => (id, asked, *answer),
        };
        match answer {
            Ok(response) => {
                let end = self.answered(id, asked, response, permit);
                if end.is_some() { self.whole_after_all().await.or(end) } else { end }
            }
            Err(ref error @ (FetchError::KnownDown { until, .. } | FetchError::OverBudget { until })) => {
                self.claims.retain(|claim| claim.id != id);
                let is_shut = matches!(error, FetchError::OverBudget { .. });
                self.shut_until = is_shut.then(|| Instant::from_std(until));
                self.down = true;
                self.retry_at = Some(Instant::from_std(until));
                None
            }
            Err(FetchError::MiddlemanRefused { status, .. }) if is_refusal(status) && self.hand_over(id, permit) => {
                self.fail(id);
                None
            }
            Err(error) if error.is_refusal() => {
                tracing::debug!(key = %self.want.key, %error, "a fill ends, since it is refused");
                self.fail(id);
                Some(End::GaveUp)
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
    pub(super) fn fail(&mut self, id: u64) {
        self.claims.retain(|claim| claim.id != id);
        // Without clients nobody minds a longer pause.
        self.retry_at = Some(self.patience.failed(Instant::now(), false));
    }

    /// The same, and another source may do better for a while.
    fn fail_of(&mut self, id: u64, source: Source) {
        self.avoid.note(source, Instant::now());
        self.fail(id);
    }

    /// Lets go of requests that were said to be less urgent and bring nothing, once a client stands before the bytes of one: the
    /// next ones say what holds now, and whoever hangs is found out by all of them at once.
    pub(super) fn hurry(&mut self, permit: &Permit, now: Instant) {
        let claims = &mut self.claims;
        self.modest.retain(|(id, _)| claims.iter().any(|claim| claim.id == *id));
        if self.modest.is_empty() {
            return;
        }
        let (clients, present) = (permit.demands().clients(), self.writer.partial().present());
        let is_silent = |claim: &Claim| self.modest.iter().any(|(id, came)| *id == claim.id && now > *came + MODEST);
        let is_awaited = |claim: &Claim| urgency(claim, &clients, &present) == Urgency::Awaited;
        if claims.iter().any(|claim| is_silent(claim) && is_awaited(claim)) {
            claims.retain(|claim| !is_silent(claim));
        }
    }

    /// A source had others to serve first, as it was told that it may. No client stands before these bytes; when one does, the
    /// next request says so.
    fn rest_for_clients(&mut self, permit: &Permit) {
        if permit.has_clients() {
            self.patience.rest(Instant::now());
        }
    }

    fn answered(&mut self, id: u64, asked: Asked, mut response: FetchResponse, permit: &Permit) -> Option<End> {
        self.shut_until = None;
        let now = Instant::now();
        for source in response.passed_over.drain(..) {
            if response.status.is_success() {
                self.inner.upstream.is_gone_on_with(&self.want.key, (&source, true), &response.source);
            }
            self.avoid.note(source, now);
        }
        if std::mem::take(&mut self.down) {
            // Others that were refused meanwhile need not wait.
            self.retry_at = None;
        }
        let record = &self.writer.entry().record;
        match judge(record, self.length, asked, &Answered::of(&response)) {
            Judged::Part { at, end } => {
                self.length = self.length.or(response.content_range.and_then(|range| range.total));
                let claim = self.claims.iter_mut().find(|claim| claim.id == id)?;
                claim.end = claim.end.min(end);
                let part = ByteRange::new(at, end)?;
                self.receive(id, Box::new(Stream::part(response, part, &self.inner.held_room)));
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
                self.fail_of(id, response.source);
            }
            Judged::Passing if response.body.yields() => {
                self.rest_for_clients(permit);
                self.fail(id);
            }
            Judged::Passing => self.fail_of(id, response.source),
            Judged::Final if is_refusal(response.status) && self.hand_over(id, permit) => self.fail(id),
            Judged::Final => return Some(End::GaveUp),
        }
        None
    }

    /// Upstream does not take the credentials of the request with this id. Another client's may be good: the fill goes on
    /// with those, if somebody waits who has some.
    fn hand_over(&mut self, id: u64, permit: &Permit) -> bool {
        if id <= self.refused_until {
            return true;
        }
        let Some(next) = self.refused.note(&self.want, &self.writer.entry().record, permit.others()) else {
            return false;
        };
        tracing::info!(key = %next.key, "a fill goes on with the credentials of another client");
        (self.want, self.refused_until) = (Cow::Owned(next), self.next_id);
        true
    }

    async fn came(&mut self, id: u64, stream: Box<Stream>, batch: Batch, permit: &Permit) -> Option<End> {
        let claim = *self.claims.iter().find(|claim| claim.id == id)?;
        let came_to = batch.at.saturating_add(batch.size);
        let range = ByteRange::new(batch.at, came_to.min(claim.end));
        if let Some(range) = range {
            if let Some((from, was_silent)) = self.cut.take().filter(|(from, _)| from != stream.source()) {
                self.inner.upstream.is_gone_on_with(&self.want.key, (&from, was_silent), stream.source());
            }
            self.giver.note(stream.source());
            // Before anybody can have all of a part that was cut.
            if self.unfinished.is_wrong(batch.at, &batch.bytes) {
                return Some(End::WrongPart);
            }
            if let Some(end) = self.put(id, range, &batch.bytes).await {
                if matches!(end, Some(End::Full | End::StoreFailed)) {
                    self.running = Some(Running { stream: *stream, rest: (batch.at, batch.bytes) });
                }
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
            Some(Ending::WrongDigest { given_out: true }) => {
                self.giver = Giver::alone(stream.source().clone());
                return Some(End::WrongPart);
            }
            Some(Ending::WrongDigest { given_out: false }) => {
                tracing::warn!(key = %self.want.key, at = claim.at, "a part is not what its Content-Digest says");
                self.wrong_parts += 1;
                self.inner.upstream.gave_wrong(stream.source(), Subject::Key(self.want.key.hash()));
                self.fail_of(id, stream.source().clone());
                return (self.wrong_parts >= WRONG_PARTS).then_some(End::GaveUp);
            }
            Some(Ending::Broken(error)) if stream.is_as_agreed(error) => {
                // No fault of the source's.
                if stream.yields() {
                    self.rest_for_clients(permit);
                }
                stream.unfinished().into_iter().for_each(|check| self.unfinished.add(check));
                self.claims.retain(|claim| claim.id != id);
                return self.whole_after_all().await;
            }
            Some(ending) => {
                tracing::debug!(key = %self.want.key, at = came_to, ?ending, "an upstream body was cut");
                let source = stream.source().clone();
                let was_silent = matches!(ending, Ending::Broken(BodyError::Stalled { .. }));
                self.cut = Some((source.clone(), was_silent));
                let check = stream.unfinished().filter(|_| ending != Ending::Marked);
                check.into_iter().for_each(|check| self.unfinished.add(check));
                self.fail_of(id, source);
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
}

/// Whether upstream refuses who asks, and not what is asked for.
fn is_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}
