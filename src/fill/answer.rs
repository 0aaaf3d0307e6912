//! What becomes of the first answer for a key: it is stored, shared with those who wait, or given to the leader's client
//! alone.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, DATE, HeaderValue, SET_COOKIE};
use http::{Method, StatusCode};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::copy::{Start, Ways};
use super::flight::Head;
use super::lead::Leader;
use super::stream::Stream;
use super::want::Answer;
use super::{FillError, Want, again, known, stream};
use crate::content::{BodyRef, ByteRange, ExpectedDigest, PartialId, Record, SetCookie};
use crate::decide::{self, NotStorable, Storable};
use crate::upstream::{FetchResponse, Framing};

/// Longest failure answer that is kept in memory for all who wait, in bytes.
const SHARED_ANSWER: u64 = 64 * 1024;

/// Begins a body with a part of it; `part` says which, and how long the whole is.
pub(super) async fn store_part(
    leader: &Leader<'_>,
    (part, length): (ByteRange, u64),
    mut response: FetchResponse,
    exclusive: oneshot::Sender<FetchResponse>,
) -> Result<(), FillError> {
    let want = leader.want;
    let storable =
        decide::storable(&Method::GET, &want.headers, StatusCode::OK, &response.headers, &want.policy, &want.path);
    if matches!(storable, Storable::Yes)
        && let Some(record) = record_of(want, &response, Some(length), StatusCode::OK)
    {
        if again::is_stored(leader, &record).await {
            return Ok(());
        }
        response = match known::unless_stored(leader, &record, response).await {
            Some(response) => response,
            None => return Ok(()),
        };
        let begun = record.clone();
        let first = stream::first_bytes_of(&mut response, Some(part)).await;
        match leader.inner.store.begin(record, leader.room(Some(length)), first).await {
            Ok(body) => {
                let stream = Stream::part(response, part, &leader.inner.held_room);
                let start = Start { stream, at: part.start(), end: Some(part.end()), ways: Ways::Ranged };
                return leader.fill(body, start).await;
            }
            Err(error) => {
                tracing::warn!(key = %want.key, %error, "answer is passed on without being stored");
                if let Some(slide) = leader.pass_by(&begun, part.start()) {
                    leader.pass_on(slide, Stream::part(response, part, &leader.inner.held_room)).await;
                    return Ok(());
                }
            }
        }
    } else if !of_the_request(&storable) {
        leader.inner.unshared.insert(want.key.hash(), ());
    }
    // A part of our choice is of no use to the client: it asks for itself.
    drop((response, exclusive));
    leader.permit.publish(Head::NotShared);
    Ok(())
}

/// Stores an answer to a request without a range, or shares it, or leaves it to the leader's client.
pub(super) async fn store_or_share(
    leader: &Leader<'_>,
    mut response: FetchResponse,
    exclusive: oneshot::Sender<FetchResponse>,
) -> Result<(), FillError> {
    let Leader { inner, want, permit } = leader;
    if response.status.is_server_error() && known::stands_in(leader, false).await {
        return Ok(());
    }
    // A 206 that is all of it is as good as a 200; others do not come here.
    let status = if response.status == StatusCode::PARTIAL_CONTENT { StatusCode::OK } else { response.status };
    let storable = decide::storable(&Method::GET, &want.headers, status, &response.headers, &want.policy, &want.path);
    // A failure must not take the place of content that is stored and can stand in for it.
    let hides_content =
        status.is_server_error() && want.stored.as_ref().is_some_and(|stored| stored.record.status.is_success());
    if matches!(storable, Storable::Yes) && !hides_content {
        let length = match response.framing {
            Framing::Empty => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        };
        // The end of a close-delimited body is not marked, so only a digest can tell that it is whole (RFC 9112
        // section 8).
        let is_marked = response.framing != Framing::UntilClose;
        match record_of(want, &response, length, status) {
            Some(record) if again::is_stored(leader, &record).await => return Ok(()),
            Some(record) if is_marked || record.expected.is_some() => {
                response = match known::unless_stored(leader, &record, response).await {
                    Some(response) => response,
                    None => return Ok(()),
                };
                let first = stream::first_bytes_of(&mut response, None).await;
                match inner.store.begin(record.clone(), length.unwrap_or(0), first).await {
                    Ok(body) => {
                        let ways = Ways::of(inner, want, &record);
                        let start = Start { stream: Stream::new(response, 0), at: 0, end: length, ways };
                        return leader.fill(body, start).await;
                    }
                    Err(error) => {
                        tracing::warn!(key = %want.key, %error, "answer is passed on without being stored");
                        if let Some(slide) = leader.pass_by(&record, 0) {
                            leader.pass_on(slide, Stream::new(response, 0)).await;
                            return Ok(());
                        }
                    }
                }
            }
            Some(_) => tracing::debug!(key = %want.key, "the end of the answer is not marked"),
            None => tracing::debug!(key = %want.key, "answer varies on everything"),
        }
    }
    let is_personal = matches!(
        storable,
        Storable::No(
            NotStorable::Private | NotStorable::Authorization | NotStorable::SetCookie | NotStorable::RequestNoStore
        )
    );
    if status.is_server_error() && !is_personal {
        return share(leader, response).await;
    }
    if !of_the_request(&storable) && (status.is_success() || status.is_redirection()) {
        inner.unshared.insert(want.key.hash(), ());
    }
    permit.publish(Head::NotShared);
    // The leader's client may have gone: then the answer is dropped, and with it the connection.
    let _ = exclusive.send(response);
    Ok(())
}

/// Only what lies in the resource is remembered of it. A refused token or a wish of one client says nothing about what
/// others get.
fn of_the_request(storable: &Storable) -> bool {
    matches!(storable, Storable::No(NotStorable::Authorization | NotStorable::RequestNoStore))
}

/// Gives a failure of the origin to everybody who waited, so that they do not all ask a failing origin again. A body
/// that is long, slow or cut is left out.
async fn share(leader: &Leader<'_>, mut response: FetchResponse) -> Result<(), FillError> {
    let body = match timeout_at(leader.want.deadline, short_body(&mut response)).await {
        Ok(Some(body)) => body,
        Ok(None) | Err(_) => {
            response.headers.remove(CONTENT_ENCODING);
            Bytes::new()
        }
    };
    if leader.want.policy.set_cookie == SetCookie::Strip {
        response.headers.remove(SET_COOKIE);
    }
    let answer = Answer { status: response.status, headers: response.headers, body };
    leader.permit.publish(Head::Answer(Arc::new(answer)));
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

/// What is known of the response that `response` is, or is a part of; `None` when it varies on everything.
pub(super) fn record_of(
    want: &Want,
    response: &FetchResponse,
    length: Option<u64>,
    status: StatusCode,
) -> Option<Record> {
    let vary = decide::selecting_fields(&response.headers, &want.headers, &want.policy).ok()?;
    let mut headers = response.headers.clone();
    if !headers.contains_key(DATE) {
        // RFC 9110 section 6.6.1: a recipient with a clock adds the time of reception.
        let date = httpdate::fmt_http_date(response.response_time.to_system_time());
        headers.extend(HeaderValue::try_from(date).ok().map(|date| (DATE, date)));
    }
    if want.policy.set_cookie == SetCookie::Strip {
        headers.remove(SET_COOKIE);
    }
    // It is that of one message (RFC 9530 section 2). Of a whole it is that of the representation, too.
    let of_content = decide::content_digest(&headers).filter(|_| response.status == StatusCode::OK);
    if response.status == StatusCode::PARTIAL_CONTENT {
        headers.remove("content-digest");
    }
    let claimed = decide::repr_digest(&headers).or(of_content).map(ExpectedDigest::Upstream);
    Some(Record {
        key: want.key.clone(),
        status,
        headers,
        request_time: response.request_time,
        response_time: response.response_time,
        vary,
        length,
        // The operator's word counts more than the source's. Of an error neither says anything.
        expected: want.rule_digest().filter(|_| status == StatusCode::OK).or(claimed),
        token_protected: want.carries_token,
        // The store names the partial itself.
        body: BodyRef::Partial(PartialId(0)),
    })
}
