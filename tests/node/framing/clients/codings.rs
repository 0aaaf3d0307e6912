//! Transfer-Encoding (RFC 9112 section 6.1) and the ways to hide it from one of two readers, and chunks (section 7.1).

use super::case::{Case, case, post, posts};
use super::run::group;

/// One chunk, and a request that hides behind it from whoever does not see the coding.
const CHUNKS: &str = "5\r\nhello\r\n0\r\n\r\n";
const HIDDEN: &str = "0\r\n\r\nGET /smuggled/{id} HTTP/1.1\r\nHost: o.example\r\n\r\n";

/// A POST with this body in chunks.
fn chunked(name: &'static str, body: impl AsRef<[u8]>) -> Case {
    post(name, b"Transfer-Encoding: chunked\r\n", body)
}

pub(super) fn transfer_encoding() -> Vec<Case> {
    let lines = |name, lines: &[u8]| post(name, lines, HIDDEN);
    let coding = |name, value: &[u8]| lines(name, &[b"Transfer-Encoding:", value, b"\r\n"].concat());
    let unknown = |name, value: &[u8]| coding(name, value).refused(501, "transfer-coding-unknown");
    let list = |name, value: &[u8]| coding(name, value).refused(400, "transfer-encoding");
    vec![
        post("chunked", "Transfer-Encoding: chunked\r\n", CHUNKS).forwarded(posts("hello")),
        post("in capitals", "tRANSFER-eNCODING:CHUNKED\r\n", CHUNKS).forwarded(posts("hello")),
        post("spaces and tabs around", "Transfer-Encoding: \t chunked \t\r\n", CHUNKS).forwarded(posts("hello")),
        list("nothing", b""),
        list("gzip first", b" gzip, chunked"),
        list("gzip last", b" chunked, gzip"),
        list("identity first", b" identity, chunked"),
        list("twice", b" chunked, chunked"),
        list("an empty member first", b" ,chunked"),
        list("an empty member last", b" chunked,"),
        list("two lines", b" chunked\r\nTransfer-Encoding: chunked"),
        list("two lines, identity first", b" identity\r\nTransfer-Encoding: chunked"),
        list("two lines, a cow last", b" chunked\r\nTransfer-encoding: cow"),
        list("two lines, one empty", b" chunked\r\nTransfer-Encoding:"),
        unknown("identity", b" identity"),
        unknown("gzip", b" gzip"),
        unknown("a letter before it", b" xchunked"),
        unknown("a letter behind it", b" chunkedx"),
        unknown("a letter less", b" chunke"),
        unknown("quoted", b" \"chunked\""),
        unknown("in apostrophes", b" 'chunked'"),
        unknown("a parameter", b" chunked;q=1"),
        unknown("a semicolon", b" chunked;"),
        unknown("two words", b" chun ked"),
        unknown("a no-break space", b" \xa0chunked"),
        unknown("a zero-width space", b" chunked\xe2\x80\x8b"),
        unknown("the long s of Unicode", "\u{17f}chunked".as_bytes()),
        coding("a vertical tab before it", b" \x0bchunked").refused(400, "field-value"),
        coding("a form feed behind it", b" chunked\x0c").refused(400, "field-value"),
        coding("NUL behind it", b" chunked\0").refused(400, "field-value"),
        coding("CR behind it", b" chunked\r").refused(400, "bare-cr"),
        list("on the next line", b"\r\n chunked"),
        lines("a space before the colon", b"Transfer-Encoding : chunked\r\n").refused(400, "space-before-colon"),
        lines("a space in the name", b"Transfer Encoding: chunked\r\n").refused(400, "field-name"),
        lines("an underscore in the name", b"Transfer_Encoding: chunked\r\n").refused(400, "field-name"),
        lines("NUL in the name", b"Transfer-Encoding\0: chunked\r\n").refused(400, "field-name"),
        lines("behind CR in another field", b"X: y\rTransfer-Encoding: chunked\r\n").refused(400, "bare-cr"),
        lines("behind LF in another field", b"X: y\nTransfer-Encoding: chunked\r\n").refused(400, "bare-lf"),
        case("1.0", b"POST /{id} HTTP/1.0\r\nHost: o.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
            .refused(400, "transfer-encoding"),
    ]
}

pub(super) fn whole_chunks() -> Vec<Case> {
    let hello = |name, body: &str| chunked(name, body).forwarded(posts("hello"));
    let trailers = |name, lines: &str| hello(name, &format!("5\r\nhello\r\n0\r\n{lines}\r\n"));
    vec![
        chunked("none", "0\r\n\r\n").forwarded(posts("")),
        hello("two", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
        hello("zeros before the size", "0000000005\r\nhello\r\n0000\r\n\r\n"),
        chunked("capital and small digits", "A\r\n0123456789\r\nb\r\n0123456789a\r\n0\r\n\r\n")
            .forwarded(posts("01234567890123456789a")),
        hello("an extension", "5;name=value\r\nhello\r\n0;last\r\n\r\n"),
        hello("a quoted extension", "5;name=\"5\\\";0\"\r\nhello\r\n0\r\n\r\n"),
        hello("an extension without a name", "5;\r\nhello\r\n0;\r\n\r\n"),
        chunked("a thousand", "1\r\nx\r\n".repeat(1000) + "0\r\n\r\n").forwarded(posts("x".repeat(1000))),
        chunked("data like a last chunk", "5\r\n0\r\n\r\n\r\n0\r\n\r\n").forwarded(posts("0\r\n\r\n")),
        chunked("data like a request", format!("35\r\n{HIDDEN}\r\n0\r\n\r\n")).forwarded(posts(HIDDEN)),
        trailers("a trailer", "X: y\r\n"),
        trailers("Content-Length in the trailer", "Content-Length: 50\r\n"),
        trailers("Transfer-Encoding in the trailer", "Transfer-Encoding: gzip\r\n"),
        trailers("Host in the trailer", "Host: evil.example\r\n"),
        trailers("Authorization in the trailer", "Authorization: Bearer x\r\n"),
    ]
}

pub(super) fn broken_chunks() -> Vec<Case> {
    let broken = |name, body: &str| chunked(name, format!("{body}{HIDDEN}")).broken();
    let extension = format!("5;{}\r\nhello\r\n", "x".repeat(5000));
    let trailer = format!("0\r\nX: {}\r\n\r\n", "y".repeat(5000));
    vec![
        broken("no size", "\r\nhello\r\n"),
        broken("a letter for a size", "g\r\nhello\r\n"),
        broken("a minus", "-5\r\nhello\r\n"),
        broken("a plus", "+5\r\nhello\r\n"),
        broken("0x", "0x5\r\nhello\r\n"),
        broken("a space before the size", " 5\r\nhello\r\n"),
        broken("a space behind the size", "5 \r\nhello\r\n"),
        broken("a tab behind the size", "5\t\r\nhello\r\n"),
        broken("a space before the extension", "5 ;x\r\nhello\r\n"),
        broken("a comma behind the size", "5,5\r\nhello\r\n"),
        broken("LF behind the size", "5\nhello\r\n"),
        broken("CR behind the size", "5\rhello\r\n"),
        broken("CR CR LF behind the size", "5\r\r\nhello\r\n"),
        broken("LF in an extension", "5;x\nhello\r\n"),
        broken("CR in an extension", "5;x\rhello\r\n"),
        broken("NUL in an extension", "5;\0\r\nhello\r\n"),
        broken("an extension without end", &extension),
        broken("seventeen digits", "00000000000000005\r\nhello\r\n"),
        broken("2^64 + 5", "10000000000000005\r\nhello\r\n"),
        broken("a byte too many", "5\r\nhello!\r\n"),
        broken("two bytes in place of CR LF", "5\r\nhello!!0\r\n\r\n"),
        broken("a byte too few", "5\r\nhell\r\n"),
        broken("nothing behind the data", "5\r\nhello0\r\n\r\n"),
        broken("LF behind the data", "5\r\nhello\n0\r\n\r\n"),
        broken("CR behind the data", "5\r\nhello\r0\r\n\r\n"),
        broken("LF for the end", "0\r\n\n"),
        broken("LF behind the last size", "0\n\r\n"),
        broken("CR for the end", "0\r\n\r"),
        broken("LF behind a trailer", "0\r\nX: y\n\r\n"),
        broken("CR in a trailer", "0\r\nX: a\rb\r\n\r\n"),
        broken("NUL in a trailer", "0\r\nX: \0\r\n\r\n"),
        broken("a trailer without end", &trailer),
        broken("a trailer without a name", "0\r\n: y\r\n\r\n"),
        broken("a trailer without a colon", "0\r\nX\r\n\r\n"),
        broken("a space before the colon of a trailer", "0\r\nContent-Length : 50\r\n\r\n"),
        broken("a continued trailer", "0\r\nX: y\r\n z\r\n\r\n"),
        broken("a space before a trailer", "0\r\n X: y\r\n\r\n"),
        broken("a request for a trailer", "0\r\nGET /smuggled/{id} HTTP/1.1\r\n\r\n"),
    ]
}

#[tokio::test]
async fn codings() {
    group(transfer_encoding()).await;
}

#[tokio::test]
async fn chunks_that_are_whole() {
    group(whole_chunks()).await;
}

#[tokio::test]
async fn chunks_that_are_broken() {
    group(broken_chunks()).await;
}
