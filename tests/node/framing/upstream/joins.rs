//! Answers to the question for the rest of a body that was cut: what belongs to another body is not joined to it.

use super::case::{Case, Expect, begin};
use super::parts::{multipart, part};
use super::raw_origin::{After, OBJECT, TAG};

/// To the question for what is missing of a body that was cut: nothing but its own bytes is joined to it.
pub(super) fn cases() -> Vec<Case> {
    let joined = |name, rest: Vec<u8>| Case::joined(name, rest, Expect::Mended, "");
    let cut = || Expect::Cut { status: 200, of: begin(1000) };
    let other = |name, rest: Vec<u8>| Case::joined(name, rest, cut(), "");
    let end = OBJECT.slice(1000, OBJECT.len);
    let poison = vec![b'x'; 39_000];
    let tagged = |tag: &str, range: &str, body: &[u8]| {
        let length = body.len();
        let head =
            format!("HTTP/1.1 206 Partial Content\r\n{tag}Content-Range: {range}\r\nContent-Length: {length}\r\n\r\n");
        [head.as_bytes(), body].concat()
    };
    let same = format!("ETag: {TAG}\r\n");
    let answer = |line: &str, body: &[u8]| {
        [format!("HTTP/1.1 {line}\r\n{same}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
    };
    vec![
        joined("a rest that begins later", tagged(&same, "bytes 2000-39999/40000", &poison[..38_000])),
        joined("a rest that begins earlier", tagged(&same, "bytes 500-39999/40000", &vec![b'x'; 39_500])),
        joined("a rest of another whole", tagged(&same, "bytes 1000-39999/50000", &poison)),
        joined("a rest of no tag", tagged("", "bytes 1000-39999/40000", &poison)),
        joined("a rest without Content-Range", part("Content-Length: 39000", &poison)),
        joined("a rest of another length than it says", tagged(&same, "bytes 1000-39999/40000", &poison[..100])),
        joined(
            "a rest of several parts",
            multipart("--x\r\nContent-Range: bytes 1000-1001/40000\r\n\r\nxx\r\n--x--\r\n"),
        ),
        joined("no rest, since all is there", answer("416 No\r\nContent-Range: bytes */40000", b"")),
        joined("no rest, since nothing has changed", answer("304 Not Modified", b"")),
        joined("a rest that cannot be read", format!("HTTP/2.0 206 Partial Content\r\n{same}\r\n").into_bytes()),
        joined("a rest that is gone for a moment", answer("503 Later", b"poison")),
        joined("a rest that is cut again", tagged(&same, "bytes 1000-39999/40000", &end)[..2000].to_vec())
            .then(After::Close),
        other("a rest of a weak tag", tagged(&format!("ETag: W/{TAG}\r\n"), "bytes 1000-39999/40000", &poison)),
        other("a rest of another tag", tagged("ETag: \"poison\"\r\n", "bytes 1000-39999/40000", &poison)),
        other("no rest, since less is there", answer("416 No\r\nContent-Range: bytes */999", b"")),
        other(
            "a whole of another tag",
            b"HTTP/1.1 200 OK\r\nETag: \"poison\"\r\nContent-Length: 6\r\n\r\npoison".to_vec(),
        ),
        other("a whole of another length", answer("200 OK", b"poison")),
        other("a whole of the same length and other bytes", answer("200 OK", &vec![b'x'; 40_000])),
    ]
}
