//! The chunked coding: what is wrong between its chunks, and what stands behind the last one.

use super::case::{Case, POISON, begin, chunk, ok_with, unstored};
use super::raw_origin::After;

const CHUNKED: &str = "Transfer-Encoding: chunked";
const MALFORMED: &str = "malformed after 1000 bytes";
const CUT: &str = "cut after 1000 bytes";

pub(super) fn cases() -> Vec<Case> {
    [sizes(), ends(), allowed(), trailers(), mended()].concat()
}

/// One good chunk, then `rest`.
fn body(rest: &[u8]) -> Vec<u8> {
    [&chunk(&begin(1000))[..], rest].concat()
}

/// What breaks behind the first chunk: the client gets that and no end.
fn broken(name: &str, rest: &[u8], fault: &'static str) -> Case {
    Case::cut(name, unstored(CHUNKED, &body(rest)), &begin(1000), fault)
}

fn sizes() -> Vec<Case> {
    let malformed = |name, line: &str| broken(name, format!("{line}\r\nhello\r\n0\r\n\r\n").as_bytes(), MALFORMED);
    vec![
        malformed("a chunk size beyond 64 bits", "10000000000000005"),
        malformed("a chunk size of thirty digits", &"f".repeat(30)),
        malformed("a negative chunk size", "-5"),
        malformed("a chunk size with a plus", "+5"),
        malformed("a chunk size with 0x", "0x5"),
        malformed("a chunk size that is none", "g"),
        malformed("a chunk size with a comma", "5,5"),
        malformed("a chunk size with a dot", "5.0"),
        malformed("a chunk size in quotes", "\"5\""),
        malformed("a space before a chunk size", " 5"),
        malformed("a digit behind a space behind a chunk size", "5 0"),
        malformed("no chunk size", ""),
        malformed("an extension without a size", ";a=b"),
        malformed("NUL in a chunk size", "5\0"),
        broken("LF alone behind a chunk size", b"5\nhello\r\n0\r\n\r\n", MALFORMED),
        broken("CR alone behind a chunk size", b"5\rhello\r\n0\r\n\r\n", MALFORMED),
        broken("LF in an extension", b"5;a\nhello\r\n0\r\n\r\n", MALFORMED),
        broken("CR alone in an extension", b"5;a\rb\r\nhello\r\n0\r\n\r\n", MALFORMED),
        broken(
            "an extension without end",
            format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(20_000)).as_bytes(),
            MALFORMED,
        ),
        Case::cut(
            "many short extensions",
            unstored(CHUNKED, &body("1;aaaaaaaa\r\nx\r\n".repeat(3000).as_bytes())),
            &[&begin(1000)[..], &[b'x'; 3000]].concat(),
            "malformed after",
        ),
    ]
}

fn ends() -> Vec<Case> {
    let of = [&begin(1000)[..], b"hello"].concat();
    let behind = |name, rest: &[u8], fault| Case::cut(name, unstored(CHUNKED, &body(rest)), &of, fault);
    vec![
        behind("no line end behind a chunk", b"5\r\nhello0\r\n\r\n", "malformed after 1005 bytes"),
        behind("LF alone behind a chunk", b"5\r\nhello\n0\r\n\r\n", "malformed after 1005 bytes"),
        behind("a longer chunk than its size", b"5\r\nhello, and more\r\n0\r\n\r\n", "malformed after 1005 bytes"),
        Case::cut(
            "a shorter chunk than its size",
            unstored(CHUNKED, &body(b"7\r\nhello\r\n0\r\n\r\n")),
            &[&begin(1000)[..], b"hello\r\n"].concat(),
            "malformed after 1007 bytes",
        )
        .then(After::Close),
        broken("no last chunk", b"", CUT).then(After::Close),
        broken("reset in the place of the last chunk", b"", "cut after").then(After::Reset),
        broken("the end within a chunk size", b"5", CUT).then(After::Close),
        broken("the end within a line end", b"5\r", CUT).then(After::HalfClose),
        behind("the end within a chunk", b"50\r\nhello", "cut after 1005 bytes").then(After::Close),
        broken("the end behind the last chunk's size", b"0\r\n", CUT).then(After::Close),
        broken("the end within the trailers", b"0\r\nX-Trailer: 1\r\n", CUT).then(After::Close),
        behind("a chunk of 2^63 - 1 bytes", b"7fffffffffffffff\r\nhello", "cut after 1005 bytes").then(After::Close),
        behind("a chunk of 2^64 - 1 bytes", b"ffffffffffffffff\r\nhello", "cut after 1005 bytes").then(After::Close),
        broken("silence in the place of the last chunk", b"", "stalled after 1000 bytes").then(After::Hang),
        broken("no line end behind the last chunk", b"0\r\nHTTP/1.1 200 OK", CUT).then(After::Close),
        broken("LF alone ends the chunks", b"0\r\n\n", CUT).then(After::Close),
        broken("LF alone behind the last chunk's size", b"0\n\r\n", MALFORMED),
    ]
}

fn allowed() -> Vec<Case> {
    let kept = |name, rest: &[u8]| Case::kept(name, ok_with(CHUNKED, &body(rest)), &begin(1000));
    let small: Vec<u8> = begin(1000).chunks(1).flat_map(chunk).collect();
    let zeros = format!("{}3e8\r\n", "0".repeat(500));
    vec![
        kept("zeros before the last size", b"0000000000000\r\n\r\n"),
        kept("an extension of the last chunk", b"0;last=\"yes\"\r\n\r\n"),
        kept("a space behind the last size", b"0 \r\n\r\n"),
        Case::kept("a thousand chunks", ok_with(CHUNKED, &[&small[..], b"0\r\n\r\n"].concat()), &begin(1000)),
        Case::kept(
            "hundreds of zeros before a size",
            ok_with(CHUNKED, &[zeros.as_bytes(), &begin(1000), b"\r\n0\r\n\r\n"].concat()),
            &begin(1000),
        ),
        Case::kept("no chunk but the last", ok_with(CHUNKED, b"0\r\n\r\n"), b""),
        kept("another answer behind the chunks", format!("0\r\n\r\n{POISON}").as_bytes()),
        kept("a chunk behind the last chunk", b"0\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    ]
}

fn trailers() -> Vec<Case> {
    let kept = |name, trailers: &str| {
        let body = body(format!("0\r\n{trailers}\r\n\r\n").as_bytes());
        Case::kept(name, ok_with(&format!("{CHUNKED}\r\nTrailer: X-Trailer"), &body), &begin(1000)).without(&[
            "X-Trailer",
            "Set-Cookie",
            "Repr-Digest",
            "Location",
        ])
    };
    let broken = |name, trailers: &str| broken(name, format!("0\r\n{trailers}\r\n\r\n").as_bytes(), MALFORMED);
    let many = (0..120).map(|n| format!("X-{n}: 1")).collect::<Vec<_>>().join("\r\n");
    vec![
        kept("a trailer", "X-Trailer: 1"),
        kept("a length in the trailers", "Content-Length: 5"),
        kept("a coding in the trailers", "Transfer-Encoding: chunked"),
        kept("a digest in the trailers", "Repr-Digest: sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:"),
        kept("a cookie and a redirect in the trailers", "Set-Cookie: a=b\r\nLocation: http://127.0.0.1/"),
        kept("no-store in the trailers", "Cache-Control: no-store"),
        broken("trailers without end", &format!("X-Trailer: {}", "a".repeat(70_000))),
        broken("too many trailers", &many),
        broken("a trailer without a colon", "X-Trailer"),
        broken("NUL in a trailer", "X-Trailer: \0"),
        broken("a trailer without a name", ": 1"),
    ]
}

/// What breaks once is asked for again, and nothing of the fault is left.
fn mended() -> Vec<Case> {
    let mended = |name, body: &[u8], fault| Case::mended(name, ok_with(CHUNKED, body), fault);
    vec![
        mended("chunks that break once", &body(b"x\r\nhello\r\n"), MALFORMED),
        mended("chunks that end once", &body(b""), CUT).then(After::Close),
        mended("the first chunk breaks once", b"x\r\nhello\r\n0\r\n\r\n", "malformed after 0 bytes"),
        mended("trailers that end once", &body(b"0\r\nX: 1"), CUT).then(After::Close),
    ]
}
