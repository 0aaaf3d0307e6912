//! [`ClientSocket`]: a client's connection, in the clear or under TLS, as one thing to read from and write to. Handshakes
//! are `serve::tls`'s; what is said on the connection is not known here.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::content::Scheme;

/// HTTP/2 under TLS, in ALPN.
pub(in crate::serve) const HTTP2: &[u8] = b"h2";

/// One client connection. What is written under TLS may wait in memory until it is flushed.
#[derive(Debug)]
pub struct ClientSocket(Kind);

#[derive(Debug)]
enum Kind {
    Plain(TcpStream),
    /// Boxed, since most connections have none of it.
    Tls(Box<TlsStream<TcpStream>>),
}

impl ClientSocket {
    /// How the client speaks to us.
    pub(super) fn scheme(&self) -> Scheme {
        match self.0 {
            Kind::Plain(_) => Scheme::Http,
            Kind::Tls(_) => Scheme::Https,
        }
    }

    /// The connection below, whose options may be looked at and set.
    pub(in crate::serve) fn tcp(&self) -> &TcpStream {
        match &self.0 {
            Kind::Plain(stream) => stream,
            Kind::Tls(stream) => stream.get_ref().0,
        }
    }

    /// The connection, if what is written to it is what the client reads: then the kernel can send files.
    pub(super) fn plain(&mut self) -> Option<&mut TcpStream> {
        match &mut self.0 {
            Kind::Plain(stream) => Some(stream),
            Kind::Tls(_) => None,
        }
    }

    /// Has the kernel keep what is no full segment until more comes or [`ClientSocket::uncork`]; of its own it sends it only
    /// after 200 ms or more (tcp(7), `TCP_CORK`). Where that cannot be it makes no difference.
    pub(super) fn cork(stream: &TcpStream) {
        Self::set_cork(stream, true);
    }

    /// Everything that was written leaves now.
    pub(super) fn uncork(stream: &TcpStream) {
        Self::set_cork(stream, false);
    }

    fn set_cork(stream: &TcpStream, is_corked: bool) {
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::net::sockopt::set_tcp_cork(stream, is_corked) {
            tracing::debug!(%error, "the end of segments cannot be held back");
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (stream, is_corked);
    }

    /// The client's own certificate, if it had to show one; who signed it was judged in the handshake.
    pub(in crate::serve) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        match &self.0 {
            Kind::Plain(_) => None,
            Kind::Tls(stream) => stream.get_ref().1.peer_certificates()?.first(),
        }
    }

    /// Whether the client asked for HTTP/2 in the handshake, and got it (RFC 9113 section 3.2).
    pub(in crate::serve) fn speaks_http2(&self) -> bool {
        match &self.0 {
            Kind::Plain(_) => false,
            Kind::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(HTTP2),
        }
    }

    /// Whether bytes are encrypted.
    pub(super) fn is_tls(&self) -> bool {
        matches!(self.0, Kind::Tls(_))
    }
}

impl From<TcpStream> for ClientSocket {
    fn from(stream: TcpStream) -> Self {
        Self(Kind::Plain(stream))
    }
}

impl From<TlsStream<TcpStream>> for ClientSocket {
    fn from(stream: TlsStream<TcpStream>) -> Self {
        Self(Kind::Tls(Box::new(stream)))
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Kind::Tls(stream) => match ready!(Pin::new(&mut **stream).poll_read(cx, buffer)) {
                // Closed without close_notify (RFC 8446 section 6.1). Requests tell where they end, so that one that was
                // cut is never taken for a whole one.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                read => Poll::Ready(read),
            },
        }
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Kind::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Kind::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Kind::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    /// Tells the client that nothing more will come, under TLS in both layers.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Kind::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}
