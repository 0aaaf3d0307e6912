//! Bytes on a drive change: nobody gets them, and only the blocks that they are in are fetched again.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use serde_json::json;

use super::rig::client::{Answer, End, get};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::Reply;
use super::rig::pattern::Pattern;
use super::rig::rules::ranged_for_clients;
use super::rig::running_node::{RunningNode, Setup, files_below};

const HOST: &str = "dl.example.com";
const PATH: &str = "/update.swu";
const MIB: u64 = 1 << 20;
const LEN: u64 = 5 * MIB + 17;

fn pattern() -> Pattern {
    Pattern::new(4100, LEN)
}

/// A node that has the file and does not run; the origin has what it sends counted from here on.
async fn stored(reply: Reply) -> (Setup, FakeOrigin, u64) {
    let origin = FakeOrigin::with(PATH, reply).await;
    let node = Setup::new().origin(HOST, origin.address, json!({})).start();
    right(&ask(&node, &[]).await);
    node.wait_for_fills(1).await;
    node.wait_for_commits().await;
    let paid = origin.body_bytes();
    (node.stop().await, origin, paid)
}

async fn ask(node: &RunningNode, fields: &[&str]) -> Answer {
    node.get(&format!("/-/{HOST}{PATH}"), fields).await
}

fn right(answer: &Answer) {
    assert_eq!((answer.head.status, answer.end), (200, End::Complete), "{}", answer.head.raw);
    assert!(answer.body == pattern().bytes());
}

fn blob(setup: &Setup) -> PathBuf {
    let blobs = files_below(&setup.path("drive1").join("blobs"));
    assert_eq!(blobs.len(), 1, "{blobs:?}");
    blobs.into_iter().next().unwrap()
}

fn open(setup: &Setup) -> File {
    OpenOptions::new().read(true).write(true).open(blob(setup)).unwrap()
}

fn flip(setup: &Setup, at: u64) {
    let (file, mut byte) = (open(setup), [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

fn is_whole_again(setup: &Setup) {
    assert!(std::fs::read(blob(setup)).unwrap() == pattern().bytes(), "the file is right again");
    assert!(files_below(&setup.path("drive1").join("quarantine")).is_empty());
}

#[tokio::test]
async fn a_flipped_byte_costs_one_block_and_no_client_notices() {
    let (setup, origin, paid) = stored(Reply::file(pattern())).await;
    for at in [3, 2 * MIB + 5, LEN - 1] {
        flip(&setup, at);
    }
    let node = setup.start();
    right(&ask(&node, &[]).await);
    assert_eq!(origin.body_bytes() - paid, MIB + MIB + 17, "the blocks that were broken");
    assert_eq!(node.metric("waystation_mended_blocks_total", "").await, 3.0);
    origin.switch_off();
    right(&ask(&node, &[]).await);
    is_whole_again(&node.stop().await);
}

#[tokio::test]
async fn a_byte_that_flips_while_the_node_runs_is_found_and_mended() {
    let (setup, origin, paid) = stored(Reply::file(pattern())).await;
    let node = setup.start();
    right(&ask(&node, &[]).await);
    flip(&setup, MIB);
    // Within a second the file is looked at again; until then what was checked is believed.
    while node.metric("waystation_mended_blocks_total", "").await < 1.0 {
        let answer = ask(&node, &["Range: bytes=0-99"]).await;
        assert_eq!(answer.head.status, 206, "{}", answer.head.raw);
        assert!(answer.body == pattern().slice(0, 100));
        let _ = ask(&node, &["Range: bytes=1048576-1048676"]).await;
    }
    right(&ask(&node, &[]).await);
    assert_eq!(origin.body_bytes() - paid, MIB);
    is_whole_again(&node.stop().await);
}

#[tokio::test]
async fn while_the_origin_is_away_the_other_blocks_are_served() {
    let (setup, origin, paid) = stored(Reply::file(pattern())).await;
    flip(&setup, 2 * MIB + 1);
    origin.switch_off();
    let node = setup.start();
    let good = ask(&node, &["Range: bytes=3145728-4194303"]).await;
    assert_eq!((good.head.status, good.end), (206, End::Complete), "{}", good.head.raw);
    assert!(good.body == pattern().slice(3 * MIB, 4 * MIB));
    let bad = ask(&node, &["Range: bytes=2097152-2097161"]).await;
    assert_eq!(bad.head.status, 503, "{}", bad.head.raw);
    let cut = ask(&node, &[]).await;
    assert_eq!((cut.head.status, cut.end), (200, End::Cut), "{}", cut.head.raw);
    assert!(cut.body == pattern().slice(0, 2 * MIB), "{} bytes up to the broken block", cut.body.len());
    origin.restart().await;
    let mut answer = ask(&node, &[]).await;
    while answer.end != End::Complete {
        // The origin is asked again once the pause after its failure is over.
        tokio::task::yield_now().await;
        answer = ask(&node, &[]).await;
    }
    right(&answer);
    assert_eq!(origin.body_bytes() - paid, MIB);
    is_whole_again(&node.stop().await);
}

#[tokio::test]
async fn a_file_that_was_cut_short_or_overwritten_gets_back_what_it_lost() {
    for lost in [2 * MIB, LEN] {
        let (setup, origin, paid) = stored(Reply::file(pattern())).await;
        let file = open(&setup);
        if lost == LEN {
            file.write_all_at(&vec![0xee; LEN as usize], 0).unwrap();
        } else {
            file.set_len(LEN - lost).unwrap();
        }
        let node = setup.start();
        // Who meets the end of what is left of the file may be cut there, once.
        let first = ask(&node, &[]).await;
        assert!(first.end == End::Complete || lost < LEN, "{}", first.head.raw);
        right(&ask(&node, &[]).await);
        let again = origin.body_bytes() - paid;
        // A file that is not as long as it was is no longer trusted at all.
        let most = if lost == LEN { lost + MIB } else { LEN };
        assert!(again >= lost && again <= most, "{again} bytes for {lost} that were lost");
        origin.switch_off();
        right(&ask(&node, &[]).await);
        assert!(std::fs::read(blob(&node.stop().await)).unwrap() == pattern().bytes());
    }
}

#[tokio::test]
async fn twenty_clients_and_two_urls_of_a_broken_body_cost_one_block() {
    let (setup, origin, _) = stored(Reply::file(pattern())).await;
    origin.serve("/mirror.swu", Reply::file(pattern()));
    let node = setup.start();
    let mirror = node.get(&format!("/-/{HOST}/mirror.swu"), &[]).await;
    assert!(mirror.body == pattern().bytes());
    node.wait_for_fills(1).await;
    node.wait_for_commits().await;
    let setup = node.stop().await;
    let paid = origin.body_bytes();
    flip(&setup, 4 * MIB);
    let node = setup.start();
    let paths = (0..20).map(|client| if client % 2 == 0 { PATH } else { "/mirror.swu" });
    let clients: Vec<_> = paths
        .map(|path| tokio::spawn(super::rig::client::once(node.data, get(&format!("/-/{HOST}{path}"), &[]).leak())))
        .collect();
    for client in clients {
        right(&client.await.unwrap());
    }
    assert_eq!(origin.body_bytes() - paid, MIB);
    is_whole_again(&node.stop().await);
}

#[tokio::test]
async fn without_a_strong_validator_the_digest_of_the_whole_decides() {
    let (setup, origin, paid) = stored(Reply::bare(pattern()).with("Cache-Control", "max-age=3600")).await;
    // A second block that nobody has looked at yet must be right before the digest can tell.
    flip(&setup, 7);
    flip(&setup, 3 * MIB);
    let node = setup.start();
    let answer = ask(&node, &["Range: bytes=0-99"]).await;
    assert!(answer.head.status == 206 && answer.body == pattern().slice(0, 100), "{}", answer.head.raw);
    assert_eq!(origin.body_bytes() - paid, 2 * MIB);
    is_whole_again(&node.stop().await);
}

#[tokio::test]
async fn when_upstream_has_another_version_the_broken_one_goes_and_the_new_one_is_served() {
    let (setup, origin, _) = stored(Reply::file(pattern())).await;
    let new = Pattern::new(4101, LEN + 100);
    origin.serve(PATH, Reply::file(new));
    flip(&setup, 9);
    let node = setup.start();
    let answer = ask(&node, &[]).await;
    assert_eq!((answer.head.status, answer.end), (200, End::Complete), "{}", answer.head.raw);
    assert!(answer.body == new.bytes());
    node.wait_for_fills(1).await;
    node.wait_for_commits().await;
    origin.switch_off();
    assert!(ask(&node, &[]).await.body == new.bytes());
}

#[tokio::test]
async fn wrong_bytes_of_upstream_are_not_put_in_place() {
    let (setup, origin, _) = stored(Reply::file(pattern())).await;
    origin.serve(PATH, Reply::file(pattern()).damaged(MIB + 3));
    flip(&setup, MIB + 9);
    let node = setup.start();
    let answer = ask(&node, &["Range: bytes=2097152-2097252"]).await;
    assert!(answer.body == pattern().slice(2 * MIB, 2 * MIB + 101), "the blocks that hold are served");
    // What comes then is the origin's word against what was stored: a new fill, as without a cache.
    let _ = ask(&node, &["Range: bytes=1048576-1048600"]).await;
    node.wait_for_commits().await;
    assert!(!files_below(&setup.path("drive1").join("quarantine")).is_empty());
}

#[tokio::test]
async fn an_origin_that_cuts_brings_a_block_in_pieces() {
    let (setup, origin, paid) = stored(Reply::file(pattern())).await;
    origin.serve(PATH, Reply::file(pattern()).cut_after(300_000));
    flip(&setup, MIB);
    let node = setup.start();
    right(&ask(&node, &[]).await);
    assert_eq!(origin.body_bytes() - paid, MIB, "no byte twice");
    is_whole_again(&node.stop().await);
}

#[tokio::test]
async fn nothing_is_fetched_for_who_forbids_it() {
    let (setup, origin, paid) = stored(Reply::file(pattern())).await;
    flip(&setup, 7);
    let node = setup.start();
    let answer = ask(&node, &["Cache-Control: only-if-cached", "Range: bytes=0-99"]).await;
    assert_eq!(answer.head.status, 504, "{}", answer.head.raw);
    assert_eq!(origin.body_bytes(), paid);
    right(&ask(&node, &[]).await);
}

#[tokio::test]
async fn also_when_the_state_directory_is_gone_one_block_is_enough() {
    let (setup, origin, paid) = stored(Reply::file(pattern())).await;
    std::fs::remove_dir_all(setup.path("state")).unwrap();
    flip(&setup, 2 * MIB);
    let node = setup.start();
    right(&ask(&node, &[]).await);
    assert_eq!(origin.body_bytes() - paid, MIB);
    is_whole_again(&node.stop().await);
}

#[tokio::test]
async fn a_small_body_is_one_block() {
    let small = Pattern::new(77, 900);
    let origin = FakeOrigin::with("/small", Reply::file(small)).await;
    let node = Setup::new().origin(HOST, origin.address, json!({})).start();
    let target = format!("/-/{HOST}/small");
    assert!(node.get(&target, &[]).await.body == small.bytes());
    node.wait_for_fills(1).await;
    node.wait_for_commits().await;
    let setup = node.stop().await;
    flip(&setup, 5);
    let node = setup.start();
    assert!(node.get(&target, &[]).await.body == small.bytes());
    assert_eq!(origin.body_bytes(), 1800);
    origin.switch_off();
    assert!(node.get(&target, &[]).await.body == small.bytes());
    assert!(files_below(&setup.path("drive1").join("quarantine")).is_empty());
}

/// A node that runs and has the first three blocks of the file, and the only file below `partial/` that ends so.
async fn with_a_part(suffix: &str) -> (RunningNode, FakeOrigin, u64, PathBuf) {
    let origin = FakeOrigin::with(PATH, Reply::file(pattern())).await;
    let node = Setup::new().origin(HOST, origin.address, ranged_for_clients()).start();
    part_is_right(&node).await;
    node.wait_until_idle().await;
    let paid = origin.body_bytes();
    let files = files_below(&node.setup().path("drive1").join("partial"));
    let file = files.into_iter().find(|file| file.to_string_lossy().ends_with(suffix)).unwrap();
    (node, origin, paid, file)
}

async fn ask_for_the_part(node: &RunningNode) -> Answer {
    ask(node, &["Range: bytes=0-3145727"]).await
}

async fn part_is_right(node: &RunningNode) {
    let answer = ask_for_the_part(node).await;
    assert_eq!((answer.head.status, answer.end), (206, End::Complete), "{}", answer.head.raw);
    assert!(answer.body == pattern().slice(0, 3 * MIB));
}

fn flip_in(file: &PathBuf, at: u64) {
    let (file, mut byte) = (OpenOptions::new().read(true).write(true).open(file).unwrap(), [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[tokio::test]
async fn a_byte_of_a_part_that_flips_while_the_node_runs_is_found_and_costs_a_block_at_most() {
    let (node, origin, paid, data) = with_a_part(".data").await;
    part_is_right(&node).await;
    flip_in(&data, MIB + MIB / 2);
    // Within a second the file is looked at again; until then what was checked is believed.
    while node.metric("waystation_damaged_blocks_total", "").await < 1.0 && origin.body_bytes() == paid {
        let _ = ask_for_the_part(&node).await;
    }
    part_is_right(&node).await;
    node.wait_until_idle().await;
    assert!(origin.body_bytes() - paid <= MIB, "{} bytes", origin.body_bytes() - paid);
    part_is_right(&node).await;
}

#[tokio::test]
async fn a_flipped_bit_of_a_map_does_not_lose_the_part_beside_it() {
    let (node, origin, paid, map) = with_a_part(".map").await;
    let mut setup = node.kill().await;
    // In the header twice, so that its copy has taken its place meanwhile, and in the copy.
    for at in [9, 40, 9, 400] {
        flip_in(&map, at);
        let node = setup.start();
        part_is_right(&node).await;
        node.wait_until_idle().await;
        setup = node.stop().await;
    }
    assert!(origin.body_bytes() - paid <= MIB, "{} bytes", origin.body_bytes() - paid);
}

#[tokio::test]
async fn a_part_whose_file_is_gone_is_fetched_again() {
    let (node, origin, paid, data) = with_a_part(".data").await;
    std::fs::remove_file(data).unwrap();
    // As long as its writer has not closed it, it can be read without its name.
    while origin.body_bytes() == paid {
        part_is_right(&node).await;
    }
    node.wait_until_idle().await;
    origin.switch_off();
    part_is_right(&node).await;
}
