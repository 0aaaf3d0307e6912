//! Sizes and times as people write them: `10 GB`, `1 MiB`, `500ms`, `2h`.
//!
//! GB is 10^9 and GiB is 2^30 (IEC 80000-13). A time without a unit is refused, since nobody can know whether
//! seconds or milliseconds were meant; a size without one is in bytes.

use std::time::Duration;

/// Units of sizes, in bytes.
const SIZES: [(&str, u64); 12] = [
    ("", 1),
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("pb", 1_000_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("pib", 1 << 50),
];

/// Units of what links carry, in bits.
const BITS: [(&str, u64); 5] =
    [("bit", 1), ("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000), ("tbit", 1_000_000_000_000)];

/// Units of times, in milliseconds.
const TIMES: [(&str, u64); 6] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// The text is not a size or a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// No number in front.
    #[error("there is no number in front")]
    Number,
    /// Not a unit, or none where one is needed.
    #[error("the unit is missing or unknown")]
    Unit,
    /// `b` alone, which may be bits or bytes.
    #[error("b may be bits or bytes")]
    BitsOrBytes,
    /// More than 2^64-1 bytes or milliseconds.
    #[error("it is too large")]
    TooLarge,
    /// Less than one byte or millisecond in the fraction.
    #[error("the fraction is finer than the smallest unit")]
    TooFine,
}

/// Parses a size in bytes: `4096`, `64 KiB`, `1.5 GB`. Units in any case.
///
/// # Errors
/// When it is not a decimal number with a known unit or does not fit.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    parse(text, &SIZES)
}

/// Parses a time: `500ms`, `10s`, `1.5 h`, `7d`; `m` and `min` are minutes.
///
/// # Errors
/// When it is not a decimal number with a known unit or does not fit. A bare `0` is a time, too.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    parse(text, &TIMES).map(Duration::from_millis)
}

/// Parses a rate in bytes per second: `2 MB/s`, `64 KiB/s`, `20 Mbit/s`. Bits are counted in thousands, as links are
/// sold. Without `/s` it is meant all the same: nothing else can be. `Mb` is refused, since it may be either.
///
/// # Errors
/// When it is not a decimal number with a known unit, is no whole number of bytes, or does not fit.
pub(super) fn parse_rate(text: &str) -> Result<u64, UnitError> {
    let text = text.trim();
    let text = text.strip_suffix("/s").or_else(|| text.strip_suffix("/S")).unwrap_or(text).trim_end();
    if text.to_ascii_lowercase().ends_with("bit") {
        let bits = parse(text, &BITS)?;
        return if bits % 8 == 0 { Ok(bits / 8) } else { Err(UnitError::TooFine) };
    }
    if text.ends_with('b') {
        return Err(UnitError::BitsOrBytes);
    }
    parse(text, &SIZES)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Result<u64, UnitError> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().to_ascii_lowercase();
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
        return Err(UnitError::Number);
    }
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or(UnitError::Unit)?;
    let factor = u128::from(*factor);
    let whole: u64 = whole.parse().map_err(|_| UnitError::TooLarge)?;
    let fraction = fraction.trim_end_matches('0');
    // 18 digits of fraction times the largest unit still fit in 128 bits.
    let digits = u32::try_from(fraction.len()).ok().filter(|digits| *digits <= 18).ok_or(UnitError::TooFine)?;
    let scale = 10u128.pow(digits);
    let part = if fraction.is_empty() { 0 } else { fraction.parse::<u128>().map_err(|_| UnitError::Number)? };
    if !(part * factor).is_multiple_of(scale) {
        return Err(UnitError::TooFine);
    }
    u64::try_from(u128::from(whole) * factor + part * factor / scale).map_err(|_| UnitError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates() {
        for (text, rate) in [
            ("2 MB/s", Ok(2_000_000)),
            ("64 KiB/s", Ok(65_536)),
            ("20 Mbit/s", Ok(2_500_000)),
            ("1.5 mbit/s", Ok(187_500)),
            ("1 MB", Ok(1_000_000)),
            ("1 bit/s", Err(UnitError::TooFine)),
            ("2 MB/min", Err(UnitError::Unit)),
            ("2 Mibit/s", Err(UnitError::Unit)),
            ("20 Mb/s", Err(UnitError::BitsOrBytes)),
            ("20 mb", Err(UnitError::BitsOrBytes)),
            ("fast", Err(UnitError::Number)),
        ] {
            assert_eq!(parse_rate(text), rate, "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("10 GB", 10_000_000_000),
            ("10gb", 10_000_000_000),
            ("1 MiB", 1 << 20),
            ("  1.5 GiB ", 3 << 29),
            ("0.001 kB", 1),
            ("16384 PiB", 0),
            ("18446744073709551615", u64::MAX),
        ] {
            let expected = if text == "16384 PiB" { Err(UnitError::TooLarge) } else { Ok(bytes) };
            assert_eq!(parse_size(text), expected, "{text}");
        }
        for (text, error) in [
            ("", UnitError::Number),
            ("GB", UnitError::Number),
            ("-1 GB", UnitError::Number),
            ("1.", UnitError::Number),
            (".5 GB", UnitError::Number),
            ("1.2.3 GB", UnitError::Number),
            ("10 G", UnitError::Unit),
            ("1e3", UnitError::Unit),
            ("1 GB 2", UnitError::Unit),
            ("18446744073709551616", UnitError::TooLarge),
            ("0.5", UnitError::TooFine),
            ("0.1 KiB", UnitError::TooFine),
            ("0.0000000000000000001 GB", UnitError::TooFine),
        ] {
            assert_eq!(parse_size(text), Err(error), "{text}");
        }
    }

    #[test]
    fn times() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("1.5 h", 5_400_000),
            ("2 min", 120_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for (text, error) in [
            ("10", UnitError::Unit),
            ("10 years", UnitError::Unit),
            ("s", UnitError::Number),
            ("0.5ms", UnitError::TooFine),
            ("18446744073709551615 d", UnitError::TooLarge),
        ] {
            assert_eq!(parse_duration(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gets_an_answer(text in "\\PC{0,40}") {
            let _ = (parse_size(&text), parse_duration(&text));
        }

        #[test]
        fn numbers_with_units_are_exact(number in 0u64..1_000_000, unit in 0usize..SIZES.len()) {
            let (name, factor) = SIZES[unit];
            prop_assert_eq!(parse_size(&format!("{number} {name}")), number.checked_mul(factor).ok_or(UnitError::TooLarge));
        }
    }
}
