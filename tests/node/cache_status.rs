//! `Cache-Status` (RFC 9211): what a cache says that it did with a request, whatever that came to.

use serde_json::{Value, json};

use super::rig::client::{Answer, Connection, get, request};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Gate, Received, Reply};
use super::rig::pattern::Pattern;
use super::rig::rules::{Mode, ranged_for_clients};
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "dl.example.com";
const CONTENT: Pattern = Pattern { seed: 861, len: 100_000 };
const MIB: u64 = 1 << 20;

/// A node that is called `l5`.
fn named(setup: Setup) -> RunningNode {
    setup.set("pseudonym", json!("l5")).start()
}

async fn node_with(reply: Reply, rule: Value) -> (RunningNode, FakeOrigin) {
    let origin = FakeOrigin::with("/f.bin", reply).await;
    (named(Setup::new().origin(HOST, origin.address, rule)), origin)
}

async fn ask(node: &RunningNode, fields: &[&str]) -> Answer {
    node.get(&format!("/-/{HOST}/f.bin"), fields).await
}

/// All members, those of caches nearer to the origin first.
fn members(answer: &Answer) -> String {
    let lines = answer.head.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("Cache-Status"));
    lines.map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(", ")
}

/// What `l5` says, with `ttl=+` for a lifetime that lasts and `ttl=-` for one that is over.
fn said(answer: &Answer) -> String {
    let all = members(answer);
    let own = all.strip_prefix("l5; ").unwrap_or_else(|| panic!("one member: {all}"));
    let parameters = own.split("; ").map(|parameter| match parameter.strip_prefix("ttl=").map(str::parse::<i64>) {
        Some(Ok(ttl)) => if ttl > 0 { "ttl=+" } else { "ttl=-" }.to_owned(),
        _ => parameter.to_owned(),
    });
    parameters.collect::<Vec<_>>().join("; ")
}

fn must_say(answer: &Answer, status: u16, expected: &str) {
    assert_eq!((answer.head.status, said(answer).as_str()), (status, expected), "{}", answer.head.raw);
}

#[tokio::test]
async fn a_miss_is_stored_with_a_lifetime_and_then_a_hit() {
    for rule in [Mode::Ranged.rule(), Mode::Whole.rule()] {
        let (node, _origin) = node_with(Reply::file(CONTENT), rule.clone()).await;
        let forwarded = if rule == Mode::Whole.rule() { "fwd-status=200" } else { "fwd-status=206" };
        must_say(&ask(&node, &[]).await, 200, &format!("fwd=uri-miss; {forwarded}; ttl=+; stored"));
        node.wait_for_fills(1).await;
        // Often enough for an answer that is kept ready.
        for _ in 0..6 {
            must_say(&ask(&node, &[]).await, 200, "hit; ttl=+");
        }
        must_say(&ask(&node, &["Range: bytes=5-9"]).await, 206, "hit; ttl=+");
        must_say(&ask(&node, &["Range: bytes=100000-"]).await, 416, "hit; ttl=+");
        must_say(&ask(&node, &["If-Modified-Since: Mon, 23 Nov 2099 12:00:00 GMT"]).await, 304, "hit; ttl=+");
        must_say(&ask(&node, &["If-Match: \"other\""]).await, 412, "hit; ttl=+");
        must_say(&ask(&node, &["If-None-Match: *"]).await, 304, "hit; ttl=+");
        let head = node.ask(&request("HEAD", &format!("/-/{HOST}/f.bin"), &[])).await;
        must_say(&head, 200, "hit; ttl=+");
    }
}

#[tokio::test]
async fn what_is_not_stored_is_not_said_to_be() {
    for control in ["no-store", "private"] {
        let (node, _origin) = node_with(Reply::file(CONTENT).with("Cache-Control", control), json!({})).await;
        for _ in 0..2 {
            must_say(&ask(&node, &[]).await, 200, "fwd=uri-miss; fwd-status=200");
        }
        must_say(&ask(&node, &["Range: bytes=5-9"]).await, 206, "fwd=uri-miss; fwd-status=206");
    }
    let (node, _origin) = node_with(Reply::file(CONTENT), json!({ "methods": ["GET", "HEAD", "POST"] })).await;
    must_say(&ask(&node, &["Cache-Control: no-store"]).await, 200, "fwd=bypass; fwd-status=200");
    let head = node.ask(&request("HEAD", &format!("/-/{HOST}/f.bin"), &[])).await;
    must_say(&head, 200, "fwd=uri-miss; fwd-status=200");
    let post = request("POST", &format!("/-/{HOST}/f.bin"), &["Content-Length: 3"]);
    must_say(&node.ask(&format!("{post}new")).await, 200, "fwd=method; fwd-status=200");
    must_say(&ask(&node, &[]).await, 200, "fwd=uri-miss; fwd-status=200; ttl=+; stored");
    // No drive has room for it.
    let large = Pattern::new(862, 40 * MIB);
    let origin = FakeOrigin::with("/f.bin", Reply::file(large)).await;
    let setup = Setup::new().origin(HOST, origin.address, json!({}));
    let drive = setup.path("drive1").to_str().unwrap().to_owned();
    let node = named(setup.set("storage.drives", json!([{ "path": drive, "quota": "16 MiB", "min_free": 0 }])));
    must_say(&ask(&node, &[]).await, 200, "fwd=uri-miss; fwd-status=200; ttl=+");
}

#[tokio::test]
async fn why_upstream_was_asked_although_something_is_stored() {
    let stale = Reply::file(CONTENT).with("Cache-Control", "max-age=0");
    let changed = || Reply::file(Pattern::new(863, 5)).with("Cache-Control", "max-age=600");
    for (first, then, fields, status, expected) in [
        (stale.clone(), stale.clone(), &[][..], 200, "fwd=stale; fwd-status=304; ttl=-"),
        (stale.clone(), stale.clone().with("Cache-Control", "max-age=9"), &[], 200, "fwd=stale; fwd-status=304; ttl=+"),
        (stale.clone(), changed(), &[], 200, "fwd=stale; fwd-status=200; ttl=+; stored"),
        (stale.clone(), Reply::status(500, "no"), &[], 200, "fwd=stale; fwd-status=500; ttl=-"),
        (stale.clone(), Reply::status(404, "no"), &[], 404, "fwd=stale; fwd-status=404; ttl=+; stored"),
        (
            Reply::file(CONTENT),
            Reply::file(CONTENT),
            &["Cache-Control: no-cache"],
            200,
            "fwd=request; fwd-status=304; ttl=+",
        ),
        (
            Reply::file(CONTENT),
            changed(),
            &["Cache-Control: max-age=0"],
            200,
            "fwd=request; fwd-status=200; ttl=+; stored",
        ),
        (
            Reply::file(CONTENT).with("Vary", "Accept-Language"),
            Reply::file(CONTENT).with("Vary", "Accept-Language"),
            &["Accept-Language: de"],
            200,
            "fwd=vary-miss; fwd-status=200; ttl=+; stored",
        ),
    ] {
        let (node, origin) = node_with(first, json!({})).await;
        assert_eq!(ask(&node, &[]).await.head.status, 200);
        node.wait_for_fills(1).await;
        origin.serve("/f.bin", then);
        must_say(&ask(&node, fields).await, status, expected);
    }
    let (node, _origin) = node_with(Reply::file(Pattern::new(864, 8 * MIB)), ranged_for_clients()).await;
    assert_eq!(ask(&node, &["Range: bytes=0-99"]).await.head.status, 206);
    node.wait_until_idle().await;
    let rest = ask(&node, &["Range: bytes=6000000-6000099"]).await;
    must_say(&rest, 206, "fwd=partial; fwd-status=206; ttl=+; stored");
}

#[tokio::test]
async fn a_failure_is_told_and_whether_anybody_was_asked() {
    let stale = Reply::file(CONTENT).with("Cache-Control", "max-age=0");
    let (node, origin) = node_with(stale, json!({})).await;
    must_say(&ask(&node, &[]).await, 200, "fwd=uri-miss; fwd-status=200; ttl=-; stored");
    node.wait_for_fills(1).await;
    origin.switch_off();
    let asked = ask(&node, &[]).await;
    assert_eq!(asked.head.status, 200, "{}", asked.head.raw);
    assert!(said(&asked).starts_with("fwd=stale; ttl=-; detail="), "{}", said(&asked));
    // Until nobody is asked any more.
    let known = async {
        loop {
            let answer = ask(&node, &[]).await;
            if said(&answer).starts_with("hit") {
                return answer;
            }
        }
    };
    let known = tokio::time::timeout(std::time::Duration::from_secs(30), known).await.unwrap();
    assert!(said(&known).starts_with("hit; ttl=-; detail="), "{}", said(&known));
    let nothing =
        node.get(&format!("/-/{HOST}/other.bin"), &["User-Agent: Microsoft-Delivery-Optimization/10.0"]).await;
    assert_eq!(nothing.head.status, 503, "{}", nothing.head.raw);
    assert!(said(&nothing).contains("detail=") && !said(&nothing).contains("fwd-status"), "{}", said(&nothing));

    let (node, _origin) = node_with(Reply::status(503, "no"), json!({})).await;
    must_say(&ask(&node, &[]).await, 503, "fwd=uri-miss; fwd-status=503");
    must_say(&ask(&node, &["Cache-Control: only-if-cached"]).await, 504, "detail=only-if-cached");
    must_say(&node.get("/-/nobody.example.com/f", &[]).await, 403, "detail=unknown-origin");
    let refused = node.ask(&request("DELETE", &format!("/-/{HOST}/f.bin"), &[])).await;
    assert_eq!(refused.head.status, 405, "{}", refused.head.raw);
    assert!(said(&refused).starts_with("detail="), "{}", said(&refused));
    // What the origin sent does not reach the client.
    let claimed = Reply::file(CONTENT).with("Cache-Control", "no-store").with_digest(CONTENT).damaged(5);
    let (node, _origin) = node_with(claimed, json!({})).await;
    must_say(&ask(&node, &[]).await, 503, "fwd=uri-miss; fwd-status=200; detail=wrong-digest");
}

#[tokio::test]
async fn who_shares_the_answer_of_another_is_told_so() {
    let gate = Gate::shut();
    let (node, origin) = node_with(Reply::file(CONTENT).hold_at(5000, &gate), Mode::Whole.rule()).await;
    let mut leader = Connection::open(node.data).await;
    leader.send(&get(&format!("/-/{HOST}/f.bin"), &[])).await;
    let head = leader.head().await;
    let follower = async { ask(&node, &[]).await };
    let opened = async {
        origin.wait_for_bytes(5000).await;
        while node.metric("waystation_requests_in_flight", "").await < 2.0 {}
        gate.open();
    };
    let (follower, ()) = tokio::join!(follower, opened);
    // Some of it was there already.
    must_say(&follower, 200, "fwd=partial; fwd-status=200; ttl=+; stored; collapsed");
    assert!(head.field("Cache-Status").unwrap().ends_with("; stored"), "{}", head.raw);
    drop(leader);

    // The same of a validation.
    let stale = Reply::file(CONTENT).with("Cache-Control", "max-age=0");
    let (node, origin) = node_with(stale.clone(), json!({})).await;
    ask(&node, &[]).await;
    node.wait_for_fills(1).await;
    let gate = Gate::shut();
    origin.serve("/f.bin", stale.hold_head(&gate));
    let leader = async { ask(&node, &[]).await };
    let follower = async {
        origin.wait_for_requests(2).await;
        ask(&node, &[]).await
    };
    let opened = async {
        origin.wait_for_requests(2).await;
        while node.metric("waystation_requests_in_flight", "").await < 2.0 {}
        gate.open();
    };
    let (leader, follower, ()) = tokio::join!(leader, follower, opened);
    must_say(&leader, 200, "fwd=stale; fwd-status=304; ttl=-");
    must_say(&follower, 200, "fwd=stale; fwd-status=304; ttl=-; collapsed");
}

#[tokio::test]
async fn each_cache_of_three_adds_what_it_did_behind_what_is_nearer_to_the_origin() {
    let reply = Reply::file(CONTENT).with("Cache-Status", "\"of the origin\"; hit; key=\"a, b; c\"");
    let origin = FakeOrigin::with("/f.bin", reply).await;
    let level = |name: &str, above: std::net::SocketAddr| {
        let parents = json!([{ "url": format!("http://{above}") }]);
        let setup = Setup::new().set("origins", json!([{ "host": HOST }])).set("upstream.parents", parents);
        setup.set("pseudonym", json!(name)).set("cache_status_key", json!(true)).start()
    };
    let l5 = named(Setup::new().origin(HOST, origin.address, json!({})));
    let l4 = level("l4", l5.data);
    let l3 = level("l3", l4.data);
    let target = format!("/f.bin?cacheHostOrigin={HOST}");
    let of_origin = "\"of the origin\"; hit; key=\"a, b; c\"";
    let is_a_chain = |answer: &Answer, last: &str| {
        let all = members(answer);
        let rest = all.strip_prefix(of_origin).unwrap_or_else(|| panic!("the origin's own comes first: {all}"));
        let parts: Vec<_> = rest.split(", l").skip(1).collect();
        let [five, four, three] = parts.as_slice() else { panic!("three of ours: {all}") };
        assert!(five.starts_with("5; fwd=uri-miss; fwd-status=200; ttl=") && five.ends_with("; stored"), "{all}");
        assert!(four.starts_with("4; fwd=uri-miss; fwd-status=200; ttl="), "{all}");
        assert!(four.ends_with("; stored; key=\"dl.example.com/f.bin\""), "{all}");
        assert!(three.starts_with(last) && three.ends_with("; key=\"dl.example.com/f.bin\""), "{all}");
    };
    is_a_chain(&l3.get(&target, &[]).await, "3; fwd=uri-miss; fwd-status=200; ttl=");
    l3.wait_for_fills(1).await;
    for _ in 0..6 {
        is_a_chain(&l3.get(&target, &[]).await, "3; hit; ttl=");
    }
    // A client below asks for the word of the origin: each tells what came of that, and a 304 takes nothing away.
    let answer = l4.get(&target, &["Cache-Control: no-cache"]).await;
    let all = members(&answer);
    let asked = ["l5; fwd=request; fwd-status=304; ttl=", "l4; fwd=request; fwd-status=304; ttl="];
    let places = asked.map(|member| all.find(member));
    assert!(all.starts_with(of_origin) && places[0].is_some() && places[0] < places[1], "{all}");
    assert_eq!(all.matches("fwd-status").count(), 2, "{all}");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn the_key_is_told_where_the_operator_wants_it() {
    let origin = FakeOrigin::start().await;
    origin.script("/f.bin", |_: &Received| Reply::file(Pattern::new(865, 1000)));
    origin.script("/a%22b", |_: &Received| Reply::file(Pattern::new(866, 1000)));
    let setup = || Setup::new().origin(HOST, origin.address, json!({ "canonical": "the-files" }));
    let node = named(setup().set("cache_status_key", json!(true)));
    let key = |answer: &Answer| said(answer).split_once("; key=").map(|(_, key)| key.to_owned());
    let first = ask(&node, &[]).await;
    assert_eq!(key(&first).as_deref(), Some("\"the-files/f.bin\""), "{}", said(&first));
    node.wait_for_fills(1).await;
    let ready = async || node.metric("waystation_ready_answers_total", "").await;
    for _until_it_is_kept in 0..20 {
        must_say(&ask(&node, &[]).await, 200, "hit; ttl=+; key=\"the-files/f.bin\"");
    }
    assert!(ready().await > 0.0, "an answer that is kept tells it, too");
    must_say(&ask(&node, &["If-None-Match: *"]).await, 304, "hit; ttl=+; key=\"the-files/f.bin\"");
    let own = ask(&node, &["Want-Repr-Digest: sha-256=1"]).await;
    must_say(&own, 200, "hit; ttl=+; key=\"the-files/f.bin\"; digest=own");
    let bypass = ask(&node, &["Cache-Control: no-store, no-cache"]).await;
    assert!(said(&bypass).ends_with("; key=\"the-files/f.bin\""), "{}", said(&bypass));
    let quoted = node.get(&format!("/-/{HOST}/a%22b"), &[]).await;
    assert_eq!(key(&quoted).as_deref(), Some("\"the-files/a%22b\""), "{}", said(&quoted));
    // Who asks for nothing that is known has no key.
    must_say(&node.get("/-/nobody.example.com/f", &[]).await, 403, "detail=unknown-origin");
    let silent = named(setup());
    for _ in 0..20 {
        assert_eq!(key(&ask(&silent, &[]).await), None);
    }
}

#[tokio::test]
async fn a_key_tells_no_secret_and_nothing_of_any_query() {
    const SECRETS: [&str; 6] = ["aB%2Bc", "aB+c", "2022-11-02", "hunter2", "SIG", "sig"];
    for auth in [json!("none"), json!("azure-sas"), json!(["password"])] {
        let origin = FakeOrigin::start().await;
        origin.script("/f.bin", |_: &Received| Reply::file(Pattern::new(867, 1000)));
        let rule = json!({ "auth_parameters": auth.clone() });
        let setup = Setup::new().origin(HOST, origin.address, rule).set("cache_status_key", json!(true));
        let node = named(setup);
        let mut keys = Vec::new();
        for query in [
            "v=1&sv=2022-11-02&se=2099-11-23T18%3A05%3A00Z&sr=b&sp=r&sig=aB%2Bc",
            "v=2&sv=2022-11-02&se=2099-11-23T18%3A05%3A00Z&sr=b&sp=r&SIG=aB%2Bc",
            "v=1&password=hunter2",
            "hunter2",
        ] {
            for _cold_then_warm in 0..4 {
                let answer = node.get(&format!("/-/{HOST}/f.bin?{query}"), &[]).await;
                assert_eq!(answer.head.status, 200, "{}", answer.head.raw);
                let said = said(&answer);
                let key = said.split_once("; key=\"").and_then(|(_, key)| key.strip_suffix('"')).unwrap();
                let hash = key.strip_prefix("dl.example.com/f.bin?").unwrap_or_else(|| panic!("{key}"));
                assert!(hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{key}");
                assert!(SECRETS.iter().all(|secret| !said.contains(secret)), "{said}");
                keys.push(key.to_owned());
                node.wait_until_idle().await;
            }
        }
        keys.dedup();
        assert_eq!(keys.len(), 4, "what is one object has one key, what are two have two: {auth} {keys:?}");
    }
}
