//! Stories of the whole store: what is stored is there again, whatever happened between.

mod bodies;
mod damage;
mod drives;
mod eviction;
#[cfg(target_os = "linux")]
pub(crate) mod faults;
mod filling;
mod flat;
#[cfg(target_os = "linux")]
mod full;
mod golden;
mod golden_write;
mod kills;
mod many;
mod outages;
mod pins;
pub(super) mod power;
mod read_in;
mod restart;
mod scale;
mod speed;
mod tools;
mod traces;
mod usage;
mod versions;
mod wide;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use tempfile::TempDir;

use super::*;
use crate::content::{BodyRef, ExpectedDigest, UnixMillis, VaryField};

const KIB: usize = 1024;
const BLOCK: usize = 64 * KIB;

struct Rig {
    root: TempDir,
    settings: Settings,
}

impl Rig {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        let settings = settings_in(root.path());
        Self { root, settings }
    }

    fn open(&self) -> Store {
        Store::open(self.settings.clone(), Arc::new(Metrics::new().unwrap())).unwrap()
    }

    fn drive(&self) -> PathBuf {
        self.root.path().join("drive")
    }

    fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    /// Leaves only what no start may do without: the state directory goes, and the snapshots of the index.
    fn forget_derived(&self) {
        fs::remove_dir_all(self.state()).unwrap();
        for drive in &self.settings.drives {
            let _ = fs::remove_file(drive.path.join(layout::SNAPSHOT));
        }
    }

    /// What a process would find that starts after this one was killed now.
    fn copy_of_now(&self) -> Self {
        let root = TempDir::new().unwrap();
        copy(self.root.path(), root.path());
        let settings = Settings { drives: Vec::new(), ..self.settings.clone() };
        let paths = settings_in(root.path());
        Self { settings: Settings { state: paths.state, drives: paths.drives, ..settings }, root }
    }

    fn blob_path(&self, digest: Digest) -> PathBuf {
        self.drive().join(layout::blob(&digest))
    }
}

fn settings_in(root: &Path) -> Settings {
    Settings {
        state: root.join("state"),
        drives: vec![DriveSettings { path: root.join("drive"), quota: 1 << 30, min_free: 0 }],
        block_size: BLOCK as u32,
        memory_body: 4096,
        // It would find what a test means to find.
        scrub_rate: 0,
        ..Settings::default()
    }
}

/// What goes while it is copied is left out, as after a kill.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else if let Err(error) = fs::copy(entry.path(), target) {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
    }
}

fn body_of(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn key(name: &str) -> CacheKey {
    CacheKey::new(format!("http://dl.example.com/{name}"))
}

fn record(name: &str, length: Option<u64>) -> Record {
    Record {
        key: key(name),
        status: StatusCode::OK,
        headers: HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("\"v1\""))]),
        request_time: UnixMillis(1_000),
        response_time: UnixMillis(2_000),
        vary: Vec::new(),
        length,
        expected: None,
        token_protected: false,
        body: BodyRef::Partial(crate::content::PartialId(0)),
    }
}

async fn fill(writer: &mut PartialWriter, from: usize, content: &[u8]) {
    for (number, piece) in content.chunks(50_000).enumerate() {
        let halves = piece.split_at(piece.len() / 2);
        let data = vec![Bytes::copy_from_slice(halves.0), Bytes::copy_from_slice(halves.1)];
        writer.write((from + number * 50_000) as u64, data).await.unwrap();
    }
}

async fn put(store: &Store, name: &str, content: &[u8]) -> Completed {
    let mut writer = store.create(record(name, Some(content.len() as u64))).await.unwrap();
    fill(&mut writer, 0, content).await;
    writer.complete(content.len() as u64).await.unwrap()
}

async fn read_all(body: &Body) -> Vec<u8> {
    let mut content = Vec::new();
    while (content.len() as u64) < body.length().unwrap() {
        content.extend_from_slice(&body.read(content.len() as u64, 100_000).await.unwrap());
    }
    content
}

/// What a client of `name` would get.
async fn get(store: &Store, name: &str) -> Option<Vec<u8>> {
    let variants = store.lookup(&key(name)).await;
    let entry = variants.iter().find(|entry| matches!(entry.record.body, BodyRef::Blob(_)))?;
    match store.body(entry).await {
        Ok(body) => Some(read_all(&body).await),
        Err(ReadError::Gone) => None,
        Err(error) => panic!("{error}"),
    }
}

fn is_blob(entry: &Entry) -> bool {
    matches!(entry.record.body, BodyRef::Blob(_))
}

/// Waits until it is so, a fraction of a minute at most.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let looking = async {
        while !is_so() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(outages::NEVER, looking).await.is_ok(), "{what}");
}

/// The bytes of a body that are present from its begin on.
async fn read_present(store: &Store, entry: &Arc<Entry>) -> Vec<u8> {
    let body = store.body(entry).await.unwrap();
    let mut content = Vec::new();
    while body.present_until(content.len() as u64) > content.len() as u64 {
        content.extend_from_slice(&body.read(content.len() as u64, 100_000).await.unwrap());
    }
    content
}

fn only_partial(variants: &Variants) -> Arc<Entry> {
    assert_eq!(variants.len(), 1, "{variants:?}");
    assert!(matches!(variants[0].record.body, BodyRef::Partial(_)));
    Arc::clone(&variants[0])
}

fn partial_data(rig: &Rig) -> PathBuf {
    let files = fs::read_dir(rig.drive().join("partial")).unwrap().map(|entry| entry.unwrap().path());
    files.into_iter().find(|path| path.extension().is_some_and(|e| e == "data")).unwrap()
}

fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt as _;
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}
