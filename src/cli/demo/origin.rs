//! The demo's origin: a small HTTP server on loopback with content that can be computed anywhere, so that the demo
//! can check each byte. It counts what it sends and can be switched off.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, ETAG, LAST_MODIFIED};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One frame of content.
const FRAME: u64 = 64 * 1024;

/// A running origin. Dropped or switched off, it refuses connections.
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    sent: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Origin {
    /// Serves `/update/<name>.swu`, each `length` bytes long.
    pub(super) async fn start(length: u64) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let sent = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&sent);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let counter = Arc::clone(&counter);
                connections.spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let counter = Arc::clone(&counter);
                        async move { Ok::<_, Infallible>(answer(&request, length, counter)) }
                    });
                    // A client that went away is nothing to tell in a demo.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { address, sent, task })
    }

    /// Body bytes sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Closes the listener and all connections.
    pub(super) async fn switch_off(&mut self) {
        self.task.abort();
        // The error says that the task was aborted, which is what was asked for.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn answer(request: &Request<Incoming>, length: u64, sent: Arc<AtomicU64>) -> Response<Content> {
    let name = request.uri().path().strip_prefix("/update/").and_then(|rest| rest.strip_suffix(".swu"));
    let known = name.is_some() && matches!(*request.method(), Method::GET | Method::HEAD);
    let remaining = if known && *request.method() == Method::GET { length } else { 0 };
    let seed = seed_of(request.uri().path());
    let mut response = Response::new(Content { seed, position: 0, end: remaining, sent });
    if !known {
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(LAST_MODIFIED, HeaderValue::from_static("Mon, 02 Nov 2026 08:00:00 GMT"));
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{seed:016x}\"")) {
        headers.insert(ETAG, tag);
    }
    response
}

/// The seed of the content at `path`.
pub(super) fn seed_of(path: &str) -> u64 {
    path.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// The 8 bytes of content at `index * 8`.
pub(super) fn word(seed: u64, index: u64) -> [u8; 8] {
    let mut z = seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).to_le_bytes()
}

/// A body that computes its bytes; `position` and `end` are multiples of 8.
struct Content {
    seed: u64,
    position: u64,
    end: u64,
    sent: Arc<AtomicU64>,
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.position >= self.end {
            return Poll::Ready(None);
        }
        let until = (self.position + FRAME).min(self.end);
        let mut frame = BytesMut::with_capacity((until - self.position) as usize);
        (self.position / 8..until / 8).for_each(|index| frame.extend_from_slice(&word(self.seed, index)));
        self.sent.fetch_add(until - self.position, Ordering::Relaxed);
        self.position = until;
        Poll::Ready(Some(Ok(Frame::data(frame.freeze()))))
    }

    fn is_end_stream(&self) -> bool {
        self.position >= self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.position)
    }
}
