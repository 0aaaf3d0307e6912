//! `Max-Forwards` (RFC 9110 section 7.6.2): how far a request that asks about the way may go.

use http::header::MAX_FORWARDS;
use http::{HeaderMap, HeaderValue};

use super::list;

/// How a request goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forwards {
    /// As it is: nothing limits it.
    Unlimited,
    /// With this value in the field.
    Less(HeaderValue),
    /// Not at all: it is to be answered here.
    End,
}

/// Reads the field of a request whose method heeds it. What is no number says nothing; one that is too large counts as the
/// largest.
pub fn forwards(request: &HeaderMap) -> Forwards {
    let digits =
        list::single(request, &MAX_FORWARDS).filter(|text| !text.is_empty() && text.iter().all(u8::is_ascii_digit));
    let Some(digits) = digits else { return Forwards::Unlimited };
    let number = digits.iter().fold(0u32, |sum, digit| sum.saturating_mul(10).saturating_add(u32::from(digit - b'0')));
    number.checked_sub(1).map_or(Forwards::End, |less| Forwards::Less(HeaderValue::from(less)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::sample::fields;

    #[test]
    fn the_number_is_counted_down_to_the_end() {
        let less = |number: u32| Forwards::Less(HeaderValue::from(number));
        for (value, expected) in [
            ("0", Forwards::End),
            ("000", Forwards::End),
            ("1", less(0)),
            ("10", less(9)),
            ("99999999999999999999", less(u32::MAX - 1)),
            ("", Forwards::Unlimited),
            ("-1", Forwards::Unlimited),
            ("1, 2", Forwards::Unlimited),
            ("x", Forwards::Unlimited),
        ] {
            assert_eq!(forwards(&fields(&[("max-forwards", value)])), expected, "{value}");
        }
        assert_eq!(forwards(&HeaderMap::new()), Forwards::Unlimited);
    }
}
