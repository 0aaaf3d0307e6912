//! [`Version`]: which version of a resource bytes belong to, as far as that can be told.
//!
//! Bytes of two versions are never joined. Which version a client gets is `decide`'s business.

use std::time::UNIX_EPOCH;

use http::header::{CONTENT_ENCODING, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderName};

use super::{BodyRef, Digest, PartialId, Record, Validator};

/// The birth of bytes of which nothing tells the version: they go on with nothing, not even with one another.
const UNTOLD: PartialId = PartialId(0);

/// Fields that change with the content of a resource. Bytes whose answers have none of them may be of any version.
const TELLING: [HeaderName; 3] = [ETAG, LAST_MODIFIED, HeaderName::from_static("repr-digest")];

/// What tells one version of a resource from another. It stays the same while a body grows, becomes a blob, is
/// validated and survives restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    /// The partial body in which its bytes came: whoever has bytes of it has bytes of one version.
    pub birth: PartialId,
    /// Stands for its strong validator, if it has one (RFC 9110 section 8.8): the first 8 bytes of a hash.
    pub validator: Option<u64>,
    /// Length of the complete representation in bytes, once it is known.
    pub length: Option<u64>,
    /// The first 16 bytes of the SHA-256 of its content, once that is known.
    pub digest: Option<DigestPrefix>,
}

/// A version of which a client was given bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The version.
    pub version: Version,
    /// Set when its bytes turned out to be wrong.
    pub spoiled: Option<Spoiled>,
}

/// From where on the bytes of a version are wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoiled {
    /// That is not known yet: no byte of it may be built on.
    Throughout,
    /// Compared with a verified body: the bytes before the first difference are right.
    From {
        /// Offset of the first byte that is wrong.
        first_difference: u64,
        /// What the right body hashes to.
        right: DigestPrefix,
    },
}

/// The first 128 bits of a SHA-256: enough to tell versions of one resource apart.
pub type DigestPrefix = [u8; 16];

impl Version {
    /// The version that `record` is, whose body began as `birth`.
    pub fn of(record: &Record, birth: PartialId) -> Self {
        let digest = match record.body {
            BodyRef::Blob(digest) => Some(digest.prefix()),
            BodyRef::Partial(_) => None,
        };
        Self { birth, validator: fingerprint(&record.validator()), length: record.length, digest }
    }

    /// The version of an answer that is not stored, of a representation of `length` bytes: told by its fields alone. They
    /// may be no strong validator, so that they say less than a birth of its own; but nothing more can be known, and an
    /// answer without any such field is like no other.
    pub fn told_by(headers: &HeaderMap, length: Option<u64>) -> Self {
        let validator = fingerprint(&Validator::of(headers));
        if !TELLING.iter().any(|name| headers.contains_key(name)) {
            return Self::untold();
        }
        let mut text = length.map_or_else(String::new, |length| length.to_string()).into_bytes();
        for name in TELLING.iter().chain([&CONTENT_ENCODING]) {
            for value in headers.get_all(name) {
                text.push(b'\n');
                text.extend_from_slice(name.as_str().as_bytes());
                text.push(b':');
                text.extend_from_slice(value.as_bytes());
            }
        }
        Self { birth: PartialId(number(&text)), validator, length, digest: None }
    }

    /// The version of bytes of which nothing tells what they are: nothing goes on with them.
    pub fn untold() -> Self {
        Self { birth: UNTOLD, validator: None, length: None, digest: None }
    }

    /// With what `other`, which is the same version, tells beyond it.
    #[must_use]
    pub fn completed_by(&self, other: &Self) -> Self {
        Self {
            birth: self.birth,
            validator: self.validator.or(other.validator),
            length: self.length.or(other.length),
            digest: self.digest.or(other.digest),
        }
    }

    /// Whether bytes of both may be joined: they came in one body, or have one digest, or else the same strong
    /// validator and no length that differs (RFC 9110 section 14.5, RFC 9111 section 3.4).
    pub fn is_same(&self, other: &Self) -> bool {
        if let (Some(one), Some(other)) = (self.digest, other.digest) {
            return one == other;
        }
        if self.birth == other.birth {
            return self.birth != UNTOLD;
        }
        let lengths_differ = self.length.zip(other.length).is_some_and(|(one, other)| one != other);
        !lengths_differ && self.validator.is_some() && self.validator == other.validator
    }
}

/// A number for a strong validator; `None` for any other.
fn fingerprint(validator: &Validator) -> Option<u64> {
    if !validator.is_strong() {
        return None;
    }
    let text = match (&validator.etag, validator.last_modified) {
        (Some(etag), _) => etag.to_string(),
        (None, Some(modified)) => modified.duration_since(UNIX_EPOCH).ok()?.as_secs().to_string(),
        (None, None) => return None,
    };
    Some(number(text.as_bytes()))
}

fn number(text: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *Digest::of(text).as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use http::header::{CONTENT_TYPE, DATE};

    use super::*;

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn validator(fields: &[(HeaderName, &str)]) -> Option<u64> {
        fingerprint(&Validator::of(&headers(fields)))
    }

    #[test]
    fn only_strong_validators_have_a_fingerprint() {
        let (early, late) = ("Mon, 23 Nov 2026 11:00:00 GMT", "Mon, 23 Nov 2026 12:00:00 GMT");
        let tag = validator(&[(ETAG, "\"a\"")]);
        assert!(tag.is_some());
        assert_eq!(tag, validator(&[(ETAG, "\"a\""), (LAST_MODIFIED, early), (DATE, late)]));
        assert_ne!(tag, validator(&[(ETAG, "\"b\"")]));
        assert_eq!(validator(&[(ETAG, "W/\"a\"")]), None);
        assert_eq!(validator(&[(LAST_MODIFIED, late), (DATE, late)]), None, "it may change within that second");
        let date = validator(&[(LAST_MODIFIED, early), (DATE, late)]);
        assert!(date.is_some() && date != tag);
        assert_eq!(validator(&[]), None);
    }

    #[test]
    fn versions_are_the_same_by_birth_digest_or_strong_validator() {
        let plain = Version { birth: PartialId(1), validator: None, length: Some(10), digest: None };
        let born_elsewhere = Version { birth: PartialId(2), ..plain };
        assert!(plain.is_same(&plain) && !plain.is_same(&born_elsewhere), "nothing says that they are the same");
        let tagged = |version: Version, tag| Version { validator: Some(tag), ..version };
        assert!(tagged(plain, 7).is_same(&tagged(born_elsewhere, 7)));
        assert!(!tagged(plain, 7).is_same(&tagged(born_elsewhere, 8)));
        let longer = Version { length: Some(11), ..born_elsewhere };
        assert!(!tagged(plain, 7).is_same(&tagged(longer, 7)), "one of the two lies");
        assert!(tagged(plain, 7).is_same(&tagged(Version { length: None, ..longer }, 7)));
        let whole = |version: Version, digest| Version { digest: Some([digest; 16]), ..version };
        assert!(whole(plain, 1).is_same(&whole(born_elsewhere, 1)));
        assert!(!whole(tagged(plain, 7), 1).is_same(&whole(tagged(born_elsewhere, 7), 2)), "bytes say more than a tag");
        assert!(whole(plain, 1).is_same(&plain), "it was completed");
    }

    #[test]
    fn what_is_not_stored_is_told_by_its_fields() {
        let of = |fields: &[(HeaderName, &str)], length| Version::told_by(&headers(fields), length);
        let with = |fields: &[(HeaderName, &str)], more| of(&[fields, &[more]].concat(), Some(10));
        let (weak, date) = ([(ETAG, "W/\"a\"")], [(LAST_MODIFIED, "Mon, 23 Nov 2026 11:00:00 GMT")]);
        for fields in [&weak, &date, &[(ETAG, "unquoted")]] {
            let one = of(fields, Some(10));
            assert!(one.is_same(&with(fields, (CONTENT_TYPE, "a/b"))), "{fields:?}");
            assert!(!one.is_same(&of(fields, Some(11))) && !one.is_same(&of(fields, None)), "{fields:?}");
            assert!(!one.is_same(&with(fields, (CONTENT_ENCODING, "gzip"))), "{fields:?}");
        }
        assert!(!of(&weak, Some(10)).is_same(&of(&[(ETAG, "W/\"b\"")], Some(10))));
        assert!(!of(&weak, Some(10)).is_same(&with(&weak, date[0].clone())), "it says less than before");
        let strong = |length| of(&[(ETAG, "\"a\"")], length);
        assert!(strong(Some(10)).is_same(&strong(None)) && !strong(Some(10)).is_same(&strong(Some(11))));
    }

    #[test]
    fn what_nothing_tells_of_goes_on_with_nothing() {
        let untold = Version::told_by(&headers(&[(CONTENT_TYPE, "a/b")]), Some(10));
        assert!(!untold.is_same(&untold));
        let stored = Version { birth: PartialId(7), validator: None, length: Some(10), digest: Some([1; 16]) };
        assert!(!untold.is_same(&stored) && !stored.is_same(&untold));
        assert_eq!(untold.birth, Version::told_by(&HeaderMap::new(), None).birth, "a client holds it once");
    }
}
