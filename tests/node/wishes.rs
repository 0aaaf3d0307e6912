//! Digests that clients ask for, and those that they send (RFC 9530).

use serde_json::json;

use super::rig::client::{Answer, End, get, request};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Received, Reply, digest_of, wide_field};
use super::rig::pattern::Pattern;
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "dl.example.com";
const TARGET: &str = "/-/dl.example.com/f.bin";
const PATH: &str = "/f.bin";
const MIB: u64 = 1 << 20;
const CONTENT: Pattern = Pattern { seed: 851, len: 3 * MIB };

/// A node that has the content.
async fn stored() -> (RunningNode, FakeOrigin) {
    let origin = FakeOrigin::with(PATH, Reply::file(CONTENT)).await;
    let node = Setup::new().origin(HOST, origin.address, json!({})).start();
    assert!(node.get(TARGET, &[]).await.body == CONTENT.bytes());
    node.wait_for_fills(1).await;
    (node, origin)
}

fn said<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.head.field(name)
}

#[tokio::test]
async fn the_digest_of_a_stored_part_is_told_up_to_a_mebibyte() {
    let (node, origin) = stored().await;
    let want = "Want-Content-Digest: sha-256=5";
    for (range, status, is_told) in [
        ("bytes=5-9", 206, true),
        ("bytes=100000-1148575", 206, true),
        ("bytes=100000-1148576", 206, false),
        ("bytes=-1048576", 206, true),
        ("bytes=0-", 206, false),
        ("bytes=0-99999, 2000000-2900000", 206, true),
        ("bytes=0-99999, 2000000-3100000", 206, false),
    ] {
        let answer = node.get(TARGET, &[&format!("Range: {range}"), want]).await;
        assert_eq!((answer.head.status, answer.end), (status, End::Complete), "{}", answer.head.raw);
        let right = digest_of(&answer.body);
        assert_eq!(said(&answer, "Content-Digest"), is_told.then_some(&*right), "{range}: {}", answer.head.raw);
        assert_eq!(said(&answer, "Repr-Digest"), Some(&*digest_of(&CONTENT.bytes())), "{}", answer.head.raw);
        let unasked = node.get(TARGET, &[&format!("Range: {range}")]).await;
        assert_eq!(said(&unasked, "Content-Digest"), None, "{}", unasked.head.raw);
        assert!(unasked.head.field("Content-Type").unwrap().contains("multipart") || unasked.body == answer.body);
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_digest_is_told_in_the_algorithm_that_is_liked_best_if_it_can_be_had() {
    let (node, _origin) = stored().await;
    let (part, whole) = ("Range: bytes=5-99", "Accept: */*");
    let [narrow, wide] = [digest_of(&CONTENT.slice(5, 100)), wide_field(&CONTENT.slice(5, 100))];
    let of_whole = digest_of(&CONTENT.bytes());
    for (wish, range, expected) in [
        ("sha-512=10, sha-256=1", part, Some(&wide)),
        ("sha-512=10, sha-256=1", whole, Some(&of_whole)),
        ("sha-512=1, sha-256=10", part, Some(&narrow)),
        ("sha-512=3, sha-256=3", part, Some(&narrow)),
        ("sha-512=3", part, Some(&wide)),
        ("sha-512=3", whole, None),
        ("sha-512=3, sha-256=0", whole, None),
        ("sha-256=0", part, None),
        ("sha-256=11", part, None),
        ("sha-256=1,", part, None),
        ("md5=9", part, None),
    ] {
        let answer = node.get(TARGET, &[range, &format!("Want-Content-Digest: {wish}")]).await;
        assert_eq!(said(&answer, "Content-Digest"), expected.map(String::as_str), "{wish} {range}");
    }
}

/// A field is a dictionary as a whole or says nothing, also where it asks whose word a digest is.
#[tokio::test]
async fn a_wish_that_is_no_dictionary_is_none() {
    let (node, _origin) = stored().await;
    for (wish, is_wanted, is_refused) in [
        ("sha-256=10", true, false),
        ("sha-512=10, sha-256=1", true, false),
        ("sha-256=1;x=y", true, false),
        ("sha-512=10", false, false),
        ("sha-256=0", false, true),
        ("sha-256=1, sha-512", true, false),
        ("sha-256=1,", false, false),
        ("sha-256=0,", false, false),
        ("sha-256=1 sha-512=1", false, false),
        ("sha-256=\"1\"", false, false),
        ("sha-256=200", false, false),
    ] {
        let answer = node.get(TARGET, &[&format!("Want-Repr-Digest: {wish}")]).await;
        assert_eq!(said(&answer, "Repr-Digest").is_none(), is_refused, "{wish}: {}", answer.head.raw);
        let status = said(&answer, "Cache-Status").unwrap();
        assert_eq!(status.contains("; digest=own"), is_wanted, "{wish}: {status}");
    }
}

/// They are read from the drive for it, and what does not hold there is mended first.
#[tokio::test]
async fn the_digest_of_a_part_is_that_of_what_the_client_gets() {
    let (node, origin) = stored().await;
    node.wait_for_commits().await;
    let setup = node.stop().await;
    let blobs = super::rig::running_node::files_below(&setup.path("drive1/blobs"));
    let [blob] = blobs.as_slice() else { panic!("{blobs:?}") };
    let mut bytes = std::fs::read(blob).unwrap();
    bytes[MIB as usize + 70_000] ^= 0x10;
    std::fs::write(blob, bytes).unwrap();
    let node = setup.start();
    let fields = ["Range: bytes=1000000-1999999", "Want-Content-Digest: sha-256=1"];
    let answer = node.get(TARGET, &fields).await;
    assert_eq!((answer.head.status, answer.end), (206, End::Complete), "{}", answer.head.raw);
    assert!(answer.body == CONTENT.slice(1_000_000, 2_000_000));
    assert_eq!(said(&answer, "Content-Digest"), Some(&*digest_of(&answer.body)), "{}", answer.head.raw);
    assert_eq!(node.metric("waystation_mended_blocks_total", "").await, 1.0);
    assert_eq!(origin.body_bytes(), CONTENT.len + MIB);
}

/// Many at a time take no more memory than there are places for; who gets none is served all the same.
#[tokio::test]
async fn who_asks_for_a_digest_is_served_though_many_do() {
    let (node, _origin) = stored().await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..80 {
        let text = get(TARGET, &["Range: bytes=0-1048575", "Want-Content-Digest: sha-256=1"]);
        let data = node.data;
        clients.spawn(async move { super::rig::client::once(data, &text).await });
    }
    let right = digest_of(&CONTENT.slice(0, MIB));
    let mut told = 0;
    while let Some(answer) = clients.join_next().await {
        let answer = answer.unwrap();
        assert_eq!((answer.head.status, answer.end), (206, End::Complete), "{}", answer.head.raw);
        assert!(answer.body == CONTENT.slice(0, MIB));
        let digest = said(&answer, "Content-Digest");
        assert!(digest.is_none_or(|digest| digest == right), "{}", answer.head.raw);
        told += usize::from(digest.is_some());
    }
    assert!(told > 0);
}

/// What a client says of the bytes that it sends is for the origin, and what the origin says of its answer for the client.
#[tokio::test]
async fn digests_of_what_is_sent_go_from_end_to_end() {
    let origin = FakeOrigin::start().await;
    origin.script(PATH, |_: &Received| Reply::status(201, "made").with("Content-Digest", &digest_of(b"made")));
    let node = Setup::new().origin(HOST, origin.address, json!({ "methods": ["GET", "POST", "PUT"] })).start();
    let digest = digest_of(b"new");
    let fields = [
        ("Content-Digest", &*digest),
        ("Repr-Digest", "sha-512=:YQ==:, sha-256=:YQ==:"),
        ("Want-Content-Digest", "sha-512=3, sha-256=10"),
        ("Want-Repr-Digest", "sha-256=1"),
        ("Digest", "SHA-256=YQ=="),
        ("Content-MD5", "YQ=="),
    ];
    for method in ["POST", "PUT"] {
        let lines: Vec<_> = fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let lines: Vec<_> = ["Content-Length: 3"].into_iter().chain(lines.iter().map(String::as_str)).collect();
        let answer = node.ask(&format!("{}new", request(method, TARGET, &lines))).await;
        assert_eq!((answer.head.status, &*answer.body), (201, &b"made"[..]), "{}", answer.head.raw);
        assert_eq!(said(&answer, "Content-Digest"), Some(&*digest_of(b"made")), "{}", answer.head.raw);
        let received = origin.received().pop().unwrap();
        assert_eq!((&*received.method, &*received.body), (method, &b"new"[..]));
        for (name, value) in fields {
            assert_eq!(received.field(name), Some(value), "{method} {name}");
        }
    }
}
