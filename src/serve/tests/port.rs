//! A data port whose every answer is the same list of segments, over a store of its own; and a client for it.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::fs;
use std::future::{Future as _, poll_fn};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::body::Incoming;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tower::service_fn;

use super::*;
use crate::content::{BodyRef, CacheKey, Digest, PartialId, Record};
use crate::serve::account::{Account, Books};
use crate::serve::body::Segment;
use crate::serve::tls::{Handshakes, Tls};
use crate::serve::wire::{WireContext, serve_connection};
use crate::shutdown::Drain;
use crate::store::{Body, DriveSettings, PartialWriter, Settings as StoreSettings, Store};
use crate::telemetry::{Metrics, RequestResult};

/// No event of these tests takes this long; it only keeps a fault from hanging them.
pub(super) const NEVER: Duration = Duration::from_secs(30);

pub(super) type Layout = Arc<dyn Fn() -> VecDeque<Segment> + Send + Sync>;

/// Log lines of a test.
#[derive(Clone, Default)]
pub(super) struct Sink(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A store in a directory of its own.
pub(super) struct Shelf {
    pub(super) store: Store,
    pub(super) metrics: Arc<Metrics>,
    /// Last, so that the store is closed before its files go.
    root: TempDir,
}

impl Shelf {
    pub(super) fn new() -> Self {
        let (root, metrics) = (TempDir::new().unwrap(), Arc::new(Metrics::new().unwrap()));
        let settings = StoreSettings {
            state: root.path().join("state"),
            drives: vec![DriveSettings { path: root.path().join("drive"), quota: 1 << 30, min_free: 0 }],
            // What a story makes the system forget is not to be read beside it.
            scrub_rate: 0,
            ..StoreSettings::default()
        };
        Self { store: Store::open(settings, Arc::clone(&metrics)).unwrap(), metrics, root }
    }

    pub(super) async fn writer(&self, name: &str, length: u64) -> PartialWriter {
        let record = Record {
            key: CacheKey::new(name.to_owned()),
            status: StatusCode::OK,
            headers: HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("\"v1\""))]),
            request_time: UnixMillis(1),
            response_time: UnixMillis(2),
            vary: Vec::new(),
            length: Some(length),
            expected: None,
            token_protected: false,
            body: BodyRef::Partial(PartialId(0)),
        };
        self.store.create(record).await.unwrap()
    }

    /// Stores `content` and returns its body.
    pub(super) async fn put(&self, name: &str, content: &[u8]) -> Body {
        let mut writer = self.writer(name, content.len() as u64).await;
        writer.write(0, vec![Bytes::copy_from_slice(content)]).await.unwrap();
        let entry = writer.complete(content.len() as u64).await.unwrap().entry;
        self.store.flush().await;
        self.store.body(&entry).await.unwrap()
    }

    pub(super) fn blob_path(&self, content: &[u8]) -> PathBuf {
        let hex = Digest::of(content).to_hex();
        self.root.path().join("drive/blobs/sha256").join(&hex[..2]).join(&hex[2..])
    }

    pub(super) fn partial_path(&self) -> PathBuf {
        let files = fs::read_dir(self.root.path().join("drive/partial")).unwrap().map(|entry| entry.unwrap().path());
        files.into_iter().find(|path| path.extension().is_some_and(|e| e == "data")).unwrap()
    }
}

pub(super) fn context(metrics: &Arc<Metrics>, limits: Limits) -> WireContext {
    WireContext::new(limits, Arc::clone(metrics), Drain::new())
}

/// Answers on a port of its own.
pub(super) struct Port {
    pub(super) address: SocketAddr,
    pub(super) context: Arc<WireContext>,
    /// How often a connection's task was polled.
    pub(super) polls: Arc<AtomicU64>,
    sink: Sink,
    log: AccessLog,
    sockets: Sockets,
}

/// Second handles on the sockets of connections that are served, by the clients' ports.
type Sockets = Arc<Mutex<HashMap<u16, OwnedFd>>>;

impl Port {
    /// Every answer is what `layout` says, `len` bytes long; that of `/small` is one byte.
    pub(super) async fn open(context: WireContext, layout: Layout, len: u64) -> Self {
        Self::open_with(context, None, layout, len).await
    }

    /// The same under TLS, if `tls` is given.
    pub(super) async fn open_with(context: WireContext, tls: Option<Arc<Tls>>, layout: Layout, len: u64) -> Self {
        let (context, sink) = (Arc::new(context), Sink::default());
        let log = AccessLog::to_sink(&LogSettings::default(), context.metrics(), sink.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let polls = Arc::new(AtomicU64::new(0));
        let (shared, account_log, counter) = (Arc::clone(&context), log.clone(), Arc::clone(&polls));
        let sockets = Sockets::default();
        let handles = Arc::clone(&sockets);
        tokio::spawn(async move {
            loop {
                let (stream, peer) = listener.accept().await.unwrap();
                let (context, log, layout) = (Arc::clone(&shared), account_log.clone(), Arc::clone(&layout));
                let books = Arc::new(Books { log, metrics: Arc::clone(context.metrics()) });
                let (counter, tls, handles) = (Arc::clone(&counter), tls.clone(), Arc::clone(&handles));
                handles.lock().insert(peer.port(), stream.as_fd().try_clone_to_owned().unwrap());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (parts, _) = request.into_parts();
                    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
                    let mut account = Account::open(&books, client, &parts, std::time::Instant::now());
                    account.answered(200, RequestResult::Hit);
                    let (segments, len) = match parts.uri.path() {
                        "/small" => (VecDeque::from([Segment::Bytes(Bytes::from_static(b"s"))]), 1),
                        _ => (layout(), len),
                    };
                    let is_head = parts.method == Method::HEAD;
                    let body = if is_head { SegmentBody::empty() } else { SegmentBody::new(segments, Some(len)) };
                    let mut response = Response::new(body.accounted(account));
                    response.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from(len));
                    async move { Ok::<_, Infallible>(response) }
                });
                tokio::spawn(async move {
                    let socket = match tls {
                        Some(tls) => Handshakes::new(Arc::clone(&tls), false)
                            .accept(stream, peer, NEVER, &context)
                            .await
                            .unwrap(),
                        None => stream.into(),
                    };
                    let mut served = pin!(serve_connection(socket, peer, service, &context));
                    poll_fn(|cx| {
                        counter.fetch_add(1, Ordering::Relaxed);
                        served.as_mut().poll(cx)
                    })
                    .await;
                    handles.lock().remove(&peer.port());
                });
            }
        });
        Self { address, context, polls, sink, log, sockets }
    }

    /// Whether the kernel holds back the end of what was written to a client.
    #[cfg(target_os = "linux")]
    pub(super) fn is_corked(&self) -> bool {
        self.sockets.lock().values().any(|socket| rustix::net::sockopt::tcp_cork(socket).unwrap())
    }

    /// Waits until no connection is open; the lines of the access log then.
    pub(super) async fn lines(&self) -> String {
        let closed = async {
            while self.context.metrics().connections.get() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(NEVER, closed).await.unwrap();
        assert!(self.log.flush());
        String::from_utf8(self.sink.0.lock().clone()).unwrap()
    }

    /// Body bytes that the only line of the access log tells of.
    pub(super) async fn logged_bytes(&self) -> u64 {
        let lines = self.lines().await;
        assert_eq!(lines.lines().count(), 1, "{lines}");
        let (_, rest) = lines.split_once(" bytes=").unwrap();
        rest.split(' ').next().unwrap().parse().unwrap()
    }
}

pub(super) struct Client {
    pub(super) stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    pub(super) async fn connect(port: &Port) -> Self {
        Self { stream: TcpStream::connect(port.address).await.unwrap(), read: Vec::new() }
    }

    /// With a receive window of some kilobytes.
    pub(super) async fn narrow(port: &Port) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Self { stream: socket.connect(port.address).await.unwrap(), read: Vec::new() }
    }

    pub(super) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    pub(super) async fn ask(&mut self, target: &str) {
        self.send(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    }

    /// Reads more; `false` at the end or a reset.
    pub(super) async fn more(&mut self) -> bool {
        let read = self.stream.read_buf(&mut self.read);
        tokio::time::timeout(NEVER, read).await.unwrap().is_ok_and(|count| count > 0)
    }

    pub(super) async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                return String::from_utf8(self.read.drain(..end + 4).collect()).unwrap();
            }
            assert!(self.more().await, "closed before a head");
        }
    }

    /// Up to `len` bytes of a body; fewer when the connection ends before.
    pub(super) async fn body(&mut self, len: usize) -> Vec<u8> {
        while self.read.len() < len && self.more().await {}
        let len = len.min(self.read.len());
        self.read.drain(..len).collect()
    }

    /// The next answer's body, whole or cut.
    pub(super) async fn answer(&mut self) -> Vec<u8> {
        let head = self.head().await.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        self.body(length.parse().unwrap()).await
    }
}
