//! Where an answer ends although something follows, or although nothing says so: bodies up to the end of the connection,
//! bodies of answers that have none, and bytes behind an answer.

use super::case::{Asking, Case, Expect, POISON, begin, ok, ok_with, status};
use super::raw_origin::After;

const HELLO: &[u8] = b"hello";

pub(super) fn cases() -> Vec<Case> {
    [until_close(), bodiless(), behind(), late()].concat()
}

fn until_close() -> Vec<Case> {
    let given = |name, bytes: Vec<u8>, body: &[u8]| Case::passed(name, bytes, 200, body).then(After::Close);
    let old = |rest: &str| format!("HTTP/1.0 200 OK\r\nCache-Control: max-age=60\r\n{rest}").into_bytes();
    vec![
        given("a body up to the end", ok("X-A: 1\r\n\r\nhello"), HELLO),
        given("a body up to the end, which is half", ok("X-A: 1\r\n\r\nhello"), HELLO).then(After::HalfClose),
        given(
            "a body up to the end that looks like an answer",
            ok(&format!("X-A: 1\r\n\r\n{POISON}")),
            POISON.as_bytes(),
        ),
        given(
            "a body up to the end that looks like chunks",
            ok("X-A: 1\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
            b"5\r\nhello\r\n0\r\n\r\n",
        ),
        given("no body up to the end", ok("X-A: 1\r\n\r\n"), b""),
        given("keep-alive, and a body up to the end", ok("Connection: keep-alive\r\n\r\nhello"), HELLO),
        given("HTTP/1.0 and a body up to the end", old("\r\nhello"), HELLO),
        given("HTTP/1.0 with keep-alive and a body up to the end", old("Connection: keep-alive\r\n\r\nhello"), HELLO),
        Case::cut("reset within a body up to the end", ok_with("X-A: 1", &begin(1000)), &begin(1000), "cut after")
            .then(After::Reset)
            .or(Expect::Refused),
        Case::cut(
            "silence within a body up to the end",
            ok_with("X-A: 1", &begin(1000)),
            &begin(1000),
            "stalled after 1000",
        )
        .then(After::Hang),
    ]
}

fn bodiless() -> Vec<Case> {
    let no_content = |fields: &str| status("HTTP/1.1 204 No Content", fields);
    let not_modified = |fields: &str| status("HTTP/1.1 304 Not Modified", fields);
    let answered = |name, bytes: Vec<u8>, body: &str| {
        let bytes = [&bytes[..], body.as_bytes()].concat();
        Case::passed(name, bytes, 200, b"").asked(Asking::Head)
    };
    let kept = |name, bytes: Vec<u8>| Case::kept_as(name, bytes, 204, b"").last();
    let unasked = |name, bytes| Case::refused(name, bytes, "");
    let reset = |fields: &str| format!("HTTP/1.1 205 Reset Content\r\n{fields}").into_bytes();
    vec![
        kept("204 with a body", no_content("Content-Length: 5\r\n\r\nhello")),
        kept(
            "204 with another answer as its body",
            no_content(&format!("Content-Length: {}\r\n\r\n{POISON}", POISON.len())),
        ),
        kept("204 with chunks", no_content("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")),
        kept("204 with a length that is none", no_content("Content-Length: x\r\n\r\n")),
        unasked("304 to no condition", not_modified("\r\n")),
        unasked("304 with a body", not_modified("Content-Length: 5\r\n\r\nhello")),
        unasked(
            "304 with another answer as its body",
            not_modified(&format!("Content-Length: {}\r\n\r\n{POISON}", POISON.len())),
        ),
        unasked("304 with chunks", not_modified("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")),
        answered("HEAD with a body", ok("Content-Length: 5\r\n\r\n"), "hello"),
        answered(
            "HEAD with another answer as its body",
            ok(&format!("Content-Length: {}\r\n\r\n", POISON.len())),
            POISON,
        ),
        answered("HEAD with chunks", ok("Transfer-Encoding: chunked\r\n\r\n"), "5\r\nhello\r\n0\r\n\r\n"),
        answered("HEAD with a body up to the end", ok("X-A: 1\r\n\r\n"), "hello").then(After::Close),
        answered("HEAD with two lengths", ok("Content-Length: 5\r\nContent-Length: 6\r\n\r\n"), ""),
        Case::passed("205 with a body", reset("Content-Length: 5\r\n\r\nhello"), 205, b"").last(),
        Case::kept_as(
            "205 with a lifetime and a body",
            reset("Cache-Control: max-age=60\r\nContent-Length: 5\r\n\r\nhello"),
            205,
            b"",
        )
        .last(),
        Case::passed(
            "205 with another answer as its body",
            reset(&format!("Content-Length: {}\r\n\r\n{POISON}", POISON.len())),
            205,
            b"",
        )
        .last(),
        Case::passed("205 with chunks", reset("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 205, b"")
            .last(),
    ]
}

/// What stands behind an answer is nobody's answer.
fn behind() -> Vec<Case> {
    let kept = |name, rest: &str| Case::kept(name, ok(&format!("Content-Length: 5\r\n\r\nhello{rest}")), HELLO);
    let missing = format!("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone{POISON}");
    vec![
        kept("a longer body than its length", ", and more"),
        kept("another answer behind the body", POISON),
        kept("three answers behind the body", &POISON.repeat(3)),
        kept("an empty line behind the body", "\r\n"),
        kept("empty lines before another answer", &format!("\r\n\r\n{POISON}")),
        kept("a half answer behind the body", &POISON[..30]),
        kept("an interim response behind the body", "HTTP/1.1 103 Early Hints\r\nLink: </poison>\r\n\r\n"),
        kept("NUL behind the body", "\0\0\0\0"),
        Case::kept("a body of no bytes and more", ok(&format!("Content-Length: 0\r\n\r\n{POISON}")), b""),
        Case::kept_as("another answer behind a 404", missing, 404, b"gone"),
        Case::kept("another answer before any request", ok("Content-Length: 5\r\n\r\nhello"), HELLO)
            .greeting(POISON)
            .or(Expect::Given { status: 200, body: b"poison".to_vec(), kept: true })
            .or(Expect::Refused),
        Case::kept("nonsense before any request", ok("Content-Length: 5\r\n\r\nhello"), HELLO)
            .greeting("nonsense\r\n\r\n")
            .or(Expect::Refused),
        Case::kept("an empty line before any request", ok("Content-Length: 5\r\n\r\nhello"), HELLO)
            .greeting("\r\n")
            .or(Expect::Refused),
    ]
}

/// The connection lies in the pool when more comes.
fn late() -> Vec<Case> {
    let kept = |name, late: &str| Case::kept(name, ok("Content-Length: 5\r\n\r\nhello"), HELLO).late(late);
    vec![
        kept("another answer, later", POISON),
        kept("a half answer, later", &POISON[..30]),
        kept("an empty line, later", "\r\n"),
        kept("an interim response, later", "HTTP/1.1 100 Continue\r\n\r\n"),
        kept("nonsense, later", "nonsense"),
        Case::kept(
            "another answer behind chunks, later",
            ok_with("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
            HELLO,
        )
        .late(POISON),
        Case::passed("another answer behind a HEAD, later", ok("Content-Length: 5\r\n\r\n"), 200, b"")
            .asked(Asking::Head)
            .late(POISON),
        Case::kept_as(
            "another answer behind a 404, later",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone",
            404,
            b"gone",
        )
        .late(POISON),
    ]
}
