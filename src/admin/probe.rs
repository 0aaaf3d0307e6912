//! Asking another process for `/healthz`, for the health checks of container engines: images without a shell have
//! no `curl`. Blocking, without the machinery of the servers.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// The process does not answer as a healthy one does.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Nobody answers.
    #[error("{address}: {source}")]
    Io {
        /// Where it was asked.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// Somebody answers, but not with 200.
    #[error("{address}: the answer is {first_line:?}")]
    Answer {
        /// Where it was asked.
        address: SocketAddr,
        /// Begin of the answer.
        first_line: String,
    },
}

/// Asks the admin listener at `address` for `/healthz`. An address that means all addresses is asked on loopback.
/// `limit` bounds each of connecting, sending and every read.
///
/// # Errors
/// When nobody answers in time, or with another status than 200.
pub fn probe(address: SocketAddr, limit: Duration) -> Result<(), ProbeError> {
    let address = reachable(address);
    let answer = ask(address, limit).map_err(|source| ProbeError::Io { address, source })?;
    if answer.starts_with(b"HTTP/1.1 200 ") {
        return Ok(());
    }
    let first_line = answer.split(|&b| b == b'\r').next().unwrap_or_default();
    Err(ProbeError::Answer { address, first_line: String::from_utf8_lossy(first_line).into_owned() })
}

fn ask(address: SocketAddr, limit: Duration) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    stream.write_all(format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    // The status line is enough; what follows may have any length.
    stream.take(256).read_to_end(&mut answer)?;
    Ok(answer)
}

fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}
