//! Fields that steer a cache or what is behind it: hop by hop, conditions, ranges, how far to go, other URLs and methods.

use super::case::{Case, Meaning, case, get, means, post, posts};
use super::run::group;

pub(super) fn hop_by_hop() -> Vec<Case> {
    let usual = || means("/{id}");
    let gone = |name, fields: &str, lacks: &'static str| get(name, fields).forwarded(usual().lacks(&[lacks]));
    vec![
        gone("a field of one hop", "Connection: X-Hop\r\nX-Hop: a\r\n", "X-Hop"),
        gone("named in another line", "Connection: keep-alive\r\nX-Hop: a\r\nConnection: , x-hop ,\r\n", "X-Hop"),
        gone("Authorization named", "Connection: Authorization\r\nAuthorization: Bearer x\r\n", "Authorization"),
        get("close and a field", "Connection: close, X-Hop\r\nX-Hop: a\r\n")
            .forwarded(usual().lacks(&["X-Hop"]))
            .closes(),
        get("Host named", "Connection: Host\r\n").forwarded(usual()),
        post("Content-Length named", "Connection: Content-Length\r\nContent-Length: 5\r\n", "hello")
            .forwarded(posts("hello").has("Content-Length", b"5")),
        post(
            "Transfer-Encoding named",
            "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        )
        .forwarded(posts("hello")),
        get("Cache-Control named", "Connection: Cache-Control\r\nCache-Control: no-cache\r\n")
            .forwarded(usual().has("Cache-Control", b"no-cache")),
        get("Via and CDN-Loop named", "Connection: Via, CDN-Loop\r\nVia: 1.1 other\r\nCDN-Loop: other\r\n")
            .forwarded(usual().with("Via", b"1.1 other").with("CDN-Loop", b"other")),
        get("names that are none", "Connection: \"X-Hop\", (a), X Hop, :\r\nX-Hop: a\r\n")
            .forwarded(usual().has("X-Hop", b"a")),
        get("nothing but commas", format!("Connection: {}\r\n", ",".repeat(1000))).forwarded(usual()),
        gone("Keep-Alive", "Keep-Alive: timeout=1000000, max=0\r\n", "Keep-Alive"),
        gone("Proxy-Connection", "Proxy-Connection: close\r\n", "Proxy-Connection"),
        gone("TE", "Connection: TE\r\nTE: trailers, chunked;q=0.5\r\n", "TE"),
        gone("TE that Connection does not name", "TE: trailers\r\n", "TE"),
        gone("Trailer", "Trailer: Content-Length\r\n", "Trailer"),
        gone("Proxy-Authorization", "Proxy-Authorization: Basic YTpi\r\n", "Proxy-Authorization"),
    ]
}

pub(super) fn steering() -> Vec<Case> {
    let usual = || means("/{id}");
    let gone = |name, fields: &str, lacks: &'static str| get(name, fields).forwarded(usual().lacks(&[lacks]));
    let options = |name, number: &str| {
        case(name, format!("OPTIONS /{{id}} HTTP/1.1\r\nHost: o.example\r\nMax-Forwards: {number}\r\n\r\n"))
    };
    let asked = |number| Meaning::new("OPTIONS", "/{id}", b"").has("Max-Forwards", number);
    vec![
        gone("X-Forwarded-Host", "X-Forwarded-Host: evil.example\r\n", "X-Forwarded-Host"),
        gone("Forwarded", "Forwarded: host=evil.example;proto=https\r\n", "Forwarded"),
        gone("X-Original-URL", "X-Original-URL: /smuggled/{id}\r\n", "X-Original-URL"),
        gone("X-Rewrite-URL", "X-Rewrite-URL: /smuggled/{id}\r\n", "X-Rewrite-URL"),
        gone("X-HTTP-Method-Override", "X-HTTP-Method-Override: DELETE\r\n", "X-HTTP-Method-Override"),
        gone("X-Host", "X-Host: evil.example\r\n", "X-Host"),
        gone("Cookie", "Cookie: a=b\r\n", "Cookie"),
        get("an origin in a field", "cacheHostOrigin: evil.example\r\n").forwarded(usual()),
        gone("the time that a cache below has left", "Waystation-Time-Left: -1\r\n", "Waystation-Time-Left"),
        get("the own name in CDN-Loop", "CDN-Loop: site-7\r\n").answered(508, "loop"),
        get("the own name in Via, in a long list", format!("Via: {}1.1 site-7\r\n", "1.1 x, ".repeat(500)))
            .answered(508, "loop"),
        get("a range", "Range: bytes=0-4\r\n").forwarded(usual().gives(206).lacks(&["Range"])),
        get("a range that is none", "Range: bytes=4-0\r\n").forwarded(usual().lacks(&["Range"])),
        get("a range of another unit", "Range: lines=0-4\r\n").forwarded(usual()),
        get("a range beyond all", "Range: bytes=18446744073709551615-18446744073709551616\r\n")
            .forwarded(usual().gives(416)),
        get("two Range lines", "Range: bytes=0-0\r\nRange: bytes=0-4\r\n").forwarded(usual().gives(206)),
        get("a thousand ranges", format!("Range: bytes=0-0{}\r\n", ",0-0".repeat(1000))).forwarded(usual()),
        get("If-None-Match", "If-None-Match: \"1\"\r\n").forwarded(usual().gives(304).lacks(&["If-None-Match"])),
        get("If-Match of another version", "If-Match: \"2\"\r\n").forwarded(usual().gives(412)),
        get("If-None-Match that is none", "If-None-Match: \"1\r\n").forwarded(usual()),
        get("If-Modified-Since that is none", "If-Modified-Since: tomorrow\r\n").forwarded(usual()),
        get("only-if-cached", "Cache-Control: only-if-cached\r\n").answered(504, "only-if-cached"),
        options("Max-Forwards 0", "0").answered(200, "max-forwards"),
        options("Max-Forwards 7", "7").forwarded(asked(b"6")),
        options("Max-Forwards beyond all", "99999999999999999999").forwarded(asked(b"4294967294")),
        options("Max-Forwards that is none", "-1").forwarded(asked(b"-1")),
        get("Max-Forwards of GET", "Max-Forwards: 0\r\n").forwarded(usual().has("Max-Forwards", b"0")),
    ]
}

pub(super) fn methods() -> Vec<Case> {
    let method = |method: &str| {
        case(format!("the method {method}"), format!("{method} /{{id}} HTTP/1.1\r\nHost: o.example\r\n\r\n"))
            .answered(405, "method-not-allowed")
    };
    let long = "M".repeat(1000);
    vec![
        method("get"),
        method("Get"),
        method("POSTT"),
        method("*"),
        method("G!T"),
        method("TRACE"),
        method("TRACK"),
        method("PURGE"),
        method("BAN"),
        method("PRI"),
        method("HTTP"),
        method(&long),
        case("TRACE with Max-Forwards", b"TRACE /{id} HTTP/1.1\r\nHost: o.example\r\nMax-Forwards: 0\r\n\r\n")
            .answered(405, "method-not-allowed"),
        case("a colon in the method", b"GET: /{id} HTTP/1.1\r\nHost: o.example\r\n\r\n").refused(400, "method"),
        case("UTF-8 in the method", b"G\xc3\x89T /{id} HTTP/1.1\r\nHost: o.example\r\n\r\n").refused(400, "method"),
        case("NUL in the method", b"G\0ET /{id} HTTP/1.1\r\nHost: o.example\r\n\r\n").refused(400, "method"),
        case("two methods with a comma", b"GET,POST /{id} HTTP/1.1\r\nHost: o.example\r\n\r\n").refused(400, "method"),
    ]
}

#[tokio::test]
async fn fields_of_one_hop() {
    group(hop_by_hop()).await;
}

#[tokio::test]
async fn fields_that_steer() {
    group(steering()).await;
}

#[tokio::test]
async fn odd_methods() {
    group(methods()).await;
}
