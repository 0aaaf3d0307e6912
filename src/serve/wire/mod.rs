//! The wire: everything between an accepted socket and the service that answers requests.
//!
//! One I/O wrapper stands between the socket and hyper. It holds a request head in a small buffer until it is
//! complete, limits its time and size, refuses with a reason what hyper would accept or normalise, and then
//! hands hyper exactly one message at a time: its head and, by counting or by following the chunks, its body.
//! A refusal is thus written after the answers to everything before it. An idle connection is taken out of
//! hyper and waits as a bare socket. Accepting sockets is the listener's part, answers are the service's.

mod chunked;
mod connection;
mod direct;
mod exchange;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod head_gate;
mod interim;
mod io;
mod piece;
mod refusal;
mod send_file;
mod socket;
mod timer;
mod waiting;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;

pub(in crate::serve) use connection::{Gauged, LINGER_BYTES, LINGER_TIME, TURN_AWAY_TIME, linger};
pub use connection::{serve_connection, turn_away};
pub use direct::{Direct, Recall, Recalled, Words};
pub(in crate::serve) use head_gate::{MAX_FIELDS, MAX_REQUEST_LINE as MAX_TARGET, host_bytes, target_bytes};
pub use interim::Interim;
pub use piece::{Content, Piece, PieceBody, Receipt};
pub(in crate::serve) use piece::{TURN, WINDOW};
pub use refusal::Refusal;
pub use socket::ClientSocket;
pub(in crate::serve) use socket::HTTP2;

use super::settings::Limits;
use crate::content::Scheme;
use crate::shutdown::Drain;
use crate::telemetry::{AccessLog, Metrics};

/// An idle connection is parked after this. A client that works through a list of files asks again within
/// some 0.1 to 2 s (the Delivery Optimization agent's polling loop), and should find its buffers in place.
pub const PARK_AFTER: Duration = Duration::from_secs(5);

/// Bounds hyper's write queue, and its read buffer unless a request head may be longer.
const HYPER_BUFFER: usize = 64 * 1024;

/// Most bytes that wait in the kernel to be sent to one client: what a slow client costs. Twice the longest segment: there
/// is room again when half of it has left, and one that is not full may stay behind (`ClientSocket::cork`). Under TLS nothing
/// does, but a client has the same there.
pub(in crate::serve) const UNSENT: u32 = 128 * 1024;

/// What all connections share.
#[derive(Debug)]
pub struct WireContext {
    limits: Limits,
    park_after: Duration,
    metrics: Arc<Metrics>,
    drain: Drain,
    http: http1::Builder,
    files: bool,
    /// Breaks what keeps files from being sent past the encryption.
    #[cfg(test)]
    files_under_tls: bool,
    log: Option<AccessLog>,
    recall: Option<Arc<dyn Recall>>,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The client's end; an IPv4-mapped address counts as the IPv4 one.
    pub address: SocketAddr,
    /// Whether the one with this address sends the requests itself. A proxy that relays the bytes of an unknown client does
    /// not: what they say of clients is not the proxy's word.
    pub speaks: bool,
}

/// How a request came here; an extension of every request.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// The client's end of the connection; an IPv4-mapped address is written as IPv4.
    pub peer: SocketAddr,
    /// Whether the request is the word of whoever has this address: see [`Peer::speaks`].
    pub peer_speaks: bool,
    /// How the client speaks to us.
    pub scheme: Scheme,
    /// When the last byte of the head had arrived and the answers before it were written. Deadlines of the
    /// answer count from here.
    pub head_complete: Instant,
    /// Sends responses before the answer; `None` when the client is too old for them.
    pub interim: Option<Interim>,
}

impl From<SocketAddr> for Peer {
    /// One that speaks for itself.
    fn from(address: SocketAddr) -> Self {
        Self { address, speaks: true }
    }
}

impl WireContext {
    /// A context with [`PARK_AFTER`].
    pub fn new(limits: Limits, metrics: Arc<Metrics>, drain: Drain) -> Self {
        let mut http = http1::Builder::new();
        // The Delivery Optimization agent finds Content-Length and Content-Range by exact spelling only.
        // max_headers stays at hyper's 100, the gate's own limit: setting it would move the parser's table
        // from the stack to the heap.
        http.title_case_headers(true)
            .half_close(false)
            .keep_alive(true)
            .header_read_timeout(None)
            .max_buf_size(HYPER_BUFFER.max(limits.header_bytes.saturating_add(1)));
        Self {
            limits,
            park_after: PARK_AFTER,
            metrics,
            drain,
            http,
            files: cfg!(target_os = "linux"),
            #[cfg(test)]
            files_under_tls: false,
            log: None,
            recall: None,
        }
    }

    /// The same, but bytes of files pass through memory, as on systems that cannot send files.
    #[must_use]
    pub fn through_memory(mut self) -> Self {
        self.files = false;
        self
    }

    /// The same, but requests that are refused here have their lines in `log`.
    #[must_use]
    pub fn logged(mut self, log: AccessLog) -> Self {
        self.log = Some(log);
        self
    }

    /// The same, but requests are answered by `recall` when it knows the answer. Needs a system that can send files.
    #[must_use]
    pub fn recalling(mut self, recall: Arc<dyn Recall>) -> Self {
        self.recall = Some(recall);
        self
    }

    /// The same with another time after which an idle connection is parked.
    #[must_use]
    pub fn park_after(mut self, time: Duration) -> Self {
        self.park_after = time;
        self
    }

    /// Breaks what sending files rests on: hyper copies what it writes into one buffer, placeholders too.
    #[cfg(test)]
    pub(in crate::serve) fn copying_writes(mut self) -> Self {
        self.http.writev(false);
        self
    }

    /// Breaks what keeps files from being sent past the encryption: the first of two locks.
    #[cfg(test)]
    pub(in crate::serve) fn files_under_tls(mut self) -> Self {
        self.files_under_tls = true;
        self
    }

    /// Whether the kernel may send files to this client. What it sends is not encrypted.
    fn files_to(&self, socket: &ClientSocket) -> bool {
        #[cfg(test)]
        if self.files_under_tls {
            return self.files;
        }
        self.files && !socket.is_tls()
    }

    /// The limits that connections keep.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Where connections are counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The drain signal that connections obey.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }
}

#[cfg(test)]
mod tests;
