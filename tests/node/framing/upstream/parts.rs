//! Parts of a body that nobody asked for, or that are not what they say; and answers to conditions that nobody made.

use super::case::{Asking, Case, Expect, begin, ok_with, status};
use super::raw_origin::OBJECT;

const RANGE: &str = "invalid Content-Range";
const UNASKED: &str = "an answer that was not asked for";

pub(super) fn cases() -> Vec<Case> {
    [first(), unasked(), other()].concat()
}

/// A 206 with these fields and bytes.
pub(super) fn part(fields: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = status("HTTP/1.1 206 Partial Content", &format!("{fields}\r\n\r\n"));
    bytes.extend_from_slice(body);
    bytes
}

/// The same as a part of the whole.
fn range(range: &str, body: &[u8]) -> Vec<u8> {
    part(&format!("Content-Range: {range}\r\nContent-Length: {}", body.len()), body)
}

pub(super) fn multipart(body: &str) -> Vec<u8> {
    let length = body.len();
    part(&format!("Content-Type: multipart/byteranges; boundary=x\r\nContent-Length: {length}"), body.as_bytes())
}

/// To the first request of a fill that asks for ranges.
fn first() -> Vec<Case> {
    let hundred = begin(100);
    let refused = |name, value: &str| Case::refused(name, range(value, &hundred), RANGE).ranged();
    let chunked = |body: &[u8]| [format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n0\r\n\r\n"].concat();
    let in_chunks = |body: &[u8]| part("Content-Range: bytes 0-99/40000\r\nTransfer-Encoding: chunked", &chunked(body));
    vec![
        Case::refused("206 without Content-Range", part("Content-Length: 100", &hundred), RANGE).ranged(),
        refused("206 of another unit", "items 0-99/40000"),
        refused("206 of no unit", "0-99/40000"),
        refused("206 with an equals sign", "bytes=0-99/40000"),
        refused("206 of a range that goes backward", "bytes 99-0/40000"),
        refused("206 beyond its total", "bytes 0-99/50"),
        refused("206 of no range", "bytes */40000"),
        refused("206 without a total", "bytes 0-99"),
        refused("206 of a shorter range than its body", "bytes 0-49/40000"),
        refused("206 of a longer range than its body", "bytes 0-149/40000"),
        refused("206 of a range beyond 64 bits", "bytes 0-18446744073709551616/*"),
        refused("206 of a negative range", "bytes -1-98/40000"),
        refused("206 of two ranges", "bytes 0-49,50-99/40000"),
        refused("206 with two Content-Range", "bytes 0-99/40000\r\nContent-Range: bytes 0-99/50000"),
        Case::refused("206 of another range", range("bytes 100-199/40000", &OBJECT.slice(100, 200)), UNASKED).ranged(),
        Case::refused(
            "206 of several parts for one",
            multipart("--x\r\nContent-Range: bytes 0-4/40000\r\n\r\nhello\r\n--x--\r\n"),
            UNASKED,
        )
        .ranged(),
        Case::refused("206 of several parts that are none", multipart("hello"), UNASKED).ranged(),
        Case::cut("206 of a larger whole than there is", range("bytes 0-99/100000", &hundred), &hundred, "")
            .ranged()
            .once(),
        Case::cut("206 of a part of 2^64 - 2 bytes", range("bytes 0-99/18446744073709551614", &hundred), &hundred, "")
            .ranged()
            .once()
            .or(Expect::Refused)
            .or(Expect::Mended),
        Case::mended("206 in chunks that are too few", in_chunks(&begin(50)), "").ranged(),
        Case::mended("206 in chunks that are too many", in_chunks(&begin(150)), "").ranged(),
        Case::mended(
            "416 to the first range",
            status("HTTP/1.1 416 Range Not Satisfiable", "Content-Range: bytes */99\r\nContent-Length: 0\r\n\r\n"),
            "",
        )
        .ranged(),
        Case::mended("206 that is shorter than was asked for", range("bytes 0-99/40000", &hundred), "").ranged(),
    ]
}

/// To a request without a range, or without a condition.
fn unasked() -> Vec<Case> {
    let whole = OBJECT.bytes();
    vec![
        Case::refused("206 to a plain GET", range("bytes 0-99/40000", &begin(100)), UNASKED),
        Case::refused(
            "206 of the end to a plain GET",
            range("bytes 39900-39999/40000", &OBJECT.slice(39_900, 40_000)),
            UNASKED,
        ),
        Case::refused("206 of several parts to a plain GET", multipart("--x\r\n\r\nhello\r\n--x--\r\n"), UNASKED),
        Case::refused("206 of everything but the total", range("bytes 0-99/*", &begin(100)), UNASKED),
        Case::kept("206 of all to a plain GET", range("bytes 0-39999/40000", &whole), &whole),
        Case::passed(
            "416 to a plain GET",
            "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 5\r\n\r\nhello",
            416,
            b"hello",
        ),
        Case::kept(
            "200 with Content-Range",
            ok_with("Content-Range: bytes 0-4/40000\r\nContent-Length: 5", b"hello"),
            b"hello",
        ),
        Case::passed("412 to no condition", "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n", 412, b""),
        Case::passed(
            "407 of an origin",
            "HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n",
            407,
            b"",
        ),
    ]
}

/// To a range of a client that goes to the origin as it is, since the answer may not be stored.
fn other() -> Vec<Case> {
    let passed = |range: &str, body: &[u8]| {
        let head = "HTTP/1.1 206 Partial Content\r\nCache-Control: no-store";
        let length = body.len();
        [format!("{head}\r\nContent-Range: {range}\r\nContent-Length: {length}\r\n\r\n").as_bytes(), body].concat()
    };
    let asked = |case: Case| case.asked(Asking::With("Range: bytes=10-19\r\nCache-Control: no-store"));
    let given = |status, body: &[u8]| Expect::Given { status, body: body.to_vec(), kept: false };
    vec![
        asked(Case::refused("another range than the client's", passed("bytes 20-29/40000", &OBJECT.slice(20, 30)), "")),
        asked(Case::refused("more than the client's range", passed("bytes 0-29/40000", &begin(30)), "")),
        asked(Case::refused(
            "the client's range of another unit",
            passed("lines 10-19/40000", &OBJECT.slice(10, 20)),
            RANGE,
        )),
        asked(Case::refused("several parts for the client's one", multipart("--x--\r\n"), "")),
        asked(Case::passed(
            "less than the client's range",
            passed("bytes 10-14/40000", &OBJECT.slice(10, 15)),
            206,
            &OBJECT.slice(10, 15),
        )),
        asked(Case::passed(
            "all in the place of the client's range",
            ok_with("Content-Length: 5", b"hello"),
            200,
            b"hello",
        )),
        asked(Case::passed(
            "a wrong total behind the client's range",
            passed("bytes 10-19/21", &OBJECT.slice(10, 20)),
            206,
            &OBJECT.slice(10, 20),
        )),
        asked(Case::passed(
            "the client's range is said not to be there",
            "HTTP/1.1 416 No\r\nContent-Range: bytes */5\r\nContent-Length: 0\r\n\r\n",
            416,
            b"",
        )),
        asked(Case::refused("304 to the client's range", "HTTP/1.1 304 Not Modified\r\n\r\n", "")).or(given(304, b"")),
    ]
}
