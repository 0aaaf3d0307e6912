//! The four forms of a request target (RFC 9112 section 3.2), the forms of this cache, and `Host`.

use super::case::{Case, Meaning, case, means};
use super::run::group;

/// A GET of `target` that names another host in `Host`, which does not count here.
fn named(name: &'static str, target: &str) -> Case {
    case(name, format!("GET {target} HTTP/1.1\r\nHost: cache.example\r\n\r\n"))
}

/// A GET with these lines in place of one `Host`.
fn hosted(name: &'static str, lines: &[u8]) -> Case {
    case(name, [b"GET /{id} HTTP/1.1\r\n", lines, b"\r\n"].concat())
}

pub(super) fn absolute() -> Vec<Case> {
    let usual = || means("/{id}");
    vec![
        named("the usual", "http://o.example/{id}").forwarded(usual()),
        named("in capitals, with the port", "HTTP://O.EXAMPLE:80/{id}").forwarded(usual()),
        case("Host names another origin", b"GET http://o.example/{id} HTTP/1.1\r\nHost: default.example\r\n\r\n")
            .forwarded(usual()),
        case("Host is empty", b"GET http://o.example/{id} HTTP/1.1\r\nHost:\r\n\r\n").forwarded(usual()),
        case("no Host", b"GET http://o.example/{id} HTTP/1.1\r\n\r\n").refused(400, "host-missing"),
        case("two Hosts", b"GET http://o.example/{id} HTTP/1.1\r\nHost: o.example\r\nHost: o.example\r\n\r\n")
            .refused(400, "host-repeated"),
        case("a Host that is none", b"GET http://o.example/{id} HTTP/1.1\r\nHost: a..b\r\n\r\n")
            .answered(400, "host-label"),
        case("no Host in 1.0", b"GET http://o.example/{id} HTTP/1.0\r\n\r\n").forwarded(usual()).closes(),
        named("no path", "http://o.example?{id}").forwarded(means("/?{id}")),
        named("a path with two slashes", "http://o.example//evil.example/{id}").forwarded(means("//evil.example/{id}")),
        named("a URL as the path", "http://o.example/http://evil.example/{id}")
            .forwarded(means("/http://evil.example/{id}")),
        named("user-info", "http://user@o.example/{id}").answered(400, "host-user-info"),
        named("a host as user-info", "http://o.example@evil.example/{id}").answered(400, "host-user-info"),
        named("host and port as user-info", "http://o.example:80@evil.example/{id}").answered(400, "host-user-info"),
        named("a host behind a backslash", "http://o.example\\@evil.example/{id}").refused(400, "target"),
        named("a host behind a fragment", "http://o.example#@evil.example/{id}").refused(400, "fragment"),
        named("an escaped host", "http://o%2eexample/{id}").refused(400, "target"),
        named("two ports", "http://o.example:80:80/{id}").refused(400, "target"),
        named("port 0", "http://o.example:0/{id}").answered(400, "host-port"),
        named("a port beyond all", "http://o.example:65616/{id}").answered(400, "host-port"),
        named("an empty port", "http://o.example:/{id}").answered(400, "host-port"),
        named("a port that the rule lacks", "http://o.example:8080/{id}").answered(403, "port-not-allowed"),
        named("https where the rule fetches in the clear", "https://o.example/{id}").answered(403, "https-downgrade"),
        named("an unknown host", "http://evil.example/{id}").answered(403, "unknown-origin"),
        named("no host", "http:///{id}").refused(400, "target"),
        named("one slash", "http:/o.example/{id}").refused(400, "target"),
        named("ftp", "ftp://o.example/{id}").answered(400, "target-scheme"),
        named("file", "file:///etc/passwd").refused(400, "target"),
        named("no scheme", "://o.example/{id}").answered(400, "target-scheme"),
    ]
}

pub(super) fn others() -> Vec<Case> {
    vec![
        named("authority-form with GET", "o.example:80").answered(400, "target-form"),
        named("a host alone", "o.example").answered(400, "target-form"),
        named("a path without its slash", "o.example/{id}").refused(400, "target"),
        named("asterisk-form with GET", "*").answered(400, "target-form"),
        case("asterisk-form", b"OPTIONS * HTTP/1.1\r\nHost: o.example\r\n\r\n").answered(400, "target-form"),
        case("an asterisk with a query", b"OPTIONS *?a HTTP/1.1\r\nHost: o.example\r\n\r\n").refused(400, "target"),
        case("OPTIONS of a path", b"OPTIONS /{id} HTTP/1.1\r\nHost: o.example\r\n\r\n")
            .forwarded(Meaning::new("OPTIONS", "/{id}", b"")),
        named("in the path", "/-/o.example/{id}").forwarded(means("/{id}")),
        named("twice in the path", "/-/o.example/-/evil.example/{id}").forwarded(means("/-/evil.example/{id}")),
        named("in the path with another port", "/-/o.example:81/{id}").answered(403, "port-not-allowed"),
        named("in the path with user-info", "/-/o.example@evil.example/{id}").answered(400, "host-user-info"),
        named("in the path, empty", "/-//{id}").answered(400, "host-empty"),
        named("in the path, with an escaped slash", "/-/o.example%2fx/{id}").answered(400, "host-not-only-a-host"),
        named("in the path, unknown", "/-/evil.example/{id}").answered(403, "unknown-origin"),
        named("in the path, escaped dash", "/%2d/evil.example/{id}")
            .forwarded(means("/%2d/evil.example/{id}").at("default.example")),
        named("in the path of an absolute URL", "http://o.example/-/evil.example/{id}")
            .forwarded(means("/-/evil.example/{id}")),
    ]
}

pub(super) fn hosts() -> Vec<Case> {
    let usual = || means("/{id}");
    let host = |name, value: &[u8]| hosted(name, &[b"Host: ".as_slice(), value, b"\r\n"].concat());
    vec![
        hosted("missing", b"").refused(400, "host-missing"),
        hosted("twice the same", b"Host: o.example\r\nhost: o.example\r\n").refused(400, "host-repeated"),
        hosted("two that differ", b"Host: o.example\r\nX: y\r\nHost: evil.example\r\n").refused(400, "host-repeated"),
        hosted("a second one that is empty", b"Host: o.example\r\nHost:\r\n").refused(400, "host-repeated"),
        hosted("a space before the colon", b"Host : o.example\r\n").refused(400, "space-before-colon"),
        hosted("a space before the first field", b" Host: o.example\r\n").refused(400, "obs-fold"),
        hosted("hidden in a continued line", b"X: y\r\n Host: o.example\r\n").refused(400, "obs-fold"),
        hosted("on the next line", b"Host:\r\n o.example\r\n").refused(400, "obs-fold"),
        hosted("behind a tab", b"HOST:\to.example \t\r\n").forwarded(usual()),
        host("in capitals with a dot", b"O.Example.").forwarded(usual()),
        host("with the port", b"o.example:80").forwarded(usual()),
        host("unknown", b"evil.example").forwarded(usual().at("default.example")),
        host("empty", b"").answered(400, "host-empty"),
        host("a list", b"o.example, evil.example").refused(400, "host-invalid"),
        host("two words", b"o.example evil.example").refused(400, "host-invalid"),
        host("user-info", b"o.example@evil.example").refused(400, "host-invalid"),
        host("a path", b"o.example/smuggled").refused(400, "host-invalid"),
        host("a URL", b"http://o.example").refused(400, "host-invalid"),
        host("a query", b"o.example?x").refused(400, "host-invalid"),
        host("a fragment", b"o.example#x").refused(400, "host-invalid"),
        host("a backslash", b"o.example\\x").refused(400, "host-invalid"),
        host("quoted", b"\"o.example\"").refused(400, "host-invalid"),
        host("NUL behind it", b"o.example\0evil").refused(400, "field-value"),
        host("UTF-8", b"o.ex\xc3\xa4mple").refused(400, "host-invalid"),
        host("a no-break space behind it", b"o.example\xa0").refused(400, "host-invalid"),
        host("escaped", b"o%2eexample").answered(400, "host-character"),
        host("another port", b"o.example:8080").answered(403, "port-not-allowed"),
        host("an empty port", b"o.example:").answered(400, "host-port"),
        host("port 0", b"o.example:0").answered(400, "host-port"),
        host("a port with a sign", b"o.example:+80").answered(400, "host-port"),
        host("a port in words", b"o.example:http").answered(400, "host-port"),
        host("a port beyond all", b"o.example:4294967376").answered(400, "host-port"),
        host("an empty label", b"o..example").answered(400, "host-label"),
        host("a wildcard", b"*.example").answered(400, "host-character"),
        host("a bracket", b"[::1").answered(400, "host-ipv6"),
        host("longer than a name can be", &b"a.".repeat(200)).answered(400, "host-too-long"),
    ]
}

#[tokio::test]
async fn absolute_form() {
    group(absolute()).await;
}

#[tokio::test]
async fn other_forms() {
    group(others()).await;
}

#[tokio::test]
async fn the_host_field() {
    group(hosts()).await;
}
