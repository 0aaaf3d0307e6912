//! [`Proofs`]: which tokens upstream has accepted for which content, so that a stored object that was fetched with
//! one token is given to another only after the origin said yes to it.
//!
//! Holds keyed hashes, never tokens. Asking the origin is the handler's business.

use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use moka::Expiry;
use moka::sync::Cache;
use sha2::Sha256;

use crate::content::{CacheKey, UnixMillis};
use crate::fill::TokenId;
use crate::resolve::AuthToken;

/// Longest time that an accepted token is remembered.
const LONGEST: Duration = Duration::from_secs(3600);

/// Accepted tokens.
pub(super) struct Proofs {
    secret: [u8; 32],
    accepted: Cache<TokenId, Duration>,
}

struct AsStored;

impl Expiry<TokenId, Duration> for AsStored {
    fn expire_after_create(&self, _: &TokenId, lifetime: &Duration, _: Instant) -> Option<Duration> {
        Some(*lifetime)
    }
}

impl Proofs {
    /// Starts with nothing accepted, under a fresh random key.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self { secret, accepted: Cache::builder().max_capacity(65_536).expire_after(AsStored).build() })
    }

    /// The id of `token` for `key`; a request without a token has one too, since content that needs a token must
    /// not be given to it unproven either.
    pub(super) fn id(&self, key: &CacheKey, token: Option<&AuthToken>) -> TokenId {
        // Every key length is valid for HMAC, so the fallback is never taken.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.secret) else { return [0; 32] };
        mac.update(key.as_str().as_bytes());
        mac.update(&[0]);
        mac.update(token.map_or(&[][..], AuthToken::bytes));
        mac.finalize().into_bytes().into()
    }

    /// Whether upstream accepted this token for this key lately.
    pub(super) fn accepts(&self, id: &TokenId) -> bool {
        self.accepted.contains_key(id)
    }

    /// Upstream accepted the token at `now`; remembered for an hour at most and never past its own end.
    pub(super) fn remember(&self, id: TokenId, token: Option<&AuthToken>, now: UnixMillis) {
        let lifetime = match token.and_then(AuthToken::expires) {
            Some(end) => end.since(now).min(LONGEST),
            None => LONGEST,
        };
        if !lifetime.is_zero() {
            self.accepted.insert(id, lifetime);
        }
    }
}
