//! Settings of the admin listener: where it listens and who may use which of its paths.

use std::net::{Ipv4Addr, SocketAddr};

use crate::content::AccessList;

/// The port of the admin listener unless it is configured: the one on which Connected Cache has its `/summary`.
pub const DEFAULT_PORT: u16 = 5001;

/// The admin listener. `/healthz` and `/readyz` are open to everybody who reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Addresses of the listeners; none switches them off.
    pub addresses: Vec<SocketAddr>,
    /// Who may read `/summary`.
    pub summary_clients: AccessList,
    /// Who may read `/metrics`.
    pub metrics_clients: AccessList,
}

impl Default for Settings {
    /// Loopback only; `/summary` for private networks, should the address be widened; `/metrics` for loopback.
    fn default() -> Self {
        Self {
            addresses: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT))],
            summary_clients: AccessList::private(),
            metrics_clients: AccessList::loopback(),
        }
    }
}
