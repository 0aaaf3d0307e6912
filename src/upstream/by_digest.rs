//! Requests by digest (RFC 6920 section 4): content is asked for by what it is, wherever it came from. Only parents whose word
//! counts are asked: a digest is a capability, and who is shown one could ask others for it.

use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use crate::content::{Digest, Policy};

use super::budget::Standing;
use super::client::Upstream;
use super::fetch::{Ask, FetchResponse};
use super::plan::{Source, share};

/// What is asked for and what is said is the same in no other coding.
const IDENTITY: (HeaderName, HeaderValue) = (ACCEPT_ENCODING, HeaderValue::from_static("identity"));

impl Upstream {
    /// Whether there is a parent that may be asked by digest.
    pub fn asks_by_digest(&self) -> bool {
        self.inner.settings.parents.iter().any(|parent| Source::parent(parent).trusted)
    }

    /// The parents that may be asked by digest now, in the order in which they are.
    pub fn parents_by_digest(&self) -> Vec<Source> {
        if self.is_shut() {
            return Vec::new();
        }
        let parents = self.inner.settings.parents.iter().map(Source::parent);
        let mut sources: Vec<Source> = parents.filter(|source| source.trusted).collect();
        self.inner.sources.arrange(&mut sources, None, std::time::Instant::now());
        sources
    }

    /// Asks the trusted parents in their order for the content `digest`, once each, without its first `from` bytes; `None`
    /// when none of them has it. That the bytes are what was asked for is for the caller to check.
    pub async fn fetch_by_digest(&self, digest: Digest, from: u64, deadline: Instant) -> Option<FetchResponse> {
        let sources = self.parents_by_digest();
        for (index, source) in sources.iter().enumerate() {
            let limit = share(Instant::now(), deadline, sources.len() - index);
            if let Some(response) = self.ask_by_digest(source, digest, (from, None), limit).await {
                return Some(response);
            }
        }
        None
    }

    /// Asks one of them for the bytes of the content `digest` from `first` to `last`, or to the end. The first one must be
    /// there before `limit`.
    pub async fn ask_by_digest(
        &self,
        source: &Source,
        digest: Digest,
        (first, last): (u64, Option<u64>),
        limit: Instant,
    ) -> Option<FetchResponse> {
        let mut headers = HeaderMap::from_iter([IDENTITY]);
        if first > 0 || last.is_some() {
            let last = last.map(|last| last.to_string()).unwrap_or_default();
            headers.extend(HeaderValue::try_from(format!("bytes={first}-{last}")).ok().map(|range| (RANGE, range)));
        }
        let mut ask = Ask {
            method: Method::GET,
            origin: source.peer.clone(),
            target: format!("/.well-known/ni/sha-256/{}", digest.to_base64url()),
            headers,
            policy: Arc::new(Policy::for_host(&source.peer.host)),
            standing: Standing::default(),
            body: None,
            deadline: limit,
            by_digest: true,
            yields: false,
            interims: None,
            stands_in: false,
        };
        let result = self.attempt(&mut ask, source, limit).await;
        self.count(&result);
        match result {
            Ok(response) if matches!(response.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) => Some(response),
            Ok(response) => {
                tracing::debug!(%source, status = %response.status, "a parent does not have this digest");
                None
            }
            Err(error) => {
                tracing::debug!(%source, %error, "a parent cannot be asked by digest");
                None
            }
        }
    }
}

/// The latest moment for the first byte of the next of `left` parents.
pub fn share_of_time(deadline: Instant, left: usize) -> Instant {
    share(Instant::now(), deadline, left)
}
