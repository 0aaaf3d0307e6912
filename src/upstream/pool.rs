//! Idle connections, to be used again. Only connections whose last answer was read to its end come here.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::fetch::OutgoingBody;
use super::plan::Source;
use super::socket::SocketWatch;

/// Idle connections that are kept for one source.
const PER_SOURCE: usize = 8;
/// Idle connections that are kept in all.
const OVERALL: usize = 256;
/// How long a connection may be idle. Servers close theirs after 60 s and more, mostly.
const IDLE: Duration = Duration::from_secs(60);
/// How long a connection is used, so that a name which has moved is looked up again.
const LONGEST_LIFE: Duration = Duration::from_secs(5 * 60);
/// How long a connection that came back may need to be ready again: its task must only run once.
const READY: Duration = Duration::from_millis(100);

/// The pool.
#[derive(Default)]
pub(super) struct Pool {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The connections of each source, longest idle first; no entry is empty.
    idle: HashMap<Source, Vec<Idle>>,
    count: usize,
    /// Whether the task that closes old connections is running.
    swept: bool,
}

struct Idle {
    link: Link,
    since: Instant,
}

/// A connection.
pub(super) struct Link {
    pub(super) sender: SendRequest<OutgoingBody>,
    socket: SocketWatch,
    made: Instant,
}

impl Link {
    /// A fresh one, whose socket is watched.
    pub(super) fn new(sender: SendRequest<OutgoingBody>, socket: SocketWatch) -> Self {
        Self { sender, socket, made: Instant::now() }
    }
}

impl Pool {
    /// A connection to `source` that can be used, if there is one: the one that was used last. On one on which something has
    /// come meanwhile the next answer would be that of somebody else.
    pub(super) async fn take(&self, source: &Source) -> Option<Link> {
        loop {
            let mut link = self.state.lock().pop(source)?;
            if matches!(timeout(READY, link.sender.ready()).await, Ok(Ok(()))) && link.socket.is_quiet() {
                return Some(link);
            }
        }
    }

    /// Keeps a connection, unless it is closed or old, or there are enough.
    pub(super) fn put(self: &Arc<Self>, source: Source, link: Link) {
        if link.sender.is_closed() || link.made.elapsed() > LONGEST_LIFE {
            return;
        }
        let mut state = self.state.lock();
        let now = Instant::now();
        state.sweep(now);
        if state.count >= OVERALL {
            return;
        }
        let connections = state.idle.entry(source).or_default();
        connections.push(Idle { link, since: now });
        if connections.len() > PER_SOURCE {
            connections.remove(0);
        } else {
            state.count += 1;
        }
        if !state.swept {
            state.swept = true;
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.state.lock().count
    }
}

impl State {
    fn pop(&mut self, source: &Source) -> Option<Link> {
        let connections = self.idle.get_mut(source)?;
        let last = connections.pop();
        if connections.is_empty() {
            self.idle.remove(source);
        }
        let last = last?;
        self.count -= 1;
        (last.since.elapsed() < IDLE).then_some(last.link)
    }

    /// Drops what is closed or has been idle for too long.
    fn sweep(&mut self, now: Instant) {
        self.idle.retain(|_, connections| {
            connections.retain(|idle| !idle.link.sender.is_closed() && now.duration_since(idle.since) < IDLE);
            !connections.is_empty()
        });
        self.count = self.idle.values().map(Vec::len).sum();
    }
}

/// Closes old connections as long as there are any.
async fn sweep(pool: Weak<Pool>) {
    loop {
        sleep(IDLE / 2).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut state = pool.state.lock();
        state.sweep(Instant::now());
        if state.count == 0 {
            state.swept = false;
            return;
        }
    }
}
