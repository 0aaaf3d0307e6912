//! `Repr-Digest` (RFC 9530 section 3): the digest that upstream claims for the whole representation.

use http::{HeaderMap, HeaderName};

use crate::content::Digest;

const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// The SHA-256 in `Repr-Digest`. Other algorithms, broken members and two digests that differ count as none.
pub fn repr_digest(headers: &HeaderMap) -> Option<Digest> {
    let lines = headers.get_all(REPR_DIGEST).iter().filter_map(|line| line.to_str().ok());
    let members = lines.flat_map(|line| line.split(',')).filter_map(|member| member.trim().split_once('='));
    let mut digests = members.filter(|(name, _)| *name == "sha-256").map(|(_, value)| {
        let value = value.split(';').next().unwrap_or_default().trim();
        Digest::from_base64(value.strip_prefix(':')?.strip_suffix(':')?).ok()
    });
    let first = digests.next()??;
    digests.all(|other| other == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::super::tests::fields;
    use super::*;

    #[test]
    fn only_a_well_formed_sha_256_counts() {
        let digest = Digest::of(b"abc");
        let good = format!("sha-256=:{}:", digest.to_base64());
        let other = format!("sha-256=:{}:", Digest::of(b"x").to_base64());
        for (value, expected) in [
            (good.clone(), Some(digest)),
            (format!("sha-512=:AAAA:, {good}"), Some(digest)),
            (format!("{good};x=1"), Some(digest)),
            (format!("{good}, {good}"), Some(digest)),
            (format!("{good}, {other}"), None),
            (digest.to_base64(), None),
            (format!("sha-256={}", digest.to_base64()), None),
            ("sha-256=:AAAA:".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(repr_digest(&fields(&[("repr-digest", &value)])), expected, "{value}");
        }
    }
}
