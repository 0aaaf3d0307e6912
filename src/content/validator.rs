//! Validators of RFC 9110 section 8.8: entity tags and modification dates, and how they compare.
//!
//! Evaluating a client's preconditions against them is `decide`'s business.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{DATE, ETAG, LAST_MODIFIED};

/// An entity tag (RFC 9110 section 8.8.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EntityTag {
    weak: bool,
    opaque: Box<str>,
}

impl EntityTag {
    /// Parses `"abc"` or `W/"abc"`. Anything else is no entity tag.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_matches([' ', '\t']);
        let (weak, quoted) = text.strip_prefix("W/").map_or((false, text), |rest| (true, rest));
        let opaque = quoted.strip_prefix('"')?.strip_suffix('"')?;
        let allowed = |b: u8| b == 0x21 || (0x23..=0x7e).contains(&b) || b >= 0x80;
        opaque.bytes().all(allowed).then(|| Self { weak, opaque: opaque.into() })
    }

    /// Whether the tag is a weak one.
    pub fn is_weak(&self) -> bool {
        self.weak
    }

    /// Strong comparison (RFC 9110 section 8.8.3.2): equal and neither weak.
    pub fn strong_eq(&self, other: &Self) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// Weak comparison (RFC 9110 section 8.8.3.2): equal, weak or not.
    pub fn weak_eq(&self, other: &Self) -> bool {
        self.opaque == other.opaque
    }
}

impl std::fmt::Display for EntityTag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\"{}\"", if self.weak { "W/" } else { "" }, self.opaque)
    }
}

/// What a response says of its version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Validator {
    /// The response's `ETag`, if it is well formed.
    pub etag: Option<EntityTag>,
    /// The response's `Last-Modified`, if it is a valid date.
    pub last_modified: Option<SystemTime>,
    /// Whether `last_modified` is strong: `Date` is at least 60 s later (RFC 9110 section 8.8.2.2).
    pub date_is_strong: bool,
}

impl Validator {
    /// Reads the validator fields of a response.
    pub fn of(headers: &HeaderMap) -> Self {
        let date =
            |name| headers.get(name).and_then(|v| v.to_str().ok()).and_then(|v| httpdate::parse_http_date(v).ok());
        let etag = headers.get(ETAG).and_then(|v| v.to_str().ok()).and_then(EntityTag::parse);
        let last_modified: Option<SystemTime> = date(LAST_MODIFIED);
        let age_at_response = last_modified.zip(date(DATE)).and_then(|(m, d)| d.duration_since(m).ok());
        let date_is_strong = age_at_response.is_some_and(|age| age >= Duration::from_secs(60));
        Self { etag, last_modified, date_is_strong }
    }

    /// Whether there is anything to validate with.
    pub fn is_present(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }

    /// Whether bytes of two answers with this validator may be joined (RFC 9110 section 14.5, RFC 9111
    /// section 3.4): a strong entity tag, or without any entity tag a strong date.
    pub fn is_strong(&self) -> bool {
        match &self.etag {
            Some(etag) => !etag.is_weak(),
            None => self.last_modified.is_some() && self.date_is_strong,
        }
    }

    /// Whether `self` and `other` are the same strong validator.
    pub fn same_strong(&self, other: &Self) -> bool {
        match (&self.etag, &other.etag) {
            (Some(a), Some(b)) => a.strong_eq(b),
            (None, None) => {
                self.last_modified == other.last_modified
                    && self.is_strong()
                    && (other.is_strong() || other.last_modified.is_some())
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_compare_as_in_the_rfc_table() {
        let tag = |text| EntityTag::parse(text).unwrap();
        for (a, b, strong, weak) in [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
        ] {
            assert_eq!((tag(a).strong_eq(&tag(b)), tag(a).weak_eq(&tag(b))), (strong, weak), "{a} {b}");
        }
        for text in ["", "abc", "\"", "\"a\"b\"", "w/\"a\"", "\"a b\""] {
            assert_eq!(EntityTag::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_date_is_strong_only_a_minute_before_the_response() {
        let headers = |modified: &str, date: &str| {
            HeaderMap::from_iter([(LAST_MODIFIED, modified.parse().unwrap()), (DATE, date.parse().unwrap())])
        };
        let now = "Mon, 23 Nov 2026 12:00:00 GMT";
        assert!(Validator::of(&headers("Mon, 23 Nov 2026 11:59:00 GMT", now)).is_strong());
        assert!(!Validator::of(&headers("Mon, 23 Nov 2026 11:59:01 GMT", now)).is_strong());
        assert!(!Validator::of(&headers("Mon, 23 Nov 2026 12:00:01 GMT", now)).is_strong());
    }
}
