//! [`Outcome`]: everything a request can come to, before header fields exist. `respond` renders it.

use std::collections::VecDeque;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use super::body::{Segment, SegmentBody};
use super::mend::Mender;
use super::ready::Plan;
use crate::content::{AnyDigest, ByteRange, CacheKey};
use crate::decide::{CacheStatus, FwdReason};
use crate::fill::Answer;
use crate::store::{Entry, Gift};
use crate::telemetry::RequestResult;

/// What a request came to.
pub(super) struct Outcome {
    pub(super) reply: Reply,
    /// For the metrics and the access log.
    pub(super) result: RequestResult,
    /// For the `Cache-Status` field (RFC 9211).
    pub(super) status: CacheStatus,
}

impl Outcome {
    /// What came of a request that has gone upstream for `reason` and was answered `status` there, if it was.
    pub(super) fn after(self, reason: FwdReason, status: Option<StatusCode>) -> Self {
        Self { status: self.status.after(reason, status.map(|status| status.as_u16())), ..self }
    }

    /// What came of a request for `key`, if that is to be told.
    pub(super) fn of_key(self, key: Option<CacheKey>) -> Self {
        Self { status: self.status.with_key(key), ..self }
    }

    /// What is to be told how the answer ended.
    pub(super) fn take_gift(&mut self) -> Option<Gift> {
        match &mut self.reply {
            Reply::Stored(stored) => stored.gift.take(),
            Reply::Through(passed) => passed.gift.take(),
            _ => None,
        }
    }

    /// Which places of the answer are bytes that were stored, when others are paid for by this request.
    pub(super) fn take_found(&mut self) -> Option<Vec<ByteRange>> {
        match &mut self.reply {
            Reply::Stored(stored) => stored.found.take(),
            _ => None,
        }
    }

    /// The answer with such places.
    pub(super) fn with_found(mut self, found: Option<Vec<ByteRange>>) -> Self {
        if let Reply::Stored(stored) = &mut self.reply {
            stored.found = found;
        }
        self
    }

    /// The answer with what mends broken blocks of its body.
    pub(super) fn mended(mut self, mender: Option<Mender>) -> Self {
        if let Reply::Stored(stored) = &mut self.reply {
            stored.body.mend_with(mender);
        }
        self
    }

    /// The answer, to be kept by `plan` if it is a whole stored response.
    pub(super) fn planned(mut self, plan: Option<Plan>) -> Self {
        if let Reply::Stored(stored) = &mut self.reply
            && stored.part == Part::Whole
        {
            stored.plan = plan;
        }
        self
    }

    /// How it should be kept.
    pub(super) fn take_plan(&mut self) -> Option<Plan> {
        match &mut self.reply {
            Reply::Stored(stored) => stored.plan.take(),
            _ => None,
        }
    }
}

/// What is answered.
pub(super) enum Reply {
    /// A stored response, or one that is being stored.
    Stored(Box<Stored>),
    /// 304 to the client's condition (RFC 9110 section 15.4.5).
    NotModified {
        entry: Arc<Entry>,
        /// Seconds.
        age: u64,
    },
    /// 412 (RFC 9110 section 15.5.13).
    PreconditionFailed,
    /// 416 with the length (RFC 9110 section 15.5.17).
    Unsatisfiable { length: u64 },
    /// A short answer of upstream.
    Answer(Arc<Answer>),
    /// An answer of upstream for this client alone.
    Through(Box<Passed>),
    /// 200 to a CONNECT: what follows is no HTTP (RFC 9110 section 9.3.6).
    Tunnel,
    /// An answer of our own, with a reason for people.
    Own { status: StatusCode, reason: String, allow: Option<String> },
    /// 503 without a body: the agent comes back (RFC 9110 section 15.6.4).
    Unavailable { retry_after: u32 },
}

/// A stored response with the part of it that was asked for.
pub(super) struct Stored {
    pub(super) entry: Arc<Entry>,
    pub(super) part: Part,
    /// Length of the whole representation.
    pub(super) length: Option<u64>,
    pub(super) body: SegmentBody,
    /// Seconds.
    pub(super) age: u64,
    /// Is told how an answer with the whole body ended.
    pub(super) gift: Option<Gift>,
    /// Set when some of the bytes were stored and others are paid for by this request: the places of the stored ones.
    pub(super) found: Option<Vec<ByteRange>>,
    /// Set when the answer should be kept for requests in the same words.
    pub(super) plan: Option<Plan>,
    pub(super) digests: WantedDigests,
}

/// What a request says about digests (RFC 9530 section 4).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WantedDigests {
    /// That of the content of the answer, if it is wanted and known.
    pub(super) content: Option<AnyDigest>,
    /// The SHA-256 of the representation is of no use.
    pub(super) no_sha_256: bool,
}

/// An answer of upstream on its way to one client.
pub(super) struct Passed {
    pub(super) status: StatusCode,
    /// With its range.
    pub(super) headers: HeaderMap,
    pub(super) segments: VecDeque<Segment>,
    /// Of what is sent, as far as it is known.
    pub(super) length: Option<u64>,
    /// Is told how an answer with the whole body ended.
    pub(super) gift: Option<Gift>,
}

/// Which part of a representation is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// One range, as 206.
    Range(ByteRange),
    /// Several, as 206 with `multipart/byteranges` under this boundary; the content length is given.
    Multipart { boundary: String, length: u64 },
}
