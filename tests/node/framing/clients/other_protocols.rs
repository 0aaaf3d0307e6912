//! `Expect`, `Upgrade`, and other protocols on the port for HTTP/1.1.

use super::case::{Case, Meaning, case, get, means, post, posts};
use super::run::group;

const HIDDEN: &str = "GET /smuggled/{id} HTTP/1.1\r\nHost: o.example\r\n\r\n";

pub(super) fn expectations() -> Vec<Case> {
    let expects = |name, fields: &str| post(name, format!("{fields}Content-Length: 5\r\n"), "hello");
    let hidden = |name, method: &str, expect: &str| {
        let length = HIDDEN.len();
        let head =
            format!("{method} /{{id}} HTTP/1.1\r\nHost: o.example\r\nExpect: {expect}\r\nContent-Length: {length}");
        case(name, format!("{head}\r\n\r\n{HIDDEN}"))
    };
    vec![
        expects("of a body", "Expect: 100-continue\r\n").forwarded(posts("hello").lacks(&["Expect"])).continued(),
        expects("in capitals", "Expect: 100-CONTINUE\r\n").forwarded(posts("hello")).continued(),
        post("of chunks", "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n")
            .forwarded(posts("hello"))
            .continued(),
        post("of nothing", "Expect: 100-continue\r\nContent-Length: 0\r\n", "").forwarded(posts("")),
        get("of GET without a body", "Expect: 100-continue\r\n").forwarded(means("/{id}").lacks(&["Expect"])),
        case("1.0", "POST /{id} HTTP/1.0\r\nHost: o.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello")
            .forwarded(posts("hello"))
            .closes(),
        hidden("a hidden request in POST", "POST", "100-continue").forwarded(posts(HIDDEN)).continued(),
        hidden("a hidden request in GET", "GET", "100-continue").forwarded(means("/{id}")).unread(),
        hidden("a hidden request in HEAD", "HEAD", "100-continue")
            .forwarded(Meaning::new("HEAD", "/{id}", ""))
            .unread(),
        hidden("a hidden request in what is refused", "BREW", "100-continue")
            .answered(405, "method-not-allowed")
            .unread(),
        get(
            "beside both framings",
            format!(
                "Expect: 100-continue\r\nContent-Length: 48\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"
            ),
        )
        .refused(400, "length-and-encoding"),
    ]
}

/// Expectations that nobody knows, or that are spelled so that only some know them.
pub(super) fn unknown_expectations() -> Vec<Case> {
    let hidden = |name, expect: &str| {
        let length = HIDDEN.len();
        post(name, format!("Expect: {expect}\r\nContent-Length: {length}\r\n"), HIDDEN)
            .forwarded(posts(HIDDEN).lacks(&["Expect"]))
    };
    vec![
        hidden("another one", "200-ok"),
        hidden("a word before it", "y 100-continue"),
        hidden("a list", "100-continue, 100-continue"),
        hidden("a parameter", "100-continue; x"),
        hidden("nothing", ""),
        hidden("a number alone", "100"),
    ]
}

pub(super) fn upgrades() -> Vec<Case> {
    let never = ["Upgrade", "Connection", "HTTP2-Settings"];
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [preface.as_bytes(), b"\0\0\0\x04\0\0\0\0\0"].concat();
    let upgrade = |name, fields: &str| get(name, fields).forwarded(means("/{id}").lacks(&never));
    let raw = |name, bytes: &[u8]| case(name, bytes);
    vec![
        upgrade("h2c", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
        upgrade("h2c without Connection", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
        upgrade("h2c, a part in Connection", "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
        upgrade("WebSocket", "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n"),
        upgrade("WebSocket of a version that nobody speaks", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\n"),
        upgrade("TLS", "Connection: Upgrade\r\nUpgrade: TLS/1.2, HTTP/1.1\r\n"),
        upgrade("Connection without Upgrade", "Connection: Upgrade\r\n"),
        post("h2c with a body like a preface", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 24\r\n", preface)
            .forwarded(posts(preface).lacks(&never)),
        get("h2c and then a preface", format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n{preface}"))
            .forwarded(means("/{id}").lacks(&never))
            .refused(505, "version-unsupported"),
        raw("HTTP/2 with prior knowledge", &settings).refused(505, "version-unsupported"),
        raw("half of its preface", b"PRI * HTTP/1.1\r\nHost: o.example\r\n\r\nSM\r\n\r\n").answered(400, "target-form"),
        raw("TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03").refused(400, "tls"),
        raw("PROXY, version 1", b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET /smuggled/{id} HTTP/1.1\r\nHost: o.example\r\n\r\n")
            .refused(400, "version"),
        raw("PROXY, version 2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x01\x0a\0\0\x02\0\x01\0\x02GET /smuggled/{id} HTTP/1.1\r\nHost: o.example\r\n\r\n")
            .refused(400, "proxy-header-unexpected"),
        raw("SSH", b"SSH-2.0-OpenSSH_9.9\r\n").refused(400, "target"),
        raw("SMTP", b"EHLO o.example\r\nMAIL FROM:<a@o.example>\r\n").refused(400, "version"),
        raw("SOCKS 5", b"\x05\x01\x00\r\n").refused(400, "method"),
        raw("memcached", b"get /smuggled\r\n").refused(400, "version"),
        raw("FastCGI", b"\x01\x01\0\x01\0\x08\0\0\0\x01\0\0\0\0\0\0\r\n").refused(400, "method"),
    ]
}

#[tokio::test]
async fn expectations_of_100_continue() {
    group(expectations()).await;
}

#[tokio::test]
async fn expectations_that_are_unknown() {
    group(unknown_expectations()).await;
}

#[tokio::test]
async fn upgrades_and_other_protocols() {
    group(upgrades()).await;
}
