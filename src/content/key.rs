//! [`CacheKey`]: what makes two requests mean the same resource.
//!
//! How a request becomes a key is `resolve`'s business; here is only the value and its short hash.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

/// Canonical origin, normalised path and kept query of a resource, for example
/// `dl.example.com/p/a.swu?v=1`. Cheap to clone. Variants (RFC 9110 section 12.5.5) share a key.
#[derive(Clone)]
pub struct CacheKey {
    text: Arc<str>,
    hash: KeyHash,
}

/// The first 128 bits of the SHA-256 of a key's text: its name in memory, in the index and in journals.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct KeyHash([u8; 16]);

impl CacheKey {
    /// Takes a text that is canonical already.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        let text = text.into();
        let mut hash = [0u8; 16];
        hash.copy_from_slice(&Sha256::digest(text.as_bytes())[..16]);
        Self { text, hash: KeyHash(hash) }
    }

    /// The canonical text; it holds no secrets, since auth parameters are not part of a key.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The short hash of the text.
    pub fn hash(&self) -> KeyHash {
        self.hash
    }
}

impl KeyHash {
    /// Wraps the 16 bytes of a stored hash.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl PartialEq for CacheKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.text == other.text
    }
}

impl Eq for CacheKey {}

impl std::hash::Hash for CacheKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({})", self.text)
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(")?;
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("..)")
    }
}

impl serde::Serialize for CacheKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> serde::Deserialize<'de> for CacheKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}
