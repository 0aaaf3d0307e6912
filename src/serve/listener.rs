//! Accepting client connections: who may connect, how many, and what those are told who may not. What is
//! said on an accepted connection is the wire's part.

mod bind;
mod descriptors;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use http::{Request, Response};
use hyper::body::Incoming;
use parking_lot::Mutex;
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::Service;

pub use bind::{BindError, Inherited, bind};
pub use descriptors::{DescriptorBudget, raise_descriptor_limit};

use crate::content::AccessList;

use super::tls::Tls;
use super::wire::{PieceBody, Refusal, TURN_AWAY_TIME, WireContext, serve_connection, turn_away};

/// Pause after a failed accept that nothing can be done about.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who may have a connection. One for all data listeners.
#[derive(Debug)]
pub struct Admission {
    clients: AccessList,
    budget: DescriptorBudget,
    context: Arc<WireContext>,
    open: AtomicUsize,
    per_client: Mutex<HashMap<IpAddr, usize>>,
    /// Bounds the connections that are held only to be refused politely.
    refusals: Arc<Semaphore>,
}

/// A connection's place; given back when dropped.
#[derive(Debug)]
struct Place {
    admission: Arc<Admission>,
    client: IpAddr,
}

/// A descriptor kept open so that one more connection can be accepted when there are no others.
struct Spare(Option<File>);

// === impl Admission ===

impl Admission {
    /// Admits `clients` within `budget` and the limits of `context`.
    pub fn new(clients: AccessList, budget: DescriptorBudget, context: Arc<WireContext>) -> Arc<Self> {
        let refusals = Arc::new(Semaphore::new((budget.reserve / 2).clamp(1, 1024)));
        Arc::new(Self {
            clients,
            budget,
            context,
            open: AtomicUsize::new(0),
            per_client: Mutex::new(HashMap::new()),
            refusals,
        })
    }

    /// A place for a connection of `client`, or why there is none.
    fn admit(self: &Arc<Self>, client: IpAddr) -> Result<Place, Refusal> {
        let client = client.to_canonical();
        if !self.clients.allows(client) {
            return Err(Refusal::ClientNotAllowed);
        }
        if self.context.drain().draining() {
            return Err(Refusal::Draining);
        }
        if self.open.load(Ordering::Relaxed) >= self.budget.sockets {
            return Err(Refusal::NoDescriptors);
        }
        let mut per_client = self.per_client.lock();
        let count = per_client.entry(client).or_insert(0);
        if *count >= self.context.limits().connections_per_client {
            if *count == 0 {
                per_client.remove(&client);
            }
            return Err(Refusal::TooManyConnections);
        }
        *count = count.saturating_add(1);
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Place { admission: Arc::clone(self), client })
    }

    /// Refuses a connection without holding up the accept loop.
    fn refuse(&self, stream: TcpStream, peer: SocketAddr, refusal: Refusal, tls: Option<&Arc<Tls>>) {
        match (Arc::clone(&self.refusals).try_acquire_owned(), tls.cloned()) {
            (Ok(permit), None) => {
                let context = Arc::clone(&self.context);
                tokio::spawn(async move {
                    turn_away(stream, peer, refusal, &context).await;
                    drop(permit);
                });
            }
            (Ok(permit), Some(tls)) => {
                let context = Arc::clone(&self.context);
                tokio::spawn(async move {
                    let time = context.limits().header_time.min(TURN_AWAY_TIME);
                    if let Some(socket) = tls.accept(stream, peer, time, &context).await {
                        turn_away(socket, peer, refusal, &context).await;
                    }
                    drop(permit);
                });
            }
            (Err(_), tls) => {
                self.context.count_refusal(refusal);
                refuse_at_once(stream, refusal, tls.is_some());
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.open.fetch_sub(1, Ordering::Relaxed);
        let mut per_client = self.admission.per_client.lock();
        if let Some(count) = per_client.get_mut(&self.client) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                per_client.remove(&self.client);
            }
        }
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
/// With `tls` clients shake hands first, in their own tasks.
pub async fn accept<S, B>(listener: TcpListener, admission: Arc<Admission>, tls: Option<Arc<Tls>>, service: S)
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
        match (admission.admit(peer.ip()), &tls) {
            (Ok(place), None) => {
                let service = service.clone();
                tokio::spawn(async move {
                    serve_connection(stream, peer, service, &place.admission.context).await;
                });
            }
            (Ok(place), Some(tls)) => {
                let (service, tls) = (service.clone(), Arc::clone(tls));
                tokio::spawn(async move {
                    let context = &place.admission.context;
                    // Boxed, since a connection should not carry room for its handshake.
                    if let Some(socket) =
                        Box::pin(tls.accept(stream, peer, context.limits().header_time, context)).await
                    {
                        serve_connection(socket, peer, service, context).await;
                    }
                });
            }
            (Err(refusal), tls) => admission.refuse(stream, peer, refusal, tls.as_ref()),
        }
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

/// Writes a refusal without waiting for anything. The socket does not block and its buffer is empty, so the
/// short answer fits; what has arrived is read away, lest closing resets the connection. Under TLS nothing can be said
/// so soon.
fn refuse_at_once(stream: TcpStream, refusal: Refusal, tls: bool) {
    let Some(mut stream) = stream.into_std().ok().filter(|_| !tls) else { return };
    let response = refusal.response(SystemTime::now());
    if stream.write_all(response.as_bytes()).is_ok() {
        let _ = stream.shutdown(Shutdown::Write);
        let mut scratch = [0; 4096];
        let _ = (0..8).try_for_each(|_| stream.read(&mut scratch).ok().filter(|&count| count > 0).map(|_| ()));
    }
}

#[cfg(test)]
mod tests;
