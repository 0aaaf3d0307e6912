//! Looks whether sources that could not be reached are back, so that nobody has to wait for a pause of the breaker to end, or
//! for a connection that does not come: a link of an inner layer may be up for half a minute only. Nothing is asked of the
//! source; a connection that stands is kept for the request that follows.

use std::collections::HashSet;
use std::future::pending;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::client::{Inner, Upstream};
use super::connect::Connector;
use super::error::{FetchError, TlsFault};
use super::plan::Source;
use super::pool::Link;

/// Sources that are looked for at once. Names under a wildcard rule are the clients' choice.
const SOUGHT: usize = 16;
/// So long an origin is looked for, since names that never were may have been asked for; a parent for ever.
const LONGEST: Duration = Duration::from_secs(600);
/// So many handshakes in a row that make no sense are no link that is cut.
const ODDITIES: u32 = 3;

/// Who is being looked for.
#[derive(Debug, Default)]
pub(super) struct Sought(Mutex<HashSet<Source>>);

impl Sought {
    /// Whether the caller is to look for it: nobody does, and there are not too many. Parents are always looked for.
    fn begin(&self, source: &Source) -> bool {
        let mut sought = self.0.lock();
        (sought.len() < SOUGHT || source.parent.is_some()) && sought.insert(source.clone())
    }

    fn has(&self, source: &Source) -> bool {
        self.0.lock().contains(source)
    }

    fn end(&self, source: &Source) {
        self.0.lock().remove(source);
    }
}

/// While it lives its source is looked for.
struct Looking {
    inner: Weak<Inner>,
    source: Source,
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.inner.upgrade().inspect(|inner| inner.sought.end(&self.source));
    }
}

impl Upstream {
    /// Looks for a source from now on, if it cannot be reached. Whether nobody did.
    pub(super) fn look_for(&self, source: &Source) -> bool {
        let begins = self.inner.sources.is_unreachable(source) && self.inner.sought.begin(source);
        if begins {
            tokio::spawn(seek(Looking { inner: Arc::downgrade(&self.inner), source: source.clone() }));
        }
        begins
    }

    /// Whether `source` may be worth asking: one that could not be reached is looked for meanwhile, and if nobody did so far, it
    /// is waited for as long as `patience` says.
    pub(super) async fn is_back(&self, source: &Source, patience: Duration) -> bool {
        if !self.inner.sources.is_unreachable(source) {
            return true;
        }
        let mut comebacks = self.inner.sources.comebacks();
        if !self.look_for(source) {
            // When too many are looked for, who asks finds out.
            return !self.inner.sought.has(source);
        }
        let is_back = comebacks.wait_for(|_| !self.inner.sources.is_unreachable(source));
        timeout(patience, is_back).await.is_ok()
    }
}

async fn seek(looking: Looking) {
    let (began, source) = (Instant::now(), looking.source.clone());
    let (mut attempts, mut oddities) = (FuturesUnordered::new(), 0);
    while let Some(inner) = looking.inner.upgrade() {
        let (limit, pause) = (inner.settings.timeouts.connect, inner.settings.look_every());
        let is_over = source.parent.is_none() && began.elapsed() > LONGEST;
        if is_over || !inner.sources.is_unreachable(&source) {
            return;
        }
        inner.sources.still_away(&source);
        attempts.push(connect(Arc::clone(&inner.connector), source.clone(), Instant::now() + limit));
        drop(inner);
        let Ok(said) = timeout(pause, first_of(&mut attempts, &mut oddities)).await else { continue };
        let Some(inner) = looking.inner.upgrade() else { return };
        // First, so that whoever finds it away again looks anew.
        drop(looking);
        return match said {
            Ok(link) => {
                inner.pool.put(source.clone(), link);
                inner.sources.reached(&source);
            }
            // A rule of ours, which each request is told.
            Err(FetchError::AddressRefused { .. }) => inner.sources.reached(&source),
            // With a wrong password asking again and again would lock an account.
            Err(error) => inner.sources.refuses(&source, &error),
        };
    }
}

async fn connect(connector: Arc<Connector>, source: Source, limit: Instant) -> Result<Link, FetchError> {
    connector.connect(&source, limit).await
}

/// The first connection that comes of the attempts, or why there is to be none; until the end of time if nobody says anything.
/// `oddities` counts the handshakes in a row that made no sense.
async fn first_of(
    attempts: &mut FuturesUnordered<impl Future<Output = Result<Link, FetchError>>>,
    oddities: &mut u32,
) -> Result<Link, FetchError> {
    while let Some(attempt) = attempts.next().await {
        let is_odd = matches!(&attempt, Err(FetchError::TlsFailed { fault: TlsFault::Protocol(_), .. }));
        *oddities = if is_odd { *oddities + 1 } else { 0 };
        match attempt {
            Err(error) if !says_no(&error) && *oddities < ODDITIES => {}
            said => return said,
        }
    }
    pending().await
}

/// Whether looking on would be told the same. A connection that ends in the handshake may be a link that is cut.
pub(super) fn says_no(error: &FetchError) -> bool {
    match error {
        FetchError::TlsFailed { fault, .. } => !matches!(fault, TlsFault::Disconnected | TlsFault::Protocol(_)),
        FetchError::AddressRefused { .. } => true,
        error => error.is_refusal(),
    }
}
