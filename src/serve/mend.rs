//! [`Mender`]: has blocks of a stored body that do not hold fetched again, while a request for them waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::ask::Ask;
use super::handler::Handler;
use crate::content::ByteRange;
use crate::fill::{Fill, MendError, Want};
use crate::resolve::RequestForm;
use crate::store::{Body, Entry};

/// How long a client waits for a block in the middle of its answer: less than the 20 s after which an agent avoids the
/// cache.
const PATIENCE: Duration = Duration::from_secs(14);

/// How often in a row a block may turn out broken again after it was mended: then the drive keeps nothing.
const ATTEMPTS: u32 = 3;

/// What one answer needs to have blocks of its body mended.
pub(super) struct Mender {
    fill: Fill,
    want: Want,
    entry: Arc<Entry>,
    attempts: u32,
}

impl Mender {
    /// `None` for requests for which nothing may be fetched: by digest, and those that say so.
    pub(super) fn new(handler: &Handler, ask: &Ask, entry: &Arc<Entry>) -> Option<Self> {
        let may_fetch = ask.content.form != RequestForm::Digest && !handler.only_if_cached(ask);
        may_fetch.then(|| Self {
            fill: handler.fill.clone(),
            want: ask.want(None, None),
            entry: Arc::clone(entry),
            attempts: 0,
        })
    }

    /// The same, if blocks of `ranges` have not been looked at lately, so that they may turn out broken.
    pub(super) fn for_ranges(
        handler: &Handler,
        ask: &Ask,
        entry: &Arc<Entry>,
        body: &Body,
        ranges: &[ByteRange],
    ) -> Option<Self> {
        let Body::Blob(blob) = body else { return None };
        let is_checked = ranges.iter().all(|range| blob.is_checked(*range));
        if is_checked { None } else { Self::new(handler, ask, entry) }
    }

    /// Before the answer has begun: within the time of the request.
    ///
    /// # Errors
    /// When no source gives what was there, or it does not last.
    pub(super) async fn mend(&mut self, block: u64) -> Result<(), MendError> {
        let deadline = self.want.deadline;
        self.mend_until(block, deadline).await
    }

    /// In the middle of the answer.
    ///
    /// # Errors
    /// As [`Mender::mend`].
    pub(super) async fn mend_midway(&mut self, block: u64) -> Result<(), MendError> {
        self.mend_until(block, Instant::now() + PATIENCE).await
    }

    /// A block was read: what comes behind it has attempts of its own.
    pub(super) fn held(&mut self) {
        self.attempts = 0;
    }

    async fn mend_until(&mut self, block: u64, deadline: Instant) -> Result<(), MendError> {
        self.attempts += 1;
        if self.attempts > ATTEMPTS {
            return Err(MendError::Store(crate::store::ReadError::Damaged { block }));
        }
        self.fill.mend(&self.want, &self.entry, block, deadline).await
    }
}
