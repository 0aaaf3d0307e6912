//! The system clock, and whether it can be believed. Machines in factories start in 1970 when their battery is empty, and
//! are set right or wrong by hand. A clock that is not believed deletes nothing and judges no certificate too early: what is
//! decided by the time of day is decided by the most likely one, which runs on a clock that never jumps.
//!
//! There is one system clock in a process, so this is no handle but a place. What is concluded from readings is in `trust`.

mod dates;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod trust;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

pub use dates::{Dates, Validity};
pub use trust::Distrust;
use trust::Watch;

/// When this release was made, in seconds since 1970, with the version that it belongs to.
const RELEASE: (&str, u64) = ("0.1.0", 1_795_392_000);

/// The same by who builds it, for builds that are repeated (<https://reproducible-builds.org/specs/source-date-epoch/>).
const SOURCE_DATE_EPOCH: Option<&str> = option_env!("SOURCE_DATE_EPOCH");

/// The file in the state directory in which the time is kept: seconds since 1970, as text.
const KEPT: &str = "clock";
/// Where it is written before it is moved into place.
const KEPT_NEW: &str = "clock.new";
/// Longest such file, in bytes.
const LONGEST: usize = 32;

/// Stands for a clock that is believed.
const BELIEVED: i64 = i64::MIN;

static WATCH: LazyLock<Mutex<Watch>> = LazyLock::new(|| Mutex::new(Watch::new(built(), steady())));

/// How far the most likely time is ahead of the steady clock, in milliseconds, while the system clock is not believed.
static AHEAD: AtomicI64 = AtomicI64::new(BELIEVED);

/// The time at which TLS judges certificates: the system clock's, but never before a time that is known to be over.
#[derive(Debug, Clone, Copy)]
pub struct CertificateTime;

impl TimeProvider for CertificateTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(certificate_time())
    }
}

/// Takes the time into account that an earlier process kept in `state`. A file that is missing or damaged says nothing.
pub fn recall(state: &Path) {
    let seconds = fs::read(state.join(KEPT)).ok().and_then(|text| parse(&text));
    if let Some(seconds) = seconds {
        WATCH.lock().keep(Duration::from_secs(seconds));
    }
    look();
}

/// Seconds since 1970, as the file has them.
fn parse(file: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(file).ok().filter(|text| text.len() <= LONGEST)?;
    text.trim().parse().ok()
}

/// Keeps the time in `state` for the next process, if it is believed. Blocks.
///
/// # Errors
/// When the file cannot be written.
pub fn keep(state: &Path) -> io::Result<()> {
    if look().is_some() {
        return Ok(());
    }
    fs::write(state.join(KEPT_NEW), format!("{}\n", system().as_secs()))?;
    fs::rename(state.join(KEPT_NEW), state.join(KEPT))
}

/// Looks at the clock, and says why it is not believed; `None` when it is. To be called every second or so.
pub fn look() -> Option<Distrust> {
    let mut watch = WATCH.lock();
    let distrust = watch.look(system(), steady());
    let ahead = if distrust.is_some() { watch.likely_ahead() } else { BELIEVED };
    AHEAD.store(ahead, Ordering::Relaxed);
    distrust
}

/// The time by which is decided what is stale and what has outlived its time: the system clock's while that is believed.
pub fn now() -> SystemTime {
    match AHEAD.load(Ordering::Relaxed) {
        BELIEVED => SystemTime::now(),
        ahead => {
            let likely = i64::try_from(steady().as_millis()).unwrap_or(i64::MAX).saturating_add(ahead);
            UNIX_EPOCH + Duration::from_millis(u64::try_from(likely).unwrap_or(0))
        }
    }
}

/// The same where something goes for good on its word: the clock is looked at first.
pub fn now_for_deletion() -> SystemTime {
    look();
    now()
}

/// The time at which certificates are judged.
pub fn certificate_time() -> UnixTime {
    UnixTime::since_unix_epoch(WATCH.lock().certificate_time(system(), steady()))
}

fn system() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A clock that never jumps, and goes on while the machine sleeps.
fn steady() -> Duration {
    #[cfg(target_os = "linux")]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0));
        seconds + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
    }
    #[cfg(not(target_os = "linux"))]
    {
        static START: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
        START.elapsed()
    }
}

fn built() -> Duration {
    // A builder may well set it to a time before the source was written.
    let by_builder = SOURCE_DATE_EPOCH.and_then(|text| text.parse().ok()).unwrap_or(0);
    Duration::from_secs(RELEASE.1.max(by_builder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_has_its_own_date() {
        assert_eq!(RELEASE.0, env!("CARGO_PKG_VERSION"), "write the date of the release that you make");
        assert!(built() <= system(), "the date of the release is in the future, or this machine's clock is wrong");
    }

    #[test]
    fn the_time_is_kept_and_damaged_files_say_nothing() {
        let state = tempfile::tempdir().unwrap();
        for text in ["", "x", "-1", "99999999999999999999999999999999999"] {
            fs::write(state.path().join(KEPT), text).unwrap();
            recall(state.path());
            assert_eq!(look(), None, "{text}");
        }
        let before = system().as_secs();
        keep(state.path()).unwrap();
        let kept: u64 = fs::read_to_string(state.path().join(KEPT)).unwrap().trim().parse().unwrap();
        assert!((before..=system().as_secs()).contains(&kept));
        recall(state.path());
        assert_eq!(look(), None);
        assert!(now().duration_since(UNIX_EPOCH).unwrap() >= Duration::from_secs(before));
        assert!(certificate_time().as_secs() >= before);
    }
}
