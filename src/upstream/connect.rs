//! From a source to a connection that can carry requests: name resolution, the address guard, TCP, TLS and the
//! HTTP/1.1 handshake. Whether and when to connect is decided elsewhere.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use http::HeaderMap;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::RwLock;
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use crate::content::{Scheme, refuse_address};

use super::error::{FetchError, Phase};
use super::fetch::OutgoingBody;
use super::identity::{self, Dialect};
use super::names::Names;
use super::plan::Source;
use super::pool::Link;
use super::socket::Socket;
use super::{loops, tls, tunnel};

/// Head start of an address before the next one is tried beside it (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried at most.
const MAX_ADDRESSES: usize = 8;
/// Largest read buffer of a connection; it grows to this under load.
const MAX_BUFFER: usize = 256 * 1024;
/// Largest head of an answer, in bytes, and of its trailers: a client could hardly do with more.
const MAX_HEAD: usize = 64 * 1024;
/// Names that are looked up at once: each occupies a thread until the system gives up.
pub(super) const LOOKUPS: usize = 32;

/// Finds the addresses of a name.
pub trait Resolver: Send + Sync + fmt::Debug {
    /// The addresses of `host`, each with `port`, best first.
    fn resolve(&self, host: Arc<str>, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// The system's resolver: hosts file, DNS, whatever the machine is set up for.
#[derive(Debug)]
pub struct SystemResolver {
    lookups: Arc<Semaphore>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self { lookups: Arc::new(Semaphore::new(LOOKUPS)) }
    }
}

impl Resolver for SystemResolver {
    fn resolve(&self, host: Arc<str>, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let lookups = Arc::clone(&self.lookups);
        Box::pin(async move {
            // The permit stays with the thread, which cannot be interrupted when the caller gives up.
            let permit = lookups.acquire_owned().await.map_err(io::Error::other)?;
            let lookup = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                (&*host, port).to_socket_addrs().map(Iterator::collect)
            });
            lookup.await.map_err(io::Error::other)?
        })
    }
}

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector {
    names: Names,
    tls: Arc<Dialect>,
    own_addresses: Arc<RwLock<Vec<SocketAddr>>>,
    /// As whom a proxy on the way is asked.
    pseudonym: Arc<str>,
}

impl Connector {
    pub(super) fn new(
        resolver: Arc<dyn Resolver>,
        dialect: Dialect,
        own_addresses: Vec<SocketAddr>,
        pseudonym: Arc<str>,
    ) -> Self {
        let own_addresses = Arc::new(RwLock::new(own_addresses));
        Self { names: Names::new(resolver), tls: Arc::new(dialect), own_addresses, pseudonym }
    }

    /// Takes renewed files of TLS as long as this lives.
    pub(super) fn watch_files(&self) -> impl Future<Output = ()> + use<> {
        identity::watch(Arc::downgrade(&self.tls))
    }

    pub(super) fn set_own_addresses(&self, addresses: Vec<SocketAddr>) {
        *self.own_addresses.write() = addresses;
    }

    /// A fresh connection to `source`, ready for a request, before `limit`.
    pub(super) async fn connect(&self, source: &Source, limit: Instant) -> Result<Link, FetchError> {
        let host = &source.peer.host;
        let stream = match source.proxy.as_ref().filter(|_| source.is_tunnelled()) {
            Some(proxy) => {
                // One connection is for requests of many clients: only this cache has asked for it.
                let marks = loops::passed_on(&HeaderMap::new(), &self.pseudonym);
                tunnel::through(proxy, source, self.dial(source, limit).await?, marks, limit).await?
            }
            None => self.dial(source, limit).await?,
        };
        let socket = Socket::new(stream);
        let watch = socket.watch();
        // A proxy that does not tunnel speaks to the peer itself.
        let is_proxied = source.proxy.is_some() && !source.is_tunnelled();
        let sender = match source.peer.scheme {
            _ if is_proxied => http(socket, host).await?,
            Scheme::Http => http(socket, host).await?,
            Scheme::Https => {
                let late = |_elapsed| FetchError::Timeout { host: host.to_string(), phase: Phase::Tls };
                let connector = self.tls.connector(source.parent.is_some());
                let name = source.tls_name.as_ref().unwrap_or(host);
                let stream = timeout_at(limit, tls::handshake(&connector, name, socket)).await.map_err(late)?;
                let stream = stream.map_err(|fault| FetchError::TlsFailed { host: host.to_string(), fault })?;
                http(stream, host).await?
            }
        };
        Ok(Link::new(sender, watch))
    }

    /// A fresh TCP connection to `source`, or to the proxy before it, that the guard lets pass, before `limit`.
    pub(super) async fn dial(&self, source: &Source, limit: Instant) -> Result<TcpStream, FetchError> {
        let host = source.proxy.as_ref().map_or(&source.peer.host, |proxy| &proxy.host);
        let late = |phase| FetchError::Timeout { host: host.to_string(), phase };
        let addresses =
            timeout_at(limit, self.addresses(source, limit)).await.map_err(|_elapsed| late(Phase::Resolve))??;
        let stream = timeout_at(limit, dial(addresses)).await.map_err(|_elapsed| late(Phase::Connect))?;
        let stream = stream.map_err(|error| FetchError::ConnectFailed {
            to: source.to_string(),
            reason: error.to_string(),
            own: is_own_shortage(&error),
        })?;
        self.refuse_own_side(&stream, host)?;
        Ok(stream)
    }

    /// The addresses of `source` that the guard lets pass, at least one.
    async fn addresses(&self, source: &Source, limit: Instant) -> Result<Vec<SocketAddr>, FetchError> {
        let (host, port) = target(source)?;
        self.refuse_behind_proxy(source)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
        let unknown = |reason: String| FetchError::NameUnknown { host: host.to_string(), reason };
        let found = match bare.parse::<IpAddr>() {
            Ok(literal) => vec![SocketAddr::new(literal, port)],
            Err(_) => {
                let found = self.names.resolve(Arc::clone(&host), port, limit).await;
                found.map_err(|error| unknown(error.to_string()))?
            }
        };
        let mut allowed = Vec::with_capacity(found.len().min(MAX_ADDRESSES));
        let mut refused = None;
        for address in found {
            // Who set a proxy up may have it on any network.
            match self.refusal(address, source.allow_private || source.proxy.is_some()) {
                None if allowed.len() < MAX_ADDRESSES => allowed.push(address),
                None => {}
                Some(reason) => {
                    tracing::debug!(%source, address = %address.ip(), reason, "the address is refused");
                    refused.get_or_insert((address.ip(), reason));
                }
            }
        }
        match refused {
            _ if !allowed.is_empty() => Ok(allowed),
            Some((address, reason)) => Err(FetchError::AddressRefused { host: host.to_string(), address, reason }),
            None => Err(unknown("it has no address".to_owned())),
        }
    }

    /// What is asked through a proxy is looked up there; an address that stands in place of a name is judged here.
    fn refuse_behind_proxy(&self, source: &Source) -> Result<(), FetchError> {
        let host = &source.peer.host;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let literal = bare.parse::<IpAddr>().ok().filter(|_| source.proxy.is_some());
        let refusal = literal.and_then(|literal| {
            let reason = self.refusal(SocketAddr::new(literal, source.peer.port), source.allow_private)?;
            Some(FetchError::AddressRefused { host: host.to_string(), address: literal, reason })
        });
        refusal.map_or(Ok(()), Err)
    }

    /// Why `address` must not be connected to.
    fn refusal(&self, address: SocketAddr, allow_private: bool) -> Option<&'static str> {
        let ip = address.ip().to_canonical();
        let own = self.own_addresses.read().iter().any(|own| {
            let own_ip = own.ip().to_canonical();
            let here = own_ip.is_unspecified() && (ip.is_loopback() || ip.is_unspecified());
            own.port() == address.port() && (own_ip == ip || here)
        });
        if own {
            return Some("a listener of this cache");
        }
        let refusal = refuse_address(address.ip())?;
        let lifted = allow_private && refusal.lifted_by_allow_private();
        (!lifted).then(|| refusal.as_str())
    }

    /// A listener on all addresses has those that only the routing table knows: a connection of a machine to
    /// itself has the same address at both ends.
    fn refuse_own_side(&self, stream: &TcpStream, host: &str) -> Result<(), FetchError> {
        let (Ok(local), Ok(peer)) = (stream.local_addr(), stream.peer_addr()) else {
            return Ok(());
        };
        let same = local.ip().to_canonical() == peer.ip().to_canonical();
        let anywhere = |own: &SocketAddr| own.ip().is_unspecified() && own.port() == peer.port();
        if same && self.own_addresses.read().iter().any(anywhere) {
            let (host, address) = (host.to_owned(), peer.ip());
            return Err(FetchError::AddressRefused { host, address, reason: "a listener of this cache" });
        }
        Ok(())
    }
}

/// Host and port to connect to: the proxy's, the rule's address, or the peer's own.
fn target(source: &Source) -> Result<(Arc<str>, u16), FetchError> {
    if let Some(proxy) = &source.proxy {
        return Ok((Arc::clone(&proxy.host), proxy.port));
    }
    let origin = &source.peer;
    let Some(address) = &source.address else {
        return Ok((Arc::clone(&origin.host), origin.port));
    };
    let port_of = |text: &str| text.parse::<u16>().ok().filter(|&port| port != 0);
    let is_bare = address.ends_with(']') || !address.contains(':');
    let parsed = if is_bare {
        Some((&**address, origin.port))
    } else {
        address.rsplit_once(':').and_then(|(host, port)| Some((host, port_of(port)?)))
    };
    let (host, port) = parsed.filter(|(host, _)| !host.is_empty()).ok_or_else(|| FetchError::NameUnknown {
        host: address.to_string(),
        reason: "the rule's address is not host:port".to_owned(),
    })?;
    Ok((host.into(), port))
}

/// The first connection that stands. Addresses are tried in order; each next one when the one before has failed or
/// had its head start.
async fn dial(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut trying = FuturesUnordered::new();
    let mut last_error = None;
    trying.extend(waiting.next().map(TcpStream::connect));
    loop {
        let more = waiting.len() > 0;
        let next = if more { timeout(HEAD_START, trying.next()).await } else { Ok(trying.next().await) };
        match next {
            Ok(Some(Ok(stream))) => {
                // Requests are written at once and in whole; waiting for more would only delay them.
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Some(Err(error))) => last_error = Some(error),
            Ok(None) if !more => {
                return Err(last_error.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()));
            }
            Ok(None) | Err(_) => {}
        }
        trying.extend(waiting.next().map(TcpStream::connect));
    }
}

/// Whether this machine was short of something, and the source was not even asked.
fn is_own_shortage(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL | Errno::AGAIN)
    )
}

/// Starts HTTP/1.1 on a connected stream. The connection lives in its own task until either side ends it.
async fn http<S>(stream: S, host: &str) -> Result<SendRequest<OutgoingBody>, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http1::Builder::new()
        .max_buf_size(MAX_BUFFER)
        .max_header_size(MAX_HEAD)
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.map_err(|_error| FetchError::Disconnected { host: host.to_owned() })?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an upstream connection ended");
        }
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Origin;
    use crate::upstream::identity::TlsFiles;

    fn source(address: Option<&str>) -> Source {
        let origin = Origin { scheme: Scheme::Http, host: "a.example".into(), port: 81 };
        Source::origin(origin, address.map(Into::into), false)
    }

    #[test]
    fn the_rule_s_address_takes_the_origin_s_place() {
        for (address, expected) in [
            (None, Some(("a.example", 81))),
            (Some("b.example:8080"), Some(("b.example", 8080))),
            (Some("b.example"), Some(("b.example", 81))),
            (Some("192.0.2.1:8080"), Some(("192.0.2.1", 8080))),
            (Some("[2001:db8::1]:8080"), Some(("[2001:db8::1]", 8080))),
            (Some("[2001:db8::1]"), Some(("[2001:db8::1]", 81))),
            (Some(":8080"), None),
            (Some("b.example:0"), None),
            (Some("b.example:x"), None),
        ] {
            let got = target(&source(address)).ok();
            assert_eq!(got.as_ref().map(|(host, port)| (&**host, *port)), expected, "{address:?}");
        }
    }

    #[test]
    fn our_own_shortage_is_no_fault_of_the_source() {
        for (errno, own) in [
            (Errno::MFILE, true),
            (Errno::NFILE, true),
            (Errno::ADDRNOTAVAIL, true),
            (Errno::NOMEM, true),
            (Errno::CONNREFUSED, false),
            (Errno::NETUNREACH, false),
            (Errno::TIMEDOUT, false),
        ] {
            assert_eq!(is_own_shortage(&io::Error::from(errno)), own, "{errno}");
        }
    }

    #[test]
    fn own_listeners_are_refused_in_every_spelling() {
        let tls = Dialect::new(TlsFiles::default(), tls::Roots::System).unwrap();
        let own = vec!["[::]:8081".parse().unwrap(), "192.0.2.7:5001".parse().unwrap()];
        let connector = Connector::new(Arc::new(SystemResolver::default()), tls, own, "x".into());
        for (address, refused) in [
            ("127.0.0.1:8081", true),
            ("127.9.9.9:8081", true),
            ("[::1]:8081", true),
            ("[::ffff:127.0.0.1]:8081", true),
            ("0.0.0.0:8081", true),
            ("192.0.2.7:5001", true),
            ("[::ffff:192.0.2.7]:5001", true),
            ("192.0.2.7:5002", false),
            ("192.0.2.8:5001", false),
            ("127.0.0.1:8080", false),
        ] {
            assert_eq!(connector.refusal(address.parse().unwrap(), true).is_some(), refused, "{address}");
        }
        connector.set_own_addresses(Vec::new());
        assert_eq!(connector.refusal("127.0.0.1:8081".parse().unwrap(), true), None);
    }
}
