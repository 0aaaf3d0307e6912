//! Answers of upstream that go to one client alone: their head as it leaves us, their body as it comes.

use http::header::{CONTENT_RANGE, HeaderValue, IF_RANGE, RANGE};
use http::{Method, StatusCode};

use super::ask::Ask;
use super::deliver::is_shielded;
use super::outcome::{Outcome, Reply};
use super::rescue;
use crate::decide::{CacheStatus, FwdReason};
use crate::fill::{PassedFraming, PassedThrough};
use crate::telemetry::RequestResult;

/// Passes `response` on.
pub(super) fn through(ask: &Ask, response: PassedThrough, reason: FwdReason) -> Outcome {
    if is_shielded(ask, response.status) {
        return rescue::unavailable("shielded");
    }
    let asks_range = ask.headers.contains_key(RANGE) && !ask.headers.contains_key(IF_RANGE);
    let unfit = match response.status {
        StatusCode::OK => asks_range && ask.method == Method::GET,
        status => status == StatusCode::RANGE_NOT_SATISFIABLE,
    };
    // An agent appends whatever comes to what it has, and avoids the cache after any 4xx.
    if unfit && ask.is_agent() {
        return rescue::unavailable("range-not-honoured");
    }
    // A 206 to a request without `Range` would be taken for the whole, a 101 for a tunnel.
    if response.status == StatusCode::PARTIAL_CONTENT && !ask.headers.contains_key(RANGE) {
        return rescue::unavailable("unasked-range");
    }
    let mut headers = response.headers;
    if let Some(range) = response.content_range {
        let total = range.total.map_or_else(|| "*".to_owned(), |total| total.to_string());
        if let Ok(value) = HeaderValue::from_str(&format!("bytes {}-{}/{total}", range.first, range.last)) {
            headers.insert(CONTENT_RANGE, value);
        }
    }
    let head = ask.method == Method::HEAD;
    let length = match response.framing {
        PassedFraming::Empty if head => response.head_length,
        PassedFraming::Empty => Some(0),
        PassedFraming::Length(length) => Some(length),
        PassedFraming::Chunked | PassedFraming::UntilClose => None,
    };
    let status = CacheStatus::forwarded(reason, Some(response.status.as_u16()));
    let through = (!head && length != Some(0)).then(|| Box::new(response.body));
    Outcome {
        reply: Reply::Through { status: response.status, headers, through, length },
        result: RequestResult::Bypass,
        status,
    }
}
