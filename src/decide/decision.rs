//! [`decide`]: what to do with a request, given what is stored; and whether stale content may stand in when upstream
//! fails (RFC 9111 sections 4 and 5.2.1, RFC 5861).

use http::header::{ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderMap, Method};

use super::cache_control::{RequestDirectives, ResponseDirectives, request_directives, response_directives};
use super::conditional::entity_tag;
use super::date;
use super::freshness::{Freshness, LifetimeSource, SAME_TIME};
use super::status::FwdReason;
use super::storable::forbids_storing;
use crate::content::{BodyRef, Policy, Record, StaleIfError, UnixMillis};

/// What matters of a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its fields.
    pub headers: &'a HeaderMap,
}

/// What the operator leaves to the clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Whether a client may have fresh content validated again by `no-cache`, `max-age` or `min-fresh`. RFC 9111
    /// calls them preferences, and obeying costs bytes of the uplink.
    pub clients_may_refetch: bool,
}

/// What to do with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Serve what is stored.
    Serve {
        /// How fresh it is.
        freshness: Freshness,
    },
    /// Serve what is stored, although it is stale, and ask upstream meanwhile (RFC 5861 section 3).
    ServeMeanwhile {
        /// How stale it is.
        freshness: Freshness,
        /// Fields to ask with, as of [`Decision::Revalidate`]; empty when it has no validator.
        conditions: HeaderMap,
    },
    /// Ask upstream whether what is stored is current.
    Revalidate {
        /// Fields to ask with (RFC 9111 section 4.3.1); never empty.
        conditions: HeaderMap,
        /// Why.
        reason: FwdReason,
        /// It must not be served when upstream fails (RFC 9111 section 4.2.4).
        must: bool,
    },
    /// Ask upstream for all of it.
    Fetch(FwdReason),
    /// Ask upstream for this request alone, and store nothing.
    Bypass(BypassReason),
    /// Nothing that would do is stored, and upstream must not be asked: 504 (RFC 9111 section 5.2.1.7).
    OnlyIfCachedMiss,
}

/// Why a request does not concern the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BypassReason {
    /// Its method is neither GET nor HEAD.
    Method,
    /// It says `no-store` (RFC 9111 section 5.2.1.5).
    NoStore,
}

/// Decides about `request`, which selects `stored` if there is anything, at the time `now` at which it came. The
/// policy's patterns are matched with `path`.
pub fn decide(
    request: &RequestFacts<'_>,
    stored: Option<&Record>,
    policy: &Policy,
    path: &str,
    options: &Options,
    now: UnixMillis,
) -> Decision {
    if request.method != Method::GET && request.method != Method::HEAD {
        return Decision::Bypass(BypassReason::Method);
    }
    let wishes = request_directives(request.headers);
    let Some(record) = stored else {
        return match (wishes.only_if_cached, wishes.no_store) {
            (true, _) => Decision::OnlyIfCachedMiss,
            (_, true) => Decision::Bypass(BypassReason::NoStore),
            _ => Decision::Fetch(FwdReason::UriMiss),
        };
    };
    let directives = response_directives(&record.headers);
    let freshness = Freshness::judged(record, &directives, policy, path, now);
    let Some(reason) = obstacle(record, &directives, &freshness, &wishes, options, now) else {
        return Decision::Serve { freshness };
    };
    if wishes.only_if_cached {
        return Decision::OnlyIfCachedMiss;
    }
    if wishes.no_store {
        // What is stored stays, to stand in when upstream fails; bytes of this answer must not join it.
        return match record.body {
            BodyRef::Blob(_) => Decision::Fetch(reason),
            BodyRef::Partial(_) => Decision::Bypass(BypassReason::NoStore),
        };
    }
    let conditions = conditions(record);
    let must = stale_is_forbidden(record, &directives);
    let is_asked_anew = options.clients_may_refetch && asks_for_freshness(&wishes);
    if reason == FwdReason::Stale && !must && !is_asked_anew && is_in_window(record, &directives, &freshness) {
        return Decision::ServeMeanwhile { freshness, conditions };
    }
    if conditions.is_empty() {
        return Decision::Fetch(reason);
    }
    Decision::Revalidate { conditions, reason, must }
}

/// Whether what is stored may be served while it is validated (RFC 5861 section 3). What is there in part only goes on by
/// being asked for anyway, and old errors never stand in, see [`may_serve_stale`].
fn is_in_window(record: &Record, directives: &ResponseDirectives, freshness: &Freshness) -> bool {
    let is_whole = matches!(record.body, BodyRef::Blob(_));
    let window = directives.stale_while_revalidate.filter(|_| is_whole && record.status.as_u16() < 400);
    window.zip(freshness.staleness()).is_some_and(|(window, stale)| stale <= window)
}

/// Whether the request wants an answer that is fresher than what is stored, and may.
pub fn is_refetch(request: &RequestFacts<'_>, options: &Options) -> bool {
    options.clients_may_refetch && asks_for_freshness(&request_directives(request.headers))
}

/// Whether the request says how fresh the answer must be at least, so that a stale one will not do.
fn asks_for_freshness(wishes: &RequestDirectives) -> bool {
    wishes.no_cache || wishes.max_age.is_some() || wishes.min_fresh.is_some()
}

/// Whether `record` may stand in when upstream fails (RFC 9111 section 4.2.4). Wishes of the request do not forbid
/// it: they are preferences, and no answer is what they prefer least.
///
/// Errors never stand in once they are stale: that upstream fails is a passing fault, and a Delivery Optimization
/// agent takes an old 404 for a lasting one.
pub fn may_serve_stale(
    record: &Record,
    request: &RequestFacts<'_>,
    policy: &Policy,
    path: &str,
    now: UnixMillis,
) -> bool {
    let directives = response_directives(&record.headers);
    let freshness = Freshness::judged(record, &directives, policy, path, now);
    if freshness.source == LifetimeSource::Immutable {
        return true;
    }
    if needs_validation(record, &directives) {
        return false;
    }
    if freshness.is_fresh() {
        return true;
    }
    if stale_is_forbidden(record, &directives) || record.status.as_u16() >= 400 {
        return false;
    }
    let StaleIfError::Limited(limit) = policy.freshness.stale_if_error else { return true };
    let allowed = [
        directives.stale_if_error,
        directives.stale_while_revalidate,
        request_directives(request.headers).stale_if_error,
    ];
    let longest = allowed.into_iter().flatten().fold(limit, |longest, time| longest.max(time));
    // When the clock cannot tell the age, it cannot tell that the time is over.
    freshness.staleness().is_none_or(|stale| stale <= longest)
}

/// Why `record` cannot be served as it is.
fn obstacle(
    record: &Record,
    directives: &ResponseDirectives,
    freshness: &Freshness,
    wishes: &RequestDirectives,
    options: &Options,
    now: UnixMillis,
) -> Option<FwdReason> {
    if freshness.source == LifetimeSource::Immutable {
        return None;
    }
    if forbids_storing(record.status, directives) {
        return Some(FwdReason::Stale);
    }
    if was_asked_for_after(record, now) {
        return None;
    }
    if directives.no_cache {
        return Some(FwdReason::Stale);
    }
    if !freshness.is_fresh() {
        let stale = freshness.staleness().filter(|_| !stale_is_forbidden(record, directives));
        let is_accepted = stale.zip(wishes.max_stale).is_some_and(|(stale, most)| stale <= most);
        return (!is_accepted).then_some(FwdReason::Stale);
    }
    if options.clients_may_refetch && !is_fresh_enough(directives, freshness, wishes) {
        return Some(FwdReason::Request);
    }
    None
}

/// Whether fresh content satisfies what the request says of freshness. What is `immutable` needs no validation while
/// it is fresh, unless the request says `no-cache` (RFC 8246 section 2).
fn is_fresh_enough(directives: &ResponseDirectives, freshness: &Freshness, wishes: &RequestDirectives) -> bool {
    let age = freshness.age.unwrap_or_default();
    // A client that says `max-age=0` means a validation, however young the content is.
    let is_young = wishes.max_age.is_none_or(|most| !most.is_zero() && age <= most);
    let lasts = wishes.min_fresh.is_none_or(|least| freshness.lifetime.saturating_sub(age) >= least);
    !wishes.no_cache && (directives.immutable || (is_young && lasts))
}

/// Whether upstream was asked for `record` after the request came at `now`: it is then as current as an answer to this
/// request itself would be.
fn was_asked_for_after(record: &Record, now: UnixMillis) -> bool {
    record.request_time > now && record.response_time.since(now) <= SAME_TIME
}

/// Whether a response may be used only after a successful validation, fresh or not. One that must not be stored is
/// only there since a 304 said so later.
fn needs_validation(record: &Record, directives: &ResponseDirectives) -> bool {
    directives.no_cache || forbids_storing(record.status, directives)
}

/// Whether a response must not be served stale (RFC 9111 sections 4.2.4 and 5.2.2).
fn stale_is_forbidden(record: &Record, directives: &ResponseDirectives) -> bool {
    let revalidate = directives.must_revalidate || directives.proxy_revalidate || directives.s_maxage.is_some();
    revalidate || needs_validation(record, directives)
}

/// Whether what a response says of itself lets its content be given under another name, where nobody asks its origin: by its
/// digest, or under another URL. What may be served only on the origin's word may not, and so what an answer to
/// `Authorization` needs to be stored (RFC 9111 section 3.5) excludes it.
pub fn is_for_anybody(record: &Record) -> bool {
    !record.token_protected && !stale_is_forbidden(record, &response_directives(&record.headers))
}

/// The fields that ask whether `record` is current (RFC 9111 section 4.3.1). They have a meaning only where the answer
/// would be a success (RFC 9110 section 13.2.1).
fn conditions(record: &Record) -> HeaderMap {
    let mut conditions = HeaderMap::new();
    if !record.status.is_success() {
        return conditions;
    }
    if entity_tag(&record.headers).is_some() {
        conditions.extend(record.headers.get(ETAG).map(|tag| (IF_NONE_MATCH, tag.clone())));
    }
    if date::of(&record.headers, &LAST_MODIFIED).is_some() {
        conditions.extend(record.headers.get(LAST_MODIFIED).map(|date| (IF_MODIFIED_SINCE, date.clone())));
    }
    conditions
}

#[cfg(test)]
#[path = "decision_tests.rs"]
mod tests;
