//! Content whose digest is known beforehand: nobody gets wrong bytes whole.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::rig::client::{Connection, End, Framing, get};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Delimiter, Gate, Reply};
use super::rig::pattern::Pattern;
use super::rig::rules::{Mode, ranged_for_clients};
use super::rig::running_node::Setup;

const HOST: &str = "dl.example.com";
const TARGET: &str = "/-/dl.example.com/f.bin";
const PATH: &str = "/f.bin";
const MIB: u64 = 1 << 20;

/// `rule`, and the digest of `content` for the path.
fn with_digest_rule(mut rule: serde_json::Value, content: Pattern) -> serde_json::Value {
    rule["digests"] = json!({ PATH: STANDARD.encode(content.sha256()) });
    rule
}

#[tokio::test]
async fn a_digest_rule_holds_for_what_was_stored_before_it() {
    let (wrong, right) = (Pattern::new(805, 100_000), Pattern::new(806, 100_000));
    let origin = FakeOrigin::with(PATH, Reply::file(wrong)).await;
    let setup = Setup::new();
    let node = setup.origin(HOST, origin.address, Mode::Whole.rule()).start();
    assert_eq!(node.get(TARGET, &[]).await.body, wrong.bytes());
    node.wait_for_fills(1).await;
    let setup = node.stop().await.set("origins", json!([]));
    origin.switch_off();
    let node = setup.origin(HOST, origin.address, with_digest_rule(Mode::Whole.rule(), right)).start();
    assert_eq!(
        node.get(TARGET, &[]).await.head.status,
        503,
        "what is refused does not stand in for what cannot be had"
    );
    assert_eq!(node.get(TARGET, &["Range: bytes=5-"]).await.head.status, 503);
    origin.switch_on();
    origin.serve(PATH, Reply::file(right));
    let setup = node.stop().await;
    let node = setup.start();
    let answer = node.get(TARGET, &[]).await;
    assert_eq!((answer.head.status, answer.body == right.bytes()), (200, true), "{}", answer.head.raw);
    node.wait_for_fills(1).await;
    for _ in 0..3 {
        let again = node.get(TARGET, &[]).await;
        assert_eq!((again.head.status, again.body == right.bytes()), (200, true), "{}", again.head.raw);
    }
    assert_eq!(origin.requests(), 2, "it is fetched anew once");
}

#[tokio::test]
async fn a_digest_rule_holds_for_what_was_begun_before_it() {
    let (wrong, right) = (Pattern::new(807, 8 * MIB), Pattern::new(808, 8 * MIB));
    // Nothing but the bytes tells one from the other.
    let origin = FakeOrigin::with(PATH, Reply::file(wrong).with("ETag", "\"same\"")).await;
    let node = Setup::new().origin(HOST, origin.address, ranged_for_clients()).start();
    assert_eq!(node.get(TARGET, &["Range: bytes=0-3145727"]).await.head.status, 206);
    node.wait_until_idle().await;
    let setup = node.stop().await.set("origins", json!([]));
    origin.serve(PATH, Reply::file(right).with("ETag", "\"same\""));
    let node = setup.origin(HOST, origin.address, with_digest_rule(ranged_for_clients(), right)).start();
    for _ in 0..3 {
        let answer = node.get(TARGET, &[]).await;
        if answer.head.status == 200 && answer.end == End::Complete {
            assert!(answer.body == right.bytes(), "{}", answer.head.raw);
            return;
        }
        node.wait_until_idle().await;
    }
    panic!("it is never right");
}

/// Verify first, then stream: also when the length is not told.
#[tokio::test]
async fn a_chunked_body_with_a_digest_is_verified_before_it_leaves() {
    let content = Pattern::new(803, 300_000);
    let right = Reply::file(content).with_digest(content).delimited(Delimiter::Chunked);
    for mode in Mode::BOTH {
        let origin = FakeOrigin::with(PATH, right.clone().damaged(5)).await;
        let node = Setup::new().origin(HOST, origin.address, mode.rule()).start();
        for range in [&[][..], &["Range: bytes=0-99"]] {
            let answer = node.get(TARGET, range).await;
            assert_eq!((answer.head.status, answer.body.len()), (503, 0), "{}", answer.head.raw);
        }
        let origin = FakeOrigin::with(PATH, right.clone()).await;
        let node = Setup::new().origin(HOST, origin.address, mode.rule()).start();
        for _cold_then_warm in 0..2 {
            let answer = node.get(TARGET, &[]).await;
            assert_eq!(answer.head.exact("Content-Length"), Some("300000"), "{}", answer.head.raw);
            assert!(answer.body == content.bytes());
        }
    }
}

#[tokio::test]
async fn the_end_of_a_chunked_body_waits_for_its_digest() {
    let content = Pattern::new(804, 300_000);
    for damaged in [true, false] {
        let gate = Gate::shut();
        let right = Reply::file(content).with_digest(content).delimited(Delimiter::Chunked).hold_at(200_000, &gate);
        let origin = FakeOrigin::with(PATH, if damaged { right.damaged(5) } else { right }).await;
        let setup = Setup::new().origin(HOST, origin.address, Mode::Whole.rule());
        // Nobody waits longer than this for the digest.
        let node = setup.set("upstream.timeouts.request", json!("500ms")).start();
        let mut client = Connection::open(node.data).await;
        client.send(&get(TARGET, &[])).await;
        let head = client.head().await;
        assert_eq!((head.status, head.length()), (200, None), "{}", head.raw);
        let mut framing = head.framing(false);
        let mut body = client.piece(&mut framing, 1).await.unwrap().unwrap();
        gate.open();
        while let Ok(Some(piece)) = client.piece(&mut framing, 1 << 16).await {
            body.extend_from_slice(&piece);
        }
        if damaged {
            assert!(framing != Framing::Done && body.len() as u64 <= content.len - 16 * 1024, "{} bytes", body.len());
        } else {
            assert!(framing == Framing::Done && body == content.bytes(), "{} bytes", body.len());
        }
    }
}

/// Two hosts have one content, and only of one the operator says what it hashes to.
#[tokio::test]
async fn a_digest_rule_holds_for_what_another_host_is_just_fetching() {
    let (wrong, right) = (Pattern::new(809, 300_000), Pattern::new(810, 300_000));
    let gate = Gate::shut();
    let origin = FakeOrigin::with(PATH, Reply::file(wrong).hold_at(100_000, &gate)).await;
    let rule = || json!({ "canonical": "both", "fill": "whole" });
    let setup = Setup::new().origin("other.example.com", origin.address, rule());
    let node = setup.origin(HOST, origin.address, with_digest_rule(rule(), right)).start();
    let mut other = Connection::open(node.data).await;
    other.send(&get("/-/other.example.com/f.bin", &[])).await;
    let head = other.head().await;
    let opened = async {
        origin.serve(PATH, Reply::file(right));
        gate.open();
    };
    let (answer, ()) = tokio::join!(node.get(TARGET, &[]), opened);
    assert_eq!((answer.head.status, answer.body == right.bytes()), (200, true), "{}", answer.head.raw);
    assert_eq!(other.checked(&head, wrong, 0).await.first_difference, None);
}

/// The same when what is stored turns out to be current for the host without a rule.
#[tokio::test]
async fn a_digest_rule_holds_for_what_another_host_is_just_validating() {
    let (wrong, right) = (Pattern::new(831, 300_000), Pattern::new(832, 300_000));
    let stale = |content| Reply::file(content).with("Cache-Control", "max-age=0");
    let origin = FakeOrigin::with(PATH, stale(wrong)).await;
    let rule = || json!({ "canonical": "both", "fill": "whole" });
    let setup = Setup::new().origin("other.example.com", origin.address, rule());
    let node = setup.origin(HOST, origin.address, with_digest_rule(rule(), right)).start();
    let other = "/-/other.example.com/f.bin";
    assert!(node.get(other, &[]).await.body == wrong.bytes());
    node.wait_for_fills(1).await;
    let gate = Gate::shut();
    origin.serve(PATH, stale(wrong).hold_head(&gate));
    let opened = async {
        origin.wait_for_requests(2).await;
        while node.metric("waystation_requests_in_flight", "").await < 2.0 {}
        origin.serve(PATH, stale(right));
        gate.open();
    };
    let late = async {
        origin.wait_for_requests(2).await;
        node.get(TARGET, &[]).await
    };
    let (validated, answer, ()) = tokio::join!(node.get(other, &[]), late, opened);
    assert!(validated.body == wrong.bytes(), "{}", validated.head.raw);
    assert_eq!((answer.head.status, answer.body == right.bytes()), (200, true), "{}", answer.head.raw);
}

/// What a part is said to become is remembered when other answers come between its begin and its rest.
#[tokio::test]
async fn a_digest_that_came_with_the_begin_holds_when_a_404_came_between() {
    let content = Pattern::new(833, 4 * MIB);
    let gate = Gate::shut();
    let part = |reply: Reply| Reply { content_digest: true, ..reply };
    let origin = FakeOrigin::with(PATH, part(Reply::file(content).damaged(5).hold_at(MIB, &gate))).await;
    let setup = Setup::new().origin(HOST, origin.address, Mode::Whole.rule());
    // Nobody waits longer than this for the digest.
    let node = setup.set("upstream.timeouts.request", json!("500ms")).start();
    let mut client = Connection::open_as(1, node.data).await;
    client.send(&get(TARGET, &[])).await;
    let head = client.head().await;
    assert_eq!(head.status, 200, "{}", head.raw);
    client.piece(&mut head.framing(false), 1).await.unwrap().unwrap();
    drop(client);
    node.wait_until_idle().await;
    origin.serve(PATH, Reply::status(404, "no\n").with("Cache-Control", "max-age=0"));
    assert_eq!(node.get(TARGET, &[]).await.head.status, 404);
    node.wait_until_idle().await;
    origin.serve(PATH, part(Reply::file(content)));
    for _ in 0..3 {
        let answer = node.get(TARGET, &[]).await;
        node.wait_until_idle().await;
        if answer.head.status == 200 && answer.end == End::Complete {
            assert_eq!(content.first_difference(0, &answer.body), None, "{}", answer.head.raw);
            return;
        }
    }
    panic!("it is never right");
}

/// A digest is that of the content, whatever coding a client would like it in.
#[tokio::test]
async fn a_digest_rule_is_not_held_against_a_coding_that_a_client_asks_for() {
    let (content, coded) = (Pattern::new(834, 100_000), Pattern::new(835, 50_000));
    let origin = FakeOrigin::start().await;
    origin.script(PATH, move |request| {
        let is_coded = request.field("Accept-Encoding").is_some_and(|codings| codings.contains("gzip"));
        let reply = if is_coded { Reply::file(coded).with("Content-Encoding", "gzip") } else { Reply::file(content) };
        reply.with("Vary", "Accept-Encoding")
    });
    let node = Setup::new().origin(HOST, origin.address, with_digest_rule(Mode::Whole.rule(), content)).start();
    for _ in 0..4 {
        node.get(TARGET, &["Accept-Encoding: gzip"]).await;
        node.wait_until_idle().await;
    }
    let answer = node.get(TARGET, &[]).await;
    assert_eq!((answer.head.status, answer.body == content.bytes()), (200, true), "{}", answer.head.raw);
    for control in ["max-age=60", "no-store"] {
        let answer = node.get(TARGET, &["Accept-Encoding: gzip", &format!("Cache-Control: {control}")]).await;
        assert_eq!((answer.head.status, answer.body == content.bytes()), (200, true), "{}", answer.head.raw);
    }
}
