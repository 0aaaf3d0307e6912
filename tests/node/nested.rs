//! Chains of caches: each level asks the one above it, and devices notice nothing of what happens between the levels.

mod away;
mod circles;
mod lossy;
mod mended;
mod namespaces;
mod neighbours;
mod proxies;
mod secured;
mod soak;
mod trusted;
mod urgent;
mod wrong_bytes;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::rig::client::{Answer, Connection, get};
use super::rig::do_client::DoAgent;
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Gate, Reply};
use super::rig::own_address;
use super::rig::pattern::Pattern;
use super::rig::rules::Mode;
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "contoso--fleet.b.nlu.dl.adu.microsoft.com";
const PATH: &str = "/westus2/contoso--fleet/0123456789abcdef0123456789abcdef/image.swu";
const MIB: u64 = 1 << 20;

fn asked() -> String {
    format!("{PATH}?cacheHostOrigin={HOST}")
}

fn url(address: SocketAddr) -> Value {
    json!({ "url": format!("http://{address}") })
}

/// A level that knows the host, has these parents, and reaches nobody else.
fn below(parents: &[Value], rule: Value) -> Setup {
    let mut rule = rule;
    rule["host"] = json!(HOST);
    Setup::new().set("origins", json!([rule])).set("upstream.parents", json!(parents))
}

/// The level that reaches the origin.
fn top(origin: &FakeOrigin, rule: Value) -> Setup {
    Setup::new().origin(HOST, origin.address, rule)
}

async fn state(node: &RunningNode) -> Value {
    let answer = super::rig::client::once(node.admin, &get("/readyz", &[])).await;
    assert_eq!(answer.head.status, 200, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}

fn must_be(answer: &Answer, pattern: Pattern) {
    assert_eq!(answer.head.status, 200, "{}", answer.head.raw);
    assert!(answer.body == pattern.bytes(), "wrong bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_agents_at_the_bottom_of_three_levels_cost_the_origin_one_file() {
    for mode in Mode::BOTH {
        let pattern = Pattern::new(601, 24 * MIB);
        let origin = FakeOrigin::with(PATH, Reply::file(pattern)).await;
        origin.limit_rate(24 * MIB);
        let l5 = top(&origin, mode.rule()).start();
        let l4 = below(&[url(l5.data)], mode.rule()).start();
        let l3 = below(&[url(l4.data)], mode.rule()).start();
        let mut agents = JoinSet::new();
        for number in 0..20 {
            let agent = DoAgent::new(l3.data).with_address(1 + number);
            agents.spawn(async move { (agent.download(HOST, PATH, pattern, &[]).await, agent.has_bans()) });
        }
        while let Some(done) = agents.join_next().await {
            let (download, banned) = done.unwrap();
            assert!(!banned, "{mode:?}: {download:?}");
            download.must_be(pattern, pattern.sha256());
        }
        assert_eq!(origin.body_bytes(), pattern.len, "{mode:?}");
        // Every level has it, and says how it came by it.
        for level in [&l5, &l4, &l3] {
            level.wait_for_fills(1).await;
        }
        origin.switch_off();
        must_be(&l4.get(&asked(), &[]).await, pattern);
        let answer = l3.get(&asked(), &[]).await;
        must_be(&answer, pattern);
        assert!(answer.head.raw.contains("; hit"), "{}", answer.head.raw);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_is_asked_in_the_form_of_connected_cache() {
    let parent = FakeOrigin::with(PATH, Reply::file(Pattern::new(602, 1000))).await;
    let node = below(&[url(parent.address)], json!({ "scheme": "as-asked" })).start();
    let absolute =
        format!("GET https://{HOST}{PATH}?b=2&a=1 HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: 10.9.9.9\r\n\r\n");
    assert_eq!(node.ask(&absolute).await.head.status, 200);
    assert_eq!(node.get(&asked(), &["Waystation-Time-Left: 3000"]).await.head.status, 200);
    let received = parent.received();
    let targets: Vec<&str> = received.iter().map(|request| request.target.as_str()).collect();
    assert_eq!(targets, [format!("{PATH}?b=2&a=1&cacheHostOrigin={HOST}"), asked()]);
    let [https, http] = received.as_slice() else { panic!() };
    assert_eq!(https.field("Host"), Some(parent.address.to_string().as_str()));
    assert_eq!((https.field("X-Forwarded-Proto"), http.field("X-Forwarded-Proto")), (Some("https"), Some("http")));
    assert_eq!(https.field("X-Forwarded-For"), None);
    assert!(https.field("Via").is_some() && https.field("CDN-Loop").is_some());
    for request in [https, http] {
        let left = request.field("Waystation-Time-Left").unwrap().parse::<u64>().unwrap();
        assert!((10_000..=14_000).contains(&left), "{left}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scheme_that_was_asked_for_reaches_the_top() {
    let plain = FakeOrigin::with(PATH, Reply::file(Pattern::new(603, 1000))).await;
    let l5 = top(&plain, json!({ "scheme": "as-asked" })).set("upstream.timeouts.connect", json!("200ms")).start();
    let l4 = below(&[url(l5.data)], json!({ "scheme": "as-asked" })).start();
    let http = l4.get(&asked(), &[]).await;
    must_be(&http, Pattern::new(603, 1000));
    // The origin speaks no TLS: had it been asked by http, this would be a hit.
    let https = l4.ask(&format!("GET https://{HOST}{PATH} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    assert_eq!(https.head.status, 503, "{}", https.head.raw);
    assert!(l5.says("no end of the TLS handshake"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_s_refusal_is_no_answer_of_the_origin() {
    let parent = FakeOrigin::start().await;
    let node = below(&[url(parent.address)], json!({})).start();
    for status in [400, 403, 405, 407, 421, 508] {
        let path = format!("/refused/{status}");
        parent.serve(&path, Reply::status(status, "no"));
        let answer = node.get(&format!("{path}?cacheHostOrigin={HOST}"), &[]).await;
        assert_eq!(answer.head.status, 503, "{status}: {}", answer.head.raw);
        assert!(answer.head.field("cache-status").unwrap().contains("middleman-refused"), "{}", answer.head.raw);
        assert!(answer.head.field("retry-after").is_some(), "{}", answer.head.raw);
    }
    for (status, field) in [(403, "l5; fwd=uri-miss; fwd-status=403"), (404, ""), (410, "")] {
        let path = format!("/told/{status}");
        parent.serve(&path, Reply::status(status, "no").with("Cache-Status", field));
        let answer = node.get(&format!("{path}?cacheHostOrigin={HOST}"), &[]).await;
        assert_eq!(answer.head.status, status, "{}", answer.head.raw);
    }
    // Somebody in between sends everybody to a page of its own.
    parent.serve("/portal", Reply::status(302, "log in").with("Location", "http://portal.lan/login"));
    let answer = node.get(&format!("/portal?cacheHostOrigin={HOST}"), &[]).await;
    assert_eq!(answer.head.status, 503, "{}", answer.head.raw);
    let there = FakeOrigin::with("/portal", Reply::file(Pattern::new(605, 5000))).await;
    let other = below(&[url(parent.address), url(there.address)], json!({})).start();
    must_be(&other.get(&format!("/portal?cacheHostOrigin={HOST}"), &[]).await, Pattern::new(605, 5000));
    // With a second parent the device gets its file.
    let path = "/refused/403";
    let second = FakeOrigin::with(path, Reply::file(Pattern::new(604, 5000))).await;
    let node = below(&[url(parent.address), url(second.address)], json!({})).start();
    must_be(&node.get(&format!("{path}?cacheHostOrigin={HOST}"), &[]).await, Pattern::new(604, 5000));
    // So it does when the first one alone says that there is no such thing, but not when that is the origin's word.
    for status in [404, 410] {
        let path = format!("/told/{status}");
        second.serve(&path, Reply::file(Pattern::new(606, 5000)));
        must_be(&node.get(&format!("{path}?cacheHostOrigin={HOST}"), &[]).await, Pattern::new(606, 5000));
        let path = format!("/gone/{status}");
        let word = format!("l5; fwd=uri-miss; fwd-status={status}");
        parent.serve(&path, Reply::status(status, "no").with("Cache-Status", &word));
        second.serve(&path, Reply::file(Pattern::new(606, 5000)));
        let answer = node.get(&format!("{path}?cacheHostOrigin={HOST}"), &[]).await;
        assert_eq!(answer.head.status, status, "{}", answer.head.raw);
        let path = format!("/nowhere/{status}");
        parent.serve(&path, Reply::status(status, "no"));
        second.serve(&path, Reply::status(403, "never heard of it"));
        let answer = node.get(&format!("{path}?cacheHostOrigin={HOST}"), &[]).await;
        assert_eq!(answer.head.status, status, "{}", answer.head.raw);
    }
    // Nor is it lost when the next one may not be asked, says nothing, or has failed before.
    let silent = FakeOrigin::with("/told/404", Reply::status(200, "").hold_head(&Gate::shut())).await;
    let failing = FakeOrigin::with("/told/404", Reply::status(503, "later")).await;
    let own = Setup::new().set("origins", json!([{ "host": "localhost" }])).set("upstream.direct", json!(true));
    let own = own.set("upstream.parents", json!([url(parent.address)]));
    let beside = |others: [SocketAddr; 2]| below(&others.map(url), json!({}));
    for (setup, host) in [
        (own, "localhost"),
        (beside([parent.address, silent.address]), HOST),
        (beside([failing.address, parent.address]), HOST),
    ] {
        let answer = setup.start().get(&format!("/told/404?cacheHostOrigin={host}"), &[]).await;
        assert_eq!(answer.head.status, 404, "{}", answer.head.raw);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_parent_that_has_no_rule_for_the_host_refuses_nobody() {
    let l5 = Setup::new().start();
    let l4 = below(&[url(l5.data)], json!({})).start();
    let answer = l4.get(&asked(), &[]).await;
    assert_eq!(answer.head.status, 503, "{}", answer.head.raw);
    assert!(answer.head.field("cache-status").unwrap().contains("middleman-refused"), "{}", answer.head.raw);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_parent_stands_in_for_one_that_is_gone_and_the_better_one_is_used_again() {
    let (first, second) = (FakeOrigin::start().await, FakeOrigin::start().await);
    let node = below(&[url(first.address), url(second.address)], json!({})).start();
    let pattern = |number: u64| Pattern::new(610 + number, 3000);
    for number in 0..4 {
        for parent in [&first, &second] {
            parent.serve(&format!("/{number}"), Reply::file(pattern(number)));
        }
    }
    let ask = |number: u64| format!("/{number}?cacheHostOrigin={HOST}");
    must_be(&node.get(&ask(0), &[]).await, pattern(0));
    assert_eq!((first.requests(), second.requests()), (1, 0));
    first.switch_off();
    for number in 1..3 {
        must_be(&node.get(&ask(number), &[]).await, pattern(number));
    }
    assert_eq!(second.requests(), 2);
    let down = state(&node).await;
    assert_eq!(down["state"], "degraded", "{down}");
    assert!(down.to_string().contains(&format!("parent http://{}", first.address)), "{down}");
    assert_eq!(node.metric("waystation_parent_up", &first.address.to_string()).await, 0.0);
    assert_eq!(node.metric("waystation_parent_up", &second.address.to_string()).await, 1.0);
    first.switch_on();
    let deadline = Instant::now() + Duration::from_secs(30);
    for number in 3.. {
        first.serve(&format!("/{number}"), Reply::file(pattern(3)));
        second.serve(&format!("/{number}"), Reply::file(pattern(3)));
        must_be(&node.get(&ask(number), &[]).await, pattern(3));
        if first.requests() > 1 {
            break;
        }
        assert!(Instant::now() < deadline, "the better parent is not asked again");
    }
    assert_eq!(node.metric("waystation_parent_up", &first.address.to_string()).await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_dies_in_mid_transfer_is_replaced_and_nothing_is_fetched_twice() {
    for mode in Mode::BOTH {
        let pattern = Pattern::new(620, 48 * MIB);
        let origin = FakeOrigin::with(PATH, Reply::file(pattern)).await;
        origin.limit_rate(32 * MIB);
        origin.keep_sockets_short();
        let one = top(&origin, mode.rule()).start();
        let second = FakeOrigin::with(PATH, Reply::file(pattern)).await;
        second.limit_rate(64 * MIB);
        let node = below(&[url(one.data), url(second.address)], mode.rule()).start();
        let who = [one.data, second.address].map(|address| format!("parent http://{address}"));
        let mut device = Connection::open(node.data).await;
        device.send(&get(&asked(), &[])).await;
        let head = device.head().await;
        assert_eq!(head.status, 200, "{}", head.raw);
        let killed = async {
            origin.wait_for_bytes(12 * MIB).await;
            one.kill().await;
        };
        let (checked, _) = tokio::join!(device.checked(&head, pattern, 0), killed);
        assert_eq!((checked.len, checked.first_difference), (pattern.len, None), "{mode:?}: {checked:?}");
        let from_whom_to_whom = format!("\"from\":\"{}\",\"to\":\"{}\"", who[0], who[1]);
        assert!(node.says(&from_whom_to_whom), "{mode:?}: {}", node.said());
        // What was on its way when the first parent died is asked of the second one again, and no more.
        let both = origin.body_bytes() + second.body_bytes();
        assert!(both <= pattern.len + 16 * MIB, "{mode:?}: {both} of {}", pattern.len);
        assert!(second.body_bytes() < pattern.len, "{mode:?}: the second one gave all of it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_caches_that_are_each_other_s_parent_do_not_storm() {
    // Each needs the other's address before it starts.
    let ports = [own_address(8081), own_address(8081)];
    let level = |own: usize, other: usize| {
        let setup = below(&[url(ports[other])], json!({})).set("pseudonym", json!(format!("level-{own}")));
        setup.set("listen.data", json!([ports[own].to_string()])).start()
    };
    let (one, other) = (level(0, 1), level(1, 0));
    let start = Instant::now();
    let mut devices = JoinSet::new();
    for number in 0..20 {
        let to = ports[number % 2];
        devices.spawn(async move {
            let target = format!("/loop/{}?cacheHostOrigin={HOST}", number / 4);
            super::rig::client::once(to, &get(&target, &[])).await
        });
    }
    while let Some(answer) = devices.join_next().await {
        let answer = answer.unwrap();
        assert_eq!(answer.head.status, 503, "{}", answer.head.raw);
    }
    assert!(start.elapsed() < Duration::from_secs(14), "a loop is found, not waited for");
    let mut between = 0.0;
    for node in [&one, &other] {
        between += node.metric("waystation_upstream_requests_total", "").await;
    }
    assert!(between <= 20.0 * 4.0, "{between} requests between the two for 20 of devices");
    let looped = get(&asked(), &["Via: 1.1 other", "CDN-Loop: level-0"]);
    assert_eq!(super::rig::client::once(one.data, &looped).await.head.status, 508);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_origin_costs_every_level_one_deadline() {
    let gate = Gate::shut();
    let origin = FakeOrigin::with(PATH, Reply::file(Pattern::new(630, 1000)).hold_head(&gate)).await;
    let limits = |setup: Setup| setup.set("upstream.timeouts.request", json!("3s"));
    let l5 = limits(top(&origin, json!({}))).start();
    let l4 = limits(below(&[url(l5.data)], json!({}))).start();
    let l3 = limits(below(&[url(l4.data)], json!({}))).start();
    let start = Instant::now();
    let answer = l3.get(&asked(), &[]).await;
    let took = start.elapsed();
    assert_eq!(answer.head.status, 503, "{}", answer.head.raw);
    // Each level answers half a second before the one below gives up: who is asked first waits longest.
    assert!(took < Duration::from_millis(3200), "{took:?}");
    assert!(answer.head.raw.contains("fwd-status=503"), "the parent has answered: {}", answer.head.raw);
    // A cache below that has less time is answered in that time.
    let l5 = top(&origin, json!({})).start();
    let start = Instant::now();
    assert_eq!(l5.get(&asked(), &["Waystation-Time-Left: 1500"]).await.head.status, 503);
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    gate.open();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_is_served_while_the_parent_is_away_and_the_rest_is_refused_at_once() {
    let pattern = Pattern::new(640, 3000);
    let parent = FakeOrigin::with(PATH, Reply::file(pattern).with("Cache-Control", "max-age=0")).await;
    let node = below(&[url(parent.address)], json!({})).start();
    must_be(&node.get(&asked(), &[]).await, pattern);
    node.wait_for_commits().await;
    parent.switch_off();
    let setup = node.stop().await;
    let node = setup.start();
    for _ in 0..3 {
        must_be(&node.get(&asked(), &[]).await, pattern);
    }
    let cold = format!("/cold?cacheHostOrigin={HOST}");
    assert_eq!(node.get(&cold, &[]).await.head.status, 503);
    let start = Instant::now();
    let answer = node.get(&cold, &[]).await;
    assert_eq!(answer.head.status, 503, "{}", answer.head.raw);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(state(&node).await["state"], "offline");
    parent.switch_on();
    parent.serve("/cold", Reply::file(pattern));
    let deadline = Instant::now() + Duration::from_secs(30);
    while node.get(&cold, &[]).await.head.status != 200 {
        assert!(Instant::now() < deadline, "it stays offline");
    }
    assert_eq!(state(&node).await["state"], "online");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_of_the_own_level_is_asked_itself() {
    let (origin, parent) =
        (FakeOrigin::with("/x", Reply::file(Pattern::new(650, 99))).await, FakeOrigin::start().await);
    let node = Setup::new()
        .origin("local.lan", origin.address, json!({ "parents": false }))
        .set("upstream.parents", json!([url(parent.address)]))
        .start();
    must_be(&node.get("/x?cacheHostOrigin=local.lan", &[]).await, Pattern::new(650, 99));
    assert_eq!((origin.requests(), parent.requests()), (1, 0));
}

#[tokio::test]
async fn a_cache_that_may_ask_nobody_says_so() {
    let node = below(&[], json!({})).set("upstream.direct", json!(false)).start();
    assert_eq!(node.get(&asked(), &[]).await.head.status, 503);
    let state = state(&node).await;
    assert_eq!(state["state"], "offline");
    let reasons = state["reasons"].to_string();
    assert!(reasons.contains("upstream.direct is false"), "{reasons}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_refusals_of_one_parent_do_not_hide_those_of_the_next() {
    let (one, other) = (FakeOrigin::start().await, FakeOrigin::start().await);
    let node = below(&[url(one.address), url(other.address)], json!({})).start();
    for number in 0..10 {
        let path = format!("/{number}");
        one.serve(&path, Reply::status(403, "no"));
        other.serve(&path, Reply::file(Pattern::new(654, 100)));
        // The other one is asked after it, and refuses the last ones.
        if number > 6 {
            other.serve(&path, Reply::status(421, "no"));
        }
        let _ = node.get(&format!("{path}?cacheHostOrigin={HOST}"), &[]).await;
    }
    let told = |parent: &FakeOrigin, status: u16| {
        let said = node.said();
        let lines = said.lines().filter(|line| line.contains("content is refused on the way to the origin"));
        let of_it = format!("\"source\":\"parent http://{}\"", parent.address);
        lines.filter(|line| line.contains(&of_it) && line.contains(&format!("\"status\":{status}"))).count()
    };
    // Lines come a little later than answers.
    let deadline = Instant::now() + Duration::from_secs(20);
    while told(&other, 421) < 3 {
        assert!(Instant::now() < deadline, "{}", node.said());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((told(&one, 403), told(&other, 421)), (5, 3), "{}", node.said());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_does_not_allow_this_cache_is_named() {
    let parent = Setup::new().set("listen.clients", json!(["192.0.2.0/24"])).start();
    let node = below(&[url(parent.data)], json!({})).start();
    for number in 0..10 {
        let answer = node.get(&format!("/{number}?cacheHostOrigin={HOST}"), &[]).await;
        assert_eq!(answer.head.status, 503, "{}", answer.head.raw);
    }
    let told = state(&node).await;
    assert_eq!(told["state"], "degraded", "{told}");
    let reason = format!("parent http://{} refuses to get it: 403 Forbidden; check whom it allows", parent.data);
    assert!(told["reasons"].to_string().contains(&reason), "{told}");
}
