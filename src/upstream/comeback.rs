//! Looks whether sources that could not be reached are back, so that nobody has to wait for a pause of the breaker to end: a
//! link of an inner layer may be up for half a minute only. Nothing is asked of the source; a connection that stands is kept
//! for the request that follows.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::client::{Inner, Upstream};
use super::plan::Source;

/// Sources that are looked for at once. Names under a wildcard rule are the clients' choice.
const SOUGHT: usize = 16;
/// So long an origin is looked for, since names that never were may have been asked for; a parent for ever.
const LONGEST: Duration = Duration::from_secs(600);
/// The first pause between two attempts is this part of the time that one may take; it grows to the whole.
const FIRST_PAUSE: u32 = 6;

/// Who is being looked for.
#[derive(Debug, Default)]
pub(super) struct Sought(Mutex<HashSet<Source>>);

impl Sought {
    /// Whether the caller is to look for it: nobody does, and there are not too many. Parents are always looked for.
    fn begin(&self, source: &Source) -> bool {
        let mut sought = self.0.lock();
        (sought.len() < SOUGHT || source.parent.is_some()) && sought.insert(source.clone())
    }

    fn end(&self, source: &Source) {
        self.0.lock().remove(source);
    }
}

impl Upstream {
    /// Looks for a source from now on, if it cannot be reached.
    pub(super) fn look_for(&self, source: &Source) {
        if self.inner.sources.is_unreachable(source) && self.inner.sought.begin(source) {
            tokio::spawn(seek(Arc::downgrade(&self.inner), source.clone()));
        }
    }
}

async fn seek(inner: Weak<Inner>, source: Source) {
    let (began, mut pause) = (Instant::now(), None);
    while let Some(inner) = inner.upgrade() {
        let limit = inner.settings.timeouts.connect;
        let is_over = source.parent.is_none() && began.elapsed() > LONGEST;
        if is_over || !inner.sources.is_unreachable(&source) {
            return inner.sought.end(&source);
        }
        if let Ok(link) = inner.connector.connect(&source, Instant::now() + limit).await {
            inner.pool.put(source.clone(), link);
            inner.sought.end(&source);
            return inner.sources.reached(&source);
        }
        drop(inner);
        let next = pause.map_or(limit / FIRST_PAUSE, |before| limit.min(before * 2));
        pause = Some(next);
        sleep(next).await;
    }
}
