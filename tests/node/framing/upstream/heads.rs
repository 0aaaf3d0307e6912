//! Heads: status lines, interim responses, and the syntax of fields.

use super::case::{Asking, Case, ok, ok_with, status};
use super::raw_origin::After;

const HELLO: &[u8] = b"hello";
/// How the log calls a head that cannot be read.
const UNPARSABLE: &str = "not HTTP/1.1";
const STATUS: &str = "invalid status line";
const TOO_LARGE: &str = "its head is too large";

pub(super) fn cases() -> Vec<Case> {
    [status_lines(), more_status_lines(), interims(), fields(), large()].concat()
}

/// A 200 with a body behind this status line.
fn line(line: &str) -> Vec<u8> {
    status(line, "Content-Length: 5\r\n\r\nhello")
}

/// A 200 with a body and this field line.
fn with(field: &str) -> Vec<u8> {
    ok(&format!("{field}\r\nContent-Length: 5\r\n\r\nhello"))
}

fn status_lines() -> Vec<Case> {
    let refused = |name, text: &str| Case::refused(name, line(text), UNPARSABLE);
    vec![
        Case::refused("HTTP/0.9", "hello, this is all\r\n", UNPARSABLE).then(After::Close),
        Case::refused("HTTP/0.9 with an empty line", "hello\r\n\r\nhello", UNPARSABLE),
        refused("HTTP/2.0", "HTTP/2.0 200 OK"),
        refused("HTTP/3", "HTTP/3 200 OK"),
        refused("a minor version that is not there yet", "HTTP/1.2 200 OK"),
        refused("a version of two digits", "HTTP/1.10 200 OK"),
        refused("no version", "HTTP 200 OK"),
        refused("a version in small letters", "http/1.1 200 OK"),
        refused("another protocol", "ICY 200 OK"),
        Case::refused("two spaces before the status", line("HTTP/1.1  200 OK"), STATUS),
        refused("a tab before the status", "HTTP/1.1\t200 OK"),
        Case::refused("a status of two digits", line("HTTP/1.1 20 OK"), STATUS),
        Case::refused("a status of four digits", line("HTTP/1.1 2000 OK"), STATUS),
        Case::refused("a status with a letter", line("HTTP/1.1 2x0 OK"), STATUS),
        Case::refused("a negative status", line("HTTP/1.1 -20 OK"), STATUS),
        Case::refused("no status", line("HTTP/1.1 OK"), STATUS),
        Case::refused("status 000", line("HTTP/1.1 000 OK"), STATUS),
        Case::refused("status 099", line("HTTP/1.1 099 OK"), STATUS),
        Case::refused("status 600", line("HTTP/1.1 600 Odd"), STATUS),
        Case::refused("status 999", line("HTTP/1.1 999 Odd"), STATUS),
        refused("a space before the version", " HTTP/1.1 200 OK"),
        refused("letters before the version", "xyHTTP/1.1 200 OK"),
        refused("NUL before the version", "\0HTTP/1.1 200 OK"),
        refused("a request in the place of an answer", "GET /bad HTTP/1.1"),
    ]
}

fn more_status_lines() -> Vec<Case> {
    let kept = |name, text: &str| Case::kept(name, line(text), HELLO);
    let tls = [&[0x15, 3, 3, 0, 2, 2, 70][..], b"\r\n\r\n"].concat();
    vec![
        kept("no reason", "HTTP/1.1 200"),
        kept("an empty reason", "HTTP/1.1 200 "),
        kept("a reason of many words", "HTTP/1.1 200 Quite OK, as far as I know"),
        kept("empty lines before the status line", "\r\n\r\nHTTP/1.1 200 OK"),
        Case::refused("a control character in the reason", line("HTTP/1.1 200 O\u{1}K"), STATUS),
        Case::refused("NUL in the reason", line("HTTP/1.1 200 O\0K"), STATUS),
        Case::refused("CR alone in the status line", line("HTTP/1.1 200 OK\rX: 1"), STATUS),
        Case::refused("an alert of TLS", tls, UNPARSABLE).then(After::Close),
        Case::kept(
            "LF ends the lines",
            "HTTP/1.1 200 OK\nCache-Control: max-age=60\nContent-Length: 5\n\nhello",
            HELLO,
        ),
        Case::refused("CR ends the lines", "HTTP/1.1 200 OK\rContent-Length: 5\r\rhello\r\n\r\n", STATUS),
        Case::refused("no answer at all", "", "closed the connection without an answer").then(After::Close),
        Case::refused("reset instead of an answer", "", "closed the connection without an answer").then(After::Reset),
        Case::refused("a half status line", "HTTP/1.1 20", "closed the connection without an answer")
            .then(After::Close),
        Case::refused("a half head", ok("Content-Length: 5\r\n"), "closed the connection without an answer")
            .then(After::HalfClose),
        Case::refused("a half head and silence", ok("Content-Le"), "no answer").then(After::Hang),
        Case::refused("a HEAD with a status of no version", line("HTTP/2.0 200 OK"), UNPARSABLE).asked(Asking::Head),
    ]
}

fn interims() -> Vec<Case> {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n";
    let answer = String::from_utf8(with("X-End: 1")).unwrap();
    let before = |interim: &str| format!("{interim}{answer}");
    let kept = |name, interim: &str| Case::kept(name, before(interim), HELLO);
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    vec![
        kept("a thousand hints", &early.repeat(1000)),
        kept("100 that nobody waits for, twice", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"),
        kept("an interim status that nobody knows", "HTTP/1.1 199 Soon\r\n\r\n"),
        kept("an interim response with a length", "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n"),
        kept("an interim response with chunks", "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n"),
        kept("an interim response of another hop", "HTTP/1.1 102 Processing\r\nConnection: X-A\r\nX-A: 1\r\n\r\n"),
        Case::refused(
            "an interim response with a body",
            before("HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello"),
            UNPARSABLE,
        ),
        Case::refused("101 unasked", switching, "it switches protocols unasked").then(After::Hang),
        Case::refused("101 unasked before an answer", before(switching), "it switches protocols unasked"),
        Case::refused("hints and the end", early, "closed the connection without an answer").then(After::Close),
        Case::refused("hints and silence", early, "no answer").then(After::Hang),
        Case::refused(
            "hints of too many fields",
            before(&format!("HTTP/1.1 103 Hints\r\n{}\r\n", lines(120))),
            TOO_LARGE,
        ),
    ]
}

fn lines(count: usize) -> String {
    (0..count).map(|n| format!("X-{n}: {n}\r\n")).collect()
}

fn fields() -> Vec<Case> {
    let refused = |name, field: &str| Case::refused(name, with(field), UNPARSABLE);
    let kept = |name, field: &str| Case::kept(name, with(field), HELLO);
    let raw = |field: &[u8]| {
        let mut bytes = ok("");
        bytes.extend_from_slice(field);
        bytes.extend_from_slice(b"\r\nContent-Length: 5\r\n\r\nhello");
        bytes
    };
    vec![
        kept("a space before a colon", "X-A : 1"),
        kept("a tab before a colon", "X-A\t: 1"),
        Case::kept("a space before the colon of the length", ok("Content-Length : 5\r\n\r\nhello"), HELLO),
        Case::kept(
            "a space before the colon of the chunks",
            ok("Transfer-Encoding : chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
            HELLO,
        ),
        kept("a folded value", "X-A: 1\r\n 2"),
        Case::refused("a folded length", ok("Content-Length: 5\r\n 0\r\n\r\nhello"), "invalid Content-Length"),
        Case::kept("a folded coding", ok("Transfer-Encoding:\r\n chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), HELLO),
        Case::refused(
            "a fold before the first field",
            "HTTP/1.1 200 OK\r\n X: 1\r\nContent-Length: 5\r\n\r\nhello",
            UNPARSABLE,
        ),
        refused("NUL in a value", "X-A: 1\u{0}2"),
        refused("NUL in a name", "X\u{0}A: 1"),
        refused("a control character in a value", "X-A: 1\u{1}2"),
        refused("DEL in a value", "X-A: 1\u{7f}2"),
        refused("CR alone in a value", "X-A: 1\rX-B: 2"),
        kept("LF alone ends a field", "X-A: 1\nX-B: 2"),
        Case::kept(
            "LF alone before the chunks",
            ok("X-A: 1\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
            HELLO,
        ),
        refused("no name", ": 1"),
        refused("no colon", "X-A 1"),
        refused("a space in a name", "Content Length: 5"),
        refused("a parenthesis in a name", "X(A): 1"),
        Case::refused("other than ASCII in a name", raw(b"X-\xe4: 1"), UNPARSABLE),
        Case::kept("other than ASCII in a value", raw(b"X-A: caf\xe9"), HELLO),
        kept("an empty value", "X-A:"),
    ]
}

fn large() -> Vec<Case> {
    let long = "a".repeat(300 * 1024);
    vec![
        Case::kept("as many fields as may be", ok(&format!("{}Content-Length: 5\r\n\r\nhello", lines(97))), HELLO),
        Case::refused("a field too many", ok(&format!("{}Content-Length: 5\r\n\r\nhello", lines(98))), TOO_LARGE),
        Case::refused("20,000 fields", ok(&format!("{}Content-Length: 5\r\n\r\nhello", lines(20_000))), TOO_LARGE),
        Case::refused("a value without end", ok(&format!("X-A: {long}\r\nContent-Length: 5\r\n\r\nhello")), TOO_LARGE),
        Case::refused("a name without end", ok(&format!("{long}: 1\r\nContent-Length: 5\r\n\r\nhello")), TOO_LARGE),
        Case::refused("a reason without end", line(&format!("HTTP/1.1 200 {long}")), TOO_LARGE),
        Case::kept("a long value", ok_with(&format!("X-A: {}\r\nContent-Length: 5", &long[..16 * 1024]), HELLO), HELLO),
    ]
}
