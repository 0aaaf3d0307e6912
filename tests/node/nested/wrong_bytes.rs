//! A parent that gives wrong bytes is a worse parent: for one content of it the others are asked first, and for all of them
//! once several were wrong. It is never left out.

use std::os::unix::fs::FileExt as _;

use super::super::rig::running_node::files_below;
use super::*;

/// Paths of different contents.
fn path(number: u64) -> String {
    format!("/westus2/contoso--fleet/{number:032x}/image.swu")
}

fn content(number: u64) -> Pattern {
    Pattern::new(8600 + number, 300_000 + number)
}

/// What says of itself what it is.
fn right(number: u64) -> Reply {
    Reply::file(content(number)).with_digest(content(number))
}

async fn ask(node: &RunningNode, number: u64) -> Answer {
    node.get(&format!("{}?cacheHostOrigin={HOST}", path(number)), &[]).await
}

/// Two parents of which each has the contents `0..count`, the first one damaged where `is_damaged` says so.
async fn parents(
    count: u64,
    is_damaged: impl Fn(u64) -> bool,
    as_said: fn(Reply) -> Reply,
) -> (FakeOrigin, FakeOrigin) {
    let (bad, good) = (FakeOrigin::start().await, FakeOrigin::start().await);
    for number in 0..count {
        let reply = as_said(right(number));
        bad.serve(&path(number), if is_damaged(number) { reply.clone().damaged(1000) } else { reply.clone() });
        good.serve(&path(number), reply);
    }
    (bad, good)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_brings_all_of_what_another_one_said_wrongly_is_not_to_blame() {
    let content = Pattern::new(8650, 3 * MIB);
    let (liar, honest) = (FakeOrigin::start().await, FakeOrigin::start().await);
    liar.serve(&path(0), Reply::file(content).with_digest(Pattern::new(8651, 3 * MIB)));
    honest.serve(&path(0), Reply::status(503, ""));
    let parents = [url(liar.address), url(honest.address)];
    let node = below(&parents, json!({ "fill": "ranged", "abandon": "stop" })).start();
    let target = format!("{}?cacheHostOrigin={HOST}", path(0));
    assert_eq!(node.get(&target, &["Range: bytes=0-99"]).await.head.status, 206);
    node.wait_until_idle().await;
    let setup = node.stop().await;
    // Nothing that holds is left of what came with the lie.
    let files = files_below(&setup.path("drive1/partial"));
    let data = files.iter().find(|file| file.extension().is_some_and(|it| it == "data")).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(data).unwrap();
    file.write_all_at(&[!content.bytes()[5]], 5).unwrap();
    liar.serve(&path(0), Reply::status(503, ""));
    honest.serve(&path(0), Reply::file(content));
    let node = setup.start();
    let _ = node.get(&target, &[]).await;
    must_be(&node.get(&target, &[]).await, content);
    assert_eq!(node.metric("waystation_fills_total", "outcome=\"mismatch\"").await, 1.0, "it was measured by the lie");
    assert_eq!(node.metric("waystation_upstream_faults_total", "reason=\"wrong-digest\"").await, 0.0);
}

fn was_asked(parent: &FakeOrigin, number: u64) -> bool {
    parent.received().iter().any(|request| request.path() == path(number))
}

fn reasons(state: &Value) -> String {
    state["reasons"].to_string()
}

async fn is_lowered(node: &RunningNode, parent: &FakeOrigin) -> bool {
    let label = format!("parent=\"http://{}\"", parent.address);
    assert_eq!(node.metric("waystation_parent_up", &label).await, 1.0, "it is asked all the same");
    let state = state(node).await;
    let is_told =
        reasons(&state).contains(&format!("wrong bytes for several contents from parent http://{}", parent.address));
    assert_eq!(state["state"] == "degraded", is_told, "{state}");
    let is_shown = node.metric("waystation_parent_lowered", &label).await == 1.0;
    assert_eq!(is_shown, is_told, "{state}");
    is_told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_gave_wrong_bytes_for_several_contents_is_asked_after_the_others() {
    for mode in Mode::BOTH {
        let (bad, good) = parents(6, |number| number < 3, |reply| reply).await;
        let node = below(&[url(bad.address), url(good.address)], mode.rule()).start();
        for number in 0..3 {
            assert!(!is_lowered(&node, &bad).await, "{mode:?}: {number} say nothing yet");
            must_be(&ask(&node, number).await, content(number));
            assert!(was_asked(&bad, number), "{mode:?}: {number}");
        }
        assert!(is_lowered(&node, &bad).await, "{mode:?}");
        assert!(node.says("the source gave wrong bytes for several contents: it is asked after the others"));
        assert_eq!(node.metric("waystation_upstream_faults_total", "reason=\"wrong-digest\"").await, 3.0);
        must_be(&ask(&node, 3).await, content(3));
        assert!(
            !was_asked(&bad, 3) && was_asked(&good, 3),
            "{mode:?}: what it might have right comes from the other one"
        );
        // It is there for what the other one has not.
        good.serve(&path(4), Reply::status(503, ""));
        must_be(&ask(&node, 4).await, content(4));
        good.switch_off();
        must_be(&ask(&node, 5).await, content(5));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_poisoned_content_takes_no_parent_out_of_its_turn() {
    let (bad, good) = parents(3, |number| number == 0, |reply| reply.with("Cache-Control", "max-age=0")).await;
    let node = below(&[url(bad.address), url(good.address)], json!({})).start();
    for _ in 0..4 {
        must_be(&ask(&node, 0).await, content(0));
    }
    for number in 1..3 {
        must_be(&ask(&node, number).await, content(number));
        assert!(was_asked(&bad, number) && !was_asked(&good, number), "{number}");
    }
    assert!(!is_lowered(&node, &bad).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_parent_is_asked_whatever_it_gave() {
    let (bad, _) = parents(5, |number| number < 4, |reply| reply).await;
    let node = below(&[url(bad.address)], json!({})).start();
    for number in 0..4 {
        assert_eq!(ask(&node, number).await.head.status, 503, "{number}");
    }
    assert!(is_lowered(&node, &bad).await);
    must_be(&ask(&node, 4).await, content(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_digest_rule_that_is_wrong_is_no_parent_s_fault() {
    let (one, other) = parents(6, |_| false, |reply| reply).await;
    let wrong = waystation::content::Digest::from_bytes(content(99).sha256()).to_base64();
    let more = waystation::content::Digest::from_bytes(content(98).sha256()).to_base64();
    let last = waystation::content::Digest::from_bytes(content(97).sha256()).to_base64();
    let rule = json!({ "digests": { path(0): wrong, path(1): more, path(2): last, path(3): wrong } });
    let node = below(&[url(one.address), url(other.address)], rule).start();
    for number in 0..4 {
        assert_eq!(ask(&node, number).await.head.status, 503, "{number}");
        assert!(was_asked(&one, number) && was_asked(&other, number), "{number}");
    }
    assert!(node.says("two sources give a content that has not the digest that is configured for it"));
    for parent in [&one, &other] {
        assert!(!is_lowered(&node, parent).await);
    }
    must_be(&ask(&node, 5).await, content(5));
    assert!(was_asked(&one, 5) && !was_asked(&other, 5), "in their order");
}

/// Messages say of themselves what they are, and are passed on to one client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_in_parts_or_passed_on_counts_as_well() {
    let in_parts = |reply: Reply| Reply { content_digest: true, ..reply };
    let unstored = |reply: Reply| reply.with("Cache-Control", "no-store");
    for (mode, as_said) in [(Mode::Ranged, in_parts as fn(Reply) -> Reply), (Mode::Whole, unstored)] {
        let (bad, good) = parents(4, |number| number < 3, as_said).await;
        let node = below(&[url(bad.address), url(good.address)], mode.rule()).start();
        for number in 0..3 {
            let _ = ask(&node, number).await;
            node.wait_until_idle().await;
        }
        assert!(is_lowered(&node, &bad).await, "{mode:?}");
        must_be(&ask(&node, 3).await, content(3));
        assert!(!was_asked(&bad, 3), "{mode:?}");
    }
}

/// A long part leaves before it is checked. Who gave the begin of the body is not to blame for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_rest_is_laid_to_who_gave_it() {
    let pattern = Pattern::new(8650, 12 * MIB);
    let said = || Reply { content_digest: true, ..Reply::file(pattern) };
    let (one, other) = (FakeOrigin::start().await, FakeOrigin::start().await);
    one.serve(PATH, said().cut_after(MIB));
    other.serve(PATH, said().damaged(11 * MIB));
    let node = below(&[url(one.address), url(other.address)], Mode::Whole.rule()).start();
    let mut client = Connection::open(node.data).await;
    client.send(&get(&asked(), &[])).await;
    let head = client.head().await;
    let began = Instant::now();
    while node.metric("waystation_fills_total", "mismatch").await < 1.0 {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is found wrong");
    }
    one.serve(PATH, said());
    // What it was given before is right, and it may go on from there.
    assert_eq!(client.checked(&head, pattern, 0).await.first_difference, None);
    must_be(&node.get(&asked(), &[]).await, pattern);
    assert_eq!(other.requests(), 1, "the one that gave the wrong part is not asked again");
}
