//! A link between two levels: passes bytes on, late if it is told to, and can be cut or go silent.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// Little, so that what was sent has hardly more than arrived.
const BUFFER: usize = 16 * 1024;

/// What the link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It passes on.
    Up,
    /// Connections stand and nothing moves.
    Silent,
    /// Connections are cut, and new ones end at once.
    Cut,
}

/// The link; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    state: watch::Sender<State>,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// A link to `target` on which every byte takes `delay`.
    pub(crate) async fn start(target: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = watch::Sender::new(State::Up);
        let accepting = tokio::spawn(accept(listener, target, delay, state.subscribe()));
        Self { address, state, accepting }
    }

    /// Puts the link into a state for a while, then up again.
    pub(crate) async fn trouble(&self, state: State, time: Duration) {
        self.state.send_replace(state);
        tokio::time::sleep(time).await;
        self.state.send_replace(State::Up);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, delay: Duration, mut state: watch::Receiver<State>) {
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.unwrap();
                if *state.borrow() != State::Cut {
                    links.spawn(link(stream, target, delay, state.clone()));
                }
            }
            Ok(()) = state.changed() => {
                if *state.borrow_and_update() == State::Cut {
                    links.shutdown().await;
                }
            }
        }
        while links.try_join_next().is_some() {}
    }
}

async fn link(near: TcpStream, target: SocketAddr, delay: Duration, state: watch::Receiver<State>) -> io::Result<()> {
    up(&state).await;
    let far = TcpStream::connect(target).await?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        socket.set_recv_buffer_size(BUFFER)?;
        socket.set_send_buffer_size(BUFFER)?;
    }
    let (from_near, to_near) = near.into_split();
    let (from_far, to_far) = far.into_split();
    let (there, back) = (pass(from_near, to_far, delay, state.clone()), pass(from_far, to_near, delay, state));
    tokio::try_join!(there, back).map(|_| ())
}

/// Waits until the link passes on.
async fn up(state: &watch::Receiver<State>) {
    let _ = state.clone().wait_for(|state| *state == State::Up).await;
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
    state: watch::Receiver<State>,
) -> io::Result<()> {
    // Reading goes on while what came waits for its time, as on a long way.
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<(Instant, Vec<u8>)>(if delay.is_zero() { 1 } else { 64 });
    let reader = async move {
        loop {
            up(&state).await;
            let mut buffer = vec![0; BUFFER];
            let count = from.read(&mut buffer).await?;
            buffer.truncate(count);
            up(&state).await;
            if count == 0 || sender.send((Instant::now() + delay, buffer)).await.is_err() {
                return io::Result::Ok(());
            }
        }
    };
    let writer = async move {
        while let Some((due, bytes)) = receiver.recv().await {
            sleep_until(due).await;
            to.write_all(&bytes).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(reader, writer).map(|_| ())
}
