//! Drives one client connection: wait for a head on the bare socket, let hyper serve while requests come,
//! park when they stop, and end it so that the client gets what was written. Deciding about requests is the
//! service's part.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use http::{Request, Response};
use hyper::body::Incoming;
use prometheus::IntGauge;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tower::Service;

use super::exchange::{Step, WireService};
use super::io::{ClientIo, End};
use super::piece::PieceBody;
use super::refusal::Refusal;
use super::socket::ClientSocket;
use super::{Peer, UNSENT, WireContext};
use crate::content::Scheme;
use crate::telemetry::{AccessLine, RequestResult};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long a client that is refused may take to send its request and to read the answer.
pub(in crate::serve) const TURN_AWAY_TIME: Duration = Duration::from_secs(5);
/// How long, and how much, is read from a client after the last answer, so that no reset overtakes it.
pub(in crate::serve) const LINGER_TIME: Duration = Duration::from_secs(1);
pub(in crate::serve) const LINGER_BYTES: usize = 256 * 1024;

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Close {
    /// Everything is said and read.
    Plain,
    /// All that follows belongs to a tunnel.
    Tunnel,
    /// Everything is said; the client may still be sending.
    Linger,
    /// One last answer.
    Refuse(Refusal),
    /// The answer is incomplete and only its end could tell: reset, so that the client notices.
    Reset,
}

/// Counts in a gauge until dropped.
pub(in crate::serve) struct Gauged<'a>(&'a IntGauge);

impl<'a> Gauged<'a> {
    pub(in crate::serve) fn new(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Gauged<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Serves one client until it leaves, is refused or idle for too long, or the process drains. Each request
/// carries a [`ConnectionInfo`](super::ConnectionInfo). The service is cloned for each.
///
/// A client that stops taking an answer is cut after `limits.body_time`; one that is slow is not.
pub fn serve_connection<S, B>(
    socket: impl Into<ClientSocket>,
    peer: impl Into<Peer>,
    mut service: S,
    context: &WireContext,
) -> impl Future<Output = ()>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: PieceBody + 'static,
    B::Error: Into<BoxError>,
{
    let Peer { address, speaks } = peer.into();
    let peer = SocketAddr::new(address.ip().to_canonical(), address.port());
    let socket = socket.into();
    if let Err(error) = SockRef::from(socket.tcp()).set_tcp_notsent_lowat(UNSENT) {
        tracing::debug!(%peer, %error, "the progress of a slow client is seen in larger steps only");
    }
    let (scheme, who) = (socket.scheme(), Peer { address: peer, speaks });
    let mut io = ClientIo::new(socket, peer, context);
    // A block and no async fn, which would keep room for its arguments twice.
    async move {
        let _open = Gauged::new(&context.metrics.connections);
        let mut signalled = pin!(context.drain.signalled());
        let mut drained = false;
        let mut cut = false;
        let close = loop {
            let mut parked = None;
            let head = poll_fn(|cx| {
                drained = drained || signalled.as_mut().poll(cx).is_ready();
                io.exchange().begin_turn();
                let head = io.poll_head(cx);
                if head.is_pending() && io.served && io.is_idle() {
                    parked.get_or_insert_with(|| Gauged::new(&context.metrics.connections_parked));
                } else {
                    parked = None;
                }
                head
            })
            .await;
            match head {
                Ok(()) => {}
                Err(End::Refuse(refusal)) => break Close::Refuse(refusal),
                Err(End::Closed | End::Park) => break Close::Plain,
            }

            io.attach();
            let exchange = Arc::clone(io.exchange());
            let wired = WireService { inner: service, peer: who, scheme, exchange: Arc::clone(&exchange) };
            let mut http = Box::new(context.http.serve_connection(io, wired));
            let served = poll_fn(|cx| {
                exchange.begin_turn();
                let mut polled = poll_http(&mut *http, cx);
                if polled.is_pending() && !drained && signalled.as_mut().poll(cx).is_ready() {
                    drained = true;
                    if exchange.step() != Step::Idle {
                        Pin::new(&mut *http).graceful_shutdown();
                    }
                    polled = poll_http(&mut *http, cx);
                }
                polled
            })
            .await;
            let parts = http.into_parts();
            (io, service) = (parts.io, parts.service.inner);
            cut = served.is_err();
            if let Err(error) = &served {
                note_error(error, peer, context);
            }
            if exchange.has_tunnel() {
                break if served.is_ok() { Close::Tunnel } else { Close::Plain };
            }
            match io.end.take() {
                Some(End::Park) => io.detach(),
                Some(End::Refuse(Refusal::Chunk)) if io.answer_begun => {
                    context.count_refusal(Refusal::Chunk);
                    break Close::Linger;
                }
                Some(End::Refuse(refusal)) => break Close::Refuse(refusal),
                _ if served.is_err() && exchange.step() != Step::Idle && exchange.close_delimited() => {
                    break Close::Reset;
                }
                Some(End::Closed) => break Close::Plain,
                None if io.has_unread_input() => break Close::Linger,
                None => break Close::Plain,
            }
        };
        if close != Close::Plain || (scheme == Scheme::Https && !cut) {
            // Boxed, since a parked connection should not carry room for its end.
            Box::pin(finish(io, close, peer, context)).await;
        }
    }
}

/// Answers `refusal` to whatever the client asks, and closes. The request is awaited for up to 5 s, since
/// some clients drop a connection on which an answer comes before they have asked.
pub async fn turn_away(socket: impl Into<ClientSocket>, peer: SocketAddr, refusal: Refusal, context: &WireContext) {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let mut io = ClientIo::new(socket.into(), peer, context);
    io.recalls = false;
    let asked = tokio::time::timeout(TURN_AWAY_TIME, poll_fn(|cx| io.poll_head(cx))).await;
    if asked != Ok(Err(End::Closed)) {
        finish(io, Close::Refuse(refusal), peer, context).await;
    }
}

impl WireContext {
    /// Counts a refusal where it belongs.
    pub(crate) fn count_refusal(&self, refusal: Refusal) {
        let counter = if refusal.is_own_limit() { &self.metrics.limited } else { &self.metrics.bad_requests };
        counter.with_label_values(&[refusal.as_str()]).inc();
    }

    /// Counts and logs the refusal of a connection on which `bytes` of an answer were sent at once.
    pub(in crate::serve) fn note_refusal(&self, peer: SocketAddr, refusal: Refusal, bytes: u64) {
        self.count_refusal(refusal);
        self.log_refusal(peer, refusal.status_code(), bytes, refusal.as_str());
    }

    /// Writes the line of a request of which no more is known than who sent it: what it holds may be secret.
    fn log_refusal(&self, peer: SocketAddr, status: u16, bytes: u64, reason: &str) {
        let Some(log) = &self.log else { return };
        log.log_refusal(&AccessLine {
            time: SystemTime::now(),
            client: peer.ip().to_canonical(),
            method: "-",
            host: "-",
            target: "-",
            status,
            bytes,
            received: None,
            duration: Duration::ZERO,
            result: RequestResult::Refused,
            form: "-",
            range: None,
            user_agent: None,
            reason: Some(reason),
            cut: None,
        });
    }
}

/// One poll of hyper's connection, whichever types it has.
fn poll_http<C: Future + Unpin>(connection: &mut C, cx: &mut Context<'_>) -> Poll<C::Output> {
    Pin::new(connection).poll(cx)
}

/// Logs why hyper gave up, and counts what the client did wrong.
fn note_error(error: &hyper::Error, peer: SocketAddr, context: &WireContext) {
    // The statuses are those that hyper answers with by itself.
    let refused = if error.is_parse_too_large() {
        Some(("parse-too-large", 431))
    } else if error.is_parse() {
        Some(("parse", 400))
    } else {
        None
    };
    if let Some((reason, status)) = refused {
        context.metrics.bad_requests.with_label_values(&[reason]).inc();
        context.log_refusal(peer, status, 0, reason);
    }
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::debug!(%peer, %error, cause, "connection ended early");
}

/// Ends a connection in any way but the plain one.
async fn finish(mut io: ClientIo<'_>, close: Close, peer: SocketAddr, context: &WireContext) {
    if close == Close::Tunnel {
        let tunnel = io.exchange().tunnel();
        let (client, early, _in_flight) = io.into_tunnel();
        if let Some(tunnel) = tunnel {
            tunnel.run(client, early, &context.drain).await;
        }
        return;
    }
    io.release();
    // Nothing may stand in the middle of an answer.
    if io.direct.is_some() {
        return;
    }
    let stream = io.stream();
    if close == Close::Reset {
        let _ = SockRef::from(stream.tcp()).set_linger(Some(Duration::ZERO));
        return;
    }
    if close == Close::Plain {
        // The end is said under TLS, too. Where everything was read a close loses nothing.
        let _ = tokio::time::timeout(LINGER_TIME, stream.shutdown()).await;
        return;
    }
    if let Close::Refuse(refusal) = close {
        context.note_refusal(peer, refusal, refusal.content_length());
        let response = refusal.response(SystemTime::now());
        if !matches!(tokio::time::timeout(TURN_AWAY_TIME, stream.write_all(response.as_bytes())).await, Ok(Ok(()))) {
            return;
        }
    }
    // A client that neither reads nor closes is left after the time is up.
    let _ = tokio::time::timeout(LINGER_TIME, linger(stream)).await;
}

/// Says that nothing more will come, and reads away what the client still sends. The time is the caller's.
pub(in crate::serve) async fn linger(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    stream.shutdown().await?;
    let mut scratch = vec![0; 2048];
    let mut total = 0_usize;
    while total < LINGER_BYTES {
        match stream.read(&mut scratch).await? {
            0 => break,
            count => total = total.saturating_add(count),
        }
    }
    Ok(())
}
