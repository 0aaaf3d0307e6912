//! Who may have a connection, and how many. Connections are accepted, and refused, elsewhere.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::DescriptorBudget;
use crate::content::AccessList;
use crate::serve::settings::{ProxyProtocol, Settings};
use crate::serve::tls::{ClientName, has_name};
use crate::serve::wire::{ClientSocket, Refusal, WireContext};

/// Who may connect, and on whose word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionRules {
    /// Addresses of clients.
    pub clients: AccessList,
    /// Names of clients: whoever has one in the certificate that it shows may connect from elsewhere, too.
    pub names: Vec<ClientName>,
    /// Networks of proxies. Many clients stand behind each, so that the limit for one client does not hold for them.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether they name their clients in front of each connection.
    pub proxy_protocol: ProxyProtocol,
}

/// Who may have a connection. One for all data listeners.
#[derive(Debug)]
pub struct Admission {
    rules: AdmissionRules,
    budget: DescriptorBudget,
    pub(super) context: Arc<WireContext>,
    open: AtomicUsize,
    per_client: Mutex<HashMap<IpAddr, usize>>,
    /// Bounds the connections that are held only to be refused politely.
    pub(super) refusals: Arc<Semaphore>,
    /// Bounds the connections of clients that have yet to show a name: those whose addresses are on the list are not to
    /// be without a place because strangers shake hands.
    nameless: Arc<Semaphore>,
}

/// A connection's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) admission: Arc<Admission>,
    /// Whose connections it is counted with.
    client: Option<IpAddr>,
    /// Held for as long as only a name in the client's certificate can let it in.
    nameless: Option<OwnedSemaphorePermit>,
}

impl From<&Settings> for AdmissionRules {
    fn from(settings: &Settings) -> Self {
        Self {
            clients: settings.clients.clone(),
            names: settings.named_clients.clone(),
            trusted_proxies: settings.trusted_proxies.clone(),
            proxy_protocol: settings.proxy_protocol,
        }
    }
}

impl Admission {
    /// Admits by `rules` within `budget` and the limits of `context`.
    pub fn new(rules: AdmissionRules, budget: DescriptorBudget, context: Arc<WireContext>) -> Arc<Self> {
        let refusals = Arc::new(Semaphore::new((budget.reserve / 2).clamp(1, 1024)));
        let nameless = Arc::new(Semaphore::new((budget.sockets / 4).clamp(1, Semaphore::MAX_PERMITS)));
        Arc::new(Self {
            rules,
            budget,
            context,
            open: AtomicUsize::new(0),
            per_client: Mutex::new(HashMap::new()),
            refusals,
            nameless,
        })
    }

    /// Whether a connection from `address` begins with a header that names the client.
    pub(super) fn expects_header(&self, address: IpAddr) -> bool {
        self.rules.proxy_protocol == ProxyProtocol::V2 && self.is_proxy(address.to_canonical())
    }

    /// A place for a connection of `client`, or why there is none. Under `tls` it may have to show a name yet.
    pub(super) fn admit(self: &Arc<Self>, client: IpAddr, tls: bool) -> Result<Place, Refusal> {
        let nameless = self.judge(client, tls)?;
        let mut place = self.admit_proxy()?;
        place.nameless = nameless;
        place.count(client)?;
        Ok(place)
    }

    /// A place for a connection of a proxy, whose client is to be judged by [`Place::take`].
    pub(super) fn admit_proxy(self: &Arc<Self>) -> Result<Place, Refusal> {
        if self.open.load(Ordering::Relaxed) >= self.budget.sockets {
            return Err(Refusal::NoDescriptors);
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Place { admission: Arc::clone(self), client: None, nameless: None })
    }

    /// Whether `client` may connect now; with a permit if it has to show a name yet.
    fn judge(&self, client: IpAddr, tls: bool) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        let by_name = !self.rules.clients.allows(client);
        if by_name && (!tls || self.rules.names.is_empty()) {
            return Err(Refusal::ClientNotAllowed);
        }
        if self.context.drain().draining() {
            return Err(Refusal::Draining);
        }
        if !by_name {
            return Ok(None);
        }
        Arc::clone(&self.nameless).try_acquire_owned().map(Some).map_err(|_| Refusal::NoDescriptors)
    }

    fn is_proxy(&self, address: IpAddr) -> bool {
        self.rules.trusted_proxies.iter().any(|network| network.contains(&address))
    }
}

impl Place {
    /// Gives a proxy's place to `client`, or says why it may not have it.
    pub(super) fn take(&mut self, client: IpAddr, tls: bool) -> Result<(), Refusal> {
        self.nameless = self.admission.judge(client, tls)?;
        self.count(client)
    }

    /// Whether the client may use the port, now that its certificate is known.
    pub(super) fn admits(&mut self, socket: &ClientSocket) -> bool {
        let names = &self.admission.rules.names;
        let admits = self.nameless.is_none() || socket.certificate().is_some_and(|shown| has_name(shown, names));
        if admits {
            self.nameless = None;
        }
        admits
    }

    fn count(&mut self, client: IpAddr) -> Result<(), Refusal> {
        let client = client.to_canonical();
        if self.admission.is_proxy(client) {
            return Ok(());
        }
        let mut per_client = self.admission.per_client.lock();
        let count = per_client.entry(client).or_insert(0);
        if *count >= self.admission.context.limits().connections_per_client {
            if *count == 0 {
                per_client.remove(&client);
            }
            return Err(Refusal::TooManyConnections);
        }
        *count = count.saturating_add(1);
        self.client = Some(client);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.open.fetch_sub(1, Ordering::Relaxed);
        let Some(client) = self.client else { return };
        let mut per_client = self.admission.per_client.lock();
        if let Some(count) = per_client.get_mut(&client) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                per_client.remove(&client);
            }
        }
    }
}
