//! TLS towards sources: the roots that are trusted, and what a failed handshake means.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, InvalidMessage, RootCertStore};
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
        let plain = matches!(error, rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType));
        let hint = if plain { "; is it TLS that is spoken at this port?" } else { "" };
        return refusal(error).unwrap_or_else(|| TlsFault::Protocol(format!("{error}{hint}")));
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

/// What a peer says that does not let this cache in. It judges a certificate only when the handshake is over for us (RFC 8446
/// section 4.4.4), so this is found where an answer was expected, too.
pub(super) fn refused(error: &(dyn Error + 'static)) -> Option<TlsFault> {
    let mut next = Some(error);
    while let Some(error) = next {
        // An `io::Error` has what is in it as its inner value, and names as its source what is behind that.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let said = inner.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref());
        if let Some(refusal) = said.and_then(refusal) {
            return Some(refusal);
        }
        next = error.source();
    }
    None
}

/// The same of an alert (RFC 8446 section 6.2).
fn refusal(error: &rustls::Error) -> Option<TlsFault> {
    let rustls::Error::AlertReceived(alert) = error else { return None };
    let reason = match alert {
        AlertDescription::CertificateRequired => return Some(TlsFault::Unknown),
        AlertDescription::UnknownCA => "its authority is not known there",
        AlertDescription::CertificateExpired => "it has expired, or its clock is ahead",
        AlertDescription::CertificateRevoked => "it is revoked",
        AlertDescription::AccessDenied | AlertDescription::CertificateUnknown => "it is not one that may come in",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::NoCertificate => "it is unfit",
        _ => return None,
    };
    Some(TlsFault::Refused(reason.to_owned()))
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
