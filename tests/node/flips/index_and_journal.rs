//! Index and journal: gone, or overwritten in many places.

use super::damage::{Kind, length};
use super::site::Site;
use super::{BLOCK, JOURNALS_ARE_REDUNDANT};
use crate::rig::Dice;
use crate::rig::client::{End, get, once};
use crate::rig::running_node::{Setup, files_below};

/// Places that are overwritten.
const PLACES: u64 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_directory_may_go_right_after_the_last_completion() {
    let mut dice = Dice::seeded("state directory", 6100);
    let mut site = Site::filled(&mut dice, 6).await;
    let setup = site.node.take().unwrap().kill().await;
    std::fs::remove_dir_all(setup.path("state")).unwrap();
    site.origin.switch_off();
    site.node = Some(site.setup.start());
    let before = site.origin.requests();
    let reading = site.read_all(&mut dice).await;
    assert_eq!((reading.fetched, reading.cuts, reading.refused), (0, 0, 0), "{reading:?}");
    // One bit in each complete body, and the state directory is gone again.
    site.node.take().unwrap().kill().await;
    std::fs::remove_dir_all(setup.path("state")).unwrap();
    for blob in files_below(&setup.path("drive1").join("blobs")) {
        Kind::Flip { at: dice.below(length(&blob)), bit: 3 }.apply(&blob, &mut dice);
    }
    let debt = site.debt();
    site.origin.switch_on();
    site.node = Some(site.setup.start());
    let reading = site.read_all(&mut dice).await;
    assert!(reading.fetched == debt && reading.refused == 0, "{reading:?}: {debt} bytes in flipped blocks");
    assert!(debt <= BLOCK * site.bodies.len() as u64);
    let again = site.read_all(&mut dice).await;
    assert_eq!((again.fetched, again.cuts, site.debt()), (0, 0, 0), "{again:?}");
    assert_eq!(before + reading.requests, site.origin.requests());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_blob_is_lost_that_a_journal_names_when_index_and_journal_are_overwritten() {
    let mut dice = Dice::seeded("index and journal", 6200);
    let mut site = Site::filled(&mut dice, 6).await;
    let setup = site.node.take().unwrap().kill().await;
    for _ in 0..PLACES {
        let mut files = files_below(&setup.path("drive1").join("journal"));
        if dice.below(2) == 0 {
            files = files_below(&setup.path("state"));
        }
        files.retain(|file| length(file) > 0);
        let file = &files[dice.below(files.len() as u64) as usize];
        Kind::Overwrite { at: dice.below(length(file)), len: 1 + dice.below(8) }.apply(file, &mut dice);
    }
    let named = named(&setup);
    site.origin.switch_off();
    let node = site.setup.start();
    let mut hits = 0;
    for body in site.bodies.iter().filter(|body| body.part.is_none()) {
        let mut is_hit = false;
        for target in &body.targets {
            let answer = once(node.data, &get(target, &[])).await;
            assert!(answer.head.status != 200 || answer.end == End::Cut || answer.body == body.content.bytes);
            is_hit |= answer.head.status == 200 && answer.end == End::Complete;
        }
        hits += u64::from(is_hit);
    }
    let told: Vec<_> = node.said().lines().filter(|line| line.contains("damaged")).map(str::to_owned).collect();
    println!(
        "{hits} of {} bodies are hits, {named} are named by journals, {} lines",
        site.bodies.len() - 3,
        told.len()
    );
    assert!(hits >= named, "{told:#?}");
    assert!(!told.is_empty() || !JOURNALS_ARE_REDUNDANT);
    assert!(!JOURNALS_ARE_REDUNDANT || told.len() == 1 && told[0].contains("WARN"), "{told:#?}");
    site.node = Some(node);
    site.origin.switch_on();
    site.read_all(&mut dice).await;
    let again = site.read_all(&mut dice).await;
    assert_eq!((again.fetched, again.cuts, again.refused), (0, 0, 0), "{again:?}");
}

/// How many blobs the journals name, as `store verify` reads them.
fn named(setup: &Setup) -> u64 {
    let drive = format!("{}=10GB", setup.path("drive1").display());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_waystation"));
    command.args(["store", "verify", "--output", "json", "--drive", &drive]).env_clear();
    let output = command.output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    report["drives"][0]["blobs"].as_u64().unwrap_or_else(|| panic!("{report}"))
}
