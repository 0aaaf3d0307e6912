//! Accepting client connections, finding out whose they are, and telling those who may not connect. Who may is in
//! `admission`, the header of a proxy is read by `relayed`; what is said on an accepted connection is the wire's part.

mod admission;
mod bind;
mod descriptors;
mod relayed;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Request, Response};
use hyper::body::Incoming;
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tower::Service;

pub use admission::{Admission, AdmissionRules};
pub use bind::{BindError, Inherited, bind};
pub use descriptors::{DescriptorBudget, raise_descriptor_limit};

use super::http2;
use super::proxy_header::Named;
use super::tls::{Handshakes, names_in};
use super::wire::{ClientSocket, Peer, PieceBody, Refusal, TURN_AWAY_TIME, WireContext, serve_connection, turn_away};
use admission::Place;
use relayed::read_header;

/// Pause after a failed accept that nothing can be done about.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A connection that was just accepted.
struct Arrival {
    stream: TcpStream,
    peer: SocketAddr,
    /// The handshake that it begins with.
    tls: Option<Handshakes>,
    /// Whether a header that names the client comes before all else.
    begins_with_header: bool,
}

/// A descriptor kept open so that one more connection can be accepted when there are no others.
struct Spare(Option<File>);

// === impl Admission ===

impl Admission {
    /// Refuses a connection without holding up the accept loop. What it begins with may be the header of a proxy that did
    /// not get a place.
    fn refuse(&self, arrival: Arrival, refusal: Refusal) {
        let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() else {
            self.context.count_refusal(refusal);
            refuse_at_once(arrival.stream, refusal, arrival.tls.is_some());
            return;
        };
        let context = Arc::clone(&self.context);
        tokio::spawn(async move {
            let Arrival { mut stream, peer, tls, begins_with_header } = arrival;
            let time = context.limits().header_time.min(TURN_AWAY_TIME);
            // Whom the header names does not matter here, only that it is out of the way.
            let header = if begins_with_header { read_header(&mut stream, time).await.map(drop) } else { Ok(()) };
            match (header, tls) {
                (Err(None), _) => {}
                (Err(Some(_)), _) => context.note_refusal(peer, refusal, 0),
                (Ok(()), None) => turn_away(stream, peer, refusal, &context).await,
                (Ok(()), Some(tls)) => {
                    if let Some(socket) = tls.accept(stream, peer, time, &context).await {
                        turn_away_under_tls(socket, peer, refusal, &context).await;
                    }
                }
            }
            drop(permit);
        });
    }
}

// === impl Spare ===

impl Spare {
    fn new() -> Self {
        Self(File::open("/dev/null").ok())
    }

    /// Uses the spare descriptor to take one connection off the queue and refuse it.
    async fn refuse_one(&mut self, listener: &TcpListener, context: &WireContext, tls: bool) {
        self.0 = None;
        match tokio::time::timeout(ACCEPT_PAUSE, listener.accept()).await {
            Ok(Ok((stream, _))) => {
                context.count_refusal(Refusal::NoDescriptors);
                refuse_at_once(stream, Refusal::NoDescriptors, tls);
            }
            // Others were faster with the descriptor.
            Ok(Err(_)) => tokio::time::sleep(ACCEPT_PAUSE).await,
            Err(_) => {}
        }
        *self = Self::new();
    }
}

/// Accepts connections for as long as it is polled, and serves each in a task of its own. While the process
/// drains it goes on accepting and answers 503: a refused connection would make the Delivery Optimization
/// agent avoid the cache for 15 minutes. Ends only with the process, or when its task is aborted.
///
/// With `tls` clients shake hands first, in their own tasks; a proxy's header comes before that, and before any request.
pub async fn accept<S, B>(listener: TcpListener, admission: Arc<Admission>, tls: Option<Handshakes>, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send,
    B: PieceBody + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut spare = Spare::new();
    let mut exhausted = false;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => {
                exhausted = false;
                accepted
            }
            Err(error) if out_of_descriptors(&error) => {
                // Once for each time it happens, not for each connection.
                if !std::mem::replace(&mut exhausted, true) {
                    tracing::warn!(%error, "no descriptor for a connection; answering 503");
                }
                spare.refuse_one(&listener, &admission.context, tls.is_some()).await;
                continue;
            }
            Err(error) if is_the_clients(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        bind::set_accepted(&stream);
        let (tls, begins_with_header) = (tls.clone(), admission.expects_header(peer.ip()));
        let place = match begins_with_header {
            true => admission.admit_proxy(),
            false => admission.admit(peer.ip(), tls.is_some()),
        };
        let arrival = Arrival { stream, peer, tls, begins_with_header };
        match place {
            Err(refusal) => admission.refuse(arrival, refusal),
            // Tasks of different sizes: what a connection in the clear does not need, it has no room for.
            Ok(place) => match arrival {
                Arrival { begins_with_header: true, .. } => {
                    tokio::spawn(serve_relayed(arrival, place, service.clone()));
                }
                Arrival { tls: Some(tls), stream, .. } => {
                    tokio::spawn(serve_under_tls(stream, peer.into(), tls, place, service.clone()));
                }
                Arrival { stream, .. } => {
                    let service = service.clone();
                    tokio::spawn(async move {
                        serve_connection(stream, peer, service, &place.admission.context).await;
                    });
                }
            },
        }
    }
}

/// Shakes hands, looks at the client's name where that has to let it in, and serves.
async fn serve_under_tls<S, B>(stream: TcpStream, peer: Peer, tls: Handshakes, mut place: Place, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send,
    B: PieceBody + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let admission = Arc::clone(&place.admission);
    let context = &admission.context;
    // Boxed, since a connection should not carry room for its handshake.
    let shaken = Box::pin(tls.accept(stream, peer.address, context.limits().header_time, context)).await;
    let Some(socket) = shaken else { return };
    if place.admits(&socket) {
        match socket.speaks_http2() {
            true => Box::pin(http2::serve(socket, peer, service, Arc::clone(context))).await,
            false => serve_connection(socket, peer, service, context).await,
        }
    } else {
        let (client, names) = (peer.address.ip().to_canonical(), socket.certificate().map(names_in));
        tracing::debug!(%client, names, "a client may use the port neither by its address nor by its certificate");
        Box::pin(turn_away_under_tls(socket, peer.address, Refusal::ClientNotNamed, context)).await;
    }
}

/// Answers `refusal` in the protocol that the handshake came to.
async fn turn_away_under_tls(socket: ClientSocket, peer: SocketAddr, refusal: Refusal, context: &Arc<WireContext>) {
    match socket.speaks_http2() {
        true => http2::turn_away(socket, peer, refusal, context).await,
        false => turn_away(socket, peer, refusal, context).await,
    }
}

/// Reads whom a proxy names in front of the connection, and serves whom it names if that one may have the place.
async fn serve_relayed<S, B>(arrival: Arrival, mut place: Place, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send,
    B: PieceBody + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Arrival { mut stream, peer: proxy, tls, .. } = arrival;
    let admission = Arc::clone(&place.admission);
    let context = &admission.context;
    let peer = match Box::pin(read_header(&mut stream, context.limits().header_time)).await {
        Ok(Named::Proxy) => Peer::from(proxy),
        Ok(Named::Client(client)) => Peer::from(client),
        Ok(Named::Unknown) => Peer { address: proxy, speaks: false },
        Err(None) => return,
        Err(Some(refusal)) => {
            let bytes = refuse_at_once(stream, refusal, tls.is_some());
            context.note_refusal(proxy, refusal, bytes);
            return;
        }
    };
    if let Err(refusal) = place.take(peer.address.ip(), tls.is_some()) {
        drop(place);
        let arrival = Arrival { stream, peer: peer.address, tls, begins_with_header: false };
        admission.refuse(arrival, refusal);
        return;
    }
    match tls {
        Some(tls) => serve_under_tls(stream, peer, tls, place, service).await,
        None => serve_connection(stream, peer, service, context).await,
    }
}

fn out_of_descriptors(error: &io::Error) -> bool {
    let out = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].map(|errno| Some(errno.raw_os_error()));
    out.contains(&error.raw_os_error())
}

/// Faults of a connection that ended before it was accepted, accept(2).
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// Writes a refusal without waiting for anything, and returns how long its content was. The socket does not block and its buffer is empty, so the
/// short answer fits; what has arrived is read away, lest closing resets the connection. Under TLS nothing can be said
/// so soon.
fn refuse_at_once(stream: TcpStream, refusal: Refusal, tls: bool) -> u64 {
    let Some(mut stream) = stream.into_std().ok().filter(|_| !tls) else { return 0 };
    let response = refusal.response(SystemTime::now());
    if stream.write_all(response.as_bytes()).is_err() {
        return 0;
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut scratch = [0; 4096];
    let _ = (0..8).try_for_each(|_| stream.read(&mut scratch).ok().filter(|&count| count > 0).map(|_| ()));
    refusal.content_length()
}

#[cfg(test)]
mod tests;
