//! The stored form of [`Record`]: one byte of format version, then the fields in postcard's encoding.
//!
//! The structs here are what lies on drives; they are apart from [`Record`] so that a change there cannot change
//! the format by accident. A record is written in the oldest version that has a place for all of it: then a release from
//! before can read it, too. A new version is added like this: copy the newest struct, or put it into a new one, as `RecordV2`
//! does with `RecordV1`; give [`encode_record`] and [`decode_record`] a branch for it and leave those for the others, which
//! turn the old struct into a [`Record`] with defaults for what it lacks. Fields of a version that was released are never
//! changed, nor is their order.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use crate::content::{
    AnyDigest, BodyRef, CacheKey, Digest, ExpectedDigest, FieldValues, PartialId, Record, UnixMillis, VaryField,
};

/// The newest version.
const VERSION: u8 = 2;

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

/// A record of which the source says a SHA-512 and nothing else.
#[derive(Serialize, Deserialize)]
struct RecordV2<'a> {
    #[serde(borrow)]
    record: RecordV1<'a>,
    /// In two halves.
    upstream_sha_512: [[u8; 32]; 2],
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

/// Encodes a record. One whose fields exceed [`MAX_RECORD`] is encoded too, but does not come back.
pub(super) fn encode_record(record: &Record) -> Vec<u8> {
    let stored = RecordV1::from(record);
    match record.expected {
        Some(ExpectedDigest::Upstream(AnyDigest::Sha512(digest))) => {
            let (mut halves, (parts, _)) = ([[0; 32]; 2], digest.as_chunks());
            halves.copy_from_slice(parts);
            encode(2, &RecordV2 { record: stored, upstream_sha_512: halves })
        }
        _ => encode(1, &stored),
    }
}

fn encode(version: u8, stored: &impl Serialize) -> Vec<u8> {
    #[allow(clippy::expect_used, reason = "a vector takes any number of bytes, and all sequences know their length")]
    postcard::to_extend(stored, vec![version]).expect("plain data can be encoded")
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, MetaError> {
    match postcard::take_from_bytes(bytes) {
        Ok((stored, [])) => Ok(stored),
        Ok(_) => Err(MetaError::Damaged("bytes follow it")),
        Err(_) => Err(MetaError::Damaged("its fields cannot be read")),
    }
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
        Some((1, rest)) => decode::<RecordV1<'_>>(rest)?.try_into(),
        Some((2, rest)) => decode::<RecordV2<'_>>(rest)?.try_into(),
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
            expected: record.expected.and_then(|expected| match expected {
                ExpectedDigest::Upstream(AnyDigest::Sha256(digest)) => Some(ExpectedV1::Upstream(*digest.as_bytes())),
                ExpectedDigest::Upstream(AnyDigest::Sha512(_)) => None,
                ExpectedDigest::Rule(digest) => Some(ExpectedV1::Rule(*digest.as_bytes())),
                ExpectedDigest::Manifest(digest) => Some(ExpectedV1::Manifest(*digest.as_bytes())),
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
        let not_allowed = |_| MetaError::Damaged("a field value is not allowed");
        let value = |value: &[u8]| HeaderValue::from_bytes(value).map_err(not_allowed);
        let length = stored.headers.iter().map(|(_, value)| value.len()).sum();
        let mut values = FieldValues::copied(length, stored.headers.iter().map(|(_, value)| *value));
        let too_many = |_| MetaError::Damaged("it has too many fields");
        let mut headers = HeaderMap::try_with_capacity(stored.headers.len()).map_err(too_many)?;
        for (n, v) in stored.headers {
            headers.try_append(name(n)?, values.take(v.len()).map_err(not_allowed)?).map_err(too_many)?;
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
                ExpectedV1::Upstream(digest) => ExpectedDigest::Upstream(Digest::from_bytes(digest).into()),
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

impl TryFrom<RecordV2<'_>> for Record {
    type Error = MetaError;

    fn try_from(stored: RecordV2<'_>) -> Result<Self, MetaError> {
        if stored.record.expected.is_some() {
            return Err(MetaError::Damaged("it expects two digests"));
        }
        let mut digest = [0; 64];
        digest.copy_from_slice(stored.upstream_sha_512.as_flattened());
        let expected = Some(ExpectedDigest::Upstream(AnyDigest::Sha512(digest)));
        Ok(Self { expected, ..stored.record.try_into()? })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use http::header::{ETAG, SET_COOKIE};
    use proptest::prelude::*;

    use super::*;

    pub(in crate::store) fn plain_record() -> Record {
        Record {
            key: CacheKey::new("http://dl.example.com/p/a.swu"),
            status: StatusCode::OK,
            headers: HeaderMap::from_iter([(ETAG, HeaderValue::from_static("\"1\""))]),
            request_time: UnixMillis(1),
            response_time: UnixMillis(300),
            vary: Vec::new(),
            length: Some(65536),
            expected: None,
            token_protected: false,
            body: BodyRef::Partial(PartialId(7)),
        }
    }

    fn field_value() -> impl Strategy<Value = HeaderValue> {
        let byte = prop_oneof![Just(b'\t'), 0x20u8..0x7f, 0x80u8..=0xff];
        prop::collection::vec(byte, 0..40).prop_map(|bytes| HeaderValue::from_bytes(&bytes).unwrap())
    }

    fn field_name() -> impl Strategy<Value = HeaderName> {
        prop_oneof![
            Just(SET_COOKIE),
            Just(ETAG),
            "[a-z!#$%&'*+.^_`|~0-9-]{1,20}".prop_map(|name| name.parse().unwrap())
        ]
    }

    fn digest() -> impl Strategy<Value = Digest> {
        any::<[u8; 32]>().prop_map(Digest::from_bytes)
    }

    /// Any record, with repeated fields and values that are not text.
    pub(in crate::store) fn any_record() -> impl Strategy<Value = Record> {
        let expected = prop_oneof![
            digest().prop_map(|digest| ExpectedDigest::Upstream(digest.into())),
            any::<[u8; 32]>().prop_map(|bytes| ExpectedDigest::Upstream(AnyDigest::sha_512_of(&bytes))),
            digest().prop_map(ExpectedDigest::Rule),
            digest().prop_map(ExpectedDigest::Manifest),
        ];
        let body =
            prop_oneof![digest().prop_map(BodyRef::Blob), any::<u64>().prop_map(|id| BodyRef::Partial(PartialId(id)))];
        let vary = (field_name(), prop::option::of(field_value())).prop_map(|(name, value)| VaryField { name, value });
        let head = (".{0,60}", 100u16..1000, prop::collection::vec((field_name(), field_value()), 0..12));
        let facts =
            (prop::collection::vec(vary, 0..4), any::<Option<u64>>(), prop::option::of(expected), any::<bool>());
        (head, any::<(u64, u64)>(), facts, body).prop_map(|(head, times, facts, body)| {
            let mut headers = HeaderMap::new();
            for (name, value) in head.2 {
                headers.append(name, value);
            }
            Record {
                key: CacheKey::new(head.0),
                status: StatusCode::from_u16(head.1).unwrap(),
                headers,
                request_time: UnixMillis(times.0),
                response_time: UnixMillis(times.1),
                vary: facts.0,
                length: facts.1,
                expected: facts.2,
                token_protected: facts.3,
                body,
            }
        })
    }

    /// What releases have written must be read for ever: these bytes do not change.
    #[test]
    fn version_1_stays_as_it_was_released() {
        let mut stored = b"\x01\x1dhttp://dl.example.com/p/a.swu\xc8\x01\x01\x04etag\x03\"1\"".to_vec();
        stored.extend_from_slice(b"\x01\xac\x02\x00\x01\x80\x80\x04\x00\x00\x01\x07");
        assert_eq!(encode_record(&plain_record()), stored);
        assert_eq!(decode_record(&stored).unwrap().length, Some(65536));
    }

    #[test]
    fn version_2_stays_as_it_was_released() {
        let expected = Some(ExpectedDigest::Upstream(AnyDigest::Sha512([b'x'; 64])));
        let record = Record { expected, ..plain_record() };
        let mut stored = encode_record(&plain_record());
        stored[0] = 2;
        stored.extend_from_slice(&[b'x'; 64]);
        assert_eq!(encode_record(&record), stored);
        assert_eq!(decode_record(&stored).unwrap().expected, expected);
    }

    #[test]
    fn what_is_no_record_is_refused_with_the_reason() {
        let stored = encode_record(&plain_record());
        let error = |bytes: &[u8]| decode_record(bytes).unwrap_err();
        assert_eq!(error(&[]), MetaError::Damaged("it is empty"));
        assert_eq!(error(&[&[3], &stored[1..]].concat()), MetaError::NewerFormat { found: 3 });
        assert_eq!(error(&[&[2], &stored[1..]].concat()), MetaError::Damaged("its fields cannot be read"));
        let ruled = Record { expected: Some(ExpectedDigest::Rule(Digest::of(b"abc"))), ..plain_record() };
        let both = [&[2], &encode_record(&ruled)[1..], &[0; 64]].concat();
        assert_eq!(error(&both), MetaError::Damaged("it expects two digests"));
        assert_eq!(error(&[&stored[..], &[0]].concat()), MetaError::Damaged("bytes follow it"));
        assert_eq!(error(&vec![1; MAX_RECORD + 1]), MetaError::TooLarge { length: MAX_RECORD + 1 });
        for end in 0..stored.len() {
            assert!(decode_record(&stored[..end]).is_err(), "cut at {end}");
        }
        // A count of fields far beyond the bytes that follow.
        assert!(decode_record(b"\x01\x00\xc8\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7f").is_err());
    }

    proptest! {
        #[test]
        fn records_come_back_as_they_were(record in any_record()) {
            let stored = encode_record(&record);
            let back = decode_record(&stored).unwrap();
            prop_assert_eq!(&back.headers, &record.headers);
            prop_assert_eq!((&back.key, back.status, &back.vary), (&record.key, record.status, &record.vary));
            prop_assert_eq!((back.variant(), back.body), (record.variant(), record.body));
            prop_assert_eq!(back.expected, record.expected);
            prop_assert_eq!(encode_record(&back), stored);
        }

        #[test]
        fn any_bytes_are_a_record_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..200), known in prop::option::of(1..=VERSION)) {
            if let Some((first, known)) = bytes.first_mut().zip(known) {
                *first = known;
            }
            let _ = decode_record(&bytes);
        }

        #[test]
        fn changed_bytes_are_a_record_or_an_error(record in any_record(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let mut stored = encode_record(&record);
            let at = at.index(stored.len());
            stored[at] = to;
            let _ = decode_record(&stored);
        }
    }
}
