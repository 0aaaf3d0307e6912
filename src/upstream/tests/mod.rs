//! Fetches from scripted servers on the loopback interface. Here is what the tests share; each file tells one
//! part of the story.

mod closing;
mod comebacks;
mod differential;
mod faults;
mod guard;
mod lookups;
mod reader;
mod redirects;
mod reuse;
mod tls;
mod uploads;
mod urgency;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::*;
use crate::content::{Origin, Policy, Scheme};
use crate::telemetry::Metrics;

/// What a scripted server does when it has read the head of a request.
#[derive(Clone)]
enum Act {
    /// Sends this and reads the next request.
    Send(String),
    /// Sends this and closes.
    SendAndClose(String),
    /// Sends this and drops the connection without a farewell of TLS.
    SendAndDrop(String),
    /// Sends this, then nothing, and waits for the client to go.
    SendAndHang(String),
}

/// A server whose n-th connection follows the n-th script; the last script is for all that follow.
struct Server {
    address: SocketAddr,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    connections: usize,
    requests: Vec<String>,
}

impl Server {
    async fn start(scripts: Vec<Vec<Act>>) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), scripts)
    }

    fn on(listener: TcpListener, scripts: Vec<Vec<Act>>) -> Self {
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Log::default()));
        let server = Self { address, log: Arc::clone(&log) };
        tokio::spawn(async move {
            for n in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                log.lock().connections += 1;
                let script = scripts[n.min(scripts.len() - 1)].clone();
                tokio::spawn(follow(stream, script, Arc::clone(&log)));
            }
        });
        server
    }

    /// One script for every connection.
    async fn always(script: Vec<Act>) -> Self {
        Self::start(vec![script]).await
    }

    fn connections(&self) -> usize {
        self.log.lock().connections
    }

    /// The heads of all requests so far, in lower case.
    fn requests(&self) -> Vec<String> {
        self.log.lock().requests.clone()
    }

    fn origin(&self) -> Origin {
        Origin { scheme: Scheme::Http, host: "127.0.0.1".into(), port: self.address.port() }
    }
}

async fn follow<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, script: Vec<Act>, log: Arc<Mutex<Log>>) {
    for act in script {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        log.lock().requests.push(String::from_utf8_lossy(&head).to_lowercase());
        let (Act::Send(text) | Act::SendAndClose(text) | Act::SendAndDrop(text) | Act::SendAndHang(text)) = &act;
        // The client may have gone already; the next read notices.
        let _ = stream.write_all(text.as_bytes()).await;
        let _ = stream.flush().await;
        match act {
            Act::Send(_) => {}
            Act::SendAndClose(_) => {
                let _ = stream.shutdown().await;
                return;
            }
            Act::SendAndDrop(_) => return,
            Act::SendAndHang(_) => break,
        }
    }
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

/// A 200 with `body` by `Content-Length`.
fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A resolver that knows a few names by heart.
#[derive(Debug, Default)]
struct Names(Vec<(&'static str, Vec<SocketAddr>)>);

impl Resolver for Names {
    fn resolve(&self, host: Arc<str>, _port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let known = self.0.iter().find(|(name, _)| *name == &*host).map(|(_, addresses)| addresses.clone());
        Box::pin(async move { known.ok_or_else(|| io::Error::other("no such name")) })
    }
}

/// Redirects may lead to these origins.
struct Allowed(Vec<Origin>);

impl Redirects for Allowed {
    fn allow(&self, origin: &Origin, _target: &str) -> Option<Arc<Policy>> {
        self.0.contains(origin).then(|| Arc::new(private_policy()))
    }
}

fn private_policy() -> Policy {
    Policy { allow_private: true, ..Policy::for_host("127.0.0.1") }
}

/// Limits that no test reaches unless it waits for them.
fn patient() -> Settings {
    let long = Duration::from_secs(30);
    let timeouts = Timeouts { connect: long, first_byte: long, stall: long, request: long };
    Settings { timeouts, ..Settings::default() }
}

fn upstream_with(settings: Settings, names: Names, roots: Roots) -> Upstream {
    let metrics = Arc::new(Metrics::new().unwrap());
    Upstream::with_parts(settings, "test-cache".into(), metrics, Vec::new(), roots, Arc::new(names)).unwrap()
}

fn upstream() -> Upstream {
    upstream_with(patient(), Names::default(), Roots::System)
}

fn get(origin: Origin, target: &str) -> FetchRequest {
    FetchRequest {
        standing: Standing::default(),
        method: Method::GET,
        origin,
        target: target.to_owned(),
        headers: HeaderMap::new(),
        policy: Arc::new(private_policy()),
        body: None,
        avoid: Vec::new(),
        silence: None,
        wrong: None,
        interims: None,
        stands_in: false,
        deadline: Instant::now() + Duration::from_secs(30),
    }
}

/// Fetches where no redirect is expected.
async fn fetch(upstream: &Upstream, request: FetchRequest) -> Result<FetchResponse, FetchError> {
    upstream.fetch(request, &Allowed(Vec::new())).await
}

/// Reads to the end or to a fault, which every further call repeats.
async fn read(body: &mut UpstreamBody) -> (String, Option<BodyError>) {
    let mut text = Vec::new();
    loop {
        match body.next().await {
            Some(Ok(bytes)) => text.extend_from_slice(&bytes),
            Some(Err(error)) => {
                assert_eq!(body.next().await, Some(Err::<Bytes, _>(error)));
                return (String::from_utf8(text).unwrap(), Some(error));
            }
            None => {
                assert_eq!(body.next().await, None);
                return (String::from_utf8(text).unwrap(), None);
            }
        }
    }
}

/// Fetches and reads a body that must be whole.
async fn text(upstream: &Upstream, request: FetchRequest) -> String {
    let mut response = fetch(upstream, request).await.unwrap();
    let (text, fault) = read(&mut response.body).await;
    assert_eq!(fault, None);
    text
}
