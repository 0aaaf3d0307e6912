//! [`UnixMillis`]: a point in time as the wall clock told it. Reading a clock happens elsewhere.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since 1970-01-01T00:00:00Z. Arithmetic saturates, so no date of a peer can overflow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// From whole seconds since the epoch.
    pub fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Whole seconds since the epoch, rounded down.
    pub fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// This moment plus `duration`.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// In whole seconds as `2026-11-27T00:00:00Z` (RFC 3339). What that cannot write, years after 9999, is its last second.
    pub fn to_rfc3339(self) -> String {
        let seconds = i64::try_from(self.as_secs()).unwrap_or(i64::MAX);
        let written = OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|time| time.format(&Rfc3339).ok());
        written.unwrap_or_else(|| "9999-12-31T23:59:59Z".to_owned())
    }

    /// Reads a time of RFC 3339, with any offset; `None` when it is none, or before 1970.
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok().map(Self)
    }

    /// As the standard library's time, for formatting.
    pub fn to_system_time(self) -> SystemTime {
        UNIX_EPOCH.checked_add(Duration::from_millis(self.0)).unwrap_or(UNIX_EPOCH)
    }
}

impl From<SystemTime> for UnixMillis {
    /// Times before the epoch count as the epoch.
    fn from(time: SystemTime) -> Self {
        Self(0).plus(time.duration_since(UNIX_EPOCH).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read() {
        let time = UnixMillis(1_795_737_600_000);
        assert_eq!(time.to_rfc3339(), "2026-11-27T00:00:00Z");
        for text in ["2026-11-27T00:00:00Z", "2026-11-27T01:00:00+01:00", "2026-11-27T00:00:00.0Z"] {
            assert_eq!(UnixMillis::from_rfc3339(text), Some(time), "{text}");
        }
        for text in ["", "2026-11-27", "2026-11-27T00:00:00", "1960-01-01T00:00:00Z", "tomorrow"] {
            assert_eq!(UnixMillis::from_rfc3339(text), None, "{text}");
        }
        assert_eq!(UnixMillis(u64::MAX).to_rfc3339(), "9999-12-31T23:59:59Z");
    }
}
