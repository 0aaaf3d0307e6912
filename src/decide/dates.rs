//! HTTP dates (RFC 9110 section 5.6.7), exactly its three forms; letters may be of any case.
//!
//! The library's parser is checked by writing the date again: what does not come back as it was is no HTTP date.

use http::{HeaderMap, HeaderName};

use crate::content::UnixMillis;

/// The date in the field `name`, which must be there once.
pub(super) fn date_field(headers: &HeaderMap, name: &HeaderName) -> Option<UnixMillis> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    parse_date(value)
}

/// Reads a date in the IMF, RFC 850 or asctime form; always GMT.
pub fn parse_date(text: &str) -> Option<UnixMillis> {
    let time = httpdate::parse_http_date(&capitalised(text.trim_matches([' ', '\t']))).ok()?;
    let date = UnixMillis::from(time);
    let written = httpdate::fmt_http_date(time);
    let same_time = |at: usize, part: &str| text.trim().get(at..at + part.len()).is_some_and(|t| t == part);
    let trimmed = text.trim_matches([' ', '\t']);
    let valid = match trimmed.as_bytes().get(3) {
        // Mon, 23 Nov 2026 12:00:00 GMT
        Some(b',') => trimmed.eq_ignore_ascii_case(&written),
        // Mon Nov 23 12:00:00 2026
        Some(b' ') => trimmed.len() == 24 && same_time(11, written.get(17..25)?),
        // Monday, 23-Nov-26 12:00:00 GMT
        _ => {
            let comma = trimmed.find(',')?;
            let rest = trimmed.get(comma + 1..)?;
            rest.len() == 23 && rest.to_ascii_uppercase().ends_with(" GMT") && rest.get(11..19) == written.get(17..25)
        }
    };
    valid.then_some(date)
}

/// Names as the parser wants them: `MON, 23 nov` becomes `Mon, 23 Nov`, `gmt` becomes `GMT`.
fn capitalised(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_inclusive([' ', '-', ',']) {
        if word.trim().eq_ignore_ascii_case("gmt") {
            out.push_str(&word.to_ascii_uppercase());
            continue;
        }
        let mut chars = word.chars();
        out.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        out.extend(chars.map(|c| c.to_ascii_lowercase()));
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_three_forms_and_nothing_else() {
        let expected = Some(UnixMillis::from_secs(784_111_777));
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "SUN, 06 nov 1994 08:49:37 gmt",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse_date(text), expected, "{text}");
        }
        for text in [
            "",
            "0",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 AEST",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun,  06  Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Mon, 06 Nov 1994 08:49:37 GMT x",
        ] {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seconds in 0u64..4_000_000_000) {
            let date = UnixMillis::from_secs(seconds);
            prop_assert_eq!(parse_date(&httpdate::fmt_http_date(date.to_system_time())), Some(date));
        }

        #[test]
        fn any_text_is_read_without_fault(text in "\\PC{0,40}") {
            let _ = parse_date(&text);
        }
    }
}
