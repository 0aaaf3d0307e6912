//! TLS towards clients: which certificate is shown, who is let in by theirs, and what becomes of handshakes. A pair of
//! certificate and key that was renewed is taken up while the process runs.
//!
//! `files` reads, `clock` judges dates, `names` client names, `handshake` shakes hands. What is said on the connection
//! afterwards is the wire's part; TLS towards sources is `upstream`'s.

mod files;
mod handshake;
mod names;
#[cfg(test)]
pub(super) mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::pki_types::UnixTime;

pub use files::TlsFileError;
pub use names::{ClientName, ClientNameError};
pub(in crate::serve) use names::{has_name, names_in};

use crate::clock::{Dates, Validity, certificate_time};
use crate::telemetry::{Metrics, Throttle};
use files::{Configs, Loaded, Stamps};

/// How often it is looked whether the files have changed.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The TLS listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// Addresses where HTTP/1.1 is spoken, for Delivery Optimization agents and everybody else.
    pub addresses: Vec<SocketAddr>,
    /// Addresses where HTTP/2 is offered, too. There is at least one of either kind.
    pub http2_addresses: Vec<SocketAddr>,
    /// PEM file with the certificate, its own first, then what leads to the root.
    pub certificate: PathBuf,
    /// PEM file with the key of the certificate, not encrypted.
    pub key: PathBuf,
    /// PEM file with the authorities of which a client must have a certificate; `None`: nobody needs one.
    pub client_ca: Option<PathBuf>,
    /// Of those clients, the ones with such a DNS name in their certificate; empty: all.
    pub client_names: Vec<ClientName>,
}

/// What TLS handshakes need, as new as its files.
#[derive(Debug)]
pub struct Tls {
    settings: TlsSettings,
    current: ArcSwap<Configs>,
    seen: Mutex<Seen>,
    metrics: Arc<Metrics>,
    /// Bounds the lines about handshakes that failed, and those among them that tell of clocks.
    failures: Mutex<Throttle>,
    clocks: Mutex<Throttle>,
}

/// What one TLS listener needs of [`Tls`].
#[derive(Debug, Clone)]
pub struct Handshakes {
    tls: Arc<Tls>,
    offers_http2: bool,
}

/// What is in use, and what was told.
#[derive(Debug)]
struct Seen {
    stamps: Stamps,
    dates: Dates,
    clock: Validity,
    /// The files that could not be used, when the log has it.
    refused: Option<Stamps>,
}

impl Handshakes {
    /// For a listener where HTTP/1.1 is spoken, and HTTP/2 if it `offers_http2`.
    pub fn new(tls: Arc<Tls>, offers_http2: bool) -> Self {
        Self { tls, offers_http2 }
    }
}

impl Tls {
    /// Reads the files. A certificate whose time is not now is used all the same, since the clock may be wrong.
    ///
    /// # Errors
    /// Names the setting whose file is missing or broken, and what to do.
    pub fn open(settings: TlsSettings, metrics: Arc<Metrics>) -> Result<Self, TlsFileError> {
        let stamps = Stamps::of(&settings);
        let Loaded { configs, dates } = files::load(&settings)?;
        metrics.tls_certificate_expiry_seconds.set(dates.not_after());
        let seen = Seen { stamps, dates, clock: Validity::Valid, refused: None };
        let now = Instant::now();
        let tls = Self {
            settings,
            current: ArcSwap::from_pointee(configs),
            seen: Mutex::new(seen),
            metrics,
            failures: Mutex::new(Throttle::new(20, Duration::from_secs(3), now)),
            clocks: Mutex::new(Throttle::new(3, Duration::from_secs(60), now)),
        };
        tls.look_at_clock(&mut tls.seen.lock(), certificate_time());
        Ok(tls)
    }

    /// Takes up renewed files for as long as it is polled. Connections that stand keep what they have.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let tls = Arc::clone(&self);
            if tokio::task::spawn_blocking(move || tls.look(certificate_time())).await.is_err() {
                tracing::error!("the files of the TLS listener could not be looked at");
            }
        }
    }

    /// Takes up the files if they have changed. What cannot be used is told once, and what was before stays.
    fn look(&self, now: UnixTime) {
        let mut seen = self.seen.lock();
        // Before they are read, so that a change in between is seen next time.
        let stamps = Stamps::of(&self.settings);
        if stamps != seen.stamps {
            let loaded =
                files::load(&self.settings).and_then(|loaded| match loaded.dates.may_follow(&seen.dates, now) {
                    true => Ok(loaded),
                    false => Err(TlsFileError::out_of_time(&self.settings.certificate, &loaded.dates, now)),
                });
            match loaded {
                Ok(Loaded { configs, dates }) => {
                    self.current.store(Arc::new(configs));
                    self.metrics.tls_certificate_expiry_seconds.set(dates.not_after());
                    tracing::info!(
                        expires = dates.not_after_text(),
                        "the renewed files of the TLS listener are in use"
                    );
                    *seen = Seen { stamps, dates, clock: Validity::Valid, refused: None };
                }
                Err(error) => {
                    if seen.refused.as_ref() != Some(&stamps) {
                        tracing::warn!(%error, "the changed files of the TLS listener are not used, those before stay");
                        seen.refused = Some(stamps);
                    }
                }
            }
        } else {
            seen.refused = None;
        }
        self.look_at_clock(&mut seen, now);
    }

    /// Tells once when the certificate in use is not valid by the clock of this machine.
    fn look_at_clock(&self, seen: &mut Seen, now: UnixTime) {
        let clock = seen.dates.judge(now);
        if clock == std::mem::replace(&mut seen.clock, clock) {
            return;
        }
        let (from, to) = (seen.dates.not_before_text(), seen.dates.not_after_text());
        match clock {
            Validity::Valid => tracing::info!("the certificate of the TLS listener is valid now"),
            Validity::NotYet => tracing::warn!(
                from,
                to,
                "the certificate of the TLS listener is not valid yet: it is new, or the clock of this machine is wrong"
            ),
            Validity::Expired => tracing::warn!(
                from,
                to,
                "the certificate of the TLS listener has expired: renew it, or set the clock of this machine right"
            ),
        }
    }
}
