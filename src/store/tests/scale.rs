//! Figures of a store with very many objects, for people to look at: `cargo test --release --lib store::tests::scale --
//! --ignored --nocapture`. `WAYSTATION_OBJECTS` says how many.

use std::time::Instant;

use super::*;
use crate::content::PartialId;
use crate::store::block_map::BlockSize;
use crate::store::block_sums::BlockSums;
use crate::store::drive::Opening;
use crate::store::journal::{Journal, segments};
use crate::store::journal_entry::{JournalEntry, Row};
use crate::store::journal_format::encode_frame;

/// Memory of this process in real pages, in MiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn entry(number: u64) -> JournalEntry {
    let content = number.to_le_bytes();
    let digest = Digest::of(&content);
    let mut record = record(&format!("pool/main/object-{number}_1.0-{number}_amd64.deb"), Some(8));
    record.body = BodyRef::Blob(digest);
    let sums = BlockSums::new(BlockSize::new(1 << 20).unwrap(), 8, vec![crc32c::crc32c(&content)]).unwrap();
    JournalEntry::Stored {
        row: Row { record, birth: PartialId(number), superseded: None },
        sums: Some(sums),
        supersedes: None,
    }
}

/// Writes a drive's journal of so many objects; of each thousandth the file is there, too.
fn write_objects(rig: &Rig, count: u64) {
    drop(rig.open());
    let metrics = Metrics::new().unwrap();
    let opening =
        Opening { number: 0, known: None, limit: rig.settings.drive_timeout, away: &Arc::default(), metrics: &metrics };
    let drive = Drive::open(rig.settings.drives[0].clone(), &opening).unwrap();
    let mut journal = Journal::new(Arc::clone(&drive), &segments(&drive).unwrap());
    for first in (0..count).step_by(10_000) {
        let frames: Vec<u8> = (first..count.min(first + 10_000)).flat_map(|n| encode_frame(&entry(n))).collect();
        journal.begin_of_next().unwrap();
        journal.append(&frames).unwrap();
    }
    for number in (0..count).step_by(1000) {
        let content = number.to_le_bytes();
        let path = rig.blob_path(Digest::of(&content));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    drive.close();
    drive.unlock();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
#[allow(clippy::print_stdout, reason = "figures are what this is for")]
async fn figures_of_many_objects() {
    let count = std::env::var("WAYSTATION_OBJECTS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let mut rig = Rig::new();
    rig.settings.drives[0].quota = 1 << 40;
    write_objects(&rig, count);
    println!("{count} objects; before: {} MiB", resident());
    for what in ["index made anew", "index as it was left"] {
        let start = Instant::now();
        let store = rig.open();
        let opened = start.elapsed();
        let name = "pool/main/object-1000_1.0-1000_amd64.deb";
        let content = get(&store, name).await.unwrap();
        assert_eq!(content, 1000_u64.to_le_bytes());
        let first = start.elapsed();
        let lookups = Instant::now();
        for number in (0..count).step_by(1000) {
            assert_eq!(store.lookup(&key(&format!("pool/main/object-{number}_1.0-{number}_amd64.deb"))).await.len(), 1);
        }
        let each = lookups.elapsed() / u32::try_from(count.div_ceil(1000)).unwrap();
        while store.usage()[0].blobs < count {
            tokio::task::yield_now().await;
        }
        println!(
            "{what}: open {opened:.2?}, first hit {first:.2?}, look-up {each:.2?}, all known {:.2?}, {} MiB",
            start.elapsed(),
            resident()
        );
        drop(store);
        println!("closed: {} MiB", resident());
    }
}
