//! Query strings as lists of parameters, byte for byte: nothing is re-encoded here.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// One `name=value` between two `&`. A query always has at least one, possibly empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// As received.
    pub raw: &'a str,
    /// Up to the first `=`, as received.
    pub name: &'a str,
    /// After the first `=`, as received; `None` without one.
    pub value: Option<&'a str>,
}

/// The parameters of a query (the part after `?`), in order.
pub fn parameters(query: &str) -> impl DoubleEndedIterator<Item = Parameter<'_>> {
    query.split('&').map(|raw| match raw.split_once('=') {
        Some((name, value)) => Parameter { raw, name, value: Some(value) },
        None => Parameter { raw, name: raw, value: None },
    })
}

/// The query of those parameters that `keep` accepts, or `None` when none is left: no `&` and no `?` dangles.
/// An empty parameter that was received and kept stays.
pub(super) fn retain<'a>(query: &'a str, mut keep: impl FnMut(&Parameter<'a>) -> bool) -> Option<String> {
    let mut kept: Option<String> = None;
    for parameter in parameters(query).filter(|parameter| keep(parameter)) {
        match &mut kept {
            Some(text) => {
                text.push('&');
                text.push_str(parameter.raw);
            }
            None => kept = Some(parameter.raw.to_owned()),
        }
    }
    kept
}

/// Splits a target into its path and its query; a `?` with nothing behind it is an empty query.
pub(super) fn split_target(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

impl<'a> Parameter<'a> {
    /// The name, percent-decoded.
    pub fn decoded_name(&self) -> Cow<'a, [u8]> {
        percent_decode(self.name.as_bytes()).into()
    }

    /// Whether the percent-decoded name is `name`.
    pub fn is_named(&self, name: &str) -> bool {
        percent_decode(self.name.as_bytes()).eq(name.bytes())
    }

    /// Whether the percent-decoded name is `name` in any case.
    pub fn is_named_ignoring_case(&self, name: &str) -> bool {
        self.decoded_name().eq_ignore_ascii_case(name.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removal_leaves_no_separator_behind() {
        let without_x = |query| retain(query, |p| !p.is_named("x"));
        for (query, expected) in [
            ("x=1", None),
            ("x", None),
            ("", Some("")),
            ("a=1&x=1", Some("a=1")),
            ("x=1&a=1", Some("a=1")),
            ("a=1&x=1&b=%2f+", Some("a=1&b=%2f+")),
            ("x=1&x=2", None),
            ("a&&x=1", Some("a&")),
            ("&x=1", Some("")),
            ("%78=1&b", Some("b")),
            ("X=1", Some("X=1")),
        ] {
            assert_eq!(without_x(query).as_deref(), expected, "{query}");
        }
    }

    #[test]
    fn names_end_at_the_first_equals_sign() {
        let all: Vec<_> = parameters("a=b=c&&d").map(|p| (p.name, p.value)).collect();
        assert_eq!(all, [("a", Some("b=c")), ("", None), ("d", None)]);
    }
}
