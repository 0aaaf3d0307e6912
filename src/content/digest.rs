//! [`Digest`]: the SHA-256 of a complete body, the only name a blob has.
//!
//! Parsing and formatting only; hashing of bodies while they fill lives in `store`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

/// SHA-256 over the bytes of one complete representation (FIPS 180-4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Digest([u8; 32]);

/// A SHA-256 in the making, over bytes that come one after another.
#[derive(Debug, Clone, Default)]
pub struct Digester(Sha256);

/// The text was not a SHA-256 in the form that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256 digest in {form}: {reason}")]
pub struct ParseDigestError {
    form: &'static str,
    reason: &'static str,
}

impl Digest {
    /// Wraps 32 bytes that are known to be a SHA-256.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Hashes `content` whole. For bodies that are in memory already.
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }

    /// Hashes content that is in memory in several pieces.
    pub fn of_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut digester = Digester::default();
        pieces.into_iter().for_each(|piece| digester.update(piece));
        digester.finish()
    }

    /// Parses 64 hexadecimal digits, upper or lower case.
    ///
    /// # Errors
    /// When the length is not 64 or a character is not a hexadecimal digit.
    pub fn from_hex(text: &str) -> Result<Self, ParseDigestError> {
        let error = |reason| ParseDigestError { form: "hexadecimal", reason };
        let text = text.as_bytes();
        if text.len() != 64 {
            return Err(error("64 digits are needed"));
        }
        let mut bytes = [0u8; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let (Some(high), Some(low)) = ((pair[0] as char).to_digit(16), (pair[1] as char).to_digit(16)) else {
                return Err(error("only 0-9 and a-f are allowed"));
            };
            *byte = (high * 16 + low) as u8;
        }
        Ok(Self(bytes))
    }

    /// Parses standard base64 with padding, the form of RFC 9530 fields and of Device Update manifests.
    ///
    /// # Errors
    /// When the text is not base64 or does not decode to 32 bytes.
    pub fn from_base64(text: &str) -> Result<Self, ParseDigestError> {
        Self::decode(STANDARD.decode(text).ok(), "base64")
    }

    /// Parses base64url without padding, the form of RFC 6920 names.
    ///
    /// # Errors
    /// When the text is not base64url or does not decode to 32 bytes.
    pub fn from_base64url(text: &str) -> Result<Self, ParseDigestError> {
        Self::decode(URL_SAFE_NO_PAD.decode(text).ok(), "base64url")
    }

    fn decode(bytes: Option<Vec<u8>>, form: &'static str) -> Result<Self, ParseDigestError> {
        let bytes = bytes.ok_or(ParseDigestError { form, reason: "the alphabet or the padding is wrong" })?;
        let bytes = bytes.try_into().map_err(|_| ParseDigestError { form, reason: "32 bytes are needed" })?;
        Ok(Self(bytes))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 16 bytes.
    pub fn prefix(&self) -> [u8; 16] {
        let mut prefix = [0; 16];
        prefix.copy_from_slice(&self.0[..16]);
        prefix
    }

    /// 64 lower-case hexadecimal digits, as `sha256sum` prints them.
    pub fn to_hex(&self) -> String {
        self.to_string()
    }

    /// Standard base64 with padding (RFC 9530 section 3).
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// base64url without padding (RFC 6920 section 3).
    pub fn to_base64url(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }
}

impl Digester {
    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl From<Sha256> for Digester {
    fn from(hash: Sha256) -> Self {
        Self(hash)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        // In one piece: every file of a blob is found by it.
        let mut hex = [0; 64];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        f.write_str(std::str::from_utf8(&hex).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "Digest({a:02x}{b:02x}{c:02x}{d:02x}..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn forms_round_trip() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_hex(), ABC);
        assert_eq!(Digest::from_hex(&ABC.to_uppercase()), Ok(digest));
        assert_eq!(Digest::from_base64(&digest.to_base64()), Ok(digest));
        assert_eq!(Digest::from_base64url(&digest.to_base64url()), Ok(digest));
    }

    #[test]
    fn wrong_text_is_refused() {
        for text in ["", "ab", &ABC[..63], &format!("{ABC}0"), &ABC.replace('b', "g"), &"é".repeat(32)] {
            assert!(Digest::from_hex(text).is_err(), "{text}");
        }
        assert!(Digest::from_base64("YWJj").is_err());
        assert!(Digest::from_base64("!").is_err());
    }
}
