//! Digests that a request asks for (RFC 9530 section 4), as far as they are known when the head leaves.

use std::collections::VecDeque;

use super::ask::Ask;
use super::body::Segment;
use super::outcome::{Part, WantedDigests};
use crate::content::{BodyRef, Digest, Record};
use crate::decide;

/// The digests of an answer with `part` of what `record` describes: that of its content when it is asked for and is known. It
/// is that of the whole, or the part is in memory.
pub(super) fn of(ask: &Ask, record: &Record, part: &Part, segments: &VecDeque<Segment>) -> WantedDigests {
    let content = decide::wants_content_digest(&ask.headers).then(|| content_digest(record, part, segments)).flatten();
    WantedDigests { content, no_repr: decide::refuses_repr_digest(&ask.headers) }
}

fn content_digest(record: &Record, part: &Part, segments: &VecDeque<Segment>) -> Option<Digest> {
    match (part, record.body, segments.front()) {
        (Part::Whole, BodyRef::Blob(digest), _) => Some(digest),
        (Part::Range(range), _, Some(Segment::Bytes(bytes))) if bytes.len() as u64 == range.len() => {
            Some(Digest::of(bytes))
        }
        _ => None,
    }
}
