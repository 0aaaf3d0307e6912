//! What HTTP says of a shared cache (RFC 9110, RFC 9111, RFC 9213), as clients see it.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::rig::client::{Answer, request};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Received, Reply};
use super::rig::pattern::Pattern;
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "dl.example.com";
const PATTERN: Pattern = Pattern { seed: 121, len: 40_000 };

async fn node_with(reply: Reply, rule: Value) -> (RunningNode, FakeOrigin) {
    let origin = FakeOrigin::with("/f.bin", reply).await;
    (Setup::new().origin(HOST, origin.address, rule).start(), origin)
}

async fn fetch(node: &RunningNode, path: &str, fields: &[&str]) -> Answer {
    let answer = node.get(&format!("/-/{HOST}{path}"), fields).await;
    assert_eq!(answer.head.status, 200, "{}", answer.head.raw);
    answer
}

async fn send(node: &RunningNode, method: &str, path: &str, fields: &[&str]) -> Answer {
    let fields = [&["Content-Length: 3"], fields].concat();
    let head = request(method, &format!("/-/{HOST}{path}"), &fields);
    node.ask(&format!("{head}new")).await
}

#[tokio::test]
async fn a_targeted_field_takes_the_place_of_cache_control_and_goes_on() {
    for (targeted, control, requests) in [
        ("max-age=600", "no-store", 1),
        ("max-age=600;x=1, unknown", "max-age=0", 1),
        ("no-store", "max-age=600", 2),
        ("private", "max-age=600", 2),
        ("max-age=600, &&&", "max-age=0, no-store", 2),
        ("", "max-age=600", 1),
    ] {
        let reply = Reply::bare(PATTERN).with("Cache-Control", control).with("CDN-Cache-Control", targeted);
        let (node, origin) = node_with(reply, json!({})).await;
        for _ in 0..2 {
            let answer = fetch(&node, "/f.bin", &[]).await;
            assert_eq!(answer.head.field("CDN-Cache-Control"), Some(targeted), "{}", answer.head.raw);
            assert_eq!(answer.head.field("Cache-Control"), Some(control), "{}", answer.head.raw);
            assert!(answer.body == PATTERN.bytes());
        }
        assert_eq!(origin.requests(), requests, "{targeted} {control}");
    }
}

#[tokio::test]
async fn an_answer_to_a_post_that_is_the_content_of_its_url_serves_later_gets() {
    let kept = Reply::file(PATTERN).with("Content-Location", "/f.bin");
    let methods = json!({ "methods": ["GET", "HEAD", "POST"] });
    for (reply, fields, requests) in [
        (kept.clone(), &[][..], 1),
        (kept.clone(), &["Cookie: user=1"], 2),
        (kept.clone().with("Content-Location", "/other.bin"), &[], 2),
        (kept.clone().with("Cache-Control", "private, max-age=600"), &[], 2),
        // No lifetime of its own.
        (Reply::bare(PATTERN).with("Content-Location", "/f.bin").with("ETag", "\"1\""), &[], 2),
        (Reply::file(PATTERN), &[], 2),
    ] {
        let (node, origin) = node_with(reply, methods.clone()).await;
        let posted = send(&node, "POST", "/f.bin", fields).await;
        assert_eq!(posted.head.status, 200, "{}", posted.head.raw);
        assert!(posted.body == PATTERN.bytes(), "{}", posted.head.raw);
        assert!(posted.head.field("Cache-Status").is_some_and(|status| status.contains("fwd=method; fwd-status=200")));
        assert!(fetch(&node, "/f.bin", &[]).await.body == PATTERN.bytes());
        assert_eq!(origin.requests(), requests, "{fields:?} {:?}", origin.received());
        assert_eq!(send(&node, "POST", "/f.bin", fields).await.head.status, 200);
        assert_eq!(origin.requests(), requests + 1, "a POST is never answered from the store");
    }
}

#[tokio::test]
async fn a_change_makes_invalid_what_its_answer_names_at_the_same_origin() {
    let origin = FakeOrigin::with("/f.bin", Reply::file(PATTERN)).await;
    for path in ["/named.bin", "/made.bin", "/other.bin"] {
        origin.serve(path, Reply::file(PATTERN));
    }
    origin.script("/change", |request: &Received| {
        let location = match request.field("X-Elsewhere") {
            Some(_) => "http://other.example/other.bin",
            None => "/made.bin",
        };
        let status = if request.method == "GET" { 404 } else { 201 };
        Reply::status(status, "").with("Content-Location", "named.bin").with("Location", location)
    });
    let methods = json!({ "methods": ["GET", "HEAD", "M-SEARCH"] });
    let setup = Setup::new().origin(HOST, origin.address, methods.clone());
    let node = setup.origin("other.example", origin.address, methods).start();
    let other = "/-/other.example/other.bin";
    for path in ["/f.bin", "/named.bin", "/made.bin", "/other.bin"] {
        fetch(&node, path, &[]).await;
    }
    node.get(other, &[]).await;
    node.wait_for_fills(5).await;
    assert_eq!(send(&node, "M-SEARCH", "/change", &[]).await.head.status, 201);
    assert_eq!(send(&node, "M-SEARCH", "/change", &["X-Elsewhere: 1"]).await.head.status, 201);
    let before = origin.requests();
    for (path, asked) in [("/f.bin", 0), ("/other.bin", 0), ("/named.bin", 1), ("/made.bin", 2)] {
        fetch(&node, path, &[]).await;
        assert_eq!(origin.requests() - before, asked, "{path}");
    }
    node.get(other, &[]).await;
    assert_eq!(origin.requests() - before, 2, "what lies at another origin stays");
}

#[tokio::test]
async fn a_method_that_the_rule_does_not_name_is_refused() {
    let (node, origin) = node_with(Reply::file(PATTERN), json!({ "methods": ["GET", "M-SEARCH"] })).await;
    for method in ["POST", "PUT", "DELETE", "HEAD", "NOTIFY", "TRACE"] {
        let refused = send(&node, method, "/f.bin", &[]).await;
        assert_eq!(refused.head.status, 405, "{method}: {}", refused.head.raw);
        assert_eq!(refused.head.field("Allow"), Some("GET, M-SEARCH"));
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn what_becomes_of_cookies_is_for_the_rule_to_say() {
    for (rule, requests, cookie) in [
        (json!({}), 2, Some("a=b")),
        (json!({ "set_cookie": "pass" }), 2, Some("a=b")),
        (json!({ "set_cookie": "strip" }), 1, None),
        (json!({ "set_cookie": "store" }), 1, Some("a=b")),
    ] {
        let (node, origin) = node_with(Reply::file(PATTERN).with("Set-Cookie", "a=b"), rule.clone()).await;
        for _ in 0..2 {
            assert_eq!(fetch(&node, "/f.bin", &[]).await.head.field("Set-Cookie"), cookie, "{rule}");
        }
        assert_eq!(origin.requests(), requests, "{rule}");
    }
}

#[tokio::test]
async fn requests_that_mean_the_same_languages_share_what_is_stored() {
    let reply = Reply::file(PATTERN).with("Vary", "Accept-Language").with("Content-Language", "de");
    let (node, origin) = node_with(reply, json!({})).await;
    for (wish, requests) in [("en, de", 1), ("De;q=1,EN", 1), ("fr;q=0.5, de", 1), ("en, de;q=0.5", 2), ("fr", 3)] {
        fetch(&node, "/f.bin", &[&format!("Accept-Language: {wish}")]).await;
        assert_eq!(origin.requests(), requests, "{wish}");
    }
}

#[tokio::test]
async fn a_content_range_without_meaning_is_a_field_like_any_other() {
    let (node, _origin) = node_with(Reply::file(PATTERN).with("Content-Range", "bytes 7-9/99"), json!({})).await;
    for _miss_then_hit in 0..2 {
        assert_eq!(fetch(&node, "/f.bin", &[]).await.head.field("Content-Range"), Some("bytes 7-9/99"));
    }
    let of = |range: &'static str| {
        let node = &node;
        async move { node.get(&format!("/-/{HOST}/f.bin"), &[range]).await }
    };
    let part = of("Range: bytes=0-9").await;
    assert_eq!((part.head.status, part.head.field("Content-Range")), (206, Some("bytes 0-9/40000")));
    let parts = of("Range: bytes=0-9, 30000-30009").await;
    assert_eq!((parts.head.status, parts.head.field("Content-Range")), (206, None), "{}", parts.head.raw);
}

#[tokio::test]
async fn digests_are_given_as_they_are_wanted() {
    let small = Pattern::new(122, 4000);
    let (node, _origin) = node_with(Reply::file(small), json!({})).await;
    fetch(&node, "/f.bin", &[]).await;
    node.wait_for_fills(1).await;
    let plain = fetch(&node, "/f.bin", &[]).await.head;
    let repr = plain.field("Repr-Digest").unwrap();
    assert_eq!(plain.field("Content-Digest"), None, "{}", plain.raw);
    for _kept_then_again in 0..2 {
        let wanted = fetch(&node, "/f.bin", &["Want-Content-Digest: sha-512=3, sha-256=10"]).await.head;
        assert_eq!((wanted.field("Content-Digest"), wanted.field("Repr-Digest")), (Some(repr), Some(repr)));
    }
    let none = fetch(&node, "/f.bin", &["Want-Repr-Digest: sha-256=0"]).await.head;
    assert_eq!(none.field("Repr-Digest"), None, "{}", none.raw);
    let fields = ["Range: bytes=5-9", "Want-Content-Digest: sha-256=1"];
    let part = node.get(&format!("/-/{HOST}/f.bin"), &fields).await;
    let expected = super::rig::origin_reply::digest_field(Sha256::digest(&part.body).into());
    assert_eq!((part.head.status, part.head.field("Content-Digest")), (206, Some(&*expected)), "{}", part.head.raw);
}

#[tokio::test]
async fn the_answer_to_a_head_freshens_what_it_is_about() {
    let stale = Reply::file(PATTERN).with("Cache-Control", "max-age=0");
    for (changed, requests) in [
        (stale.clone().with("Cache-Control", "max-age=600").with("X-New", "1"), 2),
        (stale.clone().with("Cache-Control", "max-age=600").with("ETag", "\"other\""), 3),
    ] {
        let (node, origin) = node_with(stale.clone(), json!({})).await;
        fetch(&node, "/f.bin", &[]).await;
        node.wait_for_fills(1).await;
        origin.serve("/f.bin", changed);
        let head = node.ask(&request("HEAD", &format!("/-/{HOST}/f.bin"), &[])).await;
        assert_eq!(head.head.status, 200, "{}", head.head.raw);
        fetch(&node, "/f.bin", &[]).await;
        assert_eq!(origin.requests(), requests, "{:?}", origin.received());
    }
}

#[tokio::test]
async fn options_go_as_far_as_they_may() {
    let (node, origin) = node_with(Reply::status(204, ""), json!({ "methods": ["GET", "OPTIONS"] })).await;
    let last = send(&node, "OPTIONS", "/f.bin", &["Max-Forwards: 0"]).await.head;
    assert_eq!((last.status, last.field("Allow")), (200, Some("GET, OPTIONS")), "{}", last.raw);
    assert_eq!(origin.requests(), 0);
    assert_eq!(send(&node, "OPTIONS", "/f.bin", &["Max-Forwards: 2"]).await.head.status, 204);
    assert_eq!(send(&node, "OPTIONS", "/f.bin", &[]).await.head.status, 204);
    let told: Vec<_> =
        origin.received().iter().map(|request| request.field("Max-Forwards").map(str::to_owned)).collect();
    assert_eq!(told, [Some("1".to_owned()), None]);
}

#[tokio::test]
async fn a_cookie_is_stripped_of_a_failure_too() {
    let failure = Reply::status(503, "later").with("Set-Cookie", "session=1");
    for (rule, cookie) in [(json!({}), Some("session=1")), (json!({ "set_cookie": "strip" }), None)] {
        let (node, _origin) = node_with(failure.clone(), rule).await;
        let answer = node.get(&format!("/-/{HOST}/f.bin"), &[]).await;
        assert_eq!(answer.head.status, 503, "{}", answer.head.raw);
        assert_eq!(answer.head.field("Set-Cookie"), cookie, "{}", answer.head.raw);
    }
}

#[tokio::test]
async fn a_304_carries_the_targeted_field_on() {
    let reply = Reply::bare(PATTERN).with("ETag", "\"1\"").with("CDN-Cache-Control", "max-age=600");
    let (node, _origin) = node_with(reply, json!({})).await;
    fetch(&node, "/f.bin", &[]).await;
    let answer = node.get(&format!("/-/{HOST}/f.bin"), &["If-None-Match: \"1\""]).await;
    assert_eq!(answer.head.status, 304, "{}", answer.head.raw);
    assert_eq!(answer.head.field("CDN-Cache-Control"), Some("max-age=600"), "{}", answer.head.raw);
}

#[tokio::test]
async fn an_error_in_the_best_liked_language_does_not_answer_for_what_may_be_there() {
    let origin = FakeOrigin::start().await;
    origin.script("/f.bin", |request: &Received| {
        let german = request.field("Accept-Language") == Some("de");
        let reply = if german { Reply::bare(PATTERN) } else { Reply::status(404, "nicht da") };
        let reply = reply.with("Vary", "Accept-Language").with("Content-Language", "de");
        reply.with("Cache-Control", "max-age=600")
    });
    let node = Setup::new().origin(HOST, origin.address, json!({})).start();
    let path = format!("/-/{HOST}/f.bin");
    assert_eq!(node.get(&path, &["Accept-Language: fr"]).await.head.status, 404);
    assert!(fetch(&node, "/f.bin", &["Accept-Language: de"]).await.body == PATTERN.bytes());
}
