//! Answers as clients see them, up to the socket: a handler over a real store, filled from scripted origins on the
//! loopback interface. Here is what the tests share.

mod bodies;
mod failures;
mod fields;
mod port;
mod sending;
mod tokens;
mod trouble;
mod under_tls;
mod versions;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use super::ask::Ask;
use super::body::SegmentBody;
use super::handler::Handler;
use super::respond::respond;
use super::{Limits, ProxyProtocol, Settings};
use crate::content::AccessList;
use crate::content::{AuthParameters, PathPatterns, Policy, Scheme, UnixMillis};
use crate::fill::tests::{FRESH, Gate, KIB, Rig, Server, Step, TAG, answer, body_of, head};
use crate::resolve::{self, Inbound};
use crate::telemetry::{AccessLog, LogSettings};

const AGENT: (&str, &str) = ("user-agent", "Microsoft-Delivery-Optimization/10.0");

/// One cache with one origin.
struct Site {
    server: Server,
    handler: Handler,
    rules: Arc<resolve::Settings>,
    /// Last, so that its files outlive every handle on the store.
    rig: Rig,
}

/// An answer with its whole body.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Result<Bytes, String>,
}

impl Site {
    async fn new(script: impl Fn(usize, &str) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let server = Server::start(script).await;
        let mut rules = resolve::Settings::default();
        let policy = Policy {
            allow_private: true,
            port: Some(server.address.port()),
            auth_parameters: AuthParameters::AzureSas,
            shield_client_errors: PathPatterns::new(&["*.optional"]).unwrap(),
            ..Policy::for_host("127.0.0.1")
        };
        rules.rules.insert(policy).unwrap();
        let (rig, rules) = (Rig::new(), Arc::new(rules));
        let settings = Settings {
            digest_clients: AccessList::Networks(Vec::new()),
            digest_certified: false,
            data: Vec::new(),
            tls: None,
            clients: AccessList::Any,
            named_clients: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_protocol: ProxyProtocol::None,
            limits: Limits::default(),
            drain_grace: Duration::ZERO,
            pseudonym: "cache".into(),
            cache_status_key: false,
            clients_may_refetch: true,
            tunnel_idle_time: Duration::from_secs(60),
        };
        let log = AccessLog::to_sink(&LogSettings::default(), &rig.metrics, std::io::sink()).unwrap();
        let metrics = Arc::clone(&rig.metrics);
        let handler =
            Handler::new(settings, Arc::clone(&rules), rig.store.clone(), rig.fill.clone(), log, metrics).unwrap();
        Self { rig, server, handler, rules }
    }

    fn ask(&self, method: &Method, target: &str, fields: &[(&str, &str)]) -> Ask {
        let joint = if target.contains('?') { '&' } else { '?' };
        let uri: Uri = format!("{target}{joint}cacheHostOrigin={}", self.server.address).parse().unwrap();
        let mut headers = HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static("cache"))]);
        for (name, value) in fields {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let inbound = Inbound { method, uri: &uri, version: Version::HTTP_11, headers: &headers, scheme: Scheme::Http };
        let content = resolve::resolve(&inbound, &self.rules).unwrap();
        let now = UnixMillis::from(SystemTime::now());
        let deadline = Instant::now() + Duration::from_secs(30);
        Ask::new(content, method.clone(), headers, now, deadline, &self.handler.proofs)
    }

    async fn begin(&self, method: Method, target: &str, fields: &[(&str, &str)]) -> Response<SegmentBody> {
        let outcome = self.handler.answer_read(self.ask(&method, target, fields)).await;
        respond(outcome, "cache", method == Method::HEAD)
    }

    async fn get(&self, target: &str, fields: &[(&str, &str)]) -> Answer {
        Answer::of(self.begin(Method::GET, target, fields).await).await
    }

    async fn head(&self, target: &str, fields: &[(&str, &str)]) -> Answer {
        Answer::of(self.begin(Method::HEAD, target, fields).await).await
    }

    /// GET, and wait until the fill has ended.
    async fn fill(&self, target: &str) -> Answer {
        let answer = self.get(target, &[]).await;
        self.rig.idle().await;
        answer
    }
}

/// `Cache-Status` without its lifetime, which must be about as long as what is fresh has.
fn fresh(status: &str) -> String {
    let (before, rest) = status.split_once("; ttl=").unwrap();
    let (ttl, after) = rest.split_at(rest.find(';').unwrap_or(rest.len()));
    assert!((3000..=3600).contains(&ttl.parse::<i64>().unwrap()), "{status}");
    format!("{before}{after}")
}

impl Answer {
    async fn of(response: Response<SegmentBody>) -> Self {
        let (head, body) = response.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).map_err(|cut| cut.to_string());
        Self { status: head.status.as_u16(), headers: head.headers, body }
    }

    fn field(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(self.body.as_ref().unwrap()).unwrap()
    }
}
