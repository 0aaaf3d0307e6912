//! Leads a body that no drive has room for through a window: one transfer of upstream for all clients within reach. What
//! the window keeps is `sliding`'s business.
//!
//! It begins where the leader's client does, or where a drive ran full, and goes to the end of what anybody wants. Who
//! wants bytes before it, or far behind, gets a flight of its own, with others that want the same.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::avoid::{Avoid, SILENT, silence_left};
use super::copy::{Copying, DOWN_AFTER, Ways};
use super::demand::TO_THE_END;
use super::flight::{Head, Outlook};
use super::giver::Giver;
use super::judge::{Answered, Asked, Judged, judge};
use super::lead::Leader;
use super::part_check::Unfinished;
use super::passage::{Ended, Passage};
use super::patience::Patience;
use super::rate::Rate;
use super::sliding::Pace;
use super::stream::{Batch, Ending, Stream};
use super::{Want, write};
use crate::content::{ByteRange, Record, Verifier};
use crate::decide::FirstAsked;
use crate::store::Entry;
use crate::upstream::{FetchError, FetchRequest, Standing, Subject};

/// How long a window waits for another client when the last one has gone: an agent that asks for pieces comes back.
const LINGERS: Duration = Duration::from_secs(2);
/// How often it is looked at what clients want, when nothing tells.
const TICK: Duration = Duration::from_millis(250);

/// Answers that do not fit what was asked before no more is asked for.
const MISFITS: u32 = 4;
/// Why a body may be wrong before its end.
const WRONG_PART: &str = "a part is not what its Content-Digest says";

/// What has come of a request of upstream.
pub(super) struct Running {
    pub(super) stream: Stream,
    /// Bytes that have come of it and are nowhere yet, and where the first of them belongs.
    pub(super) rest: (u64, Vec<Bytes>),
}

/// A body on its way through a window.
pub(super) struct Slide<'a> {
    leader: &'a Leader<'a>,
    /// Whose requests it makes: those of the leader, unless upstream does not take its credentials any more.
    want: Cow<'a, Want>,
    record: Record,
    passage: Arc<Passage>,
    /// Has all bytes from the begin of the body to the end of the window, where that is known and a digest is expected.
    verifier: Option<Verifier>,
    /// Whether the end may leave although nothing tells that the body has its digest: as of any part that is passed on.
    is_part: bool,
    stream: Option<Stream>,
    giver: Giver,
    retry_at: Option<Instant>,
    /// When the budget opens, if that was closed when something was asked for last.
    shut_until: Option<Instant>,
    comebacks: watch::Receiver<u64>,
    patience: Patience,
    avoid: Avoid,
    rate: Rate,
    /// How long it has been there among those that share the budget.
    age: Standing,
    unfinished: Unfinished,
    /// Answers that did not fit what was asked.
    misfits: u32,
}

/// No more comes, however long clients wait: readers must know, whatever becomes of the leader.
struct Closes(Arc<Passage>);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.close(Ended::Cut);
    }
}

impl Leader<'_> {
    /// A window for a body of which an answer brings the bytes from `at` on, and no drive takes them. `None` when there is
    /// no memory for it, or the client asks for what cannot be had in this way.
    pub(super) fn pass_by(&self, record: &Record, at: u64) -> Option<Slide<'_>> {
        let begin = match (self.want.begin(), record.length) {
            (FirstAsked::ToEnd(start), _) => start,
            (FirstAsked::Within(range), _) => range.start(),
            (FirstAsked::Suffix(count), length) => length?.saturating_sub(count),
        };
        let is_near = begin.checked_sub(at).is_some_and(|ahead| ahead < self.inner.store.block_size());
        let is_there = record.length.is_some_and(|length| begin < length);
        if !self.want.asks_one_part() || !(is_near || (record.validator().is_strong() && is_there)) {
            return None;
        }
        let start = if is_near { at } else { begin };
        let passage = self.inner.windows.open(start)?;
        tracing::info!(key = %self.want.key, start, "no drive has room for a body: it is passed on");
        let verifier = record.expected.filter(|_| start == 0).map(|expected| expected.digest().verifier());
        let want = Cow::Borrowed(self.want);
        Some(Slide::new(self, want, record.clone(), passage, verifier, start > 0))
    }

    /// Passes on what an answer brings, and what follows.
    pub(super) async fn pass_on(&self, mut slide: Slide<'_>, stream: Stream) {
        self.permit.pass_through(&slide.passage);
        self.permit.publish(Head::Passing(Entry::unstored(slide.record.clone())));
        // What comes from elsewhere than the client's begin is of no use.
        let running = Running { rest: (stream.at(), Vec::new()), stream };
        let is_of_use = running.has(slide.passage.end());
        slide.take_up(Some(running).filter(|_| is_of_use));
        slide.run().await;
    }

    /// Goes on in a window with a body that its drive takes no more of; `None` when that cannot be. The writer is to go
    /// before it runs: those who wait turn to the window then. What is there stays for them, and for a later fill.
    pub(super) async fn go_on_without<'a>(&'a self, copying: &mut Copying<'a>) -> Option<Slide<'a>> {
        let record = Record { length: copying.length, ..copying.writer.entry().record.clone() };
        let present = copying.writer.partial().present();
        let (waiting, _) = self.permit.demands().all();
        let absent = waiting.iter().map(|range| (present.available_from(range.start()), range.end()));
        let from = absent.filter(|(at, end)| at < end).map(|(at, _)| at).min()?;
        let running = copying.running.take().filter(|running| running.has(from));
        if running.is_none() && !record.validator().is_strong() {
            return None;
        }
        let verifier = copying.writer.verifier_of_begin(from).await;
        let passage = self.inner.windows.open(from)?;
        tracing::warn!(key = %self.want.key, from, "a drive takes no more of a body: the rest of it is passed on");
        self.permit.pass_through(&passage);
        let want = copying.let_go();
        // Who waits for what is behind a gap asks for a part, of which nothing tells what it must hash to.
        let is_part = present.available_from(0) < from;
        let mut slide = Slide::new(self, want, record, passage, verifier, is_part);
        slide.giver = copying.giver.clone();
        slide.take_up(running);
        Some(slide)
    }
}

impl Running {
    /// Whether it brings the byte at `from` next, or has it.
    fn has(&self, from: u64) -> bool {
        let (at, bytes) = &self.rest;
        let size: u64 = bytes.iter().map(|bytes| bytes.len() as u64).sum();
        (*at..=at.saturating_add(size)).contains(&from)
    }
}

impl<'a> Slide<'a> {
    fn new(
        leader: &'a Leader<'a>,
        want: Cow<'a, Want>,
        record: Record,
        passage: Arc<Passage>,
        verifier: Option<Verifier>,
        is_part: bool,
    ) -> Self {
        let now = Instant::now();
        Self {
            leader,
            want,
            record,
            passage,
            verifier,
            is_part,
            stream: None,
            giver: Giver::default(),
            retry_at: None,
            shut_until: None,
            comebacks: leader.inner.upstream.comebacks(),
            patience: leader.inner.patience(),
            avoid: Avoid::default(),
            rate: Rate::new(now),
            age: Standing::default(),
            unfinished: Unfinished::default(),
            misfits: 0,
        }
    }

    fn take_up(&mut self, running: Option<Running>) {
        let Some(Running { stream, rest: (at, bytes) }) = running else { return };
        let size = bytes.iter().map(|bytes| bytes.len() as u64).sum();
        self.giver.note(stream.source());
        self.age = stream.standing().cloned().unwrap_or_default();
        self.stream = Some(stream);
        self.see_to_silence();
        self.take(Batch { at, bytes, size, end: None });
    }

    /// Until nobody wants any more of it.
    pub(super) async fn run(mut self) {
        let _closes = Closes(Arc::clone(&self.passage));
        let permit = self.leader.permit;
        let mut alone_since = None;
        loop {
            let now = Instant::now();
            if permit.has_clients() {
                alone_since = None;
            } else if now >= *alone_since.get_or_insert(now) + LINGERS && permit.close_if_unused() {
                break;
            }
            if self.passage.ended().is_none() && self.record.length == Some(self.passage.end()) {
                self.finish();
            }
            let (waiting, _) = permit.demands().all();
            let clients: Vec<u64> = waiting.iter().map(ByteRange::start).collect();
            let wanted =
                waiting.iter().map(ByteRange::end).max().unwrap_or(0).min(self.record.length.unwrap_or(TO_THE_END));
            // Nobody is left behind for bytes that are not to come.
            let is_wanted = self.passage.ended().is_none() && wanted > self.passage.end();
            let pace = if is_wanted { self.passage.pace(now, &clients) } else { Pace::Go };
            self.foresee(now);
            let ended = self.passage.ended();
            let is_over = ended.is_some();
            if matches!(ended, Some(Ended::Wrong | Ended::Cut)) && permit.close_if_unused() {
                break;
            }
            let due = self.retry_at.is_none_or(|at| at <= now);
            if is_over || pace != Pace::Go || wanted <= self.passage.end() || !due || clients.is_empty() {
                let wait = match pace {
                    Pace::Wait(Some(until)) => until.min(now + TICK),
                    Pace::Wait(None) | Pace::Go => now + TICK,
                };
                tokio::select! {
                    () = self.passage.is_taken() => {}
                    () = permit.demands().changed() => {}
                    Ok(()) = self.comebacks.changed() => (self.retry_at, self.shut_until) = (None, None),
                    () = sleep_until(self.retry_at.map_or(wait, |at| at.min(wait))) => {}
                }
                continue;
            }
            self.bring(wanted).await;
        }
        self.leader.count("window");
    }

    /// Where ranges work another request costs next to nothing; elsewhere the stream has a limit of its own.
    fn see_to_silence(&mut self) {
        if self.record.validator().is_strong() {
            self.stream.iter_mut().for_each(|stream| stream.can_be_resumed(SILENT));
        }
    }

    /// The next bytes.
    async fn bring(&mut self, wanted: u64) {
        let Some(stream) = &mut self.stream else { return self.ask(wanted).await };
        let urgency = self.leader.permit.demands().urgency();
        stream.standing().into_iter().for_each(|standing| standing.set(urgency));
        let batch = tokio::select! {
            biased;
            () = self.leader.permit.clients_left() => return,
            batch = stream.next() => batch,
        };
        self.take(batch);
    }

    fn take(&mut self, batch: Batch) {
        let now = Instant::now();
        let at = self.passage.end();
        let came_to = batch.at.saturating_add(batch.size);
        let length = self.record.length.unwrap_or(TO_THE_END);
        if batch.size > 0 && (batch.at > at || came_to > length) {
            tracing::warn!(key = %self.record.key, "an upstream body does not fit what was said of it");
            return self.passage.close(Ended::Cut);
        }
        if self.unfinished.is_wrong(batch.at, &batch.bytes) {
            return self.is_wrong(WRONG_PART, self.leader.of_key());
        }
        if let Some(new) = ByteRange::new(at, came_to) {
            self.stream.iter().for_each(|stream| self.giver.note(stream.source()));
            let bytes = write::slices(&batch.bytes, batch.at, new);
            bytes.iter().for_each(|bytes| self.verifier.iter_mut().for_each(|verifier| verifier.update(bytes)));
            self.passage.push(&bytes);
            self.rate.note(now, new.len());
            self.patience.progress(now, new.len());
        }
        match batch.end {
            None => {}
            Some(Ending::WrongDigest { given_out }) => {
                let source = self.stream.as_ref().map(|stream| stream.source().clone());
                if given_out {
                    self.giver = source.map(Giver::alone).unwrap_or_default();
                    return self.is_wrong(WRONG_PART, self.leader.of_key());
                }
                source.iter().for_each(|source| self.leader.inner.upstream.gave_wrong(source, self.leader.of_key()));
                self.fail();
            }
            Some(Ending::Marked) if self.record.length.is_none() => {
                self.record.length = Some(came_to);
                self.stream = None;
            }
            Some(Ending::Closed) if self.record.length.is_none() && self.record.expected.is_some() => {
                // The digest tells whether that was all.
                self.record.length = Some(came_to);
                self.stream = None;
            }
            Some(Ending::Marked) if !self.stream.as_ref().is_some_and(Stream::is_short) => self.stream = None,
            Some(Ending::Broken(error)) if self.stream.as_ref().is_some_and(|stream| stream.is_as_agreed(error)) => {
                // No fault of the source's.
                let stream = self.stream.take();
                stream.and_then(Stream::unfinished).into_iter().for_each(|check| self.unfinished.add(check));
            }
            Some(_) => self.fail(),
        }
    }

    /// The request came to nothing: the next one begins where it stopped.
    fn fail(&mut self) {
        let now = Instant::now();
        if let Some(stream) = self.stream.take() {
            self.avoid.note(stream.source().clone(), now);
            stream.unfinished().into_iter().for_each(|check| self.unfinished.add(check));
        }
        self.retry_at = Some(self.patience.failed(now, false));
        let is_over = self.patience.is_over(now, !self.leader.permit.has_clients());
        if is_over || !self.record.validator().is_strong() || self.record.length.is_none() {
            self.passage.close(Ended::Cut);
        }
    }

    /// Asks for what follows, up to what is wanted.
    async fn ask(&mut self, wanted: u64) {
        let Some(range) = ByteRange::new(self.passage.end(), wanted) else { return };
        let leader = Leader { inner: self.leader.inner, want: &self.want, permit: self.leader.permit };
        let asked = Asked::Range(range);
        let headers = leader.fields_for(&self.record, asked, Ways::Rest);
        if !self.record.validator().is_strong() || self.record.length.is_none() {
            return self.passage.close(Ended::Cut);
        }
        let upstream = &leader.inner.upstream;
        let now = Instant::now();
        let deadline = now + upstream.settings().timeouts.request;
        let (avoid, wrong) = (self.avoid.at(now), leader.inner.wrong_source(&self.want));
        let silence = Some(silence_left(self.patience.silence(now)));
        let standing = self.age.of_the_same();
        standing.set(leader.permit.demands().urgency());
        let request = leader.want.request(Method::GET, headers, None, deadline);
        let request = FetchRequest { avoid, wrong, silence, standing, ..request };
        let mut response = match upstream.fetch(request, &*leader.inner.redirects).await {
            Ok(response) => {
                self.shut_until = None;
                response
            }
            Err(error) => {
                let opens = error.ask_again_at().filter(|_| matches!(error, FetchError::OverBudget { .. }));
                self.shut_until = opens.map(Instant::from_std);
                tracing::debug!(key = %self.record.key, %error, "a source failed while a body is passed on");
                self.fail();
                match error.ask_again_at() {
                    Some(until) => self.retry_at = Some(Instant::from_std(until)),
                    None if !error.is_passing_fault() => self.passage.close(Ended::Cut),
                    None => {}
                }
                return;
            }
        };
        let now = Instant::now();
        response.passed_over.drain(..).for_each(|source| self.avoid.note(source, now));
        match judge(&self.record, self.record.length, asked, &Answered::of(&response)) {
            Judged::Part { at, end } => {
                let part = ByteRange::new(at, end);
                self.misfits = 0;
                self.stream = part.map(|part| Stream::part(response, part, &leader.inner.held_room));
                self.see_to_silence();
            }
            judged @ (Judged::Passing | Judged::Misfit) => {
                self.misfits += u32::from(judged == Judged::Misfit);
                self.avoid.note(response.source, Instant::now());
                self.fail();
                // What is there is not what was begun: nobody has to wait to be told so.
                if self.misfits >= MISFITS {
                    self.passage.close(Ended::Cut);
                }
            }
            Judged::OtherVersion => {
                leader.note_change();
                self.passage.close(Ended::Cut);
            }
            Judged::Again | Judged::Final => self.passage.close(Ended::Cut),
        }
    }

    /// All bytes are there.
    fn finish(&mut self) {
        self.stream = None;
        match (self.record.expected, self.verifier.take()) {
            (Some(_), Some(verifier)) if !verifier.is_right() => {
                self.is_wrong("it has not the expected digest", self.leader.subject(&self.record));
            }
            (Some(_), None) if !self.is_part => self.passage.close(Ended::Cut),
            _ => self.passage.close(Ended::Whole),
        }
    }

    fn is_wrong(&mut self, why: &'static str, subject: Subject) {
        tracing::error!(key = %self.record.key, why, "a body that is passed on is wrong; it is not given out whole");
        self.stream = None;
        self.leader.inner.note_mismatch(self.leader.want, &self.giver, subject);
        self.passage.close(Ended::Wrong);
    }

    /// Tells clients whether it is worth to wait for all of it: only of what fits into the window.
    fn foresee(&mut self, now: Instant) {
        let left = self.record.length.map(|length| length.saturating_sub(self.passage.end()));
        let whole_by = match left {
            Some(left) if self.record.length.is_some_and(|length| length <= self.passage.size()) => {
                self.rate.time_for(now, left).map(|time| now + time)
            }
            _ => Some(now + Duration::from_secs(3600)),
        };
        let is_silent = self.stream.is_none() && self.patience.silence(now) > DOWN_AFTER;
        let shut_until = self.shut_until.filter(|_| is_silent);
        self.leader.permit.foresee(Outlook { whole_by, down_after: None, shut_until });
    }
}
