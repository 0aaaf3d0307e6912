//! The I/O wrapper: owns the socket, the head gate and a small buffer, and is what hyper reads from and
//! writes to. It lets one message through at a time and reports the end of input when hyper should let go
//! of the connection, leaving the reason in [`ClientIo::end`]. Writing refusals is the driver's part.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hyper::rt::ReadBufCursor;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWrite as _};

use super::WireContext;
use super::chunked::ChunkScanner;
use super::direct::Pending;
use super::exchange::Exchange;
use super::head_gate::{Framing, HeadGate, Verdict};
use super::refusal::Refusal;
use super::send_file::{Sender, Written};
use super::socket::ClientSocket;
use super::timer::Timer;
use super::waiting::Waiting;
use crate::serve::backlog::{Ends, Standstill};
use crate::shutdown::InFlight;

/// First size of the buffer: most requests of update clients are shorter.
const FIRST_BUFFER: usize = 512;
/// Size of the buffer while a request body passes through it.
const BODY_BUFFER: usize = 8 * 1024;

/// Why the wrapper wants no more of hyper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client has closed, reset, or was idle for too long: nothing to say.
    Closed,
    /// Idle long enough to give hyper's buffers back.
    Park,
    /// To be answered by the driver.
    Refuse(Refusal),
}

/// What the next byte of the client is.
#[derive(Debug)]
enum Stage {
    /// Part of a head, which is held back until complete.
    Head,
    /// `left` more bytes of a complete head lie in the buffer.
    Passing { left: usize, framing: Framing },
    /// Part of a body of known length.
    Body { left: u64 },
    /// Part of a chunked body.
    Chunks(Box<ChunkScanner>),
    /// Part of a later head: the message is over, its answer is not.
    Answering,
}

/// One client connection.
pub(super) struct ClientIo<'a> {
    pub(super) context: &'a WireContext,
    pub(super) peer: SocketAddr,
    stream: ClientSocket,
    pub(super) buffer: BytesMut,
    gate: HeadGate,
    stage: Stage,
    exchange: Arc<Exchange>,
    in_flight: Option<InFlight>,
    /// The answer that is written without hyper.
    pub(super) direct: Option<Box<Pending>>,
    /// Set when hyper was told that there is no more input.
    pub(super) end: Option<End>,
    /// Since when the client owes us something: a head (idle), the rest of a head, or more of a body.
    pub(super) waiting_since: Instant,
    pub(super) waiting: Waiting,
    pub(super) timer: Timer,
    /// The client that takes nothing of what it is to be sent.
    stuck: Option<Standstill>,
    write_timer: Timer,
    sender: Sender,
    /// The client has closed its side after a request, and may still want the answer.
    half_closed: bool,
    /// Whether answers may be written without hyper: not to who is turned away, and not under TLS.
    pub(super) recalls: bool,
    /// Whether hyper is on top.
    pub(super) attached: bool,
    /// Whether a request was handed in before.
    pub(super) served: bool,
    /// Whether bytes were written since the last head was handed in.
    pub(super) answer_begun: bool,
}

// === impl ClientIo ===

impl<'a> ClientIo<'a> {
    pub(super) fn new(stream: ClientSocket, peer: SocketAddr, context: &'a WireContext) -> Self {
        let now = Instant::now();
        let files = context.files_to(&stream);
        Self {
            // Answers that are kept are those of requests in the clear.
            recalls: !stream.is_tls(),
            stream,
            buffer: BytesMut::new(),
            gate: HeadGate::new(context.limits.header_bytes),
            stage: Stage::Head,
            exchange: Arc::new(Exchange::new(now, files)),
            in_flight: None,
            direct: None,
            end: None,
            waiting_since: now,
            waiting: Waiting::Idle,
            timer: Timer::default(),
            stuck: None,
            write_timer: Timer::default(),
            sender: Sender::default(),
            half_closed: false,
            attached: false,
            served: false,
            answer_begun: false,
            context,
            peer,
        }
    }

    pub(super) fn exchange(&self) -> &Arc<Exchange> {
        &self.exchange
    }

    pub(super) fn stream(&mut self) -> &mut ClientSocket {
        &mut self.stream
    }

    /// hyper is about to read from here.
    pub(super) fn attach(&mut self) {
        self.attached = true;
        self.end = None;
    }

    /// hyper has let go. Frees what an idle connection does not need.
    pub(super) fn detach(&mut self) {
        self.attached = false;
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// A request is in flight.
    pub(super) fn hold_in_flight(&mut self) {
        self.in_flight.get_or_insert_with(|| self.context.drain.in_flight());
    }

    /// The request in flight, if any, is as finished as it will be.
    pub(super) fn release(&mut self) {
        self.in_flight = None;
    }

    /// Whether the client sent something that nobody has read: closing now would reset the connection and
    /// may take an answer with it that the client has not read yet.
    pub(super) fn has_unread_input(&self) -> bool {
        !self.buffer.is_empty() || matches!(self.stage, Stage::Body { .. } | Stage::Chunks(_) | Stage::Passing { .. })
    }

    /// The socket of a connection that becomes a tunnel, the client's bytes behind its request, and what makes a
    /// drain wait. hyper holds none of them: it was given the head and no more.
    pub(super) fn into_tunnel(self) -> (ClientSocket, Bytes, Option<InFlight>) {
        (self.stream, self.buffer.freeze(), self.in_flight)
    }

    /// No byte of a head has arrived.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Head) && self.buffer.is_empty() && self.direct.is_none()
    }

    /// Waits for a complete, acceptable head, and makes ready to hand it on. Those whose answer is known are answered.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let max_head = self.context.limits.header_bytes;
        loop {
            if self.direct.is_some() && ready!(self.poll_direct(cx)).is_err() {
                return Poll::Ready(Err(End::Closed));
            }
            if self.buffer.is_empty() {
                self.wait_for(Waiting::Idle);
                if self.served && self.context.drain.draining() {
                    return Poll::Ready(Err(End::Closed));
                }
            } else {
                match self.gate.scan(&self.buffer) {
                    Verdict::NeedMore => self.wait_for(Waiting::Head),
                    Verdict::Refuse(refusal) => return Poll::Ready(Err(End::Refuse(refusal))),
                    Verdict::Head { .. } if self.context.drain.draining() => {
                        return Poll::Ready(Err(End::Refuse(Refusal::Draining)));
                    }
                    Verdict::Head { start, end, framing } => {
                        self.buffer.advance(start);
                        self.gate = HeadGate::new(max_head);
                        self.waiting = Waiting::Nothing;
                        self.served = true;
                        let left = end.saturating_sub(start);
                        let known = match framing {
                            Framing::None => self.recall(left),
                            Framing::Length(_) | Framing::Chunked => Err(None),
                        };
                        let words = match known {
                            Ok(answer) => match ready!(self.poll_answer(cx, answer)) {
                                Ok(()) => continue,
                                Err(_) => return Poll::Ready(Err(End::Closed)),
                            },
                            Err(words) => words,
                        };
                        self.stage = Stage::Passing { left, framing };
                        self.hold_in_flight();
                        self.exchange.ask(Instant::now(), words);
                        self.answer_begun = false;
                        return Poll::Ready(Ok(()));
                    }
                }
            }
            match self.poll_fill(cx, max_head) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(End::Closed)),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return self.poll_deadline(cx).map(Err),
            }
        }
    }

    /// Reads once into the buffer, which never grows beyond `max` bytes of content; pends for good when full.
    fn poll_fill(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<usize>> {
        let room = max.saturating_sub(self.buffer.len());
        if room == 0 {
            return Poll::Pending;
        }
        let spare = |buffer: &BytesMut| buffer.capacity().saturating_sub(buffer.len());
        // An empty buffer starts over at its front, which costs nothing; a filling one doubles.
        let least = if self.buffer.is_empty() { FIRST_BUFFER } else { FIRST_BUFFER / 2 };
        if spare(&self.buffer) < room.min(least) {
            self.buffer.reserve(self.buffer.len().max(FIRST_BUFFER).min(room));
        }
        let room = room.min(spare(&self.buffer));
        let mut spare = (&mut self.buffer).limit(room);
        // The future of read_buf has no state of its own, so it may be made anew for each poll.
        pin!(self.stream.read_buf(&mut spare)).poll(cx)
    }

    /// Writes, and fails once the client has taken nothing for as long as it may. That is measured here:
    /// TCP_USER_TIMEOUT also cuts clients with a small window that do take bytes all the time.
    pub(super) fn write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        self.answer_begun = true;
        let alone = self.context.drain.unfinished() <= 1;
        match self.sender.poll_write(cx, &mut self.stream, &self.exchange, slices, alone) {
            Written::Done(written) => {
                self.stuck = None;
                Poll::Ready(written)
            }
            Written::Forbidden(error) => {
                self.reset();
                Poll::Ready(Err(error))
            }
            Written::Waits => {
                self.stuck = None;
                Poll::Pending
            }
            Written::Client => self.poll_stuck(cx).map(Err),
        }
    }

    /// Has what was written leave the process; under TLS some of it may still wait here.
    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.stream.is_tls() {
            return Poll::Ready(Ok(()));
        }
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(flushed) => {
                self.stuck = None;
                Poll::Ready(flushed)
            }
            Poll::Pending => self.poll_stuck(cx).map(Err),
        }
    }

    /// The client has to take bytes first. Completes when it has taken none for too long.
    pub(super) fn poll_stuck(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let allowed = self.context.limits.body_time;
        let stuck = self.stuck.get_or_insert_with(|| Standstill::begin(Instant::now()));
        loop {
            let (since, time) = stuck.next_look(allowed);
            ready!(self.write_timer.poll(cx, since, time));
            let backlog = Ends::of(self.stream.tcp()).and_then(|ends| ends.backlog());
            if stuck.is_over(Instant::now(), backlog, allowed) {
                break;
            }
        }
        self.reset();
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    /// Has the end of the connection drop what the kernel still holds for the client. Otherwise it would go on to offer
    /// that to one who takes nothing, and may acknowledge it for ever.
    fn reset(&self) {
        let _ = SockRef::from(self.stream.tcp()).set_linger(Some(Duration::ZERO));
    }

    /// Moves up to `most` buffered bytes to hyper.
    fn hand_over(&mut self, cursor: &mut ReadBufCursor<'_>, most: usize) -> usize {
        let count = most.min(cursor.remaining()).min(self.buffer.len());
        if let Some(bytes) = self.buffer.get(..count) {
            cursor.put_slice(bytes);
        }
        self.buffer.advance(count);
        count
    }

    /// The stage behind a head.
    fn body_stage(framing: Framing) -> Stage {
        match framing {
            Framing::None => Stage::Answering,
            Framing::Length(left) => Stage::Body { left },
            Framing::Chunked => Stage::Chunks(Box::new(ChunkScanner::new())),
        }
    }

    /// Gets at least one byte of a request body into the buffer; `false` at the end of input.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if !self.buffer.is_empty() {
            return Poll::Ready(Ok(true));
        }
        self.wait_for(Waiting::Body);
        self.buffer.reserve(BODY_BUFFER);
        match self.poll_fill(cx, BODY_BUFFER) {
            Poll::Ready(result) => {
                self.waiting = Waiting::Nothing;
                Poll::Ready(result.map(|count| count > 0))
            }
            Poll::Pending => self.poll_deadline(cx).map(|_| Err(io::ErrorKind::TimedOut.into())),
        }
    }
}

impl hyper::rt::Read for ClientIo<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.end.is_some() {
            return Poll::Ready(Ok(()));
        }
        loop {
            match &mut this.stage {
                Stage::Head => {
                    if let Err(end) = ready!(this.poll_head(cx)) {
                        this.end = Some(end);
                        return Poll::Ready(Ok(()));
                    }
                }
                Stage::Passing { left, framing } => {
                    let (left, framing) = (*left, *framing);
                    let left = left.saturating_sub(this.hand_over(&mut cursor, left));
                    this.stage = if left == 0 { Self::body_stage(framing) } else { Stage::Passing { left, framing } };
                    return Poll::Ready(Ok(()));
                }
                Stage::Body { left } => {
                    let left = *left;
                    if ready!(this.poll_body(cx))? {
                        let count = this.hand_over(&mut cursor, usize::try_from(left).unwrap_or(usize::MAX));
                        let left = left.saturating_sub(count as u64);
                        this.stage = if left == 0 { Stage::Answering } else { Stage::Body { left } };
                    }
                    return Poll::Ready(Ok(()));
                }
                Stage::Chunks(_) => {
                    if ready!(this.poll_body(cx))? {
                        let room = cursor.remaining();
                        let Stage::Chunks(scanner) = &mut this.stage else { continue };
                        let input = this.buffer.get(..room).unwrap_or(&this.buffer);
                        let Ok(progress) = scanner.scan(input) else {
                            this.end = Some(End::Refuse(Refusal::Chunk));
                            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                        };
                        if progress.done {
                            this.stage = Stage::Answering;
                        }
                        this.hand_over(&mut cursor, progress.taken);
                    }
                    return Poll::Ready(Ok(()));
                }
                Stage::Answering => {
                    // hyper asks here to learn whether the client is still there. What else arrives waits
                    // in the buffer, as much as one head may be long.
                    // A client may close its side behind its last request and still wait for the answer (RFC 9112
                    // section 9.6). One that is gone resets the connection when the answer meets it.
                    if this.half_closed {
                        return Poll::Pending;
                    }
                    this.half_closed = ready!(this.poll_fill(cx, this.context.limits.header_bytes))? == 0;
                }
            }
        }
    }
}

impl hyper::rt::Write for ClientIo<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper flushes when its own buffer is empty, so after the service's body has ended this is the end of
    /// the answer.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_interim(cx))?;
        ready!(this.poll_flushed(cx))?;
        if !this.exchange.is_flowing() {
            this.exchange.uncork(this.stream.tcp());
        }
        if matches!(this.stage, Stage::Answering) && this.exchange.settle() {
            this.stage = Stage::Head;
            this.in_flight = None;
            this.waiting = Waiting::Idle;
            this.waiting_since = Instant::now();
            // hyper's last read was told to wait, so nothing would make it read again.
            if this.half_closed || !this.buffer.is_empty() || this.poll_deadline(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The driver decides how the connection ends.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flushed(cx)
    }
}
