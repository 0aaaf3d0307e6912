//! [`Dialect`]: what TLS connections to origins and to parents are made with: the roots that are trusted, and towards parents
//! the certificate that says who we are. Files are looked at again every few seconds, so that a renewed certificate is used
//! without a restart. What a handshake means is [`super::tls`]' business.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

use crate::clock::{CertificateTime, Dates, Validity, certificate_time};

use super::error::TlsSetupError;
use super::tls::{self, Roots};

/// How often files are looked at again.
const LOOK: Duration = Duration::from_secs(5);

/// How often files are tried again that cannot be used: a certificate may become valid.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// Files of the TLS side, in PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates that are trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// The certificate (with its chain) and the key that parents are shown when they ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Makes the connectors.
pub(super) struct Dialect {
    files: TlsFiles,
    roots: Roots,
    current: ArcSwap<Current>,
    /// Files that cannot be used, and were told of, and when they were tried last.
    refused: Mutex<Option<(Vec<Option<Stamp>>, Instant)>>,
}

struct Current {
    /// Of the certificate that says who we are.
    dates: Option<Dates>,
    stamps: Vec<Option<Stamp>>,
    origins: TlsConnector,
    parents: TlsConnector,
}

/// When a file is another one, or may be read by others, this is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Dialect {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read or used.
    pub(super) fn new(files: TlsFiles, roots: Roots) -> Result<Self, TlsSetupError> {
        let current = load(&files, &roots)?;
        if let (Some(reason), Some((path, _))) = (current.dates.as_ref().and_then(out_of_time), &files.identity) {
            tracing::warn!(path = %path.display(), reason, "the certificate of upstream.tls will be refused by parents");
        }
        Ok(Self { files, roots, current: ArcSwap::from_pointee(current), refused: Mutex::default() })
    }

    /// What to speak to an origin, or to a parent, with now.
    pub(super) fn connector(&self, is_parent: bool) -> TlsConnector {
        let current = self.current.load();
        if is_parent { current.parents.clone() } else { current.origins.clone() }
    }

    /// Takes renewed files. Those that cannot be used are told of once and looked at again, and what was before stays.
    fn look(&self) {
        let before = self.current.load();
        let (stamps, mut refused) = (stamps(&self.files), self.refused.lock());
        if stamps == before.stamps {
            *refused = None;
            return;
        }
        let known = refused.as_ref().filter(|(known, _)| *known == stamps);
        if known.is_some_and(|(_, at)| at.elapsed() < TRY_AGAIN) {
            return;
        }
        let is_known = known.is_some();
        match load(&self.files, &self.roots).and_then(|new| self.if_no_worse(new, &before)) {
            Ok(new) => {
                tracing::info!("the renewed files of upstream.tls are in use for new connections");
                self.current.store(Arc::new(new));
                *refused = None;
            }
            Err(error) => {
                if !is_known {
                    tracing::warn!(%error, "renewed files of upstream.tls cannot be used; the ones before stay in use");
                }
                *refused = Some((stamps, Instant::now()));
            }
        }
    }

    /// A certificate that is not valid takes no valid one's place.
    fn if_no_worse(&self, new: Current, before: &Current) -> Result<Current, TlsSetupError> {
        let now = certificate_time();
        let follows = |new: Dates, before| new.may_follow(&before, now);
        match (new.dates, before.dates, &self.files.identity) {
            (Some(dates), Some(old), Some((path, _))) if !follows(dates, old) => {
                Err(TlsSetupError::File { path: path.clone(), reason: out_of_time(&dates).unwrap_or_default() })
            }
            _ => Ok(new),
        }
    }
}

/// Why a certificate is not valid by the clock of this machine, if it is not.
fn out_of_time(dates: &Dates) -> Option<String> {
    match dates.judge(certificate_time()) {
        Validity::Valid => None,
        Validity::NotYet => {
            Some(format!("it is not valid before {}, or the clock of this machine is wrong", dates.not_before_text()))
        }
        Validity::Expired => Some(format!(
            "it has expired at {}; renew it, or set the clock of this machine right",
            dates.not_after_text()
        )),
    }
}

/// Takes renewed files as long as anybody uses them.
pub(super) async fn watch(dialect: Weak<Dialect>) {
    loop {
        sleep(LOOK).await;
        let Some(dialect) = dialect.upgrade().filter(|it| it.files != TlsFiles::default()) else { return };
        // A file system that hangs holds up nobody.
        if let Err(error) = spawn_blocking(move || dialect.look()).await {
            tracing::error!(%error, "the files of upstream.tls could not be looked at");
        }
    }
}

impl fmt::Debug for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialect").field("files", &self.files).finish_non_exhaustive()
    }
}

fn load(files: &TlsFiles, roots: &Roots) -> Result<Current, TlsSetupError> {
    // Before they are read: what changes in between is read again.
    let stamps = stamps(files);
    let mut store = tls::store(roots.clone())?;
    if let Some(ca) = &files.ca {
        let (added, _) = store.add_parsable_certificates(certificates(ca)?);
        if added == 0 {
            return Err(TlsSetupError::File {
                path: ca.clone(),
                reason: "no certificate in it can be used".to_owned(),
            });
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = || {
        let builder = ClientConfig::builder_with_details(Arc::clone(&provider), Arc::new(CertificateTime));
        builder.with_safe_default_protocol_versions().map(|builder| builder.with_root_certificates(store.clone()))
    };
    let origins = tls::http_1_1(builder()?.with_no_client_auth());
    let mut dates = None;
    let parents = match &files.identity {
        Some((certificate, key)) => {
            let of_file = |reason: String| TlsSetupError::File { path: key.clone(), reason };
            let read = PrivateKeyDer::from_pem_file(key).map_err(|error| of_file(format!("no usable key: {error}")))?;
            let chain = certificates(certificate)?;
            dates = chain.first().and_then(Dates::of);
            let config = builder()?.with_client_auth_cert(chain, read);
            tls::http_1_1(config.map_err(|error| of_file(format!("it does not go with the certificate: {error}")))?)
        }
        None => origins.clone(),
    };
    Ok(Current { dates, stamps, origins, parents })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsSetupError> {
    let of_file = |reason: String| TlsSetupError::File { path: path.to_owned(), reason };
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| of_file(error.to_string()))?;
    if certificates.is_empty() { Err(of_file("there is no certificate in it".to_owned())) } else { Ok(certificates) }
}

fn stamps(files: &TlsFiles) -> Vec<Option<Stamp>> {
    let identity = files.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
    files.ca.iter().chain(identity).map(|path| stamp(path)).collect()
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp { inode: metadata.ino(), size: metadata.size(), changed: (metadata.ctime(), metadata.ctime_nsec()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_used_are_named_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let pair = rcgen::generate_simple_self_signed(["l3.lan".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["l3.lan".to_owned()]).unwrap();
        std::fs::write(path("cert"), pair.cert.pem()).unwrap();
        std::fs::write(path("key"), pair.signing_key.serialize_pem()).unwrap();
        std::fs::write(path("foreign"), other.signing_key.serialize_pem()).unwrap();
        std::fs::write(path("junk"), "nothing of use").unwrap();
        let files = |ca: Option<&str>, identity: Option<(&str, &str)>| TlsFiles {
            ca: ca.map(path),
            identity: identity.map(|(certificate, key)| (path(certificate), path(key))),
        };
        assert!(Dialect::new(files(Some("cert"), Some(("cert", "key"))), Roots::System).is_ok());
        for (files, named) in [
            (files(Some("none"), None), "none"),
            (files(Some("junk"), None), "junk"),
            (files(None, Some(("junk", "key"))), "junk"),
            (files(None, Some(("cert", "junk"))), "junk"),
            (files(None, Some(("cert", "foreign"))), "foreign"),
            (files(None, Some(("cert", "none"))), "none"),
        ] {
            let error = Dialect::new(files, Roots::System).unwrap_err().to_string();
            assert!(error.contains(path(named).to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn renewed_files_are_used_and_broken_ones_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca");
        let write = |text: &str| {
            let new = directory.path().join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, &file).unwrap();
        };
        let pem = || rcgen::generate_simple_self_signed(["l3.lan".to_owned()]).unwrap().cert.pem();
        write(&pem());
        let dialect = Dialect::new(TlsFiles { ca: Some(file.clone()), identity: None }, Roots::System).unwrap();
        let config = |dialect: &Dialect| {
            dialect.look();
            Arc::as_ptr(dialect.current.load().parents.config())
        };
        let first = config(&dialect);
        assert_eq!(config(&dialect), first);
        write("broken");
        assert_eq!(config(&dialect), first);
        write(&pem());
        assert_ne!(config(&dialect), first);
    }
}
