//! Lengths and bytes that are not true. An origin lies until its lie has shown, then it is honest.

use super::table::{Case, PATH, content, percent, row};
use crate::rig::origin_reply::Reply;
use crate::rig::pattern::Pattern;
use crate::rig::trouble::Trouble;

/// What was read before the lie showed was paid for twice.
const TWICE: f64 = 2.1;

/// A row whose origin answers by `lying` until the lie has shown, and by its honest reply afterwards.
async fn lying(name: &str, has_digest: bool, lie: fn(Reply) -> Reply, judge: fn(Case) -> Case) {
    row(name, |origin| {
        let trouble = Trouble::default();
        let honest = Reply::file(content()).troubled(&trouble);
        let honest = if has_digest { honest.with_digest(content()) } else { honest };
        let (here, lying) = (trouble.clone(), lie(honest.clone()));
        origin.script(PATH, move |_| if here.struck() == 0 { lying.clone() } else { honest.clone() });
        judge(Case::of(content(), &trouble).origin_at_most(TWICE))
    })
    .await;
}

fn too_big(reply: Reply) -> Reply {
    reply.believed(content().len + 1000)
}

fn too_small(reply: Reply) -> Reply {
    reply.believed(content().len - 1000)
}

fn rest_behind(reply: Reply) -> Reply {
    Reply { behind: true, ..too_small(reply) }
}

fn wrong_byte(reply: Reply) -> Reply {
    reply.damaged(percent(content(), 57))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn length_too_big() {
    lying("length too big", false, too_big, |case| case).await;
}

/// The bytes that are there are those of the digest, so that nothing is fetched again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn length_too_big_with_digest() {
    lying("length too big, with digest", true, too_big, |case| case.origin_at_most(1.05)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn length_too_small() {
    lying("length too small", false, too_small, Case::may_be_wrong).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn length_too_small_with_digest() {
    lying("length too small, with digest", true, too_small, |case| case).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn length_too_small_and_the_rest_behind() {
    lying("length too small, the rest behind", false, rest_behind, Case::may_be_wrong).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn length_too_small_and_the_rest_behind_with_digest() {
    lying("length too small, the rest behind, with digest", true, rest_behind, |case| case).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_byte_without_digest() {
    lying("wrong byte", false, wrong_byte, Case::may_be_wrong).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_byte_with_digest() {
    lying("wrong byte, with digest", true, wrong_byte, |case| case).await;
}

/// Only each answer for itself says what it ought to be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_byte_with_content_digest() {
    lying("wrong byte, with digest of each answer", false, |reply| wrong_byte(each_with_digest(reply)), |case| case)
        .await;
}

fn each_with_digest(reply: Reply) -> Reply {
    Reply { content_digest: true, ..reply }
}

/// A body that takes longer than a cache waits for its digest: nobody gets the end of it, and who has the wrong byte
/// starts anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_byte_in_a_long_body_with_digest() {
    row("wrong byte in a long body, with digest", |origin| {
        let content = Pattern::new(2004, 600_000);
        let trouble = Trouble::default();
        let honest = Reply::file(content).with_digest(content).troubled(&trouble);
        let here = trouble.clone();
        let lying = honest.clone().damaged(percent(content, 94));
        origin.script(PATH, move |_| if here.struck() == 0 { lying.clone() } else { honest.clone() });
        Case::of(content, &trouble).rate(50_000).then_fast().unscaled().origin_at_most(TWICE)
    })
    .await;
}
