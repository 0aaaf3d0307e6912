//! Redirects that lead where no client may send the cache: to this machine, to the network inside, to other protocols.

use std::net::SocketAddr;

use super::case::{Case, Expect, POISON};
use super::raw_origin::{After, OTHER};

const REFUSED: &str = "is refused";

/// `canary` must never be connected to, and neither must `own`, a listener of the node.
pub(super) fn cases(canary: SocketAddr, own: SocketAddr) -> Vec<Case> {
    let port = canary.port();
    let to = |name: &str, location: &str| Case::refused(name, found(location), REFUSED);
    let mut cases = vec![
        to("a redirect to this machine", &format!("http://127.0.0.1:{port}/")),
        to("a redirect to this machine in IPv6", &format!("http://[::1]:{port}/")),
        to("a redirect to this machine in IPv6 for IPv4", &format!("http://[::ffff:127.0.0.1]:{port}/")),
        to("a redirect to this machine by name", &format!("http://localhost:{port}/")),
        to("a redirect to this machine in one number", &format!("http://2130706433:{port}/")),
        to("a redirect to this machine in hex", &format!("http://0x7f000001:{port}/")),
        to("a redirect to this machine in octal", &format!("http://0177.0.0.1:{port}/")),
        to("a redirect to this machine in short", &format!("http://127.1:{port}/")),
        to("a redirect to no address", &format!("http://0.0.0.0:{port}/")),
        to("a redirect without a scheme", &format!("//127.0.0.1:{port}/")),
        to("a redirect behind a name and a password", &format!("http://ours.framing.example:x@127.0.0.1:{port}/")),
        to("a redirect behind a backslash", &format!("http://ours.framing.example\\@127.0.0.1:{port}/")),
        to("a redirect behind a tab", &format!("http://127.0.0.1\t:{port}/")),
        to("a redirect in percents", &format!("http://127%2e0%2e0%2e1:{port}/")),
        to("a redirect with a dot behind", &format!("http://127.0.0.1.:{port}/")),
        to("a redirect to the metadata of a cloud", "http://169.254.169.254/latest/meta-data/"),
        to("a redirect to the network inside", "http://10.0.0.1/"),
        to("a redirect to a file", "file:///etc/passwd"),
        to("a redirect to another protocol", &format!("gopher://127.0.0.1:{port}/_GET")),
        to("a redirect to a script", "javascript:alert(1)"),
        to("a redirect to data", "data:text/plain,hello"),
        to("a redirect to https here", &format!("https://127.0.0.1:{port}/")),
        to("a redirect to nowhere", "http://"),
        to("a redirect to no port", "http://127.0.0.1:99999/"),
        to("a redirect to a listener of our own", &format!("http://{own}/readyz")),
        Case::refused("a redirect to itself", found("/bad"), "redirects too often"),
        Case::refused("a redirect with NUL", found("http://127.0.0.1/\0"), "not HTTP/1.1"),
        Case::refused("a redirect with a field behind CR", found("/good\rSet-Cookie: a=b"), "not HTTP/1.1"),
    ];
    let good = OTHER.bytes();
    let given = || Expect::Given { status: 200, body: OTHER.bytes(), kept: true };
    cases.extend([
        Case::kept("a redirect with another field behind LF", found("/good\nSet-Cookie: a=b"), &good),
        Case::kept("a redirect within", found("/good"), &good),
        Case::kept("a redirect that climbs", found("/../../good"), &good),
        Case::kept("a redirect with a fragment", found("/good#poison"), &good),
        Case::kept(
            "a redirect with another answer behind it",
            [&found("/good")[..], POISON.as_bytes()].concat(),
            &good,
        ),
        Case::kept(
            "a redirect whose body does not come",
            head("Location: /good\r\nContent-Length: 100\r\n\r\n"),
            &good,
        )
        .then(After::Hang),
        Case::kept(
            "a redirect whose body is malformed",
            head("Location: /good\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"),
            &good,
        ),
        Case::refused(
            "a redirect whose end is unknown",
            head("Location: /good\r\nContent-Length: -1\r\n\r\n"),
            "invalid Content-Length",
        ),
        Case::refused(
            "two redirects in one",
            head(&format!("Location: http://127.0.0.1:{port}/\r\nLocation: /good\r\nContent-Length: 0\r\n\r\n")),
            REFUSED,
        )
        .or(given()),
        Case::kept(
            "two redirects in one, the good one first",
            head(&format!("Location: /good\r\nLocation: http://127.0.0.1:{port}/\r\nContent-Length: 0\r\n\r\n")),
            &good,
        )
        .or(Expect::Refused),
        Case::passed("a redirect to nowhere at all", head("Content-Length: 5\r\n\r\nhello"), 302, b"hello"),
    ]);
    cases
}

fn head(rest: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\n{rest}").into_bytes()
}

fn found(location: &str) -> Vec<u8> {
    head(&format!("Location: {location}\r\nContent-Length: 0\r\n\r\n"))
}
