//! `Vary`: which request fields select a stored response (RFC 9111 section 4.1), with normalised values.

use http::header::{ACCEPT_ENCODING, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::content::{Policy, Record, VaryField};

/// `Vary` has the member `*`: no request ever selects the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Vary: *")]
pub struct VaryStar;

/// Whether any member of any `Vary` line is `*`.
pub(super) fn varies_on_everything(response: &HeaderMap) -> bool {
    members(response).any(|member| member == "*")
}

/// The request fields that select this response, with the values that the request has.
///
/// # Errors
/// [`VaryStar`] when nothing can select it.
pub fn selecting_fields(
    response: &HeaderMap,
    request: &HeaderMap,
    policy: &Policy,
) -> Result<Vec<VaryField>, VaryStar> {
    let mut fields: Vec<VaryField> = Vec::new();
    for member in members(response) {
        if member == "*" {
            return Err(VaryStar);
        }
        let Ok(name) = HeaderName::from_bytes(member.as_bytes()) else { continue };
        let ignored = policy.identity_only && name == ACCEPT_ENCODING;
        if !ignored && !fields.iter().any(|field| field.name == name) {
            let value = normalised(request, &name);
            fields.push(VaryField { name, value });
        }
    }
    fields.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
    Ok(fields)
}

/// Whether `request` selects `record`.
pub fn vary_matches(record: &Record, request: &HeaderMap) -> bool {
    record.vary.iter().all(|field| normalised(request, &field.name) == field.value)
}

fn members(response: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = response.get_all(VARY).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|member| !member.is_empty())
}

/// All values of a field as one list without optional white space; `None` when the request has none.
fn normalised(request: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut joined: Vec<u8> = Vec::new();
    let mut present = false;
    for value in request.get_all(name) {
        present = true;
        for member in value.as_bytes().split(|&byte| byte == b',') {
            let member = member.trim_ascii();
            if !member.is_empty() {
                if !joined.is_empty() {
                    joined.push(b',');
                }
                joined.extend_from_slice(member);
            }
        }
    }
    // Bytes of valid values stay valid when joined by commas.
    present.then(|| HeaderValue::from_bytes(&joined).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fields, record};
    use super::*;

    #[test]
    fn the_named_fields_select() {
        let policy = Policy::for_host("a.example");
        let asked = fields(&[("accept-language", "de, en"), ("x-a", "1")]);
        let mut stored = record(0, &[]);
        stored.vary = selecting_fields(&fields(&[("vary", "Accept-Language, X-B")]), &asked, &policy).unwrap();
        assert!(vary_matches(&stored, &asked));
        assert!(vary_matches(&stored, &fields(&[("accept-language", "de"), ("accept-language", "en")])), "lines join");
        assert!(
            vary_matches(&stored, &fields(&[("accept-language", "de,en"), ("x-a", "2")])),
            "not named, not looked at"
        );
        assert!(!vary_matches(&stored, &fields(&[("accept-language", "en, de")])), "order may matter");
        assert!(!vary_matches(&stored, &fields(&[("accept-language", "de, en"), ("x-b", "")])), "empty is not absent");
        assert!(!vary_matches(&stored, &HeaderMap::new()));
    }

    #[test]
    fn a_star_anywhere_matches_nothing() {
        let policy = Policy::for_host("a.example");
        for lines in [&[("vary", "*")][..], &[("vary", "a, *")], &[("vary", "*, a")], &[("vary", ""), ("vary", " *")]] {
            assert_eq!(selecting_fields(&fields(lines), &HeaderMap::new(), &policy), Err(VaryStar), "{lines:?}");
        }
    }

    #[test]
    fn a_rule_that_asks_for_identity_ignores_accept_encoding() {
        let mut policy = Policy::for_host("a.example");
        policy.identity_only = true;
        let vary = fields(&[("vary", "Accept-Encoding")]);
        assert_eq!(selecting_fields(&vary, &fields(&[("accept-encoding", "gzip")]), &policy), Ok(Vec::new()));
    }
}
