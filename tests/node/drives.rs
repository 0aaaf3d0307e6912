//! `waystation drive`: a new drive, one that is emptied, one of another cache; with the real program, and a cache before and
//! after.

use std::path::Path;

use serde_json::{Value, json};

use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::Reply;
use super::rig::pattern::Pattern;
use super::rig::running_node::{Setup, files_below};

const HOST: &str = "dl.example.com";
const FILES: u64 = 8;

fn pattern(file: u64) -> Pattern {
    Pattern::new(8100 + file, 300_000 + file)
}

/// Runs `waystation drive` with these words and the setup's configuration; its exit code, and what it said as JSON.
fn drive(setup: &Setup, words: &[&str], path: &Path) -> (Option<i32>, Value) {
    drop(setup.command());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_waystation"));
    let command = command.arg("drive").args(words).arg(path).arg("--config").arg(setup.path("node.yaml"));
    let output = command.args(["--output", "json"]).env_clear().output().unwrap();
    let told = serde_json::from_slice(&output.stdout);
    (output.status.code(), told.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))))
}

fn with_drives(setup: &Setup, names: &[&str]) -> Setup {
    let drive = |name: &&str| json!({ "path": setup.path(name), "quota": "1 GB", "min_free": 0 });
    setup.clone().set("storage.drives", names.iter().map(drive).collect())
}

#[tokio::test]
async fn a_drive_is_drained_into_a_new_one_and_taken_out() {
    let origin = FakeOrigin::start().await;
    (0..FILES).for_each(|file| origin.serve(&format!("/{file}"), Reply::file(pattern(file))));
    let setup = Setup::new().origin(HOST, origin.address, json!({}));
    let node = setup.start();
    for file in 0..FILES {
        assert!(node.get(&format!("/-/{HOST}/{file}"), &[]).await.body == pattern(file).bytes());
    }
    node.wait_for_fills(FILES as u32).await;
    node.wait_for_commits().await;
    let (code, told) = drive(&with_drives(&setup, &["drive1", "drive2"]), &["drain"], &setup.path("drive1"));
    assert!(code == Some(1) && told["error"].as_str().unwrap().contains("another process is using it"), "{told}");
    let setup = node.stop().await;

    let both = with_drives(&setup, &["drive1", "drive2"]);
    let (code, told) = drive(&both, &["init"], &setup.path("drive2"));
    assert!(code == Some(0) && told["done"] == json!(true), "{told}");
    let (code, told) = drive(&both, &["init"], &setup.path("drive2"));
    assert!(code == Some(1) && told["error"].as_str().unwrap().contains("it is a drive already"), "{told}");
    let (code, told) = drive(&both, &["drain"], &setup.path("drive1"));
    assert!(code == Some(0) && told["blobs"] == json!(FILES) && told["left"] == json!([]), "{told}");
    assert!(files_below(&setup.path("drive1").join("blobs")).is_empty());
    // What a newer release wrote there is not touched.
    let pins = setup.path("drive2").join("pins");
    std::fs::write(&pins, "8a6d8220 waystation-pins 99\n").unwrap();
    let (code, told) = drive(&both, &["drain"], &setup.path("drive1"));
    assert!(code == Some(1) && told["done"] == json!(false) && told["left"][0]["name"] == "pins", "{told}");
    std::fs::remove_file(&pins).unwrap();

    origin.switch_off();
    let node = with_drives(&setup, &["drive2"]).start();
    for file in 0..FILES {
        assert!(node.get(&format!("/-/{HOST}/{file}"), &[]).await.body == pattern(file).bytes(), "{file}");
    }
    let _setup = node.stop().await;
}

#[tokio::test]
async fn another_drive_at_the_path_of_one_is_refused_until_it_is_adopted() {
    let origin = FakeOrigin::with("/1", Reply::file(pattern(1))).await;
    let setup = with_drives(&Setup::new().origin(HOST, origin.address, json!({})), &["drive1", "drive2"]);
    let setup = setup.start().stop().await;
    std::fs::remove_dir_all(setup.path("drive2")).unwrap();
    // A drive that another cache has filled.
    let theirs = with_drives(&setup, &["drive2"]).set("storage.state", json!(setup.path("their-state"))).start();
    assert!(theirs.get(&format!("/-/{HOST}/1"), &[]).await.body == pattern(1).bytes());
    theirs.wait_for_fills(1).await;
    theirs.wait_for_commits().await;
    drop(theirs.stop().await);
    let pins = setup.path("drive2").join("pins");
    std::fs::write(&pins, "waystation-pins 1\n").unwrap();
    origin.switch_off();
    let node = setup.start();
    let summary = node.summary().await;
    assert_eq!(summary["drives"][1]["reason"], "other-drive", "{summary}");
    assert!(summary["drives"][1]["detail"].as_str().unwrap().contains("waystation drive adopt"), "{summary}");
    let (code, told) = drive(&setup, &["adopt", "--verify"], &setup.path("drive2"));
    assert!(code == Some(0) && told["blobsRead"] == json!(1) && told["before"].is_string(), "{told}");
    assert!(told["pinsSetAside"] == "pins.adopted" && !pins.exists(), "{told}");
    assert!(node.says("the drive is in service again"));
    assert!(node.get(&format!("/-/{HOST}/1"), &[]).await.body == pattern(1).bytes());
}
