//! Figures of a store with very many objects, for people to look at: `cargo test --release --lib figures_of_many_objects --
//! --ignored --nocapture`. `WAYSTATION_OBJECTS` says how many. Each start is one of a process of its own.

use std::process::{Command, Stdio};
use std::time::Instant;

use super::*;
use crate::content::PartialId;
use crate::store::block_map::BlockSize;
use crate::store::block_sums::BlockSums;
use crate::store::drive::Opening;
use crate::store::journal::{Journal, segments};
use crate::store::journal_entry::{JournalEntry, Row};
use crate::store::journal_format::encode_frame;

/// Where a process that is started by a test finds its store.
pub(super) const PLACE: &str = "WAYSTATION_STORE";

/// So many entries of a journal may have come since the snapshot was written: 16 MiB of them.
const BEHIND: u64 = 115_000;

/// Memory of this process in real pages, in MiB: now (`VmRSS`) or the most so far (`VmHWM`).
fn resident(which: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(which)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

pub(super) fn name_of(number: u64) -> String {
    format!("pool/main/object-{number}_1.0-{number}_amd64.deb")
}

/// The settings of a store in a directory.
pub(super) fn settings_at(root: &Path) -> Settings {
    let mut settings = settings_in(root);
    settings.drives[0].quota = 1 << 40;
    settings
}

/// Runs another test of this program, in a process of its own, on the store in a directory.
pub(super) fn on_its_own(test: &str, root: &Path, through: &[&str]) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut words = through.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    words.push(program.to_str().unwrap().to_owned());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(PLACE, root).stdin(Stdio::null());
    command
}

/// How many objects a test is to have.
fn objects() -> u64 {
    std::env::var("WAYSTATION_OBJECTS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000)
}

fn entry(number: u64) -> JournalEntry {
    let content = number.to_le_bytes();
    let digest = Digest::of(&content);
    let mut record = record(&name_of(number), Some(8));
    record.body = BodyRef::Blob(digest);
    let sums = BlockSums::new(BlockSize::new(1 << 20).unwrap(), 8, vec![crc32c::crc32c(&content)]).unwrap();
    JournalEntry::Stored {
        row: Row { record, birth: PartialId(number), superseded: None },
        sums: Some(sums),
        supersedes: None,
    }
}

/// Says something in the journal of a store that is closed.
fn say(settings: &Settings, count: u64, mut entry: impl FnMut(u64) -> JournalEntry) {
    let metrics = Metrics::new().unwrap();
    let opening = Opening {
        number: 0,
        known: None.into(),
        limit: settings.drive_timeout,
        away: &Arc::default(),
        metrics: &metrics,
    };
    let drive = Drive::open(settings.drives[0].clone(), &opening).unwrap();
    let mut journal = Journal::new(Arc::clone(&drive), &segments(&drive).unwrap());
    for first in (0..count).step_by(10_000) {
        let frames: Vec<u8> = (first..count.min(first + 10_000)).flat_map(|n| encode_frame(&entry(n))).collect();
        journal.begin_of_next().unwrap();
        journal.append(&frames).unwrap();
    }
    drive.close();
    drive.unlock();
}

/// Writes a drive's journal of so many objects; of each thousandth the file is there, too.
pub(super) fn write_objects(root: &Path, count: u64) {
    let settings = settings_at(root);
    say(&settings, count, entry);
    for number in (0..count).step_by(1000) {
        let content = number.to_le_bytes();
        let path = root.join("drive").join(layout::blob(&Digest::of(&content)));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// What was said of some of them is said anew, as from a store that was killed.
fn update_objects(root: &Path, count: u64) {
    say(&settings_at(root), count, |number| {
        let JournalEntry::Stored { mut row, .. } = entry(number) else { panic!() };
        row.record.response_time = UnixMillis(3_000);
        JournalEntry::Updated { row }
    });
}

#[test]
#[ignore = "prints figures"]
fn figures_of_many_objects() {
    let (root, count) = (TempDir::new().unwrap(), objects());
    write_objects(root.path(), count);
    println!("{count} objects");
    let start = |what: &str| {
        let output = on_its_own("store::tests::scale::a_start_with_many_objects", root.path(), &[]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        println!("{what}: {}", &text[text.find("open ").unwrap()..].lines().next().unwrap());
    };
    start("the journals alone");
    start("a snapshot of all");
    update_objects(root.path(), BEHIND.min(count));
    start("a snapshot, and 16 MiB of journal behind it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by another test"]
async fn a_start_with_many_objects() {
    let Some(root) = std::env::var_os(PLACE) else { return };
    let (count, before) = (objects(), resident("VmRSS"));
    let start = Instant::now();
    let store = Store::open(settings_at(Path::new(&root)), Arc::new(Metrics::new().unwrap())).unwrap();
    let opened = start.elapsed();
    assert_eq!(get(&store, &name_of(0)).await.unwrap(), 0_u64.to_le_bytes());
    let first = start.elapsed();
    let lookups = Instant::now();
    for number in (0..count).step_by(1000) {
        assert_eq!(store.lookup(&key(&name_of(number))).await.len(), 1);
    }
    let each = lookups.elapsed() / u32::try_from(count.div_ceil(1000)).unwrap();
    while store.usage()[0].blobs < count {
        // Not to take a core from what is measured.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    println!(
        "open {opened:.2?}, first hit {first:.2?}, look-up {each:.2?}, all known {:.2?}, {} MiB of memory, {} at the most, {before} before",
        start.elapsed(),
        resident("VmRSS"),
        resident("VmHWM"),
    );
}
