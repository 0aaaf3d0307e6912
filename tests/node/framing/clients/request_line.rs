//! Request lines: words and what stands between them, targets that two servers may read differently, versions.

use super::case::{Case, case, get, means};
use super::run::group;

/// `line` in front of a head that is right.
fn line(name: &'static str, line: &[u8]) -> Case {
    case(name, [line, b"\r\nHost: o.example\r\n\r\n"].concat())
}

pub(super) fn words() -> Vec<Case> {
    vec![
        line("a space before the method", b" GET /{id} HTTP/1.1").refused(400, "method"),
        line("a tab before the method", b"\tGET /{id} HTTP/1.1").refused(400, "method"),
        line("nothing but spaces", b"   ").refused(400, "method"),
        line("two spaces behind the method", b"GET  /{id} HTTP/1.1").refused(400, "target"),
        line("two spaces before the version", b"GET /{id}  HTTP/1.1").refused(400, "version"),
        line("a tab behind the method", b"GET\t/{id} HTTP/1.1").refused(400, "method"),
        line("a tab before the version", b"GET /{id}\tHTTP/1.1").refused(400, "target"),
        line("a vertical tab in place of a space", b"GET /{id}\x0bHTTP/1.1").refused(400, "target"),
        line("a space behind the version", b"GET /{id} HTTP/1.1 ").refused(400, "version"),
        line("two targets", b"GET /{id} /smuggled/{id} HTTP/1.1").refused(400, "version"),
        line("two request lines in one", b"GET /{id} HTTP/1.1 GET /smuggled/{id} HTTP/1.1").refused(400, "version"),
        line("no target", b"GET HTTP/1.1").refused(400, "target"),
        line("a method alone", b"GET").refused(400, "target"),
        line("a target alone", b"/{id}").refused(400, "method"),
        line("a field before the request line", b"Host: o.example\r\nGET /{id} HTTP/1.1").refused(400, "method"),
        line("a status line", b"HTTP/1.1 200 OK").refused(400, "method"),
        line("NUL before the method", b"\0GET /{id} HTTP/1.1").refused(400, "method"),
        line("a byte order mark before the method", b"\xef\xbb\xbfGET /{id} HTTP/1.1").refused(400, "method"),
        case("LF behind the request line", b"GET /{id} HTTP/1.1\nHost: o.example\r\n\r\n").refused(400, "bare-lf"),
        case("CR behind the request line", b"GET /{id} HTTP/1.1\rHost: o.example\r\n\r\n").refused(400, "bare-cr"),
        case("CR CR LF behind it", b"GET /{id} HTTP/1.1\r\r\nHost: o.example\r\n\r\n").refused(400, "bare-cr"),
        line("CR in the target", b"GET /{id}\rX HTTP/1.1").refused(400, "bare-cr"),
        line("LF in the target", b"GET /{id}\nX HTTP/1.1").refused(400, "bare-lf"),
        line("LF before the request line", b"\nGET /{id} HTTP/1.1").refused(400, "bare-lf"),
        line("an empty line before it", b"\r\nGET /{id} HTTP/1.1").forwarded(means("/{id}")),
        line("nine empty lines before it", b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\nGET /{id} HTTP/1.1")
            .refused(400, "empty-lines"),
        line("a method without end", &b"G".repeat(17 * 1024)).refused(414, "target-too-long"),
    ]
}

pub(super) fn targets() -> Vec<Case> {
    let long = |length: usize| {
        let path = [b"/{id}".as_slice(), &b"x".repeat(length - b"/p000".len())].concat();
        (String::from_utf8(path.clone()).unwrap(), [b"GET ".as_slice(), &path, b" HTTP/1.1"].concat())
    };
    let ((longest, longest_line), (_, longer)) = (long(8192), long(8193));
    vec![
        line("NUL in the target", b"GET /{id}\0 HTTP/1.1").refused(400, "target"),
        line("DEL in the target", b"GET /{id}\x7f HTTP/1.1").refused(400, "target"),
        line("UTF-8 in the target", b"GET /{id}\xc3\xa9 HTTP/1.1").refused(400, "target"),
        line("a backslash", b"GET /{id}\\..\\smuggled HTTP/1.1").refused(400, "target"),
        line("a quotation mark", b"GET /{id}\" HTTP/1.1").refused(400, "target"),
        line("angle brackets", b"GET /{id}?<a> HTTP/1.1").refused(400, "target"),
        line("a fragment", b"GET /{id}#smuggled HTTP/1.1").refused(400, "fragment"),
        line("an escaped backslash", b"GET /{id}%5c..%5csmuggled HTTP/1.1").answered(400, "target-backslash"),
        line("an escaped NUL", b"GET /{id}%00.html HTTP/1.1").answered(400, "target-control-character"),
        line("escaped CR LF", b"GET /{id}%0d%0aHost:%20evil.example HTTP/1.1")
            .answered(400, "target-control-character"),
        line("escaped CR LF in the query", b"GET /{id}?a=%0D%0A%0D%0AGET%20/smuggled HTTP/1.1")
            .answered(400, "target-control-character"),
        line("half an escape", b"GET /{id}%2 HTTP/1.1").answered(400, "target-escape"),
        line("an escape that is none", b"GET /{id}%u002e HTTP/1.1").answered(400, "target-escape"),
        line("a dot segment", b"GET /a/../smuggled/{id} HTTP/1.1").answered(400, "target-dot-segment"),
        line("an escaped dot segment", b"GET /a/%2e%2E/smuggled/{id} HTTP/1.1").answered(400, "target-dot-segment"),
        line("a dot segment behind an escaped slash", b"GET /a%2f..%2fsmuggled/{id} HTTP/1.1")
            .answered(400, "target-dot-segment"),
        line("a dot segment with a parameter", b"GET /a/..;x=1/smuggled/{id} HTTP/1.1")
            .answered(400, "target-dot-segment"),
        line("a path that looks like a host", b"GET //evil.example/{id} HTTP/1.1")
            .forwarded(means("//evil.example/{id}")),
        line("a URL as a path", b"GET /http://evil.example/{id} HTTP/1.1")
            .forwarded(means("/http://evil.example/{id}")),
        line("an empty query", b"GET /{id}? HTTP/1.1").forwarded(means("/{id}?")),
        line("escapes as they are", b"GET /{id}/%7e%2F%41?%3f=%26 HTTP/1.1")
            .forwarded(means("/{id}/%7e%2F%41?%3f=%26")),
        line("the longest target", &longest_line).forwarded(means(&longest)),
        line("a target that is longer", &longer).answered(414, "target-too-long"),
        line("a target beyond any line", &[b"GET /{id}", b"x".repeat(17_000).as_slice(), b" HTTP/1.1"].concat())
            .refused(414, "target-too-long"),
    ]
}

pub(super) fn versions() -> Vec<Case> {
    let version = |name, version: &str| line(name, format!("GET /{{id}} {version}").as_bytes());
    vec![
        case("HTTP/0.9", b"GET /{id}\r\n").refused(400, "version"),
        line("no version", b"GET /{id}").refused(400, "version"),
        line("an empty version", b"GET /{id} ").refused(400, "version"),
        version("0.9 in words", "HTTP/0.9").refused(505, "version-unsupported"),
        version("1.2", "HTTP/1.2").refused(505, "version-unsupported"),
        version("2.0", "HTTP/2.0").refused(505, "version-unsupported"),
        version("9.9", "HTTP/9.9").refused(505, "version-unsupported"),
        version("2", "HTTP/2").refused(400, "version"),
        version("in small letters", "http/1.1").refused(400, "version"),
        version("a digit too many", "HTTP/1.10").refused(400, "version"),
        version("a leading zero", "HTTP/01.1").refused(400, "version"),
        version("three numbers", "HTTP/1.1.1").refused(400, "version"),
        version("a sign", "HTTP/+1.1").refused(400, "version"),
        version("a comma", "HTTP/1,1").refused(400, "version"),
        version("a space within", "HTTP/1. 1").refused(400, "version"),
        version("another protocol", "RTSP/1.1").refused(400, "version"),
        version("full-width digits", "HTTP/\u{ff11}.\u{ff11}").refused(400, "version"),
        case("1.0 without Host", b"GET /{id} HTTP/1.0\r\n\r\n")
            .forwarded(means("/{id}").at("default.example"))
            .closes(),
        case("1.0 that stays", b"GET /{id} HTTP/1.0\r\nHost: o.example\r\nConnection: keep-alive\r\n\r\n")
            .forwarded(means("/{id}").lacks(&["Connection"])),
        get("1.1 that closes", b"Connection: close\r\n").forwarded(means("/{id}")).closes(),
        get("1.1 that closes among other options", b"Connection: foo, Close\r\n").forwarded(means("/{id}")).closes(),
    ]
}

#[tokio::test]
async fn words_of_the_request_line() {
    group(words()).await;
}

#[tokio::test]
async fn targets_that_mean_one_thing_or_nothing() {
    group(targets()).await;
}

#[tokio::test]
async fn versions_that_are_spoken() {
    group(versions()).await;
}
