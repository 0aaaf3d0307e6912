//! Drives one connection from its preface to its end, and turns away who may not have one. What is answered is the
//! service's part; that a request is whole and its fields are well-formed is the library's.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::time::{Instant as Deadline, sleep_until, timeout};
use tower::Service;

use super::answer::Http2Service;
use super::io::MeteredIo;
use super::shared::{Shared, Standing};
use crate::serve::backlog::{Ends, Standstill};
use crate::serve::wire::{
    ClientSocket, Gauged, LINGER_TIME, Peer, PieceBody, Refusal, TURN, TURN_AWAY_TIME, UNSENT, WireContext,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Most requests of one connection at a time; RFC 9113 section 6.5.2 asks for no less.
const MOST_STREAMS: u32 = 100;
/// What a client may send of one request's content, and of all, before it is read.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How often it is looked, within the shortest time that a client has, whether that is over.
const LOOKS: u32 = 4;

/// Begins the tasks of requests.
#[derive(Clone)]
struct Tasks {
    shared: Arc<Shared>,
}

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    /// A task ends when its client takes nothing for too long; the stream is reset then.
    fn execute(&self, task: F) {
        let shared = Arc::clone(&self.shared);
        let Some(stream) = shared.begun() else {
            tokio::spawn(async move { drop(task.await) });
            return;
        };
        tokio::spawn(async move {
            let allowed = shared.limits.body_time;
            tokio::select! {
                _ = task => {}
                () = stream.stalled(allowed) => {}
            }
        });
    }
}

/// Serves one client that speaks HTTP/2, until it leaves, floods the connection, has been idle for too long, or the process
/// drains. Each request carries a [`ConnectionInfo`](crate::serve::wire::ConnectionInfo). The service is cloned for each.
///
/// A request whose client takes nothing of the answer for `limits.body_time` is reset; one that is slow is not.
pub(in crate::serve) async fn serve<S, B>(socket: ClientSocket, peer: Peer, service: S, context: Arc<WireContext>)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: PieceBody + Send + 'static,
    B::Error: Into<BoxError>,
{
    let peer = Peer { address: canonical(peer.address), ..peer };
    let metrics = Arc::clone(context.metrics());
    let _open = (Gauged::new(&metrics.connections), Gauged::new(&metrics.http2_connections));
    if let Err(error) = SockRef::from(socket.tcp()).set_tcp_notsent_lowat(UNSENT) {
        tracing::debug!(peer = %peer.address, %error, "more than usual waits in the kernel for a slow client");
    }
    let shared = Shared::new(&context);
    let limits = *context.limits();
    let mut builder = http2::Builder::new(Tasks { shared: Arc::clone(&shared) });
    builder
        .max_concurrent_streams(MOST_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(usize::try_from(TURN).unwrap_or(usize::MAX));
    let (ends, mut still) = (Ends::of(socket.tcp()), None);
    let io = MeteredIo::new(socket, Arc::clone(&shared));
    let service = Http2Service { inner: service, peer, shared: Arc::clone(&shared), context: Arc::clone(&context) };
    let mut http = pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut drained = pin!(context.drain().signalled());
    let step = limits.header_time.min(limits.idle_time).min(limits.body_time) / LOOKS;
    let mut closing: Option<Instant> = None;
    let mut is_drained = false;
    loop {
        // Who was idle and does not answer the goodbye is not waited for long.
        let goodbye = if is_drained { LINGER_TIME } else { TURN_AWAY_TIME };
        let look = match closing {
            Some(since) => (since + goodbye).max(Instant::now() + LINGER_TIME / LOOKS),
            None => Instant::now() + step,
        };
        tokio::select! {
            ended = &mut http => return ended.err().iter().for_each(|error| note(error, &shared, peer.address, &context)),
            () = &mut drained, if !is_drained => {
                is_drained = true;
                http.as_mut().graceful_shutdown();
                closing.get_or_insert_with(Instant::now);
            }
            () = sleep_until(Deadline::from_std(look)) => match shared.standing(Instant::now()) {
                _ if is_standing_still(&shared, &mut still, ends.as_ref()) => {
                    tracing::debug!(peer = %peer.address, "a client takes nothing of its answers");
                    return;
                }
                Standing::Late => return context.note_refusal(peer.address, Refusal::HeadTimeout, 0),
                _ if shared.is_busy() => {}
                _ if closing.is_some_and(|since| since.elapsed() >= goodbye) => return,
                Standing::Idle if closing.is_none() => {
                    http.as_mut().graceful_shutdown();
                    closing = Some(Instant::now());
                }
                Standing::Idle | Standing::Good => {}
            },
        }
    }
}

/// Whether the client has acknowledged nothing for as long as it may. `still` is what is known of it.
fn is_standing_still(shared: &Shared, still: &mut Option<Standstill>, ends: Option<&Ends>) -> bool {
    if !shared.is_stuck() {
        *still = None;
        return false;
    }
    let now = Instant::now();
    let still = still.get_or_insert_with(|| Standstill::begin(now));
    still.is_over(now, ends.and_then(Ends::backlog), shared.limits.body_time)
}

/// Answers `refusal` to whatever the client asks, and closes. A request is awaited for up to 5 s.
pub(in crate::serve) async fn turn_away(
    socket: ClientSocket,
    peer: SocketAddr,
    refusal: Refusal,
    context: &Arc<WireContext>,
) {
    context.note_refusal(canonical(peer), refusal, refusal.content_length());
    let shared = Shared::new(context);
    let asked = Arc::new(tokio::sync::Notify::new());
    let service = {
        let asked = Arc::clone(&asked);
        service_fn(move |request: Request<Incoming>| {
            asked.notify_one();
            let is_head = request.method() == Method::HEAD;
            let answer = refusal.answer().map(|text| Full::new(if is_head { Bytes::new() } else { text }));
            std::future::ready(Ok::<_, Infallible>(answer))
        })
    };
    let builder = http2::Builder::new(Tasks { shared: Arc::clone(&shared) });
    let mut http = pin!(builder.serve_connection(TokioIo::new(MeteredIo::new(socket, shared)), service));
    let ended = async {
        tokio::select! {
            _ = &mut http => return,
            () = asked.notified() => http.as_mut().graceful_shutdown(),
        }
        let _ = http.await;
    };
    let _ = timeout(TURN_AWAY_TIME, ended).await;
}

fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// Counts and logs why a connection ended early.
fn note(error: &hyper::Error, shared: &Shared, peer: SocketAddr, context: &WireContext) {
    if shared.is_flooded() {
        context.note_refusal(peer, Refusal::Frames, 0);
    }
    let cause = error.source().map(ToString::to_string);
    tracing::debug!(%peer, %error, cause, "connection ended early");
}
