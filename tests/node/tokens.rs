//! Shared access signatures: on the wire, out of the key, out of the logs, and proved before content is shared.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::rig::client::{Answer, Connection, End, get};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Gate, Received, Reply};
use super::rig::pattern::Pattern;
use super::rig::rules::Mode;
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "account.blob.core.windows.net";
const PATTERN: Pattern = Pattern { seed: 121, len: 90_000 };

/// An origin that accepts the signatures `good-1` and `good-2`.
async fn node() -> (RunningNode, FakeOrigin) {
    let origin = FakeOrigin::start().await;
    origin.script("/c/f.bin", |request: &Received| {
        let good = ["sig=good-1", "sig=good-2"].iter().any(|good| request.target.contains(good));
        if good { Reply::file(PATTERN) } else { Reply::status(403, "signature did not match") }
    });
    let setup = Setup::new().origin(HOST, origin.address, json!({ "auth_parameters": "azure-sas" }));
    (setup.set("log.level", json!("debug")).start(), origin)
}

async fn fetch(node: &RunningNode, signature: &str) -> Answer {
    let sas = format!("sv=2024-11-04&se=2099-01-01T00%3A00%3A00Z&sr=b&sp=r&sig={signature}");
    node.get(&format!("/c/f.bin?{sas}&cacheHostOrigin={HOST}"), &[]).await
}

#[tokio::test]
async fn another_token_gets_the_stored_bytes_after_the_origin_has_accepted_it() {
    let (node, origin) = node().await;
    assert!(fetch(&node, "good-1").await.body == PATTERN.bytes());
    assert!(origin.received()[0].target.contains("sig=good-1"), "{:?}", origin.received());
    for _ in 0..2 {
        let second = fetch(&node, "good-2").await;
        assert_eq!((second.head.status, second.body == PATTERN.bytes()), (200, true), "{}", second.head.raw);
    }
    assert!(origin.body_bytes() <= PATTERN.len + 1, "{} bytes: the proof is a HEAD or one byte", origin.body_bytes());
    assert_eq!(origin.requests(), 2, "the proof is remembered: {:?}", origin.received());
    let refused = fetch(&node, "bad").await;
    assert!(refused.head.status >= 400 && refused.body != PATTERN.bytes(), "{}", refused.head.raw);
}

#[tokio::test]
async fn without_a_proof_nothing_is_given_and_it_is_no_403() {
    let (node, origin) = node().await;
    assert_eq!(fetch(&node, "good-1").await.head.status, 200);
    origin.switch_off();
    assert_eq!(fetch(&node, "good-1").await.head.status, 200, "this token was accepted already");
    let other = fetch(&node, "good-2").await;
    assert_eq!((other.head.status, other.head.exact("Content-Length")), (503, Some("0")), "{}", other.head.raw);
    let none = node.get(&format!("/c/f.bin?cacheHostOrigin={HOST}"), &[]).await;
    assert_ne!(none.head.status, 200, "{}", none.head.raw);
}

/// A token that ends in mid-fill ends nothing for those whose own token is good.
#[tokio::test]
async fn a_follower_with_a_good_token_is_not_cut_when_the_leaders_ends() {
    let content = Pattern::new(820, 6 << 20);
    let (origin, gate, ended) = (FakeOrigin::start().await, Gate::shut(), Arc::new(AtomicBool::new(false)));
    let (held, flag) = (gate.clone(), Arc::clone(&ended));
    origin.script("/c/f.bin", move |request: &Received| {
        if request.target.contains("sig=first") && flag.load(Ordering::SeqCst) {
            return Reply::status(403, "the token has ended\n");
        }
        Reply::file(content).hold_at(content.len / 12, &held)
    });
    let mut rule = Mode::Ranged.rule();
    rule["auth_parameters"] = json!("azure-sas");
    let node = Setup::new().origin(HOST, origin.address, rule).start();
    let ask = async |signature: &str| {
        let mut client = Connection::open(node.data).await;
        let target = format!("/c/f.bin?sv=1&se=2099-01-01&sig={signature}&cacheHostOrigin={HOST}");
        client.send(&get(&target, &[])).await;
        let head = client.head().await;
        assert_eq!(head.status, 200, "{}", head.raw);
        (client, head)
    };
    let _first = ask("first").await;
    let (mut second, head) = ask("second").await;
    ended.store(true, Ordering::SeqCst);
    gate.open();
    let checked = second.checked(&head, content, 0).await;
    assert_eq!((checked.len, checked.first_difference, checked.end), (content.len, None, End::Complete));
    let refused = origin.received().iter().filter(|request| request.target.contains("sig=first")).count();
    assert!(refused >= 2, "the first token had ended when it was shown again");
    assert!(origin.body_bytes() <= content.len * 105 / 100, "{} bytes", origin.body_bytes());
}

#[tokio::test]
async fn no_log_line_and_no_file_has_a_signature() {
    let (node, origin) = node().await;
    origin.serve("/c/broken", Reply::status(500, "bad"));
    origin.serve("/c/moved", Reply::status(302, "").with("Location", "http://evil.example/x?sig=s3cret-location"));
    for path in ["f.bin", "broken", "moved", "absent"] {
        let target = format!("/c/{path}?se=2099-01-01&sig=s3cret-query&cacheHostOrigin={HOST}");
        node.get(&target, &["Authorization: Bearer s3cret-header", "Referer: http://x/?sig=s3cret-referer"]).await;
        node.get(&format!("http://{HOST}/c/{path}?sig=s3cret-absolute"), &[]).await;
    }
    assert_eq!(fetch(&node, "good-1").await.head.status, 200);
    assert!(node.says("/c/f.bin"), "there are access lines");
    let setup = node.setup().clone();
    node.signal(rustix::process::Signal::TERM);
    let mut node = node;
    node.exit().await;
    let said = node.said();
    for secret in ["s3cret", "good-1"] {
        assert!(!said.contains(secret), "{:?}", said.lines().find(|line| line.contains(secret)));
        for directory in ["drive1", "state"] {
            for file in super::rig::running_node::files_below(&setup.path(directory)) {
                let bytes = std::fs::read(&file).unwrap();
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "{secret} is in {}", file.display());
            }
        }
    }
}
