//! What several fuzz targets need: header fields, records and requests out of bytes.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use waystation::content::{BodyRef, CacheKey, Digest, Policy, Record, UnixMillis};

/// Fields from lines of `name: value`; what `http` does not take is left out. A line that begins with a digit stands
/// for a field of `names`, so that the fuzzer need not guess them.
pub fn fields(text: &[u8], names: &[&'static str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let (name, value) = match line.split_first() {
            Some((digit @ b'0'..=b'9', value)) => match names.get(usize::from(digit - b'0')) {
                Some(name) => (HeaderName::from_static(name), value),
                None => continue,
            },
            _ => {
                let mut halves = line.splitn(2, |byte| *byte == b':');
                match (halves.next().map(HeaderName::from_bytes), halves.next()) {
                    (Some(Ok(name)), Some(value)) => (name, value),
                    _ => continue,
                }
            }
        };
        if let Ok(value) = HeaderValue::from_bytes(value.trim_ascii()) {
            headers.append(name, value);
        }
    }
    headers
}

/// A stored response with these fields, received one second after it was asked for.
pub fn record(headers: HeaderMap, length: Option<u64>) -> Record {
    Record {
        key: CacheKey::new("http://origin.example/a"),
        status: StatusCode::OK,
        headers,
        request_time: UnixMillis(1_700_000_000_000),
        response_time: UnixMillis(1_700_000_001_000),
        vary: Vec::new(),
        length,
        expected: None,
        token_protected: false,
        body: BodyRef::Blob(Digest::of(b"")),
    }
}

/// The time of `seconds` after the records above were received.
pub fn later(seconds: u32) -> UnixMillis {
    UnixMillis(1_700_000_001_000).plus(Duration::from_secs(seconds.into()))
}

/// A policy with the defaults.
pub fn policy() -> Policy {
    Policy::for_host("origin.example")
}

/// One of the methods that a cache treats differently.
pub fn method(byte: u8) -> Method {
    [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS][usize::from(byte % 4)].clone()
}

/// Two parts of an input: before and behind the first empty line.
pub fn halves(bytes: &[u8]) -> (&[u8], &[u8]) {
    let cut = bytes.windows(2).position(|pair| pair == b"\n\n");
    cut.map_or((bytes, &[]), |cut| (&bytes[..cut], &bytes[cut + 2..]))
}
