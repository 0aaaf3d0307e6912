//! Drives that are lost, or that nothing can be written to, while devices download. In a mount namespace of its own: the
//! tests start themselves there, and are left out, saying so, where that is not permitted.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::rig::client::{Connection, get};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::Reply;
use super::rig::pattern::Pattern;
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "dl.example.com";
const FILES: u64 = 40;
const DEVICES: u64 = 6;
/// How often a device tries before it counts as failed, and how long it waits between.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(40);
/// Says to a test that it is in a namespace of its own.
const INSIDE: &str = "WAYSTATION_OWN_MOUNTS";

fn pattern(file: u64) -> Pattern {
    Pattern::new(7000 + file, 300_000 + file * 40_000)
}

/// Runs the ignored test `name` where it may mount.
fn with_mounts(name: &str) {
    let program = std::env::current_exe().unwrap();
    let outcome = Command::new("unshare")
        .args(["-Urm", "sh", "-c", "mount -t tmpfs none /mnt || exit 42; umount /mnt; exec \"$@\"", "sh"])
        .arg(program)
        .args(["--ignored", "--exact", &format!("outages::{name}"), "--nocapture"])
        .env(INSIDE, "1")
        .output();
    let not_run = |why: &str| {
        assert!(std::env::var_os("CI").is_none(), "{name} could not be run: {why}");
        println!("{name} was left out: {why}");
    };
    match outcome {
        Ok(output) if output.status.success() => print!("{}", String::from_utf8_lossy(&output.stdout)),
        Err(error) => not_run(&error.to_string()),
        Ok(output) if output.status.code() == Some(42) => not_run("mounting is not permitted"),
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("unshare:") => {
            not_run(&String::from_utf8_lossy(&output.stderr));
        }
        Ok(output) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            panic!("{}\n{}", text(&output.stdout), text(&output.stderr));
        }
    }
}

fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status().unwrap();
    assert!(status.success(), "{program} {args:?}");
}

/// Two drives on file systems of their own; each can be had again from `kept` after it was lost.
struct Mounts {
    setup: Setup,
}

impl Mounts {
    fn new(origin: &FakeOrigin) -> Self {
        let mut setup = Setup::new().origin(HOST, origin.address, json!({}));
        let drive = |name: &str| json!({ "path": setup.path(name), "quota": "200 MB", "min_free": 0 });
        let drives = json!([drive("drive1"), drive("drive2")]);
        setup = setup.set("storage.drives", drives);
        for name in ["drive1", "drive2"] {
            let (path, kept) = (setup.path(name), setup.path(&format!("kept-{name}")));
            [&path, &kept].into_iter().for_each(|path| std::fs::create_dir(path).unwrap());
            run("mount", &["-t", "tmpfs", "-o", "size=256m", "none", text(&path)]);
            run("mount", &["--bind", text(&path), text(&kept)]);
        }
        Self { setup }
    }

    fn lose(&self, name: &str) {
        run("umount", &["-l", text(&self.setup.path(name))]);
    }

    fn bring_back(&self, name: &str) {
        run("mount", &["--bind", text(&self.setup.path(&format!("kept-{name}"))), text(&self.setup.path(name))]);
    }

    fn make_read_only(&self, name: &str) {
        let path = self.setup.path(name);
        run("mount", &["--bind", text(&path), text(&path)]);
        run("mount", &["-o", "remount,ro,bind", text(&path)]);
    }

    fn make_writable(&self, name: &str) {
        run("umount", &[text(&self.setup.path(name))]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Devices that download one file after the other.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    devices: JoinSet<(u64, Vec<String>)>,
}

impl Load {
    fn start(node: &RunningNode) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut devices = JoinSet::new();
        for device in 0..DEVICES {
            let (stop, done, to) = (Arc::clone(&stop), Arc::clone(&done), node.data);
            devices.spawn(async move {
                let (mut retried, mut failed) = (0, Vec::new());
                let mut number = device * 7;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let file = number % FILES;
                    let mut said = Vec::new();
                    let mut is_right = false;
                    for attempt in 0..TRIES {
                        if attempt > 0 {
                            retried += 1;
                            tokio::time::sleep(PAUSE).await;
                        }
                        match download(to, file).await {
                            Ok(()) => {
                                is_right = true;
                                break;
                            }
                            Err(error) => said.push(error),
                        }
                    }
                    if !is_right {
                        failed.push(format!("{file}: {said:?}"));
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                (retried, failed)
            });
        }
        Self { stop, done, devices }
    }

    /// Waits until so many downloads more have ended.
    async fn go_on(&self, count: u64) {
        let until = self.done.load(Ordering::Relaxed) + count;
        let deadline = Instant::now() + PATIENCE;
        while self.done.load(Ordering::Relaxed) < until {
            assert!(Instant::now() < deadline, "downloads do not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let mut retries = 0;
        while let Some(device) = self.devices.join_next().await {
            let (retried, failed) = device.unwrap();
            retries += retried;
            assert!(failed.is_empty(), "{failed:?}");
        }
        println!("{} downloads, {retries} of them tried again, none failed", self.done.load(Ordering::Relaxed));
    }
}

/// Downloads a file whole and compares it.
async fn download(to: SocketAddr, file: u64) -> Result<(), String> {
    let mut connection = Connection::open(to).await;
    let text = |error: std::io::Error| error.to_string();
    connection.try_send(get(&format!("/-/{HOST}/{file}"), &[]).as_bytes()).await.map_err(text)?;
    let head = connection.try_head().await.map_err(text)?;
    if head.status != 200 {
        return Err(head.raw);
    }
    let (mut framing, mut body) = (head.framing(false), Vec::new());
    while let Some(piece) = connection.piece(&mut framing, 1 << 20).await.map_err(text)? {
        body.extend_from_slice(&piece);
    }
    let whole = pattern(file).bytes();
    assert!(whole.starts_with(&body), "a wrong byte of {file}");
    if body.len() == whole.len() { Ok(()) } else { Err(format!("cut after {}", body.len())) }
}

async fn origin() -> FakeOrigin {
    let origin = FakeOrigin::start().await;
    (0..FILES).for_each(|file| origin.serve(&format!("/{file}"), Reply::file(pattern(file))));
    origin
}

/// Waits until the drives are out of service for these reasons, and `/readyz` says so and is ready all the same.
async fn until(node: &RunningNode, reasons: [Option<&str>; 2]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = super::rig::client::once(node.admin, &get("/readyz", &[])).await;
        let ready: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer.head.status, 200, "{ready}");
        let told = [0, 1].map(|drive| ready["drives"][drive]["reason"].as_str());
        if told == reasons {
            assert_eq!(ready["state"] == "online", reasons == [None, None], "{ready}");
            return;
        }
        assert!(Instant::now() < deadline, "{reasons:?}: {ready}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Everything is there without the origin.
async fn all_there(node: &RunningNode, origin: &FakeOrigin) {
    origin.switch_off();
    for file in 0..FILES {
        let answer = node.get(&format!("/-/{HOST}/{file}"), &[]).await;
        assert!(answer.body == pattern(file).bytes(), "{file}: {}", answer.head.raw);
    }
    origin.switch_on();
}

#[test]
fn drives_are_lost_under_load_and_come_back() {
    with_mounts("drives_that_are_lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by another test, with mounts of its own"]
async fn drives_that_are_lost() {
    assert!(std::env::var_os(INSIDE).is_some(), "not in a namespace of its own");
    let origin = origin().await;
    let mounts = Mounts::new(&origin);
    let node = mounts.setup.start();
    let load = Load::start(&node);
    load.go_on(60).await;
    mounts.lose("drive2");
    until(&node, [None, Some("lost")]).await;
    load.go_on(60).await;
    mounts.lose("drive1");
    until(&node, [Some("lost"), Some("lost")]).await;
    load.go_on(60).await;
    for name in ["drive1", "drive2"] {
        assert_eq!(std::fs::read_dir(mounts.setup.path(name)).unwrap().count(), 0, "written below the mount point");
    }
    mounts.bring_back("drive2");
    until(&node, [Some("lost"), None]).await;
    load.go_on(60).await;
    mounts.bring_back("drive1");
    until(&node, [None, None]).await;
    load.go_on(2 * FILES).await;
    load.end().await;
    node.wait_until_idle().await;
    all_there(&node, &origin).await;
    node.wait_for_commits().await;
    assert_eq!(node.said().matches("counts as missing").count(), 2);
    assert_eq!(node.said().matches("the drive is in service again").count(), 2);
    let node = node.stop().await.start();
    all_there(&node, &origin).await;
}

#[test]
fn a_drive_becomes_read_only_under_load() {
    with_mounts("a_drive_that_becomes_read_only");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by another test, with mounts of its own"]
async fn a_drive_that_becomes_read_only() {
    assert!(std::env::var_os(INSIDE).is_some(), "not in a namespace of its own");
    let origin = origin().await;
    let mounts = Mounts::new(&origin);
    let node = mounts.setup.start();
    let load = Load::start(&node);
    load.go_on(2 * FILES).await;
    mounts.make_read_only("drive1");
    until(&node, [Some("read-only"), None]).await;
    load.go_on(60).await;
    // What it has it gives.
    let paid = origin.body_bytes();
    load.go_on(60).await;
    assert_eq!(origin.body_bytes(), paid);
    mounts.make_read_only("drive2");
    until(&node, [Some("read-only"), Some("read-only")]).await;
    load.go_on(60).await;
    assert_eq!(node.get(&format!("/-/{HOST}/new"), &[]).await.head.status, 404, "asked of the origin and passed on");
    mounts.make_writable("drive1");
    until(&node, [None, Some("read-only")]).await;
    mounts.make_writable("drive2");
    until(&node, [None, None]).await;
    load.end().await;
    node.wait_until_idle().await;
    all_there(&node, &origin).await;
    node.wait_for_commits().await;
    let node = node.stop().await.start();
    all_there(&node, &origin).await;
}
