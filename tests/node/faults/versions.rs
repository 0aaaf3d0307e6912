//! Content that changes while it is fetched. A file that is wholly one version is right, whichever it is.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::table::{Case, PATH, content, percent, row};
use crate::rig::origin_reply::Reply;
use crate::rig::pattern::Pattern;
use crate::rig::trouble::{Strike, Trouble};

/// What came of the old version was paid for, and all of the new one.
const BOTH: f64 = 2.1;

fn same_length() -> Pattern {
    Pattern::new(3001, content().len)
}

fn other_length() -> Pattern {
    Pattern::new(3002, content().len + 77_777)
}

/// A row whose origin cuts one answer and has another version from then on; answers that run go on with the old one.
async fn new_at_the_cut(name: &str, next: Pattern, reply: fn(Pattern) -> Reply, judge: fn(Case) -> Case) {
    row(name, |origin| {
        let trouble = Trouble::at(&[(percent(content(), 41), Strike::Cut)]);
        let here = trouble.clone();
        origin.script(PATH, move |_| {
            let version = if here.struck() == 0 { content() } else { next };
            reply(version).troubled(&here)
        });
        judge(Case::of(content(), &trouble).or(next).origin_at_most(BOTH))
    })
    .await;
}

fn bare(version: Pattern) -> Reply {
    Reply::bare(version).with("Cache-Control", "max-age=3600")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_version_of_the_same_length_at_the_cut() {
    new_at_the_cut("new version at the cut, same length", same_length(), Reply::file, |case| case).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_version_of_another_length_at_the_cut() {
    new_at_the_cut("new version at the cut, other length", other_length(), Reply::file, |case| case).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_version_at_the_cut_without_validators() {
    new_at_the_cut("new version at the cut, no validators", same_length(), bare, |case| case).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_version_at_the_cut_with_neither_ranges_nor_validators() {
    let reply = |version| bare(version).without_ranges();
    new_at_the_cut("new version at the cut, neither", other_length(), reply, |case| case).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_version_at_the_cut_with_digests() {
    let reply = |version| Reply::file(version).with_digest(version);
    new_at_the_cut("new version at the cut, with digests", same_length(), reply, |case| case).await;
}

/// All devices are behind one address, so that nobody can tell who has which version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_version_at_the_cut_for_devices_behind_one_address() {
    new_at_the_cut("new version at the cut, one address", same_length(), Reply::file, Case::one_address).await;
}

/// Two servers behind one name have different versions and take turns. Long enough for several ranges.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_versions_take_turns() {
    row("two versions take turns", |origin| {
        let versions = [Pattern::new(3003, 3 * content().len), Pattern::new(3004, 3 * content().len)];
        let trouble = Trouble::default();
        let (here, asked) = (trouble.clone(), AtomicUsize::new(0));
        origin.script(PATH, move |_| {
            here.strikes();
            Reply::file(versions[asked.fetch_add(1, Ordering::Relaxed) % 2])
        });
        Case::of(versions[0], &trouble).or(versions[1]).origin_at_most(BOTH)
    })
    .await;
}
