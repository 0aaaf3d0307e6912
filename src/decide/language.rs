//! `Accept-Language` (RFC 9110 section 12.5.4) as far as stored responses are selected by it: requests that mean the same, and
//! what a request likes best.

use http::header::{ACCEPT_LANGUAGE, CONTENT_LANGUAGE};
use http::{HeaderMap, HeaderValue};

use super::list;

/// The weight of a range without one, in thousandths.
const FULL: u16 = 1000;

/// A language range and how much it is liked.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Wish {
    weight: std::cmp::Reverse<u16>,
    /// In lower case.
    range: Vec<u8>,
}

/// The wishes of a request, the dearest first and equal ones by name: their order in the field means nothing. `None` when one
/// of them is malformed.
fn wishes(request: &HeaderMap) -> Option<Vec<Wish>> {
    let mut wishes = list::members(request, &ACCEPT_LANGUAGE).map(wish).collect::<Option<Vec<_>>>()?;
    wishes.sort_unstable();
    Some(wishes)
}

fn wish(member: &[u8]) -> Option<Wish> {
    let mut parts = member.split(|byte| *byte == b';').map(list::trim);
    let range = parts.next().filter(|range| is_range(range))?.to_ascii_lowercase();
    let weight = match parts.next() {
        None => FULL,
        Some([b'q' | b'Q', b'=', weight @ ..]) => thousandths(weight)?,
        Some(_) => return None,
    };
    parts.next().is_none().then_some(Wish { weight: std::cmp::Reverse(weight), range })
}

/// RFC 4647 section 2.1, without counting letters.
fn is_range(text: &[u8]) -> bool {
    text == b"*"
        || (!text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte == b'*'))
}

/// A weight (RFC 9110 section 12.4.2): from 0 to 1 with up to three digits behind the point.
fn thousandths(text: &[u8]) -> Option<u16> {
    let (whole, fraction) = match text {
        [whole] | [whole, b'.'] => (*whole, &[][..]),
        [whole, b'.', fraction @ ..] => (*whole, fraction),
        _ => return None,
    };
    if !matches!(whole, b'0' | b'1') || fraction.len() > 3 || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(3);
    let weight = digits.fold(u16::from(whole - b'0'), |sum, digit| sum * 10 + u16::from(digit - b'0'));
    (weight <= FULL).then_some(weight)
}

/// The field in one spelling for all that mean the same; `None` when it is malformed.
pub(super) fn normalised(request: &HeaderMap) -> Option<HeaderValue> {
    let mut text = Vec::new();
    for Wish { weight, range } in wishes(request)? {
        if !text.is_empty() {
            text.push(b',');
        }
        text.extend_from_slice(&range);
        if weight.0 < FULL {
            text.extend_from_slice(
                format!(";q=0.{:03}", weight.0).trim_end_matches('0').trim_end_matches('.').as_bytes(),
            );
        }
    }
    HeaderValue::from_bytes(&text).ok()
}

/// Whether a response is in just that language which the request likes more than every other: whatever else the origin
/// has, it has nothing better.
pub(super) fn is_favourite(request: &HeaderMap, response: &HeaderMap) -> bool {
    let mut languages = list::members(response, &CONTENT_LANGUAGE);
    let (Some(language), None) = (languages.next(), languages.next()) else { return false };
    match wishes(request).as_deref() {
        Some([first, rest @ ..]) => {
            let is_alone = rest.first().is_none_or(|second| second.weight > first.weight);
            is_alone && first.weight.0 > 0 && first.range.eq_ignore_ascii_case(language)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decide::sample::fields;

    fn normal(value: &str) -> Option<String> {
        let value = normalised(&fields(&[("accept-language", value)]))?;
        Some(value.to_str().unwrap().to_owned())
    }

    #[test]
    fn what_means_the_same_is_written_the_same() {
        for (value, expected) in [
            ("en, de", "de,en"),
            ("De ,\tEN;q=1.000", "de,en"),
            ("de;q=0.5, en, fr;Q=0.70", "en,fr;q=0.7,de;q=0.5"),
            ("en ; q=0", "en;q=0"),
            ("en;q=0.001", "en;q=0.001"),
            ("*, zh-Hant-tw;q=0.", "*,zh-hant-tw;q=0"),
            ("", ""),
        ] {
            assert_eq!(normal(value).as_deref(), Some(expected), "{value}");
        }
        for malformed in ["en;q=2", "en;q=1.001", "en;q=0.1234", "en;q=", "en;x=1", "en;q=1;q=1", "e n", "en;q=.5"] {
            assert_eq!(normal(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn only_one_language_above_all_others_is_the_favourite() {
        for (wish, language, expected) in [
            ("de", "de", true),
            ("fr;q=0.5, DE", "de", true),
            ("fr;q=0.5, de;q=0.6", "De", true),
            ("fr, de", "de", false),
            ("fr, de;q=0.5", "de", false),
            ("de-at", "de", false),
            ("de", "de-at", false),
            ("*", "de", false),
            ("de;q=0", "de", false),
            ("de", "de, en", false),
            ("de;q=x", "de", false),
            ("", "de", false),
        ] {
            let request = fields(&[("accept-language", wish)]);
            let response = fields(&[("content-language", language)]);
            assert_eq!(is_favourite(&request, &response), expected, "{wish} {language}");
        }
        assert!(!is_favourite(&fields(&[("accept-language", "de")]), &HeaderMap::new()));
        assert!(!is_favourite(&HeaderMap::new(), &fields(&[("content-language", "de")])));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(line in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                let request = HeaderMap::from_iter([(ACCEPT_LANGUAGE, value.clone())]);
                normalised(&request);
                is_favourite(&request, &HeaderMap::from_iter([(CONTENT_LANGUAGE, value)]));
            }
        }

        #[test]
        fn the_normal_form_is_its_own(wishes in prop::collection::vec(("[a-z]{1,3}", 0u16..=1000), 1..5)) {
            let text: Vec<_> = wishes.iter().map(|(range, weight)| format!("{range};q={}.{:03}", weight / 1000, weight % 1000)).collect();
            let once = normal(&text.join(", ")).unwrap();
            prop_assert_eq!(normal(&once), Some(once));
        }
    }
}
