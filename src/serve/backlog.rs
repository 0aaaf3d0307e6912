//! How much a peer still has to acknowledge, as the kernel knows it, and whether that becomes less. A write that waits
//! says only that the send buffer is not half empty yet: a peer that takes 500 bytes a second needs minutes for that,
//! and makes progress all the time.
//!
//! The kernel is asked by `sock_diag` (sock_diag(7)), which needs no privilege and looks at one connection.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};
use tokio::net::TcpStream;

/// A peer is looked at so often within the time that it has.
const LOOKS: u32 = 4;

/// Length of a request: `nlmsghdr`, then `inet_diag_req_v2`.
const REQUEST: usize = 16 + 56;
/// Where `idiag_wqueue` stands in the reply: behind `nlmsghdr`, 52 bytes of identity, two numbers of four bytes.
const WRITE_QUEUE: usize = 16 + 52 + 8;
/// Where `idiag_state` stands.
const STATE: usize = 16 + 1;
const TCP_LISTEN: u8 = 10;
/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const IPPROTO_TCP: u8 = 6;

/// Both ends of a connection, by which the kernel finds it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    here: SocketAddr,
    peer: SocketAddr,
}

/// What is known of a peer that takes nothing at the level of writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standstill {
    /// The last moment of progress that is known, or the begin.
    since: Instant,
    looked: Instant,
    /// Bytes that it had to acknowledge then; `None` before the first look, and where the kernel does not say.
    backlog: Option<u32>,
}

impl Ends {
    /// Of a connection that stands.
    pub(super) fn of(stream: &TcpStream) -> Option<Self> {
        let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        Some(Self { here: plain(stream.local_addr().ok()?), peer: plain(stream.peer_addr().ok()?) })
    }

    /// Bytes that were written and that the peer has not acknowledged, sent or not; `None` when the kernel does not
    /// say.
    pub(super) fn backlog(&self) -> Option<u32> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::SOCK_DIAG)).ok()?;
        send(&socket, &self.request()?, SendFlags::empty()).ok()?;
        // The answer is there when the request has been taken.
        let mut reply = [0; 512];
        let (length, _) = recv(&socket, &mut reply, RecvFlags::DONTWAIT).ok()?;
        write_queue(reply.get(..length)?)
    }

    fn request(&self) -> Option<[u8; REQUEST]> {
        let (family, here, peer) = match (self.here.ip(), self.peer.ip()) {
            (IpAddr::V4(here), IpAddr::V4(peer)) => {
                (AddressFamily::INET, here.octets().to_vec(), peer.octets().to_vec())
            }
            (IpAddr::V6(here), IpAddr::V6(peer)) => {
                (AddressFamily::INET6, here.octets().to_vec(), peer.octets().to_vec())
            }
            _ => return None,
        };
        let mut bytes = [0; REQUEST];
        let mut put = |at: usize, field: &[u8]| {
            bytes.iter_mut().skip(at).zip(field).for_each(|(byte, value)| *byte = *value);
        };
        put(0, &(REQUEST as u32).to_ne_bytes());
        put(4, &BY_FAMILY.to_ne_bytes());
        put(6, &NLM_F_REQUEST.to_ne_bytes());
        put(16, &[u8::try_from(family.as_raw()).ok()?, IPPROTO_TCP]);
        // All states.
        put(20, &u32::MAX.to_ne_bytes());
        put(24, &self.here.port().to_be_bytes());
        put(26, &self.peer.port().to_be_bytes());
        put(28, &here);
        put(44, &peer);
        // No interface is 0, no cookie is all ones.
        put(64, &[0xff; 8]);
        Some(bytes)
    }
}

/// The field of a reply; `None` for an error. For a connection that is gone the kernel tells of the listener, whose
/// field means something else.
fn write_queue(reply: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(reply.get(4..6)?.try_into().ok()?);
    let field = reply.get(WRITE_QUEUE..WRITE_QUEUE + 4)?;
    let is_connection = kind == BY_FAMILY && *reply.get(STATE)? != TCP_LISTEN;
    is_connection.then_some(u32::from_ne_bytes(field.try_into().ok()?))
}

impl Standstill {
    /// It begins at `now`.
    pub(super) fn begin(now: Instant) -> Self {
        Self { since: now, looked: now, backlog: None }
    }

    /// When it was looked at last, and how long until the next look, of a peer that has `allowed`.
    pub(super) fn next_look(&self, allowed: Duration) -> (Instant, Duration) {
        (self.looked, allowed / LOOKS)
    }

    /// Whether the peer has made no progress for `allowed`, with `backlog` as it is now. What happened before the
    /// first look is not known: it counts as progress.
    pub(super) fn is_over(&mut self, now: Instant, backlog: Option<u32>, allowed: Duration) -> bool {
        match (backlog, self.backlog) {
            (Some(_), None) => self.since = now,
            (Some(now_there), Some(before)) if now_there < before => self.since = now,
            _ => {}
        }
        (self.backlog, self.looked) = (backlog, now);
        now.saturating_duration_since(self.since) >= allowed
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_backlog_is_what_the_peer_has_not_acknowledged() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address).await else { continue };
            let port = listener.local_addr().unwrap().port();
            let host = if address == "[::1]:0" { "[::1]" } else { "127.0.0.1" };
            let (client, accepted) = tokio::join!(TcpStream::connect(format!("{host}:{port}")), listener.accept());
            let (mut client, (server, _)) = (client.unwrap(), accepted.unwrap());
            socket2::SockRef::from(&client).set_recv_buffer_size(4096).unwrap();
            let ends = Ends::of(&server).unwrap();
            assert_eq!(ends.backlog(), Some(0), "{address}");
            let mut written = 0_u32;
            while let Ok(count) = server.try_write(&[0; 64 * 1024]) {
                written += u32::try_from(count).unwrap();
            }
            let before = ends.backlog().unwrap();
            assert!(before > 0 && before < written, "{before} of {written}");
            let mut some = vec![0; written as usize - before as usize + 1];
            client.read_exact(&mut some).await.unwrap();
            // The acknowledgement needs no write here.
            while ends.backlog().unwrap() >= before {
                let count = client.read(&mut some).await.unwrap();
                assert!(count > 0);
            }
            client.shutdown().await.unwrap();
            let stranger = Ends { peer: "192.0.2.1:9".parse().unwrap(), ..ends };
            assert_eq!(stranger.backlog(), None);
        }
    }

    #[test]
    fn only_a_backlog_that_does_not_shrink_is_a_standstill() {
        let allowed = Duration::from_secs(60);
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut slow = Standstill::begin(begin);
        for step in 1..100_u32 {
            assert!(!slow.is_over(at(u64::from(step) * 15), Some(100_000 - step), allowed));
        }
        let mut silent = Standstill::begin(begin);
        let over: Vec<_> = (1..=6).map(|n| silent.is_over(at(n * 15), Some(9), allowed)).collect();
        assert_eq!(over, [false, false, false, false, true, true]);
        // One byte in the last moment is enough.
        assert!(!silent.is_over(at(105), Some(8), allowed));
        let mut unknown = Standstill::begin(begin);
        let over: Vec<_> = (1..=4).map(|n| unknown.is_over(at(n * 15), None, allowed)).collect();
        assert_eq!(over, [false, false, false, true]);
    }

    #[test]
    fn what_is_no_reply_says_nothing() {
        assert_eq!(write_queue(&[]), None);
        assert_eq!(write_queue(&[0; 16]), None);
        let mut error = [0; 100];
        error[4..6].copy_from_slice(&2_u16.to_ne_bytes());
        assert_eq!(write_queue(&error), None);
    }
}
