//! Which request fields a fill sends upstream. Pure. Hop-by-hop fields, `Host`, `Via` and `CDN-Loop` are
//! `upstream`'s business.

use http::header::{IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue};

use super::Want;
use crate::content::Validator;
use crate::upstream::{Forwarding, request_fields};

/// Fields for the fetch of a whole representation that others may share.
pub(super) fn for_fetch(want: &Want) -> HeaderMap {
    request_fields(&want.headers, Forwarding::Cacheable, is_identity_only(want))
}

/// Fields for an answer that goes to this client alone: its own, ranges and conditions included. Of several `Range`
/// lines the last one is meant, as Delivery Optimization agents write them; an origin would take them for one list.
pub(super) fn for_pass(want: &Want) -> HeaderMap {
    let mut fields = request_fields(&want.headers, Forwarding::Bypass, is_identity_only(want));
    if let Some(last) = want.headers.get_all(RANGE).iter().next_back().filter(|_| fields.contains_key(RANGE)) {
        fields.insert(RANGE, last.clone());
    }
    fields
}

/// The operator's digest is that of the bytes without a coding.
fn is_identity_only(want: &Want) -> bool {
    want.policy.identity_only || want.rule_digest().is_some()
}

/// Asks for the bytes from `start` to `last`, or to the end, on the condition that they are still of the version of
/// `validator` (RFC 9110 section 13.1.5), if one is given. Only strong ones are.
pub(super) fn ask_range(headers: &mut HeaderMap, start: u64, last: Option<u64>, validator: Option<&Validator>) {
    let range = match last {
        Some(last) => format!("bytes={start}-{last}"),
        None => format!("bytes={start}-"),
    };
    headers.extend(HeaderValue::try_from(range).ok().map(|range| (RANGE, range)));
    let condition = validator.and_then(|validator| match (&validator.etag, validator.last_modified) {
        (Some(etag), _) => Some(etag.to_string()),
        (None, Some(date)) => Some(httpdate::fmt_http_date(date)),
        (None, None) => None,
    });
    headers.extend(condition.and_then(|text| HeaderValue::try_from(text).ok()).map(|text| (IF_RANGE, text)));
}
