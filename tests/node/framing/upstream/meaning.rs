//! Fields that say something else than their place allows: of another hop, named in `Connection`, twice, out of bounds.

use super::case::{Case, Expect, ok, ok_with, status};
use super::raw_origin::After;

const HELLO: &[u8] = b"hello";

pub(super) fn cases() -> Vec<Case> {
    [hops(), doubled(), values()].concat()
}

fn with(fields: &str) -> Vec<u8> {
    ok_with(&format!("{fields}\r\nContent-Length: 5"), HELLO)
}

fn plain(fields: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: 5\r\n\r\nhello").into_bytes()
}

fn hops() -> Vec<Case> {
    let kept = |name, fields: &str| Case::kept(name, with(fields), HELLO);
    let passed = |name, fields: &str| Case::passed(name, plain(fields), 200, HELLO);
    vec![
        kept(
            "fields of another hop",
            "Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic realm=x\r\nTE: trailers\r\nUpgrade: h2c\r\nProxy-Connection: keep-alive",
        ),
        kept("fields that Connection names", "Connection: X-Hop, close\r\nX-Hop: 1\r\nX-End: 2").without(&["X-Hop"]),
        kept("fields that the second Connection names", "Connection: keep-alive\r\nConnection: X-Hop\r\nX-Hop: 1")
            .without(&["X-Hop"]),
        kept("Connection names what is not there", "Connection: X-Hop, , \"x\", a b, close"),
        kept("Connection names the length", "Connection: Content-Length"),
        kept("Connection names the tag", "Connection: ETag"),
        passed("Connection names what forbids to store", "Connection: Cache-Control\r\nCache-Control: no-store"),
        passed("Connection names what an answer is for", "Connection: Vary\r\nVary: *\r\nCache-Control: max-age=60"),
        passed(
            "Connection names what caches are told",
            "Connection: CDN-Cache-Control\r\nCDN-Cache-Control: no-store\r\nCache-Control: max-age=60",
        ),
        kept("Connection names the coding of the content", "Connection: Content-Encoding\r\nContent-Encoding: gzip")
            .telling(&["Content-Encoding"]),
        kept("Connection names a cookie", "Connection: Set-Cookie\r\nSet-Cookie: a=b").without(&["Set-Cookie"]),
        passed("a cookie", "Set-Cookie: a=b\r\nCache-Control: max-age=60"),
        kept("a trailer that is announced and does not come", "Trailer: X-Trailer").without(&["X-Trailer"]),
        kept(
            "a field of a proxy's dialogue",
            "Proxy-Authentication-Info: nextnonce=1\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
        ),
    ]
}

fn doubled() -> Vec<Case> {
    let kept = |name, fields: &str| Case::kept(name, with(fields), HELLO);
    vec![
        Case::kept("two tags", plain("ETag: \"a\"\r\nETag: \"b\"\r\nCache-Control: max-age=60"), HELLO),
        Case::kept("a tag that is two", plain("ETag: \"a\", \"b\"\r\nCache-Control: max-age=60"), HELLO),
        kept("two dates", "Date: Mon, 23 Nov 2026 11:00:00 GMT\r\nDate: Mon, 23 Nov 2026 12:00:00 GMT"),
        kept("two ages", "Age: 1\r\nAge: 5"),
        kept(
            "two times of change",
            "Last-Modified: Mon, 23 Nov 2026 11:00:00 GMT\r\nLast-Modified: Mon, 23 Nov 2026 12:00:00 GMT",
        ),
        kept("two types", "Content-Type: text/html\r\nContent-Type: text/plain"),
        kept("two ends of freshness", "Expires: Mon, 23 Nov 2026 11:00:00 GMT\r\nExpires: 0"),
        Case::passed(
            "two types of what is not kept",
            plain("Content-Type: text/html\r\nContent-Type: text/plain\r\nCache-Control: no-store"),
            200,
            HELLO,
        ),
        Case::passed(
            "two ages and dates of what is not kept",
            plain(
                "Age: 1\r\nAge: 5\r\nDate: Mon, 23 Nov 2026 11:00:00 GMT\r\nDate: Mon, 23 Nov 2026 12:00:00 GMT\r\nCache-Control: no-store",
            ),
            200,
            HELLO,
        ),
        Case::passed(
            "two tags of what is not kept",
            plain("ETag: \"a\"\r\nETag: \"b\"\r\nCache-Control: no-store"),
            200,
            HELLO,
        ),
    ]
}

fn values() -> Vec<Case> {
    let kept = |name, fields: &str| Case::kept(name, plain(fields), HELLO);
    let passed = |name, fields: &str| Case::passed(name, plain(fields), 200, HELLO);
    let other = "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:";
    vec![
        passed("an age beyond 64 bits", "Age: 99999999999999999999999\r\nCache-Control: max-age=60"),
        kept("a negative age", "Age: -5\r\nCache-Control: max-age=60"),
        kept("an age that is none", "Age: soon\r\nCache-Control: max-age=60"),
        passed("an age that is none of what is not kept", "Age: -5\r\nCache-Control: no-store").without(&["Age"]),
        kept("a lifetime beyond 64 bits", "Cache-Control: max-age=99999999999999999999999"),
        passed("a lifetime that is none", "Cache-Control: max-age=soon, =, ,;,\""),
        passed("no-store among nonsense", "Cache-Control: max-age=60, no\u{e9}, x=\"a, b\", no-store"),
        passed("private in other letters", "Cache-Control: max-age=60, PRIVATE"),
        kept("a date that is none", "Date: yesterday\r\nCache-Control: max-age=60"),
        kept("a coding of the content that it does not have", "Cache-Control: max-age=60\r\nContent-Encoding: gzip")
            .telling(&["Content-Encoding"]),
        kept("a tag without quotes", "ETag: object\r\nCache-Control: max-age=60"),
        kept("a digest that is none", "Repr-Digest: sha-256=:nonsense:\r\nCache-Control: max-age=60"),
        Case::mended("a digest of other content", with(&format!("Repr-Digest: {other}")), "")
            .or(Expect::Refused)
            .or(Expect::Cut { status: 200, of: HELLO.to_vec() }),
        Case::passed(
            "a digest of other content that is not kept",
            plain(&format!("Repr-Digest: {other}\r\nCache-Control: no-store")),
            503,
            b"",
        ),
        Case::cut(
            "418 with a body that is cut",
            "HTTP/1.1 418 Teapot\r\nContent-Length: 50\r\n\r\nhello",
            HELLO,
            "cut after 5 bytes",
        )
        .then(After::Close)
        .of_status(418),
        Case::refused(
            "a failure whose body has no end",
            status("HTTP/1.1 500 Oops", "Content-Length: -1\r\n\r\n"),
            "invalid Content-Length",
        ),
        Case::passed("a failure whose body is cut", "HTTP/1.1 500 Oops\r\nContent-Length: 50\r\n\r\nhello", 500, b"")
            .then(After::Close),
        Case::passed(
            "a failure whose body is malformed",
            "HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\nhello",
            500,
            b"",
        ),
        Case::kept(
            "a Via of a thousand",
            ok(&format!("Via: {}1.1 a\r\nContent-Length: 5\r\n\r\nhello", "1.1 a, ".repeat(1000))),
            HELLO,
        ),
    ]
}
