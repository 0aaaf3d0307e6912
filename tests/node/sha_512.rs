//! Sources that say a SHA-512 of their content and nothing else: it is worth what a SHA-256 is.

use serde_json::json;

use super::rig::client::{Connection, End, Framing, get};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Delimiter, Gate, Received, Reply, digest_field, wide_field};
use super::rig::pattern::Pattern;
use super::rig::rules::Mode;
use super::rig::running_node::{Setup, files_below};

const HOST: &str = "dl.example.com";
const TARGET: &str = "/-/dl.example.com/f.bin";
const PATH: &str = "/f.bin";
const MIB: u64 = 1 << 20;

#[tokio::test]
async fn content_that_has_not_the_sha_512_that_is_said_of_it_reaches_nobody_and_is_not_stored() {
    let content = Pattern::new(841, 300_000);
    let said = wide_field(&content.bytes());
    for (mode, field) in [(Mode::Ranged, "Repr-Digest"), (Mode::Whole, "Repr-Digest"), (Mode::Whole, "Content-Digest")]
    {
        for delimiter in [Delimiter::Length, Delimiter::Chunked] {
            let right = Reply::file(content).with(field, &said).delimited(delimiter);
            let origin = FakeOrigin::with(PATH, right.clone().damaged(5)).await;
            let node = Setup::new().origin(HOST, origin.address, mode.rule()).start();
            for range in [&[][..], &["Range: bytes=0-99"], &["Range: bytes=299990-"]] {
                let answer = node.get(TARGET, range).await;
                let wrong = (answer.head.status, content.first_difference(0, &answer.body));
                assert!(wrong == (503, None) || answer.head.status == 206, "{}", answer.head.raw);
                assert!(answer.body.len() < 100, "{}", answer.head.raw);
            }
            node.wait_until_idle().await;
            assert!(files_below(&node.setup().path("drive1/blobs")).is_empty(), "{mode:?} {field} {delimiter:?}");
            origin.serve(PATH, right);
            let node = Setup::new().origin(HOST, origin.address, mode.rule()).start();
            for _cold_then_warm in 0..2 {
                let answer = node.get(TARGET, &[]).await;
                assert_eq!((answer.head.status, answer.end), (200, End::Complete), "{}", answer.head.raw);
                assert!(answer.body == content.bytes());
                node.wait_for_fills(1).await;
            }
        }
    }
}

/// Also those who only know the SHA-512 can check what they are given.
#[tokio::test]
async fn a_sha_512_that_was_verified_is_said_beside_the_own_digest() {
    let content = Pattern::new(842, 300_000);
    let said = wide_field(&content.bytes());
    let origin = FakeOrigin::with(PATH, Reply::file(content).with("Repr-Digest", &said)).await;
    let mut setup = Setup::new().origin(HOST, origin.address, json!({}));
    for _before_and_after_a_restart in 0..2 {
        let node = setup.start();
        let cold = node.get(TARGET, &[]).await;
        assert!(cold.body == content.bytes() && cold.head.field("Repr-Digest").unwrap().contains(&said));
        node.wait_until_idle().await;
        for fields in [&[][..], &["Range: bytes=5-9"], &["Want-Repr-Digest: sha-512=10, sha-256=1"]] {
            let answer = node.get(TARGET, fields).await.head;
            let both = format!("{}, {said}", digest_field(content.sha256()));
            assert_eq!(answer.field("Repr-Digest"), Some(&*both), "{}", answer.raw);
        }
        let refused = node.get(TARGET, &["Want-Repr-Digest: sha-512=10, sha-256=0"]).await.head;
        assert_eq!(refused.field("Repr-Digest"), Some(&*said), "{}", refused.raw);
        let wanted = node.get(TARGET, &["Want-Content-Digest: sha-512=10, sha-256=1"]).await.head;
        assert_eq!(wanted.field("Content-Digest"), Some(&*said), "{}", wanted.raw);
        node.wait_for_commits().await;
        setup = node.stop().await;
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn the_end_of_a_long_body_waits_for_its_sha_512() {
    let content = Pattern::new(843, 300_000);
    let said = wide_field(&content.bytes());
    for damaged in [true, false] {
        let gate = Gate::shut();
        let right = Reply::file(content).with("Repr-Digest", &said).hold_at(200_000, &gate);
        let origin = FakeOrigin::with(PATH, if damaged { right.damaged(5) } else { right }).await;
        let setup = Setup::new().origin(HOST, origin.address, Mode::Whole.rule());
        // Nobody waits longer than this for the digest.
        let node = setup.set("upstream.timeouts.request", json!("500ms")).start();
        let mut client = Connection::open(node.data).await;
        client.send(&get(TARGET, &[])).await;
        let head = client.head().await;
        assert_eq!(head.status, 200, "{}", head.raw);
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

/// A body that is begun before a restart, and of which what came before is wrong.
#[tokio::test]
async fn a_sha_512_holds_over_a_restart_of_the_node() {
    let content = Pattern::new(844, 8 * MIB);
    let said = wide_field(&content.bytes());
    let gate = Gate::shut();
    let right = Reply::file(content).with("Repr-Digest", &said);
    let origin = FakeOrigin::with(PATH, right.clone().damaged(5).hold_at(MIB, &gate)).await;
    let setup = Setup::new().origin(HOST, origin.address, Mode::Whole.rule());
    let node = setup.set("upstream.timeouts.request", json!("500ms")).start();
    let mut client = Connection::open_as(1, node.data).await;
    client.send(&get(TARGET, &[])).await;
    let head = client.head().await;
    assert_eq!(head.status, 200, "{}", head.raw);
    client.piece(&mut head.framing(false), 1).await.unwrap().unwrap();
    origin.wait_for_bytes(MIB).await;
    drop(client);
    node.wait_until_idle().await;
    origin.serve(PATH, right);
    let node = node.stop().await.start();
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

#[tokio::test]
async fn what_is_passed_on_has_its_sha_512_or_is_not_given_out_whole() {
    for len in [5, 100_000, 3 * MIB] {
        let content = Pattern::new(845, len);
        let said = wide_field(&content.bytes());
        for field in ["Repr-Digest", "Content-Digest"] {
            let right = Reply::file(content).with("Cache-Control", "no-store").with(field, &said);
            let origin = FakeOrigin::with(PATH, right.clone()).await;
            let node = Setup::new().origin(HOST, origin.address, json!({})).start();
            let answer = node.get(TARGET, &[]).await;
            assert!(answer.end == End::Complete && answer.body == content.bytes(), "{}", answer.head.raw);
            origin.serve(PATH, right.damaged(4));
            let answer = node.get(TARGET, &[]).await;
            assert!(answer.head.status == 503 || answer.end == End::Cut, "{}", answer.head.raw);
            assert!(answer.body.len() as u64 <= len.saturating_sub(16 * 1024), "the end left: {}", answer.head.raw);
        }
    }
}

#[tokio::test]
async fn a_part_that_has_not_its_sha_512_is_asked_for_again() {
    let content = Pattern::new(846, 2 * MIB);
    let origin = FakeOrigin::start().await;
    let is_first = std::sync::atomic::AtomicBool::new(true);
    origin.script(PATH, move |request: &Received| {
        let reply = Reply::file(content);
        let Some(range) = request.field("Range").and_then(|range| range.strip_prefix("bytes=")) else { return reply };
        let (first, last) = range.split_once('-').unwrap();
        let first: u64 = first.parse().unwrap();
        let end = last.parse().map_or(content.len, |last: u64| content.len.min(last + 1));
        let reply = reply.with("Content-Digest", &wide_field(&content.slice(first, end)));
        let is_wrong = is_first.swap(false, std::sync::atomic::Ordering::SeqCst);
        if is_wrong { reply.damaged(first + 5) } else { reply }
    });
    let node = Setup::new().origin(HOST, origin.address, Mode::Ranged.rule()).start();
    let answer = node.get(TARGET, &[]).await;
    assert_eq!((answer.head.status, answer.end), (200, End::Complete), "{}", answer.head.raw);
    assert_eq!((answer.body.len() as u64, content.first_difference(0, &answer.body)), (content.len, None));
    assert!(origin.body_bytes() > content.len, "the wrong part was paid for, too");
}

/// The SHA-256 is made anyway; with one said, the other is not looked at.
#[tokio::test]
async fn of_both_the_sha_256_decides() {
    let (content, other) = (Pattern::new(847, 50_000), Pattern::new(848, 50_000));
    let (right, wrong) = (digest_field(content.sha256()), digest_field(other.sha256()));
    let (wide, other_wide) = (wide_field(&content.bytes()), wide_field(&other.bytes()));
    for (field, status) in [(format!("{other_wide}, {right}"), 200), (format!("{wrong}, {wide}"), 503)] {
        let origin = FakeOrigin::with(PATH, Reply::file(content).with("Repr-Digest", &field)).await;
        let node = Setup::new().origin(HOST, origin.address, json!({})).start();
        let answer = node.get(TARGET, &[]).await;
        assert_eq!(answer.head.status, status, "{}", answer.head.raw);
        node.wait_until_idle().await;
        if status == 200 {
            let own = node.get(TARGET, &[]).await.head;
            assert_eq!(own.field("Repr-Digest"), Some(&*right), "what nobody has checked is not said: {}", own.raw);
        }
    }
}
