//! The files of the TLS listener: what is wrong with them, and what becomes of a renewal. Handshakes are tested with the
//! real binary; here is what other tests need of certificates.

use std::fs;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};
use tempfile::TempDir;

use super::handshake::Failure;
use super::*;

/// A directory with the files of a listener.
pub(in crate::serve) struct Files {
    root: TempDir,
}

impl Files {
    /// A certificate for `cache.example` that is valid.
    pub(in crate::serve) fn new() -> Self {
        let files = Self { root: TempDir::new().unwrap() };
        files.renew(2000, 2200);
        files
    }

    /// Writes another pair, valid from one year to another.
    fn renew(&self, from: i32, to: i32) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["cache.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let certificate = params.self_signed(&key).unwrap();
        self.put("server.pem", &certificate.pem());
        self.put("server.key", &key.serialize_pem());
        certificate.der().clone()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn put(&self, name: &str, text: &str) {
        // A new file each time, as those who renew do it.
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub(in crate::serve) fn settings(&self) -> TlsSettings {
        TlsSettings {
            addresses: Vec::new(),
            http2_addresses: Vec::new(),
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            client_ca: None,
            client_names: Vec::new(),
        }
    }

    pub(in crate::serve) fn open(&self) -> Result<Tls, TlsFileError> {
        Tls::open(self.settings(), Arc::new(Metrics::new().unwrap()))
    }

    fn fault(&self, settings: TlsSettings) -> String {
        let error = Tls::open(settings, Arc::new(Metrics::new().unwrap())).unwrap_err().to_string();
        // Nothing of a file stands in a message.
        assert!(!error.contains("MII") && !error.contains("BEGIN"), "{error}");
        error
    }
}

/// The certificate that `tls` shows, by the time when it ends.
fn expiry(tls: &Tls) -> i64 {
    tls.metrics.tls_certificate_expiry_seconds.get()
}

#[test]
fn files_that_cannot_be_used_are_named_with_a_remedy() {
    let files = Files::new();
    let (certificate, key) = (files.text("server.pem"), files.text("server.key"));
    let other = Files::new().text("server.key");
    let cut = certificate.get(..certificate.len() - 40).unwrap().to_owned();
    let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let pkcs8 = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let empty = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let malformed = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (name, text, setting, problem, remedy) in [
        ("server.pem", "", "certificate", "there is no certificate in it", "openssl x509 -inform der"),
        ("server.pem", &*key, "certificate", "there is no certificate in it", "PEM file"),
        ("server.pem", &*cut, "certificate", "the file is cut off", "write it anew"),
        ("server.pem", malformed, "certificate", "its first certificate is malformed", "PEM file"),
        ("server.key", "", "key", "there is no private key in it", "PRIVATE KEY"),
        ("server.key", &*certificate, "key", "there is no private key in it", "PRIVATE KEY"),
        ("server.key", legacy, "key", "the key is encrypted", "openssl pkey"),
        ("server.key", pkcs8, "key", "the key is encrypted", "openssl pkey"),
        ("server.key", empty, "key", "", "ECDSA"),
        ("server.key", &*other, "key", "it is not the key of the certificate in", "one pair"),
    ] {
        files.put("server.pem", &certificate);
        files.put("server.key", &key);
        files.put(name, text);
        let error = files.fault(files.settings());
        let begin = format!("listen.tls.{setting}: {}: ", files.path(name).display());
        assert!(error.starts_with(&begin) && error.contains(problem) && error.contains(remedy), "{text}: {error}");
    }
    files.put("server.pem", &certificate);
    files.put("server.key", &key);
    let absent = TlsSettings { key: files.path("absent"), ..files.settings() };
    assert!(files.fault(absent).contains("put the file there"));
    let directory = TlsSettings { certificate: files.root.path().to_owned(), ..files.settings() };
    assert!(files.fault(directory).starts_with("listen.tls.certificate: "));
    files.put("ca.pem", malformed);
    let authority = TlsSettings { client_ca: Some(files.path("ca.pem")), ..files.settings() };
    assert!(files.fault(authority).starts_with("listen.tls.client_ca: "));
    assert!(files.open().is_ok());
}

#[test]
fn keys_of_the_older_form_are_read() {
    use base64::Engine as _;
    let files = Files::new();
    let text: String = files.text("server.key").lines().filter(|line| !line.starts_with("--")).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    // The octet string of PKCS#8 holds the key as in RFC 5915.
    let begin = der.windows(2).position(|bytes| bytes == [0x30, 0x6b]).unwrap();
    let inner = base64::engine::general_purpose::STANDARD.encode(&der[begin..]);
    files.put("server.key", &format!("-----BEGIN EC PRIVATE KEY-----\n{inner}\n-----END EC PRIVATE KEY-----\n"));
    assert!(files.open().is_ok());
}

#[test]
fn a_renewal_is_taken_up_and_a_failed_one_leaves_what_was() {
    let files = Files::new();
    let tls = files.open().unwrap();
    let now = UnixTime::now();
    let first = expiry(&tls);
    let shown = |tls: &Tls| tls.current.load_full();
    let before = shown(&tls);
    tls.look(now);
    assert!(Arc::ptr_eq(&before, &shown(&tls)), "nothing has changed");

    files.renew(2000, 2190);
    tls.look(now);
    let renewed = expiry(&tls);
    assert!(renewed < first && !Arc::ptr_eq(&before, &shown(&tls)));

    // A certificate without its key; an expired pair; nothing at all.
    let (before, key) = (shown(&tls), files.text("server.key"));
    files.renew(2000, 2180);
    files.put("server.key", &key);
    tls.look(now);
    let told = tls.seen.lock().refused.clone();
    assert!(told.is_some());
    tls.look(now);
    assert_eq!((tls.seen.lock().refused.clone(), expiry(&tls)), (told.clone(), renewed), "told once");
    files.renew(2000, 2001);
    tls.look(now);
    let expired = tls.seen.lock().refused.clone();
    assert!(expired.is_some() && expired != told);
    fs::remove_file(files.path("server.pem")).unwrap();
    tls.look(now);
    assert!(Arc::ptr_eq(&before, &shown(&tls)));
    assert_eq!(expiry(&tls), renewed);

    files.renew(2000, 2170);
    tls.look(now);
    assert!(expiry(&tls) < renewed && tls.seen.lock().refused.is_none());
}

#[test]
fn authorities_of_clients_are_taken_up_too() {
    let files = Files::new();
    files.put("ca.pem", &files.text("server.pem"));
    let settings = TlsSettings { client_ca: Some(files.path("ca.pem")), ..files.settings() };
    let tls = Tls::open(settings, Arc::new(Metrics::new().unwrap())).unwrap();
    let before = tls.current.load_full();
    files.put("ca.pem", &Files::new().text("server.pem"));
    tls.look(UnixTime::now());
    let renewed = tls.current.load_full();
    assert!(!Arc::ptr_eq(&before, &renewed));
    files.put("ca.pem", "");
    tls.look(UnixTime::now());
    assert!(Arc::ptr_eq(&renewed, &tls.current.load_full()), "who was let in still is");
}

#[test]
fn a_certificate_out_of_its_time_is_shown_until_there_is_a_better_one() {
    let files = Files::new();
    files.renew(2000, 2001);
    let tls = files.open().unwrap();
    assert_eq!(tls.seen.lock().clock, Validity::Expired);
    let expired = expiry(&tls);
    files.renew(1999, 2000);
    tls.look(UnixTime::now());
    assert_eq!(expiry(&tls), expired);
    files.renew(2000, 2200);
    tls.look(UnixTime::now());
    assert!(expiry(&tls) > expired);
    assert_eq!(tls.seen.lock().clock, Validity::Valid);
}

#[test]
fn failures_have_names_of_a_fixed_set() {
    let of = |error: Error| Failure::of(&std::io::Error::new(std::io::ErrorKind::InvalidData, error)).as_str();
    for (error, name) in [
        (Error::NoCertificatesPresented, "no-certificate"),
        (CertificateError::UnknownIssuer.into(), "unknown-issuer"),
        (CertificateError::NotValidForName.into(), "wrong-name"),
        (CertificateError::Expired.into(), "expired"),
        (CertificateError::NotValidYet.into(), "not-yet-valid"),
        (CertificateError::BadSignature.into(), "bad-certificate"),
        (Error::NoApplicationProtocol, "alpn"),
        (Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon), "incompatible"),
        (Error::AlertReceived(AlertDescription::CertificateExpired), "client-says-expired"),
        (Error::AlertReceived(AlertDescription::UnknownCA), "client-refuses"),
        (Error::DecryptError, "protocol"),
    ] {
        assert_eq!(of(error), name);
    }
    assert_eq!(Failure::of(&std::io::ErrorKind::UnexpectedEof.into()).as_str(), "closed");
}
