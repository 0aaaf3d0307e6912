//! `Content-Length` and `Transfer-Encoding`: what says how long a body is, and what says it twice.

use super::case::{Asking, Case, Expect, begin, ok, ok_with, unstored};
use super::raw_origin::{After, OBJECT};

const HELLO: &[u8] = b"hello";
const LENGTH: &str = "invalid Content-Length";
const CODING: &str = "unknown Transfer-Encoding";
const UNPARSABLE: &str = "not HTTP/1.1";
const CHUNKS: &str = "5\r\nhello\r\n0\r\n\r\n";

pub(super) fn cases() -> Vec<Case> {
    [lengths(), bodies(), codings(), both()].concat()
}

fn lengths() -> Vec<Case> {
    let refused = |name, value: &str| Case::refused(name, ok(&format!("Content-Length: {value}\r\n\r\nhello")), LENGTH);
    let kept = |name, value: &str| Case::kept(name, ok(&format!("Content-Length: {value}\r\n\r\nhello")), HELLO);
    let wide = [&ok("Content-Length: ")[..], b"\xef\xbc\x95\r\n\r\nhello"].concat();
    vec![
        refused("a negative length", "-5"),
        refused("a length with a plus", "+5"),
        refused("a length in hex", "0x5"),
        refused("a length in hex digits", "a"),
        refused("a length with a fraction", "5.0"),
        refused("a length with a parameter", "5;q=1"),
        refused("a length in quotes", "\"5\""),
        refused("an empty length", ""),
        refused("two numbers in one length", "5 5"),
        refused("a list with an empty member", "5,"),
        refused("a list that begins with nothing", ",5"),
        refused("a list of differing lengths", "5, 6"),
        refused("a list of a length and a word", "5, five"),
        refused("two differing lengths", "5\r\nContent-Length: 6"),
        refused("three lengths, one of them zero", "5\r\nContent-Length: 5\r\nContent-Length: 0"),
        refused("a length beyond 64 bits", "18446744073709551616"),
        refused("a length of thirty digits", "100000000000000000000000000005"),
        Case::refused("digits of another alphabet", wide, LENGTH),
        kept("a length with zeros in front", "00005"),
        kept("a length between tabs and spaces", "\t 5 \t"),
        kept("a list of equal lengths", "5, 5,5"),
        kept("equal lengths in two fields", "5\r\nContent-Length: 5"),
        kept("a length that is spelled oddly beside the true one", "5\r\nContent_Length: 6"),
    ]
}

fn bodies() -> Vec<Case> {
    let whole = format!("Content-Length: {}", OBJECT.len);
    let huge = |length: &str| ok_with(&format!("Content-Length: {length}"), &begin(1000));
    let cut = |name, length: &str| {
        Case::cut(
            name,
            unstored(&format!("Content-Length: {length}"), &begin(1000)),
            &begin(1000),
            "cut after 1000 bytes",
        )
        .then(After::Close)
    };
    vec![
        cut("less than the length", "1001"),
        cut("less than the length, which is 2^63", "9223372036854775808"),
        Case::cut("a length of 2^64 - 1", unstored("Content-Length: 18446744073709551615", HELLO), HELLO, "")
            .or(Expect::Refused)
            .then(After::Close),
        Case::mended("less than the length, once", ok_with(&whole, &begin(1000)), "cut after 1000 bytes")
            .then(After::Close),
        Case::mended("reset within the body", ok_with(&whole, &begin(1000)), "cut after").then(After::Reset),
        Case::mended("silence within the body", ok_with(&whole, &begin(1000)), "stalled after 1000 bytes")
            .then(After::Hang),
        Case::mended("a length and no body", ok_with(&whole, b""), "cut after 0 bytes").then(After::HalfClose),
        Case::cut("the begin of 2^63 bytes", huge("9223372036854775808"), &begin(1000), "cut after 1000 bytes")
            .once()
            .then(After::Close)
            .or(Expect::Refused),
        Case::cut("the begin of 2^62 bytes", huge("4611686018427387904"), &begin(1000), "cut after 1000 bytes")
            .once()
            .then(After::Close),
        Case::cut(
            "other bytes than there are then",
            format!(
                "HTTP/1.1 200 OK
ETag: \"poison\"
Cache-Control: max-age=60
{whole}

{}",
                "x".repeat(1000)
            ),
            &[b'x'; 1000],
            "cut after 1000 bytes",
        )
        .once()
        .then(After::Close),
        Case::cut(
            "other bytes under no validator",
            format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n{whole}\r\n\r\n{}", "x".repeat(1000)),
            &[b'x'; 1000],
            "cut after 1000 bytes",
        )
        .once()
        .then(After::Close),
        Case::kept(
            "the end of the connection behind a whole body",
            ok_with("Content-Length: 5\r\nConnection: close", HELLO),
            HELLO,
        )
        .then(After::Close),
        Case::kept(
            "HTTP/1.0 with a length",
            "HTTP/1.0 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\r\nhello",
            HELLO,
        )
        .then(After::Close),
    ]
}

fn codings() -> Vec<Case> {
    let with = |fields: &str| ok(&format!("{fields}\r\n\r\n{CHUNKS}"));
    let refused = |name, value: &str| Case::refused(name, with(&format!("Transfer-Encoding: {value}")), CODING);
    let kept = |name, value: &str| Case::kept(name, with(&format!("Transfer-Encoding: {value}")), HELLO);
    let obs = [&ok("Transfer-Encoding: chunked")[..], b"\xff\r\n\r\n5\r\nhello\r\n0\r\n\r\n"].concat();
    vec![
        refused("gzip before chunked", "gzip, chunked"),
        refused("gzip alone", "gzip"),
        refused("identity alone", "identity"),
        refused("identity before chunked", "identity, chunked"),
        refused("chunked before identity", "chunked, identity"),
        refused("chunked twice", "chunked, chunked"),
        refused("chunked in two fields", "chunked\r\nTransfer-Encoding: chunked"),
        refused("gzip and chunked in two fields", "gzip\r\nTransfer-Encoding: chunked"),
        refused("chunked and a coding that nobody knows, in two fields", "chunked\r\nTransfer-Encoding: cow"),
        refused("a coding that nobody knows", "cow"),
        refused("a coding that ends like chunked", "xchunked"),
        refused("a coding that begins like chunked", "chunkedx"),
        refused("chunked with a parameter", "chunked;q=1"),
        refused("chunked in quotes", "\"chunked\""),
        refused("no coding", ""),
        refused("an empty member before chunked", ",chunked"),
        refused("an empty member behind chunked", "chunked,"),
        refused("chunked without its last letter", "chunke"),
        Case::refused("chunked behind a vertical tab", with("Transfer-Encoding: \u{b}chunked"), UNPARSABLE),
        Case::refused("chunked before a form feed", with("Transfer-Encoding: chunked\u{c}"), UNPARSABLE),
        Case::refused("chunked before another byte", obs, CODING),
        kept("chunked between tabs", "\tchunked\t"),
        kept("chunked in other letters", "ChUnKeD"),
        Case::refused(
            "HTTP/1.0 with chunks",
            format!("HTTP/1.0 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}"),
            CODING,
        )
        .then(After::Close),
        Case::kept(
            "chunks that are named in Connection",
            with("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked"),
            HELLO,
        ),
    ]
}

/// Whoever goes by the other field sees another end: the connection must not carry another answer (RFC 9112 section 6.1).
fn both() -> Vec<Case> {
    let with = |fields: &str| ok(&format!("{fields}\r\n\r\n{CHUNKS}"));
    let poisoned = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let shorter = format!("5\r\nhello\r\n0\r\n\r\n{poisoned}");
    vec![
        Case::kept("a length before chunks", with("Content-Length: 15\r\nTransfer-Encoding: chunked"), HELLO).last(),
        Case::kept("a length behind chunks", with("Transfer-Encoding: chunked\r\nContent-Length: 15"), HELLO).last(),
        Case::kept("a shorter length than the chunks", with("Content-Length: 3\r\nTransfer-Encoding: chunked"), HELLO)
            .last(),
        Case::kept(
            "a longer length than the chunks",
            ok(&format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n{shorter}", shorter.len())),
            HELLO,
        )
        .last(),
        Case::kept(
            "a length that is none beside chunks",
            with("Content-Length: x\r\nTransfer-Encoding: chunked"),
            HELLO,
        )
        .last(),
        Case::kept(
            "two lengths beside chunks",
            with("Content-Length: 3\r\nContent-Length: 4\r\nTransfer-Encoding: chunked"),
            HELLO,
        )
        .last(),
        Case::refused(
            "a length beside an unknown coding",
            with("Content-Length: 15\r\nTransfer-Encoding: cow"),
            CODING,
        ),
        Case::refused("a length beside identity", with("Content-Length: 15\r\nTransfer-Encoding: identity"), CODING),
        Case::kept(
            "a length beside chunks on the way to the end",
            with("Connection: close\r\nContent-Length: 15\r\nTransfer-Encoding: chunked"),
            HELLO,
        )
        .then(After::Close)
        .last(),
        Case::passed(
            "a HEAD with a length and chunks",
            ok("Content-Length: 15\r\nTransfer-Encoding: chunked\r\n\r\n"),
            200,
            b"",
        )
        .asked(Asking::Head)
        .last(),
    ]
}
