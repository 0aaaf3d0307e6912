//! Certificate, key and authorities from their PEM files (RFC 7468) to what handshakes need; and [`Stamps`], by which a
//! change of the files is seen. When they are read is the caller's business.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{Error, RootCertStore, ServerConfig};

use super::TlsSettings;
use super::names::NamedClients;
use crate::clock::{CertificateTime, Dates, Validity};
use crate::serve::wire::HTTP2;

/// Longest file that is read, in bytes: hundreds of certificates.
const LONGEST: u64 = 1 << 20;

/// A file of the TLS listener cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("listen.tls.{setting}: {}: {problem}; {remedy}", path.display())]
pub struct TlsFileError {
    setting: &'static str,
    path: PathBuf,
    problem: String,
    remedy: &'static str,
}

/// What handshakes need, by what may be spoken within.
#[derive(Debug)]
pub(super) struct Configs {
    /// HTTP/1.1 alone.
    pub(super) http11: Arc<ServerConfig>,
    /// HTTP/2, too.
    pub(super) http2: Arc<ServerConfig>,
}

/// What the files hold.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) configs: Configs,
    /// Of the certificate.
    pub(super) dates: Dates,
}

/// The state of the files: any change of one of them changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamps([Option<[u64; 5]>; 3]);

/// One file and the setting that names it.
#[derive(Clone, Copy)]
struct Source<'a> {
    setting: &'static str,
    path: &'a Path,
}

impl Stamps {
    pub(super) fn of(settings: &TlsSettings) -> Self {
        let stamp = |path: &PathBuf| std::fs::metadata(path).ok().map(|facts| stamp(&facts));
        Self([stamp(&settings.certificate), stamp(&settings.key), settings.client_ca.as_ref().and_then(stamp)])
    }
}

/// Device, inode, size and time of the last change.
fn stamp(facts: &Metadata) -> [u64; 5] {
    [facts.dev(), facts.ino(), facts.len(), facts.mtime().unsigned_abs(), facts.mtime_nsec().unsigned_abs()]
}

/// Reads all files. Blocks.
///
/// # Errors
/// Names the first file that cannot be used.
pub(super) fn load(settings: &TlsSettings) -> Result<Loaded, TlsFileError> {
    let certificate = Source { setting: "certificate", path: &settings.certificate };
    let key = Source { setting: "key", path: &settings.key };
    let chain = certificate.certificates()?;
    let dates = chain.first().and_then(Dates::of).ok_or_else(|| {
        certificate.fault("its first certificate is malformed", "write a PEM file, the certificate of this cache first")
    })?;
    let private_key = key.key()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_details(Arc::clone(&provider), Arc::new(CertificateTime))
        .with_safe_default_protocol_versions()
        .map_err(|error| certificate.fault(error.to_string(), "this is a fault of the program: please report it"))?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let authorities = Source { setting: "client_ca", path }.authorities(provider)?;
            builder.with_client_cert_verifier(match settings.client_names.as_slice() {
                [] => authorities,
                names => Arc::new(NamedClients::new(authorities, names.to_vec())),
            })
        }
    };
    let mut config = builder.with_single_cert(chain, private_key).map_err(|error| match error {
        Error::InconsistentKeys(_) => key.fault(
            format!("it is not the key of the certificate in {}", certificate.path.display()),
            "give both files of one pair",
        ),
        Error::InvalidCertificate(_) => {
            certificate.fault(error.to_string(), "write a PEM file with an X.509 certificate")
        }
        _ => key.fault(error.to_string(), "use an RSA key of 2048 bits or more, ECDSA with P-256 or P-384, or Ed25519"),
    })?;
    let http11 = b"http/1.1".to_vec();
    let mut http2 = config.clone();
    // Of both the first is preferred.
    http2.alpn_protocols = vec![HTTP2.to_vec(), http11.clone()];
    config.alpn_protocols = vec![http11];
    Ok(Loaded { configs: Configs { http11: Arc::new(config), http2: Arc::new(http2) }, dates })
}

impl Source<'_> {
    fn fault(self, problem: impl Into<String>, remedy: &'static str) -> TlsFileError {
        TlsFileError { setting: self.setting, path: self.path.to_owned(), problem: problem.into(), remedy }
    }

    fn read(self) -> Result<Vec<u8>, TlsFileError> {
        let mut bytes = Vec::new();
        let read = File::open(self.path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes));
        read.map_err(|error| {
            let remedy = match error.kind() {
                io::ErrorKind::NotFound => "put the file there, or set the path right",
                io::ErrorKind::PermissionDenied => "let the user that runs the cache read it",
                _ => "give a PEM file that can be read",
            };
            self.fault(error.to_string(), remedy)
        })?;
        if bytes.len() as u64 > LONGEST {
            return Err(self.fault("the file is longer than 1 MiB", "give a PEM file with certificates or a key"));
        }
        Ok(bytes)
    }

    /// All certificates of the file; at least one.
    fn certificates(self) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
        let bytes = self.read()?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        let certificates = certificates.map_err(|error| self.fault(said(&error), "write it anew as a PEM file"))?;
        if certificates.is_empty() {
            let remedy = "write a PEM file; `openssl x509 -inform der -in FILE` makes one of a DER file";
            return Err(self.fault("there is no certificate in it", remedy));
        }
        Ok(certificates)
    }

    fn key(self) -> Result<PrivateKeyDer<'static>, TlsFileError> {
        let bytes = self.read()?;
        // PKCS#8 (RFC 5958) says it in its label, the older forms in a field.
        if bytes.windows(b"ENCRYPTED".len()).any(|word| word == b"ENCRYPTED") {
            return Err(self.fault("the key is encrypted", "decrypt it: `openssl pkey -in FILE -out NEW`"));
        }
        PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
            PemError::NoItemsFound => {
                let remedy = "write a PEM file with a PRIVATE KEY (PKCS#8), RSA PRIVATE KEY or EC PRIVATE KEY";
                self.fault("there is no private key in it", remedy)
            }
            error => self.fault(said(&error), "write it anew as a PEM file"),
        })
    }

    /// Whoever has a certificate of the authorities in the file.
    fn authorities(
        self,
        provider: Arc<rustls::crypto::CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsFileError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots.add(certificate).map_err(|error| {
                self.fault(format!("a certificate in it is malformed ({error})"), "write a PEM file of authorities")
            })?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        verifier.map_err(|error| self.fault(error.to_string(), "write a PEM file of authorities"))
    }
}

impl TlsFileError {
    /// Of a certificate that is not valid at `now`.
    pub(super) fn out_of_time(path: &Path, dates: &Dates, now: UnixTime) -> Self {
        let source = Source { setting: "certificate", path };
        match dates.judge(now) {
            Validity::NotYet => source.fault(
                format!("it is not valid before {}", dates.not_before_text()),
                "it is used from then on; or the clock of this machine is wrong",
            ),
            Validity::Valid | Validity::Expired => source.fault(
                format!("it has expired at {}", dates.not_after_text()),
                "renew it, or set the clock of this machine right",
            ),
        }
    }
}

/// What is wrong with a PEM file, without what stands in it: it may be a key.
fn said(error: &PemError) -> &'static str {
    match error {
        PemError::MissingSectionEnd { .. } => "a section has no end: the file is cut off",
        PemError::IllegalSectionStart { .. } => "a line that begins a section is malformed",
        PemError::Base64Decode(_) => "a section is not base64",
        _ => "it is no PEM file",
    }
}
