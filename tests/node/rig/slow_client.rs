//! A small device: a receive window of 2 KiB and a few kilobytes per second.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::TcpSocket;
use tokio::time::Instant;

use super::client::{Checked, Connection, End, Framing, Head};
use super::pattern::Pattern;

/// How a device takes what it gets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Size of the receive buffer that is asked of the kernel (which doubles it).
    pub(crate) window: usize,
    pub(crate) bytes_per_second: u64,
    /// Bytes taken at once.
    pub(crate) sip: usize,
}

impl Pace {
    /// A microcontroller: 2 KiB of window, 3 KB/s.
    pub(crate) const TINY: Self = Self { window: 2048, bytes_per_second: 3000, sip: 512 };
}

/// Connects with a small receive window.
pub(crate) async fn connect(address: SocketAddr, pace: Pace) -> Connection {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(pace.window).unwrap();
    socket.set_nonblocking(true).unwrap();
    let stream = TcpSocket::from_std_stream(socket.into()).connect(address).await.unwrap();
    Connection::over(stream)
}

/// Sends `request` and takes the answer at `pace`, comparing it with `pattern` from `offset` on. `enough` is
/// asked before each sip and ends the download.
pub(crate) async fn sip(
    connection: &mut Connection,
    request: &str,
    pace: Pace,
    pattern: Pattern,
    offset: u64,
    enough: impl Fn() -> bool,
) -> (Head, Checked) {
    connection.send(request).await;
    let head = connection.head().await;
    let mut framing = head.framing(false);
    let mut checked = Checked { len: 0, first_difference: None, end: End::Cut };
    let start = Instant::now();
    while !enough() {
        let Ok(Some(piece)) = connection.piece(&mut framing, pace.sip).await else { break };
        checked.first_difference =
            checked.first_difference.or_else(|| pattern.first_difference(offset + checked.len, &piece));
        checked.len += piece.len() as u64;
        let due = start + Duration::from_secs_f64(checked.len as f64 / pace.bytes_per_second as f64);
        tokio::time::sleep_until(due).await;
    }
    if framing == Framing::Done {
        checked.end = End::Complete;
    }
    (head, checked)
}
