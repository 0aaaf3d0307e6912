//! [`ByDigest`]: bytes of a stored blob by its digest from trusted parents, where its URL cannot be had any more. What comes
//! is judged by who asks.
//!
//! Nothing is given to anybody by this that could not be had before: the blob is stored under the URL, and all but its
//! broken blocks are given out. So a refusal of the URL does not stand in the way, as it does where content is to come under
//! another name (`known`). Who shows credentials, and what came with some, is left out all the same: a digest is a
//! capability, and nobody is told one of protected content.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::AUTHORIZATION;
use tokio::time::Instant;

use super::stream::{SKIPPED, Stream};
use super::{Inner, Want};
use crate::content::{AuthParameters, ByteRange, Digest};
use crate::store::Entry;
use crate::upstream::{FetchResponse, Framing, Source, Subject, share_of_time};

/// The parents that one mending asks.
pub(super) struct ByDigest<'a> {
    inner: &'a Arc<Inner>,
    digest: Digest,
    /// Bytes of the blob.
    length: Option<u64>,
    parents: Vec<Source>,
    /// The one that is asked, or was asked last. None before it is asked again.
    at: usize,
    /// It gave what it was asked for last.
    gives: bool,
}

impl<'a> ByDigest<'a> {
    /// For the blob `digest` of `entry`, which `want` asks for. Nobody is asked where that may not be, or was in vain just now.
    pub(super) fn new(inner: &'a Arc<Inner>, want: &Want, entry: &Entry, digest: Digest) -> Self {
        let record = &entry.record;
        let is_personal = want.carries_token || want.headers.contains_key(AUTHORIZATION);
        let is_protected = record.token_protected || want.policy.auth_parameters != AuthParameters::None;
        let is_vain = inner.mending.was_vain(digest);
        let may = want.policy.parents && !is_personal && !is_protected && !is_vain;
        let parents = if may { inner.upstream.parents_by_digest() } else { Vec::new() };
        Self { inner, digest, length: record.length, parents, at: 0, gives: false }
    }

    /// Whether somebody is left to be asked.
    pub(super) fn has_more(&self) -> bool {
        self.at < self.parents.len()
    }

    /// Whether it is asked first for more, since the sources of the URL had nothing just now.
    pub(super) fn gives(&self) -> bool {
        self.gives
    }

    /// Brings the begin of `range`, at least `least` bytes of it or all. Who does not have so much is not asked again.
    pub(super) async fn bring(&mut self, range: ByteRange, least: u64, deadline: Instant) -> Option<Vec<Bytes>> {
        self.gives = false;
        if self.has_more() {
            // Also when this is broken off.
            self.inner.mending.note_vain(self.digest);
        }
        while let Some(source) = self.parents.get(self.at) {
            let limit = share_of_time(deadline, self.parents.len() - self.at);
            let asked = (range.start(), Some(range.last()));
            let response = self.inner.upstream.ask_by_digest(source, self.digest, asked, limit).await;
            let fitting = response.and_then(|response| Some((begin_of(range, self.length, &response)?, response)));
            if let Some((at, response)) = fitting {
                let mut kept = Vec::new();
                // What matters is how much came.
                let _ = Stream::new(response, at).keep(range, deadline, &mut kept).await;
                let came: usize = kept.iter().map(Bytes::len).sum();
                if came as u64 >= least.min(range.len()) {
                    tracing::info!(%source, digest = %self.digest, "no source of the URL gives broken blocks; a parent has them by their digest");
                    self.gives = true;
                    return Some(kept);
                }
            }
            self.at += 1;
        }
        None
    }

    /// What came is what was there.
    pub(super) fn was_right(&self) {
        self.inner.mending.forget_vain(self.digest);
    }

    /// What came last is not what was asked for.
    pub(super) fn was_wrong(&mut self) {
        self.gives = false;
        if let Some(source) = self.parents.get(self.at) {
            tracing::warn!(%source, digest = %self.digest, "a parent has other bytes by this digest");
            self.inner.upstream.gave_wrong(source, Subject::Asked(self.digest));
            self.at += 1;
        }
    }
}

/// Where the answer begins: at the begin of `range`, or of everything.
fn begin_of(range: ByteRange, length: Option<u64>, response: &FetchResponse) -> Option<u64> {
    match (response.status, response.content_range, response.framing) {
        (StatusCode::PARTIAL_CONTENT, Some(part), _) => {
            let fits = part.first == range.start() && part.last <= range.last() && part.total == length;
            fits.then_some(range.start())
        }
        (StatusCode::OK, _, Framing::Length(all)) => (Some(all) == length && range.start() <= SKIPPED).then_some(0),
        _ => None,
    }
}
