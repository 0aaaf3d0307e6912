//! Several requests in one write: which of them are answered, and which must not be.

use super::case::{Case, Meaning, case, get, means};
use super::run::group;

const HIDDEN: &str = "GET /smuggled/{id} HTTP/1.1\r\nHost: o.example\r\n\r\n";
const USUAL: &str = "GET /{id} HTTP/1.1\r\nHost: o.example\r\n\r\n";
const SECOND: &str = "GET /{id}/second HTTP/1.1\r\nHost: o.example\r\n\r\n";
const BOTH: &str =
    "POST /{id}/third HTTP/1.1\r\nHost: o.example\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";

fn written(name: &str, requests: &[&str]) -> Case {
    case(name, requests.concat())
}

pub(super) fn pipelines() -> Vec<Case> {
    let (usual, second) = (|| means("/{id}"), || means("/{id}/second"));
    let third = |body: &str| Meaning::new("POST", "/{id}/third", body);
    let head = "HEAD /{id} HTTP/1.1\r\nHost: o.example\r\n\r\n";
    let length = "POST /{id}/third HTTP/1.1\r\nHost: o.example\r\nContent-Length: 5\r\n\r\nhello";
    let chunks =
        "POST /{id}/third HTTP/1.1\r\nHost: o.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let unknown = "BREW /{id} HTTP/1.1\r\nHost: o.example\r\n\r\n";
    vec![
        written("two", &[USUAL, SECOND]).forwarded(usual()).forwarded(second()),
        written("empty lines between", &[USUAL, "\r\n\r\n", SECOND]).forwarded(usual()).forwarded(second()),
        written("a body between", &[USUAL, length, SECOND])
            .forwarded(usual())
            .forwarded(third("hello"))
            .forwarded(second()),
        written("chunks between", &[USUAL, chunks, SECOND])
            .forwarded(usual())
            .forwarded(third("hello"))
            .forwarded(second()),
        written("HEAD first", &[head, SECOND]).forwarded(Meaning::new("HEAD", "/{id}", "")).forwarded(second()),
        written("HEAD behind GET", &[USUAL, head, SECOND])
            .forwarded(usual())
            .stored(Meaning::new("HEAD", "/{id}", ""))
            .forwarded(second()),
        written("a method that is refused", &[unknown, SECOND]).answered(405, "method-not-allowed").forwarded(second()),
        written("two framings in the second", &[USUAL, BOTH, HIDDEN])
            .forwarded(usual())
            .refused(400, "length-and-encoding"),
        written("two framings behind what is stored", &[USUAL, USUAL, USUAL, USUAL, BOTH, HIDDEN])
            .forwarded(usual())
            .stored(usual())
            .stored(usual())
            .stored(usual())
            .refused(400, "length-and-encoding"),
        written("LF in the second", &[USUAL, "GET /{id} HTTP/1.1\nHost: o.example\n\n", HIDDEN])
            .forwarded(usual())
            .refused(400, "bare-lf"),
        written("a broken chunk in the second", &[USUAL, &chunks.replace("hello\r\n0", "hello0"), HIDDEN])
            .forwarded(usual())
            .broken(),
        written("a target that is refused", &["GET /a/../{id} HTTP/1.1\r\nHost: o.example\r\n\r\n", HIDDEN])
            .answered(400, "target-dot-segment"),
        written("CONNECT that is refused", &["CONNECT o.example:443 HTTP/1.1\r\nHost: o.example:443\r\n\r\n", HIDDEN])
            .answered(405, "connect-not-allowed")
            .closes(),
        get("behind Connection: close", format!("Connection: close\r\n\r\n{HIDDEN}")).forwarded(usual()).closes(),
        written("behind HTTP/1.0", &["GET /{id} HTTP/1.0\r\nHost: o.example\r\n\r\n", HIDDEN])
            .forwarded(usual())
            .closes(),
        written("a body that is one byte longer than it says", &[&length.replace("hello", "hello!"), SECOND])
            .forwarded(third("hello"))
            .answered(405, "method-not-allowed"),
        written("chunks with a byte behind them", &[chunks, "\0", HIDDEN])
            .forwarded(third("hello"))
            .refused(400, "method"),
        written("a chunk too many", &[chunks, "5\r\nhello\r\n0\r\n\r\n", HIDDEN])
            .forwarded(third("hello"))
            .refused(400, "target"),
        written("an answer in place of a request", &[USUAL, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", HIDDEN])
            .forwarded(usual())
            .refused(400, "method"),
    ]
}

/// Bodies that are still coming when the origin has answered.
pub(super) fn early_answers() -> Vec<Case> {
    let flood = HIDDEN.repeat(10_000);
    let line = "POST /early/{id} HTTP/1.1\r\nHost: o.example\r\n";
    let meant = || Meaning::new("POST", "/early/{id}", &flood);
    let chunks = format!("{:x}\r\n{flood}\r\n0\r\n\r\n", flood.len());
    vec![
        case("of known length", format!("{line}Content-Length: {}\r\n\r\n{flood}", flood.len())).forwarded(meant()),
        case("in chunks", format!("{line}Transfer-Encoding: chunked\r\n\r\n{chunks}")).forwarded(meant()),
    ]
}

#[tokio::test]
async fn answers_before_the_body_has_come() {
    group(early_answers()).await;
}

#[tokio::test]
async fn requests_in_one_write() {
    group(pipelines()).await;
}
