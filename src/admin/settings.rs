//! Settings of the admin listener: where it listens and who may use which of its paths.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

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
    /// File with the token for `/api/v1`, which is off without one. Read at each request.
    pub token_file: Option<PathBuf>,
    /// Whether the token may come from other machines, although the listener does not encrypt.
    pub allow_plaintext: bool,
}

impl Default for Settings {
    /// Loopback only; `/summary` for private networks, should the address be widened; `/metrics` for loopback;
    /// no API.
    fn default() -> Self {
        Self {
            addresses: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT))],
            summary_clients: AccessList::private(),
            metrics_clients: AccessList::loopback(),
            token_file: None,
            allow_plaintext: false,
        }
    }
}
