//! Copies a body from upstream into its partial, goes on after a cut, and completes it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Method, StatusCode};
use tokio::time::Instant;

use super::flight::Permit;
use super::{FillError, Inner, Want, fields, lead};
use crate::content::{Abandon, ByteRange};
use crate::store::{CompleteError, PartialWriter, StoreError};
use crate::upstream::{FetchRequest, FetchResponse, UpstreamBody};

/// What arrived is written when no more is there at once, or when this much is.
const BATCH: u64 = 1024 * 1024;

/// How long a fill whose connection was cut tries to go on while no byte comes.
const RESUME_PATIENCE: Duration = Duration::from_secs(60);

/// Pause after the first attempt that brought nothing; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// Where bytes come from.
pub(super) struct Source {
    body: UpstreamBody,
    /// Position in the representation of the next byte that comes.
    at: u64,
    /// Where the body ends by its `Content-Range`.
    end: Option<u64>,
}

/// Why copying from one source ended.
enum End {
    /// The whole body is there, and this is its length.
    Whole(u64),
    Cut,
    Abandoned,
    StoreFailed,
}

/// How much longer to try while no byte comes.
struct Patience {
    until: Instant,
    pause: Duration,
}

impl Source {
    /// The body of `response`, whose first byte is the one at `at`.
    pub(super) fn new(response: FetchResponse, at: u64) -> Self {
        let end = response.content_range.map(|range| range.last.saturating_add(1));
        Self { body: response.body, at, end }
    }

    /// Length of the representation, if `writer` has all of it now that the source has ended.
    fn whole(&self, writer: &PartialWriter) -> Option<u64> {
        let length = writer.entry().record.length.or(self.end).unwrap_or(self.at);
        (writer.contiguous() == length).then_some(length)
    }
}

impl Patience {
    fn new() -> Self {
        Self { until: Instant::now() + RESUME_PATIENCE, pause: Duration::ZERO }
    }

    /// Waits longer each time, at first not at all; `false` when it is over.
    async fn wait(&mut self) -> bool {
        let next = Instant::now() + self.pause;
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        if next >= self.until {
            return false;
        }
        tokio::time::sleep_until(next).await;
        true
    }
}

/// Copies until the body is complete, its clients have left, or upstream gives up. The head is published already, so
/// those who read learn of the end from the partial.
pub(super) async fn run(
    inner: &Arc<Inner>,
    want: &Want,
    permit: &Permit,
    mut writer: PartialWriter,
    mut source: Source,
) -> Result<(), FillError> {
    let mut patience = Patience::new();
    let outcome = loop {
        match copy(want, permit, &mut writer, &mut source, &mut patience).await {
            End::Whole(length) => return complete(inner, want, permit, writer, length).await,
            End::Abandoned => break "abandoned",
            End::StoreFailed => break "store",
            End::Cut => match reconnect(inner, want, permit, &writer, &mut patience).await {
                Some(rest) => source = rest,
                None => break "cut",
            },
        }
    };
    permit.close();
    inner.metrics.fills.with_label_values(&[outcome]).inc();
    tracing::info!(key = %want.key, outcome, bytes = writer.contiguous(), "fill ended before its end");
    // Nothing can ever be joined to bytes without a strong validator, nor to a file that takes no more.
    if outcome == "store" || !writer.entry().record.validator().is_strong() {
        writer.discard().await;
    }
    Ok(())
}

async fn copy(
    want: &Want,
    permit: &Permit,
    writer: &mut PartialWriter,
    source: &mut Source,
    patience: &mut Patience,
) -> End {
    loop {
        let chunk = tokio::select! {
            biased;
            chunk = source.body.next() => chunk,
            () = clients_left(want, permit, writer) => {
                if permit.close_if_unused() {
                    return End::Abandoned;
                }
                continue;
            }
        };
        let mut batch: Vec<Bytes> = Vec::new();
        let mut size = 0;
        let mut next = Some(chunk);
        let mut cut = false;
        let mut ended = false;
        while let Some(chunk) = next {
            match chunk {
                Some(Ok(bytes)) => {
                    size += bytes.len() as u64;
                    batch.push(bytes);
                }
                Some(Err(error)) => {
                    tracing::debug!(key = %want.key, %error, "upstream body was cut");
                    cut = true;
                    break;
                }
                None => {
                    ended = true;
                    break;
                }
            }
            next = if size < BATCH { source.body.next().now_or_never() } else { None };
        }
        match write(writer, source.at, &batch).await {
            Ok(()) => {}
            // A block was found damaged meanwhile, so that the bytes have no place before others: those come first.
            Err(StoreError::Misplaced { .. }) => return End::Cut,
            Err(error) => {
                tracing::warn!(key = %want.key, %error, "fill could not be written");
                return End::StoreFailed;
            }
        }
        if size > 0 {
            source.at = source.at.saturating_add(size);
            *patience = Patience::new();
        }
        let known = writer.entry().record.length.filter(|length| *length == writer.contiguous());
        let whole = if ended { source.whole(writer) } else { known };
        match whole {
            Some(length) => return End::Whole(length),
            None if ended || cut => return End::Cut,
            None => {}
        }
    }
}

/// Writes what is absent of `batch`, whose first byte is the one at `at`. Blocks behind one that was damaged are there
/// already, and so is everything up to the cut when a source begins anew.
async fn write(writer: &mut PartialWriter, at: u64, batch: &[Bytes]) -> Result<(), StoreError> {
    let size: u64 = batch.iter().map(|bytes| bytes.len() as u64).sum();
    let Some(range) = ByteRange::new(at, at.saturating_add(size)) else { return Ok(()) };
    for part in writer.partial().missing(range) {
        writer.write(part.start(), slices(batch, at, part)).await?;
    }
    Ok(())
}

/// The bytes of `part` out of `batch`, whose first byte is the one at `at`.
fn slices(batch: &[Bytes], at: u64, part: ByteRange) -> Vec<Bytes> {
    let mut begin = at;
    let mut slices = Vec::with_capacity(batch.len());
    for bytes in batch {
        let here = ByteRange::new(begin, begin.saturating_add(bytes.len() as u64));
        if let Some(common) = here.and_then(|here| here.intersect(part)) {
            // Both ends are within `bytes`, whose length is a usize.
            slices.push(bytes.slice((common.start() - begin) as usize..(common.end() - begin) as usize));
        }
        begin = begin.saturating_add(bytes.len() as u64);
    }
    slices
}

/// Resolves when nobody waits any more for a fill that goes on for its clients only.
async fn clients_left(want: &Want, permit: &Permit, writer: &PartialWriter) {
    if goes_on_alone(want, writer) {
        std::future::pending::<()>().await;
    }
    permit.clients_left().await;
}

/// Whether the fill goes on without clients: its policy says so, or most of the body is there.
fn goes_on_alone(want: &Want, writer: &PartialWriter) -> bool {
    let present = writer.partial().present_total();
    want.policy.abandon == Abandon::Complete
        || writer.entry().record.length.is_some_and(|length| present >= length.div_ceil(2))
}

/// Asks for the rest after a cut, with growing pauses, as long as the fill is wanted.
async fn reconnect(
    inner: &Inner,
    want: &Want,
    permit: &Permit,
    writer: &PartialWriter,
    patience: &mut Patience,
) -> Option<Source> {
    while patience.wait().await {
        if !goes_on_alone(want, writer) && permit.close_if_unused() {
            return None;
        }
        let from = writer.contiguous();
        let mut headers = fields::for_fetch(&want.headers, &want.policy);
        if from == 0 || !fields::ask_rest(&mut headers, &writer.entry().record.validator(), from) {
            return None;
        }
        let request = FetchRequest {
            method: Method::GET,
            origin: want.origin.clone(),
            target: want.target.clone(),
            headers,
            policy: Arc::clone(&want.policy),
            body: None,
            deadline: patience.until,
        };
        if let Ok(response) = inner.upstream.fetch(request, &*inner.redirects).await {
            if let Some(at) = lead::continues(writer, &response, from) {
                return Some(Source::new(response, at));
            }
            let may_pass = response.status.is_server_error()
                || matches!(response.status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
            if !may_pass {
                return None;
            }
        }
    }
    None
}

async fn complete(
    inner: &Inner,
    want: &Want,
    permit: &Permit,
    writer: PartialWriter,
    length: u64,
) -> Result<(), FillError> {
    let outcome = match writer.complete(length).await {
        Ok(_) => "complete",
        Err(CompleteError::Mismatch { expected, actual }) => {
            tracing::warn!(key = %want.key, %expected, %actual, "body is not what its digest says; quarantined");
            "mismatch"
        }
        Err(error) => {
            tracing::warn!(key = %want.key, %error, "body could not be completed");
            "store"
        }
    };
    if outcome != "complete" {
        permit.close();
    }
    inner.metrics.fills.with_label_values(&[outcome]).inc();
    Ok(())
}
