//! Answers of upstream that go to one client alone: which of them may leave, and their head as it leaves us. Bodies that
//! have to be looked at before are in `gather`.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_RANGE, HeaderValue, IF_RANGE, RANGE};
use http::{Method, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::ask::Ask;
use super::body::Segment;
use super::deliver::is_shielded;
use super::gather::{Checked, Gathered, LONGEST_GATHERED, Told, counted, gather, note_mismatch};
use super::handler::Handler;
use super::outcome::{Outcome, Passed, Reply};
use super::rescue;
use super::verify::WORTH_WAITING;
use super::version::passed_version;
use crate::content::AnyDigest;
use crate::decide::{self, CacheStatus, FwdReason};
use crate::fill::{Answerable, PassedFraming, PassedThrough, Through};
use crate::store::Gift;
use crate::telemetry::RequestResult;

/// How a body is passed on.
enum Manner {
    AsItComes,
    /// With its end held back until it has this digest. Its begin has come already.
    Checked(AnyDigest, Bytes, Box<Answerable>),
    /// All of it has come.
    Gathered(Bytes),
}

impl Handler {
    /// Passes a GET or HEAD on for this client alone.
    pub(super) async fn pass_through(&self, ask: &Ask, reason: FwdReason) -> Outcome {
        let want = ask.want(None, None);
        match self.fill.pass(&want, ask.method.clone(), None).await {
            Ok(response) => self.pass(ask, response, reason).await,
            Err(error) => rescue::failed(&error, Some(reason)),
        }
    }

    /// Passes an answer to a GET or HEAD on.
    pub(super) async fn pass(&self, ask: &Ask, response: PassedThrough, reason: FwdReason) -> Outcome {
        let answered = response.status;
        self.pass_if_right(ask, response, reason).await.after(reason, Some(answered))
    }

    async fn pass_if_right(&self, ask: &Ask, mut response: PassedThrough, reason: FwdReason) -> Outcome {
        if let Some(refused) = refusal(ask, &response) {
            return refused;
        }
        let manner = match self.manner(ask, &mut response).await {
            Ok(manner) => manner,
            Err(refused) => return refused,
        };
        match self.release_passed(ask, &response).await {
            Ok(gift) => {
                let told = Told::of(self, ask);
                released(ask, response, reason, gift, |through| match manner {
                    Manner::AsItComes => Segment::Through(Box::new(through)),
                    Manner::Checked(expected, begin, answerable) => {
                        Segment::Checked(Box::new(Checked::new(through, begin, expected, told, answerable)))
                    }
                    Manner::Gathered(bytes) => Segment::Bytes(bytes),
                })
            }
            Err(refused) => refused,
        }
    }

    fn answerable(&self, ask: &Ask, expected: AnyDigest, response: &PassedThrough) -> Box<Answerable> {
        let rule = ask.rule_digest().filter(|rule| AnyDigest::from(*rule) == expected);
        Box::new(self.fill.answerable(&ask.content.key, rule, response))
    }

    /// How the body leaves: one whose digest is known is verified first if it is short, else its end waits. An agent aborts
    /// when a body without length is cut, so it gets one only when all of it is there.
    ///
    /// # Errors
    /// The answer in its place, when it must not leave.
    async fn manner(&self, ask: &Ask, response: &mut PassedThrough) -> Result<Manner, Outcome> {
        if ask.method != Method::GET {
            return Ok(Manner::AsItComes);
        }
        let (expected, length) = (expected(ask, response), length_of(response));
        let needs_length = length.is_none() && ask.is_agent();
        let is_short = length.is_some_and(|length| length <= LONGEST_GATHERED);
        let places = Arc::clone(&self.gathered);
        let (place, until) = match expected {
            _ if needs_length => {
                let place = timeout_at(ask.deadline, places.acquire_owned()).await;
                (place.ok().and_then(Result::ok), ask.deadline)
            }
            None => return Ok(Manner::AsItComes),
            Some(_) if !is_short => (None, ask.deadline),
            Some(_) => (places.try_acquire_owned().ok(), ask.deadline.min(Instant::now() + WORTH_WAITING)),
        };
        let (bytes, ended) = match place {
            Some(place) => {
                let (bytes, ended) = gather(&mut response.body, until).await;
                (counted(bytes, place), ended)
            }
            None => (Bytes::new(), Gathered::More),
        };
        match (ended, expected) {
            (Gathered::Whole, Some(expected)) if !expected.is_of(&bytes) => {
                note_mismatch(&ask.content.key, expected, &self.answerable(ask, expected, response));
                Err(rescue::unavailable("wrong-digest"))
            }
            // A part has a length that nothing but its range tells.
            (Gathered::Whole, _) if length.is_some_and(|length| length != bytes.len() as u64) => {
                Err(rescue::unavailable("bad-answer"))
            }
            (Gathered::Whole, _) => {
                response.framing = PassedFraming::Length(bytes.len() as u64);
                Ok(Manner::Gathered(bytes))
            }
            (Gathered::More, Some(expected)) if !needs_length => {
                Ok(Manner::Checked(expected, bytes, self.answerable(ask, expected, response)))
            }
            (Gathered::More, _) => {
                tracing::warn!(
                    key = %ask.content.key,
                    "an agent cannot be passed an answer without a length that is long or slow; let its origin send Content-Length, or let it be stored"
                );
                Err(rescue::unavailable("length-unknown"))
            }
            (Gathered::Broken, _) => Err(rescue::unavailable("upstream-cut")),
        }
    }
}

/// What the body must hash to: the operator's word counts more than the source's. Of a part only the digest of the message
/// itself tells (RFC 9530 section 2).
fn expected(ask: &Ask, response: &PassedThrough) -> Option<AnyDigest> {
    let of_content = || decide::content_digest(&response.headers);
    match passed_version(response)?.1 {
        true => {
            let rule = ask.rule_digest().map(AnyDigest::from);
            rule.or_else(|| decide::repr_digest(&response.headers)).or_else(of_content)
        }
        false => of_content(),
    }
}

/// Bytes of the body, as far as its head tells.
fn length_of(response: &PassedThrough) -> Option<u64> {
    match response.framing {
        PassedFraming::Empty => Some(0),
        PassedFraming::Length(length) => Some(length),
        // A part tells its length all the same; another one is cut.
        PassedFraming::Chunked | PassedFraming::UntilClose => response.content_range?.range().map(|range| range.len()),
    }
}

/// Passes `response` on, or says why not.
pub(super) fn through(ask: &Ask, response: PassedThrough, reason: FwdReason) -> Outcome {
    match refusal(ask, &response) {
        Some(refused) => refused.after(reason, Some(response.status)),
        None => released(ask, response, reason, None, |through| Segment::Through(Box::new(through))),
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
    // place of that by whoever does not look at `Content-Range`; and so would the frames around several parts.
    let is_unasked = response.status == StatusCode::PARTIAL_CONTENT
        && match response.content_range {
            Some(part) => part.range().is_none_or(|range| !decide::is_asked_for(&ask.headers, range, part.total)),
            None => !ask.headers.contains_key(RANGE) || decide::is_for_one_range(&ask.headers),
        };
    is_unasked.then(|| rescue::unavailable("unasked-range"))
}

/// An answer that may reach the client, its body as `body` has it. The gift is told how it ended.
fn released(
    ask: &Ask,
    response: PassedThrough,
    reason: FwdReason,
    gift: Option<Gift>,
    body: impl FnOnce(Through) -> Segment,
) -> Outcome {
    let head = ask.method == Method::HEAD;
    let length = if head { response.head_length } else { length_of(&response) };
    let mut headers = response.headers;
    if let Some(range) = response.content_range {
        let total = range.total.map_or_else(|| "*".to_owned(), |total| total.to_string());
        if let Ok(value) = HeaderValue::from_str(&format!("bytes {}-{}/{total}", range.first, range.last)) {
            headers.insert(CONTENT_RANGE, value);
        }
    }
    let status = CacheStatus::forwarded(reason, Some(response.status.as_u16()));
    let segments = (!head && length != Some(0)).then(|| body(response.body)).into_iter().collect();
    let passed = Passed { status: response.status, headers, segments, length, gift };
    Outcome { reply: Reply::Through(Box::new(passed)), result: RequestResult::Bypass, status }
}
