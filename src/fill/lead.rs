//! What a leader does: ask upstream, judge the answer, tell those who wait, copy the body in.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, DATE, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH};
use http::{HeaderMap, Method, StatusCode};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::copy::{self, Source};
use super::flight::{Head, Permit};
use super::want::Answer;
use super::{FillError, Inner, Want, fields};
use crate::content::{BodyRef, ExpectedDigest, PartialId, Record, Validator};
use crate::decide::{self, NotStorable, Storable};
use crate::store::{CompleteError, Entry, PartialWriter};
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
    // Between the look-up of this request and its turn to lead another flight may have ended.
    if changed_meanwhile(inner, want) {
        permit.publish(Head::Changed);
        return Ok(());
    }
    let mut headers = fields::for_fetch(&want.headers, &want.policy);
    let mut resumed = None;
    if let Some(entry) = want.stored.as_ref().filter(|e| matches!(e.record.body, BodyRef::Partial(_))) {
        resumed = inner.store.resume(entry).await.map(|writer| (writer.contiguous(), writer));
        if let Some((_, writer)) = resumed.take_if(|(from, writer)| writer.entry().record.length == Some(*from)) {
            return finish_whole(inner, want, permit, writer).await;
        }
        if let Some((from, writer)) = resumed.take() {
            let can_go_on = from > 0 && fields::ask_rest(&mut headers, &entry.record.validator(), from);
            resumed = keep_if(writer, can_go_on).await.map(|writer| (from, writer));
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
    if let Some((from, writer)) = resumed {
        if let Some(at) = continues(&writer, &response, from) {
            let entry = freshened(inner, writer.entry(), &response);
            permit.publish(Head::Filling(entry, Arc::clone(writer.partial())));
            return copy::run(inner, want, permit, writer, Source::new(response, at)).await;
        }
        let wrong_range = matches!(response.status, StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE);
        // Another version: what is there cannot be joined with what comes. A failure says nothing about the bytes that
        // are there: they stay for the next attempt.
        keep_if(writer, !wrong_range && !response.status.is_success()).await;
        if wrong_range {
            let response = fetch(inner, want, fields::for_fetch(&want.headers, &want.policy)).await?;
            return store_or_share(inner, want, permit, exclusive, response).await;
        }
    }
    store_or_share(inner, want, permit, exclusive, response).await
}

async fn keep_if(writer: PartialWriter, keep: bool) -> Option<PartialWriter> {
    if keep {
        return Some(writer);
    }
    writer.discard().await;
    None
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

/// Whether what the request selects is another stored response, or another state of it, than when it was looked up.
fn changed_meanwhile(inner: &Inner, want: &Want) -> bool {
    let Some(variants) = inner.store.lookup_hot(&want.key) else { return false };
    let Some(now) = variants.iter().find(|entry| want.selects(&entry.record)) else { return false };
    let moment = |record: &Record| (record.body, record.request_time, record.response_time);
    want.stored.as_ref().is_none_or(|then| moment(&then.record) != moment(&now.record))
}

/// What is known of a body that goes on is as young as the answer that brings the rest (RFC 9111 section 3.4).
fn freshened(inner: &Inner, entry: &Arc<Entry>, response: &FetchResponse) -> Arc<Entry> {
    let record = decide::merge_304(&entry.record, &response.headers, response.request_time, response.response_time);
    inner.store.update(entry, record)
}

/// A 304 to our conditions freshens what is stored (RFC 9111 section 4.3.4); `false` when it is about another version.
fn validated(inner: &Inner, want: &Want, permit: &Permit, response: &FetchResponse) -> bool {
    let Some(entry) = want.stored.as_ref().filter(|e| decide::not_modified_selects(&e.record, &response.headers))
    else {
        return false;
    };
    permit.publish(Head::Validated(freshened(inner, entry, response)));
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
    // A failure must not take the place of content that is stored and can stand in for it.
    let hides_content = response.status.is_server_error()
        && want.stored.as_ref().is_some_and(|stored| stored.record.status.is_success());
    // The end of a close-delimited body is not marked, so nobody can know that it is whole (RFC 9112 section 8).
    let whole_is_known = !matches!(response.framing, Framing::UntilClose);
    if matches!(storable, Storable::Yes) && whole_is_known && !hides_content {
        match record_of(want, &response) {
            Some(record) => match inner.store.create(record).await {
                Ok(writer) => {
                    permit.publish(Head::Filling(Arc::clone(writer.entry()), Arc::clone(writer.partial())));
                    return copy::run(inner, want, permit, writer, Source::new(response, 0)).await;
                }
                Err(error) => tracing::warn!(key = %want.key, %error, "answer is passed on without being stored"),
            },
            None => tracing::debug!(key = %want.key, "answer varies on everything"),
        }
    }
    let is_personal = matches!(
        storable,
        Storable::No(
            NotStorable::Private | NotStorable::Authorization | NotStorable::SetCookie | NotStorable::RequestNoStore
        )
    );
    if response.status.is_server_error() && !is_personal {
        return share(want, permit, response).await;
    }
    // Only what lies in the resource is remembered of it. A refused token or a wish of one client says nothing about
    // what others get.
    let of_the_request = matches!(storable, Storable::No(NotStorable::Authorization | NotStorable::RequestNoStore));
    if !of_the_request && (response.status.is_success() || response.status.is_redirection()) {
        inner.unshared.insert(want.key.hash(), ());
    }
    permit.publish(Head::NotShared);
    // The leader's client may have gone: then the answer is dropped, and with it the connection.
    let _ = exclusive.send(response);
    Ok(())
}

/// Gives a failure of the origin to everybody who waited, so that they do not all ask a failing origin again. A body
/// that is long, slow or cut is left out.
async fn share(want: &Want, permit: &Permit, mut response: FetchResponse) -> Result<(), FillError> {
    let body = match timeout_at(want.deadline, short_body(&mut response)).await {
        Ok(Some(body)) => body,
        Ok(None) | Err(_) => {
            response.headers.remove(CONTENT_ENCODING);
            Bytes::new()
        }
    };
    let answer = Answer { status: response.status, headers: response.headers, body };
    permit.publish(Head::Answer(Arc::new(answer)));
    Ok(())
}

async fn short_body(response: &mut FetchResponse) -> Option<Bytes> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.body.next().await {
        let chunk = chunk.ok()?;
        if body.len() as u64 + chunk.len() as u64 > SHARED_ANSWER {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(body.freeze())
}

fn record_of(want: &Want, response: &FetchResponse) -> Option<Record> {
    let vary = decide::selecting_fields(&response.headers, &want.headers, &want.policy).ok()?;
    let mut headers = response.headers.clone();
    if !headers.contains_key(DATE) {
        // RFC 9110 section 6.6.1: a recipient with a clock adds the time of reception.
        let date = httpdate::fmt_http_date(response.response_time.to_system_time());
        headers.extend(HeaderValue::try_from(date).ok().map(|date| (DATE, date)));
    }
    Some(Record {
        key: want.key.clone(),
        status: response.status,
        headers,
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

/// Completes a body whose last byte came before the end of an earlier fill. Everybody looks again then: it may be stale,
/// or not what its digest says.
async fn finish_whole(inner: &Inner, want: &Want, permit: &Permit, writer: PartialWriter) -> Result<(), FillError> {
    let length = writer.contiguous();
    let outcome = match writer.complete(length).await {
        Ok(_) => "complete",
        Err(error) => {
            tracing::warn!(key = %want.key, %error, "stored bytes could not be completed");
            if matches!(error, CompleteError::Mismatch { .. }) { "mismatch" } else { "store" }
        }
    };
    inner.metrics.fills.with_label_values(&[outcome]).inc();
    permit.publish(Head::Changed);
    Ok(())
}

/// Where in the representation the body of `response` begins, if it brings what `writer` lacks from `from` on: the same
/// version (RFC 9111 section 3.4), as the rest in a 206 or all of it from an origin that does no ranges.
pub(super) fn continues(writer: &PartialWriter, response: &FetchResponse, from: u64) -> Option<u64> {
    let record = &writer.entry().record;
    if !record.validator().same_strong(&Validator::of(&response.headers)) {
        return None;
    }
    match (response.status, response.content_range, response.framing) {
        (StatusCode::PARTIAL_CONTENT, Some(range), _) => {
            fields::is_rest(range.first, range.last, range.total, from, record.length).then_some(from)
        }
        (StatusCode::OK, None, Framing::Length(length)) => (record.length == Some(length)).then_some(0),
        _ => None,
    }
}
