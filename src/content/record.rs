//! [`Record`]: what is known of one stored response.
//!
//! Only the facts. Whether the response may be stored or served is `decide`'s business, where its bytes are
//! is `store`'s.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{AnyDigest, CacheKey, Digest, UnixMillis, Validator};

/// One response as it was received, and where its body is (RFC 9111 section 2).
#[derive(Debug, Clone)]
pub struct Record {
    /// The resource it answers for.
    pub key: CacheKey,
    /// Final status. A 206 from upstream is recorded as the 200 it is a part of.
    pub status: StatusCode,
    /// End-to-end header fields as received: no hop-by-hop fields, no `Content-Length`, no `Content-Range` of a part.
    pub headers: HeaderMap,
    /// Local time when the request was sent (`request_time` of RFC 9111 section 4.2.3).
    pub request_time: UnixMillis,
    /// Local time when the head arrived (`response_time`).
    pub response_time: UnixMillis,
    /// The request fields that selected this variant, empty without `Vary` (RFC 9111 section 4.1).
    pub vary: Vec<VaryField>,
    /// Length of the complete body in bytes; `None` while it is not known.
    pub length: Option<u64>,
    /// What the body must hash to, and who says so.
    pub expected: Option<ExpectedDigest>,
    /// Whether it was fetched with auth parameters: to be given to another token only after a proof.
    pub token_protected: bool,
    /// Where the body is.
    pub body: BodyRef,
}

/// A request field named by `Vary` with the value it had, normalised; `None` when it was absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaryField {
    /// Name of the request field.
    pub name: HeaderName,
    /// Its normalised value.
    pub value: Option<HeaderValue>,
}

/// A digest that a body must have, with its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedDigest {
    /// `Repr-Digest` of the upstream answer (RFC 9530): it can make us refuse bytes, never accept others.
    Upstream(AnyDigest),
    /// A rule of the configuration.
    Rule(Digest),
    /// A verified update manifest.
    Manifest(Digest),
}

impl ExpectedDigest {
    /// The digest, whoever says it.
    pub fn digest(&self) -> AnyDigest {
        match *self {
            Self::Upstream(digest) => digest,
            Self::Rule(digest) | Self::Manifest(digest) => digest.into(),
        }
    }
}

/// Where the body of a [`Record`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum BodyRef {
    /// A complete blob.
    Blob(Digest),
    /// A sparse file that is being filled or waits to be.
    Partial(PartialId),
}

/// Name of a partial body on its drive: 64 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct PartialId(pub u64);

impl fmt::Display for PartialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for PartialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartialId({self})")
    }
}

impl Record {
    /// The response's validator.
    pub fn validator(&self) -> Validator {
        Validator::of(&self.headers)
    }

    /// Tells variants of one key apart in the index: the first 8 bytes of the SHA-256 of the selecting
    /// fields, 0 without any.
    pub fn variant(&self) -> u64 {
        if self.vary.is_empty() {
            return 0;
        }
        let mut text = Vec::new();
        for field in &self.vary {
            text.extend_from_slice(field.name.as_str().as_bytes());
            text.push(u8::from(field.value.is_some()));
            text.extend_from_slice(field.value.as_ref().map_or(&[][..], |v| v.as_bytes()));
            text.push(b'\n');
        }
        let [a, b, c, d, e, f, g, h, ..] = *Digest::of(&text).as_bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}
