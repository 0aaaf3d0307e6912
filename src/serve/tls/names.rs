//! [`ClientName`]: which certificates of clients are let in, by the DNS names in them. Who signed them is judged before.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, DnsName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::EndEntityCert;

/// A name of clients: exact, or `*.suffix` for all names below it. Without regard to case (RFC 4343).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientName(String);

/// This is no name of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a DNS name, nor one with a star as its whole first label")]
pub struct ClientNameError;

/// Lets in whom `inner` lets in and who has one of the names.
#[derive(Debug)]
pub(super) struct NamedClients {
    inner: Arc<dyn ClientCertVerifier>,
    names: Vec<ClientName>,
}

impl ClientName {
    /// Parses a name as it is written in the settings.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, ClientNameError> {
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let name = text.strip_prefix("*.").unwrap_or(&text);
        match DnsName::try_from(name) {
            Ok(_) => Ok(Self(text)),
            Err(_) => Err(ClientNameError),
        }
    }

    /// Whether it is meant by `name`, a DNS name of a certificate (RFC 5280 section 4.2.1.6). A name with a star in a
    /// certificate is no client's own.
    fn matches(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        match self.0.strip_prefix('*') {
            _ if name.contains('*') => false,
            Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
            None => name == self.0,
        }
    }
}

impl NamedClients {
    pub(super) fn new(inner: Arc<dyn ClientCertVerifier>, names: Vec<ClientName>) -> Self {
        Self { inner, names }
    }
}

impl ClientCertVerifier for NamedClients {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        let certificate = EndEntityCert::try_from(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        let named = certificate.valid_dns_names().any(|name| self.names.iter().any(|wanted| wanted.matches(name)));
        if named { Ok(verified) } else { Err(CertificateError::NotValidForName.into()) }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact_or_below_a_suffix() {
        let below = ClientName::parse("*.Plant.example").unwrap();
        for (name, meant) in [
            ("l3.plant.example", true),
            ("a.l3.PLANT.example.", true),
            ("plant.example", false),
            ("xplant.example", false),
            ("*.plant.example", false),
            ("l3.plant.example.org", false),
        ] {
            assert_eq!(below.matches(name), meant, "{name}");
        }
        let exact = ClientName::parse("l3.plant.example.").unwrap();
        assert!(
            exact.matches("L3.plant.example")
                && !exact.matches("a.l3.plant.example")
                && !exact.matches("*.plant.example")
        );
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in
            ["", "*", "*.", "*.*.example", "a.*.example", "*a.example", "a b", "10.0.0.1:80", "http://a", "-a.example"]
        {
            assert_eq!(ClientName::parse(text), Err(ClientNameError), "{text}");
        }
    }
}
