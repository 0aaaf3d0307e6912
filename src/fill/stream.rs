//! [`Stream`]: the body of one answer on its way into a partial: what comes of it at a time, and how it ended.

use std::mem;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use super::part_check::{HeldRoom, PartCheck};
use super::{FillError, write};
use crate::content::ByteRange;
use crate::decide;
use crate::store::FirstBytes;
use crate::upstream::{BodyError, FetchResponse, Framing, Source, Standing, UpstreamBody};

/// What arrived is given out when no more is there at once, or when this much is, in bytes.
const BATCH: u64 = 512 * 1024;

/// What arrives first of an answer of more than a batch is given out by itself, up to so many bytes: clients wait for it, here
/// and in every level below.
const FIRST: usize = 64 * 1024;

/// How long the body of an answer is waited for before a file is made for it: mostly its first bytes come with its head, and go
/// into the file in one job with that.
const MOMENT: Duration = Duration::from_millis(2);

/// Bytes that are read for nothing before a block, from a source that does no ranges.
pub(super) const SKIPPED: u64 = 64 * 1024 * 1024;

/// The body of one answer.
pub(super) struct Stream {
    body: UpstreamBody,
    source: Source,
    /// Position in the representation of the next byte that comes.
    at: u64,
    /// Where the part ends that it is, if it is one.
    end: Option<u64>,
    /// Set when the message says what its content hashes to.
    check: Option<PartCheck>,
    /// What has come and was not given out yet, and its size.
    came: Vec<Bytes>,
    size: u64,
    /// Whether nothing has been given out.
    is_fresh: bool,
}

/// What came at once.
pub(super) struct Batch {
    /// Position of its first byte.
    pub(super) at: u64,
    pub(super) bytes: Vec<Bytes>,
    pub(super) size: u64,
    /// Set when no more comes.
    pub(super) end: Option<Ending>,
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// As its framing says.
    Marked,
    /// With its connection: nobody can tell whether it is whole.
    Closed,
    /// Before its end.
    Broken(BodyError),
    /// Its content is not what its `Content-Digest` says. Of a part that was held none was given out.
    WrongDigest { given_out: bool },
}

/// What comes first of the body of `response`, which is this `part` or a whole, if it comes within a moment. The body gives it
/// out all the same. Nothing of a body whose length is not told: were all of it there, the fill would end before the mark behind
/// its bytes was read, and lose the connection. Nor of a part that says what its content hashes to: of that nothing is given out
/// before it is known.
pub(super) async fn first_bytes_of(response: &mut FetchResponse, part: Option<ByteRange>) -> FirstBytes {
    let Framing::Length(length) = response.framing else { return FirstBytes::default() };
    if part.is_some() && decide::content_digest(&response.headers).is_some() {
        return FirstBytes::default();
    }
    let (at, until) = part.map_or((0, length), |part| (part.start(), part.end()));
    let bytes = response.body.peek(Instant::now() + MOMENT).await;
    // As much as the stream gives out first, see `Stream::first`.
    let most = if response.body.is_within(BATCH) { bytes.len() } else { bytes.len().min(FIRST) };
    // What goes beyond is none of it, whoever sent it.
    let most = usize::try_from(until.saturating_sub(at)).unwrap_or(usize::MAX).min(most);
    FirstBytes { at, bytes: vec![bytes.slice(..most)], until: Some(until) }
}

impl Stream {
    /// The body of `response`, whose first byte is the one at `at`.
    pub(super) fn new(response: FetchResponse, at: u64) -> Self {
        let (body, source) = (response.body, response.source);
        Self { body, source, at, end: None, check: None, came: Vec::new(), size: 0, is_fresh: true }
    }

    /// The same for a part, which is checked if the message says what its content hashes to (RFC 9530 section 2). Of a
    /// whole the digest is that of the representation.
    pub(super) fn part(response: FetchResponse, part: ByteRange, room: &HeldRoom) -> Self {
        let digest = decide::content_digest(&response.headers);
        let check = digest.map(|digest| PartCheck::new(digest, part, room, Instant::now()));
        Self { end: Some(part.end()), check, ..Self::new(response, part.start()) }
    }

    /// Who gives it.
    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// Position of the next byte that comes.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Whether less has come than the part has.
    pub(super) fn is_short(&self) -> bool {
        self.end.is_some_and(|end| self.at < end)
    }

    /// The check that was not finished when the body was cut.
    pub(super) fn unfinished(self) -> Option<PartCheck> {
        self.check
    }

    /// How much its bytes matter, where not all may come at once.
    pub(super) fn standing(&self) -> Option<&Standing> {
        self.body.standing()
    }

    /// Whether its source was told that others may come first.
    pub(super) fn yields(&self) -> bool {
        self.body.yields()
    }

    /// Whether it ends by this without a fault of its source: the budget closed, or the source serves others first. The next
    /// request says how urgent the rest is then.
    pub(super) fn is_as_agreed(&self, error: BodyError) -> bool {
        match error {
            BodyError::OverBudget { .. } => true,
            BodyError::Stalled { .. } => self.yields(),
            BodyError::Cut { .. } | BodyError::Malformed { .. } => false,
        }
    }

    /// What is missing can be asked for again: a body of which no byte comes for so long counts as stalled.
    pub(super) fn can_be_resumed(&mut self, silence: Duration) {
        self.body.can_be_resumed(silence);
    }

    /// Waits for bytes or the end. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Batch {
        loop {
            let batch = self.collect().await;
            let Some(check) = &mut self.check else { return batch };
            if let Some(batch) = check.take(batch, Instant::now()) {
                return batch;
            }
        }
    }

    /// Reads up to the end of `range`, or until `until`, and keeps the bytes in it. Says why it ended.
    pub(super) async fn keep(mut self, range: ByteRange, until: Instant, kept: &mut Vec<Bytes>) -> FillError {
        loop {
            let Ok(batch) = timeout_at(until, self.next()).await else { return FillError::Deadline };
            kept.extend(write::slices(&batch.bytes, batch.at, range));
            if batch.end.is_some() || batch.at.saturating_add(batch.size) >= range.end() {
                return FillError::BadAnswer("a body that ends too soon");
            }
        }
    }

    /// What is there at once, after a wait for the first of it.
    async fn collect(&mut self) -> Batch {
        let mut end = None;
        if self.came.is_empty() {
            let chunk = self.body.next().await;
            end = self.add(chunk);
        }
        if mem::take(&mut self.is_fresh)
            && let Some(batch) = self.first()
        {
            return batch;
        }
        while end.is_none() && self.size < BATCH {
            let mut chunk = self.body.next().now_or_never();
            if chunk.is_none() {
                // More may wait on the socket, whose reader needs a turn to bring it.
                yield_now().await;
                chunk = self.body.next().now_or_never();
            }
            match chunk {
                Some(chunk) => end = self.add(chunk),
                None => break,
            }
        }
        let batch = Batch { at: self.at, bytes: mem::take(&mut self.came), size: mem::take(&mut self.size), end };
        self.at = self.at.saturating_add(batch.size);
        batch
    }

    /// The first of what came, of a body that is more than one batch.
    fn first(&mut self) -> Option<Batch> {
        if self.body.is_within(BATCH) || self.end.is_some_and(|end| end.saturating_sub(self.at) <= BATCH) {
            return None;
        }
        let came = self.came.first_mut()?;
        let bytes = came.split_to(came.len().min(FIRST));
        if came.is_empty() {
            self.came.remove(0);
        }
        let (at, size) = (self.at, bytes.len() as u64);
        self.size -= size;
        self.at = self.at.saturating_add(size);
        Some(Batch { at, bytes: vec![bytes], size, end: None })
    }

    /// Keeps what came, or says how the body ended.
    fn add(&mut self, chunk: Option<Result<Bytes, BodyError>>) -> Option<Ending> {
        match chunk {
            Some(Ok(bytes)) => {
                self.size += bytes.len() as u64;
                self.came.push(bytes);
                None
            }
            Some(Err(error)) => Some(Ending::Broken(error)),
            None if self.body.ended_by_close() => Some(Ending::Closed),
            None => Some(Ending::Marked),
        }
    }
}
