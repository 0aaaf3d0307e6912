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

    /// Asks the trusted parents in their order for the content `digest`, once each, without its first `from` bytes; `None`
    /// when none of them has it. That the bytes are what was asked for is for the caller to check.
    pub async fn fetch_by_digest(&self, digest: Digest, from: u64, deadline: Instant) -> Option<FetchResponse> {
        let parents = self.inner.settings.parents.iter().map(Source::parent);
        let sources: Vec<Source> = parents.filter(|source| source.trusted).collect();
        if self.is_shut() {
            return None;
        }
        let mut headers = HeaderMap::from_iter([IDENTITY]);
        if from > 0 {
            headers.extend(HeaderValue::try_from(format!("bytes={from}-")).ok().map(|range| (RANGE, range)));
        }
        for (index, source) in sources.iter().enumerate() {
            let mut ask = Ask {
                method: Method::GET,
                origin: source.peer.clone(),
                target: format!("/.well-known/ni/sha-256/{}", digest.to_base64url()),
                headers: headers.clone(),
                policy: Arc::new(Policy::for_host(&source.peer.host)),
                standing: Standing::default(),
                body: None,
                deadline,
                by_digest: true,
                yields: false,
                interims: None,
            };
            let limit = share(Instant::now(), deadline, sources.len() - index);
            let result = self.attempt(&mut ask, source, limit).await;
            self.count(&result);
            match result {
                Ok(response) if matches!(response.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) => {
                    return Some(response);
                }
                Ok(response) => {
                    tracing::debug!(%source, status = %response.status, "a parent does not have this digest")
                }
                Err(error) => tracing::debug!(%source, %error, "a parent cannot be asked by digest"),
            }
        }
        None
    }
}
