//! Delivers a stored or growing body: preconditions, ranges, the first bytes, then the rest as segments.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::ask::Ask;
use super::body::{Segment, SegmentBody};
use super::follow::{Follow, HELD_BACK, HeldEnd};
use super::gather::Told;
use super::handler::Handler;
use super::mend::Mender;
use super::outcome::{Outcome, Part, Reply, Stored};
use super::present::Reading;
use super::verify::{Verdict, verified_soon};
use super::{multipart, rescue, respond, wanted};
use crate::content::{ByteRange, RangeSet, Record};
use crate::decide::{self, CacheStatus, Freshness, FwdReason, Precondition, RangeOutcome};
use crate::fill::{Arriving, FlightGuard, Outlook};
use crate::store::{Body, Entry, Gift, Progress};
use crate::telemetry::RequestResult;

/// How long a fill goes on for a client that was told to come back.
const COMES_BACK: Duration = Duration::from_secs(30);

/// What became of a stored response.
pub(super) enum Delivery {
    Done(Outcome),
    /// It is gone or damaged.
    Unusable,
    /// It is a partial without some of the bytes asked for.
    Missing,
    /// It is not of the version that the client has a part of.
    OtherVersion,
}

/// Which part of a representation the client gets.
enum Selection {
    Whole,
    Range(ByteRange),
    Multiple(Vec<ByteRange>),
}

/// A body laid out as segments.
struct Layout {
    part: Part,
    segments: VecDeque<Segment>,
    /// Bytes that are sent, if the length is known.
    sent: Option<u64>,
}

/// Serves a stored response if all bytes asked for are there.
pub(super) async fn stored(
    handler: &Handler,
    ask: &Ask,
    entry: &Arc<Entry>,
    status: CacheStatus,
    result: RequestResult,
) -> Delivery {
    if let Some(outcome) = before_body(ask, entry, &status, result) {
        return Delivery::Done(outcome);
    }
    let reading = Reading { handler, ask, entry };
    let body = match reading.body().await {
        Ok(body) => body,
        Err(delivery) => return delivery,
    };
    let Some(length) = body.length() else { return Delivery::Missing };
    let selection = match select(handler, ask, entry, Some(length)) {
        RangeOutcome::Whole => Selection::Whole,
        RangeOutcome::Single(range) => Selection::Range(range),
        RangeOutcome::Multiple(ranges) => Selection::Multiple(ranges),
        RangeOutcome::NeedsLength => return Delivery::Missing,
        RangeOutcome::Unsatisfiable => return Delivery::Done(unsatisfiable(ask, length, status, result)),
    };
    let verified = match &body {
        Body::Partial(partial) if !partial.is_complete() => {
            hold(entry, Some(length)).map_or(length, |hold| hold.from(length))
        }
        _ => length,
    };
    if matches!(&body, Body::Partial(partial) if partial.is_unlike(entry.record.expected)) {
        return Delivery::Unusable;
    }
    let is_there = |range: &ByteRange| body.present_until(range.start()).min(verified) >= range.end();
    let ranges = selection.ranges(length);
    if !ranges.iter().all(is_there) {
        return Delivery::Missing;
    }
    let mut mender = Mender::for_ranges(handler, ask, entry, &body, &ranges);
    let mut layout = lay(entry, selection, Some(length), |start, end| of_stored(&body, start, end.unwrap_or(length)));
    if wanted::needs_bytes(ask, &entry.record, &layout.part, layout.sent)
        && let Err(delivery) = reading.all(&mut layout.segments, &mut mender).await
    {
        return delivery;
    }
    if let Err(delivery) = reading.first(&mut layout.segments, &mut mender).await {
        return delivery;
    }
    match handler.release(ask, entry, &layout.part, Some(length)).await {
        Ok(gift) => Delivery::Done(deliver(ask, entry, layout, Some(length), status, result, gift).mended(mender)),
        Err(other) => other,
    }
}

/// A body that is being filled, as a request meets it.
pub(super) struct Growing {
    pub(super) entry: Arc<Entry>,
    pub(super) body: Arriving,
    pub(super) guard: FlightGuard,
    /// Another request's flight is followed.
    pub(super) collapsed: bool,
    /// What was there when the request came.
    pub(super) found: RangeSet,
}

/// Serves a body that is being filled: waits for the first byte asked for until the deadline, then follows.
pub(super) async fn growing(handler: &Handler, ask: &Ask, growing: Growing, reason: FwdReason) -> Delivery {
    let Growing { entry, body, guard, collapsed, found } = growing;
    let entry = &entry;
    let answered = guard.answered().unwrap_or(entry.record.status);
    let ttl = Freshness::of(&entry.record, &ask.content.policy, ask.path(), ask.now).ttl();
    let status = CacheStatus::forwarded(reason, Some(answered.as_u16())).with_ttl(ttl);
    let status = status.stored_if(body.partial().is_some()).collapsed_if(collapsed);
    let result = if collapsed { RequestResult::Partial } else { RequestResult::Miss };
    if let Some(outcome) = before_body(ask, entry, &status, result) {
        return Delivery::Done(outcome);
    }
    let mut length = entry.record.length;
    let mut selection = select(handler, ask, entry, length);
    // An agent aborts when a body without length is cut, and a range needs the length too: both wait for the end.
    let needs_length = matches!(selection, RangeOutcome::NeedsLength) || (length.is_none() && ask.is_agent());
    if needs_length {
        length = match timeout_at(ask.deadline, body.wait(u64::MAX)).await {
            Ok(Progress::Ended(length)) => Some(length),
            Ok(Progress::Present(_) | Progress::Stopped) => return Delivery::Unusable,
            Err(_) => return Delivery::Done(come_back("length-unknown", body, guard)),
        };
        selection = select(handler, ask, entry, length);
    }
    let selection = match selection {
        RangeOutcome::Whole => Selection::Whole,
        RangeOutcome::Single(range) => Selection::Range(range),
        RangeOutcome::Multiple(ranges) => Selection::Multiple(ranges),
        RangeOutcome::NeedsLength => return Delivery::Done(rescue::unavailable("length-unknown")),
        RangeOutcome::Unsatisfiable => {
            return Delivery::Done(unsatisfiable(ask, length.unwrap_or(0), status, result));
        }
    };
    if !handler.continues(ask, entry, length).await {
        return Delivery::OtherVersion;
    }
    let hold = hold(entry, length);
    let ranges = selection.ranges(length.unwrap_or(u64::MAX));
    // The first one last: that is where the client begins.
    ranges.iter().rev().for_each(|range| guard.reads(*range, length));
    // The first byte that may leave must be there before the head leaves: until then there is a way back.
    let mut first = selection.first();
    if let Some(hold) = hold
        && ranges.iter().any(|range| range.end() > hold.from(range.end()))
    {
        guard.needs_whole();
        match verified_soon(&body, &guard, ask.deadline).await {
            // It was told wrong, and the digest knows better.
            Verdict::Verified(whole) if length.is_some_and(|told| told != whole) => return Delivery::Unusable,
            Verdict::Verified(whole) => length = Some(whole),
            Verdict::TooLong => {}
            Verdict::Stopped => return Delivery::Unusable,
        }
        first = match length {
            // Only with that many bytes behind it.
            None => first.saturating_add(HELD_BACK),
            Some(_) if first >= hold.from(first) => u64::MAX,
            Some(_) => first,
        };
    }
    match first_byte(handler, &body, first, &guard, ask.deadline).await {
        Some(Progress::Present(_) | Progress::Ended(_)) => {}
        Some(Progress::Stopped) => return Delivery::Unusable,
        None => return Delivery::Done(come_back("deadline", body, guard)),
    }
    if body.partial().is_some_and(|partial| partial.is_unlike(entry.record.expected)) {
        return Delivery::Unusable;
    }
    let guard = Arc::new(guard);
    let layout = lay(entry, selection, length, |start, end| {
        let follow = Follow::new(body.clone(), start, end, hold, ask.is_agent(), Arc::clone(&guard));
        Segment::Follow(Box::new(follow.telling(Told::of(handler, ask))))
    });
    // What another request pays for is as good as stored.
    let found = if collapsed { None } else { found_places(&layout.segments, &found) };
    let result = if found.is_some() { RequestResult::Partial } else { result };
    match handler.release(ask, entry, &layout.part, length).await {
        Ok(gift) => Delivery::Done(deliver(ask, entry, layout, length, status, result, gift).with_found(found)),
        Err(other) => other,
    }
}

/// The places of an answer at which bytes of a growing body are that were `found`, if there are any.
fn found_places(segments: &VecDeque<Segment>, found: &RangeSet) -> Option<Vec<ByteRange>> {
    let (mut places, mut at) = (Vec::new(), 0);
    for segment in segments {
        at += match segment {
            Segment::Follow(follow) => {
                let Some(range) = follow.range() else { continue };
                let present = found.iter().filter_map(|present| present.intersect(range));
                let start = |here: &ByteRange| here.start() - range.start() + at;
                places.extend(present.filter_map(|here| ByteRange::new(start(&here), start(&here) + here.len())));
                range.len()
            }
            Segment::Bytes(bytes) => bytes.len() as u64,
            // A growing body has no others.
            _ => 0,
        };
    }
    (!places.is_empty()).then_some(places)
}

/// Waits for the byte at `first` until the deadline, or until it is known that no source can bring it.
async fn first_byte(
    handler: &Handler,
    body: &Arriving,
    first: u64,
    guard: &FlightGuard,
    deadline: Instant,
) -> Option<Progress> {
    let mut outlook = guard.outlook();
    // What a source that is back since has not told the fill yet is no reason to turn a client away.
    let is_down = |outlook: &Outlook| outlook.down_after.is_some_and(|count| count >= handler.fill.comebacks());
    tokio::select! {
        biased;
        progress = body.wait(first) => Some(progress),
        _ = outlook.wait_for(is_down) => None,
        () = sleep_until(deadline) => None,
    }
}

/// What leaves only once the body has its expected digest.
fn hold(entry: &Entry, length: Option<u64>) -> Option<HeldEnd> {
    entry.record.expected?;
    Some(HeldEnd::of(length))
}

/// 503 while the fill goes on as if the client were there, so that it is further when the client comes back.
fn come_back(why: &'static str, body: Arriving, guard: FlightGuard) -> Outcome {
    tokio::spawn(async move {
        // However it ends, the client counts until then.
        let _ = timeout(COMES_BACK, body.wait(u64::MAX)).await;
        drop(guard);
    });
    rescue::unavailable(why)
}

/// 416, but not to an agent: it takes any 4xx for a reason to avoid the cache, and what it resumes is most likely
/// another version.
pub(super) fn unsatisfiable(ask: &Ask, length: u64, status: CacheStatus, result: RequestResult) -> Outcome {
    if ask.is_agent() {
        return rescue::unavailable("range-beyond-end");
    }
    Outcome { reply: Reply::Unsatisfiable { length }, result, status }
}

/// Answers HEAD from a record, also of a partial, with the full length.
pub(super) fn head_of(ask: &Ask, entry: &Arc<Entry>, status: CacheStatus, result: RequestResult) -> Outcome {
    if let Some(outcome) = before_body(ask, entry, &status, result) {
        return outcome;
    }
    let length = entry.record.length;
    let layout = Layout { part: Part::Whole, segments: VecDeque::new(), sent: length };
    deliver(ask, entry, layout, length, status, result, None)
}

/// What can be answered without looking at the body: shielded errors and preconditions (RFC 9110 section 13.2.2).
fn before_body(ask: &Ask, entry: &Arc<Entry>, status: &CacheStatus, result: RequestResult) -> Option<Outcome> {
    if is_shielded(ask, entry.record.status) {
        return Some(rescue::unavailable("shielded"));
    }
    let reply = match decide::preconditions(&ask.method, &ask.headers, &respond::as_sent(entry)) {
        Precondition::Proceed => return None,
        Precondition::NotModified => {
            Reply::NotModified { entry: Arc::clone(entry), age: decide::age(&entry.record, ask.now).as_secs() }
        }
        Precondition::Failed => Reply::PreconditionFailed,
    };
    Some(Outcome { reply, result, status: status.clone() })
}

/// Whether `status` must not reach this client: a Delivery Optimization agent bans the cache for a whole host after one
/// 4xx, and some paths of a package repository are absent by design.
pub(super) fn is_shielded(ask: &Ask, status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
        && ask.is_agent()
        && ask.content.policy.shield_client_errors.matches(ask.path())
}

fn select(handler: &Handler, ask: &Ask, entry: &Arc<Entry>, length: Option<u64>) -> RangeOutcome {
    let record: &Record = &entry.record;
    if ask.method != Method::GET || record.status != StatusCode::OK {
        return RangeOutcome::Whole;
    }
    decide::ranges(&ask.headers, &respond::as_sent(entry), length, handler.settings.limits.ranges)
}

impl Selection {
    fn ranges(&self, length: u64) -> Vec<ByteRange> {
        match self {
            Self::Whole => Vec::from_iter(ByteRange::whole(length)),
            Self::Range(range) => vec![*range],
            Self::Multiple(ranges) => ranges.clone(),
        }
    }

    fn first(&self) -> u64 {
        match self {
            Self::Whole => 0,
            Self::Range(range) => range.start(),
            Self::Multiple(ranges) => ranges.first().map_or(0, ByteRange::start),
        }
    }
}

fn lay(
    entry: &Entry,
    selection: Selection,
    length: Option<u64>,
    segment: impl Fn(u64, Option<u64>) -> Segment,
) -> Layout {
    match (selection, length) {
        (Selection::Whole, Some(0)) => Layout { part: Part::Whole, segments: VecDeque::new(), sent: Some(0) },
        (Selection::Whole, _) => {
            Layout { part: Part::Whole, segments: VecDeque::from([segment(0, length)]), sent: length }
        }
        (Selection::Range(range), _) => Layout {
            part: Part::Range(range),
            segments: VecDeque::from([segment(range.start(), Some(range.end()))]),
            sent: Some(range.len()),
        },
        (Selection::Multiple(ranges), length) => {
            let boundary = multipart::boundary(entry.record.key.as_str(), &ranges);
            let content_type = entry.record.headers.get(CONTENT_TYPE);
            let (parts, close) = multipart::frames(&ranges, length.unwrap_or(0), content_type, &boundary);
            let sent = multipart::content_length(&parts, &close);
            let mut segments = VecDeque::new();
            for frame in parts {
                segments.push_back(Segment::Bytes(frame.head));
                segments.push_back(segment(frame.range.start(), Some(frame.range.end())));
            }
            segments.push_back(Segment::Bytes(close));
            Layout { part: Part::Multipart { boundary, length: sent }, segments, sent: Some(sent) }
        }
    }
}

fn of_stored(body: &Body, start: u64, end: u64) -> Segment {
    match body {
        // The store gave out a body of this length, and the range was cut to it.
        Body::Memory(bytes) if end <= bytes.len() as u64 => Segment::Bytes(bytes.slice(start as usize..end as usize)),
        _ => Segment::File { reader: body.clone(), offset: start, len: end - start },
    }
}

fn deliver(
    ask: &Ask,
    entry: &Arc<Entry>,
    layout: Layout,
    length: Option<u64>,
    status: CacheStatus,
    result: RequestResult,
    gift: Option<Gift>,
) -> Outcome {
    let digests = wanted::of(ask, &entry.record, &layout.part, &layout.segments, layout.sent);
    let body = SegmentBody::new(layout.segments, layout.sent);
    let age = decide::age(&entry.record, ask.now).as_secs();
    // Only for who asks: the field's meaning is the same to everybody else.
    let says_digest = decide::wants_digest(&ask.headers) && decide::own_digest(&entry.record).is_some();
    let status = if says_digest { status.with_own_digest() } else { status };
    let part = layout.part;
    let stored = Stored { entry: Arc::clone(entry), part, length, body, age, gift, found: None, plan: None, digests };
    Outcome { reply: Reply::Stored(Box::new(stored)), result, status }
}
