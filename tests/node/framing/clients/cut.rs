//! Messages that end before their end: the client stops in the middle, and ends its side or closes.

use super::case::{Case, case, post};
use super::run::group;

const HIDDEN: &str = "GET /smuggled/{id} HTTP/1.1\r\nHost: o.example\r\n\r\n";

pub(super) fn heads() -> Vec<Case> {
    let cut = |name: &str, text: &str| case(name, text).cut();
    vec![
        cut("nothing", ""),
        cut("an empty line", "\r\n"),
        cut("in the method", "GE"),
        cut("behind the method", "GET "),
        cut("in the target", "GET /{id}"),
        cut("in the version", "GET /{id} HTTP/1."),
        cut("before LF", "GET /{id} HTTP/1.1\r"),
        cut("behind the request line", "GET /{id} HTTP/1.1\r\n"),
        cut("in a name", "GET /{id} HTTP/1.1\r\nHost: o.example\r\nAccep"),
        cut("in a value", "GET /{id} HTTP/1.1\r\nHost: o.example\r\nAccept: */*"),
        cut("before the empty line", "GET /{id} HTTP/1.1\r\nHost: o.example\r\n"),
        cut("in the empty line", "GET /{id} HTTP/1.1\r\nHost: o.example\r\n\r"),
        cut("1.0 before the empty line", "GET /{id} HTTP/1.0\r\n"),
    ]
}

pub(super) fn bodies() -> Vec<Case> {
    let length = |name: &str, length: &str, body: &str| post(name, format!("Content-Length: {length}\r\n"), body).cut();
    let chunks = |name: &str, body: &str| post(name, "Transfer-Encoding: chunked\r\n", body).cut();
    vec![
        length("nothing of a body", "5", ""),
        length("one byte missing", "6", "hello"),
        length("of 2^63 bytes", "9223372036854775808", "hello"),
        length("of the longest that is", "18446744073709551613", "hello"),
        length("a request in it", "100", HIDDEN),
        case("1.0", b"POST /{id} HTTP/1.0\r\nHost: o.example\r\nContent-Length: 6\r\n\r\nhello").cut(),
        chunks("no chunk", ""),
        chunks("in a size", "5"),
        chunks("before the LF of a size", "5\r"),
        chunks("in an extension", "5;a=b"),
        chunks("in the data", "5\r\nhel"),
        chunks("behind the data", "5\r\nhello"),
        chunks("before the last chunk", "5\r\nhello\r\n"),
        chunks("in the last size", "5\r\nhello\r\n0"),
        chunks("behind the last size", "5\r\nhello\r\n0\r\n"),
        chunks("in a trailer", "5\r\nhello\r\n0\r\nX: y"),
        chunks("behind a trailer", "5\r\nhello\r\n0\r\nX: y\r\n"),
        chunks("in the last empty line", "5\r\nhello\r\n0\r\n\r"),
        chunks("a chunk of 2^64 - 1 bytes", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        chunks("a chunk with a request in it", &format!("64\r\n{HIDDEN}\r\n0\r\n\r\n")),
        post("a body that was waited for", "Expect: 100-continue\r\nContent-Length: 5\r\n", "").cut().continued(),
    ]
}

#[tokio::test]
async fn heads_that_are_cut() {
    group(heads()).await;
}

#[tokio::test]
async fn bodies_that_are_cut() {
    group(bodies()).await;
}
