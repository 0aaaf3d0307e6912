//! Requests that are more than a look-up: methods beyond GET and HEAD that a rule allows. They are passed on, and what changes
//! a resource makes what is stored of it invalid. Of their answers only one to a POST may be stored, when it says that it is
//! what a GET would bring.

use std::sync::Arc;

use http::header::{CONTENT_LOCATION, LOCATION, MAX_FORWARDS};
use http::{HeaderMap, HeaderName, Method};
use hyper::body::Incoming;

use super::ask::Ask;
use super::handler::{Handler, Step};
use super::outcome::Outcome;
use super::{pass, rescue};
use crate::clock;
use crate::content::{CacheKey, UnixMillis};
use crate::decide::{self, Forwards, FwdReason};
use crate::fill::{Fill, PassedBody, PassedThrough, is_for_all, named_by};
use crate::store::Store;

/// How often what is stored is looked at again, since a fill may have ended meanwhile.
const ROUNDS: usize = 4;

impl Handler {
    /// Passes the request on. A success makes what is stored invalid (RFC 9111 section 4.4).
    pub(super) async fn pass_on(&self, mut ask: Ask, body: Incoming) -> Outcome {
        if ask.method == Method::OPTIONS {
            match decide::forwards(&ask.headers) {
                Forwards::Unlimited => {}
                Forwards::Less(number) => {
                    let mut headers = (*ask.headers).clone();
                    headers.insert(MAX_FORWARDS, number);
                    ask.headers = Arc::new(headers);
                }
                Forwards::End => return rescue::options(&ask.content.policy.methods),
            }
        }
        let want = ask.want(None, None);
        match self.fill.pass(&want, ask.method.clone(), Some(PassedBody::Stream(body))).await {
            Ok(response) => {
                let changed = response.status.is_success() || response.status.is_redirection();
                if changed && !ask.method.is_safe() {
                    for key in changed_keys(&ask, &response.headers) {
                        self.invalidate(key).await;
                    }
                }
                if ask.method == Method::POST && is_what_get_brings(&ask, &response) {
                    return self.keep_posted(ask, response).await;
                }
                pass::through(&ask, response, FwdReason::Method)
            }
            Err(error) => rescue::failed(&error, Some(FwdReason::Method)),
        }
    }

    /// Stores the answer to a POST for later GETs, and gives it to its client.
    async fn keep_posted(&self, mut ask: Ask, response: PassedThrough) -> Outcome {
        ask.method = Method::GET;
        let obtained = self.fill.adopt(ask.want(None, None), response).await;
        match self.obtained(&mut ask, obtained, None, FwdReason::Method).await {
            Step::Done(outcome) => outcome,
            Step::Again => self.answer_read(ask).await,
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

/// Whether the answer to a POST is what a GET for the same URI would bring now (RFC 9110 section 9.3.3), whoever asks.
fn is_what_get_brings(ask: &Ask, response: &PassedThrough) -> bool {
    is_for_all(&ask.headers)
        && decide::may_serve_get(response.status, &response.headers)
        && named(ask, &response.headers, &CONTENT_LOCATION).as_ref() == Some(&ask.content.key)
}

/// What a successful change of this resource makes invalid: it, and what the answer names at the same origin; elsewhere a
/// client could make others' content invalid (RFC 9111 section 4.4).
fn changed_keys(ask: &Ask, answer: &HeaderMap) -> Vec<CacheKey> {
    let mut keys = vec![ask.content.key.clone()];
    keys.extend([LOCATION, CONTENT_LOCATION].iter().filter_map(|name| named(ask, answer, name)));
    keys
}

/// What the field `name` of an answer names, if it is at the origin that was asked.
fn named(ask: &Ask, answer: &HeaderMap, name: &HeaderName) -> Option<CacheKey> {
    let content = &ask.content;
    let (origin, target) = named_by(&content.origin, &content.target, answer.get(name)?.as_bytes())?;
    (origin == content.origin).then(|| content.key_beside(target))
}

/// Forgets all that came for `key` until now. Who reads it reads on; nobody else gets it.
async fn forget(store: Store, fill: Fill, key: CacheKey) {
    fill.part_from(&key);
    // Only now: what a flight has shown before may have come while this waited for it.
    let now = UnixMillis::from(clock::now());
    for _ in 0..ROUNDS {
        let known = store.lookup(&key).await;
        let mut before = known.iter().filter(|entry| entry.record.response_time <= now).peekable();
        if before.peek().is_none() {
            return;
        }
        before.for_each(|entry| store.invalidate(entry));
    }
}
