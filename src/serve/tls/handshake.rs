//! Handshakes with clients: their time, and what is told of those that fail. Who may connect is decided before.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{AlertDescription, CertificateError, Error};
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::{Handshakes, Tls};
use crate::serve::wire::{ClientSocket, LINGER_TIME, Refusal, WireContext, linger, turn_away};

/// Why there was no handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// It took too long.
    Timeout,
    /// The client left.
    Closed,
    /// The client speaks HTTP in the clear.
    PlainHttp,
    /// A PROXY protocol header from somebody of whom none is taken.
    ProxyHeader,
    /// The client speaks something else, or no TLS that is spoken here.
    Protocol,
    /// No version or cipher suite in common.
    Incompatible,
    /// The client offers protocols (ALPN, RFC 7301), and HTTP/1.1 is not among them.
    NoHttp11,
    /// The client has no certificate and needs one.
    NoCertificate,
    /// Another authority signed the client's certificate.
    UnknownIssuer,
    /// The client's certificate has none of the names.
    WrongName,
    /// The client's certificate has expired.
    Expired,
    /// The client's certificate is not valid yet.
    NotYetValid,
    /// The client's certificate is wrong in another way.
    BadCertificate,
    /// The client says that our certificate has expired.
    ClientSaysExpired,
    /// The client does not take our certificate, or gives up for another reason.
    ClientRefuses,
}

impl Failure {
    /// A stable name for metrics and logs.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::PlainHttp => "plain-http",
            Self::ProxyHeader => "proxy-header",
            Self::Protocol => "protocol",
            Self::Incompatible => "incompatible",
            Self::NoHttp11 => "alpn",
            Self::NoCertificate => "no-certificate",
            Self::UnknownIssuer => "unknown-issuer",
            Self::WrongName => "wrong-name",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::BadCertificate => "bad-certificate",
            Self::ClientSaysExpired => "client-says-expired",
            Self::ClientRefuses => "client-refuses",
        }
    }

    /// What happened, as tokio-rustls tells it.
    pub(super) fn of(error: &io::Error) -> Self {
        let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
            return Self::Closed;
        };
        match error {
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(certificate) => match certificate {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
                CertificateError::UnknownIssuer => Self::UnknownIssuer,
                // What `names` says of a certificate that is right, so that the client is told so (access_denied).
                CertificateError::ApplicationVerificationFailure
                | CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => Self::WrongName,
                _ => Self::BadCertificate,
            },
            Error::NoApplicationProtocol => Self::NoHttp11,
            Error::PeerIncompatible(_) => Self::Incompatible,
            Error::AlertReceived(AlertDescription::CertificateExpired) => Self::ClientSaysExpired,
            Error::AlertReceived(_) => Self::ClientRefuses,
            _ => Self::Protocol,
        }
    }

    /// Whether a clock may be the reason, and whose.
    fn clock(self) -> Option<&'static str> {
        match self {
            Self::Expired => Some("the certificate of a client has expired, or the clock of this machine is ahead"),
            Self::NotYetValid => Some(
                "the certificate of a client is not valid yet: the clock of this machine is behind, or the client's is ahead",
            ),
            Self::ClientSaysExpired => {
                Some("a client says that the certificate of this cache has expired, or its clock is ahead")
            }
            _ => None,
        }
    }
}

impl Handshakes {
    /// Shakes hands within `time`; `None` when there is nothing more to say to the client. Who asks in the clear is told
    /// that this port speaks TLS.
    pub(in crate::serve) async fn accept(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        time: Duration,
        context: &WireContext,
    ) -> Option<ClientSocket> {
        let deadline = tokio::time::Instant::now() + time;
        let mut first = [0; 1];
        let (failure, detail) = match timeout_at(deadline, stream.peek(&mut first)).await {
            Err(_) => (Failure::Timeout, None),
            Ok(Err(_) | Ok(0)) => (Failure::Closed, None),
            // Methods begin with a letter, and no message of TLS does.
            Ok(Ok(_)) if first.iter().all(u8::is_ascii_alphabetic) => {
                self.tls.failed(peer, Failure::PlainHttp, None);
                turn_away(stream, peer, Refusal::PlainHttp, context).await;
                return None;
            }
            // The first byte of that header's signature, and of nothing else that is spoken here.
            Ok(Ok(_)) if first == [b'\r'] => (Failure::ProxyHeader, None),
            Ok(Ok(_)) => {
                let configs = self.tls.current.load_full();
                let acceptor = match self.offers_http2 {
                    true => TlsAcceptor::from(Arc::clone(&configs.http2)),
                    false => TlsAcceptor::from(Arc::clone(&configs.http11)),
                };
                match timeout_at(deadline, acceptor.accept(stream).into_fallible()).await {
                    Ok(Ok(stream)) => return Some(stream.into()),
                    Ok(Err((error, mut stream))) => {
                        self.tls.failed(peer, Failure::of(&error), Some(error));
                        // The client may have sent more already: a reset would overtake the alert.
                        let _ = timeout(LINGER_TIME, linger(&mut stream)).await;
                        return None;
                    }
                    Err(_) => (Failure::Timeout, None),
                }
            }
        };
        self.tls.failed(peer, failure, detail);
        None
    }
}

impl Tls {
    /// Counts a handshake that failed, and tells of it unless there are too many.
    fn failed(&self, peer: SocketAddr, failure: Failure, detail: Option<io::Error>) {
        let (reason, client) = (failure.as_str(), peer.ip().to_canonical());
        self.metrics.tls_handshake_failures.with_label_values(&[reason]).inc();
        let detail = detail.map(|error| error.to_string());
        let now = Instant::now();
        if let Some(what) = failure.clock()
            && self.clocks.lock().allows(now)
        {
            tracing::warn!(%client, reason, detail, "{what}");
        } else if self.failures.lock().allows(now) {
            let what = match failure {
                Failure::PlainHttp => "a client speaks plain HTTP to the TLS port",
                Failure::ProxyHeader => "a PROXY protocol header from an address of which none is taken",
                _ => "a TLS handshake failed",
            };
            tracing::debug!(%client, reason, detail, "{what}");
        }
    }
}
