//! How urgent a client says that its request is: the `Priority` field (RFC 9218). Pure; what follows from it is decided where
//! not all bytes may come at once.

use http::{HeaderMap, HeaderName};

use super::dictionary::{Value, dictionary};

const PRIORITY: HeaderName = HeaderName::from_static("priority");

/// The urgency of a request that says none (RFC 9218 section 4.1).
const DEFAULT: u8 = 3;
/// The least urgent one.
const LAST: i64 = 7;

/// The urgency of a request, from 0, which is the most urgent, to 7. What is no dictionary, out of range or of another type
/// says nothing (RFC 9218 section 4), nor do other parameters.
pub fn urgency(request: &HeaderMap) -> u8 {
    let members = dictionary(request, &PRIORITY).unwrap_or_default();
    let said = members.into_iter().find_map(|(key, value)| match value {
        Value::Integer(said @ 0..=LAST) if key == "u" => u8::try_from(said).ok(),
        _ => None,
    });
    said.unwrap_or(DEFAULT)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_said_counts_and_what_is_malformed_does_not() {
        for (lines, expected) in [
            (&[][..], 3),
            (&[""], 3),
            (&["u=0"], 0),
            (&["u=5, i"], 5),
            (&["i, u=7;x=1, other=(1 2)"], 7),
            (&["u=1, u=6"], 6),
            (&["u=1", "u=4"], 4),
            (&["u=2", "i=?0"], 2),
            // Out of range, or of another type.
            (&["u=8"], 3),
            (&["u=-1"], 3),
            (&["u=5.0"], 3),
            (&["u=\"5\""], 3),
            (&["u"], 3),
            (&["u=1, u=9"], 3),
            // No dictionary.
            (&["u=5,"], 3),
            (&["U=5"], 3),
            (&["u = 5"], 3),
            (&["u=5", ";"], 3),
            (&["urgent"], 3),
        ] {
            let lines = lines.iter().map(|line| (PRIORITY, HeaderValue::from_static(line)));
            assert_eq!(urgency(&lines.clone().collect()), expected, "{:?}", lines.collect::<Vec<_>>());
        }
    }
}
