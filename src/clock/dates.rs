//! [`Dates`]: from when until when a certificate is valid, and what the clock says to it. Pure: the time is the caller's.

use rustls::pki_types::{CertificateDer, UnixTime};
use std::time::{Duration, SystemTime};
use webpki::{EndEntityCert, Error, KeyUsage};

/// The validity of a certificate (RFC 5280 section 4.1.2.5), both ends within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dates {
    not_before: UnixTime,
    not_after: UnixTime,
}

/// What the clock says to a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// It is valid.
    Valid,
    /// It is not valid yet.
    NotYet,
    /// It has expired.
    Expired,
}

impl Dates {
    /// Of the certificate that `der` is; `None` when it is none.
    pub fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let certificate = EndEntityCert::try_from(der).ok()?;
        // The dates are judged before anything else, and the verdict at either end of time names the date.
        let fault = |time| certificate.verify_for_usage(&[], &[], &[], time, KeyUsage::server_auth(), None, None).err();
        let (first, last) = (UnixTime::since_unix_epoch(Duration::ZERO), UnixTime::since_unix_epoch(Duration::MAX));
        let not_after = match fault(last)? {
            Error::CertExpired { not_after, .. } => not_after,
            _ => return None,
        };
        let not_before = match fault(first)? {
            Error::CertNotValidYet { not_before, .. } => not_before,
            _ => first,
        };
        Some(Self { not_before, not_after })
    }

    /// What a clock that says `now` says to them.
    pub fn judge(&self, now: UnixTime) -> Validity {
        if now < self.not_before {
            Validity::NotYet
        } else if now > self.not_after {
            Validity::Expired
        } else {
            Validity::Valid
        }
    }

    /// Whether a certificate with these dates may take the place of one with the dates `before`: when it is valid, or at
    /// least ends later than one that is not valid itself.
    pub fn may_follow(&self, before: &Self, now: UnixTime) -> bool {
        let better = before.judge(now) != Validity::Valid && self.not_after > before.not_after;
        // The same certificate with another key or client authority is no worse.
        self == before || self.judge(now) == Validity::Valid || better
    }

    /// The end in seconds of Unix time.
    pub fn not_after(&self) -> i64 {
        i64::try_from(self.not_after.as_secs()).unwrap_or(i64::MAX)
    }

    /// The same for people.
    pub fn not_after_text(&self) -> String {
        text(self.not_after)
    }

    /// The begin for people.
    pub fn not_before_text(&self) -> String {
        text(self.not_before)
    }
}

fn text(time: UnixTime) -> String {
    // The text form ends with the year 9999, as the dates of certificates do.
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs().min(253_402_300_799)));
    time.map(httpdate::fmt_http_date).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn dates(from: i32, to: i32) -> Dates {
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Dates::of(certificate.der()).unwrap()
    }

    fn at(year: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs((year - 1970) * 31_557_000 + 86_400))
    }

    #[test]
    fn dates_are_those_of_the_certificate() {
        let dates = dates(2020, 2030);
        assert_eq!(dates.not_after(), 1_893_456_000);
        assert_eq!(dates.not_after_text(), "Tue, 01 Jan 2030 00:00:00 GMT");
        assert_eq!(dates.not_before_text(), "Wed, 01 Jan 2020 00:00:00 GMT");
        let judged = [2019, 2021, 2029, 2031].map(|year| dates.judge(at(year)));
        assert_eq!(judged, [Validity::NotYet, Validity::Valid, Validity::Valid, Validity::Expired]);
        assert_eq!(Dates::of(&CertificateDer::from(vec![0x30, 3, 1, 2, 3])), None);
        assert_eq!(Dates::of(&CertificateDer::from(Vec::new())), None);
    }

    #[test]
    fn the_ends_of_time_are_dates_too() {
        assert_eq!(dates(1970, 9999).not_before_text(), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(dates(2049, 2051).not_after_text(), "Sun, 01 Jan 2051 00:00:00 GMT");
    }

    #[test]
    fn what_is_not_valid_takes_no_valid_ones_place() {
        let (old, new, expired, early) = (dates(2010, 2020), dates(2015, 2030), dates(2000, 2011), dates(2025, 2040));
        assert!(new.may_follow(&old, at(2018)));
        assert!(!expired.may_follow(&old, at(2018)) && !early.may_follow(&old, at(2018)));
        // Nothing is lost where the one in use is not valid either, be it for the clock.
        assert!(new.may_follow(&old, at(2035)) && early.may_follow(&old, at(2022)));
        assert!(!expired.may_follow(&old, at(2022)));
        assert!(new.may_follow(&old, at(1971)));
    }
}
