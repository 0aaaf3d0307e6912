//! What a leader does: ask upstream, judge the answer, tell those who wait, copy the body in.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{IF_MODIFIED_SINCE, IF_NONE_MATCH};
use http::{HeaderMap, Method, StatusCode};
use tokio::sync::oneshot;

use super::copy::{self, Source};
use super::flight::{Head, Permit};
use super::want::Answer;
use super::{FillError, Inner, Want, fields};
use crate::content::{BodyRef, ExpectedDigest, PartialId, Record};
use crate::decide::{self, Storable};
use crate::store::{Entry, PartialWriter};
use crate::upstream::{FetchRequest, FetchResponse, Framing};

/// Longest failure answer that is kept in memory for all who wait, in bytes.
const SHARED_ANSWER: u64 = 64 * 1024;

/// Leads one flight to its end. `exclusive` takes the answer when only the leader's client may have it.
pub(super) async fn run(inner: Arc<Inner>, want: Want, permit: Permit, exclusive: oneshot::Sender<FetchResponse>) {
    match lead(&inner, &want, &permit, exclusive).await {
        Ok(()) => {}
        Err(error) => {
            tracing::debug!(key = %want.key, %error, "fill failed");
            permit.publish(Head::Failed(error));
        }
    }
}

async fn lead(
    inner: &Arc<Inner>,
    want: &Want,
    permit: &Permit,
    exclusive: oneshot::Sender<FetchResponse>,
) -> Result<(), FillError> {
    // Between the look-up of this request and its turn to lead another flight may have stored the answer.
    if let Some(entry) = stored_meanwhile(inner, want) {
        permit.publish(Head::Validated(entry));
        return Ok(());
    }
    let mut headers = fields::for_fetch(&want.headers, &want.policy);
    let mut resumed = None;
    if let Some(entry) = want.stored.as_ref().filter(|e| matches!(e.record.body, BodyRef::Partial(_))) {
        resumed = inner.store.resume(entry).await;
        if let Some(writer) = resumed.take_if(|writer| is_whole(writer)) {
            return finish_whole(inner, permit, writer).await;
        }
        if let Some(writer) = &resumed {
            let from = writer.contiguous();
            if (from == 0 || !fields::ask_rest(&mut headers, &entry.record.validator(), from))
                && let Some(writer) = resumed.take()
            {
                writer.discard().await;
            }
        }
    } else if let Some(conditions) = &want.conditions {
        headers.extend(conditions.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    let conditional = headers.contains_key(IF_NONE_MATCH) || headers.contains_key(IF_MODIFIED_SINCE);
    let response = fetch(inner, want, headers).await?;
    if response.status == StatusCode::NOT_MODIFIED && conditional {
        if validated(inner, want, permit, &response) {
            return Ok(());
        }
        // It is about another version than the stored one (RFC 9111 section 4.3.4): ask without conditions.
        let response = fetch(inner, want, fields::for_fetch(&want.headers, &want.policy)).await?;
        return store_or_share(inner, want, permit, exclusive, response).await;
    }
    if let Some(writer) = resumed {
        if response.status == StatusCode::PARTIAL_CONTENT && continues(&writer, &response) {
            permit.publish(Head::Filling(Arc::clone(writer.entry()), Arc::clone(writer.partial())));
            return copy::run(inner, want, permit, writer, Source::of(response)).await;
        }
        let wrong_range = matches!(response.status, StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE);
        if wrong_range || response.status.is_success() {
            // Another version, or an origin that does not do ranges: what is there cannot be joined with what comes.
            writer.discard().await;
        } else {
            // A failure says nothing about the bytes that are there: they stay for the next attempt.
            drop(writer);
        }
        if wrong_range {
            let response = fetch(inner, want, fields::for_fetch(&want.headers, &want.policy)).await?;
            return store_or_share(inner, want, permit, exclusive, response).await;
        }
    }
    store_or_share(inner, want, permit, exclusive, response).await
}

async fn fetch(inner: &Inner, want: &Want, headers: HeaderMap) -> Result<FetchResponse, FillError> {
    let request = FetchRequest {
        method: Method::GET,
        origin: want.origin.clone(),
        target: want.target.clone(),
        headers,
        policy: Arc::clone(&want.policy),
        body: None,
        deadline: want.deadline,
    };
    Ok(inner.upstream.fetch(request, &*inner.redirects).await?)
}

fn stored_meanwhile(inner: &Inner, want: &Want) -> Option<Arc<Entry>> {
    let variants = inner.store.lookup_hot(&want.key)?;
    let entry = variants.iter().find(|entry| want.selects(&entry.record))?;
    let complete = matches!(entry.record.body, BodyRef::Blob(_));
    (complete && entry.record.response_time > want.asked_at && !entry.record.token_protected).then(|| Arc::clone(entry))
}

/// A 304 to our conditions freshens what is stored (RFC 9111 section 4.3.4); `false` when it is about another version.
fn validated(inner: &Inner, want: &Want, permit: &Permit, response: &FetchResponse) -> bool {
    let Some(entry) = want.stored.as_ref().filter(|e| decide::not_modified_selects(&e.record, &response.headers))
    else {
        return false;
    };
    let record = decide::merge_304(&entry.record, &response.headers, response.request_time, response.response_time);
    permit.publish(Head::Validated(inner.store.update(entry, record)));
    true
}

async fn store_or_share(
    inner: &Arc<Inner>,
    want: &Want,
    permit: &Permit,
    exclusive: oneshot::Sender<FetchResponse>,
    response: FetchResponse,
) -> Result<(), FillError> {
    if response.status == StatusCode::PARTIAL_CONTENT || response.status == StatusCode::NOT_MODIFIED {
        return Err(FillError::BadAnswer("an answer that was not asked for"));
    }
    let storable =
        decide::storable(&Method::GET, &want.headers, response.status, &response.headers, &want.policy, &want.path);
    // The end of a close-delimited body is not marked, so nobody can know that it is whole (RFC 9112 section 8).
    let whole_is_known = !matches!(response.framing, Framing::UntilClose);
    if matches!(storable, Storable::Yes) && whole_is_known {
        match record_of(want, &response) {
            Some(record) => match inner.store.create(record).await {
                Ok(writer) => {
                    permit.publish(Head::Filling(Arc::clone(writer.entry()), Arc::clone(writer.partial())));
                    return copy::run(inner, want, permit, writer, Source::of(response)).await;
                }
                Err(error) => tracing::warn!(key = %want.key, %error, "answer is passed on without being stored"),
            },
            None => tracing::debug!(key = %want.key, "answer varies on everything"),
        }
    }
    if response.status.is_server_error() {
        return share(permit, response).await;
    }
    inner.unshared.insert(want.key.hash(), ());
    permit.publish(Head::NotShared);
    // The leader's client may have gone: then the answer is dropped, and with it the connection.
    let _ = exclusive.send(response);
    Ok(())
}

/// Gives a failure of the origin to everybody who waited, so that they do not all ask a failing origin again.
async fn share(permit: &Permit, mut response: FetchResponse) -> Result<(), FillError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.body.next().await {
        let Ok(chunk) = chunk else { break };
        if body.len() as u64 + chunk.len() as u64 > SHARED_ANSWER {
            body.clear();
            break;
        }
        body.extend_from_slice(&chunk);
    }
    let answer = Answer { status: response.status, headers: response.headers, body: Bytes::from(body) };
    permit.publish(Head::Answer(Arc::new(answer)));
    Ok(())
}

fn record_of(want: &Want, response: &FetchResponse) -> Option<Record> {
    let vary = decide::selecting_fields(&response.headers, &want.headers, &want.policy).ok()?;
    Some(Record {
        key: want.key.clone(),
        status: response.status,
        headers: response.headers.clone(),
        request_time: response.request_time,
        response_time: response.response_time,
        vary,
        length: match response.framing {
            Framing::Empty => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        },
        expected: decide::repr_digest(&response.headers).map(ExpectedDigest::Upstream),
        token_protected: want.carries_token,
        // The store names the partial itself.
        body: BodyRef::Partial(PartialId(0)),
    })
}

fn is_whole(writer: &PartialWriter) -> bool {
    writer.entry().record.length == Some(writer.contiguous())
}

async fn finish_whole(inner: &Inner, permit: &Permit, writer: PartialWriter) -> Result<(), FillError> {
    let length = writer.contiguous();
    match writer.complete(length).await {
        Ok(completed) => {
            inner.metrics.fills.with_label_values(&["complete"]).inc();
            permit.publish(Head::Validated(completed.entry));
            Ok(())
        }
        Err(error) => {
            tracing::warn!(%error, "stored bytes could not be completed");
            Err(FillError::BadAnswer("stored bytes could not be completed"))
        }
    }
}

/// Whether a 206 is the rest of what `writer` has, of the same version (RFC 9111 section 3.4).
pub(super) fn continues(writer: &PartialWriter, response: &FetchResponse) -> bool {
    let record = &writer.entry().record;
    let (Some(length), Some(range)) = (record.length, response.content_range) else { return false };
    fields::is_rest(range.first, range.last, range.total, writer.contiguous(), length)
        && record.validator().same_strong(&crate::content::Validator::of(&response.headers))
}
