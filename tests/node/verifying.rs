//! Whether what is stored is what it was: by a command while the cache does not run, and by the cache itself all the time.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};

use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::Reply;
use super::rig::pattern::Pattern;
use super::rig::running_node::{Setup, files_below};

const HOST: &str = "dl.example.com";
const MIB: u64 = 1 << 20;

fn pattern() -> Pattern {
    Pattern::new(5200, 3 * MIB + 5)
}

async fn filled() -> (Setup, FakeOrigin) {
    let origin = FakeOrigin::with("/f", Reply::file(pattern())).await;
    let node = Setup::new()
        .origin(HOST, origin.address, json!({}))
        .set("storage.scrub_rate", json!("1 GB"))
        .set("storage.scrub_every", json!("50ms"))
        .start();
    assert!(node.get(&format!("/-/{HOST}/f"), &[]).await.body == pattern().bytes());
    node.wait_for_fills(1).await;
    node.wait_for_commits().await;
    (node.stop().await, origin)
}

fn blob(setup: &Setup) -> PathBuf {
    files_below(&setup.path("drive1").join("blobs")).into_iter().next().unwrap()
}

fn flip(setup: &Setup, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(blob(setup)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

/// Runs `store verify` on the drive of `setup`.
fn verify(setup: &Setup, more: &[&str]) -> (Option<i32>, String) {
    let drive = format!("{}=10GB", setup.path("drive1").display());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_waystation"));
    let Output { status, stdout, stderr } =
        command.args(["store", "verify", "--drive", &drive]).args(more).output().unwrap();
    (status.code(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

#[tokio::test]
async fn verify_says_that_all_is_well_and_what_is_not() {
    let (setup, _origin) = filled().await;
    let (code, said) = verify(&setup, &[]);
    assert!(code == Some(0) && said.contains("1 blobs") && said.contains("everything holds"), "{code:?}: {said}");
    flip(&setup, 2 * MIB);
    let (code, said) = verify(&setup, &[]);
    assert!(code == Some(1) && said.contains("damaged blocks [2]"), "{code:?}: {said}");
    let (code, said) = verify(&setup, &["--output", "json"]);
    let report: Value = serde_json::from_str(&said).unwrap();
    assert!(code == Some(1) && report["holds"] == json!(false), "{said}");
    assert!(report["drives"][0]["findings"][0].as_str().unwrap().contains("damaged blocks [2]"), "{said}");
    std::fs::remove_file(blob(&setup)).unwrap();
    let (code, said) = verify(&setup, &[]);
    assert!(code == Some(1) && said.contains("is missing"), "{code:?}: {said}");
}

#[tokio::test]
async fn verify_leaves_a_running_cache_and_foreign_directories_alone() {
    let (setup, _origin) = filled().await;
    let node = setup.start();
    let (code, said) = verify(&setup, &[]);
    assert!(code == Some(1) && said.contains("another process is using it"), "{code:?}: {said}");
    let setup = node.stop().await;
    std::fs::remove_file(setup.path("drive1").join("waystation.json")).unwrap();
    let (code, said) = verify(&setup, &[]);
    assert!(code == Some(1) && said.contains("no waystation.json"), "{code:?}: {said}");
    assert!(!setup.path("drive1").join("waystation.json").exists());
}

#[tokio::test]
async fn a_flipped_byte_is_found_without_a_request_for_it() {
    let (setup, origin) = filled().await;
    let paid = origin.body_bytes();
    flip(&setup, MIB + 1);
    let node = setup.start();
    while node.metric("waystation_damaged_blocks_total", "").await < 1.0 {
        tokio::task::yield_now().await;
    }
    assert!(node.metric("waystation_scrubbed_bytes_total", "").await > 0.0);
    assert!(node.get(&format!("/-/{HOST}/f"), &[]).await.body == pattern().bytes());
    assert_eq!(origin.body_bytes() - paid, MIB);
}
