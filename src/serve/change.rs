//! Requests that are more than a look-up: methods beyond GET and HEAD that a rule allows. They are passed on, their
//! answers are not stored, and what changes a resource makes what is stored of it invalid.

use hyper::body::Incoming;

use super::ask::Ask;
use super::handler::Handler;
use super::outcome::Outcome;
use super::{pass, rescue};
use crate::clock;
use crate::content::{CacheKey, UnixMillis};
use crate::decide::FwdReason;
use crate::fill::{Fill, PassedBody};
use crate::store::Store;

/// How often what is stored is looked at again, since a fill may have ended meanwhile.
const ROUNDS: usize = 4;

impl Handler {
    /// Passes the request on. A success makes what is stored invalid (RFC 9111 section 4.4).
    pub(super) async fn pass_on(&self, ask: &Ask, body: Incoming) -> Outcome {
        let want = ask.want(None, None);
        match self.fill.pass(&want, ask.method.clone(), Some(PassedBody::Stream(body))).await {
            Ok(response) => {
                let changed = response.status.is_success() || response.status.is_redirection();
                if changed && !ask.method.is_safe() {
                    self.invalidate(ask.content.key.clone()).await;
                }
                pass::through(ask, response, FwdReason::Method)
            }
            Err(error) => rescue::failed(&error),
        }
    }

    /// The client does not wait for a store that is still being read in.
    async fn invalidate(&self, key: CacheKey) {
        let forget = forget(self.store.clone(), self.fill.clone(), key);
        if self.store.is_ready() {
            forget.await;
        } else {
            tokio::spawn(forget);
        }
    }
}

/// Forgets all that came for `key` until now. Who reads it reads on; nobody else gets it.
async fn forget(store: Store, fill: Fill, key: CacheKey) {
    let now = UnixMillis::from(clock::now());
    fill.part_from(&key);
    for _ in 0..ROUNDS {
        let known = store.lookup(&key).await;
        let mut before = known.iter().filter(|entry| entry.record.response_time <= now).peekable();
        if before.peek().is_none() {
            return;
        }
        before.for_each(|entry| store.invalidate(entry));
    }
}
