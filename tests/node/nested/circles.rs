//! Caches that are each other's proxy or parent: what leads back to where it came from is refused, and is not asked again and
//! again; and those who wait for one another do so for a short time.

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

/// The GET and HEAD requests that a node got, and how each was answered.
fn requests_of(node: &RunningNode) -> Vec<(String, u64)> {
    let said = node.said();
    let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let requests = lines.filter(|line| line["message"] == "request");
    requests.map(|line| (line["method"].as_str().unwrap().to_owned(), line["status"].as_u64().unwrap())).collect()
}

/// Caches of which each has the next one as its parent, the last one the first; `last` are the parents behind it.
fn each_the_next_one_s_child<const N: usize>(last: &[Value]) -> [RunningNode; N] {
    let addresses = [(); N].map(|()| own_address(8080));
    std::array::from_fn(|own| {
        let parents = [&[url(addresses[(own + 1) % N])], last].concat();
        let setup = below(&parents, json!({})).set("listen.data", json!([addresses[own].to_string()]));
        // Far more than the story takes, if nobody waits for what does not come.
        setup.set("upstream.timeouts.request", json!("60s")).start()
    })
}

/// All are asked for the same before any of them can have an answer.
async fn asked_together<const N: usize>(nodes: &[RunningNode; N]) -> Vec<Answer> {
    let mut asking = JoinSet::new();
    for node in nodes {
        let address = node.data;
        asking.spawn(async move { super::super::rig::client::once(address, &get(&asked(), &[])).await });
    }
    // Nobody waits until the time is over.
    let all = async { asking.join_all().await };
    tokio::time::timeout(Duration::from_secs(30), all).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parents_in_a_circle_that_are_asked_for_the_same_together_do_not_wait_for_one_another() {
    async fn story<const N: usize>() {
        let nodes = each_the_next_one_s_child::<N>(&[]);
        for answer in asked_together(&nodes).await {
            assert_eq!(answer.head.status, 503, "{}", answer.head.raw);
        }
        for node in &nodes {
            assert!(node.says("\"status\":503"));
            let requests = requests_of(node);
            assert!(requests.len() < 12, "{requests:?}");
        }
    }
    story::<2>().await;
    story::<3>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_that_ask_one_another_first_get_it_from_whom_they_ask_next() {
    let pattern = Pattern::new(661, 3 * MIB);
    let origin = FakeOrigin::with(PATH, Reply::file(pattern)).await;
    let top = top(&origin, json!({})).start();
    let nodes = each_the_next_one_s_child::<2>(&[url(top.data)]);
    for answer in asked_together(&nodes).await {
        must_be(&answer, pattern);
    }
    assert_eq!(origin.body_bytes(), pattern.len);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_above_which_a_head_is_late_is_no_circle() {
    let pattern = Pattern::new(662, MIB);
    let gate = Gate::shut();
    let origin = FakeOrigin::with(PATH, Reply::file(pattern).hold_head(&gate)).await;
    // The heads are asked for after three seconds, and a busy machine is slow.
    let l5 = top(&origin, json!({})).set("upstream.timeouts.first_byte", json!("12s")).start();
    let l4 = below(&[url(l5.data)], json!({})).start();
    let below = [(); 3].map(|()| below(&[url(l4.data)], json!({})).start());
    let mut asking = JoinSet::new();
    for node in &below {
        let address = node.data;
        asking.spawn(async move { super::super::rig::client::once(address, &get(&asked(), &[])).await });
    }
    // Two of the three follow the flight of the other one, and ask why there is no head.
    let heads = || requests_to(&origin, "HEAD");
    let deadline = Instant::now() + Duration::from_secs(30);
    while heads() < 2 {
        assert!(Instant::now() < deadline, "{}", heads());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    gate.open();
    for answer in asking.join_all().await {
        must_be(&answer, pattern);
    }
    assert_eq!((heads(), origin.body_bytes()), (2, pattern.len), "one file, whoever asks");
}

fn requests_to(origin: &FakeOrigin, method: &str) -> usize {
    origin.received().iter().filter(|request| request.method == method).count()
}
