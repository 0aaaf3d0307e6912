//! [`AnyDigest`]: what somebody says that content hashes to, in one of the two algorithms that RFC 9530 section 5 has for use
//! against forgery; and [`Verifier`], which holds bytes against it that come one after another.
//!
//! Blobs have a SHA-256 for a name, whatever was said of them: that is [`Digest`].

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha512};

use super::{Digest, Digester};

/// A digest with its algorithm.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum AnyDigest {
    /// SHA-256 (FIPS 180-4).
    Sha256(Digest),
    /// SHA-512 (FIPS 180-4).
    Sha512([u8; 64]),
}

/// The digest of bytes in the making, and what it should be.
#[derive(Debug, Clone)]
pub struct Verifier(Hash);

#[derive(Debug, Clone)]
enum Hash {
    Sha256(Digester, Digest),
    Sha512(Sha512, [u8; 64]),
}

impl AnyDigest {
    /// The SHA-512 of content that is in memory.
    pub fn sha_512_of(content: &[u8]) -> Self {
        Self::Sha512(Sha512::digest(content).into())
    }

    /// Parses a SHA-512 in standard base64 with padding, the form of RFC 9530 fields; `None` when it is none.
    pub fn sha_512_from_base64(text: &str) -> Option<Self> {
        STANDARD.decode(text).ok()?.try_into().ok().map(Self::Sha512)
    }

    /// The digest, if it is a SHA-256.
    pub fn sha_256(&self) -> Option<Digest> {
        match *self {
            Self::Sha256(digest) => Some(digest),
            Self::Sha512(_) => None,
        }
    }

    /// Whether it is that of `content`.
    pub fn is_of(&self, content: &[u8]) -> bool {
        let mut verifier = self.verifier();
        verifier.update(content);
        verifier.is_right()
    }

    /// Holds bytes against it, from the first one on.
    pub fn verifier(&self) -> Verifier {
        match *self {
            Self::Sha256(digest) => Verifier::sha_256(digest, Digester::default()),
            Self::Sha512(digest) => Verifier::sha_512(digest, Sha512::new()),
        }
    }

    /// A member of an integrity field (RFC 9530 sections 2 and 3): `sha-256=:…:`.
    pub fn to_member(&self) -> String {
        match self {
            Self::Sha256(digest) => format!("sha-256=:{}:", digest.to_base64()),
            Self::Sha512(digest) => format!("sha-512=:{}:", STANDARD.encode(digest)),
        }
    }
}

impl Verifier {
    /// Bytes that follow those of `begun` should come to `expected`.
    pub fn sha_256(expected: Digest, begun: Digester) -> Self {
        Self(Hash::Sha256(begun, expected))
    }

    /// The same by SHA-512.
    pub fn sha_512(expected: [u8; 64], begun: Sha512) -> Self {
        Self(Hash::Sha512(begun, expected))
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Hash::Sha256(hash, _) => hash.update(bytes),
            Hash::Sha512(hash, _) => hash.update(bytes),
        }
    }

    /// Whether the bytes taken in so far have the digest.
    pub fn is_right(&self) -> bool {
        match &self.0 {
            Hash::Sha256(hash, expected) => hash.clone().finish() == *expected,
            Hash::Sha512(hash, expected) => <[u8; 64]>::from(hash.clone().finalize()) == *expected,
        }
    }
}

impl From<Digest> for AnyDigest {
    fn from(digest: Digest) -> Self {
        Self::Sha256(digest)
    }
}

/// A SHA-256 in the form that `sha256sum` prints, a SHA-512 in that of `sha512sum` behind its name.
impl fmt::Display for AnyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => digest.fmt(f),
            Self::Sha512(digest) => {
                f.write_str("sha-512 ")?;
                digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

impl fmt::Debug for AnyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => digest.fmt(f),
            Self::Sha512([a, b, c, d, ..]) => write!(f, "Sha512({a:02x}{b:02x}{c:02x}{d:02x}..)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4, as RFC 6234 section 8.5 has it.
    const ABC: &str = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

    #[test]
    fn a_sha_512_is_read_and_written() {
        let digest = AnyDigest::sha_512_of(b"abc");
        assert_eq!(digest.to_string(), format!("sha-512 {ABC}"));
        let member = digest.to_member();
        let base64 = member.strip_prefix("sha-512=:").unwrap().strip_suffix(':').unwrap();
        assert_eq!(AnyDigest::sha_512_from_base64(base64), Some(digest));
        for text in ["", "YWJj", &base64[1..], &format!("{base64}="), &Digest::of(b"abc").to_base64()] {
            assert_eq!(AnyDigest::sha_512_from_base64(text), None, "{text}");
        }
        assert_eq!((digest.sha_256(), AnyDigest::from(Digest::of(b"abc")).sha_256()), (None, Some(Digest::of(b"abc"))));
    }

    #[test]
    fn bytes_are_held_against_either() {
        for digest in [AnyDigest::sha_512_of(b"abc"), Digest::of(b"abc").into()] {
            assert!(digest.is_of(b"abc") && !digest.is_of(b"abd") && !digest.is_of(b""));
            let mut verifier = digest.verifier();
            verifier.update(b"ab");
            assert!(!verifier.is_right());
            verifier.update(b"c");
            assert!(verifier.is_right() && verifier.is_right(), "asking changes nothing");
            verifier.update(b"d");
            assert!(!verifier.is_right());
        }
        let mut last = match AnyDigest::sha_512_of(b"abc") {
            AnyDigest::Sha512(digest) => digest,
            AnyDigest::Sha256(_) => unreachable!(),
        };
        last[63] ^= 1;
        assert!(!AnyDigest::Sha512(last).is_of(b"abc"), "every bit counts");
    }
}
