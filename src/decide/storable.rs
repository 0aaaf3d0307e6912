//! Whether a response may be stored (RFC 9111 section 3), for a shared cache.

use std::time::Duration;

use http::header::{AUTHORIZATION, SET_COOKIE};
use http::{HeaderMap, Method, StatusCode};

use super::cache_control::{request_directives, response_directives};
use super::freshness::{LifetimeSource, has_explicit_lifetime, is_heuristically_cacheable, lifetime};
use super::vary::varies_on_everything;
use crate::content::{Policy, UnixMillis, Validator};

/// The verdict on one response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storable {
    /// It may be stored.
    Yes,
    /// It may not.
    No(NotStorable),
}

/// Why a response may not be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotStorable {
    /// The request is no GET.
    Method,
    /// A 206 or 304 is no whole response, a 1xx is no final one.
    Status,
    /// `no-store` in the request.
    RequestNoStore,
    /// `no-store` in the response.
    ResponseNoStore,
    /// `private`: for one user only.
    Private,
    /// An answer to `Authorization` without leave to share it (RFC 9111 section 3.5).
    Authorization,
    /// `Set-Cookie`: meant for one client in practice.
    SetCookie,
    /// `Vary: *` never matches.
    VaryStar,
    /// Neither a lifetime nor a validator: it could never be used again.
    NoLifetime,
}

/// Judges the response to a request under its rule.
pub fn storable(
    method: &Method,
    request: &HeaderMap,
    status: StatusCode,
    response: &HeaderMap,
    policy: &Policy,
    path: &str,
) -> Storable {
    let directives = response_directives(response);
    let no = Storable::No;
    if *method != Method::GET {
        return no(NotStorable::Method);
    }
    if status.is_informational() || matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED) {
        return no(NotStorable::Status);
    }
    if request_directives(request).no_store {
        return no(NotStorable::RequestNoStore);
    }
    // must-understand overrides no-store for statuses whose meaning for caches is known (RFC 9111 section 5.2.2.3).
    let understood = is_heuristically_cacheable(status) || matches!(status.as_u16(), 302 | 303 | 307);
    if directives.must_understand && !understood || directives.no_store && !directives.must_understand {
        return no(NotStorable::ResponseNoStore);
    }
    if directives.private {
        return no(NotStorable::Private);
    }
    let shared = directives.public || directives.s_maxage.is_some() || directives.must_revalidate;
    if request.contains_key(AUTHORIZATION) && !shared {
        return no(NotStorable::Authorization);
    }
    if response.contains_key(SET_COOKIE) {
        return no(NotStorable::SetCookie);
    }
    if varies_on_everything(response) {
        return no(NotStorable::VaryStar);
    }
    // Only whether there is a lifetime matters here, so any moment of reception does.
    let (lifetime, source) = lifetime(status, response, &policy.freshness, path, UnixMillis::default());
    let by_itself = is_heuristically_cacheable(status) || has_explicit_lifetime(response) || directives.public;
    let usable = !lifetime.is_zero()
        || matches!(source, LifetimeSource::Immutable)
        || Validator::of(response).is_present() && status.is_success();
    if by_itself && usable && !(lifetime == Duration::ZERO && source == LifetimeSource::Nobody && !status.is_success())
    {
        Storable::Yes
    } else {
        no(NotStorable::NoLifetime)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::fields;
    use super::*;
    use crate::content::PathPatterns;

    #[test]
    fn a_shared_cache_stores_what_it_may() {
        use NotStorable::{
            Authorization, NoLifetime, Private, RequestNoStore, ResponseNoStore, SetCookie, Status, VaryStar,
        };
        let tag = ("etag", "\"1\"");
        let fresh = ("cache-control", "max-age=60");
        let auth = ("authorization", "Basic eDp5");
        let rows: &[(&[(&str, &str)], u16, &[(&str, &str)], Storable)] = &[
            (&[], 200, &[fresh], Storable::Yes),
            (&[], 200, &[tag], Storable::Yes),
            (&[], 200, &[("last-modified", "Mon, 23 Nov 2026 11:59:00 GMT")], Storable::Yes),
            (&[], 200, &[], Storable::No(NoLifetime)),
            (&[], 200, &[("cache-control", "max-age=0")], Storable::No(NoLifetime)),
            (&[], 200, &[("cache-control", "no-cache"), tag], Storable::Yes),
            (&[], 200, &[("cache-control", "no-store, max-age=60")], Storable::No(ResponseNoStore)),
            (&[], 200, &[("cache-control", "no-store, must-understand, max-age=60")], Storable::Yes),
            (&[], 599, &[("cache-control", "no-store, must-understand, max-age=60")], Storable::No(ResponseNoStore)),
            (&[], 599, &[("cache-control", "must-understand, max-age=60")], Storable::No(ResponseNoStore)),
            (&[], 200, &[("cache-control", "private, max-age=60")], Storable::No(Private)),
            (&[], 200, &[("cache-control", "private=\"a\", max-age=60")], Storable::No(Private)),
            (&[("cache-control", "no-store")], 200, &[fresh], Storable::No(RequestNoStore)),
            (&[auth], 200, &[fresh], Storable::No(Authorization)),
            (&[auth], 200, &[("cache-control", "public, max-age=60")], Storable::Yes),
            (&[auth], 200, &[("cache-control", "s-maxage=60")], Storable::Yes),
            (&[auth], 200, &[("cache-control", "must-revalidate, max-age=60")], Storable::Yes),
            (&[], 200, &[fresh, ("set-cookie", "a=b")], Storable::No(SetCookie)),
            (&[], 200, &[fresh, ("vary", "a, *")], Storable::No(VaryStar)),
            (&[], 206, &[fresh], Storable::No(Status)),
            (&[], 304, &[fresh], Storable::No(Status)),
            (&[], 404, &[], Storable::Yes),
            (&[], 410, &[], Storable::Yes),
            (&[], 403, &[], Storable::No(NoLifetime)),
            (&[], 403, &[tag], Storable::No(NoLifetime)),
            (&[], 403, &[fresh], Storable::Yes),
            (&[], 503, &[], Storable::No(NoLifetime)),
            (&[], 503, &[fresh], Storable::Yes),
        ];
        let policy = Policy::for_host("a.example");
        for (request, status, response, expected) in rows {
            let status = StatusCode::from_u16(*status).unwrap();
            let found = storable(&Method::GET, &fields(request), status, &fields(response), &policy, "/x");
            assert_eq!(found, *expected, "{request:?} {status} {response:?}");
        }
    }

    #[test]
    fn immutable_paths_need_no_lifetime_but_obey_no_store() {
        let mut policy = Policy::for_host("a.example");
        policy.freshness.immutable = PathPatterns::new(&["*.deb"]).unwrap();
        let judge = |status: u16, response: &[(&str, &str)]| {
            let status = StatusCode::from_u16(status).unwrap();
            storable(&Method::GET, &HeaderMap::new(), status, &fields(response), &policy, "/a.deb")
        };
        assert_eq!(judge(200, &[]), Storable::Yes);
        assert_eq!(judge(200, &[("cache-control", "no-store")]), Storable::No(NotStorable::ResponseNoStore));
        assert_eq!(judge(403, &[]), Storable::No(NotStorable::NoLifetime));
    }
}
