//! What to do with a request, given what is stored: one function (RFC 9111 section 4).

use http::header::{ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderMap, Method};

use super::cache_control::{request_directives, response_directives};
use super::freshness::{Freshness, LifetimeSource, freshness};
use super::status::FwdReason;
use crate::content::{Policy, Record, StaleIfError, UnixMillis};

/// The parts of a request that decisions depend on.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// GET or HEAD.
    pub method: &'a Method,
    /// Its fields.
    pub headers: &'a HeaderMap,
}

/// The node's own choices.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether a client's `no-cache` or `max-age` may send a request upstream although what is stored is fresh.
    pub clients_may_refetch: bool,
}

/// What to do.
#[derive(Debug, Clone)]
pub enum Decision {
    /// Serve what is stored.
    Serve {
        /// How fresh it is.
        freshness: Freshness,
    },
    /// Ask whether what is stored is current (RFC 9111 section 4.3).
    Revalidate {
        /// The fields to ask with.
        conditions: HeaderMap,
    },
    /// Fetch it.
    Fetch(FwdReason),
    /// Pass the request on; its answer is for this client only.
    Bypass(FwdReason),
    /// The request says `only-if-cached`, and nothing can be served without upstream.
    OnlyIfCachedMiss,
}

/// Decides for a request of `path` under its rule; `stored` is the newest stored response that it selects.
pub fn decide(
    request: &RequestFacts<'_>,
    stored: Option<&Record>,
    policy: &Policy,
    path: &str,
    options: &Options,
    now: UnixMillis,
) -> Decision {
    let asked = request_directives(request.headers);
    let Some(record) = stored else {
        return match (asked.only_if_cached, asked.no_store) {
            (true, _) => Decision::OnlyIfCachedMiss,
            (false, true) => Decision::Bypass(FwdReason::Bypass),
            (false, false) => Decision::Fetch(FwdReason::UriMiss),
        };
    };
    let directives = response_directives(&record.headers);
    let freshness = freshness(record, &policy.freshness, path, now);
    let settled = freshness.source == LifetimeSource::Immutable || directives.immutable && freshness.is_fresh();
    let serve = Decision::Serve { freshness };
    if settled {
        return serve;
    }
    let stale_limit = asked.max_stale.filter(|_| !forbids_stale(record));
    let is_fresh_enough = !directives.no_cache
        && (freshness.is_fresh() || stale_limit.is_some_and(|limit| freshness.staleness().as_secs() <= limit));
    let age = freshness.age.map_or(u64::MAX, |age| age.as_secs());
    let left = freshness.lifetime.as_secs().saturating_sub(age);
    // RFC 9111 section 5.2.1: the client's own bounds.
    let client_wants_newer = asked.no_cache
        || asked.max_age.is_some_and(|max_age| age > max_age || max_age == 0)
        || asked.min_fresh.is_some_and(|min_fresh| left < min_fresh);
    if is_fresh_enough && !(client_wants_newer && options.clients_may_refetch) {
        return serve;
    }
    if asked.only_if_cached {
        return Decision::OnlyIfCachedMiss;
    }
    let conditions = conditions(record);
    if conditions.is_empty() {
        Decision::Fetch(if is_fresh_enough { FwdReason::Request } else { FwdReason::Stale })
    } else {
        Decision::Revalidate { conditions }
    }
}

/// Whether what is stored may be served although it is not fresh, because upstream failed (RFC 9111 section 4.2.4,
/// RFC 5861 section 4).
pub fn may_serve_stale(record: &Record, policy: &Policy, path: &str, now: UnixMillis) -> bool {
    let freshness = freshness(record, &policy.freshness, path, now);
    if freshness.source == LifetimeSource::Immutable {
        return true;
    }
    if forbids_stale(record) {
        return false;
    }
    let staleness = freshness.staleness();
    let by_response = response_directives(&record.headers).stale_if_error;
    match policy.freshness.stale_if_error {
        StaleIfError::Unlimited => true,
        StaleIfError::Limited(limit) => {
            staleness <= limit || by_response.is_some_and(|seconds| staleness.as_secs() <= seconds)
        }
    }
}

/// RFC 9111 section 4.2.4: these forbid to serve stale.
fn forbids_stale(record: &Record) -> bool {
    let directives = response_directives(&record.headers);
    directives.must_revalidate || directives.proxy_revalidate || directives.no_cache || directives.s_maxage.is_some()
}

/// RFC 9111 section 4.3.1.
fn conditions(record: &Record) -> HeaderMap {
    let mut conditions = HeaderMap::new();
    for (stored, condition) in [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)] {
        if let Some(value) = record.headers.get(stored) {
            conditions.insert(condition, value.clone());
        }
    }
    conditions
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{fields, record};
    use super::*;
    use crate::content::PathPatterns;

    const NOW: u64 = 1_795_435_200;

    /// What is decided 50 s after the response came.
    fn after_50_s(request: &[(&str, &str)], response: &[(&str, &str)], options: &Options) -> String {
        let (headers, stored) = (fields(request), record(NOW - 50, response));
        let facts = RequestFacts { method: &Method::GET, headers: &headers };
        let policy = Policy::for_host("a.example");
        match decide(&facts, Some(&stored), &policy, "/x", options, UnixMillis::from_secs(NOW)) {
            Decision::Serve { .. } => "serve".to_owned(),
            Decision::Revalidate { conditions } => {
                conditions.keys().map(|name| name.as_str().to_owned()).collect::<Vec<_>>().join("+")
            }
            Decision::Fetch(reason) | Decision::Bypass(reason) => reason.as_str().to_owned(),
            Decision::OnlyIfCachedMiss => "504".to_owned(),
        }
    }

    #[test]
    fn fresh_is_served_stale_is_validated() {
        let free = Options { clients_may_refetch: true };
        let tag = ("etag", "\"1\"");
        let date = ("last-modified", "Mon, 23 Nov 2026 11:00:00 GMT");
        let cc = |value| ("cache-control", value);
        for (request, response, expected) in [
            (&[][..], &[cc("max-age=60")][..], "serve"),
            (&[], &[cc("max-age=50"), tag], "if-none-match"),
            (&[], &[cc("max-age=40"), tag, date], "if-none-match+if-modified-since"),
            (&[], &[cc("max-age=40"), date], "if-modified-since"),
            (&[], &[cc("max-age=40")], "stale"),
            (&[], &[cc("no-cache, max-age=60"), tag], "if-none-match"),
            (&[cc("no-cache")], &[cc("max-age=60"), tag], "if-none-match"),
            (&[cc("max-age=0")], &[cc("max-age=60"), tag], "if-none-match"),
            (&[cc("max-age=51")], &[cc("max-age=60"), tag], "serve"),
            (&[cc("max-age=49")], &[cc("max-age=60"), tag], "if-none-match"),
            (&[cc("min-fresh=10")], &[cc("max-age=60"), tag], "serve"),
            (&[cc("min-fresh=11")], &[cc("max-age=60"), tag], "if-none-match"),
            (&[cc("max-stale=10")], &[cc("max-age=40"), tag], "serve"),
            (&[cc("max-stale=9")], &[cc("max-age=40"), tag], "if-none-match"),
            (&[cc("max-stale")], &[cc("max-age=40"), tag], "serve"),
            (&[cc("max-stale")], &[cc("max-age=40, must-revalidate"), tag], "if-none-match"),
            (&[cc("no-cache")], &[cc("max-age=60, immutable"), tag], "serve"),
            (&[cc("no-cache")], &[cc("max-age=60")], "request"),
            (&[cc("only-if-cached")], &[cc("max-age=60")], "serve"),
            (&[cc("only-if-cached")], &[cc("max-age=40"), tag], "504"),
        ] {
            assert_eq!(after_50_s(request, response, &free), expected, "{request:?} {response:?}");
        }
        let bound = Options { clients_may_refetch: false };
        assert_eq!(after_50_s(&[cc("no-cache")], &[cc("max-age=60"), tag], &bound), "serve");
        assert_eq!(after_50_s(&[cc("no-cache")], &[cc("max-age=40"), tag], &bound), "if-none-match");
    }

    #[test]
    fn without_anything_stored() {
        let policy = Policy::for_host("a.example");
        for (request, expected) in [("", "uri-miss"), ("no-store", "bypass"), ("only-if-cached", "504")] {
            let headers = fields(&[("cache-control", request)]);
            let facts = RequestFacts { method: &Method::GET, headers: &headers };
            let options = Options { clients_may_refetch: true };
            let found = match decide(&facts, None, &policy, "/x", &options, UnixMillis(0)) {
                Decision::Fetch(reason) | Decision::Bypass(reason) => reason.as_str(),
                Decision::OnlyIfCachedMiss => "504",
                other => panic!("{other:?}"),
            };
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn stale_is_served_on_failure_unless_forbidden() {
        let mut policy = Policy::for_host("a.example");
        let judge = |policy: &Policy, cc: &str| {
            may_serve_stale(&record(NOW - 50, &[("cache-control", cc)]), policy, "/x", UnixMillis::from_secs(NOW))
        };
        assert!(judge(&policy, "max-age=1"));
        for forbidding in ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=1"] {
            assert!(!judge(&policy, &format!("max-age=1, {forbidding}")), "{forbidding}");
        }
        policy.freshness.stale_if_error = StaleIfError::Limited(Duration::from_secs(49));
        assert!(judge(&policy, "max-age=1"));
        assert!(!judge(&policy, "max-age=0"));
        assert!(judge(&policy, "max-age=0, stale-if-error=50"));
        policy.freshness.immutable = PathPatterns::new(&["x"]).unwrap();
        assert!(judge(&policy, "max-age=0, must-revalidate"));
    }
}
