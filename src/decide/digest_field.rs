//! The `Repr-Digest` and `Content-Digest` fields (RFC 9530 sections 2 and 3): what the sender says the whole
//! representation, or the content of this one message, hashes to; and the fields that ask for them (section 4).

use http::{HeaderMap, HeaderName};

use super::dictionary::{Value, dictionary};
use crate::content::{AnyDigest, Digest};

const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const WANT_REPR_DIGEST: HeaderName = HeaderName::from_static("want-repr-digest");
const WANT_CONTENT_DIGEST: HeaderName = HeaderName::from_static("want-content-digest");

/// What `Repr-Digest` says in an algorithm that is verified here: the SHA-256, which is made of every body anyway, and only
/// without one the SHA-512. Other algorithms are ignored; a field that is no dictionary of byte sequences (RFC 9651 section
/// 3.2) says nothing at all.
pub fn repr_digest(headers: &HeaderMap) -> Option<AnyDigest> {
    stated(headers, &REPR_DIGEST)
}

/// What `Content-Digest` says, read the same way. In a 200 it is said of the whole representation, too.
pub fn content_digest(headers: &HeaderMap) -> Option<AnyDigest> {
    stated(headers, &CONTENT_DIGEST)
}

/// An algorithm that digests are made in here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// In which algorithms a request asks for the digest of the content of its answer, what it likes best first. Of what it likes
/// equally, SHA-256 is, since it may be known already.
pub fn wanted_content_digests(request: &HeaderMap) -> impl Iterator<Item = Algorithm> + use<> {
    let wanted = Preferences::of(request, &WANT_CONTENT_DIGEST).unwrap_or_default();
    let order = match wanted.sha_512 > wanted.sha_256 {
        true => [(wanted.sha_512, Algorithm::Sha512), (wanted.sha_256, Algorithm::Sha256)],
        false => [(wanted.sha_256, Algorithm::Sha256), (wanted.sha_512, Algorithm::Sha512)],
    };
    order.into_iter().filter(|(weight, _)| *weight > Some(0)).map(|(_, algorithm)| algorithm)
}

/// Whether a request asks for the SHA-256 of the representation.
pub fn wants_digest(request: &HeaderMap) -> bool {
    Preferences::of(request, &WANT_REPR_DIGEST).is_some_and(|wanted| wanted.sha_256 > Some(0))
}

/// Whether a request says that the SHA-256 of the representation is of no use to it.
pub fn refuses_repr_digest(request: &HeaderMap) -> bool {
    Preferences::of(request, &WANT_REPR_DIGEST).is_some_and(|wanted| wanted.sha_256 == Some(0))
}

/// How much the two algorithms are wanted: from 0, not at all, to 10 (RFC 9530 section 4).
#[derive(Debug, Clone, Copy, Default)]
struct Preferences {
    sha_256: Option<i64>,
    sha_512: Option<i64>,
}

impl Preferences {
    /// What the field `name` says. A weight beyond its bounds is none.
    fn of(request: &HeaderMap, name: &HeaderName) -> Option<Self> {
        if !request.contains_key(name) {
            return None;
        }
        let members = dictionary(request, name)?;
        let weight = |algorithm| match find(&members, algorithm) {
            Some(Value::Integer(weight)) => Some(*weight).filter(|weight| (0..=10).contains(weight)),
            _ => None,
        };
        Some(Self { sha_256: weight("sha-256"), sha_512: weight("sha-512") })
    }
}

fn stated(headers: &HeaderMap, name: &HeaderName) -> Option<AnyDigest> {
    if !headers.contains_key(name) {
        return None;
    }
    let members = dictionary(headers, name)?;
    if members.iter().any(|(_, value)| !matches!(value, Value::Bytes(_))) {
        return None;
    }
    let text = |algorithm| match find(&members, algorithm) {
        Some(Value::Bytes(encoded)) => Some(encoded),
        _ => None,
    };
    let sha_256 = text("sha-256").and_then(|encoded| Digest::from_base64(encoded).ok());
    sha_256.map(AnyDigest::from).or_else(|| AnyDigest::sha_512_from_base64(text("sha-512")?))
}

fn find<'a>(members: &'a [(String, Value)], algorithm: &str) -> Option<&'a Value> {
    members.iter().find(|(name, _)| name == algorithm).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(lines: &[&str]) -> Option<AnyDigest> {
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
            assert_eq!(of(lines), Some(digest.into()), "{lines:?}");
        }
    }

    #[test]
    fn a_sha_512_counts_where_no_sha_256_is_said() {
        let (short, long) = (AnyDigest::from(Digest::of(b"abc")), AnyDigest::sha_512_of(b"abc"));
        let (own, wide) = (short.to_member(), long.to_member());
        for (lines, digest) in [
            (&[&*wide][..], long),
            (&[&format!("md5=:YQ==:, {wide};q=1")], long),
            (&["unixsum=:YQ==:", &wide], long),
            (&[&format!("sha-256=:YWJj:, {wide}")], long),
            (&[&format!("{wide}, {own}")], short),
            (&[&own, &wide], short),
            (&[&format!("sha-512=:YQ==:, {own}")], short),
        ] {
            assert_eq!(of(lines), Some(digest), "{lines:?}");
        }
        for line in [&wide[..wide.len() - 1], &wide.to_uppercase(), &format!("{wide}, sha-256"), &format!("{wide},")] {
            assert_eq!(of(&[line]), None, "{line}");
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
        use Algorithm::{Sha256, Sha512};
        let wish = |name: &HeaderName, value: &str| HeaderMap::from_iter([(name.clone(), value.parse().unwrap())]);
        for (value, wanted, refuses) in [
            ("sha-256=1", &[Sha256][..], false),
            ("sha-256=10", &[Sha256], false),
            ("sha-512=3, sha-256=10", &[Sha256, Sha512], false),
            ("sha-512=10, sha-256=1", &[Sha512, Sha256], false),
            ("sha-512=4, sha-256=4", &[Sha256, Sha512], false),
            ("sha-512=4, sha-256=0", &[Sha512], true),
            ("sha-256=1;q=2", &[Sha256], false),
            ("sha-256=1, md5=9", &[Sha256], false),
            ("sha-256=1, sha-256=0", &[], true),
            ("sha-256=0, sha-256=1", &[Sha256], false),
            ("sha-256=0", &[], true),
            ("sha-256=11", &[], false),
            ("sha-256=-1", &[], false),
            ("sha-512=5", &[Sha512], false),
            ("sha-256", &[], false),
            ("sha-256=x", &[], false),
            ("sha-256=1.5", &[], false),
            ("sha-256=1,", &[], false),
            ("sha-256=1 sha-512=1", &[], false),
            ("SHA-256=1", &[], false),
            ("", &[], false),
        ] {
            let found: Vec<_> = wanted_content_digests(&wish(&WANT_CONTENT_DIGEST, value)).collect();
            assert_eq!(found, wanted, "{value}");
            let of_whole = wish(&WANT_REPR_DIGEST, value);
            assert_eq!(refuses_repr_digest(&of_whole), refuses, "{value}");
            assert_eq!(wants_digest(&of_whole), wanted.contains(&Sha256), "{value}");
        }
        let none = HeaderMap::new();
        assert!(wanted_content_digests(&none).next().is_none() && !refuses_repr_digest(&none) && !wants_digest(&none));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(line in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                repr_digest(&HeaderMap::from_iter([(REPR_DIGEST, value.clone())]));
                wants_digest(&HeaderMap::from_iter([(WANT_REPR_DIGEST, value)]));
            }
        }

        #[test]
        fn any_digest_is_read_back(bytes in any::<[u8; 32]>()) {
            let digest = Digest::from_bytes(bytes);
            prop_assert_eq!(of(&[&format!("sha-256=:{}:", digest.to_base64())]), Some(digest.into()));
        }
    }
}
