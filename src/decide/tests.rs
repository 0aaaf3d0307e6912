//! Samples for the tests of this module.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::content::{BodyRef, CacheKey, Digest, Record, UnixMillis};

/// These fields, in order.
pub(super) fn fields(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

/// A 200 that was received at `seconds` after the epoch, at once.
pub(super) fn record(seconds: u64, with: &[(&str, &str)]) -> Record {
    Record {
        key: CacheKey::new("a.example/x"),
        status: StatusCode::OK,
        headers: fields(with),
        request_time: UnixMillis::from_secs(seconds),
        response_time: UnixMillis::from_secs(seconds),
        vary: Vec::new(),
        length: Some(3),
        expected: None,
        token_protected: false,
        body: BodyRef::Blob(Digest::of(b"abc")),
    }
}
