//! Auth parameters in a query: which they are, the token they form, and when that ends.
//!
//! They stay on the wire and are left out of keys and logs. Whether a token is good is for the origin to say.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;

use crate::content::{AuthParameters, UnixMillis};

use super::normalize::normalize_query;
use super::query::{Parameter, parameters};

/// Parameters of an Azure shared access signature, service, account and user-delegation ones; the storage
/// service reads their names in any case.
pub const AZURE_SAS: [&str; 21] = [
    "sv", "ss", "srt", "sp", "se", "st", "spr", "sig", "skoid", "sktid", "skt", "ske", "sks", "skv", "sr", "sip",
    "rscc", "rscd", "rsce", "rscl", "rsct",
];

/// The auth parameters of one request.
#[derive(Clone)]
pub struct AuthToken {
    bytes: Box<[u8]>,
    expires: Option<UnixMillis>,
}

/// Which parameters of one query are secret.
#[derive(Clone, Copy)]
pub(super) enum Secrets<'a> {
    None,
    AzureSas,
    Named(&'a [String]),
}

impl AuthToken {
    /// The token that `query` holds, if it holds one.
    pub fn from_query(query: &str, which: &AuthParameters) -> Option<Self> {
        let secrets = Secrets::of(query, which);
        let mut members: Vec<String> =
            parameters(query).filter(|p| secrets.contain(p)).map(|p| secrets.canonical(&p)).collect();
        if members.is_empty() {
            return None;
        }
        members.sort_unstable();
        let expires = match secrets {
            Secrets::AzureSas => azure_expiry(query),
            _ => None,
        };
        Some(Self { bytes: members.join("&").into_bytes().into(), expires })
    }

    /// What identifies the token: its parameters, sorted and in one spelling. Secret; for a keyed hash only.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The last moment at which it can be good, as far as it tells.
    pub fn expires(&self) -> Option<UnixMillis> {
        self.expires
    }
}

impl fmt::Debug for AuthToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthToken").field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl<'a> Secrets<'a> {
    /// A query is an Azure SAS only with a `sig`: without one, `sv=2` or `st=x` is an ordinary parameter, and
    /// to leave it out of the key would give one resource's bytes for another's.
    pub(super) fn of(query: &str, which: &'a AuthParameters) -> Self {
        match which {
            AuthParameters::None => Self::None,
            AuthParameters::Named(names) => Self::Named(names),
            AuthParameters::AzureSas if parameters(query).any(|p| p.is_named_ignoring_case("sig")) => Self::AzureSas,
            AuthParameters::AzureSas => Self::None,
        }
    }

    pub(super) fn contain(self, parameter: &Parameter<'_>) -> bool {
        match self {
            Self::None => false,
            Self::AzureSas => AZURE_SAS.iter().any(|name| parameter.is_named_ignoring_case(name)),
            Self::Named(names) => names.iter().any(|name| parameter.is_named(name)),
        }
    }

    fn canonical(self, parameter: &Parameter<'_>) -> String {
        let name = normalize_query(parameter.name);
        let name = if matches!(self, Self::AzureSas) { Cow::from(name.to_ascii_lowercase()) } else { name };
        format!("{name}={}", normalize_query(parameter.value.unwrap_or_default()))
    }
}

/// The target for logs: the values of secret parameters, and of any `sig`, replaced by `REDACTED`.
pub(super) fn redact(path: &str, query: Option<&str>, secrets: Secrets<'_>) -> String {
    let mut text = path.to_owned();
    let mut separator = '?';
    for parameter in query.into_iter().flat_map(parameters) {
        text.push(separator);
        separator = '&';
        if parameter.value.is_some() && (secrets.contain(&parameter) || parameter.is_named_ignoring_case("sig")) {
            text.push_str(parameter.name);
            text.push_str("=REDACTED");
        } else {
            text.push_str(parameter.raw);
        }
    }
    text
}

/// The earlier of the end of the signature (`se`) and of the delegation key under it (`ske`).
fn azure_expiry(query: &str) -> Option<UnixMillis> {
    parameters(query)
        .filter(|p| p.is_named_ignoring_case("se") || p.is_named_ignoring_case("ske"))
        .filter_map(|p| parse_expiry(&percent_decode_str(p.value?).decode_utf8().ok()?))
        .min()
}

/// Reads a time as Azure writes it (RFC 3339 with parts left out): `2026-11-23`, `2026-11-23T18:05Z`,
/// `2026-11-23T18:05:30Z`, with a fraction or an offset. A date alone is its first moment in UTC. Times before
/// 1970 are the epoch.
pub fn parse_expiry(text: &str) -> Option<UnixMillis> {
    let text = text.trim();
    let (date, time) = match text.split_once(['T', 't']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    if !(1..=12).contains(&month) || !(1..=days_in_month(year, month)).contains(&day) {
        return None;
    }
    let days = days_since_epoch(year, month, day);
    let seconds = time.map_or(Some(0), seconds_of_day)?;
    Some(UnixMillis::from_secs(u64::try_from(days * 86_400 + seconds).unwrap_or(0)))
}

/// Seconds from midnight UTC of `hh:mm[:ss[.fraction]]` and `Z` or `+hh:mm`; the fraction is dropped.
fn seconds_of_day(text: &str) -> Option<i64> {
    let (clock, offset) = match text.find(['Z', 'z', '+', '-']) {
        Some(at) => text.split_at(at),
        None => return None,
    };
    let offset = match offset.strip_prefix(['Z', 'z']) {
        Some("") => 0,
        Some(_) => return None,
        None => {
            let sign = if offset.starts_with('-') { -1 } else { 1 };
            let [hours, minutes] = numbers(offset.get(1..)?, ':', [2, 2])?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            sign * (hours * 3600 + minutes * 60)
        }
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let [hours, minutes, seconds] = match numbers(clock, ':', [2, 2]) {
        Some([hours, minutes]) => [hours, minutes, 0],
        None => numbers(clock, ':', [2, 2, 2])?,
    };
    if hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    Some(hours * 3600 + minutes * 60 + seconds - offset)
}

/// Exactly `N` decimal numbers of the given widths.
fn numbers<const N: usize>(text: &str, separator: char, widths: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut values = [0; N];
    for (value, width) in values.iter_mut().zip(widths) {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *value = part.parse().ok()?;
    }
    parts.next().is_none().then_some(values)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar, for years 0 to 9999.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let before = year - 1;
    let leap_days = before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400);
    let in_year: i64 = (1..month).map(|m| days_in_month(year, m)).sum::<i64>() + day - 1;
    before * 365 + leap_days + in_year - 719_162
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const QUERY: &str = "v=1&sv=2022-11-02&se=2026-11-23T18%3A05%3A00Z&sr=b&sp=r&sig=aB%2Bc%3D";

    fn token(query: &str) -> Option<AuthToken> {
        AuthToken::from_query(query, &AuthParameters::AzureSas)
    }

    #[test]
    fn expiry_is_read_in_every_form() {
        for (text, seconds) in [
            ("1970-01-01", Some(0)),
            ("2000-02-29", Some(951_782_400)),
            ("2026-11-23", Some(1_795_392_000)),
            ("2026-11-23T18:05Z", Some(1_795_457_100)),
            ("2026-11-23T18:05:30Z", Some(1_795_457_130)),
            ("2026-11-23T18:05:30.1234567Z", Some(1_795_457_130)),
            ("2026-11-23t20:05:30+02:00", Some(1_795_457_130)),
            ("2026-11-23T16:05:30-02:00", Some(1_795_457_130)),
            ("1969-12-31", Some(0)),
            ("9999-12-31T23:59:59Z", Some(253_402_300_799)),
            ("2026-11-23T18:05:30", None),
            ("2026-11-23T18:05:30Zx", None),
            ("2026-11-23T18:05:30.Z", None),
            ("2026-02-29", None),
            ("2026-13-01", None),
            ("2026-00-01", None),
            ("2026-11-00", None),
            ("26-11-23", None),
            ("2026-11-23T24:00Z", None),
            ("2026-11-23T18Z", None),
            ("+026-11-23", None),
            ("1700000000", None),
            ("", None),
        ] {
            assert_eq!(parse_expiry(text), seconds.map(UnixMillis::from_secs), "{text}");
        }
    }

    #[test]
    fn a_token_is_the_same_in_every_spelling_and_order() {
        let first = token(QUERY).unwrap();
        let other = token("sig=%61B%2bc%3d&SP=r&sr=b&v=2&se=2026-11-23T18%3a05%3a00Z&sv=2022-11-02").unwrap();
        assert_eq!(first.bytes(), other.bytes());
        assert_eq!(first.expires(), Some(UnixMillis::from_secs(1_795_457_100)));
        assert_ne!(first.bytes(), token(&QUERY.replace("sp=r", "sp=rw")).unwrap().bytes());
        assert!(!format!("{first:?}").contains("aB"));
    }

    #[test]
    fn a_delegation_key_ends_its_signature() {
        let query = format!("{QUERY}&ske=2026-11-23T18%3A04%3A00Z");
        let earlier = token(&query).unwrap().expires().unwrap();
        assert_eq!(token(QUERY).unwrap().expires().unwrap().since(earlier), Duration::from_secs(60));
        assert_eq!(token("sig=x&se=soon").unwrap().expires(), None);
    }

    #[test]
    fn without_a_signature_there_is_no_token() {
        assert!(token("v=1&sv=2&se=2026-11-23").is_none());
        assert!(AuthToken::from_query(QUERY, &AuthParameters::None).is_none());
        let named = AuthParameters::Named(vec!["token".to_owned()]);
        assert_eq!(AuthToken::from_query("Token=a&token=%7eb", &named).unwrap().bytes(), b"token=~b");
        assert!(AuthToken::from_query("Token=a", &named).is_none());
    }

    #[test]
    fn redaction_spares_what_is_no_secret() {
        let text = redact("/p", Some(QUERY), Secrets::AzureSas);
        assert_eq!(text, "/p?v=1&sv=REDACTED&se=REDACTED&sr=REDACTED&sp=REDACTED&sig=REDACTED");
        assert_eq!(
            redact("/p", Some("%73ig=x&SIG=y&a=1&sig"), Secrets::None),
            "/p?%73ig=REDACTED&SIG=REDACTED&a=1&sig"
        );
        assert_eq!(redact("/p", Some(""), Secrets::None), "/p?");
        assert_eq!(redact("/p", None, Secrets::None), "/p");
    }

    proptest! {
        #[test]
        fn expiry_of_arbitrary_text_never_panics(text in "[0-9T:Z.+-]{0,30}|\\PC{0,20}") {
            let _ = parse_expiry(&text);
        }

        #[test]
        fn every_day_is_one_day_after_the_one_before(day in 0i64..80_000) {
            let date = httpdate::fmt_http_date(UnixMillis::from_secs(day as u64 * 86_400).to_system_time());
            let month = 1 + "JanFebMarAprMayJunJulAugSepOctNovDec".find(&date[8..11]).unwrap() / 3;
            let text = format!("{}-{month:02}-{}", &date[12..16], &date[5..7]);
            prop_assert_eq!(parse_expiry(&text), Some(UnixMillis::from_secs(day as u64 * 86_400)), "{}", text);
        }
    }
}
