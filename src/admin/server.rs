//! Accepting on the admin listeners. Bounded in connections and time, so that nobody can make it a burden.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::token::Peer;
use super::{Settings, Sources, router};

/// Most connections at once. More are closed unanswered.
const CONNECTIONS: usize = 64;
/// Of them, those kept for loopback: a health check must pass while others crowd the port.
const LOOPBACK_CONNECTIONS: usize = 8;
/// From the accepted connection to the complete request head.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// From the accepted connection to the last byte of the answer.
const CONNECTION_LIMIT: Duration = Duration::from_secs(30);
/// How long requests in flight may go on after the shutdown.
const GRACE: Duration = Duration::from_secs(1);
/// Pause after a failed accept, which is most often a want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Room for connections.
struct Room {
    anybody: Arc<Semaphore>,
    loopback: Arc<Semaphore>,
}

/// Answers on `listeners` until `shutdown` resolves, and then up to a second longer what is in flight. Each connection
/// carries one request. To show a state of draining, let `shutdown` resolve after the data port has drained.
pub async fn serve(
    listeners: Vec<TcpListener>,
    settings: Settings,
    sources: Sources,
    shutdown: impl Future<Output = ()> + Send,
) {
    let settings = Arc::new(settings);
    let room = Room::new();
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        // Connections that ended are taken out as they end, so that the set does not grow.
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept(&listeners) => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(permit) = room.admit(peer) {
                    connections.spawn(connection(stream, peer, permit, Arc::clone(&settings), sources.clone()));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listeners);
    // Whoever is not done by then is cut when the set is dropped.
    let _ = timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

impl Room {
    fn new() -> Self {
        Self {
            anybody: Arc::new(Semaphore::new(CONNECTIONS - LOOPBACK_CONNECTIONS)),
            loopback: Arc::new(Semaphore::new(LOOPBACK_CONNECTIONS)),
        }
    }

    fn admit(&self, peer: SocketAddr) -> Option<OwnedSemaphorePermit> {
        let reserve = peer.ip().to_canonical().is_loopback().then_some(&self.loopback);
        std::iter::once(&self.anybody).chain(reserve).find_map(|room| Arc::clone(room).try_acquire_owned().ok())
    }
}

/// The next connection of any listener; never resolves without listeners.
async fn accept(listeners: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|context| {
        let ready = listeners.iter().find_map(|listener| match listener.poll_accept(context) {
            Poll::Ready(accepted) => Some(accepted),
            Poll::Pending => None,
        });
        ready.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
    settings: Arc<Settings>,
    sources: Sources,
) {
    let peer = Peer { client: peer.ip(), local: stream.local_addr().ok().map(|local| local.ip()) };
    let service = service_fn(|request: Request<Incoming>| {
        let (settings, sources) = (&settings, &sources);
        async move { Ok::<_, Infallible>(router::answer(settings, sources, peer, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .keep_alive(false)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    // A client that breaks off or sends nonsense is no event for the log.
    let _ = timeout(CONNECTION_LIMIT, served).await;
    drop(permit);
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use parking_lot::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::admin::{NodeState, Readiness};
    use crate::content::AccessList;
    use crate::telemetry::Metrics;

    struct Rig {
        address: SocketAddr,
        metrics: Arc<Metrics>,
        state: Arc<Mutex<Readiness>>,
        stop: oneshot::Sender<()>,
        server: JoinHandle<()>,
    }

    async fn start(settings: Settings) -> Rig {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let state = Arc::new(Mutex::new(Readiness::of(NodeState::Starting)));
        let (readiness, refreshed) = (Arc::clone(&state), Arc::clone(&metrics));
        let sources = Sources {
            metrics: Arc::clone(&metrics),
            refresh: Arc::new(move || refreshed.parent_lowered.with_label_values(&["l4"]).set(0)),
            readiness: Arc::new(move || readiness.lock().clone()),
            drives: Arc::new(Vec::new),
            pins: None,
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(vec![listener], settings, sources, async {
            let _ = stopped.await;
        }));
        Rig { address, metrics, state, stop, server }
    }

    async fn ask(address: SocketAddr, request: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
    }

    async fn call(address: SocketAddr, method: &str, path: &str) -> (u16, String, String) {
        ask(address, &format!("{method} {path} HTTP/1.1\r\nHost: admin\r\n\r\n")).await
    }

    #[tokio::test]
    async fn every_answer_is_fresh_typed_and_of_known_length() {
        let rig = start(Settings::default()).await;
        let rows = [
            ("GET", "/healthz", 200, "application/json"),
            ("GET", "/readyz?verbose", 503, "application/json"),
            ("GET", "/summary", 200, "application/json"),
            ("GET", "/metrics", 200, "text/plain; version=0.0.4; charset=utf-8"),
            ("GET", "/nothing", 404, "application/json"),
            ("POST", "/summary", 405, "application/json"),
        ];
        for (method, path, expected, content_type) in rows {
            let (status, head, body) = call(rig.address, method, path).await;
            assert_eq!(status, expected, "{path}");
            for field in [
                format!("content-type: {content_type}"),
                format!("content-length: {}", body.len()),
                "cache-control: no-store".to_owned(),
                "x-content-type-options: nosniff".to_owned(),
                "connection: close".to_owned(),
            ] {
                assert!(head.lines().any(|line| line == field), "{path}: {field}\n{head}");
            }
            if content_type == "application/json" {
                serde_json::from_str::<serde_json::Value>(&body).unwrap();
            }
            assert_eq!(head.contains("allow: get, head"), expected == 405, "{head}");
        }
    }

    #[tokio::test]
    async fn head_has_the_length_and_no_body() {
        let rig = start(Settings::default()).await;
        let (_, _, body) = call(rig.address, "GET", "/healthz").await;
        let (status, head, none) = call(rig.address, "HEAD", "/healthz").await;
        assert_eq!((status, none.as_str()), (200, ""));
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    }

    #[tokio::test]
    async fn readiness_follows_the_state_and_health_does_not() {
        let rig = start(Settings::default()).await;
        for state in NodeState::ALL {
            *rig.state.lock() = Readiness { reasons: vec!["because".to_owned()], ..Readiness::of(state) };
            let (status, _, body) = call(rig.address, "GET", "/readyz").await;
            assert_eq!(status, if state.is_ready() { 200 } else { 503 }, "{}", state.as_str());
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(body["state"], state.as_str());
            assert_eq!(body["ready"], state.is_ready());
            assert_eq!(body["reasons"][0], "because");
            assert_eq!(call(rig.address, "GET", "/healthz").await.0, 200);
        }
    }

    #[tokio::test]
    async fn what_was_counted_is_shown() {
        let rig = start(Settings::default()).await;
        rig.metrics.hit_bytes.inc_by(5);
        let (_, _, metrics) = call(rig.address, "GET", "/metrics").await;
        assert!(metrics.contains("\nwaystation_hit_bytes_total 5\n"), "{metrics}");
        let of_time = "\nwaystation_parent_lowered{parent=\"l4\"} 0\n";
        assert!(metrics.contains(of_time), "gauges that time changes are brought up to date: {metrics}");
        let (_, _, summary) = call(rig.address, "GET", "/summary").await;
        assert_eq!(serde_json::from_str::<serde_json::Value>(&summary).unwrap()["eggressBytes"], 5);
    }

    #[tokio::test]
    async fn clients_that_are_not_on_the_list_are_refused() {
        let nobody = AccessList::nobody();
        let settings = Settings { summary_clients: nobody.clone(), metrics_clients: nobody, ..Settings::default() };
        let rig = start(settings).await;
        for (path, expected) in [("/summary", 403), ("/metrics", 403), ("/healthz", 200)] {
            assert_eq!(call(rig.address, "GET", path).await.0, expected, "{path}");
        }
    }

    #[tokio::test]
    async fn nonsense_is_refused_and_the_next_is_served() {
        let rig = start(Settings::default()).await;
        assert_eq!(ask(rig.address, "nonsense\r\n\r\n").await.0, 400);
        let long = format!("GET /healthz HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(15 * 1024));
        assert_eq!(ask(rig.address, &long).await.0, 200);
        assert_eq!(call(rig.address, "GET", "/healthz").await.0, 200);
    }

    #[tokio::test]
    async fn health_is_told_while_the_port_is_crowded() {
        let rig = start(Settings::default()).await;
        let mut crowd = Vec::new();
        for _ in 0..CONNECTIONS - 1 {
            crowd.push(TcpStream::connect(rig.address).await.unwrap());
        }
        assert_eq!(call(rig.address, "GET", "/healthz").await.0, 200);
    }

    #[tokio::test]
    async fn connections_above_the_limit_are_closed() {
        let rig = start(Settings::default()).await;
        let mut crowd = Vec::new();
        for _ in 0..CONNECTIONS {
            crowd.push(TcpStream::connect(rig.address).await.unwrap());
        }
        let mut extra = TcpStream::connect(rig.address).await.unwrap();
        assert_eq!(extra.read(&mut [0; 1]).await.unwrap_or(0), 0);
        for held in &mut crowd {
            held.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            held.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
    }

    #[test]
    fn others_cannot_take_the_room_that_is_kept_for_loopback() {
        let room = Room::new();
        let other = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 9));
        let own = SocketAddr::from((IpAddr::from(Ipv4Addr::LOCALHOST.to_ipv6_mapped()), 9));
        let others: Vec<_> = std::iter::from_fn(|| room.admit(other)).take(1000).collect();
        assert_eq!(others.len(), CONNECTIONS - LOOPBACK_CONNECTIONS);
        let owns: Vec<_> = std::iter::from_fn(|| room.admit(own)).take(1000).collect();
        assert_eq!(owns.len(), LOOPBACK_CONNECTIONS);
        drop(others);
        assert!(room.admit(other).is_some());
    }

    #[tokio::test]
    async fn shutdown_closes_the_port() {
        let rig = start(Settings::default()).await;
        assert_eq!(call(rig.address, "GET", "/healthz").await.0, 200);
        rig.stop.send(()).unwrap();
        rig.server.await.unwrap();
        assert!(TcpStream::connect(rig.address).await.is_err());
    }
}
