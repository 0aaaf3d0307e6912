//! TLS towards sources: the roots that are trusted, and what a failed handshake means.

use std::io;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::{TlsFault, TlsSetupError};
use super::socket::Socket;

/// Whose certificates are trusted.
#[derive(Debug, Clone, Default)]
pub enum Roots {
    /// The system's roots (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others). Mozilla's, as compiled in, where the
    /// system has none, as in an empty container.
    #[default]
    System,
    /// These and no others, in DER.
    Only(Vec<CertificateDer<'static>>),
}

/// Makes the connector: HTTP/1.1 by ALPN.
pub(super) fn http_1_1(mut config: ClientConfig) -> TlsConnector {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// The handshake with `host` (as an origin spells it) over a connected socket.
pub(super) async fn handshake(
    connector: &TlsConnector,
    host: &str,
    socket: Socket,
) -> Result<TlsStream<Socket>, TlsFault> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let name = ServerName::try_from(bare.to_owned()).map_err(|_| TlsFault::InvalidName)?;
    connector.connect(name, socket).await.map_err(|error| fault(&error))
}

/// The certificates that are trusted.
pub(super) fn store(roots: Roots) -> Result<RootCertStore, TlsSetupError> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::Only(certificates) => {
            store.add_parsable_certificates(certificates);
            if store.is_empty() {
                return Err(TlsSetupError::NoRoots);
            }
        }
        Roots::System => {
            let system = rustls_native_certs::load_native_certs();
            for error in &system.errors {
                tracing::warn!(%error, "a root certificate of the system cannot be loaded");
            }
            store.add_parsable_certificates(system.certs);
            if store.is_empty() {
                tracing::info!("the system has no root certificates, the built-in ones are used");
                store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            }
        }
    }
    Ok(store)
}

fn fault(error: &io::Error) -> TlsFault {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                TlsFault::Disconnected
            }
            _ => TlsFault::Protocol(error.to_string()),
        };
    };
    let rustls::Error::InvalidCertificate(certificate) = error else {
        return TlsFault::Protocol(error.to_string());
    };
    match certificate {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsFault::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => TlsFault::NotYetValid,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => TlsFault::WrongName,
        CertificateError::UnknownIssuer => TlsFault::UnknownIssuer,
        CertificateError::Revoked => TlsFault::Revoked,
        other => TlsFault::Certificate(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_always_roots_unless_unusable_ones_are_given() {
        assert!(store(Roots::System).is_ok());
        let junk = Roots::Only(vec![CertificateDer::from(vec![1, 2, 3])]);
        assert!(matches!(store(junk), Err(TlsSetupError::NoRoots)));
    }
}
