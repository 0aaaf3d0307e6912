//! Requests that would lead the cache to addresses of its own machine or network. Listeners that nobody may reach stand on
//! loopback; the rules of some names lead to them, so that only the guard of addresses is between.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::net::TcpListener;

use super::case::{Case, case};
use super::run::{run, setup};
use crate::rig::own_address;

/// Ports on loopback that nobody may connect to.
#[derive(Debug)]
pub(super) struct Canaries {
    pub(super) port: u16,
    visits: Arc<AtomicUsize>,
}

impl Canaries {
    /// One on IPv4, and one with the same port on IPv6, where there is such.
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let canaries = Self { port: listener.local_addr().unwrap().port(), visits: Arc::default() };
        canaries.watch(listener);
        if let Ok(listener) = TcpListener::bind(("::1", canaries.port)).await {
            canaries.watch(listener);
        }
        canaries
    }

    fn watch(&self, listener: TcpListener) {
        let visits = Arc::clone(&self.visits);
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                visits.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
}

/// What names the canary or another place that is not for clients; `{port}` is the canary's.
const UNKNOWN: [&str; 10] = [
    "127.0.0.1:{port}",
    "[::1]:{port}",
    "[::ffff:127.0.0.1]:{port}",
    "[::ffff:7f00:1]:{port}",
    "0.0.0.0:{port}",
    "[::]:{port}",
    "169.254.169.254",
    "168.63.129.16",
    "ip6-localhost:{port}",
    "127.0.0.1.nip.io:{port}",
];
const ODD: [&str; 8] = [
    "2130706433:{port}",
    "0x7f000001:{port}",
    "0x7f.0.0.1:{port}",
    "0177.0.0.1:{port}",
    "127.1:{port}",
    "0:{port}",
    "127.0.0.1.:{port}",
    "127.0.0.001:{port}",
];

fn parameter(host: &str) -> Case {
    case(format!("the parameter {host}"), format!("GET /{{id}}?cacheHostOrigin={host} HTTP/1.1\r\nHost: cache\r\n\r\n"))
}

fn absolute(host: &str) -> Case {
    case(format!("the URL of {host}"), format!("GET http://{host}/{{id}} HTTP/1.1\r\nHost: cache\r\n\r\n"))
}

fn in_path(host: &str) -> Case {
    case(format!("the path of {host}"), format!("GET /-/{host}/{{id}} HTTP/1.1\r\nHost: cache\r\n\r\n"))
}

fn connect(host: &str) -> Case {
    let text = format!(
        "CONNECT {host} HTTP/1.1\r\nHost: cache\r\n\r\nGET /smuggled/{{id}} HTTP/1.1\r\nHost: o.example\r\n\r\n"
    );
    case(format!("CONNECT to {host}"), text)
}

/// Places that no rule names.
pub(super) fn named(port: u16) -> Vec<Case> {
    let of = |hosts: &[&str]| hosts.iter().map(|host| host.replace("{port}", &port.to_string())).collect::<Vec<_>>();
    let (unknown, odd) = (of(&UNKNOWN), of(&ODD));
    let mut cases: Vec<_> = unknown.iter().map(|host| parameter(host).answered(403, "unknown-origin")).collect();
    cases.extend(unknown.iter().map(|host| absolute(host).answered(403, "unknown-origin")));
    cases.extend(odd.iter().map(|host| parameter(host).answered(400, "host-ip-spelling")));
    cases.push(parameter("[::1%25lo]").answered(400, "host-ipv6"));
    cases.push(parameter("%5B%3A%3A1%5D").answered(403, "unknown-origin"));
    cases.push(parameter("%31%32%37.0.0.1").answered(403, "unknown-origin"));
    cases.push(parameter("%EF%BC%91%EF%BC%92%EF%BC%97.0.0.1").answered(400, "host-non-ascii"));
    cases.push(parameter("%E2%91%A0%E2%91%A1%E2%91%A6.0.0.1").answered(400, "host-non-ascii"));
    cases.push(parameter("::1").answered(400, "host-ipv6"));
    cases.push(in_path(&unknown[0]).answered(403, "unknown-origin"));
    cases.push(in_path(&unknown[1]).answered(403, "unknown-origin"));
    cases.push(in_path(&odd[0]).answered(400, "host-ip-spelling"));
    cases
}

/// CONNECT, of which nothing is let through.
pub(super) fn tunnels(port: u16) -> Vec<Case> {
    let refused = |host: &str| connect(host).answered(405, "connect-not-allowed").closes();
    let malformed = |host: &str, reason| connect(host).answered(400, reason);
    vec![
        refused(&format!("127.0.0.1:{port}")),
        refused(&format!("[::1]:{port}")),
        refused("169.254.169.254:80"),
        refused("o.example:80"),
        refused("localhost:22"),
        malformed(&format!("2130706433:{port}"), "host-ip-spelling"),
        malformed(&format!("127.1:{port}"), "host-ip-spelling"),
        malformed("localhost", "connect-target"),
        malformed("localhost:0", "host-port"),
        malformed("localhost:99999", "host-port"),
        malformed("user@localhost:443", "host-user-info"),
        malformed("/smuggled", "connect-target"),
        malformed("*", "connect-target"),
        malformed("http://o.example/", "connect-target"),
        connect("o.example:80/").refused(400, "target"),
        case(
            "CONNECT with a body",
            format!("CONNECT localhost:{port} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"),
        )
        .answered(400, "connect-content"),
        case(
            "CONNECT with chunks",
            format!("CONNECT localhost:{port} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        )
        .answered(400, "connect-content"),
    ]
}

/// Names that rules let through, at addresses that the guard does not.
pub(super) fn guarded(port: u16) -> Vec<Case> {
    let refused = |case: Case| case.answered(503, "address-refused");
    vec![
        refused(parameter("localhost")),
        refused(parameter(&format!("LOCALHOST.:{port}"))),
        refused(absolute(&format!("localhost:{port}"))),
        refused(in_path("localhost")),
        refused(case("Host: localhost", b"GET /{id} HTTP/1.1\r\nHost: localhost\r\n\r\n")),
        refused(case("POST to localhost", b"POST /{id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello")),
        refused(parameter("admin.example")),
        refused(absolute("data.example")),
        connect(&format!("localhost:{port}")).answered(502, "address-refused").closes(),
    ]
}

#[tokio::test]
async fn no_request_reaches_what_is_not_for_clients() {
    let canaries = Canaries::start().await;
    let (origin, setup) = setup().await;
    let cases = [named(canaries.port), tunnels(canaries.port)].concat();
    run(setup.set("connect.allow", json!(["tunnels.example:443"])).start(), &origin, &cases).await;
    assert_eq!(canaries.visits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn no_rule_leads_to_loopback_or_to_the_own_listeners() {
    let canaries = Canaries::start().await;
    let (origin, setup) = setup().await;
    // Ports that were free a moment ago.
    let free = |address: SocketAddr| std::net::TcpListener::bind(address).unwrap().local_addr().unwrap();
    let (data, admin) = (free(own_address(0)), free(own_address(0)));
    let setup = setup.set("listen.data", json!([data.to_string()])).set("listen.admin", json!(admin.to_string()));
    let setup = setup.origin("admin.example", admin, json!({})).origin("data.example", data, json!({}));
    let setup = setup.guarded_origin("localhost", json!({ "port": canaries.port, "methods": ["GET", "HEAD", "POST"] }));
    let setup = setup.set("connect.allow", json!([format!("localhost:{}", canaries.port)]));
    run(setup.start(), &origin, &guarded(canaries.port)).await;
    assert_eq!(canaries.visits.load(Ordering::SeqCst), 0);
}
