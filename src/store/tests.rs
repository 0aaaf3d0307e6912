//! Stories of the whole store: what is stored is there again, whatever happened between.

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
        ..Settings::default()
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
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

fn only_partial(variants: &Variants) -> Arc<Entry> {
    assert_eq!(variants.len(), 1, "{variants:?}");
    assert!(matches!(variants[0].record.body, BodyRef::Partial(_)));
    Arc::clone(&variants[0])
}

#[tokio::test]
async fn bodies_of_interesting_lengths_come_back() {
    let rig = Rig::new();
    let store = rig.open();
    for (seed, length) in [0, 1, 100, 4096, 4097, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 17].into_iter().enumerate() {
        let content = body_of(length, seed as u64);
        let name = format!("f{length}");
        let completed = put(&store, &name, &content).await;
        assert_eq!(completed.digest, Digest::of(&content));
        assert!(!completed.duplicate);
        assert_eq!(get(&store, &name).await.unwrap(), content, "{length} before the commit");
    }
    store.flush().await;
    for (seed, length) in [0, 1, 100, 4096, 4097, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 17].into_iter().enumerate() {
        let content = body_of(length, seed as u64);
        assert_eq!(get(&store, &format!("f{length}")).await.unwrap(), content);
        assert_eq!(fs::read(rig.blob_path(Digest::of(&content))).unwrap(), content, "the file is the content");
    }
    assert_eq!(fs::read_dir(rig.drive().join("partial")).unwrap().count(), 0, "no leftovers");
    assert_eq!(store.usage()[0].blobs, 9);
    assert!(store.lookup(&key("absent")).await.is_empty());
}

#[tokio::test]
async fn a_restart_keeps_everything_with_the_index_without_it_and_with_garbage_for_it() {
    let rig = Rig::new();
    let content = body_of(3 * BLOCK + 5, 1);
    {
        let store = rig.open();
        put(&store, "a", &content).await;
        put(&store, "small", b"small").await;
        let entry = Arc::clone(&store.lookup(&key("small")).await[0]);
        put(&store, "forgotten", b"forgotten").await;
        store.remove(&store.lookup(&key("forgotten")).await[0]);
        assert!(store.lookup(&key("forgotten")).await.is_empty());
        let mut newer = record("small", Some(5));
        newer.response_time = UnixMillis(9_000);
        newer.headers.insert("x-seen", HeaderValue::from_static("304"));
        let updated = store.update(&entry, newer);
        assert_eq!(updated.record.body, entry.record.body);
        assert_eq!(store.lookup(&key("small")).await[0].record.response_time, UnixMillis(9_000));
    }
    for way in ["kept", "deleted", "garbage", "kept again"] {
        match way {
            "deleted" => fs::remove_dir_all(rig.state()).unwrap(),
            "garbage" => {
                for entry in fs::read_dir(rig.state().join("index")).unwrap() {
                    let path = entry.unwrap().path();
                    if path.is_file() {
                        fs::write(path, body_of(10_000, 7)).unwrap();
                    }
                }
            }
            _ => {}
        }
        let store = rig.open();
        store.ready().await;
        assert_eq!(get(&store, "a").await.unwrap(), content, "{way}");
        assert_eq!(get(&store, "small").await.unwrap(), b"small", "{way}");
        let small = store.lookup(&key("small")).await;
        assert_eq!(small[0].record.response_time, UnixMillis(9_000), "{way}: the update is kept");
        assert_eq!(small[0].record.headers["x-seen"], "304");
        assert!(store.lookup(&key("forgotten")).await.is_empty(), "{way}");
    }
}

#[tokio::test]
async fn what_was_flushed_survives_a_kill_and_the_rest_is_missing_or_whole() {
    let rig = Rig::new();
    let store = rig.open();
    let content = body_of(2 * BLOCK, 3);
    put(&store, "durable", &content).await;
    let mut writer = store.create(record("begun", Some(4 * BLOCK as u64))).await.unwrap();
    fill(&mut writer, 0, &content).await;
    store.flush().await;
    put(&store, "late", &body_of(BLOCK, 4)).await;
    let copy = rig.copy_of_now();
    drop(writer);
    drop(store);
    let store = copy.open();
    assert_eq!(get(&store, "durable").await.unwrap(), content);
    assert!(get(&store, "late").await.is_none_or(|late| late == body_of(BLOCK, 4)));
    let entry = only_partial(&store.lookup(&key("begun")).await);
    let body = store.body(&entry).await.unwrap();
    assert_eq!(body.present_until(0), 2 * BLOCK as u64);
    assert_eq!(body.read(0, usize::MAX).await.unwrap(), content[..BLOCK], "checked block by block");
    assert_eq!(body.read(70_000, 10).await.unwrap(), content[70_000..70_010]);
}

#[tokio::test]
async fn a_body_is_resumed_over_a_restart_and_its_damaged_block_is_fetched_again() {
    let content = body_of(6 * BLOCK + 99, 5);
    let name = "big";
    let rig = Rig::new();
    {
        let store = rig.open();
        let mut writer = store.create(record(name, Some(content.len() as u64))).await.unwrap();
        fill(&mut writer, 0, &content[..3 * BLOCK + 1000]).await;
        // A part further on, with a gap before it.
        fill(&mut writer, 5 * BLOCK, &content[5 * BLOCK..]).await;
        drop(writer);
        let entry = only_partial(&store.lookup(&key(name)).await);
        let mut writer = store.resume(&entry).await.unwrap();
        assert!(store.resume(&entry).await.is_none(), "it has a writer");
        assert_eq!(writer.contiguous(), 3 * BLOCK as u64 + 1000);
        fill(&mut writer, 3 * BLOCK + 1000, &content[3 * BLOCK + 1000..3 * BLOCK + 2000]).await;
    }
    for damaged in [false, true] {
        let copy = rig.copy_of_now();
        if damaged {
            // Twice behind the last midstate: in what is hashed anew, and behind the gap.
            flip(&partial_data(&copy), 3 * BLOCK as u64 + 5);
            flip(&partial_data(&copy), 6 * BLOCK as u64 + 5);
        }
        let store = copy.open();
        let entry = only_partial(&store.lookup(&key(name)).await);
        let mut writer = store.resume(&entry).await.unwrap();
        let contiguous = writer.contiguous() as usize;
        assert_eq!(contiguous, if damaged { 3 * BLOCK } else { 3 * BLOCK + 2000 });
        fill(&mut writer, contiguous, &content[contiguous..5 * BLOCK]).await;
        if damaged {
            assert_eq!(writer.contiguous(), 6 * BLOCK as u64, "the block behind the gap was dropped too");
            fill(&mut writer, 6 * BLOCK, &content[6 * BLOCK..]).await;
        }
        let completed = writer.complete(content.len() as u64).await.unwrap();
        assert_eq!(completed.digest, Digest::of(&content));
        assert_eq!(get(&store, name).await.unwrap(), content);
    }
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

#[tokio::test]
async fn a_damaged_block_of_a_partial_is_never_served() {
    let rig = Rig::new();
    let content = body_of(3 * BLOCK, 6);
    {
        let store = rig.open();
        let mut writer = store.create(record("p", Some(4 * BLOCK as u64))).await.unwrap();
        fill(&mut writer, 0, &content).await;
    }
    flip(&partial_data(&rig), BLOCK as u64 + 77);
    let store = rig.open();
    let body = store.body(&only_partial(&store.lookup(&key("p")).await)).await.unwrap();
    assert_eq!(body.read(0, BLOCK).await.unwrap(), content[..BLOCK]);
    assert!(matches!(body.read(BLOCK as u64, 10).await, Err(ReadError::Damaged { block: 1 })));
    assert!(matches!(body.read(BLOCK as u64, 10).await, Err(ReadError::Absent { .. })), "absent from now on");
    assert_eq!(body.present_until(0), BLOCK as u64);
    assert_eq!(body.read(2 * BLOCK as u64, 10).await.unwrap(), content[2 * BLOCK..2 * BLOCK + 10]);
}

#[tokio::test]
async fn a_damaged_blob_is_quarantined_missing_for_all_its_urls_and_can_be_stored_again() {
    let rig = Rig::new();
    let content = body_of(3 * BLOCK, 8);
    let digest = Digest::of(&content);
    {
        let store = rig.open();
        put(&store, "a", &content).await;
        assert!(put(&store, "b", &content).await.duplicate);
    }
    flip(&rig.blob_path(digest), 2 * BLOCK as u64 + 1);
    {
        let metrics = Arc::new(Metrics::new().unwrap());
        let store = Store::open(rig.settings.clone(), Arc::clone(&metrics)).unwrap();
        let body = store.body(&store.lookup(&key("a")).await[0]).await.unwrap();
        assert_eq!(body.read(0, 10).await.unwrap(), content[..10], "good blocks are served");
        assert!(matches!(body.read(2 * BLOCK as u64, 10).await, Err(ReadError::Damaged { block: 2 })));
        assert_eq!(metrics.damaged_blocks.get(), 1);
        assert!(store.lookup(&key("a")).await.is_empty());
        assert!(store.lookup(&key("b")).await.is_empty());
        store.flush().await;
        assert!(!rig.blob_path(digest).exists());
        let quarantined = rig.drive().join("quarantine").join(digest.to_hex());
        assert!(quarantined.exists());
        assert!(fs::read_to_string(quarantined.with_extension("reason")).unwrap().contains("block 2"));
    }
    let store = rig.open();
    assert!(store.lookup(&key("a")).await.is_empty(), "also after a restart");
    assert!(!put(&store, "a", &content).await.duplicate);
    assert_eq!(get(&store, "a").await.unwrap(), content);
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_open_is_noticed() {
    let rig = Rig::new();
    let store = rig.open();
    let content = body_of(2 * BLOCK, 9);
    put(&store, "a", &content).await;
    store.flush().await;
    let entry = Arc::clone(&store.lookup(&key("a")).await[0]);
    let Body::Blob(blob) = store.body(&entry).await.unwrap() else { panic!("not a blob") };
    flip(&rig.blob_path(blob.digest()), 3);
    blob.look_again_now();
    assert!(matches!(Body::Blob(blob).read(0, 10).await, Err(ReadError::Damaged { block: 0 })));
    assert!(store.lookup(&key("a")).await.is_empty());
}

#[tokio::test]
async fn one_copy_serves_many_urls() {
    let rig = Rig::new();
    let content = body_of(BLOCK + 1, 10);
    {
        let store = rig.open();
        assert!(!put(&store, "0", &content).await.duplicate);
        let mut readers = Vec::new();
        for number in 1..20 {
            let name = number.to_string();
            let mut writer = store.create(record(&name, None)).await.unwrap();
            fill(&mut writer, 0, &content).await;
            readers.push(Arc::clone(writer.partial()));
            assert!(writer.complete(content.len() as u64).await.unwrap().duplicate);
        }
        store.flush().await;
        for reader in readers {
            assert_eq!(read_all(&Body::Partial(reader)).await, content, "who reads the dropped copy goes on");
        }
        assert_eq!(store.usage()[0].blobs, 1);
        assert!(store.usage()[0].used < 3 * BLOCK as u64, "{:?}", store.usage());
    }
    let store = rig.open();
    for number in 0..20 {
        assert_eq!(get(&store, &number.to_string()).await.unwrap(), content);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_content_completed_many_times_at_once_is_stored_once() {
    let rig = Rig::new();
    let store = rig.open();
    let content = body_of(BLOCK, 11);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..16 {
        let (store, content) = (store.clone(), content.clone());
        tasks.spawn(async move { put(&store, &number.to_string(), &content).await.duplicate });
    }
    let duplicates = tasks.join_all().await.into_iter().filter(|duplicate| *duplicate).count();
    assert_eq!(duplicates, 15);
    store.flush().await;
    for number in 0..16 {
        assert_eq!(get(&store, &number.to_string()).await.unwrap(), content);
    }
}

#[tokio::test]
async fn many_small_bodies_stay_below_the_quota() {
    let rig = Rig::new();
    let quota = 100 * 4096;
    let settings =
        Settings { drives: vec![DriveSettings { quota, ..rig.settings.drives[0].clone() }], ..rig.settings.clone() };
    let metrics = Arc::new(Metrics::new().unwrap());
    let store = Store::open(settings.clone(), Arc::clone(&metrics)).unwrap();
    for number in 0..300_u64 {
        let name = number.to_string();
        put(&store, &name, &body_of(3000, number)).await;
        assert!(store.usage()[0].used <= quota, "{:?}", store.usage());
    }
    assert!(metrics.evictions.get() >= 200);
    assert_eq!(get(&store, "299").await.unwrap(), body_of(3000, 299));
    store.flush().await;
    let mut kept = Vec::new();
    for number in 0..300_u64 {
        if let Some(content) = get(&store, &number.to_string()).await {
            assert_eq!(content, body_of(3000, number));
            kept.push(number);
        }
    }
    assert!(kept.len() >= 80, "{}", kept.len());
    drop(store);
    let store = Store::open(settings, metrics).unwrap();
    for number in 0..300_u64 {
        let there = get(&store, &number.to_string()).await.is_some();
        assert_eq!(there, kept.contains(&number), "{number}");
    }
    let too_large = store.create(record("huge", Some(quota + 1))).await;
    assert!(matches!(too_large, Err(StoreError::NoSpace { .. })));
}

#[tokio::test]
async fn abandoned_partials_make_room_and_written_ones_do_not() {
    let rig = Rig::new();
    let quota = 10 * BLOCK as u64;
    let settings =
        Settings { drives: vec![DriveSettings { quota, ..rig.settings.drives[0].clone() }], ..rig.settings.clone() };
    let store = Store::open(settings, Arc::new(Metrics::new().unwrap())).unwrap();
    let mut abandoned = store.create(record("abandoned", Some(5 * BLOCK as u64))).await.unwrap();
    fill(&mut abandoned, 0, &body_of(4 * BLOCK, 1)).await;
    drop(abandoned);
    let mut written = store.create(record("written", Some(4 * BLOCK as u64))).await.unwrap();
    fill(&mut written, 0, &body_of(4 * BLOCK, 2)).await;
    let content = body_of(5 * BLOCK, 3);
    put(&store, "new", &content).await;
    assert!(store.lookup(&key("abandoned")).await.is_empty());
    let other = store.create(record("other", Some(8 * BLOCK as u64))).await;
    assert!(matches!(other, Err(StoreError::NoSpace { .. })), "the written one is in the way");
    let completed = written.complete(4 * BLOCK as u64).await.unwrap();
    assert_eq!(read_all(&store.body(&completed.entry).await.unwrap()).await, body_of(4 * BLOCK, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reader_of_a_growing_body_misses_a_wake_up() {
    let rig = Rig::new();
    let store = rig.open();
    let content = Arc::new(body_of(10 * BLOCK + 3, 12));
    let mut writer = store.create(record("grows", None)).await.unwrap();
    let mut readers = tokio::task::JoinSet::new();
    for number in 0..100 {
        let (partial, content) = (Arc::clone(writer.partial()), Arc::clone(&content));
        readers.spawn(async move {
            let mut offset = number * 1000;
            loop {
                // Every other wait is given up once, as a client that times out does.
                if offset % 2 == 0 {
                    tokio::select! { biased; _ = partial.wait(offset) => {}, () = tokio::task::yield_now() => {} }
                }
                match partial.wait(offset).await {
                    Progress::Present(end) => {
                        let body = Body::Partial(Arc::clone(&partial));
                        let piece = body.read(offset, (end - offset).min(30_001) as usize).await.unwrap();
                        let start = offset as usize;
                        assert_eq!(piece, content[start..start + piece.len()]);
                        offset += piece.len() as u64;
                    }
                    Progress::Ended(length) => return assert_eq!(offset, length),
                    Progress::Stopped => panic!("stopped"),
                }
            }
        });
    }
    for (number, piece) in content.chunks(7001).enumerate() {
        writer.write(number as u64 * 7001, vec![Bytes::copy_from_slice(piece)]).await.unwrap();
    }
    writer.complete(content.len() as u64).await.unwrap();
    while let Some(reader) = readers.join_next().await {
        reader.unwrap();
    }
}

#[tokio::test]
async fn waiters_learn_that_the_writer_stopped() {
    let rig = Rig::new();
    let store = rig.open();
    let mut writer = store.create(record("s", Some(100))).await.unwrap();
    writer.write(0, vec![Bytes::from_static(b"0123456789")]).await.unwrap();
    let partial = Arc::clone(writer.partial());
    let waiter = tokio::spawn(async move { partial.wait(10).await });
    assert_eq!(writer.partial().wait(3).await, Progress::Present(10));
    let entry = Arc::clone(writer.entry());
    drop(writer);
    assert_eq!(waiter.await.unwrap(), Progress::Stopped);
    let writer = store.resume(&entry).await.unwrap();
    assert!(matches!(writer.complete(100).await, Err(CompleteError::Short { missing: 90 })));
    let writer = store.resume(&entry).await.unwrap();
    let partial = Arc::clone(writer.partial());
    writer.discard().await;
    assert_eq!(partial.wait(0).await, Progress::Stopped);
    assert!(store.lookup(&key("s")).await.is_empty());
    assert!(store.resume(&entry).await.is_none());
}

#[tokio::test]
async fn a_wrong_digest_is_quarantined_and_forgotten() {
    let rig = Rig::new();
    let store = rig.open();
    put(&store, "x", b"older").await;
    let mut wrong = record("x", Some(3));
    wrong.expected = Some(ExpectedDigest::Upstream(Digest::of(b"abc")));
    let mut writer = store.create(wrong.clone()).await.unwrap();
    assert_eq!(store.lookup(&key("x")).await.len(), 2, "the older one stays beside it");
    writer.write(0, vec![Bytes::from_static(b"abd")]).await.unwrap();
    let follower = Arc::clone(writer.partial());
    match writer.complete(3).await {
        Err(CompleteError::Mismatch { expected, actual }) => {
            assert_eq!((expected, actual), (Digest::of(b"abc"), Digest::of(b"abd")));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(Body::Partial(follower).read(0, 3).await, Err(ReadError::Gone)));
    assert_eq!(get(&store, "x").await.unwrap(), b"older");
    let quarantined: Vec<_> = fs::read_dir(rig.drive().join("quarantine")).unwrap().collect();
    assert_eq!(quarantined.len(), 2, "bytes and reason");
    let mut writer = store.create(wrong).await.unwrap();
    writer.write(0, vec![Bytes::from_static(b"abc")]).await.unwrap();
    writer.complete(3).await.unwrap();
    let variants = store.lookup(&key("x")).await;
    assert_eq!(variants.len(), 1, "it replaced the older one");
    assert_eq!(get(&store, "x").await.unwrap(), b"abc");
}

#[tokio::test]
async fn misplaced_writes_change_nothing() {
    let rig = Rig::new();
    let store = rig.open();
    let content = body_of(2 * BLOCK, 13);
    let mut writer = store.create(record("m", Some(2 * BLOCK as u64))).await.unwrap();
    writer.write(0, vec![Bytes::copy_from_slice(&content[..100])]).await.unwrap();
    for (offset, length) in [(0, 10), (50, 10), (101, 10), (BLOCK + 1, 1), (BLOCK, BLOCK + 1)] {
        let outcome = writer.write(offset as u64, vec![Bytes::from(vec![0; length])]).await;
        assert!(matches!(outcome, Err(StoreError::Misplaced { .. })), "{offset} {length}");
    }
    let far = writer.write(u64::MAX - 5, vec![Bytes::from_static(b"0123456789")]).await;
    assert!(matches!(far, Err(StoreError::Misplaced { .. })));
    fill(&mut writer, 100, &content[100..]).await;
    assert_eq!(writer.complete(2 * BLOCK as u64).await.unwrap().digest, Digest::of(&content));
}

#[tokio::test]
async fn a_drive_has_one_process() {
    let rig = Rig::new();
    let store = rig.open();
    let metrics = Arc::new(Metrics::new().unwrap());
    assert!(matches!(Store::open(rig.settings.clone(), Arc::clone(&metrics)), Err(OpenError::InUse { .. })));
    let elsewhere = Settings { state: rig.root.path().join("other"), ..rig.settings.clone() };
    assert!(matches!(Store::open(elsewhere, metrics), Err(OpenError::InUse { .. })));
    drop(store);
    rig.open().ready().await;
}

#[tokio::test]
async fn newer_and_damaged_drives_are_refused() {
    for (text, newer) in [(r#"{"format":99}"#, true), ("{", false), (r#"{"format":1,"drive":"x"}"#, false)] {
        let rig = Rig::new();
        fs::create_dir_all(rig.drive()).unwrap();
        fs::write(rig.drive().join("waystation.json"), text).unwrap();
        let error = Store::open(rig.settings.clone(), Arc::new(Metrics::new().unwrap())).unwrap_err();
        assert_eq!(matches!(error, OpenError::NewerFormat { found: 99, .. }), newer, "{error}");
        assert_eq!(fs::read_to_string(rig.drive().join("waystation.json")).unwrap(), text, "left as it was");
    }
}

#[tokio::test]
async fn a_torn_journal_costs_what_was_torn_and_nothing_else() {
    let rig = Rig::new();
    {
        let store = rig.open();
        for number in 0..5_u64 {
            put(&store, &number.to_string(), &body_of(2000, number)).await;
            store.flush().await;
        }
    }
    fs::remove_dir_all(rig.state()).unwrap();
    let segment = fs::read_dir(rig.drive().join("journal")).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(&segment).unwrap();
    fs::write(&segment, &bytes[..bytes.len() - 7]).unwrap();
    {
        let store = rig.open();
        for number in 0..4_u64 {
            assert_eq!(get(&store, &number.to_string()).await.unwrap(), body_of(2000, number));
        }
        assert!(store.lookup(&key("4")).await.is_empty());
        assert!(!put(&store, "4", &body_of(2000, 4)).await.duplicate, "the orphan's place is taken");
    }
    fs::remove_dir_all(rig.state()).unwrap();
    let store = rig.open();
    for number in 0..5_u64 {
        assert_eq!(get(&store, &number.to_string()).await.unwrap(), body_of(2000, number));
    }
}

#[tokio::test]
async fn a_missing_blob_is_forgotten_by_all_its_urls() {
    let rig = Rig::new();
    let content = body_of(BLOCK, 14);
    {
        let store = rig.open();
        put(&store, "a", &content).await;
        put(&store, "b", &content).await;
    }
    fs::remove_file(rig.blob_path(Digest::of(&content))).unwrap();
    let store = rig.open();
    let entry = Arc::clone(&store.lookup(&key("a")).await[0]);
    assert!(matches!(store.body(&entry).await, Err(ReadError::Gone)));
    assert!(store.lookup(&key("a")).await.is_empty());
    assert!(store.lookup(&key("b")).await.is_empty());
    assert!(!put(&store, "a", &content).await.duplicate);
    assert_eq!(get(&store, "b").await.unwrap_or_else(|| content.clone()), content);
    assert!(store.blob(Digest::of(&content)).await.is_some());
    assert!(store.blob(Digest::of(b"never seen")).await.is_none());
}

#[tokio::test]
async fn variants_of_a_key_are_apart_and_bounded() {
    let rig = Rig::new();
    let store = rig.open();
    let with = |language: &str| {
        let mut record = record("v", Some(2));
        let value = Some(HeaderValue::from_str(language).unwrap());
        record.vary = vec![VaryField { name: http::header::ACCEPT_LANGUAGE, value }];
        record
    };
    for number in 10..30 {
        let mut writer = store.create(with(&number.to_string())).await.unwrap();
        writer.write(0, vec![Bytes::from(number.to_string())]).await.unwrap();
        writer.complete(2).await.unwrap();
    }
    let variants = store.lookup(&key("v")).await;
    assert_eq!(variants.len(), 8);
    for (entry, number) in variants.iter().zip((10..30).rev()) {
        assert_eq!(entry.record.variant(), with(&number.to_string()).variant());
    }
    drop(store);
    assert_eq!(rig.open().lookup(&key("v")).await.len(), 8);
}

#[tokio::test]
async fn a_look_up_before_ready_waits_and_hot_ones_never_lie() {
    let rig = Rig::new();
    {
        let store = rig.open();
        put(&store, "a", b"content").await;
    }
    let store = rig.open();
    assert!(store.lookup_hot(&key("a")).is_none(), "unknown is not absent");
    assert_eq!(store.lookup(&key("a")).await.len(), 1);
    assert_eq!(store.lookup_hot(&key("a")).unwrap().len(), 1);
    assert_eq!(store.lookup(&key("b")).await.len(), 0);
    assert_eq!(store.lookup_hot(&key("b")).unwrap().len(), 0);
    let writer = store.create(record("b", None)).await.unwrap();
    assert_eq!(store.lookup_hot(&key("b")).unwrap().len(), 1, "no stale negative");
    writer.discard().await;
    assert_eq!(store.lookup_hot(&key("b")).unwrap().len(), 0);
}

#[tokio::test]
async fn an_update_of_a_partial_survives_a_restart() {
    let rig = Rig::new();
    let content = body_of(BLOCK + 5, 15);
    {
        let store = rig.open();
        let mut writer = store.create(record("u", Some(content.len() as u64))).await.unwrap();
        fill(&mut writer, 0, &content[..BLOCK]).await;
        let mut newer = record("u", Some(content.len() as u64));
        newer.response_time = UnixMillis(7_000);
        store.update(writer.entry(), newer);
        assert_eq!(only_partial(&store.lookup(&key("u")).await).record.response_time, UnixMillis(7_000));
    }
    let store = rig.open();
    let entry = only_partial(&store.lookup(&key("u")).await);
    assert_eq!(entry.record.response_time, UnixMillis(7_000));
    let mut writer = store.resume(&entry).await.unwrap();
    assert_eq!(writer.contiguous(), BLOCK as u64);
    fill(&mut writer, BLOCK, &content[BLOCK..]).await;
    writer.complete(content.len() as u64).await.unwrap();
    assert_eq!(store.lookup(&key("u")).await[0].record.response_time, UnixMillis(7_000));
    assert_eq!(get(&store, "u").await.unwrap(), content);
}

#[tokio::test]
async fn foreign_files_are_left_alone() {
    let rig = Rig::new();
    let foreign = ["note.txt", "partial/README", "partial/zz.data", "journal/old.log", "quarantine/mine"];
    {
        rig.open().ready().await;
    }
    for name in foreign {
        fs::write(rig.drive().join(name), "mine").unwrap();
    }
    let store = rig.open();
    put(&store, "a", b"content").await;
    store.flush().await;
    for name in foreign {
        assert_eq!(fs::read_to_string(rig.drive().join(name)).unwrap(), "mine", "{name}");
    }
}

#[tokio::test]
async fn a_cut_between_rename_and_journal_costs_no_transfer() {
    let rig = Rig::new();
    let content = body_of(2 * BLOCK + 9, 16);
    {
        let store = rig.open();
        put(&store, "other", &body_of(2 * BLOCK + 9, 17)).await;
        let mut writer = store.create(record("cut", None)).await.unwrap();
        fill(&mut writer, 0, &content).await;
    }
    let blob = rig.blob_path(Digest::of(&content));
    fs::create_dir_all(blob.parent().unwrap()).unwrap();
    fs::rename(partial_data(&rig), &blob).unwrap();
    let store = rig.open();
    let entry = only_partial(&store.lookup(&key("cut")).await);
    let writer = store.resume(&entry).await.unwrap();
    assert_eq!(writer.contiguous(), content.len() as u64);
    assert_eq!(writer.complete(content.len() as u64).await.unwrap().digest, Digest::of(&content));
    assert_eq!(get(&store, "cut").await.unwrap(), content);
    assert_eq!(get(&store, "other").await.unwrap(), body_of(2 * BLOCK + 9, 17));
}

#[tokio::test]
async fn the_journal_stays_small_and_complete() {
    let rig = Rig::new();
    {
        let store = rig.open();
        put(&store, "kept", b"kept").await;
        put(&store, "replaced", b"first").await;
        put(&store, "copy of first", b"first").await;
        put(&store, "replaced", b"second").await;
        let mut entry = Arc::clone(&store.lookup(&key("kept")).await[0]);
        for round in 0..2000 {
            let mut newer = record("kept", Some(4));
            newer.response_time = UnixMillis(10_000 + round);
            entry = store.update(&entry, newer);
            if round % 50 == 0 {
                store.flush().await;
            }
        }
    }
    let journal = rig.drive().join("journal");
    let size: u64 = fs::read_dir(&journal).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(size < 150_000, "{size}");
    assert!(!journal.join("0000000000000001.log").exists(), "the first segment is gone");
    fs::remove_dir_all(rig.state()).unwrap();
    let store = rig.open();
    assert_eq!(store.lookup(&key("kept")).await[0].record.response_time, UnixMillis(11_999));
    assert_eq!(get(&store, "kept").await.unwrap(), b"kept");
    assert_eq!(get(&store, "replaced").await.unwrap(), b"second");
    assert_eq!(get(&store, "copy of first").await.unwrap(), b"first");
}
