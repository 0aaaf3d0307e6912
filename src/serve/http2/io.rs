//! [`MeteredIo`]: the socket as the library reads and writes it, with all that passes shown to the connection's meter. At the
//! end it reads on for a while: a client acknowledges content all the time, and closing with its words unread would reset the
//! connection and take the end of an answer with it.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::shared::Shared;
use crate::serve::wire::{ClientSocket, LINGER_BYTES, LINGER_TIME};

/// One connection's socket.
pub(super) struct MeteredIo {
    socket: ClientSocket,
    shared: Arc<Shared>,
    lingering: Option<Lingering>,
}

/// The connection's end.
struct Lingering {
    over: Pin<Box<Sleep>>,
    read: usize,
}

impl MeteredIo {
    pub(super) fn new(socket: ClientSocket, shared: Arc<Shared>) -> Self {
        Self { socket, shared, lingering: None }
    }

    /// Reads away what the client still sends, until it closes, or for as long and as much as an end may cost.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let lingering = self
            .lingering
            .get_or_insert_with(|| Lingering { over: Box::pin(tokio::time::sleep(LINGER_TIME)), read: 0 });
        let mut scratch = [0; 4096];
        while lingering.read < LINGER_BYTES {
            if lingering.over.as_mut().poll(cx).is_ready() {
                break;
            }
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => lingering.read += buffer.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(())
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.shared.took(written.is_ready());
        if let Poll::Ready(Ok(count)) = &written {
            self.shared.wrote(*count);
        }
        written
    }
}

impl AsyncRead for MeteredIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
        Poll::Ready(self.shared.read(buffer.filled().get(before..).unwrap_or_default()))
    }
}

impl AsyncWrite for MeteredIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        self.shared.took(flushed.is_ready());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
        }
        ready!(self.poll_linger(cx));
        Poll::Ready(Ok(()))
    }
}
