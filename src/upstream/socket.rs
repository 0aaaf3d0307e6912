//! [`Socket`], what is under an upstream connection, and [`SocketWatch`], which tells whether anything waits on it unread. What
//! is said over it is hyper's business; when it is better to let bytes gather before they are read, `bursts` says.

use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::bursts::Bursts;

/// A connected socket. It is closed when this is dropped, whoever watches it.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    bursts: Bursts,
    /// Made at the first pause, and used again.
    timer: Option<Pin<Box<Sleep>>>,
    pausing: bool,
}

/// Looks at a [`Socket`] from beside.
#[derive(Debug, Clone)]
pub(super) struct SocketWatch(Weak<TcpStream>);

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream: Arc::new(stream), bursts: Bursts::new(Instant::now()), timer: None, pausing: false }
    }

    pub(super) fn watch(&self) -> SocketWatch {
        SocketWatch(Arc::downgrade(&self.stream))
    }

    /// Waits while what comes is to gather.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.pausing {
            let Some(until) = self.bursts.pause(Instant::now()) else { return Poll::Ready(()) };
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(until),
                None => self.timer = Some(Box::pin(sleep_until(until))),
            }
            self.pausing = true;
        }
        if let Some(timer) = &mut self.timer {
            ready!(timer.as_mut().poll(cx));
        }
        self.pausing = false;
        Poll::Ready(())
    }

    /// What comes next answers what was written. It is read as soon as it is there: a pause that is being made is over.
    fn asked(&mut self, cx: &Context<'_>) {
        self.bursts.asked();
        if std::mem::take(&mut self.pausing) {
            // Only the timer would wake who reads.
            cx.waker().wake_by_ref();
        }
    }
}

impl SocketWatch {
    /// Whether the connection stands and nothing has come that nobody has read, as the system has it at this moment: the runtime may
    /// not have heard of it yet. What came before a request was written is no answer to it (RFC 9112 section 9.3.2).
    pub(super) fn is_quiet(&self) -> bool {
        let Some(stream) = self.0.upgrade() else { return false };
        let mut byte = [MaybeUninit::uninit()];
        let peeked = SockRef::from(&*stream).peek(&mut byte);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pause(cx));
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read_buf(buffer) {
                Ok(bytes) => {
                    self.bursts.note(Instant::now(), bytes as u64, buffer.remaining() > 0);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    self.asked(cx);
                    return Poll::Ready(written);
                }
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.stream).shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    // The clock stands still, so that no pause ends by itself before the request is written.
    #[tokio::test(start_paused = true)]
    async fn a_request_ends_the_pause_of_a_stream_that_was_fast() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connected = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut source, _) = listener.accept().await.unwrap();
        let mut socket = Socket::new(connected);
        socket.stream.writable().await.unwrap();
        let mut at = Instant::now();
        for _ in 0..100 {
            at += Duration::from_micros(500);
            socket.bursts.note(at, 64 * 1024, true);
        }
        // Read once before anything has come, as a connection does that waits for its next request.
        let mut bytes = [0; 16];
        assert!(socket.read(&mut bytes).now_or_never().is_none());
        assert!(socket.pausing, "it gathers");
        assert!(socket.write_all(b"request").now_or_never().is_some_and(|written| written.is_ok()));
        assert!(!socket.pausing, "its answer is waited for");
        source.write_all(b"answer").await.unwrap();
        let (read, begun) = (socket.read(&mut bytes).await, Instant::now());
        assert!(matches!(read, Ok(6)), "{read:?}");
        assert_eq!(socket.bursts.pause(begun), None, "nor is it left alone after its first bytes");
    }
}
