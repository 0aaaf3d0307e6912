//! What the socket side and the service side of one connection tell each other across hyper: when a request
//! was handed in, and when the last of its answer was handed out.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::{HeaderValue, Method, Request, Response, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::{Mutex, MutexGuard};
use pin_project_lite::pin_project;
use tokio::net::TcpStream;
use tower::util::Oneshot;
use tower::{BoxError, Service, ServiceExt};

use super::direct::Words;
use super::interim::{Interim, Queue};
use super::piece::{Content, Payload, Piece, PieceBody, Receipt, TURN, WINDOW};
use super::socket::ClientSocket;
use super::{ConnectionInfo, Peer};
use crate::content::Scheme;
use crate::serve::tunnel::Tunnel;
use crate::store::Window;

/// Bytes that the only busy connection sends before it looks for others: some 100 us of work.
const ALONE: u64 = WINDOW;

/// Where the present exchange stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// No request is being answered.
    Idle,
    /// A head was handed to hyper.
    Asked,
    /// The service's body has been taken to its end (or dropped); hyper may still be writing it.
    Answered,
}

/// Shared by both sides. One exchange at a time: the gate hands in the next head after the answer before it.
pub(super) struct Exchange {
    state: Mutex<State>,
    /// Windows for which hyper holds placeholders, in their order.
    windows: Mutex<VecDeque<Queued>>,
    /// How many they are.
    queued: AtomicUsize,
    /// Responses before the response.
    interims: Queue,
    /// Whether the answer's body has more than it gave when it was asked last.
    flowing: AtomicBool,
    /// Whether the kernel holds back what is no full segment.
    corked: AtomicBool,
    /// Bytes written since the connection's task was polled last.
    turn: AtomicU64,
    /// Whether this connection can send files.
    files: bool,
}

/// A window on its way through hyper.
pub(super) struct Queued {
    pub(super) window: Window,
    pub(super) receipt: Option<Arc<dyn Receipt>>,
}

#[derive(Debug)]
struct State {
    step: Step,
    head_complete: Instant,
    /// The end of the answer is the end of the connection: a cut must not look like one.
    close_delimited: bool,
    /// What follows the answer, which is then the last one.
    tunnel: Option<Tunnel>,
    /// The request's head as it came, for a service that wants to know.
    words: Option<Words>,
}

/// The service as hyper sees it.
pub(super) struct WireService<S> {
    pub(super) inner: S,
    pub(super) peer: Peer,
    pub(super) scheme: Scheme,
    pub(super) exchange: Arc<Exchange>,
}

pin_project! {
    /// The service's future; wraps the body of its response.
    pub(super) struct Answer<F> {
        #[pin]
        inner: F,
        http_10: bool,
        connect: bool,
        guard: Option<AnswerGuard>,
    }
}

pin_project! {
    /// The service's body; tells the exchange when hyper is done with it.
    pub(super) struct AnswerBody<B> {
        #[pin]
        inner: B,
        guard: AnswerGuard,
        files: bool,
        // Whether the last thing was a piece, which hyper may not have begun to write.
        fresh: bool,
        // What breaks the answer at the next turn: what a client that reads slowly has not got by then is lost to it.
        broken: Option<BoxError>,
    }
}

/// Marks the exchange as answered when dropped.
struct AnswerGuard {
    exchange: Arc<Exchange>,
}

// === impl Exchange ===

impl Exchange {
    pub(super) fn new(now: Instant, files: bool) -> Self {
        Self {
            state: Mutex::new(State::new(Step::Idle, now)),
            windows: Mutex::default(),
            queued: AtomicUsize::new(0),
            flowing: AtomicBool::new(false),
            corked: AtomicBool::new(false),
            interims: Queue::default(),
            turn: AtomicU64::new(0),
            files,
        }
    }

    /// What is written before the answer.
    pub(super) fn interims(&self) -> &Queue {
        &self.interims
    }

    /// The connection's task is polled.
    pub(super) fn begin_turn(&self) {
        self.turn.store(0, Ordering::Relaxed);
    }

    /// So many bytes were written in this turn.
    pub(super) fn count_turn(&self, bytes: usize) {
        self.turn.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes that may be written at once; 0 when it is the others' turn. One that is `alone` looks less often whether there
    /// are others.
    pub(super) fn left_of_turn(&self, alone: bool) -> u64 {
        let (written, most) = (self.turn.load(Ordering::Relaxed), if alone { ALONE } else { TURN });
        // A head before them makes no odd rest.
        if written < most { most - written / TURN * TURN } else { 0 }
    }

    /// Whether more of the answer's body is expected at once behind what was handed out.
    pub(super) fn is_flowing(&self) -> bool {
        self.flowing.load(Ordering::Relaxed)
    }

    /// More is to follow what is written to `stream` now: until then the end of it stays, if it is no full segment.
    pub(super) fn cork(&self, stream: &TcpStream) {
        if !self.is_corked() {
            self.corked.store(true, Ordering::Relaxed);
            ClientSocket::cork(stream);
        }
    }

    /// Has everything leave that was written to `stream`.
    pub(super) fn uncork(&self, stream: &TcpStream) {
        if self.is_corked() {
            self.corked.store(false, Ordering::Relaxed);
            ClientSocket::uncork(stream);
        }
    }

    fn is_corked(&self) -> bool {
        self.corked.load(Ordering::Relaxed)
    }

    /// How many windows are on their way.
    pub(super) fn queued(&self) -> usize {
        self.queued.load(Ordering::Acquire)
    }

    /// The windows on their way. Whoever takes one out calls [`Exchange::sent_one`].
    pub(super) fn windows(&self) -> MutexGuard<'_, VecDeque<Queued>> {
        self.windows.lock()
    }

    /// The first window has left whole.
    pub(super) fn sent_one(&self, mut windows: MutexGuard<'_, VecDeque<Queued>>) {
        windows.pop_front();
        self.queued.store(windows.len(), Ordering::Release);
    }

    /// Puts a window into the queue; hyper gets what is returned.
    pub(super) fn payload(&self, piece: Piece) -> Payload {
        let Piece { content, receipt } = piece;
        match content {
            Content::Bytes(bytes) => Payload::bytes(bytes, receipt),
            Content::Window(window) => {
                let payload =
                    Payload::placeholder(usize::try_from(window.len()).unwrap_or(usize::MAX), receipt.clone());
                let mut windows = self.windows.lock();
                windows.push_back(Queued { window, receipt });
                self.queued.store(windows.len(), Ordering::Release);
                payload
            }
        }
    }

    pub(super) fn step(&self) -> Step {
        self.state.lock().step
    }

    /// A head that was complete at `now` goes to hyper; the service gets `words` beside it.
    pub(super) fn ask(&self, now: Instant, words: Option<Words>) {
        *self.state.lock() = State { words, ..State::new(Step::Asked, now) };
    }

    /// Everything of the answer is written. `false` when it is not over, or was none, or no request can follow it.
    pub(super) fn settle(&self) -> bool {
        let mut state = self.state.lock();
        let answered = state.step == Step::Answered && state.tunnel.is_none();
        if answered {
            state.step = Step::Idle;
        }
        answered
    }

    pub(super) fn close_delimited(&self) -> bool {
        self.state.lock().close_delimited
    }

    /// Whether a tunnel follows the answer.
    pub(super) fn has_tunnel(&self) -> bool {
        self.state.lock().tunnel.is_some()
    }

    /// The tunnel that follows the answer.
    pub(super) fn tunnel(&self) -> Option<Tunnel> {
        self.state.lock().tunnel.take()
    }
}

impl State {
    fn new(step: Step, head_complete: Instant) -> Self {
        Self { step, head_complete, close_delimited: false, tunnel: None, words: None }
    }
}

impl Drop for AnswerGuard {
    fn drop(&mut self) {
        self.exchange.flowing.store(false, Ordering::Relaxed);
        self.exchange.state.lock().step = Step::Answered;
    }
}

// === impl WireService ===

impl<S, B> hyper::service::Service<Request<Incoming>> for WireService<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone,
    B: PieceBody,
{
    type Response = Response<AnswerBody<B>>;
    type Error = S::Error;
    type Future = Answer<Oneshot<S, Request<Incoming>>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let (head_complete, words) = {
            let mut state = self.exchange.state.lock();
            (state.head_complete, state.words.take())
        };
        if let Some(words) = words {
            request.extensions_mut().insert(words);
        }
        let Peer { address: peer, speaks: peer_speaks } = self.peer;
        // An older client knows nothing of them (RFC 9110 section 15.2).
        let interim = (request.version() == Version::HTTP_11).then(|| Interim::new(&self.exchange));
        let scheme = self.scheme;
        request.extensions_mut().insert(ConnectionInfo { peer, peer_speaks, scheme, head_complete, interim });
        Answer {
            http_10: request.version() == Version::HTTP_10,
            connect: request.method() == Method::CONNECT,
            inner: self.inner.clone().oneshot(request),
            guard: Some(AnswerGuard { exchange: Arc::clone(&self.exchange) }),
        }
    }
}

impl<F, B, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: PieceBody,
{
    type Output = Result<Response<AnswerBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = this.inner.poll(cx);
        if let Some(guard) = this.guard.as_ref() {
            match &polled {
                Poll::Ready(_) => guard.exchange.interims.close(),
                Poll::Pending => guard.exchange.interims.wake(cx.waker()),
            }
        }
        let mut response = ready!(polled)?;
        let Some(guard) = this.guard.take() else {
            return Poll::Pending; // Polled after completion, which hyper does not do.
        };
        let exact = response.body().size_hint().exact().is_some();
        let known_length = exact || response.headers().contains_key(header::CONTENT_LENGTH);
        let tunnel = response.extensions_mut().remove::<Tunnel>();
        if *this.connect && tunnel.is_none() {
            // A client that hopes for a tunnel may have sent its first bytes: they are no request.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        {
            let mut state = guard.exchange.state.lock();
            state.close_delimited = *this.http_10 && !known_length;
            state.tunnel = tunnel;
        }
        // hyper frames a body of unknown length in chunks, among which placeholders have no business.
        let files = exact && guard.exchange.files;
        Poll::Ready(Ok(response.map(|inner| AnswerBody { inner, guard, files, fresh: false, broken: None })))
    }
}

impl<B> Body for AnswerBody<B>
where
    B: PieceBody,
    B::Error: Into<BoxError>,
{
    type Data = Payload;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Payload>, Self::Error>>> {
        let mut this = self.project();
        if let Some(error) = this.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let polled = this.inner.as_mut().poll_piece(cx, *this.files);
        let has_come = matches!(polled, Poll::Ready(Some(Ok(_))));
        let more = has_come && this.inner.as_ref().has_more_now();
        this.guard.exchange.flowing.store(more, Ordering::Relaxed);
        let was_fresh = std::mem::replace(this.fresh, has_come);
        if polled.is_pending() && was_fresh && this.guard.exchange.is_corked() {
            // hyper does not always flush when there is nothing at the moment, and it is then that all has to leave. Once:
            // what the client has no room for is flushed when it has.
            cx.waker().wake_by_ref();
        }
        match ready!(polled).map(|piece| piece.map_err(Into::into)) {
            // hyper drops what it holds, the head too, when a body breaks, and writes it when a body has nothing at the moment.
            Some(Err(error)) if was_fresh => {
                *this.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            piece => Poll::Ready(piece.map(|piece| Ok(Frame::data(this.guard.exchange.payload(piece?))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.broken.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::task::{Wake, Waker};

    use bytes::Bytes;

    use super::*;

    /// A piece, and then nothing for ever.
    struct Stalled(bool);

    impl Body for Stalled {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            if std::mem::replace(&mut self.0, true) {
                return Poll::Pending;
            }
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"piece")))))
        }
    }

    impl PieceBody for Stalled {}

    #[derive(Default)]
    struct Count(AtomicU64);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_turn_ends_and_a_head_before_the_body_makes_no_odd_rest() {
        let exchange = Exchange::new(Instant::now(), true);
        let left = |written: u64| {
            exchange.begin_turn();
            exchange.count_turn(usize::try_from(written).unwrap());
            (exchange.left_of_turn(false), exchange.left_of_turn(true))
        };
        assert_eq!(left(0), (TURN, ALONE));
        assert_eq!(left(300), (TURN, ALONE));
        assert_eq!(left(TURN), (0, 3 * TURN));
        assert_eq!(left(2 * TURN + 300), (0, 2 * TURN));
        assert_eq!(left(ALONE - 1), (0, TURN));
        assert_eq!(left(ALONE + 300), (0, 0));
    }

    #[test]
    fn a_body_that_rests_has_what_is_held_back_sent_and_asks_for_that_once() {
        let exchange = Arc::new(Exchange::new(Instant::now(), true));
        let guard = AnswerGuard { exchange: Arc::clone(&exchange) };
        let mut body = AnswerBody { inner: Stalled(false), guard, files: true, fresh: false, broken: None };
        let woken = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut poll = || Pin::new(&mut body).poll_frame(&mut Context::from_waker(&waker)).is_ready();
        assert!(poll());
        exchange.corked.store(true, Ordering::Relaxed);
        assert_eq!([poll(), poll(), poll()], [false; 3]);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "a client without room would have it polled for ever");
    }
}
