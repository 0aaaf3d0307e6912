//! Answers of upstream that go to one client alone: their head as it leaves us, their body as it comes.

use http::header::{CONTENT_RANGE, HeaderValue, IF_RANGE, RANGE};
use http::{Method, StatusCode};

use super::ask::Ask;
use super::body::Segment;
use super::deliver::is_shielded;
use super::handler::Handler;
use super::outcome::{Outcome, Passed, Reply};
use super::rescue;
use crate::decide::{self, CacheStatus, FwdReason};
use crate::fill::{PassedFraming, PassedThrough};
use crate::store::Gift;
use crate::telemetry::RequestResult;

impl Handler {
    /// Passes a GET or HEAD on for this client alone.
    pub(super) async fn pass_through(&self, ask: &Ask, reason: FwdReason) -> Outcome {
        let want = ask.want(None, None);
        match self.fill.pass(&want, ask.method.clone(), None).await {
            Ok(response) => self.pass(ask, response, reason).await,
            Err(error) => rescue::failed(&error),
        }
    }

    /// Passes an answer to a GET or HEAD on.
    pub(super) async fn pass(&self, ask: &Ask, response: PassedThrough, reason: FwdReason) -> Outcome {
        if let Some(refused) = refusal(ask, &response) {
            return refused;
        }
        match self.release_passed(ask, &response).await {
            Ok(gift) => released(ask, response, reason, gift),
            Err(outcome) => outcome,
        }
    }
}

/// Passes `response` on, or says why not.
pub(super) fn through(ask: &Ask, response: PassedThrough, reason: FwdReason) -> Outcome {
    match refusal(ask, &response) {
        Some(refused) => refused,
        None => released(ask, response, reason, None),
    }
}

/// The answer in the place of one that must not reach this client.
pub(super) fn refusal(ask: &Ask, response: &PassedThrough) -> Option<Outcome> {
    if is_shielded(ask, response.status) {
        return Some(rescue::unavailable("shielded"));
    }
    let asks_range = ask.headers.contains_key(RANGE) && !ask.headers.contains_key(IF_RANGE);
    let unfit = match response.status {
        StatusCode::OK => asks_range && ask.method == Method::GET,
        status => status == StatusCode::RANGE_NOT_SATISFIABLE,
    };
    // An agent appends whatever comes to what it has, and avoids the cache after any 4xx.
    if unfit && ask.is_agent() {
        return Some(rescue::unavailable("range-not-honoured"));
    }
    // A 206 to a request without `Range` would be taken for the whole; another part than was asked for would be put in the
    // place of that by whoever does not look at `Content-Range`.
    let is_unasked = response.status == StatusCode::PARTIAL_CONTENT
        && match response.content_range {
            Some(part) => part.range().is_none_or(|range| !decide::is_asked_for(&ask.headers, range, part.total)),
            None => !ask.headers.contains_key(RANGE),
        };
    is_unasked.then(|| rescue::unavailable("unasked-range"))
}

/// An answer that may reach the client. The gift is told how it ended.
pub(super) fn released(ask: &Ask, response: PassedThrough, reason: FwdReason, gift: Option<Gift>) -> Outcome {
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
    let body = (!head && length != Some(0)).then(|| Segment::Through(Box::new(response.body)));
    let passed = Passed { status: response.status, headers, segments: body.into_iter().collect(), length, gift };
    Outcome { reply: Reply::Through(Box::new(passed)), result: RequestResult::Bypass, status }
}
