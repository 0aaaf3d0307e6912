//! Whose word an answer of 4xx is, when there is somebody between us and the origin. Pure.

use http::header::PROXY_AUTHENTICATE;
use http::{HeaderMap, HeaderName, StatusCode};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Whether a parent or a proxy refuses for reasons of its own: the statuses by which they do, unless the answer says that it
/// came from the origin (RFC 9211 section 2: it was a hit, or forwarded and answered with this very status). Such a refusal
/// must not reach a device, which would leave this cache alone for it.
pub(super) fn refuses(status: StatusCode, fields: &HeaderMap) -> bool {
    match status.as_u16() {
        407 | 421 | 508 => true,
        400 | 403 | 405 | 413 | 414 | 429 | 431 => !is_of_origin(status, fields),
        _ => false,
    }
}

/// Whether an answer of 401, 404, 410 or 451 may be a parent's or a proxy's own word: none of the origin's. It stands when
/// nobody else can be asked.
pub(super) fn may_be_own(status: StatusCode, fields: &HeaderMap) -> bool {
    matches!(status.as_u16(), 401 | 404 | 410 | 451) && !is_of_origin(status, fields)
}

/// Whether a Waystation on the way refuses since it has no rule for the host: then nobody behind it was asked.
pub(super) fn has_no_rule(status: StatusCode, fields: &HeaderMap) -> bool {
    status == StatusCode::FORBIDDEN && says(fields, "detail=unknown-origin")
}

/// Whether a parent could not get it, since its request came back to a cache that it had passed.
pub(super) fn met_a_circle(status: StatusCode, fields: &HeaderMap) -> bool {
    status == StatusCode::SERVICE_UNAVAILABLE && was_answered(StatusCode::LOOP_DETECTED, fields)
}

/// Whether a proxy does not take the password that it was shown, or was shown none (RFC 9110 section 15.5.8).
pub(super) fn asks_for_password(status: StatusCode, fields: &HeaderMap) -> bool {
    status == StatusCode::PROXY_AUTHENTICATION_REQUIRED
        && fields.contains_key(PROXY_AUTHENTICATE)
        && !is_of_origin(status, fields)
}

fn is_of_origin(status: StatusCode, fields: &HeaderMap) -> bool {
    was_answered(status, fields) || says(fields, "hit")
}

/// Whether somebody on the way was answered so.
fn was_answered(status: StatusCode, fields: &HeaderMap) -> bool {
    says(fields, &format!("fwd-status={}", status.as_str()))
}

fn says(fields: &HeaderMap, wanted: &str) -> bool {
    let values = fields.get_all(CACHE_STATUS).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(parameters).any(|parameter| parameter.trim() == wanted)
}

/// What stands between commas and semicolons. Those in a string separate nothing (RFC 9651 section 3.3.3): a client has a
/// say in what stands there, since a key is made of its request (RFC 9211 section 2.7).
fn parameters(value: &str) -> impl Iterator<Item = &str> {
    let (mut in_string, mut escaped) = (false, false);
    value.split(move |c: char| {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
        matches!(c, ',' | ';') && !in_string
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_the_origin_has_not_said_may_be_anybody_s_word() {
        for (status, field, own) in [
            (404, None, true),
            (410, Some("l5; detail=gone"), true),
            (401, None, true),
            (451, None, true),
            (404, Some("l5; fwd=uri-miss; fwd-status=404"), false),
            (410, Some("l5; hit; ttl=3"), false),
            (416, None, false),
            (200, None, false),
            (503, None, false),
        ] {
            let mut fields = HeaderMap::new();
            fields.extend(field.map(|field| (CACHE_STATUS, HeaderValue::from_static(field))));
            assert_eq!(may_be_own(StatusCode::from_u16(status).unwrap(), &fields), own, "{status} {field:?}");
        }
    }

    #[test]
    fn refusals_are_told_from_answers_of_the_origin() {
        for (status, field, refused) in [
            (403, None, true),
            (400, None, true),
            (405, None, true),
            (407, Some("l4; fwd=uri-miss; fwd-status=407"), true),
            (421, None, true),
            (508, None, true),
            (403, Some("l5; detail=origin-not-allowed"), true),
            (403, Some("l5; fwd=uri-miss; fwd-status=403"), false),
            (403, Some("l5; fwd=uri-miss; fwd-status=403, l4; fwd=uri-miss; fwd-status=403"), false),
            (403, Some("l5; fwd=uri-miss; fwd-status=200"), true),
            (405, Some("l5; hit; ttl=3"), false),
            (403, Some("l5; key=\"a/b; hit; fwd-status=403\"; detail=no-such-host"), true),
            (403, Some("l5; key=\"a/\\\"; hit\"; detail=no-such-host"), true),
            (403, Some("l5; key=\"a/\\\\\"; hit; ttl=3"), false),
            (403, Some("l5; key=\"a/b\"; fwd=miss; fwd-status=403"), false),
            (401, None, false),
            (404, None, false),
            (410, None, false),
            (416, None, false),
            (200, None, false),
            (503, None, false),
        ] {
            let mut fields = HeaderMap::new();
            fields.extend(field.map(|field| (CACHE_STATUS, HeaderValue::from_static(field))));
            assert_eq!(refuses(StatusCode::from_u16(status).unwrap(), &fields), refused, "{status} {field:?}");
        }
    }
}
