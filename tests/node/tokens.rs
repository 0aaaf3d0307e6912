//! Shared access signatures: on the wire, out of the key, out of the logs, and proved before content is shared.

use serde_json::json;

use super::rig::client::Answer;
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Received, Reply};
use super::rig::pattern::Pattern;
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
