//! How a leader goes on with a body that is partly there: what it asks for, what the answer is to what is stored, and how
//! long it asks again while the source has a spell of failures.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::copy::{Copying, Start, Ways};
use super::judge::{Answered, Asked, Judged, judge};
use super::lead::Leader;
use super::stream::Stream;
use super::{FillError, answer, fields, schedule};
use crate::content::{ByteRange, Record};
use crate::decide::FirstAsked;
use crate::store::{Entry, Partial, PartialWriter};
use crate::upstream::FetchResponse;

impl Leader<'_> {
    /// Goes on with a body that is partly there.
    pub(super) async fn resume(
        &self,
        writer: PartialWriter,
        exclusive: oneshot::Sender<FetchResponse>,
    ) -> Result<(), FillError> {
        let record = &writer.entry().record;
        if record.length.is_some_and(|length| writer.partial().present_total() == length) {
            return self.finish_whole(writer).await;
        }
        let ways = Ways::of(self.inner, self.want, record);
        let asked = self.missing_first(record, writer.partial(), ways);
        let response = self.fetch_through_spells(record, asked, self.fields_for(record, asked, ways)).await?;
        match judge(record, record.length, asked, &Answered::of(&response)) {
            Judged::Part { at, end } => {
                let entry = self.freshened(writer.entry(), &response);
                self.join(writer, entry, response, (at, end), ways).await
            }
            Judged::Again => {
                if asked != Asked::Whole {
                    self.inner.no_ranges.insert(self.want.key.hash(), ());
                }
                let strong = record.validator().is_strong();
                // With the same strong validator it is the same; otherwise only the bytes can tell.
                let entry = if strong { self.freshened(writer.entry(), &response) } else { Arc::clone(writer.entry()) };
                let start = Start { stream: Stream::new(response, 0), at: 0, end: None, ways: Ways::Again };
                self.publish(entry, &writer);
                let copying = Copying::of_begun(self.inner, self.want, writer, ways);
                self.copy(copying.begin(start)).await
            }
            Judged::OtherVersion => {
                writer.supersede().await;
                self.note_change();
                if response.status == StatusCode::OK {
                    return self.take_whole(response, exclusive).await;
                }
                self.begin_anew(exclusive).await
            }
            Judged::Misfit => {
                self.inner.no_ranges.insert(self.want.key.hash(), ());
                drop(response);
                let response = self.fetch(self.plain()).await?;
                let judged = judge(record, record.length, Asked::Whole, &Answered::of(&response));
                if judged != Judged::Again {
                    if matches!(judged, Judged::OtherVersion) {
                        writer.supersede().await;
                        self.note_change();
                    }
                    return self.take_whole(response, exclusive).await;
                }
                let start = Start { stream: Stream::new(response, 0), at: 0, end: None, ways: Ways::Again };
                self.publish(Arc::clone(writer.entry()), &writer);
                let copying = Copying::of_begun(self.inner, self.want, writer, Ways::Again);
                self.copy(copying.begin(start)).await
            }
            // A failure says nothing about the bytes that are there: they stay for the next attempt.
            Judged::Passing | Judged::Final => {
                drop(writer);
                answer::store_or_share(self, response, exclusive).await
            }
        }
    }

    /// Asks for what is missing. A failure that may pass is asked about again as long as the leader's request has time for
    /// it: in the middle of a fill nobody would notice it either. The answer is the last one then.
    async fn fetch_through_spells(
        &self,
        record: &Record,
        asked: Asked,
        headers: HeaderMap,
    ) -> Result<FetchResponse, FillError> {
        let mut patience = self.inner.patience();
        let mut comebacks = self.inner.upstream.comebacks();
        let mut failure = None;
        loop {
            let (next, last) = match self.fetch(headers.clone()).await {
                Ok(response) => match judge(record, record.length, asked, &Answered::of(&response)) {
                    Judged::Passing => (patience.failed(Instant::now(), false), Ok(response)),
                    _ => return Ok(response),
                },
                Err(error) => match error.down_until() {
                    // What made it known says more.
                    Some(until) => (until, failure.take().unwrap_or(Err(error))),
                    None => return Err(error),
                },
            };
            if next >= self.want.deadline || !self.permit.has_clients() {
                return last;
            }
            failure = Some(last);
            tokio::select! {
                () = sleep_until(next) => {}
                Ok(()) = comebacks.changed() => {}
            }
        }
    }

    /// Goes on with a body from an answer that brings the bytes from one position to another.
    pub(super) async fn join(
        &self,
        writer: PartialWriter,
        entry: Arc<Entry>,
        response: FetchResponse,
        (at, end): (u64, u64),
        ways: Ways,
    ) -> Result<(), FillError> {
        let part = ByteRange::new(at, end).ok_or(FillError::BadAnswer("an empty part"))?;
        let stream = Stream::part(response, part, &self.inner.held_room);
        let start = Start { stream, at, end: Some(end), ways };
        self.publish(entry, &writer);
        let copying = Copying::of_begun(self.inner, self.want, writer, ways);
        self.copy(copying.begin(start)).await
    }

    /// The fields of a request for what is asked of the stored version of `record`.
    pub(super) fn fields_for(&self, record: &Record, asked: Asked, ways: Ways) -> HeaderMap {
        let mut headers = self.plain();
        match asked {
            Asked::Range(range) => {
                let last = (ways == Ways::Ranged || record.length != Some(range.end())).then_some(range.last());
                fields::ask_range(&mut headers, range.start(), last, Some(&record.validator()));
            }
            Asked::From(start) => fields::ask_range(&mut headers, start, None, Some(&record.validator())),
            Asked::Whole => {}
        }
        headers
    }

    /// What is missing first of a body that is partly there, for this client.
    pub(super) fn missing_first(&self, record: &Record, partial: &Partial, ways: Ways) -> Asked {
        let begin = match self.want.begin() {
            FirstAsked::ToEnd(start) => start,
            FirstAsked::Within(range) => range.start(),
            FirstAsked::Suffix(count) => record.length.map_or(0, |length| length.saturating_sub(count)),
        };
        match (ways, record.length) {
            (Ways::Again, _) => Asked::Whole,
            (_, None) => Asked::From(partial.contiguous()),
            (_, Some(length)) => {
                let whole = |start| ByteRange::new(start, length);
                // Behind the client's begin, or else before it.
                let wanted = match self.want.begin() {
                    FirstAsked::Within(range) => ByteRange::new(range.start(), range.end().min(length)),
                    FirstAsked::ToEnd(_) | FirstAsked::Suffix(_) => whole(begin),
                };
                let gap = |range| partial.missing(range).first().copied();
                let gap = wanted.and_then(gap).or_else(|| whole(0).and_then(gap));
                let pieces = if ways == Ways::Ranged { schedule::Pieces::Ranged } else { schedule::Pieces::Rest };
                let range =
                    gap.and_then(|gap| schedule::only(pieces, length, partial.block_size(), &partial.present(), gap));
                range.map_or(Asked::Whole, Asked::Range)
            }
        }
    }
}
