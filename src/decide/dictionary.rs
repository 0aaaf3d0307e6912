//! Dictionaries of structured fields (RFC 9651 section 3.2), strictly by its parsing algorithm (section 4.2): a field is a
//! dictionary as a whole or says nothing. What the members mean is the business of those who ask.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use http::{HeaderMap, HeaderName};

/// The value of a member. Parameters are checked and dropped: none of the fields that are read here has any that count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// A number without a fraction, of up to 15 digits.
    Integer(i64),
    /// A byte sequence, still in base64.
    Bytes(String),
    /// `?1`, `?0`, or a member without a value, which is true.
    Boolean(bool),
    /// A decimal, string, token, date, display string or inner list.
    Other,
}

/// The members of all lines of `name`; of several with one key the last counts. Empty when the field is absent or empty,
/// `None` when it is no dictionary.
pub(super) fn dictionary(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<(String, Value)>> {
    let mut lines = headers.get_all(name).iter().map(|line| line.as_bytes());
    let first = lines.next().unwrap_or_default();
    let text = lines.fold(Cow::from(first), |text, line| Cow::from([&text, &b", "[..], line].concat()));
    Parser { rest: &text }.dictionary()
}

struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    /// RFC 9651 section 4.2.2, with the spaces around of section 4.2.
    fn dictionary(mut self) -> Option<Vec<(String, Value)>> {
        let mut members: Vec<(String, Value)> = Vec::new();
        let mut places = HashMap::new();
        self.skip(b" ");
        while !self.rest.is_empty() {
            let key = self.key()?;
            let value = if self.take(b'=') { self.item_or_inner_list()? } else { Value::Boolean(true) };
            self.parameters()?;
            // Clients write such fields, and as long as they like.
            match places.entry(key) {
                Entry::Occupied(place) => {
                    members.iter_mut().skip(*place.get()).take(1).for_each(|it| it.1 = value.clone())
                }
                Entry::Vacant(place) => {
                    members.push((place.key().clone(), value));
                    place.insert(members.len() - 1);
                }
            }
            let had_space = self.skip(b" \t");
            if self.rest.is_empty() {
                // At the end only spaces are dropped.
                return (!had_space.contains(&b'\t')).then_some(members);
            }
            if !self.take(b',') {
                return None;
            }
            self.skip(b" \t");
            if self.rest.is_empty() {
                return None;
            }
        }
        Some(members)
    }

    fn item_or_inner_list(&mut self) -> Option<Value> {
        if !self.take(b'(') {
            return self.bare_item();
        }
        loop {
            self.skip(b" ");
            if self.take(b')') {
                return Some(Value::Other);
            }
            self.bare_item()?;
            self.parameters()?;
            if !matches!(self.rest.first(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    /// RFC 9651 section 4.2.3.2.
    fn parameters(&mut self) -> Option<()> {
        while self.take(b';') {
            self.skip(b" ");
            self.key()?;
            if self.take(b'=') {
                self.bare_item()?;
            }
        }
        Some(())
    }

    /// RFC 9651 section 4.2.3.3.
    fn key(&mut self) -> Option<String> {
        matches!(self.rest.first(), Some(b'a'..=b'z' | b'*')).then_some(())?;
        let key = self.skip_while(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*'));
        Some(String::from_utf8_lossy(key).into_owned())
    }

    /// RFC 9651 section 4.2.3.1.
    fn bare_item(&mut self) -> Option<Value> {
        match self.rest.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b':' => self.bytes(),
            b'?' => self.boolean(),
            b'@' => {
                self.take(b'@');
                matches!(self.number()?, Value::Integer(_)).then_some(Value::Other)
            }
            b'%' => self.display_string(),
            b'A'..=b'Z' | b'a'..=b'z' | b'*' => {
                self.skip_while(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte));
                Some(Value::Other)
            }
            _ => None,
        }
    }

    /// RFC 9651 section 4.2.4.
    fn number(&mut self) -> Option<Value> {
        let sign = if self.take(b'-') { -1 } else { 1 };
        let digits = self.skip_while(|byte| byte.is_ascii_digit());
        let number = digits.iter().take(15).fold(0, |sum: i64, digit| sum * 10 + i64::from(digit - b'0'));
        if !self.take(b'.') {
            return matches!(digits.len(), 1..=15).then_some(Value::Integer(sign * number));
        }
        let whole = digits.len();
        let fraction = self.skip_while(|byte| byte.is_ascii_digit()).len();
        (matches!(whole, 1..=12) && matches!(fraction, 1..=3)).then_some(Value::Other)
    }

    /// RFC 9651 section 4.2.5.
    fn string(&mut self) -> Option<Value> {
        self.take(b'"');
        loop {
            match self.next()? {
                b'"' => return Some(Value::Other),
                b'\\' => matches!(self.next()?, b'"' | b'\\').then_some(())?,
                b' '..=b'~' => {}
                _ => return None,
            }
        }
    }

    /// RFC 9651 section 4.2.7.
    fn bytes(&mut self) -> Option<Value> {
        self.take(b':');
        let encoded = self.skip_while(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
        let encoded = String::from_utf8_lossy(encoded).into_owned();
        self.take(b':').then_some(Value::Bytes(encoded))
    }

    /// RFC 9651 section 4.2.8.
    fn boolean(&mut self) -> Option<Value> {
        self.take(b'?');
        match self.next()? {
            b'1' => Some(Value::Boolean(true)),
            b'0' => Some(Value::Boolean(false)),
            _ => None,
        }
    }

    /// RFC 9651 section 4.2.10. Nobody reads the text, so that it is UTF-8 is not asked.
    fn display_string(&mut self) -> Option<Value> {
        (self.take(b'%') && self.take(b'"')).then_some(())?;
        let is_hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        loop {
            match self.next()? {
                b'"' => return Some(Value::Other),
                b'%' => (is_hex(self.next()?) && is_hex(self.next()?)).then_some(())?,
                b' '..=b'~' => {}
                _ => return None,
            }
        }
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.rest.first() == Some(&byte);
        if is_next {
            self.next();
        }
        is_next
    }

    fn skip(&mut self, any_of: &[u8]) -> &'a [u8] {
        self.skip_while(|byte| any_of.contains(&byte))
    }

    fn skip_while(&mut self, is_part: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !is_part(*byte)).unwrap_or(self.rest.len());
        let (skipped, rest) = self.rest.split_at(end);
        self.rest = rest;
        skipped
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const FIELD: HeaderName = HeaderName::from_static("a");

    fn of(lines: &[&str]) -> Option<Vec<(String, Value)>> {
        dictionary(&lines.iter().map(|line| (FIELD, HeaderValue::from_str(line).unwrap())).collect(), &FIELD)
    }

    #[test]
    fn members_of_all_types_are_read() {
        let bytes = Value::Bytes("aGk=".to_owned());
        for (text, value) in [
            ("k", Value::Boolean(true)),
            ("k;p=1;q", Value::Boolean(true)),
            ("k=?0", Value::Boolean(false)),
            ("k=0", Value::Integer(0)),
            ("k=-12;p", Value::Integer(-12)),
            ("k=999999999999999", Value::Integer(999_999_999_999_999)),
            ("k=1.5", Value::Other),
            ("k=-123456789012.123", Value::Other),
            ("k=tok/en:*", Value::Other),
            ("k=*t", Value::Other),
            ("k=\"a, \\\"b\\\\\"", Value::Other),
            ("k=:aGk=:", bytes.clone()),
            ("k=@-1", Value::Other),
            ("k=%\"f%c3%bc, r\"", Value::Other),
            ("k=()", Value::Other),
            ("k=( 1  \"a\";p=?1 b );q", Value::Other),
            ("  k=1  ", Value::Integer(1)),
            ("k=3, k=4", Value::Integer(4)),
        ] {
            assert_eq!(of(&[text]), Some(vec![("k".to_owned(), value)]), "{text}");
        }
        let several = of(&["a=1 \t,\tb", "*c-._9=:aGk=:;x=\",\""]).unwrap();
        let keys: Vec<_> = several.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!((keys, &several[2].1), (vec!["a", "b", "*c-._9"], &bytes));
        for nothing in [&[][..], &[""], &["  "]] {
            assert_eq!(of(nothing), Some(Vec::new()));
        }
    }

    #[test]
    fn of_many_members_each_has_its_last_value() {
        let text = |value: u64| (0..5000).map(move |key| format!("k{key}={value}")).collect::<Vec<_>>().join(",");
        let members = of(&[&text(1), &text(2)]).unwrap();
        assert_eq!(members.len(), 5000);
        assert!(members.iter().all(|(_, value)| *value == Value::Integer(2)));
        assert_eq!(members[4999].0, "k4999", "in the order of their first ones");
    }

    #[test]
    fn one_fault_makes_the_whole_field_say_nothing() {
        for text in [
            "k=1,",
            ",k=1",
            "k=1,,l",
            "k =1",
            "k= 1",
            "K=1",
            "1=1",
            "k=",
            "k=1 l=2",
            "k, &&&&&",
            "k=1\t",
            "k=--1",
            "k=-",
            "k=1000000000000000",
            "k=1.",
            "k=1.2345",
            "k=1234567890123.1",
            "k=\"a",
            "k=\"\\a\"",
            "k='a'",
            "k=:aGk",
            "k=:a k:",
            "k=?2",
            "k=?",
            "k=@1.5",
            "k=@",
            "k=%a",
            "k=%\"%C3\"",
            "k=(1",
            "k=(1\"a\")",
            "k;=1",
            "k;P=1",
        ] {
            assert_eq!(of(&[text]), None, "{text}");
        }
        assert_eq!(of(&["k=1", ""]), None, "lines are one list, and this one has an empty member");
        let latin = HeaderMap::from_iter([(FIELD, HeaderValue::from_bytes(b"k=\"\xe9\"").unwrap())]);
        assert_eq!(dictionary(&latin, &FIELD), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(line in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"a=1,;()\"\\:?@%.- "[..])], 0..80)) {
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                dictionary(&HeaderMap::from_iter([(FIELD, value)]), &FIELD);
            }
        }

        #[test]
        fn what_is_written_is_read_back(members in prop::collection::btree_map("[a-z*][a-z0-9_.*-]{0,5}", -999_999_999_999_999i64..=999_999_999_999_999, 0..6)) {
            let text: Vec<_> = members.iter().map(|(key, number)| format!("{key}={number}")).collect();
            let expected = members.into_iter().map(|(key, number)| (key, Value::Integer(number))).collect();
            prop_assert_eq!(of(&[&text.join(", ")]), Some(expected));
        }
    }
}
