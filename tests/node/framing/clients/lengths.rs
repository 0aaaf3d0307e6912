//! Content-Length (RFC 9112 sections 6.2 and 6.3), alone and beside Transfer-Encoding.

use super::case::{Case, Meaning, case, get, means, post, posts};
use super::run::group;

/// A request that hides behind a body of which one side believes that it has none.
const HIDDEN: &str = "GET /smuggled/{id} HTTP/1.1\r\nHost: o.example\r\n\r\n";

pub(super) fn content_length() -> Vec<Case> {
    let length = |name, value: &[u8]| post(name, [b"Content-Length: ", value, b"\r\n"].concat(), b"hello");
    let invalid = |name, value: &[u8]| length(name, value).refused(400, "content-length");
    vec![
        invalid("empty", b""),
        invalid("a plus", b"+5"),
        invalid("a minus", b"-5"),
        invalid("hexadecimal", b"0x5"),
        invalid("two numbers", b"5 5"),
        invalid("a list of equal ones", b"5, 5"),
        invalid("a list of different ones", b"0, 5"),
        invalid("a list with an empty member", b"5,"),
        invalid("a parameter", b"5;q=1"),
        invalid("a fraction", b"5.0"),
        invalid("an exponent", b"5e0"),
        invalid("a letter behind it", b"5a"),
        invalid("quoted", b"\"5\""),
        invalid("an underscore", b"0_5"),
        invalid("full-width digits", "\u{ff15}".as_bytes()),
        invalid("a no-break space", b"5\xa0"),
        invalid("2^64", b"18446744073709551616"),
        invalid("2^64 + 5", b"18446744073709551621"),
        invalid("two hundred digits", &b"9".repeat(200)),
        length("a vertical tab", b"5\x0b").refused(400, "field-value"),
        length("NUL", b"5\0").refused(400, "field-value"),
        length("leading zeros", b"0000005").forwarded(posts(b"hello").has("Content-Length", b"5")),
        length("spaces and tabs around", b" \t5\t ").forwarded(posts(b"hello")),
        length("twice the same", b"5\r\nContent-Length: 5").forwarded(posts(b"hello").has("Content-Length", b"5")),
        length("twice the same in other digits", b"5\r\ncontent-length: 05").forwarded(posts(b"hello")),
        length("two that differ", b"5\r\nContent-Length: 0").refused(400, "content-length-differs"),
        length("one of three differs", b"5\r\nContent-Length: 5\r\nContent-Length: 6")
            .refused(400, "content-length-differs"),
        length("a second one that is empty", b"5\r\nContent-Length:").refused(400, "content-length"),
        post("a space before the colon", b"Content-Length : 5\r\n", b"hello").refused(400, "space-before-colon"),
        invalid("on the next line", b"\r\n 5"),
        post("an underscore in the name", b"Content_Length: 5\r\n", b"").refused(400, "field-name"),
        post("a body of line ends", b"Content-Length: 8\r\n", b"\r\n\r\n\r\n\r\n")
            .forwarded(posts(b"\r\n\r\n\r\n\r\n")),
        post("a body of zeros", b"Content-Length: 3\r\n", b"\0\0\0").forwarded(posts(b"\0\0\0")),
        post("no length at all", b"", b"").forwarded(posts(b"").has("Content-Length", b"0")),
        post("zero", b"Content-Length: 0\r\n", b"").forwarded(posts(b"").has("Content-Length", b"0")),
        post("two empty lines behind the body", b"Content-Length: 5\r\n", b"hello\r\n\r\n").forwarded(posts(b"hello")),
        case("1.0", b"POST /{id} HTTP/1.0\r\nHost: o.example\r\nContent-Length: 5\r\n\r\nhello")
            .forwarded(posts(b"hello"))
            .closes(),
    ]
}

/// Bodies of methods that have none, or that the cache has no use for.
pub(super) fn bodies() -> Vec<Case> {
    let hidden = |name, method: &str| {
        let length = HIDDEN.len();
        // `{id}` is as long as its word.
        case(name, format!("{method} /{{id}} HTTP/1.1\r\nHost: o.example\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"))
    };
    let content = || HIDDEN.as_bytes();
    let flood = HIDDEN.repeat(5000);
    vec![
        hidden("of GET", "GET").forwarded(means("/{id}").lacks(&["Content-Length", "Transfer-Encoding"])).unread(),
        hidden("of HEAD", "HEAD").forwarded(Meaning::new("HEAD", "/{id}", b"")).unread(),
        hidden("of DELETE", "DELETE").forwarded(Meaning::new("DELETE", "/{id}", content())),
        hidden("of OPTIONS", "OPTIONS").forwarded(Meaning::new("OPTIONS", "/{id}", content())),
        hidden("of POST", "POST").forwarded(posts(content())),
        hidden("of PUT", "PUT").forwarded(Meaning::new("PUT", "/{id}", content())),
        hidden("of PATCH", "PATCH").forwarded(Meaning::new("PATCH", "/{id}", content())),
        hidden("of a method that nobody allows", "BREW").answered(405, "method-not-allowed").unread(),
        hidden("of TRACE", "TRACE").answered(405, "method-not-allowed").unread(),
        get("a long one of GET", format!("Content-Length: {}\r\n\r\n{flood}", flood.len() + 2))
            .forwarded(means("/{id}"))
            .closes(),
        get("of GET in chunks", format!("Transfer-Encoding: chunked\r\n\r\n30\r\n{HIDDEN}\r\n0\r\n"))
            .forwarded(means("/{id}").lacks(&["Transfer-Encoding"]))
            .unread(),
        case(
            "of OPTIONS in chunks",
            format!(
                "OPTIONS /{{id}} HTTP/1.1\r\nHost: o.example\r\nTransfer-Encoding: chunked\r\n\r\n30\r\n{HIDDEN}\r\n0\r\n\r\n"
            ),
        )
        .forwarded(Meaning::new("OPTIONS", "/{id}", content())),
    ]
}

pub(super) fn with_transfer_encoding() -> Vec<Case> {
    let both =
        |name, fields: &str| post(name, fields, format!("0\r\n\r\n{HIDDEN}")).refused(400, "length-and-encoding");
    vec![
        both("length first", "Content-Length: 54\r\nTransfer-Encoding: chunked\r\n"),
        both("coding first", "Transfer-Encoding: chunked\r\nContent-Length: 54\r\n"),
        both("the length of the chunks", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        both("length 0", "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"),
        both("others between them", "Content-Length: 54\r\nX: y\r\nTransfer-Encoding: chunked\r\n"),
        both("in other letters", "CONTENT-LENGTH: 54\r\ntransfer-encoding: CHUNKED\r\n"),
        both("a coding that is unknown", "Content-Length: 54\r\nTransfer-Encoding: gzip\r\n"),
        both("the coding identity", "Content-Length: 54\r\nTransfer-Encoding: identity\r\n"),
        both("two lengths", "Content-Length: 54\r\nTransfer-Encoding: chunked\r\nContent-Length: 54\r\n"),
        both("length named in Connection", "Connection: Content-Length\r\nContent-Length: 54\r\nTransfer-Encoding: chunked\r\n"),
        both("coding named in Connection", "Connection: Transfer-Encoding\r\nContent-Length: 54\r\nTransfer-Encoding: chunked\r\n"),
        case(
            "1.0",
            format!("POST /{{id}} HTTP/1.0\r\nHost: o.example\r\nContent-Length: 54\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"),
        )
        .refused(400, "length-and-encoding"),
        get("GET", format!("Content-Length: 54\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"))
            .refused(400, "length-and-encoding"),
    ]
}

#[tokio::test]
async fn lengths() {
    group(content_length()).await;
}

#[tokio::test]
async fn bodies_that_look_like_requests() {
    group(bodies()).await;
}

#[tokio::test]
async fn lengths_beside_codings() {
    group(with_transfer_encoding()).await;
}
