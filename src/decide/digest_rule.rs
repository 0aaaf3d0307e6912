//! What a digest rule of the operator says of a stored response. The rule may be younger than the response: content that
//! was stored before is held to it, too.

use http::StatusCode;

use super::digest_field::repr_digest;
use crate::content::{BodyRef, Digest, ExpectedDigest, Record};

/// A stored response under the rule for its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnderRule {
    /// Nothing is to be changed.
    Fits,
    /// It is whole, and not what the rule says: as good as not stored.
    Refused,
    /// It is not whole yet, and this is what it must become.
    Expects(Option<ExpectedDigest>),
}

/// Judges `record` by the digest that the operator wants of its path, if there is one.
pub fn under_rule(record: &Record, rule: Option<Digest>) -> UnderRule {
    // Of an error the rule says nothing.
    if record.status != StatusCode::OK {
        return UnderRule::Fits;
    }
    match (record.body, rule, record.expected) {
        (BodyRef::Blob(digest), Some(rule), _) if digest != rule => UnderRule::Refused,
        (BodyRef::Blob(_), ..) | (_, _, Some(ExpectedDigest::Manifest(_))) => UnderRule::Fits,
        (_, Some(rule), expected) => {
            let due = Some(ExpectedDigest::Rule(rule));
            if expected == due { UnderRule::Fits } else { UnderRule::Expects(due) }
        }
        // The operator has taken the rule back.
        (_, None, Some(ExpectedDigest::Rule(_))) => {
            UnderRule::Expects(repr_digest(&record.headers).map(ExpectedDigest::Upstream))
        }
        (_, None, _) => UnderRule::Fits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::PartialId;
    use crate::decide::sample::record;

    #[test]
    fn what_is_whole_fits_or_is_refused() {
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        let whole = |status| Record { body: BodyRef::Blob(one), ..record(status, &[]) };
        assert_eq!(under_rule(&whole(200), None), UnderRule::Fits);
        assert_eq!(under_rule(&whole(200), Some(one)), UnderRule::Fits);
        assert_eq!(under_rule(&whole(200), Some(other)), UnderRule::Refused);
        assert_eq!(under_rule(&whole(404), Some(other)), UnderRule::Fits, "an error has no such content");
    }

    #[test]
    fn what_is_not_whole_is_expected_to_become_what_the_rule_says() {
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        let claim = format!("sha-256=:{}:", other.to_base64());
        let begun = |expected| Record {
            body: BodyRef::Partial(PartialId(1)),
            expected,
            ..record(200, &[("repr-digest", &*claim)])
        };
        let (rule, claimed) = (Some(ExpectedDigest::Rule(one)), Some(ExpectedDigest::Upstream(other.into())));
        for expected in [None, claimed, Some(ExpectedDigest::Rule(other))] {
            assert_eq!(under_rule(&begun(expected), Some(one)), UnderRule::Expects(rule));
        }
        assert_eq!(under_rule(&begun(rule), Some(one)), UnderRule::Fits);
        assert_eq!(under_rule(&begun(rule), None), UnderRule::Expects(claimed), "the rule was taken back");
        assert_eq!(under_rule(&begun(claimed), None), UnderRule::Fits);
        let manifest = Some(ExpectedDigest::Manifest(other));
        assert_eq!(under_rule(&begun(manifest), Some(one)), UnderRule::Fits, "it is signed");
    }
}
