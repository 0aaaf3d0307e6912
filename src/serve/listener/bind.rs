//! Listening sockets: inherited from a supervisor or bound here. Nothing is accepted here.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;

/// Connections that the kernel completes before they are accepted: a refused connection makes the Delivery
/// Optimization agent avoid the cache for 15 minutes, for all hosts.
const BACKLOG: i32 = 4096;

/// Listening sockets of a supervisor that passes them on over restarts, so that no connection is refused
/// (`LISTEN_FDS`, sd_listen_fds(3)).
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<std::net::TcpListener>,
}

/// Why a listener could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error(
        "{address} is in use: another process listens there; stop it, or set another address under listen (`ss -ltnp` shows who it is)"
    )]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// Ports below 1024 need a privilege.
    #[error(
        "not allowed to listen on {address}: ports below 1024 need CAP_NET_BIND_SERVICE; grant it, or set a higher port"
    )]
    Denied {
        /// The address.
        address: SocketAddr,
    },
    /// No interface has this address.
    #[error("no interface of this machine has the address of {address}; set another, or [::] for all")]
    NotLocal {
        /// The address.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    Io {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
}

// === impl Inherited ===

impl Inherited {
    /// Takes the sockets that the environment names. To be called once, early. What is no TCP listener is
    /// left alone with a warning.
    pub fn from_environment() -> Self {
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            match passed.take_tcp_listener(index) {
                Ok(Some(socket)) => sockets.push(socket),
                Ok(None) => {}
                Err(error) => tracing::warn!(index, %error, "an inherited descriptor is no TCP listener"),
            }
        }
        Self { sockets }
    }

    /// These sockets, first to be used first.
    pub fn new(sockets: Vec<std::net::TcpListener>) -> Self {
        Self { sockets }
    }

    /// How many are still to be had.
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// The socket that listens on exactly `address`; for all addresses, `[::]` and `0.0.0.0` count as one.
    pub fn claim(&mut self, address: SocketAddr) -> Option<std::net::TcpListener> {
        let same = |local: SocketAddr| {
            local.port() == address.port()
                && (local.ip().to_canonical() == address.ip().to_canonical()
                    || (local.ip().is_unspecified() && address.ip().is_unspecified()))
        };
        let index = self.sockets.iter().position(|socket| socket.local_addr().is_ok_and(same))?;
        Some(self.sockets.remove(index))
    }

    fn next(&mut self) -> Option<std::net::TcpListener> {
        if self.sockets.is_empty() { None } else { Some(self.sockets.remove(0)) }
    }
}

/// One listener for each address: the inherited socket on that address; else the next inherited one, since
/// the supervisor decides where the service is reached; else a new one. Claim the sockets of other listeners
/// (admin) before. Must be called within a tokio runtime.
///
/// # Errors
/// Names the first address that cannot be had, and what to do about it.
pub fn bind(addresses: &[SocketAddr], inherited: &mut Inherited) -> Result<Vec<TcpListener>, BindError> {
    let claimed: Vec<_> = addresses.iter().map(|&address| (address, inherited.claim(address))).collect();
    claimed
        .into_iter()
        .map(|(address, socket)| {
            let listener = match socket.or_else(|| inherited.next()) {
                Some(socket) => {
                    let actual =
                        socket.local_addr().map_or_else(|error| error.to_string(), |actual| actual.to_string());
                    tracing::info!(configured = %address, actual, "using an inherited socket");
                    socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket))
                }
                None => listen(address),
            };
            listener.map_err(|source| BindError::new(address, source))
        })
        .collect()
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)) {
        // A kernel without IPv6: all addresses are then all IPv4 addresses.
        Err(error) if no_ipv6(&error) && address.is_ipv6() && address.ip().is_unspecified() => {
            return listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())));
        }
        socket => socket?,
    };
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    match socket.bind(&address.into()) {
        // IPv6 switched off on all interfaces.
        Err(error)
            if error.kind() == io::ErrorKind::AddrNotAvailable
                && address.ip().is_unspecified()
                && address.is_ipv6() =>
        {
            return listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())));
        }
        bound => bound?,
    }
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn no_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// Accepted sockets answer at once: no waiting for more bytes to fill a segment.
pub(super) fn set_accepted(stream: &tokio::net::TcpStream) {
    if let Err(error) = SockRef::from(stream).set_tcp_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
}

// === impl BindError ===

impl BindError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address },
            io::ErrorKind::PermissionDenied => Self::Denied { address },
            io::ErrorKind::AddrNotAvailable => Self::NotLocal { address },
            _ => Self::Io { address, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_in_use_is_named_with_a_remedy() {
        let first = bind(&["127.0.0.1:0".parse().unwrap()], &mut Inherited::default()).unwrap();
        let address = first[0].local_addr().unwrap();
        let error = bind(&[address], &mut Inherited::default()).unwrap_err();
        assert!(matches!(error, BindError::InUse { address: a } if a == address));
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[tokio::test]
    async fn an_address_of_nobody_is_named() {
        let error = bind(&["192.0.2.1:0".parse().unwrap()], &mut Inherited::default()).unwrap_err();
        assert!(matches!(error, BindError::NotLocal { .. }), "{error}");
    }

    #[tokio::test]
    async fn all_addresses_take_ipv4_clients_too() {
        let listeners = bind(&["[::]:0".parse().unwrap()], &mut Inherited::default()).unwrap();
        let port = listeners[0].local_addr().unwrap().port();
        let (client, accepted) =
            tokio::join!(tokio::net::TcpStream::connect(("127.0.0.1", port)), listeners[0].accept());
        client.unwrap();
        assert!(accepted.unwrap().1.ip().to_canonical().is_ipv4());
    }

    #[tokio::test]
    async fn inherited_sockets_go_to_their_address_first_and_then_in_order() {
        let socket = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (a, b, c) = (socket(), socket(), socket());
        let address = |s: &std::net::TcpListener| s.local_addr().unwrap();
        let (at_a, at_b, at_c) = (address(&a), address(&b), address(&c));
        let mut inherited = Inherited::new(vec![a, b, c]);
        let listeners = bind(&["127.0.0.1:0".parse().unwrap(), at_c], &mut inherited).unwrap();
        assert_eq!(listeners[0].local_addr().unwrap(), at_a);
        assert_eq!(listeners[1].local_addr().unwrap(), at_c);
        assert_eq!(inherited.len(), 1);
        assert_eq!(address(&inherited.claim(at_b).unwrap()), at_b);
    }
}
