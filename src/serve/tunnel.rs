//! [`Tunnel`]: the bytes between a client and the host that it named by CONNECT, both ways, unread. Whether there may
//! be a tunnel is decided in `connect`; the wire hands the client's side over when the 200 is written.

use std::fmt;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join;
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::account::Account;
use super::backlog::Ends;
use super::wire::{ClientSocket, Receipt};
use crate::fill::Toll;
use crate::shutdown::Drain;

/// Most bytes that are taken from one side before the other has taken them: all that a slow reader costs.
const CHUNK: usize = 32 * 1024;

/// While the process drains, a tunnel in which nothing moves for so long carries no download and is not waited for.
const DRAIN_IDLE: Duration = Duration::from_secs(1);

/// How often within its idle time a tunnel is looked at in which no byte moves here.
const LOOKS: u32 = 4;

/// A tunnel that waits for its client's side. Clones are the same tunnel; an extension of the answer to CONNECT.
#[derive(Clone)]
pub(super) struct Tunnel {
    agreed: Arc<Mutex<Option<Agreed>>>,
}

struct Agreed {
    host: TcpStream,
    toll: Toll,
    account: Unopened,
    idle_time: Duration,
    /// What counts the tunnel as a request in flight.
    held: Vec<Box<dyn Send>>,
}

/// The account of a tunnel that is not open yet.
struct Unopened(Option<Account>);

/// A side of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Who asked for it.
    Client,
    /// Where it leads.
    Host,
}

/// Why a tunnel ended before both sides had said that they are done.
#[derive(Debug, thiserror::Error)]
enum Cut {
    #[error("{0}: {1}")]
    Failed(&'static str, io::Error),
    #[error("no byte for {0:?}")]
    Idle(Duration),
    #[error("draining")]
    Draining,
    #[error("the upstream budget is closed")]
    OverBudget,
}

/// Counts what passes, and remembers when something did.
struct Traffic {
    state: Mutex<(Account, Instant)>,
    /// Bytes of the host wait for their turn in the budget.
    is_held: AtomicBool,
    /// Both connections.
    sides: [Option<Ends>; 2],
}

impl Tunnel {
    pub(super) fn new(host: TcpStream, toll: Toll, account: Account, idle_time: Duration) -> Self {
        let agreed = Agreed { host, toll, account: Unopened(Some(account)), idle_time, held: Vec::new() };
        Self { agreed: Arc::new(Mutex::new(Some(agreed))) }
    }

    /// Keeps `thing` until the tunnel ends.
    pub(super) fn hold(&self, thing: impl Send + 'static) {
        if let Some(agreed) = &mut *self.agreed.lock() {
            agreed.held.push(Box::new(thing));
        }
    }

    /// Carries bytes until both sides are done, one fails, or nothing moves for too long. `early` are bytes of the
    /// client that came right behind its request. The end of one side is passed on to the other, which may go on;
    /// any other end resets both, so that neither takes it for the end of what was sent.
    pub(super) async fn run(&self, mut client: ClientSocket, early: Bytes, drain: &Drain) {
        let Some(Agreed { mut host, toll, mut account, idle_time, held: _held }) = self.agreed.lock().take() else {
            return;
        };
        let Some(account) = account.0.take() else { return };
        let _open = account.open_tunnel();
        let sides = [client.tcp(), &host].map(Ends::of);
        let state = Mutex::new((account, Instant::now()));
        let traffic = Traffic { state, is_held: AtomicBool::new(false), sides };
        let result = {
            let (from_client, to_client) = split(&mut client);
            let (from_host, to_host) = host.split();
            let up = carry(from_client, to_host, early, Side::Client, None, &traffic);
            let down = carry(from_host, to_client, Bytes::new(), Side::Host, Some(toll), &traffic);
            tokio::select! {
                biased;
                result = try_join(up, down) => result.map(|_| ()),
                cut = traffic.quiet(idle_time, drain) => Err(cut),
            }
        };
        if let Err(cut) = result {
            for side in [client.tcp(), &host] {
                let _ = SockRef::from(side).set_linger(Some(Duration::ZERO));
            }
            traffic.state.lock().0.cut(&cut.to_string());
        }
    }
}

impl Drop for Unopened {
    fn drop(&mut self) {
        if let Some(account) = &mut self.0 {
            account.cut("the client left before the tunnel was open");
        }
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

impl Side {
    fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Host => "host",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Client => Self::Host,
            Self::Host => Self::Client,
        }
    }

    fn failed(self, error: io::Error) -> Cut {
        Cut::Failed(self.as_str(), error)
    }
}

impl Traffic {
    fn moved(&self, from: Side, bytes: usize) {
        let mut state = self.state.lock();
        state.0.carried(from, bytes as u64);
        state.1 = Instant::now();
    }

    /// Completes when nothing has moved for `idle_time`, or much less while the process drains. A side that slowly
    /// takes what the kernel holds for it moves, too.
    async fn quiet(&self, idle_time: Duration, drain: &Drain) -> Cut {
        let mut signalled = pin!(drain.signalled());
        let mut draining = false;
        let mut backlogs = [None; 2];
        loop {
            let limit = if draining { idle_time.min(DRAIN_IDLE) } else { idle_time };
            let (now, moved) = (Instant::now(), self.state.lock().1);
            if moved + limit <= now {
                return if draining { Cut::Draining } else { Cut::Idle(idle_time) };
            }
            tokio::select! {
                () = &mut signalled, if !draining => draining = true,
                () = sleep_until((moved + limit).min(now + limit / LOOKS)) => {}
            }
            let there = self.sides.map(|side| side.and_then(|ends| ends.backlog()));
            let takes =
                |(now, before): (&Option<u32>, &Option<u32>)| matches!((now, before), (Some(n), Some(b)) if n < b);
            if self.is_held.load(Ordering::Relaxed) || there.iter().zip(&backlogs).any(takes) {
                self.state.lock().1 = Instant::now();
            }
            backlogs = there;
        }
    }
}

/// Carries bytes of `side` to the other one until it has no more, and says so there.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    early: Bytes,
    side: Side,
    mut toll: Option<Toll>,
    traffic: &Traffic,
) -> Result<(), Cut> {
    deliver(&mut to, &early, side, traffic).await?;
    loop {
        // Made for each look, so that a tunnel that waits costs no buffer.
        let chunk = poll_fn(|cx| {
            let mut chunk = Vec::with_capacity(CHUNK);
            // The future of read_buf has no state of its own.
            let read = pin!(from.read_buf(&mut chunk)).poll(cx);
            read.map_ok(|_| chunk)
        });
        let chunk = chunk.await.map_err(|error| side.failed(error))?;
        if chunk.is_empty() {
            return to.shutdown().await.map_err(|error| side.other().failed(error));
        }
        let may_go_on = match &mut toll {
            Some(toll) => {
                traffic.is_held.store(true, Ordering::Relaxed);
                let may_go_on = toll.pay(chunk.len() as u64).await;
                traffic.is_held.store(false, Ordering::Relaxed);
                may_go_on
            }
            None => true,
        };
        deliver(&mut to, &chunk, side, traffic).await?;
        if !may_go_on {
            return Err(Cut::OverBudget);
        }
    }
}

async fn deliver(
    to: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    from: Side,
    traffic: &Traffic,
) -> Result<(), Cut> {
    while !bytes.is_empty() {
        let count = to.write(bytes).await.map_err(|error| from.other().failed(error))?;
        traffic.moved(from, count);
        bytes = bytes.get(count..).unwrap_or_default();
    }
    to.flush().await.map_err(|error| from.other().failed(error))
}
