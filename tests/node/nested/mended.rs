//! Stored bytes that do not hold any more, where the URL that they came by cannot be had again: a trusted parent has them by
//! the digest of the whole.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

use super::super::rig::client::End;
use super::super::rig::running_node::files_below;
use super::super::rig::tls::{Authority, CACHE, Terminator};
use super::trusted::{OTHER, child, parent, secured, url_of};
use super::*;

const LEN: u64 = 5 * MIB + 17;
/// What a cache says when the refusal is the origin's.
const TOLD: (&str, &str) = ("Cache-Status", "l5; fwd=uri-miss; fwd-status=403");

fn flip(setup: &Setup, at: u64) {
    let blobs = files_below(&setup.path("drive1/blobs"));
    let [blob] = blobs.as_slice() else { panic!("{blobs:?}") };
    let (file, mut byte) = (OpenOptions::new().read(true).write(true).open(blob).unwrap(), [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

/// `setup` with what `asked` brings stored, and a byte of its second and its last but one block flipped.
async fn broken(setup: Setup, asked: &str, fields: &[&str], pattern: Pattern) -> Setup {
    let node = setup.start();
    must_be(&node.get(asked, fields).await, pattern);
    node.wait_for_fills(1).await;
    node.wait_for_commits().await;
    let setup = node.stop().await;
    flip(&setup, MIB + 5);
    flip(&setup, 4 * MIB - 1);
    setup
}

fn has_quarantined(setup: &Setup) -> bool {
    !files_below(&setup.path("drive1/quarantine")).is_empty()
}

fn name(pattern: Pattern) -> String {
    let digest = waystation::content::Digest::from_bytes(pattern.sha256());
    format!("/.well-known/ni/sha-256/{}", digest.to_base64url())
}

/// Requests by digest that a parent got.
fn by_digest(parent: &FakeOrigin) -> usize {
    parent.received().iter().filter(|request| request.path().starts_with("/.well-known/ni/")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_blocks_come_by_digest_when_their_url_cannot_be_had_any_more() {
    let (site, pattern) = (Authority::new("site"), Pattern::new(840, LEN));
    let origin = FakeOrigin::with(OTHER, Reply::file(pattern)).await;
    origin.serve(PATH, Reply::status(503, ""));
    let l5 = secured(&origin, &site, Mode::Ranged, &[]).set("listen.digest_clients", json!(["127.0.0.0/8"])).start();
    must_be(&l5.get(&url_of(OTHER), &[]).await, pattern);
    l5.wait_for_fills(1).await;
    l5.wait_for_commits().await;
    let tagged = || Reply::file(pattern);
    let bare = || Reply::bare(pattern).with("Cache-Control", "max-age=3600");
    for (whole, gone) in [
        (tagged(), Some(Reply::status(404, ""))),
        (tagged(), Some(Reply::status(410, ""))),
        (tagged(), Some(Reply::status(403, "").with(TOLD.0, TOLD.1))),
        (tagged(), Some(Reply::status(403, ""))),
        (tagged(), Some(Reply::status(503, ""))),
        (tagged(), None),
        (bare(), Some(Reply::status(404, ""))),
    ] {
        let first = FakeOrigin::with(PATH, whole).await;
        let setup = child(&[url(first.address), parent(l5.tls.unwrap(), true)], &site, json!({}));
        let setup = broken(setup, &asked(), &[], pattern).await;
        let told = format!("{:?}", gone.as_ref().map(|gone| gone.status));
        match gone {
            Some(reply) => first.serve(PATH, reply),
            None => first.switch_off(),
        }
        let paid = first.body_bytes();
        let node = setup.start();
        let answer = node.get(&asked(), &[]).await;
        assert_eq!((answer.head.status, answer.end), (200, End::Complete), "{told}: {}", answer.head.raw);
        assert!(answer.body == pattern.bytes(), "{told}");
        assert_eq!(node.metric("waystation_upstream_bytes_total", "").await as u64, 2 * MIB, "{told}: two blocks");
        assert_eq!(node.metric("waystation_mended_blocks_total", "").await, 2.0, "{told}");
        assert_eq!(first.body_bytes(), paid);
        first.switch_off();
        must_be(&node.get(&asked(), &[]).await, pattern);
        assert!(!has_quarantined(&node.stop().await), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_has_other_bytes_by_the_digest_is_left_for_the_next_one() {
    let (site, pattern) = (Authority::new("site"), Pattern::new(841, LEN));
    let first = FakeOrigin::with(PATH, Reply::file(pattern)).await;
    let (liar, honest) = (FakeOrigin::start().await, FakeOrigin::start().await);
    let pair = site.pair(CACHE, 2000..2200);
    let (one, two) = (Terminator::before(liar.address, &pair).await, Terminator::before(honest.address, &pair).await);
    for lie in [
        Reply::file(pattern).damaged(MIB + 7),
        Reply::file(Pattern::new(842, LEN)),
        Reply::file(Pattern::new(843, LEN + 1)),
        Reply::file(pattern).shifted(1),
        Reply::file(pattern).cut_after(1000),
        Reply::file(pattern).without_ranges().damaged(MIB),
        Reply::status(404, ""),
    ] {
        let parents = [url(first.address), parent(one.address, true), parent(two.address, true)];
        first.serve(PATH, Reply::file(pattern));
        let setup = broken(child(&parents, &site, json!({})), &asked(), &[], pattern).await;
        first.serve(PATH, Reply::status(404, ""));
        honest.serve(&name(pattern), Reply::file(pattern));
        liar.serve(&name(pattern), lie);
        let before = (by_digest(&liar), by_digest(&honest));
        let node = setup.start();
        let part = node.get(&asked(), &["Range: bytes=1048576-1048676"]).await;
        assert_eq!(part.head.status, 206, "{}", part.head.raw);
        assert!(part.body == pattern.slice(MIB, MIB + 101));
        // The other block that does not hold is needed to prove this one.
        assert_eq!((by_digest(&liar) - before.0, by_digest(&honest) - before.1), (1, 2), "one request for each block");
        must_be(&node.get(&asked(), &[]).await, pattern);
        assert!(!has_quarantined(&node.stop().await));
    }
    // Those of the URL may say nothing at all.
    first.serve(PATH, Reply::file(pattern));
    let setup = child(&[url(first.address), parent(two.address, true)], &site, json!({}));
    let setup = setup.set("upstream.timeouts.request", json!("6s"));
    let setup = broken(setup, &asked(), &[], pattern).await;
    let silence = Gate::shut();
    [&first, &honest].iter().for_each(|source| source.serve(PATH, Reply::file(pattern).hold_head(&silence)));
    let part = setup.start().get(&asked(), &["Range: bytes=1048576-1048676"]).await;
    assert!(part.head.status == 206 && part.body == pattern.slice(MIB, MIB + 101), "{}", part.head.raw);
    // Without ranges the begin is read for nothing.
    first.serve(PATH, Reply::file(pattern));
    let setup = child(&[url(first.address), parent(two.address, true)], &site, json!({}));
    let setup = broken(setup, &asked(), &[], pattern).await;
    first.switch_off();
    honest.serve(&name(pattern), Reply::file(pattern).without_ranges());
    must_be(&setup.start().get(&asked(), &[]).await, pattern);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parents_that_have_it_not_either_are_asked_once_for_a_while_and_the_other_blocks_are_served() {
    let (site, pattern) = (Authority::new("site"), Pattern::new(844, LEN));
    let (first, other) = (FakeOrigin::with(PATH, Reply::file(pattern)).await, FakeOrigin::start().await);
    let terminator = Terminator::before(other.address, &site.pair(CACHE, 2000..2200)).await;
    for lie in [Reply::status(404, ""), Reply::file(pattern).damaged(MIB + 7)] {
        first.serve(PATH, Reply::file(pattern));
        other.serve(&name(pattern), lie);
        let setup = child(&[url(first.address), parent(terminator.address, true)], &site, json!({}));
        let setup = broken(setup, &asked(), &[], pattern).await;
        first.serve(PATH, Reply::status(404, ""));
        let (node, before) = (setup.start(), by_digest(&other));
        for _ in 0..4 {
            let bad = node.get(&asked(), &["Range: bytes=1048576-1048676"]).await;
            assert_eq!((bad.head.status, bad.body.len()), (503, 0), "{}", bad.head.raw);
            let good = node.get(&asked(), &["Range: bytes=0-99"]).await;
            assert!(good.head.status == 206 && good.body == pattern.slice(0, 100), "{}", good.head.raw);
        }
        assert_eq!(by_digest(&other) - before, 1);
        first.serve(PATH, Reply::file(pattern));
        must_be(&node.get(&asked(), &[]).await, pattern);
        assert!(!has_quarantined(&node.stop().await));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_trusted_and_what_is_protected_is_not_asked_by_digest() {
    let (site, pattern) = (Authority::new("site"), Pattern::new(845, LEN));
    let (first, other) = (FakeOrigin::start().await, FakeOrigin::start().await);
    let terminator = Terminator::before(other.address, &site.pair(CACHE, 2000..2200)).await;
    let token = format!("{PATH}?sv=1&se=2099-01-01T00%3A00%3A00Z&sr=b&sp=r&sig=good&cacheHostOrigin={HOST}");
    let protected = || json!({ "auth_parameters": "azure-sas" });
    for (trusted, rule, target, field, given) in [
        (true, json!({}), asked(), None, true),
        (false, json!({}), asked(), None, false),
        (true, json!({}), asked(), Some("Authorization: Basic YTpi"), false),
        (true, json!({ "parents": false }), asked(), None, false),
        (true, protected(), token, None, false),
        (true, protected(), asked(), None, false),
    ] {
        first.serve(PATH, Reply::file(pattern));
        other.serve(&name(pattern), Reply::file(pattern));
        let mut rule = rule;
        let direct = rule["parents"] == json!(false);
        if direct {
            rule["address"] = json!(first.address.to_string());
            rule["allow_private"] = json!(true);
        }
        let setup = child(&[url(first.address), parent(terminator.address, trusted)], &site, rule);
        let setup = broken(setup, &target, &[], pattern).await;
        first.serve(PATH, Reply::status(404, ""));
        let (node, before) = (setup.start(), by_digest(&other));
        let fields: Vec<&str> = field.into_iter().chain(["Range: bytes=1048576-1048676"]).collect();
        let answer = node.get(&target, &fields).await;
        assert_eq!(answer.head.status == 206, given, "{trusted} {target} {field:?}: {}", answer.head.raw);
        // One for each block that does not hold: only together they are proved.
        assert_eq!(by_digest(&other) - before, if given { 2 } else { 0 }, "{trusted} {target} {field:?}");
    }
}
