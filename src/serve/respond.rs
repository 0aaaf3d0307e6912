//! Renders an [`Outcome`] as an HTTP response: status, fields, body. The only place where answers get header fields.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, AGE, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE,
    CONTENT_TYPE, DATE, ETAG, EXPIRES, LAST_MODIFIED, RETRY_AFTER, VARY, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::body::SegmentBody;
use super::outcome::{Outcome, Part, Reply, Stored};
use crate::content::{AnyDigest, BodyRef, Digest, Record};
use crate::decide::{CacheStatus, own_digest, verified_sha_512};

pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// Fields of a 304 (RFC 9110 section 15.4.5), with the one that takes the place of two of them (RFC 9213).
const NOT_MODIFIED_FIELDS: [HeaderName; 8] = [
    CACHE_CONTROL,
    HeaderName::from_static("cdn-cache-control"),
    CONTENT_LOCATION,
    DATE,
    ETAG,
    EXPIRES,
    LAST_MODIFIED,
    VARY,
];

/// Fields that describe the bytes of one message, and are wrong on a part of them (RFC 9530 section 2).
const OF_THE_WHOLE: [HeaderName; 2] = [CONTENT_DIGEST, HeaderName::from_static("content-md5")];

/// Renders `outcome` under our `pseudonym`. `head`: the request's method is HEAD.
pub(super) fn respond(outcome: Outcome, pseudonym: &str, head: bool) -> Response<SegmentBody> {
    let status_field = outcome.status;
    let mut response = match outcome.reply {
        Reply::Stored(stored) => return from_store(*stored, &status_field, pseudonym, head),
        Reply::NotModified { entry, age } => {
            let stored = entry.head.get_or_init(|| prepared_fields(&entry.record, pseudonym));
            let mut headers = HeaderMap::new();
            for name in NOT_MODIFIED_FIELDS {
                for value in stored.get_all(&name) {
                    headers.append(name.clone(), value.clone());
                }
            }
            // What caches before this one did stays in its place (RFC 9211 section 2).
            for members in entry.record.headers.get_all(CACHE_STATUS) {
                headers.append(CACHE_STATUS, members.clone());
            }
            headers.insert(AGE, HeaderValue::from(age));
            with(StatusCode::NOT_MODIFIED, headers, None, SegmentBody::empty())
        }
        Reply::PreconditionFailed => empty(StatusCode::PRECONDITION_FAILED),
        Reply::Unsatisfiable { length } => {
            let mut response = empty(StatusCode::RANGE_NOT_SATISFIABLE);
            insert(response.headers_mut(), CONTENT_RANGE, &format!("bytes */{length}"));
            response
        }
        Reply::Answer(answer) => {
            let length = answer.body.len() as u64;
            let body = if head { SegmentBody::empty() } else { SegmentBody::bytes(answer.body.clone()) };
            with(answer.status, answer.headers.clone(), Some(length), body)
        }
        Reply::Through(passed) => {
            let body = SegmentBody::new(passed.segments, if head { Some(0) } else { passed.length });
            with(passed.status, passed.headers, passed.length, body)
        }
        // Neither Content-Length nor Transfer-Encoding (RFC 9110 section 9.3.6).
        Reply::Tunnel => with(StatusCode::OK, HeaderMap::new(), None, SegmentBody::empty()),
        Reply::Own { status, reason, allow } => {
            let mut response = own(status, reason, allow, head);
            if status == StatusCode::BAD_REQUEST {
                // Who cannot write a request may mean another end of it, too.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
        Reply::Unavailable { retry_after } => {
            let mut response = empty(StatusCode::SERVICE_UNAVAILABLE);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after));
            response
        }
    };
    mark(response.headers_mut(), &status_field, pseudonym);
    response
}

fn from_store(stored: Stored, cache_status: &CacheStatus, pseudonym: &str, is_head: bool) -> Response<SegmentBody> {
    let Stored { entry, part, length, body, age, digests, .. } = stored;
    let head = entry.head.get_or_init(|| prepared_fields(&entry.record, pseudonym));
    let mut headers = fields_now(head, &entry.record, age, cache_status, pseudonym);
    let mut status = entry.record.status;
    let sent = match &part {
        Part::Whole => length,
        Part::Range(range) => {
            status = StatusCode::PARTIAL_CONTENT;
            let total = length.map_or_else(|| "*".to_owned(), |length| length.to_string());
            insert(&mut headers, CONTENT_RANGE, &format!("bytes {}-{}/{total}", range.start(), range.last()));
            Some(range.len())
        }
        Part::Multipart { boundary, length } => {
            status = StatusCode::PARTIAL_CONTENT;
            insert(&mut headers, CONTENT_TYPE, &format!("multipart/byteranges; boundary={boundary}"));
            // Each part has its own.
            headers.remove(CONTENT_RANGE);
            Some(*length)
        }
    };
    if part != Part::Whole {
        for name in OF_THE_WHOLE {
            headers.remove(name);
        }
    }
    if digests.no_sha_256 {
        headers.remove(REPR_DIGEST);
        if let Some(digest) = verified_sha_512(&entry.record) {
            insert(&mut headers, REPR_DIGEST, &digest.to_member());
        }
    }
    if let Some(digest) = digests.content {
        insert(&mut headers, CONTENT_DIGEST, &digest.to_member());
    }
    if sent.is_none() || is_bodiless(status) {
        headers.remove(CONTENT_LENGTH);
    }
    let body = if is_head { SegmentBody::empty() } else { body };
    with(status, headers, sent, body)
}

/// The fields of an answer from `prepared`: with its age in seconds and what the cache did.
pub fn fields_now(
    prepared: &HeaderMap,
    record: &Record,
    age: u64,
    cache_status: &CacheStatus,
    pseudonym: &str,
) -> HeaderMap {
    let mut headers = prepared.clone();
    headers.insert(AGE, HeaderValue::from(age));
    if let Ok(value) = HeaderValue::try_from(cache_status.render(pseudonym)) {
        // Of several lines the last is ours. A single one takes the place of the prepared one, so without new memory.
        if record.headers.contains_key(CACHE_STATUS) {
            headers.append(CACHE_STATUS, value);
        } else {
            headers.insert(CACHE_STATUS, value);
        }
    }
    headers
}

/// The fields of a stored response that are the same in each answer, and room for those that are not.
pub fn prepared_fields(record: &Record, pseudonym: &str) -> HeaderMap {
    let mut headers = record.headers.clone();
    add_via(&mut headers, pseudonym);
    headers.insert(AGE, HeaderValue::from_static("0"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    if !headers.contains_key(CACHE_STATUS) {
        headers.insert(CACHE_STATUS, HeaderValue::from_static(""));
    }
    if record.status == StatusCode::OK {
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    if !headers.contains_key(DATE) {
        insert(&mut headers, DATE, &httpdate::fmt_http_date(record.response_time.to_system_time()));
    }
    add_own_validator(record, &mut headers);
    // Until then what the source claims is passed on as it came.
    if let Some(digest) = own_digest(record) {
        let members = [Some(digest.into()), verified_sha_512(record)].into_iter().flatten();
        let members: Vec<_> = members.map(|digest: AnyDigest| digest.to_member()).collect();
        insert(&mut headers, REPR_DIGEST, &members.join(", "));
    }
    headers
}

/// A strong entity tag from the digest when the origin gave none: equal tags are equal bytes.
pub(super) fn own_entity_tag(record: &Record) -> Option<HeaderValue> {
    match record.body {
        BodyRef::Blob(digest) if record.status == StatusCode::OK && !record.headers.contains_key(ETAG) => tag(&digest),
        _ => None,
    }
}

fn tag(digest: &Digest) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("\"sha256-{digest}\"")).ok()
}

fn add_own_validator(record: &Record, headers: &mut HeaderMap) {
    if let Some(tag) = own_entity_tag(record) {
        headers.insert(ETAG, tag);
    }
}

fn own(status: StatusCode, reason: String, allow: Option<String>, head: bool) -> Response<SegmentBody> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(allow) = allow {
        insert(&mut headers, ALLOW, &allow);
    }
    let text = Bytes::from(format!("{reason}\n"));
    let length = text.len() as u64;
    let body = if head { SegmentBody::empty() } else { SegmentBody::bytes(text) };
    with(status, headers, Some(length), body)
}

fn empty(status: StatusCode) -> Response<SegmentBody> {
    with(status, HeaderMap::new(), Some(0), SegmentBody::empty())
}

fn with(status: StatusCode, headers: HeaderMap, length: Option<u64>, body: SegmentBody) -> Response<SegmentBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if let Some(length) = length.filter(|_| !is_bodiless(status)) {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

/// Answers of these have no content, and so no length (RFC 9110 section 8.6).
fn is_bodiless(status: StatusCode) -> bool {
    status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

fn mark(headers: &mut HeaderMap, status: &CacheStatus, pseudonym: &str) {
    if let Ok(value) = HeaderValue::try_from(status.render(pseudonym)) {
        headers.append(CACHE_STATUS, value);
    }
    add_via(headers, pseudonym);
}

fn add_via(headers: &mut HeaderMap, pseudonym: &str) {
    if let Ok(value) = HeaderValue::try_from(format!("1.1 {pseudonym}")) {
        headers.append(VIA, value);
    }
}

/// Inserts a value that is made of ASCII text by construction; anything else is left out.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The client's view of a record: with the entity tag that we gave it, so that its conditions can be judged.
pub(super) fn as_sent(record: &Arc<crate::store::Entry>) -> std::borrow::Cow<'_, Record> {
    match own_entity_tag(&record.record) {
        Some(tag) => {
            let mut copy = record.record.clone();
            copy.headers.insert(ETAG, tag);
            std::borrow::Cow::Owned(copy)
        }
        None => std::borrow::Cow::Borrowed(&record.record),
    }
}
