//! The demo's origin: a small HTTP server on loopback with content that can be computed anywhere, so that the demo
//! can check each byte. It counts what it sends, can be switched off, and treats two of its files badly, once each.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_RANGE, LAST_MODIFIED, RANGE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::content::Digest;

/// One frame of content.
const FRAME: u64 = 64 * 1024;

/// The file whose connection is cut once, when half of it was sent.
pub(super) const CUT: &str = "/update/c.swu";

/// The file that has a wrong byte in its middle the first time, and a `Repr-Digest` that is right.
pub(super) const DAMAGED: &str = "/update/d.swu";

/// A running origin. Dropped or switched off, it refuses connections.
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    files: Arc<Files>,
    task: JoinHandle<()>,
}

/// What the origin has, and what it has done.
struct Files {
    length: u64,
    /// Of [`DAMAGED`].
    digest: Digest,
    sent: AtomicU64,
    sent_of_cut: AtomicU64,
    has_cut: AtomicBool,
    has_damaged: AtomicBool,
}

impl Origin {
    /// Serves `/update/<name>.swu`, each `length` bytes long.
    pub(super) async fn start(length: u64) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let files = Arc::new(Files {
            length,
            digest: digest_of(seed_of(DAMAGED), length),
            sent: AtomicU64::new(0),
            sent_of_cut: AtomicU64::new(0),
            has_cut: AtomicBool::new(false),
            has_damaged: AtomicBool::new(false),
        });
        let served = Arc::clone(&files);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let files = Arc::clone(&served);
                connections.spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let files = Arc::clone(&files);
                        async move { Ok::<_, Infallible>(answer(&request, files)) }
                    });
                    // A client that went away is nothing to tell in a demo, and nor is a cut that was meant.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { address, files, task })
    }

    /// Body bytes sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.files.sent.load(Ordering::Relaxed)
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

fn answer(request: &Request<Incoming>, files: Arc<Files>) -> Response<Content> {
    let path = request.uri().path();
    let name = path.strip_prefix("/update/").and_then(|rest| rest.strip_suffix(".swu"));
    let known = name.is_some() && matches!(*request.method(), Method::GET | Method::HEAD);
    let length = files.length;
    let (seed, fault) = (seed_of(path), Fault::of(path));
    let tag = HeaderValue::from_str(&format!("\"{seed:016x}\"")).ok();
    let range = if known { range_of(request.headers(), tag.as_ref(), length) } else { None };
    let (position, end) = range.unwrap_or((0, if known { length } else { 0 }));
    let has_body = *request.method() == Method::GET;
    let digest = files.digest;
    let end_of_body = if has_body { end } else { position };
    let content = Content { seed, position, end: end_of_body, fault, cutting: false, files };
    let mut response = Response::new(content);
    if !known {
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    let range = range.map(|(from, to)| format!("bytes {from}-{}/{length}", to - 1));
    if range.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    let digest = (fault == Fault::Damages).then(|| format!("sha-256=:{}:", digest.to_base64()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(end - position));
    headers.insert(LAST_MODIFIED, HeaderValue::from_static("Mon, 02 Nov 2026 08:00:00 GMT"));
    headers.extend(tag.map(|tag| (ETAG, tag)));
    headers.extend(range.and_then(|range| HeaderValue::try_from(range).ok()).map(|range| (CONTENT_RANGE, range)));
    if let Some(digest) = digest.and_then(|digest| HeaderValue::try_from(digest).ok()) {
        headers.insert("repr-digest", digest);
    }
    response
}

/// The range that is asked for, as first byte and end, if it is a single one of this version.
fn range_of(headers: &HeaderMap, tag: Option<&HeaderValue>, length: u64) -> Option<(u64, u64)> {
    let text = headers.get(RANGE)?.to_str().ok()?.strip_prefix("bytes=")?;
    let (first, last) = text.split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let end = if last.is_empty() { length } else { last.parse::<u64>().ok()?.saturating_add(1).min(length) };
    let same = headers.get(IF_RANGE).is_none_or(|condition| Some(condition) == tag);
    (same && first < end).then_some((first, end))
}

fn digest_of(seed: u64, length: u64) -> Digest {
    let mut hash = Sha256::new();
    let mut at = 0;
    while at < length {
        let until = (at + FRAME).min(length);
        hash.update(bytes_of(seed, at, until));
        at = until;
    }
    Digest::from_bytes(hash.finalize().into())
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

/// The content from `position` to `until`.
fn bytes_of(seed: u64, position: u64, until: u64) -> BytesMut {
    let (first, end) = (position / 8, until.div_ceil(8));
    let mut bytes = BytesMut::with_capacity((end - first) as usize * 8);
    (first..end).for_each(|index| bytes.extend_from_slice(&word(seed, index)));
    let mut bytes = bytes.split_off((position - first * 8) as usize);
    bytes.truncate((until - position) as usize);
    bytes
}

/// What happens to a file while it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Cuts,
    Damages,
}

impl Fault {
    fn of(path: &str) -> Self {
        match path {
            CUT => Self::Cuts,
            DAMAGED => Self::Damages,
            _ => Self::None,
        }
    }
}

/// A body that computes its bytes.
struct Content {
    seed: u64,
    position: u64,
    end: u64,
    fault: Fault,
    /// The next poll cuts: what was given out before is on the wire then.
    cutting: bool,
    files: Arc<Files>,
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.cutting {
            return Poll::Ready(Some(Err(io::Error::other("cut, as the demo wants it"))));
        }
        if self.position >= self.end {
            return Poll::Ready(None);
        }
        let files = Arc::clone(&self.files);
        let middle = files.length / 2;
        if self.fault == Fault::Cuts
            && files.sent_of_cut.load(Ordering::Relaxed) >= middle
            && !files.has_cut.swap(true, Ordering::Relaxed)
        {
            self.cutting = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let until = (self.position + FRAME).min(self.end);
        let mut frame = bytes_of(self.seed, self.position, until);
        if self.fault == Fault::Damages
            && (self.position..until).contains(&middle)
            && !files.has_damaged.swap(true, Ordering::Relaxed)
        {
            frame[(middle - self.position) as usize] ^= 1;
        }
        let sent = until - self.position;
        files.sent.fetch_add(sent, Ordering::Relaxed);
        if self.fault == Fault::Cuts {
            files.sent_of_cut.fetch_add(sent, Ordering::Relaxed);
        }
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
