//! Content that is known by its digest before it comes. When it is stored already, under whatever URL, it is given under
//! this one without a transfer: on the word of a trusted parent, of the operator's digest rule or of a verified manifest, and
//! nobody else's. When no source of the URL can give it, content with a rule may come from the store, or by its digest from
//! a trusted parent, which may have it under another URL.

use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::answer::record_of;
use super::copy::{Copying, Start, Ways};
use super::lead::Leader;
use super::stream::Stream;
use crate::clock;
use crate::content::{AuthParameters, BodyRef, Digest, ExpectedDigest, Record, UnixMillis};
use crate::decide;
use crate::store::{FirstBytes, PartialWriter};
use crate::upstream::{FetchResponse, Framing};

/// The rest of an answer that is not needed is read up to so many bytes, for the sake of its connection.
const READ_FOR_NOTHING: u64 = 64 * 1024;
/// Time that may take.
const READING: Duration = Duration::from_secs(1);

/// What is taken over from a response of another URL. The rest, validators and freshness among it, is of that URL.
const OF_CONTENT: [HeaderName; 1] = [CONTENT_TYPE];

/// Gives `response`, whose head is `record`, back if its body has to be transferred. If it is stored already by the word of
/// somebody who may say so, it has its place under this key then, and everybody who waits is told.
pub(super) async fn unless_stored(
    leader: &Leader<'_>,
    record: &Record,
    response: FetchResponse,
) -> Option<FetchResponse> {
    let Leader { inner, want, permit } = leader;
    let is_shared = record.status == StatusCode::OK && !permit.is_parted();
    let Some(digest) = said(record, &response).filter(|_| is_shared) else { return Some(response) };
    let Some(entry) = inner.store.link(record.clone(), digest).await else { return Some(response) };
    tracing::info!(key = %want.key, %digest, "the content is stored already under another URL, and is not transferred");
    leader.count("known");
    permit.publish_stored(&inner.store, entry);
    tokio::spawn(response.body.discard(READ_FOR_NOTHING, Instant::now() + READING));
    None
}

/// What the content hashes to, by the word of somebody who may say so.
fn said(record: &Record, response: &FetchResponse) -> Option<Digest> {
    match record.expected {
        // They say it of the bytes without a coding.
        Some(ExpectedDigest::Rule(digest) | ExpectedDigest::Manifest(digest)) => {
            (!response.headers.contains_key(CONTENT_ENCODING)).then_some(digest)
        }
        Some(ExpectedDigest::Upstream(_)) | None if response.source.trusted => decide::said_digest(&response.headers),
        Some(ExpectedDigest::Upstream(_)) | None => None,
    }
}

/// Gets content that no source of the URL gives by the digest that the operator tells of it: from the store, or from a trusted
/// parent. Who shows credentials is not answered so: whether they are good only the source of the URL can tell.
/// So it is where the URL's content is protected, and after a refusal, which may be that of the origin.
pub(super) async fn stands_in(leader: &Leader<'_>, is_refused: bool) -> bool {
    let Leader { inner, want, permit } = leader;
    let is_personal = want.carries_token || want.headers.contains_key(AUTHORIZATION);
    let is_protected = want.policy.auth_parameters != AuthParameters::None || is_refused;
    let rule = want.rule_digest().filter(|_| !is_personal && !is_protected);
    let Some(digest) = rule.and_then(|expected| expected.digest().sha_256()) else {
        return false;
    };
    // What is stored whole, and may be stale, is served without all this, unless the rule refuses it.
    let is_whole = |record: &Record| {
        record.status == StatusCode::OK && matches!(record.body, BodyRef::Blob(_)) && !want.refuses(record)
    };
    if permit.is_parted() || want.stored.as_ref().is_some_and(|stored| is_whole(&stored.record)) {
        return false;
    }
    if is_linked(leader, digest).await {
        return true;
    }
    let key = want.key.hash();
    if !want.policy.parents || !inner.upstream.asks_by_digest() || inner.not_by_digest.contains_key(&key) {
        return false;
    }
    let writer = begun(leader, digest).await;
    let from = writer.as_ref().map_or(0, |writer| writer.contiguous());
    let deadline = Instant::now() + inner.upstream.settings().timeouts.request;
    match inner.upstream.fetch_by_digest(digest, from, deadline).await {
        Some(response) => takes(leader, response, from, writer).await,
        None => {
            inner.not_by_digest.insert(key, ());
            false
        }
    }
}

/// Gives stored content that anybody may have a place under this key.
async fn is_linked(leader: &Leader<'_>, digest: Digest) -> bool {
    let Leader { inner, want, permit } = leader;
    let Some(stored) = inner.store.shared_by_digest(digest, decide::is_for_anybody).await else { return false };
    if stored.record.headers.contains_key(CONTENT_ENCODING) {
        return false;
    }
    let now = UnixMillis::from(clock::now());
    let record = Record {
        key: want.key.clone(),
        headers: of_content(&stored.record.headers),
        request_time: now,
        response_time: now,
        vary: Vec::new(),
        expected: want.rule_digest(),
        ..stored.record.clone()
    };
    let Some(entry) = inner.store.link(record, digest).await else { return false };
    tracing::info!(key = %want.key, %digest, "no source gives the content; it is stored under another URL");
    leader.count("known");
    permit.publish_stored(&inner.store, entry);
    true
}

/// What is stored in part and is to become the content.
async fn begun(leader: &Leader<'_>, digest: Digest) -> Option<PartialWriter> {
    let stored = leader.want.stored.as_ref()?;
    let record = &stored.record;
    let is_it =
        matches!(record.body, BodyRef::Partial(_)) && record.expected.map(|e| e.digest()) == Some(digest.into());
    if !is_it {
        return None;
    }
    leader.inner.store.resume_part(stored, leader.room(record.length)).await
}

/// Takes the answer of a parent that was asked by digest for the bytes after `from`, of which those before are written.
async fn takes(leader: &Leader<'_>, mut response: FetchResponse, from: u64, writer: Option<PartialWriter>) -> bool {
    let Leader { inner, want, permit } = leader;
    let (at, length) = match (response.status, response.content_range, response.framing) {
        (StatusCode::OK, _, Framing::Length(length)) => (0, length),
        (StatusCode::PARTIAL_CONTENT, Some(part), _)
            if part.first == from && part.total == part.last.checked_add(1) =>
        {
            (from, part.last + 1)
        }
        _ => return false,
    };
    if response.headers.contains_key(CONTENT_ENCODING) {
        return false;
    }
    permit.answered(response.status);
    response.headers = of_content(&response.headers);
    let fitting = writer.filter(|writer| writer.entry().record.length.is_none_or(|known| known == length));
    let writer = match fitting {
        Some(writer) => writer,
        None if at > 0 => return false,
        None => {
            let Some(record) = record_of(want, &response, Some(length), StatusCode::OK) else { return false };
            match inner.store.begin(record, leader.room(Some(length)), FirstBytes::default()).await {
                Ok(body) => permit.show(body),
                Err(error) => {
                    tracing::warn!(key = %want.key, %error, "content cannot be stored, and is not asked for by digest");
                    return false;
                }
            }
        }
    };
    tracing::info!(key = %want.key, source = %response.source, from = at, "no source of the URL gives the content; a parent has it by its digest");
    leader.publish(Arc::clone(writer.entry()), &writer);
    // Only the digest tells that what comes is what is there; and what is there is compared with it.
    let start = Start { stream: Stream::new(response, at), at, end: Some(length), ways: Ways::Again };
    let copying = Copying::new(inner, want, writer, Ways::Again);
    // It is told by the body from here on, as any fill's end is.
    leader.copy(copying.begin(start)).await.is_ok()
}

fn of_content(headers: &HeaderMap) -> HeaderMap {
    let kept = OF_CONTENT.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone())));
    kept.collect()
}
