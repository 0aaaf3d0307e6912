//! Whether a shared cache may store a response (RFC 9111 section 3), policy included.

use http::header::{AUTHORIZATION, LAST_MODIFIED, SET_COOKIE};
use http::{HeaderMap, Method, StatusCode};

use super::cache_control::{ResponseDirectives, request_directives, response_directives};
use super::conditional::entity_tag;
use super::freshness::{allows_guess, has_explicit_lifetime, is_immutable, is_negative, policy_lifetime};
use super::{date, vary};
use crate::content::{Policy, SetCookie};

/// Whether a response may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storable {
    /// It may, and it is of use.
    Yes,
    /// It may not, or there is no point.
    No(NotStorable),
}

/// Why a response is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotStorable {
    /// The method is not GET.
    Method,
    /// The request says `no-store` (RFC 9111 section 5.2.1.5).
    RequestNoStore,
    /// The status is not final, or describes a part or a validation, or is not understood although
    /// `must-understand` asks for that (RFC 9111 sections 3 and 5.2.2.3).
    Status,
    /// The response says `no-store` (RFC 9111 section 5.2.2.5).
    NoStore,
    /// The response says `private` (RFC 9111 section 5.2.2.7).
    Private,
    /// The request had `Authorization`, and the response is not marked for all (RFC 9111 section 3.5).
    Authorization,
    /// The response sets a cookie, which is most likely meant for one client (RFC 9111 section 7.3), and no rule says
    /// otherwise.
    SetCookie,
    /// No other request would be answered by it (RFC 9111 section 4.1).
    VaryStar,
    /// It has neither a lifetime nor a validator, so it could never be used again.
    NoLifetime,
}

impl NotStorable {
    /// A token for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::RequestNoStore => "request-no-store",
            Self::Status => "status",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set-cookie",
            Self::VaryStar => "vary-star",
            Self::NoLifetime => "no-lifetime",
        }
    }
}

/// Judges a response to `method` and the fields of `request`. The policy's patterns are matched with `path`.
///
/// A 206 is never storable as it is; what it becomes a part of is judged as the 200 that would have come.
pub fn storable(
    method: &Method,
    request: &HeaderMap,
    status: StatusCode,
    response: &HeaderMap,
    policy: &Policy,
    path: &str,
) -> Storable {
    match obstacle(method, request, status, response, policy, path) {
        Some(why) => Storable::No(why),
        None => Storable::Yes,
    }
}

fn obstacle(
    method: &Method,
    request: &HeaderMap,
    status: StatusCode,
    response: &HeaderMap,
    policy: &Policy,
    path: &str,
) -> Option<NotStorable> {
    let directives = response_directives(response);
    if method != Method::GET {
        return Some(NotStorable::Method);
    }
    if request_directives(request).no_store {
        return Some(NotStorable::RequestNoStore);
    }
    let is_final = status.as_u16() >= 200;
    let is_part = status == StatusCode::PARTIAL_CONTENT || status == StatusCode::NOT_MODIFIED;
    if !is_final || is_part || (directives.must_understand && !is_understood(status)) {
        return Some(NotStorable::Status);
    }
    if forbids_storing(status, &directives) {
        return Some(if directives.private { NotStorable::Private } else { NotStorable::NoStore });
    }
    let for_all = directives.public || directives.s_maxage.is_some() || directives.must_revalidate;
    if request.contains_key(AUTHORIZATION) && !for_all {
        return Some(NotStorable::Authorization);
    }
    if policy.set_cookie == SetCookie::Pass && response.contains_key(SET_COOKIE) {
        return Some(NotStorable::SetCookie);
    }
    if vary::selecting_fields(response, request, policy).is_err() {
        return Some(NotStorable::VaryStar);
    }
    let is_of_use = has_explicit_lifetime(&directives, response)
        || is_immutable(status, policy, path)
        || !policy_lifetime(status, &directives, policy).is_zero()
        || (!is_negative(status) && allows_guess(status, &directives) && has_validator(response));
    (!is_of_use).then_some(NotStorable::NoLifetime)
}

/// Whether an answer to a POST may serve later GETs, when its `Content-Location` names what was posted to: only a success
/// that says itself how long it is fresh (RFC 9110 section 9.3.3).
pub fn may_serve_get(status: StatusCode, response: &HeaderMap) -> bool {
    status == StatusCode::OK && has_explicit_lifetime(&response_directives(response), response)
}

/// Whether the response itself forbids a shared cache to keep it. `no-store` beside `must-understand` is only for
/// caches that do not know the status (RFC 9111 section 5.2.2.3).
pub(super) fn forbids_storing(status: StatusCode, directives: &ResponseDirectives) -> bool {
    let no_store = directives.no_store && !(directives.must_understand && is_understood(status));
    no_store || directives.private
}

/// The final statuses of RFC 9110 section 15 whose caching requirements this cache implements.
fn is_understood(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200..=205 | 300..=303 | 305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 500..=505)
}

fn has_validator(response: &HeaderMap) -> bool {
    entity_tag(response).is_some() || date::of(response, &LAST_MODIFIED).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::content::MissingLifetime;
    use crate::decide::sample::{date, fields, policy, secs};

    type Fields<'a> = &'a [(&'static str, &'a str)];

    const MAX_AGE: (&str, &str) = ("cache-control", "max-age=3600");

    fn judge(request: Fields<'_>, status: u16, response: Fields<'_>) -> Storable {
        let status = StatusCode::from_u16(status).unwrap();
        storable(&Method::GET, &fields(request), status, &fields(response), &policy(), "/a")
    }

    #[test]
    fn any_final_status_with_explicit_freshness_is_stored() {
        for status in [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599] {
            assert_eq!(judge(&[], status, &[MAX_AGE]), Storable::Yes, "{status}");
            assert_eq!(judge(&[], status, &[("expires", &date(-10))]), Storable::Yes, "{status}");
        }
        for status in [100, 103, 206, 304] {
            assert_eq!(judge(&[], status, &[MAX_AGE]), Storable::No(NotStorable::Status), "{status}");
        }
    }

    #[test]
    fn without_it_the_status_and_a_validator_decide() {
        use NotStorable::NoLifetime;
        let modified = &*date(-86_400);
        let last_modified = [("last-modified", modified)];
        for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
            assert_eq!(judge(&[], status, &last_modified), Storable::Yes, "{status}");
        }
        for status in [201, 202, 302, 307, 403, 500, 502, 503, 504, 599] {
            assert_eq!(judge(&[], status, &last_modified), Storable::No(NoLifetime), "{status}");
        }
        let public = [("last-modified", modified), ("cache-control", "public")];
        assert_eq!(judge(&[], 599, &public), Storable::Yes);
        assert_eq!(judge(&[], 503, &public), Storable::No(NoLifetime));
        for (response, expected) in [
            (&[][..], Storable::No(NoLifetime)),
            (&[("date", &*date(0))], Storable::No(NoLifetime)),
            (&[("etag", "\"a\"")], Storable::Yes),
            (&[("etag", "W/\"a\"")], Storable::Yes),
            (&[("etag", "a")], Storable::No(NoLifetime)),
            (&[("last-modified", "yesterday")], Storable::No(NoLifetime)),
            (&[("cache-control", "no-cache"), ("etag", "\"a\"")], Storable::Yes),
            (&[("cache-control", "no-cache")], Storable::No(NoLifetime)),
            (&[("cache-control", "max-age=0")], Storable::Yes),
        ] {
            assert_eq!(judge(&[], 200, response), expected, "{response:?}");
        }
    }

    #[test]
    fn who_says_no_is_heard() {
        use NotStorable::{Authorization, NoStore, Private, RequestNoStore, SetCookie, VaryStar};
        let no = |request: Fields<'_>, status, response: Fields<'_>| judge(request, status, response);
        for (request, response, expected) in [
            (&[][..], &[("cache-control", "no-store")][..], NoStore),
            (&[], &[("cache-control", "max-age=10000, No-StOrE")], NoStore),
            (&[], &[("cache-control", "private, max-age=3600")], Private),
            (&[], &[("cache-control", "private=\"a\", max-age=3600")], Private),
            (&[], &[MAX_AGE, ("vary", "foo, *")], VaryStar),
            (&[], &[MAX_AGE, ("set-cookie", "a=b")], SetCookie),
            (&[("cache-control", "no-store")], &[MAX_AGE], RequestNoStore),
            (&[("authorization", "FOO")], &[MAX_AGE], Authorization),
        ] {
            assert_eq!(no(request, 200, response), Storable::No(expected), "{request:?} {response:?}");
        }
        assert_eq!(no(&[("cookie", "a=b"), ("cache-control", "nothing-to-see-here")], 200, &[MAX_AGE]), Storable::Yes);
        for method in [Method::HEAD, Method::POST] {
            let judged = storable(&method, &fields(&[]), StatusCode::OK, &fields(&[MAX_AGE]), &policy(), "/a");
            assert_eq!(judged, Storable::No(NotStorable::Method));
        }
    }

    #[test]
    fn authorized_answers_are_shared_only_when_marked() {
        let request = [("authorization", "FOO")];
        for directive in ["max-age=3600, public", "max-age=3600, must-revalidate", "s-maxage=3600"] {
            assert_eq!(judge(&request, 200, &[("cache-control", directive)]), Storable::Yes, "{directive}");
        }
        let directive = "max-age=3600, proxy-revalidate";
        assert_eq!(judge(&request, 200, &[("cache-control", directive)]), Storable::No(NotStorable::Authorization));
    }

    #[test]
    fn must_understand_overrules_no_store_for_known_statuses() {
        let response = [("cache-control", "max-age=3600, no-store, must-understand")];
        assert_eq!(judge(&[], 200, &response), Storable::Yes);
        assert_eq!(judge(&[], 599, &response), Storable::No(NotStorable::Status));
        let response = [("cache-control", "max-age=3600, must-understand")];
        assert_eq!(judge(&[], 599, &response), Storable::No(NotStorable::Status));
    }

    #[test]
    fn the_policy_gives_lifetimes() {
        let mut policy = policy();
        let judge = |policy: &Policy, status, response: Fields<'_>, path| {
            let status = StatusCode::from_u16(status).unwrap();
            storable(&Method::GET, &fields(&[]), status, &fields(response), policy, path)
        };
        assert_eq!(judge(&policy, 200, &[], "/a.deb"), Storable::Yes);
        assert_eq!(judge(&policy, 500, &[], "/a.deb"), Storable::No(NotStorable::NoLifetime));
        let no_store = [("cache-control", "no-store")];
        assert_eq!(judge(&policy, 200, &no_store, "/a.deb"), Storable::No(NotStorable::NoStore));
        assert_eq!(judge(&policy, 404, &[], "/a"), Storable::Yes);
        policy.freshness.negative = secs(0);
        assert_eq!(judge(&policy, 404, &[("etag", "\"a\"")], "/a"), Storable::No(NotStorable::NoLifetime));
        assert_eq!(judge(&policy, 404, &[MAX_AGE], "/a"), Storable::Yes);
        policy.freshness.default = MissingLifetime::Fixed(secs(5));
        assert_eq!(judge(&policy, 200, &[], "/a"), Storable::Yes);
        assert_eq!(judge(&policy, 410, &[], "/a"), Storable::No(NotStorable::NoLifetime));
        assert_eq!(judge(&policy, 403, &[], "/a"), Storable::No(NotStorable::NoLifetime));
    }

    proptest! {
        #[test]
        fn what_forbids_storing_forbids_it_beside_whatever(
            own in "[ -~]{0,40}", added in "(no-store|private)", targeted in any::<bool>(), status in 200u16..600,
        ) {
            let name = if targeted { "cdn-cache-control" } else { "cache-control" };
            let status = StatusCode::from_u16(status).unwrap();
            // What is no dictionary says nothing, so the same has to hold for the field beside it.
            let response = fields(&[(name, &format!("{own}, {added}")), ("cache-control", added.as_str())]);
            let is_stored = storable(&Method::GET, &HeaderMap::new(), status, &response, &policy(), "/a") == Storable::Yes;
            prop_assert!(!is_stored || own.contains("must-understand"));
        }

        #[test]
        fn no_store_and_private_always_hold(
            other in "[a-z-]{0,20}(=[0-9]{1,4})?", first in any::<bool>(), word in "(no-store|private|NO-STORE)", status in 200u16..600, path in "/(a|a\\.deb)",
        ) {
            prop_assume!(!other.starts_with("must-understand"));
            let directives = if first { format!("{word}, {other}") } else { format!("{other},{word}") };
            let response = fields(&[("cache-control", &directives), ("etag", "\"a\"")]);
            let status = StatusCode::from_u16(status).unwrap();
            prop_assert_ne!(storable(&Method::GET, &fields(&[]), status, &response, &policy(), &path), Storable::Yes);
        }
    }
}
