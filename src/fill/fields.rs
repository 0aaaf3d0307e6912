//! Which request fields a fill sends upstream. Pure. Hop-by-hop fields, `Host`, `Via` and `CDN-Loop` are
//! `upstream`'s business.

use http::header::{IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue};

use crate::content::{ByteRange, Policy, Validator};
use crate::upstream::{Forwarding, request_fields};

/// Fields for the fetch of a whole representation that others may share.
pub(super) fn for_fetch(client: &HeaderMap, policy: &Policy) -> HeaderMap {
    request_fields(client, Forwarding::Cacheable, policy.identity_only)
}

/// Fields for an answer that goes to this client alone: its own, ranges and conditions included. Of several `Range`
/// lines the last one is meant, as Delivery Optimization agents write them; an origin would take them for one list.
pub(super) fn for_pass(client: &HeaderMap, policy: &Policy) -> HeaderMap {
    let mut fields = request_fields(client, Forwarding::Bypass, policy.identity_only);
    if let Some(last) = client.get_all(RANGE).iter().next_back().filter(|_| fields.contains_key(RANGE)) {
        fields.insert(RANGE, last.clone());
    }
    fields
}

/// Adds what asks for the rest of a body from `from` on, provided it is still the version of `validator`
/// (RFC 9110 section 13.1.5). `false` when the validator is too weak to join bytes by.
pub(super) fn ask_rest(headers: &mut HeaderMap, validator: &Validator, from: u64) -> bool {
    if !validator.is_strong() {
        return false;
    }
    let condition = match (&validator.etag, validator.last_modified) {
        (Some(etag), _) => etag.to_string(),
        (None, Some(date)) => httpdate::fmt_http_date(date),
        (None, None) => return false,
    };
    let (Ok(condition), Ok(range)) =
        (HeaderValue::from_str(&condition), HeaderValue::from_str(&format!("bytes={from}-")))
    else {
        return false;
    };
    headers.insert(RANGE, range);
    headers.insert(IF_RANGE, condition);
    true
}

/// Whether a `Content-Range` is the rest from `from` of a body, to its end. A `length` that is not known must be told
/// by the `Content-Range`.
pub(super) fn is_rest(first: u64, last: u64, total: Option<u64>, from: u64, length: Option<u64>) -> bool {
    let Some(rest) = length.or(total).and_then(|length| ByteRange::new(from, length)) else { return false };
    first == rest.start() && last == rest.last() && total.is_none_or(|total| total == rest.end())
}
