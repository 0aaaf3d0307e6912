//! A link between two levels: passes bytes on, late if it is told to, and can be cut or go silent.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// Bytes that are passed on at a time.
const BUFFER: usize = 16 * 1024;

/// Where a link leads, how long a byte takes, what waits in a socket.
type Kind = (SocketAddr, Duration, usize);

/// What the link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It passes on.
    Up,
    /// Connections stand and nothing moves.
    Silent,
    /// Connections are cut, and new ones end at once.
    Cut,
    /// Connections are cut, and new ones refused.
    Gone,
}

/// The link; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    state: watch::Sender<State>,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// A link to `target` on which every byte takes `delay`, and of `waiting` bytes in each socket: the fewer, the less has
    /// been sent that has not arrived, and the slower one connection is.
    pub(crate) async fn start(target: SocketAddr, delay: Duration, waiting: usize) -> Self {
        // Nobody may take the port while the link is gone.
        let address = super::own_address(8081);
        let state = watch::Sender::new(State::Up);
        let listener = listen(address);
        let accepting = tokio::spawn(accept(listener, (target, delay, waiting), state.subscribe()));
        Self { address, state, accepting }
    }

    /// Puts the link into a state.
    pub(crate) fn set(&self, state: State) {
        self.state.send_replace(state);
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

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(128).unwrap()
}

async fn accept(listener: TcpListener, kind: Kind, mut state: watch::Receiver<State>) {
    let address = listener.local_addr().unwrap();
    let (mut listener, mut links) = (Some(listener), JoinSet::new());
    loop {
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await.unwrap().0,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            stream = accepted => {
                if *state.borrow() != State::Cut {
                    links.spawn(link(stream, kind, state.clone()));
                }
            }
            Ok(()) = state.changed() => {
                let now = *state.borrow_and_update();
                if now == State::Gone {
                    listener = None;
                } else {
                    listener.get_or_insert_with(|| listen(address));
                }
                if matches!(now, State::Cut | State::Gone) {
                    links.shutdown().await;
                }
            }
        }
        while links.try_join_next().is_some() {}
    }
}

async fn link(near: TcpStream, (target, delay, waiting): Kind, state: watch::Receiver<State>) -> io::Result<()> {
    up(&state).await;
    let far = TcpStream::connect(target).await?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        socket.set_recv_buffer_size(waiting)?;
        socket.set_send_buffer_size(waiting)?;
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
    if delay.is_zero() {
        let mut buffer = vec![0; BUFFER];
        loop {
            up(&state).await;
            let count = from.read(&mut buffer).await?;
            up(&state).await;
            match count {
                0 => return to.shutdown().await,
                count => to.write_all(&buffer[..count]).await?,
            }
        }
    }
    // Reading goes on while what came waits for its time, as on a long way.
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<(Instant, Vec<u8>)>(256);
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
