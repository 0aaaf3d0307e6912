//! From an error to an outcome: the only such map.

use http::{Method, StatusCode};

use super::outcome::{Outcome, Reply};
use crate::decide::{CacheStatus, FwdReason};
use crate::fill::{FetchError, FillError};
use crate::resolve::Refusal;
use crate::telemetry::RequestResult;

/// Seconds after which a client is told to come back.
const RETRY_AFTER: u32 = 2;

/// The request cannot be mapped to content of an origin we serve.
pub(super) fn refused(refusal: &Refusal) -> Outcome {
    let reply =
        Reply::Own { status: refusal.status(), reason: refusal.to_string(), allow: refusal.allow().map(str::to_owned) };
    Outcome { reply, result: RequestResult::Refused, status: CacheStatus::own(refusal.as_str()) }
}

/// Upstream brought nothing and nothing stored may be served. Delivery Optimization agents ban a cache for any 4xx and
/// for silence, but not for a 5xx: so it is a 503 for every passing fault. A body that its client did not bring to its end is
/// none. `reason` is why the request itself went upstream, if it did and not one about it.
pub(super) fn failed(error: &FillError, reason: Option<FwdReason>) -> Outcome {
    if error.is_of_the_request() {
        let reply = Reply::Own { status: StatusCode::BAD_REQUEST, reason: error.to_string(), allow: None };
        return Outcome { reply, result: RequestResult::Refused, status: CacheStatus::own(error.as_str()) };
    }
    let outcome = unavailable(error.as_str());
    match reason.filter(|_| !error.asked_nobody()) {
        Some(reason) => outcome.after(reason, error.status()),
        None => outcome,
    }
}

/// The host of a tunnel cannot be reached. An address that the guard refuses is no 4xx either: names are resolved
/// wrongly for a while, too.
pub(super) fn unreached(error: &FetchError) -> Outcome {
    if error.ask_again_at().is_some() {
        return unavailable(error.as_str());
    }
    let status = match error {
        FetchError::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
        FetchError::NoSource { .. } | FetchError::ConnectFailed { own: true, .. } => StatusCode::SERVICE_UNAVAILABLE,
        // A proxy that has seen the request before, or that was told so by the next one, is as of no use as none.
        FetchError::ProxyFailed { status, .. } if matches!(status.as_u16(), 503 | 508) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::BAD_GATEWAY,
    };
    Outcome {
        reply: Reply::Own { status, reason: error.to_string(), allow: None },
        result: RequestResult::Error,
        status: CacheStatus::own(error.as_str()),
    }
}

/// A fault of our own: 503 as well.
pub(super) fn unavailable(why: &'static str) -> Outcome {
    Outcome {
        reply: Reply::Unavailable { retry_after: RETRY_AFTER },
        result: RequestResult::Error,
        status: CacheStatus::own(why),
    }
}

/// `only-if-cached` and nothing there (RFC 9111 section 5.2.1.7).
pub(super) fn only_if_cached() -> Outcome {
    let reason = "the request says only-if-cached, and the content is not stored".to_owned();
    Outcome {
        reply: Reply::Own { status: StatusCode::GATEWAY_TIMEOUT, reason, allow: None },
        result: RequestResult::Error,
        status: CacheStatus::own("only-if-cached"),
    }
}

/// OPTIONS that must go no further (RFC 9110 section 7.6.2): the methods that are let through.
pub(super) fn options(methods: &[Method]) -> Outcome {
    let names: Vec<_> = methods.iter().map(Method::as_str).collect();
    let reason = "this cache is the last that may answer".to_owned();
    Outcome {
        reply: Reply::Own { status: StatusCode::OK, reason, allow: Some(names.join(", ")) },
        result: RequestResult::Bypass,
        status: CacheStatus::own("max-forwards"),
    }
}

/// Nothing that may be shared has this digest.
pub(super) fn no_such_digest() -> Outcome {
    let reason = "no stored content that may be shared has this digest".to_owned();
    Outcome {
        reply: Reply::Own { status: StatusCode::NOT_FOUND, reason, allow: None },
        result: RequestResult::Refused,
        status: CacheStatus::own("no-such-digest"),
    }
}

/// The request has been here before (RFC 8586 section 2).
pub(super) fn looped() -> Outcome {
    let reason =
        "the request has passed through this cache already: its sources form a loop; check the parents and proxies"
            .to_owned();
    Outcome {
        reply: Reply::Own { status: StatusCode::LOOP_DETECTED, reason, allow: None },
        result: RequestResult::Error,
        status: CacheStatus::own("loop"),
    }
}
