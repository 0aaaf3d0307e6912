//! What may be stored, for how long, and for whom (RFC 9111).

use serde_json::json;

use super::rig::client::Answer;
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Received, Reply};
use super::rig::pattern::Pattern;
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "dl.example.com";
const PATTERN: Pattern = Pattern { seed: 111, len: 50_000 };

async fn node_with(reply: Reply) -> (RunningNode, FakeOrigin) {
    let origin = FakeOrigin::with("/f.bin", reply).await;
    (Setup::new().origin(HOST, origin.address, json!({})).start(), origin)
}

async fn fetch(node: &RunningNode, fields: &[&str]) -> Answer {
    let answer = node.get(&format!("/-/{HOST}/f.bin"), fields).await;
    assert_eq!(answer.head.status, 200, "{}", answer.head.raw);
    answer
}

#[tokio::test]
async fn what_has_gone_stale_is_validated_and_not_sent_again() {
    let (node, origin) = node_with(Reply::file(PATTERN).with("Cache-Control", "max-age=0")).await;
    for _ in 0..3 {
        assert!(fetch(&node, &[]).await.body == PATTERN.bytes());
        node.wait_for_fills(1).await;
    }
    assert_eq!((origin.requests(), origin.body_bytes()), (3, PATTERN.len));
    let tag = origin.received()[1].field("If-None-Match").map(str::to_owned);
    assert_eq!(tag.as_deref(), Some("\"6f-c350\""));
}

#[tokio::test]
async fn a_new_version_replaces_the_old_one() {
    let (node, origin) = node_with(Reply::file(PATTERN).with("Cache-Control", "max-age=0")).await;
    fetch(&node, &[]).await;
    node.wait_for_fills(1).await;
    let new = Pattern::new(112, 60_000);
    origin.serve("/f.bin", Reply::file(new).with("Cache-Control", "max-age=0"));
    assert!(fetch(&node, &[]).await.body == new.bytes());
}

#[tokio::test]
async fn max_age_zero_of_a_client_revalidates_where_it_is_allowed() {
    let reply = Reply::file(PATTERN).with("Last-Modified", "Mon, 23 Nov 2026 10:00:00 GMT");
    let origin = FakeOrigin::with("/f.bin", reply).await;
    let setup = Setup::new().origin(HOST, origin.address, json!({})).set("clients_may_refetch", json!(true));
    let node = setup.start();
    fetch(&node, &[]).await;
    node.wait_for_fills(1).await;
    fetch(&node, &["Cache-Control: max-age=0"]).await;
    assert_eq!((origin.requests(), origin.body_bytes()), (2, PATTERN.len));
    let conditions = ["Cache-Control: max-age=0", "If-Modified-Since: Mon, 23 Nov 2026 10:00:00 GMT"];
    let unchanged = node.get(&format!("/-/{HOST}/f.bin"), &conditions).await;
    assert_eq!(unchanged.head.status, 304, "{}", unchanged.head.raw);
    assert_eq!(origin.body_bytes(), PATTERN.len);
}

#[tokio::test]
async fn what_must_not_be_stored_is_asked_for_each_time() {
    for control in ["no-store", "private", "private, max-age=60", "no-store, max-age=60"] {
        let (node, origin) = node_with(Reply::file(PATTERN).with("Cache-Control", control)).await;
        for _ in 0..2 {
            assert!(fetch(&node, &[]).await.body == PATTERN.bytes());
        }
        assert_eq!((origin.requests(), origin.body_bytes()), (2, 2 * PATTERN.len), "{control}");
        let drive = node.setup().path("drive1");
        let kept = |name: &str| super::rig::running_node::files_below(&drive.join(name)).len();
        assert_eq!((kept("blobs"), kept("partial")), (0, 0), "{control}");
    }
}

#[tokio::test]
async fn variants_are_kept_apart() {
    let (node, origin) = node_with(Reply::status(404, "")).await;
    let language = |request: &Received| request.field("Accept-Language").unwrap_or("none").len() as u64;
    origin.script("/f.bin", move |request| {
        Reply::file(Pattern::new(200 + language(request), 5000)).with("Vary", "Accept-Language")
    });
    for _cold_then_warm in 0..2 {
        for wanted in ["de", "en-GB"] {
            let answer = fetch(&node, &[&format!("Accept-Language: {wanted}")]).await;
            assert!(answer.body == Pattern::new(200 + wanted.len() as u64, 5000).bytes(), "{wanted}");
        }
    }
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn an_answer_to_authorization_is_shared_only_with_leave() {
    let (node, origin) = node_with(Reply::file(PATTERN)).await;
    let user = "Authorization: Basic eDp5";
    fetch(&node, &[user]).await;
    fetch(&node, &[]).await;
    assert_eq!(origin.requests(), 2, "an answer to one user was given to another");
    assert_eq!(origin.received()[0].field("Authorization"), Some("Basic eDp5"));
    assert_eq!(origin.received()[1].field("Authorization"), None);

    let (node, origin) = node_with(Reply::file(PATTERN).with("Cache-Control", "public, max-age=60")).await;
    fetch(&node, &[user]).await;
    fetch(&node, &[]).await;
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn immutable_content_is_never_asked_for_again() {
    let origin = FakeOrigin::with("/f.bin", Reply::file(PATTERN).with("Cache-Control", "max-age=0")).await;
    let rule = json!({ "freshness": { "immutable": ["*.bin"] } });
    let node = Setup::new().origin(HOST, origin.address, rule).start();
    for _ in 0..3 {
        fetch(&node, &[]).await;
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn the_age_of_the_origin_counts() {
    let (node, origin) = node_with(Reply::file(PATTERN).with("Age", "3590")).await;
    let head = fetch(&node, &[]).await.head;
    let age = head.field("Age").and_then(|age| age.parse::<u64>().ok());
    assert!(age.is_some_and(|age| (3590..3600).contains(&age)), "{}", head.raw);
    origin.serve("/f.bin", Reply::file(PATTERN).with("Age", "4000"));
    let node = Setup::new().origin(HOST, origin.address, json!({})).start();
    fetch(&node, &[]).await;
    node.wait_for_fills(1).await;
    fetch(&node, &[]).await;
    assert_eq!(origin.requests(), 3, "an answer that was old when it came is not fresh");
}
