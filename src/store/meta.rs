//! The stored form of [`Record`]: one byte of format version, then the fields in postcard's encoding.
//!
//! The structs here are what lies on drives; they are apart from [`Record`] so that a change there cannot change
//! the format by accident. A new version is added like this: copy `RecordV1` to `RecordV2` and change the copy;
//! write `2` and `RecordV2` in [`encode_record`]; give [`decode_record`] a branch for `2` and leave the one for `1`,
//! which turns the old struct into a [`Record`] with defaults for what it lacks. Fields of a version that was
//! released are never changed, nor is their order.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use crate::content::{BodyRef, CacheKey, Digest, ExpectedDigest, PartialId, Record, UnixMillis, VaryField};

/// The version that is written.
const VERSION: u8 = 1;

/// The largest encoded record in bytes. Heads are limited to far less before they become records.
pub(super) const MAX_RECORD: usize = 1024 * 1024;

/// Stored bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum MetaError {
    /// Written by a newer release.
    #[error("the record has format {found}, this release knows up to {VERSION}")]
    NewerFormat {
        /// Version found.
        found: u8,
    },
    /// More bytes than a record can have.
    #[error("the record has {length} bytes, more than {MAX_RECORD}")]
    TooLarge {
        /// Bytes found.
        length: usize,
    },
    /// The bytes do not follow the format.
    #[error("the record is damaged: {0}")]
    Damaged(&'static str),
}

#[derive(Serialize, Deserialize)]
struct RecordV1<'a> {
    key: &'a str,
    status: u16,
    #[serde(borrow)]
    headers: Vec<(&'a str, &'a [u8])>,
    request_time: u64,
    response_time: u64,
    #[serde(borrow)]
    vary: Vec<(&'a str, Option<&'a [u8]>)>,
    length: Option<u64>,
    expected: Option<ExpectedV1>,
    token_protected: bool,
    body: BodyV1,
}

#[derive(Serialize, Deserialize)]
enum ExpectedV1 {
    Upstream([u8; 32]),
    Rule([u8; 32]),
    Manifest([u8; 32]),
}

#[derive(Serialize, Deserialize)]
enum BodyV1 {
    Blob([u8; 32]),
    Partial(u64),
}

/// Encodes a record in the newest format. One whose fields exceed [`MAX_RECORD`] is encoded too, but does not
/// come back.
pub(super) fn encode_record(record: &Record) -> Vec<u8> {
    let stored = RecordV1::from(record);
    #[allow(clippy::expect_used, reason = "a vector takes any number of bytes, and all sequences know their length")]
    postcard::to_extend(&stored, vec![VERSION]).expect("plain data can be encoded")
}

/// Decodes a record of this or an older format.
///
/// # Errors
/// When the bytes are not exactly one record of a known format.
pub(super) fn decode_record(bytes: &[u8]) -> Result<Record, MetaError> {
    if bytes.len() > MAX_RECORD {
        return Err(MetaError::TooLarge { length: bytes.len() });
    }
    match bytes.split_first() {
        Some((1, rest)) => match postcard::take_from_bytes::<RecordV1<'_>>(rest) {
            Ok((stored, [])) => Record::try_from(stored),
            Ok(_) => Err(MetaError::Damaged("bytes follow it")),
            Err(_) => Err(MetaError::Damaged("its fields cannot be read")),
        },
        Some((0, _)) => Err(MetaError::Damaged("its format is 0")),
        Some((&found, _)) => Err(MetaError::NewerFormat { found }),
        None => Err(MetaError::Damaged("it is empty")),
    }
}

impl<'a> From<&'a Record> for RecordV1<'a> {
    fn from(record: &'a Record) -> Self {
        let vary = |field: &'a VaryField| (field.name.as_str(), field.value.as_ref().map(HeaderValue::as_bytes));
        Self {
            key: record.key.as_str(),
            status: record.status.as_u16(),
            headers: record.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect(),
            request_time: record.request_time.0,
            response_time: record.response_time.0,
            vary: record.vary.iter().map(vary).collect(),
            length: record.length,
            expected: record.expected.map(|expected| match expected {
                ExpectedDigest::Upstream(digest) => ExpectedV1::Upstream(*digest.as_bytes()),
                ExpectedDigest::Rule(digest) => ExpectedV1::Rule(*digest.as_bytes()),
                ExpectedDigest::Manifest(digest) => ExpectedV1::Manifest(*digest.as_bytes()),
            }),
            token_protected: record.token_protected,
            body: match record.body {
                BodyRef::Blob(digest) => BodyV1::Blob(*digest.as_bytes()),
                BodyRef::Partial(id) => BodyV1::Partial(id.0),
            },
        }
    }
}

impl TryFrom<RecordV1<'_>> for Record {
    type Error = MetaError;

    fn try_from(stored: RecordV1<'_>) -> Result<Self, MetaError> {
        let name = |name: &str| {
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| MetaError::Damaged("a field name is not allowed"))
        };
        let value = |value: &[u8]| {
            HeaderValue::from_bytes(value).map_err(|_| MetaError::Damaged("a field value is not allowed"))
        };
        let mut headers = HeaderMap::new();
        for (n, v) in stored.headers {
            headers.try_append(name(n)?, value(v)?).map_err(|_| MetaError::Damaged("it has too many fields"))?;
        }
        let vary =
            stored.vary.into_iter().map(|(n, v)| Ok(VaryField { name: name(n)?, value: v.map(value).transpose()? }));
        Ok(Self {
            key: CacheKey::new(stored.key),
            status: StatusCode::from_u16(stored.status).map_err(|_| MetaError::Damaged("its status is not allowed"))?,
            headers,
            request_time: UnixMillis(stored.request_time),
            response_time: UnixMillis(stored.response_time),
            vary: vary.collect::<Result<_, MetaError>>()?,
            length: stored.length,
            expected: stored.expected.map(|expected| match expected {
                ExpectedV1::Upstream(digest) => ExpectedDigest::Upstream(Digest::from_bytes(digest)),
                ExpectedV1::Rule(digest) => ExpectedDigest::Rule(Digest::from_bytes(digest)),
                ExpectedV1::Manifest(digest) => ExpectedDigest::Manifest(Digest::from_bytes(digest)),
            }),
            token_protected: stored.token_protected,
            body: match stored.body {
                BodyV1::Blob(digest) => BodyRef::Blob(Digest::from_bytes(digest)),
                BodyV1::Partial(id) => BodyRef::Partial(PartialId(id)),
            },
        })
    }
}
