//! Comma-separated field values (RFC 9110 section 5.6.1), over all lines of a field. What the members mean is the
//! business of those who ask.

use http::{HeaderMap, HeaderName};

/// The members of all lines of `name` in order, without the white space around them and without empty ones. A comma
/// in a quoted string does not separate; a quote that is never closed is an ordinary character.
pub(super) fn members<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).iter().flat_map(|line| split(line.as_bytes())).map(trim).filter(|member| !member.is_empty())
}

/// The only line of `name`, without the white space around it; `None` when there is none or several.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    lines.next().is_none().then(|| trim(line.as_bytes()))
}

/// `text` without spaces and tabs at its ends.
pub(super) fn trim(text: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = text.iter().position(|byte| !is_space(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    text.get(start..end).unwrap_or_default()
}

fn split(line: &[u8]) -> Vec<&[u8]> {
    let mut members = Vec::new();
    let (mut start, mut at) = (0, 0);
    let mut may_quote = true;
    while let Some(byte) = line.get(at) {
        match byte {
            b'"' if may_quote => match closing_quote(line, at) {
                Some(close) => at = close,
                // Whatever quote follows was escaped just now, so it stays open as well.
                None => may_quote = false,
            },
            b',' => {
                members.extend(line.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    members.extend(line.get(start..));
    members
}

/// Where the quoted string that opens at `open` ends (RFC 9110 section 5.6.4).
fn closing_quote(line: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    loop {
        match line.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::VARY;
    use proptest::prelude::*;

    use super::*;

    fn lines(lines: &[&[u8]]) -> HeaderMap {
        lines.iter().map(|line| (VARY, HeaderValue::from_bytes(line).unwrap())).collect()
    }

    #[test]
    fn members_of_several_lines_are_one_list() {
        for (input, expected) in [
            (&[&b"a, b"[..], b" ,, c\t"][..], &["a", "b", "c"][..]),
            (&[b"x=\"a, b\" , y"], &["x=\"a, b\"", "y"]),
            (&[b"x=\"a\\\", b\", y"], &["x=\"a\\\", b\"", "y"]),
            (&[b"x=\"a, b"], &["x=\"a", "b"]),
            (&[b"x=\"a\\"], &["x=\"a\\"]),
            (&[b"", b" , "], &[]),
        ] {
            let headers = lines(input);
            let found: Vec<_> =
                members(&headers, &VARY).map(|member| String::from_utf8_lossy(member).into_owned()).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn single_means_exactly_one_line() {
        assert_eq!(single(&lines(&[b" a "]), &VARY), Some(&b"a"[..]));
        assert_eq!(single(&lines(&[b"a", b"a"]), &VARY), None);
        assert_eq!(single(&lines(&[]), &VARY), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_invented(line in prop::collection::vec(prop_oneof![Just(b'"'), Just(b'\\'), Just(b','), 32u8..127], 0..200)) {
            let headers = lines(&[&line]);
            let kept: usize = members(&headers, &VARY).map(<[u8]>::len).sum();
            prop_assert!(kept <= line.len());
        }
    }
}
