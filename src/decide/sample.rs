//! Sample responses, requests and policies for the tests of this module.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::content::{BodyRef, CacheKey, Digest, PathPatterns, Policy, Record, UnixMillis};

/// When sample responses were received.
pub(super) const RECEIVED: UnixMillis = UnixMillis(1_795_435_200_000);

/// The HTTP date of [`RECEIVED`] plus `seconds`.
pub(super) fn date(seconds: i64) -> String {
    httpdate::fmt_http_date(at(seconds).to_system_time())
}

/// `seconds` after sample responses were received.
pub(super) fn at(seconds: i64) -> UnixMillis {
    UnixMillis(RECEIVED.0.saturating_add_signed(seconds * 1000))
}

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    fields.iter().map(field).collect()
}

/// A response that took no time, with exactly these fields.
pub(super) fn record(status: u16, headers: &[(&'static str, &str)]) -> Record {
    Record {
        key: CacheKey::new("http://dl.example.com/a"),
        status: StatusCode::from_u16(status).unwrap(),
        headers: fields(headers),
        request_time: RECEIVED,
        response_time: RECEIVED,
        vary: Vec::new(),
        length: Some(1000),
        expected: None,
        token_protected: false,
        body: BodyRef::Blob(Digest::of(b"a")),
    }
}

/// The default rule, with `*.deb` as content that never changes.
pub(super) fn policy() -> Policy {
    let mut policy = Policy::for_host("dl.example.com");
    policy.freshness.immutable = PathPatterns::new(&["*.deb"]).unwrap();
    policy
}
