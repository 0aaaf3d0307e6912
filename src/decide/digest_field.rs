//! The `Repr-Digest` and `Content-Digest` fields (RFC 9530 sections 2 and 3): what the sender says the whole
//! representation, or the content of this one message, hashes to; and the fields that ask for them (section 4).

use http::{HeaderMap, HeaderName};

use super::dictionary::{Value, dictionary};
use crate::content::Digest;

const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// The SHA-256 in `Repr-Digest`. Other algorithms are ignored; a field that is no dictionary of byte sequences
/// (RFC 9651 section 3.2) says nothing at all.
pub fn repr_digest(headers: &HeaderMap) -> Option<Digest> {
    sha_256(headers, &REPR_DIGEST)
}

/// The SHA-256 in `Content-Digest`, read the same way. In a 200 it is that of the whole representation, too.
pub fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    sha_256(headers, &CONTENT_DIGEST)
}

const WANT_REPR_DIGEST: HeaderName = HeaderName::from_static("want-repr-digest");
const WANT_CONTENT_DIGEST: HeaderName = HeaderName::from_static("want-content-digest");

/// Whether a request asks for the SHA-256 of the content of its answer.
pub fn wants_content_digest(request: &HeaderMap) -> bool {
    preference(request, &WANT_CONTENT_DIGEST).is_some_and(|weight| (1..=10).contains(&weight))
}

/// Whether a request says that the SHA-256 of the representation is of no use to it.
pub fn refuses_repr_digest(request: &HeaderMap) -> bool {
    preference(request, &WANT_REPR_DIGEST) == Some(0)
}

/// How much SHA-256 is wanted by the field: from 0, not at all, to 10.
fn preference(request: &HeaderMap, name: &HeaderName) -> Option<i64> {
    if !request.contains_key(name) {
        return None;
    }
    dictionary(request, name)?.into_iter().find_map(|(algorithm, weight)| match weight {
        Value::Integer(weight) if algorithm == "sha-256" => Some(weight),
        _ => None,
    })
}

fn sha_256(headers: &HeaderMap, name: &HeaderName) -> Option<Digest> {
    if !headers.contains_key(name) {
        return None;
    }
    let members = dictionary(headers, name)?;
    let mut found = None;
    for (algorithm, value) in members {
        let Value::Bytes(encoded) = value else { return None };
        if algorithm == "sha-256" {
            found = Digest::from_base64(&encoded).ok();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(lines: &[&str]) -> Option<Digest> {
        repr_digest(&lines.iter().map(|line| (REPR_DIGEST, HeaderValue::from_str(line).unwrap())).collect())
    }

    #[test]
    fn the_sha_256_is_found() {
        let digest = Digest::of(b"abc");
        let own = format!("sha-256=:{}:", digest.to_base64());
        let other = format!("sha-256=:{}:", Digest::of(b"other").to_base64());
        for lines in [
            &[&*own][..],
            &[&format!("sha-512=:YQ==:, {own}")],
            &[&format!("{own} ,md5=:YQ==:")],
            &["sha-512=:YQ==:", &own],
            &[&format!("{own};q=1; x")],
            &[&format!("{other}, {own}")],
        ] {
            assert_eq!(of(lines), Some(digest), "{lines:?}");
        }
    }

    #[test]
    fn anything_else_says_nothing() {
        let base64 = Digest::of(b"abc").to_base64();
        for line in [
            "",
            "sha-256",
            "sha-256=",
            "sha-256=:",
            "sha-256=::",
            "sha-256=:YWJj:",
            "sha-512=:YQ==:",
            &format!("sha-256={base64}"),
            &format!("sha-256=\"{base64}\""),
            &format!("sha-256=:{base64}"),
            &format!("sha-256=:{base64}:x"),
            &format!("SHA-256=:{base64}:"),
            &format!("sha-256 =:{base64}:"),
            &format!("sha-256=:{base64}:,"),
            &format!("sha-256=:{base64}:, nonsense"),
            &format!("sha-256=:{base64}:, sha-256=:YWJj:"),
        ] {
            assert_eq!(of(&[line]), None, "{line}");
        }
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn what_is_wanted_is_a_weight_from_0_to_10() {
        let wish = |name: &HeaderName, value: &str| HeaderMap::from_iter([(name.clone(), value.parse().unwrap())]);
        for (value, wants, refuses) in [
            ("sha-256=1", true, false),
            ("sha-512=3, sha-256=10", true, false),
            ("sha-256=0", false, true),
            ("sha-256=11", false, false),
            ("sha-256=-1", false, false),
            ("sha-512=5", false, false),
            ("sha-256", false, false),
            ("sha-256=1.5", false, false),
            ("sha-256=1,", false, false),
            ("", false, false),
        ] {
            assert_eq!(wants_content_digest(&wish(&WANT_CONTENT_DIGEST, value)), wants, "{value}");
            assert_eq!(refuses_repr_digest(&wish(&WANT_REPR_DIGEST, value)), refuses, "{value}");
        }
        assert!(!wants_content_digest(&HeaderMap::new()) && !refuses_repr_digest(&HeaderMap::new()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(line in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                repr_digest(&HeaderMap::from_iter([(REPR_DIGEST, value)]));
            }
        }

        #[test]
        fn any_digest_is_read_back(bytes in any::<[u8; 32]>()) {
            let digest = Digest::from_bytes(bytes);
            prop_assert_eq!(of(&[&format!("sha-256=:{}:", digest.to_base64())]), Some(digest));
        }
    }
}
