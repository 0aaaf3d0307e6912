//! [`Sender`]: writes what hyper wants written, with files in the place of their placeholders, and lets other
//! connections have their turn. What hyper may write and when is `io`'s business.
//!
//! It fails closed: a write whose placeholders are not exactly the windows that wait ends the connection, since what a
//! placeholder holds is no content.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::{AsyncWrite as _, Interest};
use tokio::net::TcpStream;

use super::exchange::{Exchange, Queued};
use super::piece::is_placeholder;
use super::socket::ClientSocket;
use crate::store::{ReadError, Window};

/// How long pages that were in memory are taken to be there.
const STAYS: Duration = Duration::from_secs(1);

/// Most bytes that are read at once where the kernel cannot send them.
const COPY: usize = 64 * 1024;

/// What became of a write.
pub(super) enum Written {
    /// The socket took bytes or failed.
    Done(io::Result<usize>),
    /// The client has to take bytes first.
    Client,
    /// A disk has to be read, or others have their turn; the client owes nothing.
    Waits,
    /// Nothing more may leave, not even what the kernel holds.
    Forbidden(io::Error),
}

/// The state between two writes of one connection.
#[derive(Default)]
pub(super) struct Sender {
    /// What must be done before the first window can be sent.
    work: Option<Work>,
    /// Bytes to be sent in the place of the first window's next ones.
    instead: Bytes,
    /// When the first window was found to be in memory, and checked.
    resident: Option<Instant>,
}

enum Work {
    Warm(Pin<Box<dyn Future<Output = Result<(), ReadError>> + Send>>),
    Read(Pin<Box<dyn Future<Output = Result<Bytes, ReadError>> + Send>>),
}

impl Sender {
    /// Writes some of `slices`. `alone`: no other request is being answered.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut ClientSocket,
        exchange: &Exchange,
        slices: &[IoSlice<'_>],
        alone: bool,
    ) -> Written {
        let turn = exchange.left_of_turn(alone);
        if turn == 0 {
            // Its waker is woken behind everything that is ready now.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
            return Written::Waits;
        }
        let mut marks = slices.iter().enumerate().filter(|(_, slice)| is_placeholder(slice));
        let first = marks.next();
        let marked = usize::from(first.is_some()) + marks.count();
        if marked != exchange.queued() {
            return fail_closed(exchange, "a write does not stand for the files that wait");
        }
        let written = match (first, socket.plain()) {
            (None, _) => Pin::new(socket).poll_write_vectored(cx, slices).into(),
            (Some(_), None) => return fail_closed(exchange, "a file was to be sent past the encryption"),
            (Some((at, slice)), Some(stream)) => {
                let before = slices.get(..at).unwrap_or_default();
                self.poll_window(cx, stream, exchange, (before, slice.len()), turn)
            }
        };
        if let Written::Done(Ok(count)) = &written {
            exchange.count_turn(*count);
        }
        written
    }

    /// Writes `before`, then at most `turn` bytes of the first window, whose placeholder has `len` bytes.
    fn poll_window(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut TcpStream,
        exchange: &Exchange,
        (before, len): (&[IoSlice<'_>], usize),
        turn: u64,
    ) -> Written {
        let mut windows = exchange.windows();
        let Some(queued) = windows.front_mut().filter(|queued| queued.window.len() == len as u64) else {
            drop(windows);
            return fail_closed(exchange, "a placeholder is not as long as its file");
        };
        loop {
            if !self.is_ready(&queued.window) {
                if !before.is_empty() {
                    return Pin::new(stream).poll_write_vectored(cx, before).into();
                }
                match self.poll_work(cx, &queued.window) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return cut(queued, &error),
                    Poll::Pending => {
                        exchange.uncork(stream);
                        return Written::Waits;
                    }
                }
            }
            if exchange.is_flowing() || queued.window.len() > turn {
                // Each acknowledgement would have the kernel send the end of what it has, as a segment of its own.
                exchange.cork(stream);
            }
            let (sent, ahead) = if self.instead.is_empty() {
                match send(cx, stream, before, &queued.window, turn) {
                    Poll::Ready((ahead, sent)) => (sent, ahead),
                    Poll::Pending => return Written::Client,
                }
            } else {
                let slices: Vec<_> = before.iter().copied().chain([IoSlice::new(&self.instead)]).collect();
                let ahead = before.iter().map(|slice| slice.len()).sum();
                match Pin::new(&mut *stream).poll_write_vectored(cx, &slices) {
                    Poll::Ready(Ok(count)) if count <= ahead => return Written::Done(Ok(count)),
                    Poll::Ready(Ok(count)) => {
                        self.instead.advance(count - ahead);
                        (Ok(count - ahead), ahead)
                    }
                    other => return other.into(),
                }
            };
            match sent {
                Ok(count) if count > 0 => {
                    queued.window.advance(count as u64);
                    if queued.window.is_empty() {
                        self.resident = None;
                        exchange.sent_one(windows);
                    }
                    return Written::Done(Ok(ahead + count));
                }
                _ if ahead > 0 => return Written::Done(Ok(ahead)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if is_the_sockets(&error) => return Written::Done(Err(error)),
                Err(error) if cannot_send(&error) => {
                    self.work = Some(Work::Read(Box::pin(queued.window.read(COPY))));
                }
                sent => {
                    let end = || io::ErrorKind::UnexpectedEof.into();
                    let error = queued.window.failed(sent.err().unwrap_or_else(end));
                    tracing::warn!(%error, "a file did not give its bytes while it was sent");
                    self.work = Some(Work::Read(Box::pin(queued.window.repaired(COPY))));
                }
            }
        }
    }

    /// Whether bytes of `window` can be sent now without waiting for a disk.
    fn is_ready(&mut self, window: &Window) -> bool {
        if self.work.is_some() {
            return false;
        }
        if !self.instead.is_empty() || self.resident.is_some_and(|since| since.elapsed() < STAYS) {
            return true;
        }
        if !window.is_ready() {
            return false;
        }
        self.resident = Some(Instant::now());
        true
    }

    fn poll_work(&mut self, cx: &mut Context<'_>, window: &Window) -> Poll<Result<(), ReadError>> {
        let work = self.work.get_or_insert_with(|| Work::Warm(Box::pin(window.warm())));
        let done = match work {
            // What was just read is not asked for again, even if the system dropped it at once.
            Work::Warm(warm) => ready!(warm.as_mut().poll(cx)).map(|()| self.resident = Some(Instant::now())),
            Work::Read(read) => ready!(read.as_mut().poll(cx)).map(|bytes| self.instead = bytes),
        };
        self.work = None;
        Poll::Ready(done)
    }
}

impl From<Poll<io::Result<usize>>> for Written {
    fn from(written: Poll<io::Result<usize>>) -> Self {
        match written {
            Poll::Ready(result) => Self::Done(result),
            Poll::Pending => Self::Client,
        }
    }
}

/// A fault of this program or of hyper: nothing more may leave.
fn fail_closed(exchange: &Exchange, reason: &'static str) -> Written {
    tracing::error!(reason, "a connection is cut");
    for queued in exchange.windows().iter() {
        queued.receipt.iter().for_each(|receipt| receipt.cut(reason));
    }
    Written::Forbidden(io::Error::other(reason))
}

/// The bytes cannot be had: the client must notice.
fn cut(queued: &Queued, error: &ReadError) -> Written {
    if let Some(receipt) = &queued.receipt {
        receipt.cut(&error.to_string());
    }
    Written::Done(Err(io::Error::other(error.to_string())))
}

/// Sends `before`, told that more follows, and then at most `turn` bytes of `window`. Returns how much of each.
fn send(
    cx: &mut Context<'_>,
    stream: &TcpStream,
    before: &[IoSlice<'_>],
    window: &Window,
    turn: u64,
) -> Poll<(usize, io::Result<usize>)> {
    let wanted: usize = before.iter().map(|slice| slice.len()).sum();
    if wanted > 0 {
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let send = || Ok(rustix::net::sendmsg(stream, before, &mut SendAncillaryBuffer::default(), flags)?);
        match ready!(poll_io(cx, stream, send)) {
            Ok(sent) if sent == wanted => {}
            Ok(sent) => return Poll::Ready((sent, Ok(0))),
            Err(error) => return Poll::Ready((0, Err(error))),
        }
    }
    match poll_io(cx, stream, || send_file(stream, window, turn)) {
        Poll::Ready(sent) => Poll::Ready((wanted, sent)),
        Poll::Pending if wanted > 0 => Poll::Ready((wanted, Ok(0))),
        Poll::Pending => Poll::Pending,
    }
}

/// Does `io` as often as the socket is said to be writable, until it did something.
fn poll_io(
    cx: &mut Context<'_>,
    stream: &TcpStream,
    mut io: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        if let Err(error) = ready!(stream.poll_write_ready(cx)) {
            return Poll::Ready(Err(error));
        }
        match stream.try_io(Interest::WRITABLE, &mut io) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            done => return Poll::Ready(done),
        }
    }
}

#[cfg(target_os = "linux")]
fn send_file(stream: &TcpStream, window: &Window, turn: u64) -> io::Result<usize> {
    let mut offset = window.offset();
    let len = usize::try_from(window.len().min(turn)).unwrap_or(usize::MAX);
    Ok(rustix::fs::sendfile(stream, window.file(), Some(&mut offset), len)?)
}

#[cfg(not(target_os = "linux"))]
fn send_file(_: &TcpStream, _: &Window, _: u64) -> io::Result<usize> {
    Err(Errno::NOSYS.into())
}

/// Errors that tell of the client and not of the file, sendfile(2) and send(2).
fn is_the_sockets(error: &io::Error) -> bool {
    const OF_SOCKETS: [Errno; 9] = [
        Errno::PIPE,
        Errno::CONNRESET,
        Errno::CONNABORTED,
        Errno::NOTCONN,
        Errno::TIMEDOUT,
        Errno::HOSTUNREACH,
        Errno::NETUNREACH,
        Errno::NOBUFS,
        Errno::NOMEM,
    ];
    OF_SOCKETS.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Errors that tell that the file system does not give its files to sockets.
fn cannot_send(error: &io::Error) -> bool {
    [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
