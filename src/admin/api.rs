//! `/api/v1`: what people and tools with the token may see and change. `/api/v1/pins`: GET lists what must not be evicted,
//! POST adds to it, DELETE (`?target=…`, more than once if wanted) takes off. Bodies are JSON.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::router::json_answer;
use super::token::{self, Denied, Peer};
use super::{PinDesk, Settings};
use crate::content::UnixMillis;
use crate::store::{MAX_PINS, PinError, PinTarget, Pinned};

/// Longest body of a request in bytes: ten thousand long URLs.
const LONGEST_BODY: usize = 8 * 1024 * 1024;

/// What POST sends.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    targets: Vec<String>,
    reason: String,
    #[serde(default)]
    expires: Option<String>,
}

/// An answer that is none of what was asked for.
struct Refused(StatusCode, String);

/// Answers a request below `/api/v1/`.
pub(super) async fn answer(
    settings: &Arc<Settings>,
    pins: Option<&PinDesk>,
    peer: Peer,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    if let Err(denied) = authorized(settings, peer, &head.headers).await {
        return deny(&denied);
    }
    let (Some(desk), "/api/v1/pins") = (pins, head.uri.path()) else {
        return refuse(Refused(StatusCode::NOT_FOUND, "no such path; there is /api/v1/pins".to_owned()));
    };
    let outcome = match head.method {
        Method::GET | Method::HEAD => Ok(list(&desk.store.pinned().await)),
        Method::POST => set(desk, body).await,
        Method::DELETE => take_off(desk, &head).await,
        _ => Err(Refused(StatusCode::METHOD_NOT_ALLOWED, "only GET, HEAD, POST and DELETE are offered".to_owned())),
    };
    match outcome {
        Ok(content) => json_answer(StatusCode::OK, &content),
        Err(refused) => refuse(refused),
    }
}

async fn authorized(settings: &Arc<Settings>, peer: Peer, fields: &HeaderMap) -> Result<(), Denied> {
    let settings = Arc::clone(settings);
    let fields = fields.get_all(AUTHORIZATION).iter().map(|value| (AUTHORIZATION, value.clone())).collect();
    let checked = spawn_blocking(move || token::check(&settings, peer, &fields)).await;
    checked.unwrap_or_else(|error| Err(Denied::File(error.to_string())))
}

async fn set(desk: &PinDesk, body: Incoming) -> Result<Value, Refused> {
    let body = Limited::new(body, LONGEST_BODY).collect().await.map_err(|error| {
        let too_long = error.downcast_ref::<LengthLimitError>().is_some();
        let status = if too_long { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
        Refused(status, format!("the body could not be read: {error}; {LONGEST_BODY} bytes are the most"))
    })?;
    let wanted: Wanted = serde_json::from_slice(&body.to_bytes()).map_err(|error| {
        let remedy = r#"write {"targets": ["http://host/path", "sha256:…"], "reason": "why", "expires": "2027-01-31T00:00:00Z" or null}"#;
        bad(format!("the body is not what is asked for: {error}; {remedy}"))
    })?;
    if wanted.targets.len() > MAX_PINS {
        return Err(bad(format!("targets: there are {}; {MAX_PINS} are the most", wanted.targets.len())));
    }
    if wanted.targets.is_empty() {
        return Err(bad("targets: there is none; write URLs or sha256:… with 64 hexadecimal digits".to_owned()));
    }
    let expires = wanted.expires.as_deref().map(moment).transpose()?;
    let named = |text: &String| (desk.target)(text).map_err(|error| bad(format!("targets: {text}: {error}")));
    let targets = wanted.targets.iter().map(named).collect::<Result<HashSet<PinTarget>, Refused>>()?;
    let targets = Vec::from_iter(targets);
    desk.store.pin(&targets, &wanted.reason, expires).await.map_err(not_done)?;
    tracing::info!(targets = targets.len(), reason = wanted.reason, "pinned");
    Ok(list(&desk.store.pinned_of(&targets).await))
}

async fn take_off(desk: &PinDesk, head: &Parts) -> Result<Value, Refused> {
    let mut texts = Vec::new();
    for pair in head.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let Some(value) = pair.strip_prefix("target=") else {
            return Err(bad(format!("{pair} is not asked for; write ?target=, percent-encoded")));
        };
        let text = percent_decode_str(value).decode_utf8();
        texts.push(text.map_err(|_| bad("target: it is not UTF-8; percent-encode it".to_owned()))?.into_owned());
    }
    if texts.is_empty() {
        return Err(bad("target: there is none; write ?target=, percent-encoded".to_owned()));
    }
    // As it is listed, or as it was pinned.
    let pins = desk.store.pins().into_iter();
    let listed: HashMap<String, PinTarget> = pins.map(|pin| (pin.target.to_string(), pin.target)).collect();
    let named = |text: &String| match listed.get(text) {
        Some(target) => Ok(target.clone()),
        None => (desk.target)(text).map_err(|error| bad(format!("target: {text}: {error}"))),
    };
    let targets = Vec::from_iter(texts.iter().map(named).collect::<Result<HashSet<PinTarget>, Refused>>()?);
    let had = desk.store.unpin(&targets).await.map_err(not_done)?;
    if had.is_empty() {
        return Err(Refused(
            StatusCode::NOT_FOUND,
            "target: it is not pinned; GET /api/v1/pins lists what is".to_owned(),
        ));
    }
    tracing::info!(targets = had.len(), "unpinned");
    let words = |targets: Vec<&PinTarget>| targets.into_iter().map(ToString::to_string).collect::<Vec<_>>();
    let not_pinned = targets.iter().filter(|target| !had.contains(target)).collect();
    Ok(json!({ "unpinned": words(had.iter().collect()), "notPinned": words(not_pinned) }))
}

fn list(pinned: &[Pinned]) -> Value {
    let pin = |Pinned { pin, bytes, complete }: &Pinned| {
        json!({
            "target": pin.target.to_string(),
            "reason": pin.reason,
            "set": pin.set.to_rfc3339(),
            "expires": pin.expires.map(UnixMillis::to_rfc3339),
            "bytes": bytes,
            "complete": complete,
        })
    };
    json!({ "pins": pinned.iter().map(pin).collect::<Vec<_>>() })
}

fn moment(text: &str) -> Result<UnixMillis, Refused> {
    UnixMillis::from_rfc3339(text)
        .ok_or_else(|| bad(format!("expires: {text} is not a time of RFC 3339; write one like 2027-01-31T00:00:00Z")))
}

fn bad(problem: String) -> Refused {
    Refused(StatusCode::BAD_REQUEST, problem)
}

fn not_done(error: PinError) -> Refused {
    let status = match error {
        PinError::Reason(_) | PinError::Expired(_) => StatusCode::BAD_REQUEST,
        PinError::TooMany | PinError::TooLong => StatusCode::CONFLICT,
        PinError::NotWritten(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Refused(status, error.to_string())
}

fn refuse(Refused(status, problem): Refused) -> Response<Full<Bytes>> {
    let mut response = json_answer(status, &json!({ "error": problem }));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, DELETE"));
    }
    response
}

fn deny(denied: &Denied) -> Response<Full<Bytes>> {
    let status = match denied {
        Denied::Off | Denied::Plaintext => StatusCode::FORBIDDEN,
        Denied::Unauthorized => StatusCode::UNAUTHORIZED,
        Denied::File(reason) => {
            tracing::error!(reason, "admin.token_file cannot be used");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    let mut response = refuse(Refused(status, denied.to_string()));
    if status == StatusCode::UNAUTHORIZED {
        // RFC 6750 section 3.
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
