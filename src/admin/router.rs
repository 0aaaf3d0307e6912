//! From a request to an answer: which path, for whom, with which fields.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::token::Peer;
use super::{Settings, Sources, api, summary};

/// The Prometheus text format.
const METRICS_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const JSON_TYPE: HeaderValue = HeaderValue::from_static("application/json");

/// A path that is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    /// The process runs; nothing else is asked.
    Healthz,
    /// Requests may be sent here.
    Readyz,
    /// Everything that is counted.
    Metrics,
    /// What the cache did, in short.
    Summary,
}

/// Why a request gets no content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Unknown,
    Method,
    Client,
    Fault,
}

/// Answers one request of `peer`.
pub(super) async fn answer(
    settings: &Arc<Settings>,
    sources: &Sources,
    peer: Peer,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    if request.uri().path().starts_with("/api/v1/") {
        return api::answer(settings, sources.pins.as_ref(), peer, request).await;
    }
    match route(settings, peer.client, request.method(), request.uri().path()) {
        Ok(endpoint) => content(endpoint, sources).await.unwrap_or_else(refuse),
        Err(refusal) => refuse(refusal),
    }
}

/// Which endpoint, if `client` may have it. Who may not learns nothing of the method.
fn route(settings: &Settings, client: IpAddr, method: &Method, path: &str) -> Result<Endpoint, Refusal> {
    let (endpoint, allowed) = match path {
        "/healthz" => (Endpoint::Healthz, true),
        "/readyz" => (Endpoint::Readyz, true),
        "/metrics" => (Endpoint::Metrics, settings.metrics_clients.allows(client)),
        "/summary" => (Endpoint::Summary, settings.summary_clients.allows(client)),
        _ => return Err(Refusal::Unknown),
    };
    if !allowed {
        Err(Refusal::Client)
    } else if method != Method::GET && method != Method::HEAD {
        Err(Refusal::Method)
    } else {
        Ok(endpoint)
    }
}

async fn content(endpoint: Endpoint, sources: &Sources) -> Result<Response<Full<Bytes>>, Refusal> {
    let Sources { metrics, refresh, readiness, drives, .. } = sources.clone();
    match endpoint {
        Endpoint::Healthz => Ok(json_answer(StatusCode::OK, &json!({ "status": "ok" }))),
        Endpoint::Readyz => {
            let (readiness, drives) = blocking(move || (readiness(), drives())).await?;
            let status = if readiness.state.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            Ok(json_answer(status, &readiness.to_json(&drives)))
        }
        Endpoint::Metrics => {
            let rendered = move || {
                refresh();
                metrics.render()
            };
            let text = blocking(rendered).await?.map_err(|error| {
                tracing::error!(%error, "metrics cannot be written");
                Refusal::Fault
            })?;
            Ok(with_fields(StatusCode::OK, METRICS_TYPE, text))
        }
        Endpoint::Summary => {
            let body = blocking(move || summary::summary(&metrics, &readiness(), &drives())).await?;
            Ok(json_answer(StatusCode::OK, &body))
        }
    }
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "an admin request failed");
        Refusal::Fault
    })
}

fn refuse(refusal: Refusal) -> Response<Full<Bytes>> {
    let (status, reason) = match refusal {
        Refusal::Unknown => {
            (StatusCode::NOT_FOUND, "no such path; there are /healthz, /readyz, /summary, /metrics and /api/v1/pins")
        }
        Refusal::Method => (StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are offered"),
        Refusal::Client => (StatusCode::FORBIDDEN, "this path is not offered to this client address"),
        Refusal::Fault => (StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made; the log has the reason"),
    };
    let mut response = json_answer(status, &json!({ "error": reason }));
    if refusal == Refusal::Method {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

pub(super) fn json_answer(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    with_fields(status, JSON_TYPE, format!("{body}\n"))
}

fn with_fields(status: StatusCode, content_type: HeaderValue, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, content_type);
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::AccessList;

    #[test]
    fn paths_are_offered_to_those_on_their_list() {
        let settings = Settings {
            addresses: Vec::new(),
            summary_clients: AccessList::private(),
            metrics_clients: AccessList::loopback(),
            ..Settings::default()
        };
        let rows = [
            ("127.0.0.1", Method::GET, "/metrics", Ok(Endpoint::Metrics)),
            ("127.0.0.1", Method::HEAD, "/summary", Ok(Endpoint::Summary)),
            ("172.17.0.1", Method::GET, "/summary", Ok(Endpoint::Summary)),
            ("172.17.0.1", Method::GET, "/metrics", Err(Refusal::Client)),
            ("172.17.0.1", Method::POST, "/metrics", Err(Refusal::Client)),
            ("203.0.113.9", Method::GET, "/summary", Err(Refusal::Client)),
            ("203.0.113.9", Method::GET, "/healthz", Ok(Endpoint::Healthz)),
            ("203.0.113.9", Method::GET, "/readyz", Ok(Endpoint::Readyz)),
            ("127.0.0.1", Method::DELETE, "/summary", Err(Refusal::Method)),
            ("127.0.0.1", Method::GET, "/healthz/", Err(Refusal::Unknown)),
            ("127.0.0.1", Method::GET, "/", Err(Refusal::Unknown)),
            ("127.0.0.1", Method::GET, "/api/v2/pins", Err(Refusal::Unknown)),
        ];
        for (client, method, path, expected) in rows {
            let found = route(&settings, client.parse().unwrap(), &method, path);
            assert_eq!(found, expected, "{client} {method} {path}");
        }
    }
}
