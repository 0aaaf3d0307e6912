//! `multipart/byteranges` (RFC 9110 section 14.6): the frames between the ranges. Pure.

use bytes::Bytes;
use http::HeaderValue;

use crate::content::{ByteRange, Digest};

/// One range with the bytes that stand before it.
#[derive(Debug)]
pub(super) struct PartFrame {
    pub(super) head: Bytes,
    pub(super) range: ByteRange,
}

/// The frames for `ranges` of a representation of `length` bytes, and what closes them.
pub(super) fn frames(
    ranges: &[ByteRange],
    length: u64,
    content_type: Option<&HeaderValue>,
    boundary: &str,
) -> (Vec<PartFrame>, Bytes) {
    let parts = ranges.iter().enumerate().map(|(index, range)| {
        let mut head = Vec::with_capacity(160);
        head.extend_from_slice(if index == 0 { b"--" } else { b"\r\n--" });
        head.extend_from_slice(boundary.as_bytes());
        if let Some(content_type) = content_type {
            head.extend_from_slice(b"\r\nContent-Type: ");
            head.extend_from_slice(content_type.as_bytes());
        }
        let field = format!("\r\nContent-Range: bytes {}-{}/{length}\r\n\r\n", range.start(), range.last());
        head.extend_from_slice(field.as_bytes());
        PartFrame { head: Bytes::from(head), range: *range }
    });
    (parts.collect(), Bytes::from(format!("\r\n--{boundary}--\r\n")))
}

/// Length of the whole content in bytes.
pub(super) fn content_length(parts: &[PartFrame], close: &Bytes) -> u64 {
    parts.iter().map(|part| part.head.len() as u64 + part.range.len()).sum::<u64>() + close.len() as u64
}

/// A boundary that is unlikely to occur in the content: drawn from a digest of the key and the ranges.
pub(super) fn boundary(key: &str, ranges: &[ByteRange]) -> String {
    let mut text = key.to_owned();
    for range in ranges {
        text.push_str(&format!("|{}-{}", range.start(), range.end()));
    }
    let mut hex = Digest::of(text.as_bytes()).to_hex();
    hex.truncate(32);
    format!("waystation-{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_framed_as_in_the_rfc_example() {
        let ranges = [ByteRange::new(500, 1000).unwrap(), ByteRange::new(7000, 8000).unwrap()];
        let pdf = HeaderValue::from_static("application/pdf");
        let (parts, close) = frames(&ranges, 8000, Some(&pdf), "SEP");
        assert_eq!(
            parts[0].head,
            "--SEP\r\nContent-Type: application/pdf\r\nContent-Range: bytes 500-999/8000\r\n\r\n"
        );
        assert_eq!(
            parts[1].head,
            "\r\n--SEP\r\nContent-Type: application/pdf\r\nContent-Range: bytes 7000-7999/8000\r\n\r\n"
        );
        assert_eq!(close, "\r\n--SEP--\r\n");
        let framing = (parts[0].head.len() + parts[1].head.len() + close.len()) as u64;
        assert_eq!(content_length(&parts, &close), 1500 + framing);
    }

    #[test]
    fn the_boundary_depends_on_what_is_asked() {
        let range = |a, b| ByteRange::new(a, b).unwrap();
        assert_eq!(boundary("k", &[range(0, 1)]), boundary("k", &[range(0, 1)]));
        assert_ne!(boundary("k", &[range(0, 1)]), boundary("k", &[range(0, 2)]));
        assert!(boundary("k", &[]).len() <= 70);
    }
}
