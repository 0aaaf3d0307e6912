//! Field values in memory of their own. What is kept of a message must not keep the buffer in which it came: a parser gives
//! out slices of that. What fields mean is not known here.

use bytes::Bytes;
use http::header::InvalidHeaderValue;
use http::{HeaderMap, HeaderValue};

/// Values that share one piece of memory and nothing else, to be taken in the order in which they were put together.
pub struct FieldValues(Bytes);

impl FieldValues {
    /// Copies `values`, which have `length` bytes together.
    pub fn copied<'a>(length: usize, values: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut text = Vec::with_capacity(length);
        values.for_each(|value| text.extend_from_slice(value));
        Self(text.into())
    }

    /// The next value, which has `length` bytes, or what is left when that is less.
    ///
    /// # Errors
    /// When these bytes are not allowed in a field value (RFC 9110 section 5.5).
    pub fn take(&mut self, length: usize) -> Result<HeaderValue, InvalidHeaderValue> {
        HeaderValue::from_maybe_shared(self.0.split_to(length.min(self.0.len())))
    }
}

/// The same fields, with values that keep nothing else in memory.
pub fn in_own_memory(headers: &HeaderMap) -> HeaderMap {
    let length = headers.values().map(HeaderValue::len).sum();
    let mut values = FieldValues::copied(length, headers.values().map(HeaderValue::as_bytes));
    let copy = |(name, value): (&http::HeaderName, &HeaderValue)| {
        let mut own = values.take(value.len()).unwrap_or_else(|_| value.clone());
        own.set_sensitive(value.is_sensitive());
        (name.clone(), own)
    };
    headers.iter().map(copy).collect()
}

#[cfg(test)]
mod tests {
    use http::header::{AUTHORIZATION, ETAG, SET_COOKIE, VIA};

    use super::*;

    #[test]
    fn the_copy_is_the_same_and_lies_elsewhere() {
        let buffer = Bytes::from_static(b"\"1\"a=1b=2Basic xyz");
        let value = |range| HeaderValue::from_maybe_shared(buffer.slice(range)).unwrap();
        let mut secret = value(9..18);
        secret.set_sensitive(true);
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (ETAG, value(0..3)),
            (SET_COOKIE, value(3..6)),
            (SET_COOKIE, value(6..9)),
            (VIA, value(0..0)),
            (AUTHORIZATION, secret),
        ] {
            headers.append(name, value);
        }
        let own = in_own_memory(&headers);
        assert_eq!(own, headers);
        assert!(own.get(AUTHORIZATION).unwrap().is_sensitive() && !own.get(ETAG).unwrap().is_sensitive());
        let theirs = buffer.as_ptr_range();
        assert!(
            own.values().filter(|value| !value.is_empty()).all(|value| !theirs.contains(&value.as_bytes().as_ptr()))
        );
    }

    #[test]
    fn no_more_is_taken_than_there_is() {
        let mut values = FieldValues::copied(4, [&b"ab"[..], b"c\n"].into_iter());
        assert_eq!(values.take(2).unwrap(), "ab");
        assert!(values.take(9).is_err());
        assert!(values.take(1).unwrap().is_empty());
    }
}
