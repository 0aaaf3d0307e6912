//! [`Names`]: look-ups of names, so that some that hang hold up no other. All who want one name share one look-up; names of
//! one domain, and names that never resolved, have a part of all look-ups only; and a name that resolved lately goes on with
//! its old addresses while the resolver does not answer (RFC 8767). Addresses are judged by who connects, old ones too.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout};

use super::connect::{LOOKUPS, Resolver};

/// Look-ups of names of one domain at once: where its servers are dead, all of its names hang.
const OF_A_DOMAIN: usize = LOOKUPS / 4;
/// Look-ups at once of names that have not resolved before: clients can make up any number of them.
const OF_NEW_NAMES: usize = LOOKUPS - OF_A_DOMAIN;
/// After this time without an answer the old addresses are used (RFC 8767 section 5: 1.8 s; connecting takes time, too).
const PATIENCE: Duration = Duration::from_secs(1);
/// They are used for so long before the resolver is asked again (RFC 8767 section 5).
const RECHECK: Duration = Duration::from_secs(30);
/// No address is used for longer without having been confirmed (RFC 8767 section 5).
const OLDEST: Duration = Duration::from_secs(24 * 3600);
/// Names whose addresses are kept.
const KEPT: usize = 1024;

/// Looks names up. Clones are the same.
#[derive(Clone)]
pub(super) struct Names {
    shared: Arc<Shared>,
}

struct Shared {
    resolver: Arc<dyn Resolver>,
    state: Mutex<State>,
    new_names: Arc<Semaphore>,
}

/// A name and the port that goes with it.
type Name = (Arc<str>, u16);

/// What a look-up came to.
type Found = Result<Vec<SocketAddr>, Arc<io::Error>>;

#[derive(Default)]
struct State {
    /// Look-ups that wait or are under way, and who is told.
    running: HashMap<Name, Arc<watch::Sender<Option<Found>>>>,
    known: HashMap<Name, Known>,
    /// Places of the domains of which names are being looked up.
    domains: HashMap<Arc<str>, Arc<Semaphore>>,
}

/// What a name resolved to.
struct Known {
    addresses: Vec<SocketAddr>,
    at: Instant,
    /// The resolver is not asked before.
    ask_again: Option<Instant>,
}

impl Names {
    pub(super) fn new(resolver: Arc<dyn Resolver>) -> Self {
        let new_names = Arc::new(Semaphore::new(OF_NEW_NAMES));
        Self { shared: Arc::new(Shared { resolver, state: Mutex::default(), new_names }) }
    }

    /// The addresses of `host`, each with `port`, best first. Waits for as long as the resolver needs, unless there are old
    /// ones: those are used early enough to connect to them before `limit`.
    ///
    /// # Errors
    /// What the resolver says.
    pub(super) async fn resolve(&self, host: Arc<str>, port: u16, limit: Instant) -> io::Result<Vec<SocketAddr>> {
        let name = (host, port);
        let (mut told, old) = {
            let mut state = self.shared.state.lock();
            let now = Instant::now();
            let known = state.known.get(&name).filter(|known| now.saturating_duration_since(known.at) < OLDEST);
            if let Some(known) = known
                && known.ask_again.is_some_and(|at| now < at)
            {
                return Ok(known.addresses.clone());
            }
            let old = known.map(|known| known.addresses.clone());
            (self.join(&mut state, &name), old)
        };
        let found = async {
            match told.wait_for(Option::is_some).await {
                Ok(found) => found.clone().unwrap_or_else(|| Err(given_up())),
                Err(_) => Err(given_up()),
            }
        };
        let Some(old) = old else { return found.await.map_err(|error| copy_of(&error)) };
        let patience = PATIENCE.min(limit.saturating_duration_since(Instant::now()) / 2);
        match timeout(patience, found).await {
            Ok(Ok(addresses)) => return Ok(addresses),
            Ok(Err(error)) if !may_pass(&error) => return Err(copy_of(&error)),
            Ok(Err(error)) => tracing::debug!(host = %name.0, %error, "old addresses are used"),
            Err(_elapsed) => tracing::debug!(host = %name.0, "old addresses are used: the resolver does not answer"),
        }
        if let Some(known) = self.shared.state.lock().known.get_mut(&name) {
            known.ask_again = Some(Instant::now() + RECHECK);
        }
        Ok(old)
    }

    /// Who is told by the look-up of `name`, which begins now if there is none.
    fn join(&self, state: &mut State, name: &Name) -> watch::Receiver<Option<Found>> {
        if let Some(tell) = state.running.get(name) {
            return tell.subscribe();
        }
        let (tell, told) = watch::channel(None);
        let tell = Arc::new(tell);
        state.running.insert(name.clone(), Arc::clone(&tell));
        let domain = Arc::clone(state.domains.entry(domain_of(&name.0).into()).or_insert_with(places));
        let new_names = (!state.known.contains_key(name)).then(|| Arc::clone(&self.shared.new_names));
        tokio::spawn(look_up(Arc::clone(&self.shared), name.clone(), tell, [Some(domain), new_names]));
        told
    }
}

/// Looks `name` up when there is a place for it, unless everybody who waited has gone by then. What has begun goes on, since the
/// system cannot be interrupted.
async fn look_up(
    shared: Arc<Shared>,
    name: Name,
    tell: Arc<watch::Sender<Option<Found>>>,
    bounds: [Option<Arc<Semaphore>>; 2],
) {
    let mut places = Vec::with_capacity(bounds.len());
    for bound in bounds.into_iter().flatten() {
        match place(&shared, &name, &tell, bound).await {
            Some(place) => places.push(place),
            None => return,
        }
    }
    let found = shared.resolver.resolve(Arc::clone(&name.0), name.1).await.map_err(Arc::new);
    drop(places);
    let mut state = shared.state.lock();
    match &found {
        Ok(addresses) => state.keep(name.clone(), addresses.clone()),
        Err(error) if may_pass(error) => {}
        Err(_) => drop(state.known.remove(&name)),
    }
    state.end(&name);
    tell.send_replace(Some(found));
}

/// A place among as many as `bound` has; `None` when nobody waits for it any more.
async fn place(
    shared: &Shared,
    name: &Name,
    tell: &watch::Sender<Option<Found>>,
    bound: Arc<Semaphore>,
) -> Option<OwnedSemaphorePermit> {
    let mut place = std::pin::pin!(bound.acquire_owned());
    loop {
        tokio::select! {
            biased;
            place = &mut place => return place.ok(),
            () = tell.closed() => {
                let mut state = shared.state.lock();
                // Somebody may have come meanwhile.
                if tell.is_closed() {
                    state.end(name);
                    return None;
                }
            }
        }
    }
}

impl State {
    fn keep(&mut self, name: Name, addresses: Vec<SocketAddr>) {
        if self.known.len() >= KEPT && !self.known.contains_key(&name) {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.at).map(|(name, _)| name.clone());
            oldest.into_iter().for_each(|oldest| drop(self.known.remove(&oldest)));
        }
        self.known.insert(name, Known { addresses, at: Instant::now(), ask_again: None });
    }

    /// The look-up of `name` is over.
    fn end(&mut self, name: &Name) {
        self.running.remove(name);
        // Whoever looks one of its names up holds its places, too.
        self.domains.retain(|_, places| Arc::strong_count(places) > 1);
    }
}

fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(OF_A_DOMAIN))
}

/// The last two labels: what has name servers of its own, mostly.
fn domain_of(host: &str) -> &str {
    let mut dots = host.trim_end_matches('.').rmatch_indices('.').map(|(at, _)| at);
    dots.nth(1).and_then(|at| host.get(at + 1..)).unwrap_or(host)
}

/// What the C libraries say when there is no such name, or none with an address: EAI_NONAME and EAI_NODATA. The standard
/// library tells their codes by these words only.
const NO_SUCH_NAME: [&str; 5] = [
    "Name or service not known",
    "No address associated with hostname",
    "Name does not resolve",
    "Name has no usable address",
    "nodename nor servname provided",
];

/// Whether the resolver could not tell, for whatever reason, rather than say that there is no such name (RFC 8767 section 4:
/// only an answer makes another one untrue). Descriptors may be short here, or a server refuse for a while.
fn may_pass(error: &io::Error) -> bool {
    let text = error.to_string();
    !NO_SUCH_NAME.iter().any(|words| text.contains(words))
}

fn copy_of(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

fn given_up() -> Arc<io::Error> {
    Arc::new(io::Error::other("the look-up was given up"))
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
