//! Settings of the data port.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::tls::{ClientName, TlsSettings};
use crate::content::{AccessList, CacheKey, Scheme};

/// The data listeners and what bounds them.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Addresses of the plain HTTP/1.1 listeners for devices.
    pub data: Vec<SocketAddr>,
    /// The TLS listener, if there is one.
    pub tls: Option<TlsSettings>,
    /// Whose addresses may use them.
    pub clients: AccessList,
    /// Clients that may use the TLS listener from any address: those that show a certificate with such a name.
    pub named_clients: Vec<ClientName>,
    /// Who may ask by digest (`/.well-known/ni/sha-256/…`): nobody by default, since a digest is a capability.
    pub digest_clients: AccessList,
    /// Whether those may, too, who have shown the TLS listener a certificate of `client_ca`.
    pub digest_certified: bool,
    /// Peers that are believed when they name the client: in `X-Forwarded-For`, or by [`Settings::proxy_protocol`].
    pub trusted_proxies: Vec<IpNet>,
    /// Whether each connection of theirs begins with the client's address.
    pub proxy_protocol: ProxyProtocol,
    /// What bounds connections and requests.
    pub limits: Limits,
    /// How long requests in flight may go on after SIGTERM or SIGINT.
    pub drain_grace: Duration,
    /// Our name in `Via`, `Cache-Status` and `CDN-Loop`.
    pub pseudonym: std::sync::Arc<str>,
    /// Whether `Cache-Status` tells the cache key of each answer (RFC 9211 section 2.7).
    pub cache_status_key: bool,
    /// Whether a client's `no-cache` or `max-age` may send a request on to the origin although what is stored
    /// is fresh.
    pub clients_may_refetch: bool,
    /// How long a tunnel (CONNECT) is kept in which no byte moves.
    pub tunnel_idle_time: Duration,
}

/// How trusted proxies name the client of a connection before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// Not at all.
    None,
    /// By the binary header of the PROXY protocol, version 2.
    V2,
}

impl Settings {
    /// `key`, if clients are told it.
    pub(super) fn shown_key(&self, key: &CacheKey) -> Option<CacheKey> {
        self.cache_status_key.then(|| key.clone())
    }

    /// Whether a client with this address, which speaks to us by `scheme`, may ask by digest.
    pub fn may_name_digests(&self, client: IpAddr, scheme: Scheme) -> bool {
        // Where there are authorities for clients, the TLS listener lets in nobody without a certificate.
        let asks_certificates = self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        let is_certified = asks_certificates && scheme == Scheme::Https;
        self.digest_clients.allows(client) || (self.digest_certified && is_certified)
    }
}

/// Bounds of the data port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests in flight over all clients; above it requests get 503.
    pub requests: usize,
    /// Open connections of one client address; above it connections get 503.
    pub connections_per_client: usize,
    /// Longest request head in bytes; above it 431.
    pub header_bytes: usize,
    /// Time from the first byte of a request head to its last; above it 408.
    pub header_time: Duration,
    /// How long a connection without a request is kept.
    pub idle_time: Duration,
    /// Longest time in which a client sends no byte of a request body or acknowledges none of an answer; above it
    /// the connection is closed. Slow progress is progress.
    pub body_time: Duration,
    /// Most parts of a multi-range answer; above it the whole representation is sent.
    pub ranges: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests: 4096,
            connections_per_client: 256,
            header_bytes: 32 * 1024,
            header_time: Duration::from_secs(30),
            idle_time: Duration::from_secs(120),
            body_time: Duration::from_secs(60),
            ranges: 16,
        }
    }
}
