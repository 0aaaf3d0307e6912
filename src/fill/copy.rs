//! Copies a body from upstream into its partial, goes on after a cut, and completes it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Method, StatusCode};
use tokio::time::Instant;

use super::flight::Permit;
use super::{FillError, Inner, Want, fields, lead};
use crate::content::Abandon;
use crate::store::{CompleteError, PartialWriter};
use crate::upstream::{FetchRequest, FetchResponse, UpstreamBody};

/// What arrived is written when no more is there at once, or when this much is.
const BATCH: usize = 1024 * 1024;

/// How long a fill whose connection was cut tries to go on while no byte comes.
const RESUME_PATIENCE: Duration = Duration::from_secs(60);

/// First pause between two attempts; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// Where the bytes come from, from the writer's contiguous end on.
pub(super) struct Source {
    body: UpstreamBody,
}

/// Why copying from one source ended.
enum End {
    Whole,
    Cut,
    Abandoned,
    StoreFailed,
}

impl Source {
    pub(super) fn of(response: FetchResponse) -> Self {
        Self { body: response.body }
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
    let outcome = loop {
        match copy(want, permit, &mut writer, &mut source.body).await {
            End::Whole => return complete(inner, want, writer).await,
            End::Abandoned => break "abandoned",
            End::StoreFailed => break "store",
            End::Cut => match reconnect(inner, want, permit, &writer).await {
                Some(rest) => source = rest,
                None => break "cut",
            },
        }
    };
    inner.metrics.fills.with_label_values(&[outcome]).inc();
    tracing::info!(key = %want.key, outcome, bytes = writer.contiguous(), "fill ended before its end");
    if !writer.entry().record.validator().is_strong() {
        // Nothing can ever be joined to these bytes.
        writer.discard().await;
    }
    Ok(())
}

async fn copy(want: &Want, permit: &Permit, writer: &mut PartialWriter, body: &mut UpstreamBody) -> End {
    loop {
        let chunk = tokio::select! {
            biased;
            chunk = body.next() => chunk,
            () = gives_up(want, permit, writer) => return End::Abandoned,
        };
        let (first, mut end) = match chunk {
            Some(Ok(bytes)) => (bytes, None),
            Some(Err(error)) => {
                tracing::debug!(key = %want.key, %error, "upstream body was cut");
                return End::Cut;
            }
            None => return End::Whole,
        };
        let mut batch: Vec<Bytes> = vec![first];
        let mut size = batch[0].len();
        while size < BATCH {
            match body.next().now_or_never() {
                Some(Some(Ok(bytes))) => {
                    size += bytes.len();
                    batch.push(bytes);
                }
                Some(Some(Err(_))) => {
                    end = Some(End::Cut);
                    break;
                }
                Some(None) => {
                    end = Some(End::Whole);
                    break;
                }
                None => break,
            }
        }
        let offset = writer.contiguous();
        if let Err(error) = writer.write(offset, batch).await {
            tracing::warn!(key = %want.key, %error, "fill could not be written");
            return End::StoreFailed;
        }
        if let Some(end) = end {
            return end;
        }
    }
}

/// Resolves when the fill should stop because nobody waits for it: its policy says so and less than half is there.
async fn gives_up(want: &Want, permit: &Permit, writer: &PartialWriter) {
    let mostly_there = writer.entry().record.length.is_some_and(|length| writer.contiguous() >= length / 2);
    if want.policy.abandon == Abandon::Complete || mostly_there {
        std::future::pending::<()>().await;
    }
    permit.clients_left().await;
}

/// Asks for the rest after a cut, with growing pauses, as long as a client waits or the policy is to complete.
async fn reconnect(inner: &Inner, want: &Want, permit: &Permit, writer: &PartialWriter) -> Option<Source> {
    let record = &writer.entry().record;
    let mut headers = fields::for_fetch(&want.headers, &want.policy);
    record.length?;
    if writer.contiguous() == 0 || !fields::ask_rest(&mut headers, &record.validator(), writer.contiguous()) {
        return None;
    }
    let patience = Instant::now() + RESUME_PATIENCE;
    let mut pause = FIRST_PAUSE;
    while permit.has_clients() || want.policy.abandon == Abandon::Complete {
        let request = FetchRequest {
            method: Method::GET,
            origin: want.origin.clone(),
            target: want.target.clone(),
            headers: headers.clone(),
            policy: Arc::clone(&want.policy),
            body: None,
            deadline: patience,
        };
        match inner.upstream.fetch(request, &*inner.redirects).await {
            Ok(response) if response.status == StatusCode::PARTIAL_CONTENT && lead::continues(writer, &response) => {
                return Some(Source::of(response));
            }
            Ok(response) if !response.status.is_server_error() => return None,
            Ok(_) | Err(_) => {}
        }
        if Instant::now() + pause >= patience {
            return None;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    None
}

async fn complete(inner: &Inner, want: &Want, writer: PartialWriter) -> Result<(), FillError> {
    let length = writer.contiguous();
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
    inner.metrics.fills.with_label_values(&[outcome]).inc();
    Ok(())
}
