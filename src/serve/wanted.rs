//! Digests that a request asks for (RFC 9530 section 4), as far as they are known when the head leaves.
//!
//! That of a whole body is known, in SHA-256. That of anything else has to be made of its bytes before the head leaves, so
//! it is made of short answers only, and of none whose bytes are still on their way.

use std::collections::VecDeque;

use http::Method;

use super::ask::Ask;
use super::body::Segment;
use super::gather::LONGEST_GATHERED;
use super::outcome::{Part, WantedDigests};
use crate::content::{AnyDigest, BodyRef, Digest, Record};
use crate::decide::{self, Algorithm};

/// Longest content that is read for its digest, in bytes.
const LONGEST: u64 = LONGEST_GATHERED;

/// Whether the bytes of an answer, `sent` in number, have to be in memory, since the request asks for their digest and
/// nothing tells it.
pub(super) fn needs_bytes(ask: &Ask, record: &Record, part: &Part, sent: Option<u64>) -> bool {
    let best = decide::wanted_content_digests(&ask.headers).next();
    ask.method == Method::GET
        && sent.is_some_and(|sent| (1..=LONGEST).contains(&sent))
        && best.is_some_and(|best| known(record, part, best).is_none())
}

/// The digests of an answer that consists of `segments`, which are `part` of what `record` describes.
pub(super) fn of(
    ask: &Ask,
    record: &Record,
    part: &Part,
    segments: &VecDeque<Segment>,
    sent: Option<u64>,
) -> WantedDigests {
    let in_memory = match segments.front() {
        Some(Segment::Bytes(bytes)) if Some(bytes.len() as u64) == sent => Some(bytes),
        _ => None,
    };
    let made = |algorithm| {
        let bytes = in_memory?;
        Some(match algorithm {
            Algorithm::Sha256 => Digest::of(bytes).into(),
            Algorithm::Sha512 => AnyDigest::sha_512_of(bytes),
        })
    };
    let mut wanted = decide::wanted_content_digests(&ask.headers);
    let content = wanted.find_map(|algorithm| known(record, part, algorithm).or_else(|| made(algorithm)));
    WantedDigests { content, no_sha_256: decide::refuses_repr_digest(&ask.headers) }
}

/// The digest of the content of an answer, as far as the record of the whole tells it.
fn known(record: &Record, part: &Part, algorithm: Algorithm) -> Option<AnyDigest> {
    match (part, record.body, algorithm) {
        (Part::Whole, BodyRef::Blob(digest), Algorithm::Sha256) => Some(digest.into()),
        (Part::Whole, _, Algorithm::Sha512) => decide::verified_sha_512(record),
        _ => None,
    }
}
