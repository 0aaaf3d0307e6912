//! What a leader does: ask upstream, judge the answer, tell those who wait, have the body copied in, and say what
//! became of it.

use std::future::pending;
use std::sync::Arc;

use http::header::{IF_MODIFIED_SINCE, IF_NONE_MATCH};
use http::{HeaderMap, Method, StatusCode};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use super::again::{self, PartlyStored};
use super::copy::{Copying, End, Start};
use super::flight::{Head, Permit};
use super::giver::Giver;
use super::judge::{Answered, Judged, judge};
use super::patience::MODEST;
use super::{FillError, Inner, Want, answer, fields, known, schedule};
use crate::content::{BodyRef, ByteRange, ExpectedDigest, Record, in_own_memory};
use crate::decide::{self, FirstAsked};
use crate::store::{CompleteError, Entry, NewBody, PartialWriter};
use crate::upstream::{FetchRequest, FetchResponse, Subject, Urgency};

/// How often a body whose last bytes turn out to be damaged is taken up again.
const COMPLETIONS: usize = 3;

/// Leads one flight to its end, with an answer that is there already or one that is asked for. `exclusive` takes the answer
/// when only the leader's client may have it.
pub(super) async fn run(
    inner: Arc<Inner>,
    want: Want,
    permit: Permit,
    answer: Option<FetchResponse>,
    exclusive: oneshot::Sender<FetchResponse>,
) {
    // A fill may take hours, and not only as long as the client's connection.
    let want = Want { headers: Arc::new(in_own_memory(&want.headers)), ..want };
    let leader = Leader { inner: &inner, want: &want, permit: &permit };
    let led = match answer {
        Some(response) => {
            permit.answered(response.status);
            leader.take_whole(response, exclusive).await
        }
        None => leader.lead(exclusive).await,
    };
    if let Err(error) = led {
        tracing::debug!(key = %want.key, %error, "fill failed");
        if known::stands_in(&leader, error.is_forbidden()).await {
            return;
        }
        // Who shows other credentials may be given what was refused here.
        let is_personal = want.carries_token && matches!(error.status(), Some(StatusCode::FORBIDDEN));
        permit.publish(match error {
            _ if permit.is_parted() => Head::Changed,
            _ if is_personal => Head::NotShared,
            error => Head::Failed(error),
        });
    }
}

/// One flight and what it is for.
pub(super) struct Leader<'a> {
    pub(super) inner: &'a Arc<Inner>,
    pub(super) want: &'a Want,
    pub(super) permit: &'a Permit,
}

impl Leader<'_> {
    async fn lead(&self, exclusive: oneshot::Sender<FetchResponse>) -> Result<(), FillError> {
        // Between the look-up of this request and its turn to lead another flight may have ended.
        if self.changed_meanwhile() {
            self.permit.publish(Head::Changed);
            return Ok(());
        }
        if self.inner.is_untrusted(self.want) {
            return Err(FillError::BadAnswer("its content has been wrong several times"));
        }
        if let Some(entry) = self.want.stored.as_ref().filter(|e| matches!(e.record.body, BodyRef::Partial(_)))
            && let Some(writer) = self.inner.store.resume_part(entry, self.room(entry.record.length)).await
        {
            return self.resume(writer, exclusive).await;
        }
        if let Some(conditions) = &self.want.conditions {
            let mut headers = self.plain();
            headers.extend(conditions.iter().map(|(name, value)| (name.clone(), value.clone())));
            let conditional = headers.contains_key(IF_NONE_MATCH) || headers.contains_key(IF_MODIFIED_SINCE);
            let response = self.fetch(headers).await?;
            if response.status != StatusCode::NOT_MODIFIED || !conditional {
                return self.take_whole(response, exclusive).await;
            }
            if self.validated(&response) {
                return Ok(());
            }
            // It is about another version than the stored one (RFC 9111 section 4.3.4): ask without conditions.
        }
        self.begin(exclusive).await
    }

    /// Begins a body of which nothing is stored, unless it is that of an older version which upstream has again.
    async fn begin(&self, exclusive: oneshot::Sender<FetchResponse>) -> Result<(), FillError> {
        if let Some(PartlyStored { entry, ways, asked }) = again::partly_stored(self).await {
            let record = &entry.record;
            let response = self.fetch(self.fields_for(record, asked, ways)).await?;
            match judge(record, record.length, asked, &Answered::of(&response)) {
                Judged::Part { at, end } => {
                    if let Some(writer) = again::take_up(self, &entry, &response).await {
                        let entry = Arc::clone(writer.entry());
                        return self.join(writer, entry, response, (at, end), ways).await;
                    }
                }
                Judged::Misfit => {}
                Judged::OtherVersion if response.status != StatusCode::OK => {}
                Judged::Again | Judged::OtherVersion | Judged::Passing | Judged::Final => {
                    return self.take_whole(response, exclusive).await;
                }
            }
        }
        self.begin_anew(exclusive).await
    }

    /// Begins a body of which nothing is stored that could be of use.
    pub(super) async fn begin_anew(&self, exclusive: oneshot::Sender<FetchResponse>) -> Result<(), FillError> {
        if self.inner.asks_ranges(self.want)
            && let Some(range) = self.first_range()
        {
            let mut headers = self.plain();
            fields::ask_range(&mut headers, range.start(), Some(range.last()), None);
            let response = self.fetch(headers).await?;
            match response.status {
                StatusCode::PARTIAL_CONTENT => match self.first_part(range, &response) {
                    Some(part) => return answer::store_part(self, part, response, exclusive).await,
                    None => self.inner.whole.insert(self.want.key.hash(), ()),
                },
                // An empty body has no first byte, and one that is shorter than the client thinks has none there: when
                // the answer says so, nothing has to be fetched to tell the client.
                StatusCode::RANGE_NOT_SATISFIABLE => {
                    let length = response.unsatisfied_total.filter(|length| *length > 0);
                    if let Some(length) = length.filter(|length| decide::is_behind(&self.want.headers, *length)) {
                        self.permit.publish(Head::Behind(length));
                        return Ok(());
                    }
                }
                _ => {
                    let length = Answered::of(&response).length;
                    if response.status == StatusCode::OK && length.is_none_or(|length| length > range.end()) {
                        self.inner.no_ranges.insert(self.want.key.hash(), ());
                    }
                    return self.take_whole(response, exclusive).await;
                }
            }
        }
        let response = self.fetch(self.plain()).await?;
        self.take_whole(response, exclusive).await
    }

    /// The answer to a request without a range.
    pub(super) async fn take_whole(
        &self,
        mut response: FetchResponse,
        exclusive: oneshot::Sender<FetchResponse>,
    ) -> Result<(), FillError> {
        let mut patience = self.inner.patience();
        while is_misfit(&response) {
            let next = patience.failed(Instant::now(), false);
            if next >= self.want.deadline {
                return Err(FillError::BadAnswer("an answer that was not asked for"));
            }
            sleep_until(next).await;
            response = self.fetch(self.plain()).await?;
        }
        answer::store_or_share(self, response, exclusive).await
    }

    pub(super) fn publish(&self, entry: Arc<Entry>, writer: &PartialWriter) {
        if let Some(owed) = self.owed(writer.entry().record.length) {
            self.permit.demands().owe(owed);
        }
        self.permit.publish(Head::Filling(entry, Arc::clone(writer.partial())));
        // Whoever made invalid what is stored may have done so before this was current.
        if self.permit.is_parted() {
            self.inner.store.invalidate(writer.entry());
        }
    }

    /// Begins to copy into a new body.
    pub(super) async fn fill(&self, body: NewBody, start: Start) -> Result<(), FillError> {
        let writer = self.permit.show(body);
        self.publish(Arc::clone(writer.entry()), &writer);
        self.copy(Copying::of_new(self.inner, self.want, writer, start)).await
    }

    /// Copies to the end, and sees to what became of it.
    pub(super) async fn copy(&self, mut copying: Copying<'_>) -> Result<(), FillError> {
        for _ in 0..COMPLETIONS {
            let end = copying.until_end(self.permit).await;
            let (ways, length, giver) = (copying.ways, copying.length, copying.giver.clone());
            let End::Whole(whole) = end else {
                let is_store = matches!(end, End::Full | End::StoreFailed);
                let slide = if is_store { self.go_on_without(&mut copying).await } else { None };
                match slide {
                    Some(slide) => {
                        // Who reads what is there reads on, and turns to the window behind it.
                        let stopped = copying.writer.stop();
                        slide.run().await;
                        // Nothing can ever be joined to a file that takes no more; a full drive may have room again.
                        if end == End::StoreFailed {
                            stopped.discard();
                        }
                    }
                    None => self.end_early(copying.writer, end, &giver).await,
                }
                return Ok(());
            };
            let entry = Arc::clone(copying.writer.entry());
            let subject = self.subject(&entry.record);
            let outcome = match copying.writer.complete(whole).await {
                Ok(_) => "complete",
                Err(CompleteError::Short { missing }) => {
                    tracing::warn!(key = %self.want.key, missing, "blocks were damaged; they are fetched again");
                    if let Some(writer) = self.inner.store.resume(&entry).await {
                        copying = Copying::new(self.inner, self.want, writer, ways);
                        copying.length = length;
                        copying.giver = giver;
                        continue;
                    }
                    "store"
                }
                Err(error) => self.not_completed(&error, &giver, subject),
            };
            if outcome != "complete" {
                self.permit.close();
            }
            self.count(outcome);
            return Ok(());
        }
        self.permit.close();
        self.count("store");
        Ok(())
    }

    async fn end_early(&self, writer: PartialWriter, end: End, giver: &Giver) {
        self.permit.close();
        let outcome = match end {
            End::Enough | End::Whole(_) => "part",
            End::Abandoned => "abandoned",
            End::OtherVersion => "changed",
            End::WrongPart => "mismatch",
            End::GaveUp => "cut",
            End::StoreFailed | End::NotCompared | End::Full => "store",
        };
        self.count(outcome);
        tracing::info!(key = %self.want.key, outcome, bytes = writer.partial().present_total(), "fill ended before its end");
        match end {
            End::StoreFailed | End::NotCompared => writer.discard().await,
            End::OtherVersion => {
                writer.supersede().await;
                self.note_change();
            }
            End::WrongPart => {
                writer.reject("a part is not what its Content-Digest says".to_owned()).await;
                self.inner.note_mismatch(self.want, giver, self.of_key());
            }
            End::Enough | End::Whole(_) | End::Abandoned | End::GaveUp | End::Full => {}
        }
    }

    /// Completes a body whose last byte came before the end of an earlier fill. Everybody looks again then: it may be
    /// stale, or not what its digest says.
    pub(super) async fn finish_whole(&self, writer: PartialWriter) -> Result<(), FillError> {
        let length = writer.partial().present_total();
        let subject = self.subject(&writer.entry().record);
        let outcome = match writer.complete(length).await {
            Ok(_) => "complete",
            Err(error) => self.not_completed(&error, &Giver::of_a_rest(), subject),
        };
        self.count(outcome);
        self.permit.publish(Head::Changed);
        Ok(())
    }

    fn not_completed(&self, error: &CompleteError, giver: &Giver, subject: Subject) -> &'static str {
        tracing::warn!(key = %self.want.key, %error, "a body could not be completed");
        if matches!(error, CompleteError::Mismatch { .. }) {
            self.inner.note_mismatch(self.want, giver, subject);
            "mismatch"
        } else {
            "store"
        }
    }

    /// Whose word it is what the body of `record` is to be, and of what.
    pub(super) fn subject(&self, record: &Record) -> Subject {
        match record.expected {
            Some(ExpectedDigest::Rule(digest) | ExpectedDigest::Manifest(digest)) => Subject::Digest(digest),
            Some(ExpectedDigest::Upstream(_)) | None => self.of_key(),
        }
    }

    /// What the sources of the URL themselves say.
    pub(super) fn of_key(&self) -> Subject {
        Subject::Key(self.want.key.hash())
    }

    pub(super) fn count(&self, outcome: &'static str) {
        self.inner.metrics.fills.with_label_values(&[outcome]).inc();
    }

    /// Upstream has another version. A key that changes under its ranges is fetched whole for a while.
    pub(super) fn note_change(&self) {
        let key = self.want.key.hash();
        if self.inner.changes.contains_key(&key) {
            self.inner.whole.insert(key, ());
        }
        self.inner.changes.insert(key, ());
    }

    /// The fields of a request for the whole.
    pub(super) fn plain(&self) -> HeaderMap {
        fields::for_fetch(self.want)
    }

    /// The part to begin with. Without a stored map the block size is the one of new bodies.
    fn first_range(&self) -> Option<ByteRange> {
        let block = self.inner.store.block_size();
        match self.want.begin() {
            FirstAsked::ToEnd(start) => schedule::first(start, None, block),
            FirstAsked::Within(range) => schedule::first(range.start(), Some(range.end()), block),
            FirstAsked::Suffix(_) => schedule::first(0, Some(1), block),
        }
    }

    /// Where the first part lies and how long the whole is, when it can be gone on with: the part that was asked for,
    /// with the length and a strong validator.
    fn first_part(&self, asked: ByteRange, response: &FetchResponse) -> Option<(ByteRange, u64)> {
        let range = response.content_range?;
        let (part, length) = (range.range()?, range.total?);
        let strong = crate::content::Validator::of(&response.headers).is_strong();
        (strong && part.start() == asked.start() && part.end() <= asked.end()).then_some((part, length))
    }

    /// What is to be fetched even when the client leaves.
    fn owed(&self, length: Option<u64>) -> Option<ByteRange> {
        if length.is_some_and(|length| decide::is_behind(&self.want.headers, length)) {
            return None;
        }
        match self.want.begin() {
            FirstAsked::ToEnd(_) => ByteRange::whole(super::demand::TO_THE_END),
            FirstAsked::Within(range) if length.is_some_and(|length| range.end() >= length) => {
                ByteRange::whole(super::demand::TO_THE_END)
            }
            FirstAsked::Within(range) => Some(range),
            FirstAsked::Suffix(count) => length.and_then(|length| ByteRange::new(length.saturating_sub(count), length)),
        }
    }

    /// How much room the body is going to need for what is owed of it, in bytes.
    pub(super) fn room(&self, length: Option<u64>) -> u64 {
        let is_behind = length.is_some_and(|length| decide::is_behind(&self.want.headers, length));
        let (owed, length) = (self.owed(length), length.unwrap_or(0));
        let wanted = if is_behind { 0 } else { owed.map_or(length, |owed| owed.len()) };
        length.min(wanted.saturating_add(2 * self.inner.store.block_size()))
    }

    /// Asks upstream, again and again after failures that may pass, as long as a client waits, nothing stored can be served
    /// instead, and the source is not known to be down.
    pub(super) async fn fetch(&self, headers: HeaderMap) -> Result<FetchResponse, FillError> {
        let mut patience = self.inner.patience();
        let mut before = None;
        loop {
            let deadline = (Instant::now() + self.inner.upstream.settings().timeouts.request).max(self.want.deadline);
            let request = self.want.request(Method::GET, headers.clone(), None, deadline);
            let request = FetchRequest { wrong: self.inner.wrong_source(self.want), ..request };
            let told = self.want.urgency().min(self.permit.demands().urgency());
            request.standing.set(told);
            let answer = tokio::select! {
                biased;
                answer = self.inner.upstream.fetch(request, &*self.inner.redirects) => answer,
                // The next one says so.
                () = self.matters_more_than(told) => continue,
            };
            let error = match answer {
                // It may be what was there before a request that changed it: everybody asks again.
                Ok(_) if self.permit.is_parted() => return Err(FillError::Abandoned),
                Ok(response) => {
                    self.permit.answered(response.status);
                    return Ok(response);
                }
                Err(error) => error,
            };
            if error.ask_again_at().is_some() {
                // What made it known says more.
                return Err(before.unwrap_or(error).into());
            }
            if !error.is_passing_fault() || error.is_refusal() || self.want.stands_in || !self.permit.has_clients() {
                return Err(error.into());
            }
            tracing::debug!(key = %self.want.key, %error, "asking again");
            before = Some(error);
            sleep_until(patience.failed(Instant::now(), false)).await;
        }
    }

    /// Resolves when no answer has come for a while to a request that was said to be less urgent than it is to a client that has
    /// come meanwhile.
    async fn matters_more_than(&self, told: Urgency) {
        if told == Urgency::Awaited || !self.inner.upstream.tells_urgency() {
            return pending().await;
        }
        sleep(MODEST).await;
        while self.permit.demands().urgency() >= told {
            self.permit.demands().changed().await;
        }
    }

    /// Whether what the request selects is another stored response, or another state of it, than when it was looked
    /// up.
    fn changed_meanwhile(&self) -> bool {
        let Some(variants) = self.inner.store.lookup_hot(&self.want.key) else { return false };
        let Some(now) = variants.iter().find(|entry| self.want.selects(&entry.record)) else { return false };
        let moment = |record: &Record| (record.body, record.request_time, record.response_time);
        self.want.stored.as_ref().is_none_or(|then| moment(&then.record) != moment(&now.record))
    }

    /// What is known of a body that goes on is as young as the answer that brings the rest (RFC 9111 section 3.4).
    pub(super) fn freshened(&self, entry: &Arc<Entry>, response: &FetchResponse) -> Arc<Entry> {
        let record = decide::merge_304(&entry.record, &response.headers, response.request_time, response.response_time);
        self.inner.store.update(entry, record)
    }

    /// A 304 to our conditions freshens what is stored (RFC 9111 section 4.3.4); `false` when it is about another
    /// version.
    fn validated(&self, response: &FetchResponse) -> bool {
        let stored = self.want.stored.as_ref();
        let Some(entry) = stored.filter(|e| decide::not_modified_selects(&e.record, &response.headers)) else {
            return false;
        };
        self.permit.publish(Head::Validated(self.freshened(entry, response)));
        true
    }
}

/// An answer that nobody asked for: a part of the body, or a 304 without a condition.
fn is_misfit(response: &FetchResponse) -> bool {
    let is_whole =
        response.content_range.is_some_and(|range| range.first == 0 && range.total == range.last.checked_add(1));
    match response.status {
        StatusCode::PARTIAL_CONTENT => !is_whole,
        status => status == StatusCode::NOT_MODIFIED,
    }
}
