//! Content past its lifetime: served when upstream fails (RFC 9111 section 4.2.4), or while it is brought up to date behind
//! the client's back (RFC 5861 section 3). Whether that is allowed is `decide`'s business.

use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, RANGE};
use http::{HeaderMap, Method, StatusCode};
use tokio::time::timeout;

use super::ask::Ask;
use super::handler::Handler;
use super::outcome::Outcome;
use super::{deliver, rescue};
use crate::content::BodyRef;
use crate::decide::{self, CacheStatus, Freshness, FwdReason, RequestFacts, UnderRule};
use crate::fill::{FillError, Obtained, PassedThrough, Want, is_for_all};
use crate::store::Entry;
use crate::telemetry::RequestResult;

/// A source that has said nothing for so long counts as away for who has something stored to serve: an agent leaves a cache that
/// gives it nothing for 15 s, and each level below waits longer.
pub(super) const SILENT: Duration = Duration::from_secs(1);

impl Handler {
    /// What upstream gives, or, when it says nothing for a while, what is stored, as when it cannot be reached (RFC 9111
    /// section 4.2.4). It is waited for behind the client's back then, and fetched, so that the next one gets it.
    pub(super) async fn obtain_or_stale(&self, ask: &Ask, want: Want, reason: FwdReason) -> Result<Obtained, Outcome> {
        let fill = self.fill.clone();
        let mut obtaining = Box::pin(async move { fill.obtain(want).await });
        if let Ok(obtained) = timeout(SILENT, &mut obtaining).await {
            return Ok(obtained);
        }
        let Some(stale) = self.stale(ask, silent(reason)).await else { return Ok(obtaining.await) };
        let (fill, abandon) = (self.fill.clone(), ask.content.policy.abandon);
        tokio::spawn(async move { fill.finish(obtaining.await, abandon).await });
        Err(stale)
    }

    /// Has `entry` validated, unless that is going on already. It stands in, so one failure ends the attempt, and the next
    /// request in the window makes another.
    pub(super) fn refresh(&self, ask: &Ask, entry: &Arc<Entry>, conditions: HeaderMap) {
        let mut want = ask.want(Some(Arc::clone(entry)), Some(conditions));
        if want.headers.contains_key(RANGE) {
            // The whole is wanted, whichever part this client reads.
            let mut headers = (*want.headers).clone();
            headers.remove(RANGE);
            want.headers = Arc::new(headers);
        }
        self.fill.refresh(Want { stands_in: true, interims: None, ..want });
    }

    /// The answer to a HEAD freshens what is stored if it is about it (RFC 9111 section 4.3.5) and would be the same for
    /// everybody.
    pub(super) fn freshen(&self, ask: &Ask, entry: &Arc<Entry>, head: &PassedThrough) {
        let is_for_all = is_for_all(&ask.headers) && !ask.headers.contains_key(AUTHORIZATION);
        if is_for_all
            && head.status == StatusCode::OK
            && decide::head_selects(&entry.record, &head.headers, head.head_length)
        {
            let record = decide::merge_304(&entry.record, &head.headers, head.request_time, head.response_time);
            self.store.update(entry, record);
        }
    }

    /// Whether all of `entry` can be served when upstream fails.
    pub(super) fn stands_in(&self, ask: &Ask, entry: &Entry) -> bool {
        matches!(entry.record.body, BodyRef::Blob(_)) && may_stand_in(ask, entry)
    }

    /// What is stored, if it may be served; else that nothing came.
    pub(super) async fn stale_or_failed(&self, ask: &Ask, reason: FwdReason, error: &FillError) -> Outcome {
        let status = CacheStatus::hit().because(error.as_str());
        let answered = error.status().map(|status| status.as_u16());
        let status = if error.asked_nobody() { status } else { status.after(reason, answered) };
        self.stale(ask, status).await.unwrap_or_else(|| rescue::failed(error, Some(reason)))
    }

    /// What is stored, when upstream failed and stale is allowed (RFC 9111 section 4.2.4): the newest that is whole.
    pub(super) async fn stale(&self, ask: &Ask, status: CacheStatus) -> Option<Outcome> {
        for entry in self.variants(ask).await?.iter().filter(|entry| may_stand_in(ask, entry)) {
            let status =
                status.clone().with_ttl(Freshness::of(&entry.record, &ask.content.policy, ask.path(), ask.now).ttl());
            if ask.method == Method::HEAD {
                return Some(deliver::head_of(ask, entry, status, RequestResult::Stale));
            }
            if let deliver::Delivery::Done(outcome) =
                deliver::stored(self, ask, entry, status, RequestResult::Stale).await
            {
                return Some(outcome);
            }
        }
        None
    }
}

/// What is told of something stale that is served since upstream says nothing.
pub(super) fn silent(reason: FwdReason) -> CacheStatus {
    CacheStatus::hit().because("silent").after(reason, None)
}

/// Whether `entry` may be served when upstream fails.
fn may_stand_in(ask: &Ask, entry: &Entry) -> bool {
    let facts = RequestFacts { method: &ask.method, headers: &ask.headers };
    decide::vary_matches(&entry.record, &ask.headers)
        && decide::under_rule(&entry.record, ask.rule_digest()) != UnderRule::Refused
        && (!entry.record.token_protected || ask.proven)
        && decide::may_serve_stale(&entry.record, &facts, &ask.content.policy, ask.path(), ask.now)
}
