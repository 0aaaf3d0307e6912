//! Tunnels (CONNECT, RFC 9110 section 9.3.6), both ways: a bare connection to a host for a client's tunnel, with the same
//! name resolution, proxy and address guard as for content; and a tunnel through a proxy that stands before a source. No
//! TLS, no pool. Health is not kept: who tunnels speaks to the host itself and judges by itself.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{HeaderMap, Request};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::content::{Origin, Scheme};

use super::budget::Toll;
use super::client::Upstream;
use super::error::{FetchError, Phase};
use super::loops;
use super::plan::Source;
use super::proxy::Proxy;

impl Upstream {
    /// Connects to `host:port` within `upstream.timeouts.connect`, for a request with the fields `received`: a proxy on the
    /// way is told by whom it was passed on.
    ///
    /// # Errors
    /// When nothing may be asked directly or at this time, the name has no address that may be connected to, or none answers.
    pub async fn connect(
        &self,
        host: Arc<str>,
        port: u16,
        allow_private: bool,
        received: &HeaderMap,
    ) -> Result<(TcpStream, Toll), FetchError> {
        let settings = &self.inner.settings;
        if !settings.direct {
            return Err(FetchError::NoSource { host: host.to_string() });
        }
        if let Some(shut) = self.inner.budget.shut() {
            return Err(FetchError::OverBudget { until: shut.until });
        }
        let toll = Toll::new(Arc::clone(&self.inner.budget), Arc::clone(&host));
        // The scheme names no default port in messages; nothing is spoken here.
        let origin = Origin { scheme: Scheme::Https, host, port };
        let source = Source { proxy: settings.proxies.of(&origin), ..Source::origin(origin, None, allow_private) };
        let limit = Instant::now() + settings.timeouts.connect;
        let stream = self.inner.connector.dial(&source, limit).await?;
        let stream = match &source.proxy {
            Some(proxy) => {
                let marks = loops::passed_on(received, &self.inner.pseudonym);
                through(proxy, &source, stream, marks, limit).await?
            }
            None => stream,
        };
        Ok((stream, toll))
    }
}

/// Asks `proxy`, to which `stream` leads, for a tunnel to the peer of `source`, and returns the connection once it stands.
/// `marks` keep caches that are each other's proxy from asking in circles.
pub(super) async fn through(
    proxy: &Proxy,
    source: &Source,
    stream: TcpStream,
    marks: HeaderMap,
    limit: Instant,
) -> Result<TcpStream, FetchError> {
    let host = &source.peer.host;
    let closed = || FetchError::Disconnected { host: format!("proxy {proxy}") };
    let asked = async {
        let (mut sender, connection) =
            http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(|_error| closed())?;
        tokio::spawn(connection.with_upgrades());
        let response = sender.send_request(request(proxy, source, marks)?).await.map_err(|_error| closed())?;
        let status = response.status();
        if !status.is_success() {
            let (proxy, host) = (proxy.to_string(), host.to_string());
            return Err(FetchError::ProxyFailed { proxy, host, status });
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(|_error| closed())?;
        let parts = upgraded.downcast::<TokioIo<TcpStream>>().map_err(|_upgraded| closed())?;
        // The other end speaks only when it is spoken to.
        if parts.read_buf.is_empty() { Ok(parts.io.into_inner()) } else { Err(closed()) }
    };
    let late = |_elapsed| FetchError::Timeout { host: host.to_string(), phase: Phase::Connect };
    timeout_at(limit, asked).await.map_err(late)?
}

fn request(proxy: &Proxy, source: &Source, marks: HeaderMap) -> Result<Request<Empty<Bytes>>, FetchError> {
    let authority = format!("{}:{}", source.peer.host, source.peer.port);
    let mut request = Request::connect(&authority).header(HOST, &authority);
    if let Some(credentials) = &proxy.credentials {
        request = request.header(PROXY_AUTHORIZATION, credentials.value());
    }
    let request = request.body(Empty::new());
    let mut request = request.map_err(|error| FetchError::InvalidRequest { reason: error.to_string() })?;
    request.headers_mut().extend(marks);
    Ok(request)
}
