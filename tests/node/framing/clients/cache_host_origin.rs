//! The origin in the query, as Delivery Optimization agents name it.

use super::case::{Case, case, means, post, posts};
use super::run::group;

fn asked(name: &str, target: &str) -> Case {
    case(name, format!("GET {target} HTTP/1.1\r\nHost: cache.example\r\n\r\n"))
}

/// A value of the parameter.
fn value(name: &str, value: &str) -> Case {
    asked(name, &format!("/{{id}}?cacheHostOrigin={value}"))
}

pub(super) fn places() -> Vec<Case> {
    let usual = |target| means(target);
    vec![
        asked("alone", "/{id}?cacheHostOrigin=o.example").forwarded(usual("/{id}")),
        asked("last", "/{id}?a=%2f+&b&cacheHostOrigin=o.example").forwarded(usual("/{id}?a=%2f+&b")),
        asked("first", "/{id}?cacheHostOrigin=o.example&&a=1&").forwarded(usual("/{id}?&a=1&")),
        asked("in other letters", "/{id}?CACHEHOSTORIGIN=O.Example.").forwarded(usual("/{id}")),
        asked("escaped", "/{id}?cacheHost%4frigin=o%2Eexample%3a80").forwarded(usual("/{id}")),
        asked("in an absolute URL of another host", "http://evil.example/{id}?cacheHostOrigin=o.example")
            .forwarded(usual("/{id}")),
        asked("before the form in the path", "/-/evil.example/{id}?cacheHostOrigin=o.example")
            .forwarded(usual("/-/evil.example/{id}")),
        asked("twice, the last of them last", "/{id}?cacheHostOrigin=evil.example&a=1&cacheHostOrigin=o.example")
            .forwarded(usual("/{id}?a=1")),
        asked("twice, the last of them not last", "/{id}?cacheHostOrigin=o.example&cacheHostOrigin=o.example&a=1")
            .answered(400, "origin-repeated"),
        asked("twice in different letters", "/{id}?cacheHostOrigin=o.example&cachehost%6Frigin=o.example&")
            .answered(400, "origin-repeated"),
        asked("twice, the last unknown", "/{id}?cacheHostOrigin=o.example&cacheHostOrigin=evil.example")
            .answered(403, "unknown-origin"),
        asked("behind a semicolon", "/{id}?a=1;cacheHostOrigin=evil.example")
            .forwarded(usual("/{id}?a=1;cacheHostOrigin=evil.example").at("default.example")),
        asked("behind a second question mark", "/{id}?a?cacheHostOrigin=evil.example")
            .forwarded(usual("/{id}?a?cacheHostOrigin=evil.example").at("default.example")),
        asked("in the path", "/cacheHostOrigin=evil.example/{id}")
            .forwarded(usual("/cacheHostOrigin=evil.example/{id}").at("default.example")),
        asked("with brackets", "/{id}?cacheHostOrigin[]=evil.example")
            .forwarded(usual("/{id}?cacheHostOrigin[]=evil.example").at("default.example")),
        asked("with a space", "/{id}?%20cacheHostOrigin=evil.example")
            .forwarded(usual("/{id}?%20cacheHostOrigin=evil.example").at("default.example")),
        post("in a body", "Content-Length: 31\r\n", "&cacheHostOrigin=evil.example&a")
            .forwarded(posts("&cacheHostOrigin=evil.example&a")),
    ]
}

pub(super) fn values() -> Vec<Case> {
    vec![
        value("empty", "").answered(400, "host-empty"),
        asked("no value", "/{id}?cacheHostOrigin").answered(400, "host-empty"),
        value("a dot", ".").answered(400, "host-empty"),
        value("unknown", "evil.example").answered(403, "unknown-origin"),
        value("a suffix of a known one", "xo.example").answered(403, "unknown-origin"),
        value("a known one as a prefix", "o.example.evil.example").answered(403, "unknown-origin"),
        value("another port", "o.example:8081").answered(403, "port-not-allowed"),
        value("an empty port", "o.example:").answered(400, "host-port"),
        value("two ports", "o.example:80:81").answered(400, "host-ipv6"),
        value("a URL", "http://o.example").answered(400, "host-not-only-a-host"),
        value("an escaped URL", "http%3A%2F%2Fo.example").answered(400, "host-not-only-a-host"),
        value("a path", "o.example/smuggled").answered(400, "host-not-only-a-host"),
        value("an escaped path", "o.example%2fsmuggled").answered(400, "host-not-only-a-host"),
        value("an escaped fragment", "o.example%23").answered(400, "host-not-only-a-host"),
        value("another parameter within", "o.example%26a=1").answered(400, "host-character"),
        value("another one within", "o.example?cacheHostOrigin=evil.example").answered(400, "host-not-only-a-host"),
        value("user-info", "o.example@evil.example").answered(400, "host-user-info"),
        value("escaped user-info", "o.example%40evil.example").answered(400, "host-user-info"),
        value("a fragment", "o.example#").refused(400, "fragment"),
        value("a backslash", "o.example\\evil.example").refused(400, "target"),
        value("an escaped backslash", "o.example%5cevil.example").answered(400, "host-not-only-a-host"),
        value("an escaped NUL", "o.example%00.evil.example").answered(400, "target-control-character"),
        value("escaped CR LF", "o.example%0d%0aHost:%20evil.example").answered(400, "target-control-character"),
        value("an escaped space", "o.example%20").answered(400, "host-character"),
        value("a plus", "+o.example").answered(400, "host-character"),
        value("escaped twice", "o%252eexample").answered(400, "host-character"),
        value("half an escape", "o.example%2").answered(400, "target-escape"),
        value("UTF-8", "o.\u{e9}xample").refused(400, "target"),
        value("escaped UTF-8", "o.%C3%A9xample").answered(400, "host-non-ascii"),
        value("a full-width dot", "o%EF%BC%8Eexample").answered(400, "host-non-ascii"),
        value("bytes that are no UTF-8", "o.example%ff").answered(400, "host-non-ascii"),
        value("longer than a name can be", &"a.".repeat(200)).answered(400, "host-too-long"),
    ]
}

#[tokio::test]
async fn places_of_the_parameter() {
    group(places()).await;
}

#[tokio::test]
async fn values_of_the_parameter() {
    group(values()).await;
}
