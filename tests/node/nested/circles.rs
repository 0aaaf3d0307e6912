//! Caches that are each other's proxy: a tunnel that leads back to where it came from is refused, and is not opened again
//! and again. The same of parents is refused by their requests' own fields.

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::super::rig::own_address;
use super::*;

const AUTHORITY: &str = "dl.example.com:443";

/// Two caches with the settings that `more` adds, each the other's proxy for https.
fn each_other_s_proxy(more: impl Fn(Setup) -> Setup) -> [RunningNode; 2] {
    let addresses = [own_address(8080), own_address(8080)];
    let node = |own: usize| {
        let setup = Setup::new()
            .set("listen.data", json!([addresses[own].to_string()]))
            .set("upstream.https_proxy", json!(format!("http://{}", addresses[1 - own])))
            .set("connect.allow", json!([AUTHORITY]));
        more(setup).start()
    };
    [node(0), node(1)]
}

/// The statuses with which CONNECT was answered, as the access log tells.
fn tunnels_of(node: &RunningNode) -> Vec<u64> {
    let said = node.said();
    let lines = said.lines().filter(|line| line.contains("\"method\":\"CONNECT\""));
    lines.map(|line| serde_json::from_str::<Value>(line).unwrap()["status"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_between_two_that_are_each_other_s_proxy_goes_round_once() {
    let [one, other] = each_other_s_proxy(|setup| setup);
    let text = format!("CONNECT {AUTHORITY} HTTP/1.1\r\nHost: {AUTHORITY}\r\n\r\n");
    let answer = one.ask(&text).await;
    assert_eq!(answer.head.status, 503, "{}", answer.head.raw);
    assert!(answer.head.field("Cache-Status").unwrap().contains("proxy-failed"), "{}", answer.head.raw);
    assert!(one.says("\"status\":508") && one.says("\"status\":503") && other.says("\"status\":503"));
    assert_eq!((tunnels_of(&one), tunnels_of(&other)), (vec![508, 503], vec![503]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_through_two_that_are_each_other_s_proxy_goes_round_once_for_each_connection() {
    let rule = || json!({ "host": "dl.example.com", "scheme": "https" });
    let [one, other] = each_other_s_proxy(|setup| setup.rule(rule()));
    let answer = one.get("/x?cacheHostOrigin=dl.example.com", &[]).await;
    assert_eq!(answer.head.status, 503, "{}", answer.head.raw);
    assert!(one.says("\"reason\":\"loop\"") && other.says("\"reason\":\"proxy-failed\""));
    let (back, through) = (tunnels_of(&one), tunnels_of(&other));
    assert!(back.iter().all(|status| *status == 508) && through.iter().all(|status| *status == 503));
    // A few attempts of the fill, and of who looks whether the source is back.
    assert!(back.len() + through.len() < 30, "{back:?} {through:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_is_told_by_whom_a_tunnel_was_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let node = Setup::new()
        .set("pseudonym", json!("site-7"))
        .set("upstream.https_proxy", json!(format!("http://{}", listener.local_addr().unwrap())))
        .set("connect.allow", json!([AUTHORITY]))
        .rule(json!({ "host": "dl.example.com", "scheme": "https" }))
        .start();
    let tunnel = format!(
        "CONNECT {AUTHORITY} HTTP/1.1\r\nHost: {AUTHORITY}\r\nVia: 1.1 below (x)\r\nCDN-Loop: below\r\nCookie: a=b\r\n\r\n"
    );
    let content = get("/x?cacheHostOrigin=dl.example.com", &["Via: 1.1 below"]);
    for (asked, via, cdn_loop) in
        [(tunnel, "1.1 below (x)|1.1 site-7", "below|site-7; v=1"), (content, "1.1 site-7", "site-7; v=1")]
    {
        let mut client = Connection::open(node.data).await;
        client.send(&asked).await;
        let (mut proxy, mut head) = (listener.accept().await.unwrap().0, Vec::new());
        while !head.ends_with(b"\r\n\r\n") {
            assert!(proxy.read_buf(&mut head).await.unwrap() > 0);
        }
        let head = String::from_utf8(head).unwrap();
        let all = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            let values: Vec<_> = lines.filter(|line| line.0.eq_ignore_ascii_case(name)).map(|line| line.1).collect();
            values.join("|")
        };
        assert!(head.starts_with(&format!("CONNECT {AUTHORITY} HTTP/1.1\r\n")), "{head}");
        assert_eq!((all("via").as_str(), all("cdn-loop").as_str(), all("cookie").as_str()), (via, cdn_loop, ""));
    }
}
