//! Which request fields select a stored response (RFC 9111 section 4.1).

use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{language, list};
use crate::content::{Policy, Record, VaryField};

/// The response varies on something that is not in the request (`Vary: *`), or on what is no field name: it answers
/// no other request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the response varies on everything")]
pub struct VaryStar;

/// The fields of `request` that `response` varies on, normalised and sorted by name. `Accept-Encoding` is left out
/// under a policy that asks for identity, since all clients get the same bytes then.
///
/// # Errors
/// When the response cannot be selected by any other request.
pub fn selecting_fields(
    response: &HeaderMap,
    request: &HeaderMap,
    policy: &Policy,
) -> Result<Vec<VaryField>, VaryStar> {
    let mut names = Vec::new();
    for member in list::members(response, &VARY) {
        // `*` is a token, and so would pass for a name.
        let name = HeaderName::from_bytes(member).ok().filter(|name| name.as_str() != "*").ok_or(VaryStar)?;
        if !(policy.identity_only && name == ACCEPT_ENCODING) {
            names.push(name);
        }
    }
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    Ok(names.into_iter().map(|name| VaryField { value: normalised(request, &name), name }).collect())
}

/// Whether `request` selects `record`: all fields that it varies on mean what they meant, or the record is in the one
/// language that the request likes best.
pub fn vary_matches(record: &Record, request: &HeaderMap) -> bool {
    // A 304 may have brought a `*`.
    !list::members(&record.headers, &VARY).any(|member| member == b"*")
        && record.vary.iter().all(|field| {
            // An error in that language does not say that there is nothing better.
            let is_liked = || {
                field.name == ACCEPT_LANGUAGE
                    && record.status.is_success()
                    && language::is_favourite(request, &record.headers)
            };
            normalised(request, &field.name) == field.value || is_liked()
        })
}

/// Lines joined, without white space around commas, letters in lower case where case has no meaning (RFC 9110
/// sections 12.5.3 and 12.5.4), languages in the order of their weights. `None` when the field is absent.
fn normalised(request: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    if !request.contains_key(name) {
        return None;
    }
    if *name == ACCEPT_LANGUAGE
        && let Some(value) = language::normalised(request)
    {
        return Some(value);
    }
    let members: Vec<_> = list::members(request, name).collect();
    let mut value = members.join(&b","[..]);
    if *name == ACCEPT_ENCODING || *name == ACCEPT_LANGUAGE {
        value.make_ascii_lowercase();
    }
    HeaderValue::from_bytes(&value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::sample::{fields, policy, record};

    /// Whether a response with `vary` that was given to `first` answers `second`.
    fn selects(
        vary: &[(&'static str, &str)],
        first: &[(&'static str, &str)],
        second: &[(&'static str, &str)],
        policy: &Policy,
    ) -> Result<bool, VaryStar> {
        let mut stored = record(200, vary);
        stored.vary = selecting_fields(&stored.headers, &fields(first), policy)?;
        Ok(vary_matches(&stored, &fields(second)))
    }

    #[test]
    fn named_fields_must_be_the_same() {
        let foo = [("vary", "Foo, bar")];
        for (first, second, expected) in [
            (&[("foo", "1")][..], &[("foo", "1")][..], true),
            (&[("foo", "1")], &[("foo", "1"), ("other", "2")], true),
            (&[("foo", "1")], &[("foo", "2")], false),
            (&[("foo", "1")], &[], false),
            (&[], &[("foo", "1")], false),
            (&[], &[("foo", "")], false),
            (&[], &[], true),
            (&[("foo", "1"), ("bar", "abc")], &[("bar", "abc"), ("foo", "1")], true),
            (&[("foo", "1"), ("bar", "abc")], &[("foo", "1"), ("bar", "abcde")], false),
            // Normalised.
            (&[("foo", "1, 2")], &[("foo", "1"), ("foo", "2")], true),
            (&[("foo", "1,2")], &[("foo", " 1, 2 ")], true),
            (&[("foo", "1 2")], &[("foo", "12")], false),
            (&[("foo", "\"a, b\"")], &[("foo", "\"a,b\"")], false),
            (&[("foo", "a")], &[("foo", "A")], false),
        ] {
            assert_eq!(selects(&foo, first, second, &policy()), Ok(expected), "{first:?} {second:?}");
        }
    }

    #[test]
    fn languages_and_codings_have_no_case() {
        let by_language = [("vary", "Accept-Language")];
        let selects =
            |second| selects(&by_language, &[("accept-language", "en, de")], &[("accept-language", second)], &policy());
        assert_eq!(selects("eN ,  De"), Ok(true));
        assert_eq!(selects("de, en;q=1.0"), Ok(true), "equal weights have no order");
        assert_eq!(selects("de, en;q=0.9"), Ok(false));
        assert_eq!(selects("en"), Ok(false));
        assert_eq!(selects("de, en;q=x"), Ok(false));
    }

    #[test]
    fn the_language_that_is_liked_best_is_selected_whoever_asked_for_it() {
        let vary = [("vary", "Accept-Language, foo"), ("content-language", "de")];
        let first = [("accept-language", "en, de"), ("foo", "1")];
        let selects = |wish, foo| selects(&vary, &first, &[("accept-language", wish), ("foo", foo)], &policy());
        assert_eq!(selects("fr;q=0.5, de;q=1.0", "1"), Ok(true));
        assert_eq!(selects("fr;q=0.5, de;q=1.0", "2"), Ok(false), "other fields count all the same");
        assert_eq!(selects("fr, de", "1"), Ok(false), "the origin may choose either");
    }

    #[test]
    fn a_star_anywhere_selects_nothing() {
        for vary in [
            &[("vary", "*")][..],
            &[("vary", "*, *")],
            &[("vary", "*"), ("vary", "*")],
            &[("vary", ", *")],
            &[("vary", ""), ("vary", "*")],
            &[("vary", "foo, *")],
            &[("vary", "*, foo")],
            &[("vary", "foo"), ("vary", "*")],
            &[("vary", "foo bar")],
        ] {
            assert_eq!(selects(vary, &[], &[], &policy()), Err(VaryStar), "{vary:?}");
        }
        assert!(!vary_matches(&record(200, &[("vary", "foo, *")]), &HeaderMap::new()));
    }

    #[test]
    fn codings_do_not_count_when_identity_is_asked_for() {
        let vary = [("vary", "Accept-Encoding, foo")];
        let (first, second) = ([("accept-encoding", "gzip")], [("accept-encoding", "br")]);
        assert_eq!(selects(&vary, &first, &second, &policy()), Ok(false));
        let identity_only = Policy { identity_only: true, ..policy() };
        assert_eq!(selects(&vary, &first, &second, &identity_only), Ok(true));
        assert_eq!(selects(&[("vary", "*")], &first, &second, &identity_only), Err(VaryStar));
    }

    #[test]
    fn order_and_repetition_of_names_make_no_variants() {
        let request = fields(&[("foo", "1"), ("bar", "2")]);
        let of = |vary| selecting_fields(&fields(&[("vary", vary)]), &request, &policy()).unwrap();
        assert_eq!(of("Foo, bar"), of("bar,FOO,bar"));
        assert_eq!(of("foo").len(), 1);
    }
}
