//! Field lines: what ends them, what stands in them, how many and how long they are.

use super::case::{Case, get, means};
use super::run::group;

fn usual() -> super::case::Meaning {
    means("/{id}")
}

pub(super) fn line_ends() -> Vec<Case> {
    vec![
        get("a space before the colon", b"X : a\r\n").refused(400, "space-before-colon"),
        get("a tab before the colon", b"X\t: a\r\n").refused(400, "space-before-colon"),
        get("a line continued by a space", b"X: a\r\n b\r\n").refused(400, "obs-fold"),
        get("a line continued by a tab", b"X: a\r\n\tb\r\n").refused(400, "obs-fold"),
        get("a line of one space", b"X: a\r\n \r\n").refused(400, "obs-fold"),
        get("a whole field in a continued line", b"X: a\r\n Y: b\r\n").refused(400, "obs-fold"),
        get("CR in a value", b"X: a\rb\r\n").refused(400, "bare-cr"),
        get("a field behind CR", b"X: a\rY: b\r\n").refused(400, "bare-cr"),
        get("CR CR LF", b"X: a\r\r\n").refused(400, "bare-cr"),
        get("CR in a name", b"X\r: a\r\n").refused(400, "bare-cr"),
        get("LF ends a line", b"X: a\nY: b\r\n").refused(400, "bare-lf"),
        get("LF ends the head", b"X: a\n").refused(400, "bare-lf"),
        get("an empty line of LF alone", b"X: a\r\n\n").refused(400, "bare-lf"),
        get("LF CR", b"X: a\n\rY: b\r\n").refused(400, "bare-lf"),
        get("a request behind two LF", b"X: a\n\nGET /smuggled/{id} HTTP/1.1\r\nHost: o.example\r\n")
            .refused(400, "bare-lf"),
        get("a request behind CR CR", b"X: a\r\r\n\r\r\nGET /smuggled/{id} HTTP/1.1\r\nHost: o.example\r\n")
            .refused(400, "bare-cr"),
    ]
}

pub(super) fn names() -> Vec<Case> {
    let name = |what, name: &[u8]| get(what, [name, b": a\r\n"].concat());
    vec![
        name("empty", b"").refused(400, "field-name"),
        get("no colon", b"X\r\n").refused(400, "field-name"),
        get("a request line for a field", b"GET /smuggled/{id} HTTP/1.1\r\n").refused(400, "field-name"),
        name("two words", b"X Y").refused(400, "field-name"),
        name("parentheses", b"X(Y)").refused(400, "field-name"),
        name("quoted", b"\"X\"").refused(400, "field-name"),
        name("a comma", b"X,Y").refused(400, "field-name"),
        name("a slash", b"X/Y").refused(400, "field-name"),
        name("NUL", b"X\0").refused(400, "field-name"),
        name("UTF-8", b"X\xc3\xa9").refused(400, "field-name"),
        name("a no-break space", b"X\xa0").refused(400, "field-name"),
        name("a vertical tab", b"X\x0b").refused(400, "field-name"),
        name("DEL", b"X\x7f").refused(400, "field-name"),
        name("all that a token may have", b"x!#$%&'*+-.^_`|~9").forwarded(usual().has("X!#$%&'*+-.^_`|~9", b"a")),
        get("two colons", b"X:: a\r\n").forwarded(usual().has("X", b": a")),
        get("a pseudo-header", b":path: /smuggled\r\n").refused(400, "field-name"),
    ]
}

pub(super) fn values() -> Vec<Case> {
    let value = |what, value: &[u8]| get(what, [b"X: ", value, b"\r\n"].concat());
    vec![
        value("NUL", b"a\0b").refused(400, "field-value"),
        value("a bell", b"a\x07").refused(400, "field-value"),
        value("a vertical tab", b"\x0ba").refused(400, "field-value"),
        value("a form feed", b"a\x0c").refused(400, "field-value"),
        value("an escape sequence", b"\x1b[31m").refused(400, "field-value"),
        value("DEL", b"a\x7f").refused(400, "field-value"),
        value("ISO 8859-1", b"caf\xe9").forwarded(usual().has("X", b"caf\xe9")),
        value("a line separator of Unicode", b"a\xe2\x80\xa8Y: b").forwarded(usual().has("X", b"a\xe2\x80\xa8Y: b")),
        value("next line", b"a\x85Y: b").forwarded(usual().has("X", b"a\x85Y: b")),
        value("tabs and spaces around and within", b" \t a\t b \t").forwarded(usual().has("X", b"a\t b")),
        value("nothing", b"").forwarded(usual().has("X", b"")),
        value("nothing but spaces", b"   ").forwarded(usual().has("X", b"")),
        get("the same name twice, empty once", b"X: a\r\nX:\r\n").forwarded(usual()),
    ]
}

pub(super) fn sizes() -> Vec<Case> {
    let long = 33 * 1024;
    vec![
        get("a hundred fields", b"X: a\r\n".repeat(99)).forwarded(usual()),
        get("a hundred and one", b"X: a\r\n".repeat(100)).refused(431, "too-many-fields"),
        get("ten thousand", b"a:\r\n".repeat(10_000)).refused(431, "too-many-fields"),
        get("a long value", [b"X: ".as_slice(), &vec![b'a'; long], b"\r\n"].concat()).refused(431, "head-too-large"),
        get("a long name", [&vec![b'a'; long][..], b": a\r\n"].concat()).refused(431, "head-too-large"),
        get("long spaces", [b"X:".as_slice(), &vec![b' '; long], b"a\r\n"].concat()).refused(431, "head-too-large"),
        get("many long values", [b"X: ".as_slice(), &[b'a'; 1000], b"\r\n"].concat().repeat(40))
            .refused(431, "head-too-large"),
        get("a long value that fits", [b"X: ".as_slice(), &vec![b'a'; 30 * 1024], b"\r\n"].concat()).forwarded(usual()),
    ]
}

#[tokio::test]
async fn what_ends_a_field_line() {
    group(line_ends()).await;
}

#[tokio::test]
async fn field_names() {
    group(names()).await;
}

#[tokio::test]
async fn field_values() {
    group(values()).await;
}

#[tokio::test]
async fn many_and_long_fields() {
    group(sizes()).await;
}
