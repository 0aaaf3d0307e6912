//! [`ClientName`]: which certificates of clients are let in, by the DNS names in them. Who signed them is judged before.

use std::fmt;
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

    /// Whether some name of a certificate is meant by both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let below = |inner: &Self, outer: &Self| match (inner.0.strip_prefix('*'), outer.0.strip_prefix('*')) {
            (Some(inner), Some(outer)) => inner.ends_with(outer),
            (None, _) => outer.matches(&inner.0),
            (Some(_), None) => false,
        };
        below(self, other) || below(other, self)
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

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether one of `names` means a DNS name of `certificate`, whose signature was judged before.
pub(in crate::serve) fn has_name(certificate: &CertificateDer<'_>, names: &[ClientName]) -> bool {
    let Ok(certificate) = EndEntityCert::try_from(certificate) else { return false };
    certificate.valid_dns_names().any(|name| names.iter().any(|wanted| wanted.matches(name)))
}

/// The DNS names of `certificate` for the log, which needs no more than a few.
pub(in crate::serve) fn names_in(certificate: &CertificateDer<'_>) -> String {
    let Ok(certificate) = EndEntityCert::try_from(certificate) else { return String::new() };
    certificate.valid_dns_names().take(4).collect::<Vec<_>>().join(", ")
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
        if has_name(end_entity, &self.names) {
            Ok(verified)
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
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
    fn names_overlap_when_both_can_mean_one_certificate() {
        let name = |text| ClientName::parse(text).unwrap();
        for (one, other, both) in [
            ("a.example", "A.example", true),
            ("a.example", "b.example", false),
            ("a.example", "*.example", true),
            ("example", "*.example", false),
            ("*.plant.example", "*.example", true),
            ("*.plant.example", "*.office.example", false),
            ("*.plant.example", "*.xplant.example", false),
        ] {
            assert_eq!(name(one).overlaps(&name(other)), both, "{one} {other}");
            assert_eq!(name(other).overlaps(&name(one)), both, "{other} {one}");
        }
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
