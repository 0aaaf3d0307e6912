//! How golden stores are made. That of the present format is made by the store itself:
//! `cargo test --lib a_golden_store_is_written -- --ignored` writes `tests/golden/format-<n>`, unless that is there. That of
//! format 1 was made by `the_golden_store_of_format_1_is_written`, which has that format's encoding written out.

use std::collections::BTreeMap;

use serde::Serialize;

use super::golden::{Begun, Contents, Given, Stored, all, tree};
use super::*;
use crate::content::PartialId;
use crate::store::block_map::{BlockSize, MapRecord};
use crate::store::block_sums::BlockSums;
use crate::store::journal_entry::{JournalEntry, Row};
use crate::store::journal_format::{encode_frame, frame_of};
use crate::store::meta::encode_record;
use crate::store::stuffing::stuff;

/// The year 2100: what is older since then stays for all tests to come.
const LATER: UnixMillis = UnixMillis(4_102_444_800_000);

fn tagged(name: &str, tag: &str, content: &[u8]) -> Record {
    let mut record = record(name, Some(content.len() as u64));
    record.headers.insert(http::header::ETAG, HeaderValue::from_str(&format!("\"{tag}\"")).unwrap());
    record
}

fn stored(name: &str, tag: &str, response_time: u64, content: &[u8]) -> Stored {
    let digest = Digest::of(content).to_hex();
    Stored { name: name.to_owned(), etag: format!("\"{tag}\""), response_time, digest, is_older: false }
}

fn begun(name: &str, (length, seed): (usize, u64), present: usize, is_older: bool) -> Begun {
    let digest = Digest::of(&body_of(length, seed)).to_hex();
    Begun { name: name.to_owned(), length, seed, digest, present, is_older }
}

fn sums_of(content: &[u8]) -> BlockSums {
    let crcs = content.chunks(BLOCK).map(crc32c::crc32c).collect();
    BlockSums::new(BlockSize::new(BLOCK as u32).unwrap(), content.len() as u64, crcs).unwrap()
}

async fn put_as(store: &Store, name: &str, tag: &str, content: &[u8]) -> Arc<Entry> {
    let mut writer = store.create(tagged(name, tag, content)).await.unwrap();
    fill(&mut writer, 0, content).await;
    writer.complete(content.len() as u64).await.unwrap().entry
}

/// Says something in the journal of a store that is closed.
fn say(rig: &Rig, entries: &[JournalEntry]) {
    let metrics = Metrics::new().unwrap();
    let drive = arrival::open_for_tool(&rig.settings.drives[0], None, &metrics).unwrap();
    let segments = journal::segments(&drive).unwrap();
    let frames: Vec<u8> = entries.iter().flat_map(encode_frame).collect();
    journal::Journal::new(Arc::clone(&drive), &segments).append(&frames).unwrap();
    drive.close();
    drive.unlock();
}

/// Copies a closed store into its place. Nothing that is there is written over.
fn keep(rig: &Rig, format: u32, mut contents: Contents) {
    let golden = all().join(format!("format-{format}"));
    fs::create_dir(&golden).expect("golden stores are never changed");
    // Derived, or with paths of this machine in it.
    for name in [layout::MIRROR, "drives.json"].map(|name| rig.state().join(name)) {
        let _ = if name.is_dir() { fs::remove_dir_all(name) } else { fs::remove_file(name) };
    }
    copy(rig.root.path(), &golden);
    contents.quarantined = fs::read_dir(rig.drive().join(layout::QUARANTINE)).map_or(0, Iterator::count);
    let files = tree(&golden);
    contents.files = files.into_iter().map(|(name, bytes)| (name, Digest::of(&bytes).to_hex())).collect();
    fs::write(golden.join("contents.json"), serde_json::to_vec_pretty(&contents).unwrap()).unwrap();
}

#[tokio::test]
#[ignore = "writes a golden store, once for each format"]
async fn a_golden_store_is_written() {
    let rig = Rig::new();
    let (large, passed) = (body_of(BLOCK + 5, 200), body_of(300, 201));
    let client = IpAddr::from([10, 0, 0, 1]);
    let (birth, moved);
    {
        let store = rig.open();
        store.ready().await;
        let small = put_as(&store, "small", "1", b"small").await;
        put_as(&store, "large", "1", &large).await;
        put_as(&store, "copy of large", "2", &large).await;
        put_as(&store, "empty", "1", b"").await;
        let forgotten = put_as(&store, "forgotten", "1", b"forgotten").await;
        put_as(&store, "changed", "1", &passed).await;
        put_as(&store, "changed later", "1", b"changed").await;
        moved = put_as(&store, "moved", "1", b"moved").await;
        for (name, reason) in [("gone", None), ("wrong", Some("it was not what it says".to_owned()))] {
            let entry = put_as(&store, name, "1", name.as_bytes()).await;
            store.flush().await;
            let drive = store.inner.drive(entry.drive).unwrap();
            store.inner.drop_blob(&mut store.inner.entries.lock(), drive, Digest::of(name.as_bytes()), reason);
        }
        store.remove(&forgotten);
        store.update(&small, Record { response_time: UnixMillis(9_000), ..tagged("small", "1", b"small") });
        let content = body_of(2 * BLOCK + 99, 202);
        let mut writer = store.create(tagged("begun", "1", &content)).await.unwrap();
        fill(&mut writer, 0, &content[..BLOCK + 1000]).await;
        let entry = Arc::clone(writer.entry());
        birth = entry.birth.0;
        drop(store.give(client, &key("begun"), &entry.version(), false).await);
        let mut writer = store.create(tagged("begun and changed", "1", &content)).await.unwrap();
        fill(&mut writer, 0, &content[..5000]).await;
        store.flush().await;
        let map = layout::partial_map(writer.entry().birth);
        drop(writer);
        drop(store);
        let bytes = [fs::read(rig.drive().join(&map)).unwrap(), map_file::encode_superseded(Some(LATER)).to_vec()];
        fs::write(rig.drive().join(&map), bytes.concat()).unwrap();
    }
    let row = |name: &str, tag: &str, content: &[u8], birth: u64| {
        let record = Record { body: BodyRef::Blob(Digest::of(content)), ..tagged(name, tag, content) };
        Row { record, birth: PartialId(birth), superseded: None }
    };
    let newer = row("changed", "2", b"changed", 71);
    say(
        &rig,
        &[
            JournalEntry::Stored { row: newer, sums: None, supersedes: Some(LATER) },
            JournalEntry::Superseded {
                key: key("moved").hash(),
                variant: moved.record.variant(),
                birth: moved.birth,
                at: LATER,
            },
            JournalEntry::Blob { digest: Digest::of(b"forgotten"), sums: sums_of(b"forgotten") },
        ],
    );
    // The index is written down with all of it.
    rig.open().ready().await;
    let mut last = row("large", "1", &large, 72);
    last.record.response_time = UnixMillis(9_500);
    say(&rig, &[JournalEntry::Updated { row: last }]);
    let older = |stored: Stored| Stored { is_older: true, ..stored };
    let contents = Contents {
        bodies: vec![
            stored("small", "1", 9_000, b"small"),
            stored("large", "1", 9_500, &large),
            stored("copy of large", "2", 2_000, &large),
            stored("empty", "1", 2_000, b""),
            stored("changed", "2", 2_000, b"changed"),
            older(stored("changed", "1", 2_000, &passed)),
            stored("changed later", "1", 2_000, b"changed"),
            older(stored("moved", "1", 2_000, b"moved")),
        ],
        partials: vec![
            begun("begun", (2 * BLOCK + 99, 202), BLOCK + 1000, false),
            begun("begun and changed", (2 * BLOCK + 99, 202), 5000, true),
        ],
        nothing: ["forgotten", "gone", "wrong", "never there"].map(str::to_owned).to_vec(),
        given: Some(Given { client, name: "begun".to_owned(), birth }),
        ..Contents::default()
    };
    keep(&rig, layout::FORMAT, contents);
}

/// Entries of the first release's journal: kind, then fields, in postcard's encoding.
#[derive(Serialize)]
enum FirstEntry<'a> {
    Stored(&'a [u8], Option<FirstSums>),
    Updated(&'a [u8]),
    Forgotten([u8; 16], u64),
    BlobGone([u8; 32]),
    Blob([u8; 32], FirstSums),
}

#[derive(Serialize)]
struct FirstSums {
    block_size: u32,
    length: u64,
    crcs: Vec<u8>,
}

/// A segment of format 1.
fn first_segment(drive: u128, sequence: u64, entries: &[FirstEntry<'_>]) -> Vec<u8> {
    let mut bytes = b"WSTNJRN\0\x01\0\0\0".to_vec();
    bytes.extend_from_slice(&drive.to_le_bytes());
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes.extend(entries.iter().flat_map(|entry| frame_of(&stuff(&postcard::to_stdvec(entry).unwrap()))));
    bytes
}

#[test]
#[ignore = "writes a golden store, once"]
fn the_golden_store_of_format_1_is_written() {
    let rig = Rig::new();
    let drive = rig.drive();
    for name in layout::DIRECTORIES {
        fs::create_dir_all(drive.join(name)).unwrap();
    }
    fs::create_dir_all(rig.state().join("index")).unwrap();
    fs::write(rig.state().join("index/db"), b"what the first release looked up").unwrap();
    fs::write(drive.join("lock"), b"").unwrap();
    fs::write(rig.state().join("lock"), b"").unwrap();
    let id = 0x0f1e_2d3c_4b5a_6978_8796_a5b4_c3d2_e1f0_u128;
    let identity = format!("{{\n  \"format\": 1,\n  \"drive\": \"{id:032x}\"\n}}");
    fs::write(drive.join("waystation.json"), identity).unwrap();
    let large = body_of(BLOCK + 5, 210);
    for content in [&b"small"[..], &large, b"nobody's"] {
        let path = rig.blob_path(Digest::of(content));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let encoded = |name: &str, tag: &str, time: u64, content: &[u8]| {
        let record = tagged(name, tag, content);
        let body = BodyRef::Blob(Digest::of(content));
        encode_record(&Record { body, response_time: UnixMillis(time), ..record })
    };
    let sums = |content: &[u8]| {
        let crcs = content.chunks(BLOCK).flat_map(|block| crc32c::crc32c(block).to_le_bytes()).collect();
        FirstSums { block_size: BLOCK as u32, length: content.len() as u64, crcs }
    };
    let digest = |content: &[u8]| *Digest::of(content).as_bytes();
    let first = [
        FirstEntry::Stored(&encoded("small", "1", 2_000, b"small"), Some(sums(b"small"))),
        FirstEntry::Stored(&encoded("gone", "1", 2_000, b"gone"), Some(sums(b"gone"))),
        FirstEntry::Stored(&encoded("large", "1", 2_000, &large), Some(sums(&large))),
        FirstEntry::Stored(&encoded("copy of large", "2", 2_000, &large), None),
        FirstEntry::Stored(&encoded("forgotten", "1", 2_000, b"small"), None),
    ];
    let forgotten = tagged("forgotten", "1", b"small").variant();
    let second = [
        FirstEntry::Updated(&encoded("small", "1", 9_000, b"small")),
        FirstEntry::Forgotten(*key("forgotten").hash().as_bytes(), forgotten),
        FirstEntry::BlobGone(digest(b"gone")),
        FirstEntry::Blob(digest(b"nobody's"), sums(b"nobody's")),
    ];
    for (number, entries) in [(1, &first[..]), (2, &second[..])] {
        fs::write(drive.join(layout::segment(number)), first_segment(id, number, entries)).unwrap();
    }
    // Its maps had their header once.
    let (content, present, id) = (body_of(2 * BLOCK + 99, 211), BLOCK + 1000, PartialId(0x00c0_ffee));
    let record = Record { body: BodyRef::Partial(id), ..tagged("begun", "1", &content) };
    let mut map = map_file::encode_header(&record, BlockSize::new(BLOCK as u32).unwrap());
    for (block, bytes) in (0..).zip(content[..present].chunks(BLOCK)) {
        let written = MapRecord { block, valid_len: bytes.len() as u32, crc: crc32c::crc32c(bytes) };
        map.extend_from_slice(&written.encode());
    }
    fs::write(drive.join(layout::partial_map(id)), map).unwrap();
    fs::write(drive.join(layout::partial_data(id)), &content[..present]).unwrap();
    let contents = Contents {
        bodies: vec![
            stored("small", "1", 9_000, b"small"),
            stored("large", "1", 2_000, &large),
            stored("copy of large", "2", 2_000, &large),
        ],
        partials: vec![begun("begun", (2 * BLOCK + 99, 211), present, false)],
        nothing: ["forgotten", "gone", "never there"].map(str::to_owned).to_vec(),
        files: BTreeMap::new(),
        ..Contents::default()
    };
    keep(&rig, 1, contents);
}
