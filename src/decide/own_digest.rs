//! Whose word a `Repr-Digest` is (RFC 9530). A cache passes on what an origin claims, and says of its own account what it has
//! stored: the field alone does not tell one from the other. Who wants to know asks with `Want-Repr-Digest` (RFC 9530
//! section 4) and finds a parameter in the last member of `Cache-Status`, which is that of the cache that was asked (RFC 9211
//! section 2). Pure; whether a word is trusted is decided by who asked.

use http::{HeaderMap, HeaderName, StatusCode};

use super::digest_field::repr_digest;
use super::status::OWN_DIGEST;
use crate::content::{AnyDigest, BodyRef, Digest, ExpectedDigest, Record};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The digest of the representation that this cache itself says: that of the bytes that it has all of, or what they must be
/// by its operator or by a verified manifest. A source's claim is none.
pub fn own_digest(record: &Record) -> Option<Digest> {
    if record.status != StatusCode::OK {
        return None;
    }
    match (record.body, record.expected) {
        (BodyRef::Blob(digest), _) => Some(digest),
        (BodyRef::Partial(_), Some(ExpectedDigest::Rule(digest) | ExpectedDigest::Manifest(digest))) => Some(digest),
        (BodyRef::Partial(_), Some(ExpectedDigest::Upstream(_)) | None) => None,
    }
}

/// The SHA-512 of the representation that its source said and that has been verified: there is all of it, and it would not be
/// had the digest been wrong.
pub fn verified_sha_512(record: &Record) -> Option<AnyDigest> {
    match (record.status, record.body, record.expected) {
        (StatusCode::OK, BodyRef::Blob(_), Some(ExpectedDigest::Upstream(said @ AnyDigest::Sha512(_)))) => Some(said),
        _ => None,
    }
}

/// The digest that the cache which gave this answer says of its own account.
pub fn said_digest(answer: &HeaderMap) -> Option<Digest> {
    let last = answer.get_all(&CACHE_STATUS).iter().next_back()?.to_str().ok()?;
    let member = last_member(last)?;
    // Names are tokens or strings, and so are values; a parameter in a string is none.
    let mut parameters = split_outside_strings(member, ';').into_iter().skip(1);
    parameters.any(|parameter| parameter.trim() == OWN_DIGEST).then(|| repr_digest(answer)?.sha_256()).flatten()
}

fn last_member(line: &str) -> Option<&str> {
    split_outside_strings(line, ',').pop()
}

/// The parts of `text` between separators that are not within a string (RFC 9651 section 3.3.3); nothing when a string has no
/// end.
fn split_outside_strings(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut begin) = (Vec::new(), 0);
    let (mut in_string, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ if c == separator && !in_string => {
                parts.extend(text.get(begin..at));
                begin = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.extend(text.get(begin..));
    if in_string { Vec::new() } else { parts }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::content::PartialId;
    use crate::decide::CacheStatus;
    use crate::decide::sample::record;

    fn answer(lines: &[&str]) -> HeaderMap {
        let mut headers: HeaderMap =
            lines.iter().map(|line| (CACHE_STATUS, HeaderValue::from_str(line).unwrap())).collect();
        let digest = format!("sha-256=:{}:", Digest::of(b"abc").to_base64());
        headers.insert("repr-digest", digest.parse().unwrap());
        headers
    }

    #[test]
    fn only_the_word_of_the_cache_that_was_asked_is_its_word() {
        let own = CacheStatus::hit().with_ttl(5).with_own_digest().render("l5");
        assert_eq!(own, "l5; hit; ttl=5; digest=own");
        for lines in
            [&[&*own][..], &["l6; hit", &own], &["l6; hit, l5; fwd=miss; digest=own"], &["\"a, b\"; digest=own"]]
        {
            assert_eq!(said_digest(&answer(lines)), Some(Digest::of(b"abc")), "{lines:?}");
        }
        for lines in [
            &[][..],
            &["l5; hit"],
            &["l5; hit; digest=other"],
            &["digest=own"],
            &["l5; detail=\"; digest=own\""],
            &["l5; detail=\"digest=own"],
            &[&own, "l4; fwd=miss"],
            &["l6; hit; digest=own, l5; fwd=miss"],
            &["\"; digest=own", "l5; fwd=miss"],
        ] {
            assert_eq!(said_digest(&answer(lines)), None, "{lines:?}");
        }
        let mut without = answer(&[&own]);
        without.remove("repr-digest");
        assert_eq!(said_digest(&without), None);
    }

    #[test]
    fn a_claim_of_a_source_is_not_our_word() {
        let (stored, claimed) = (Digest::of(b"stored"), Digest::of(b"claimed"));
        let of = |status, body, expected| own_digest(&Record { body, expected, ..record(status, &[]) });
        let (whole, begun) = (BodyRef::Blob(stored), BodyRef::Partial(PartialId(1)));
        assert_eq!(of(200, whole, Some(ExpectedDigest::Upstream(stored.into()))), Some(stored));
        assert_eq!(of(404, whole, None), None);
        assert_eq!(of(200, begun, None), None);
        assert_eq!(of(200, begun, Some(ExpectedDigest::Upstream(claimed.into()))), None);
        assert_eq!(of(200, begun, Some(ExpectedDigest::Rule(claimed))), Some(claimed));
        assert_eq!(of(200, begun, Some(ExpectedDigest::Manifest(claimed))), Some(claimed));
    }

    #[test]
    fn a_sha_512_is_said_once_all_of_the_content_has_it() {
        let (stored, said) = (Digest::of(b"stored"), AnyDigest::sha_512_of(b"stored"));
        let of = |status, body, expected| verified_sha_512(&Record { body, expected, ..record(status, &[]) });
        let (whole, begun) = (BodyRef::Blob(stored), BodyRef::Partial(PartialId(1)));
        let claim = Some(ExpectedDigest::Upstream(said));
        assert_eq!(of(200, whole, claim), Some(said));
        assert_eq!(own_digest(&Record { body: whole, expected: claim, ..record(200, &[]) }), Some(stored));
        assert_eq!((of(200, begun, claim), of(404, whole, claim), of(200, whole, None)), (None, None, None));
        assert_eq!(of(200, whole, Some(ExpectedDigest::Upstream(stored.into()))), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(line in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                let headers = HeaderMap::from_iter([(CACHE_STATUS, value)]);
                prop_assert_eq!(said_digest(&headers), None, "there is no Repr-Digest");
            }
        }
    }
}
