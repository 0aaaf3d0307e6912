//! What a request wants of a fill, and what it gets.

use std::sync::Arc;

use bytes::Bytes;
use http::header::RANGE;
use http::{HeaderMap, Method, StatusCode};
use tokio::time::Instant;

use super::{FillError, FlightGuard};
use crate::content::{CacheKey, ExpectedDigest, Origin, Policy, Record};
use crate::decide::{self, FirstAsked, UnderRule};
use crate::store::{Entry, Partial};
use crate::upstream::{FetchRequest, FetchResponse, Interims, RequestBody, Standing, Urgency};

/// Stands for a token without holding it: a keyed hash.
pub type TokenId = [u8; 32];

/// One request's need for a representation.
#[derive(Clone)]
pub struct Want {
    /// What is wanted.
    pub key: CacheKey,
    /// Who has it.
    pub origin: Origin,
    /// Path and query as forwarded.
    pub target: String,
    /// Path without query, for the patterns of the policy.
    pub path: String,
    /// The rule that applies.
    pub policy: Arc<Policy>,
    /// The client's request fields.
    pub headers: Arc<HeaderMap>,
    /// The token the request carries, if its rule knows auth parameters.
    pub token: Option<TokenId>,
    /// Whether the request carries auth parameters: what comes is then protected by them.
    pub carries_token: bool,
    /// Whether upstream has accepted this token for this key lately.
    pub proven: bool,
    /// What is stored and does not suffice: a partial to go on with, or a response to validate.
    pub stored: Option<Arc<Entry>>,
    /// Conditional fields when `stored` is to be validated (RFC 9111 section 4.3.1).
    pub conditions: Option<HeaderMap>,
    /// Whether `stored` is whole and may be served when upstream fails: then one failure is enough.
    pub stands_in: bool,
    /// When the client must have its first body byte.
    pub deadline: Instant,
    /// Who is told of interim responses.
    pub interims: Option<Interims>,
}

/// What came of it.
pub enum Obtained {
    /// The body is being filled; its bytes can be read as they land.
    Filling {
        /// The new record.
        entry: Arc<Entry>,
        /// Its body.
        partial: Arc<Partial>,
        /// Counts as a client of the flight until dropped.
        guard: FlightGuard,
        /// Another request's flight is followed.
        collapsed: bool,
    },
    /// No drive has room for the body: its bytes can be read as they pass.
    Passing {
        /// What is known of it. Nothing of it is stored.
        entry: Arc<Entry>,
        /// Counts as a client of the flight until dropped.
        guard: FlightGuard,
        /// Another request's flight is followed.
        collapsed: bool,
    },
    /// What is stored is current: validated just now, or known to be what would come.
    Validated {
        /// The stored response.
        entry: Arc<Entry>,
        /// Status of the answer that told so.
        answered: Option<StatusCode>,
        /// Another request's flight was followed.
        collapsed: bool,
    },
    /// Another flight has ended since the look-up, with or without success: what is stored has to be looked up again.
    Changed,
    /// A short answer that is not stored but goes to everybody who waited for it.
    Answer {
        /// The answer.
        answer: Arc<Answer>,
        /// Another request's flight was followed.
        collapsed: bool,
    },
    /// The range that is asked for lies behind the end of the representation, which is not stored.
    Behind {
        /// Length of the representation in bytes.
        length: u64,
    },
    /// An answer for this client alone.
    Through(Box<FetchResponse>),
    /// A token must be proven first: the flight was started with another one.
    NeedsProof,
    /// Nothing came.
    Failed(FillError),
}

/// A short answer kept in memory.
#[derive(Debug)]
pub struct Answer {
    /// Final status of upstream.
    pub status: StatusCode,
    /// End-to-end fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Want {
    /// Where the first bytes lie that the client waits for.
    pub(super) fn begin(&self) -> FirstAsked {
        decide::first_asked(&self.headers)
    }

    /// Whether the client asks for the whole or for one part of it.
    pub(super) fn asks_one_part(&self) -> bool {
        !self.headers.contains_key(RANGE) || decide::is_for_one_range(&self.headers)
    }

    /// How much the bytes may matter that this client waits for: a cache that reads ahead says so in `Priority` (RFC 9218
    /// section 4.1). Nobody can say that they matter more than those of all who wait.
    pub(super) fn urgency(&self) -> Urgency {
        match decide::urgency(&self.headers) {
            0..=3 => Urgency::Awaited,
            4..=6 => Urgency::Ahead,
            _ => Urgency::Background,
        }
    }

    /// A request upstream for this content, with these fields.
    pub(super) fn request(
        &self,
        method: Method,
        headers: HeaderMap,
        body: Option<RequestBody>,
        deadline: Instant,
    ) -> FetchRequest {
        FetchRequest {
            method,
            origin: self.origin.clone(),
            target: self.target.clone(),
            headers,
            policy: Arc::clone(&self.policy),
            body,
            deadline,
            avoid: Vec::new(),
            silence: None,
            wrong: None,
            standing: Standing::new(self.urgency()),
            interims: self.interims.clone(),
            stands_in: self.stands_in,
        }
    }

    /// Whether what is stored is not what this request's digest rule says, though it may be right for another host.
    pub(super) fn refuses(&self, record: &Record) -> bool {
        decide::under_rule(record, self.policy.digest_of(&self.path)) == UnderRule::Refused
    }

    /// Whether the end of a body that is on its way shows whether it is what this request's digest rule says.
    pub(super) fn has_its_rule(&self, record: &Record) -> bool {
        let rule = self.policy.digest_of(&self.path);
        rule.is_none() || decide::under_rule(record, rule) == UnderRule::Fits
    }

    /// The digest that the content must have by the rule that applies.
    pub(super) fn rule_digest(&self) -> Option<ExpectedDigest> {
        self.policy.digest_of(&self.path).map(ExpectedDigest::Rule)
    }

    /// The id of the token that the request carries.
    pub(super) fn shown_token(&self) -> Option<TokenId> {
        self.token.filter(|_| self.carries_token)
    }

    /// Whether a stored response answers this request as far as `Vary` tells (RFC 9111 section 4.1).
    pub fn selects(&self, record: &Record) -> bool {
        decide::vary_matches(record, &self.headers)
    }
}
