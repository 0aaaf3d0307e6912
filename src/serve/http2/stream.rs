//! [`Stream`]: one request and its answer on a connection that carries several; [`StreamBody`], the answer's body as the
//! library takes it, and [`Chunk`], the bytes on their way to the client.
//!
//! Of each answer only one piece is on its way: a client that reads slowly costs that much memory and no more.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::shared::Shared;
use crate::serve::wire::{Content, PieceBody, Receipt};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a body ends before its end, in the log.
const LEFT: &str = "the client has taken the request back, or left";

/// One request and its answer, until the last byte has left.
pub(super) struct Stream {
    shared: Arc<Shared>,
    began: Instant,
    /// When bytes moved last, in milliseconds since the begin.
    moved: AtomicU64,
    /// Whether the next step is ours and not the client's.
    is_ours: AtomicBool,
    /// Whether a piece is on its way.
    is_sending: AtomicBool,
    sent: AtomicWaker,
}

pin_project! {
    /// The body of an answer: the service's, or what a refusal says.
    pub(super) struct StreamBody<B> {
        #[pin]
        content: BodyContent<B>,
        stream: Arc<Stream>,
        receipt: Option<Arc<dyn Receipt>>,
        has_begun: bool,
        is_over: bool,
    }

    impl<B> PinnedDrop for StreamBody<B> {
        fn drop(this: Pin<&mut Self>) {
            if !this.is_over && let Some(receipt) = &this.receipt {
                receipt.cut(LEFT);
            }
        }
    }
}

pin_project! {
    #[project = ContentProjection]
    enum BodyContent<B> {
        Service { #[pin] body: B },
        Text { text: Bytes },
    }
}

/// A piece on its way.
pub(super) struct Chunk {
    bytes: Bytes,
    receipt: Option<Arc<dyn Receipt>>,
    stream: Arc<Stream>,
}

// === impl Stream ===

impl Stream {
    /// A request that has just come.
    pub(super) fn new(shared: &Arc<Shared>) -> Arc<Self> {
        shared.opened();
        Arc::new(Self {
            shared: Arc::clone(shared),
            began: Instant::now(),
            moved: AtomicU64::new(0),
            is_ours: AtomicBool::new(true),
            is_sending: AtomicBool::new(false),
            sent: AtomicWaker::new(),
        })
    }

    fn moved(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(millis, Ordering::Relaxed);
    }

    /// Whose the next step is.
    fn waits_for_us(&self, is_ours: bool) {
        if !is_ours {
            self.moved();
        }
        self.is_ours.store(is_ours, Ordering::Relaxed);
    }

    /// Completes when nothing is on its way. One task waits at a time.
    fn poll_sent(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.sent.register(cx.waker());
        if self.is_sending.load(Ordering::Acquire) { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Completes when the client has taken nothing for `allowed`, while the next step was its own and the connection took
    /// bytes: one that takes none is looked at as a whole.
    pub(super) async fn stalled(&self, allowed: Duration) {
        let mut since = self.began;
        loop {
            tokio::time::sleep_until((since + allowed).into()).await;
            since = match self.is_ours.load(Ordering::Relaxed) || self.shared.is_stuck() {
                true => Instant::now(),
                false => self.began + Duration::from_millis(self.moved.load(Ordering::Relaxed)),
            };
            if since.elapsed() >= allowed {
                return;
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.closed();
    }
}

// === impl StreamBody ===

impl<B> StreamBody<B> {
    /// The service's body.
    pub(super) fn of_service(body: B, stream: Arc<Stream>) -> Self {
        Self::new(BodyContent::Service { body }, stream)
    }

    /// These bytes.
    pub(super) fn text(text: Bytes, stream: Arc<Stream>) -> Self {
        Self::new(BodyContent::Text { text }, stream)
    }

    fn new(content: BodyContent<B>, stream: Arc<Stream>) -> Self {
        Self { content, stream, receipt: None, has_begun: false, is_over: false }
    }
}

impl<B> Body for StreamBody<B>
where
    B: PieceBody,
    B::Error: Into<BoxError>,
{
    type Data = Chunk;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Chunk>, BoxError>>> {
        let mut this = self.project();
        ready!(this.stream.poll_sent(cx));
        let (content, receipt) = match this.content.as_mut().project() {
            ContentProjection::Text { text } if text.is_empty() => {
                *this.is_over = true;
                return Poll::Ready(None);
            }
            ContentProjection::Text { text } => {
                this.stream.waits_for_us(false);
                (std::mem::take(text), None)
            }
            ContentProjection::Service { mut body } => {
                let polled = body.as_mut().poll_piece(cx, false);
                this.stream.waits_for_us(polled.is_pending());
                let piece = match ready!(polled) {
                    Some(Ok(piece)) => piece,
                    Some(Err(error)) => {
                        *this.is_over = true;
                        return Poll::Ready(Some(Err(error.into())));
                    }
                    None => {
                        *this.is_over = true;
                        return Poll::Ready(None);
                    }
                };
                *this.is_over = body.is_end_stream();
                match piece.content {
                    Content::Bytes(bytes) => (bytes, piece.receipt),
                    Content::Window(_) => return Poll::Ready(Some(Err("a file where memory was asked for".into()))),
                }
            }
        };
        *this.has_begun = true;
        this.receipt.clone_from(&receipt);
        this.stream.is_sending.store(true, Ordering::Release);
        Poll::Ready(Some(Ok(Frame::data(Chunk { bytes: content, receipt, stream: Arc::clone(this.stream) }))))
    }

    /// Of what has begun the end is told alone, when the last piece has left: until then the library's task holds the stream,
    /// and can reset it and nothing else.
    fn is_end_stream(&self) -> bool {
        match &self.content {
            _ if self.has_begun => false,
            BodyContent::Service { body } => body.is_end_stream(),
            BodyContent::Text { text } => text.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            BodyContent::Service { body } => body.size_hint(),
            BodyContent::Text { text } => SizeHint::with_exact(text.len() as u64),
        }
    }
}

// === impl Chunk ===

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    /// Called when so many bytes were written.
    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.stream.moved();
        if let Some(receipt) = &self.receipt {
            receipt.sent(count as u64);
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if !self.bytes.is_empty()
            && let Some(receipt) = &self.receipt
        {
            receipt.cut(LEFT);
        }
        self.stream.is_sending.store(false, Ordering::Release);
        self.stream.sent.wake();
    }
}
