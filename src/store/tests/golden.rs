//! Stores as releases wrote them, in `tests/golden/format-<n>`: each is opened by this release, and all of it is there. They
//! are never changed; `golden_write` says how one is made for a new format.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::*;

/// What a golden store holds, in its `contents.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Contents {
    /// Each file and the SHA-256 of its bytes.
    pub(super) files: BTreeMap<String, String>,
    pub(super) bodies: Vec<Stored>,
    pub(super) partials: Vec<Begun>,
    /// Names under which nothing is stored.
    pub(super) nothing: Vec<String>,
    /// Files in quarantine.
    pub(super) quarantined: usize,
    pub(super) given: Option<Given>,
}

/// A complete body.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) etag: String,
    pub(super) response_time: u64,
    pub(super) digest: String,
    pub(super) is_older: bool,
}

/// A partial body: its bytes are those of `body_of(length, seed)`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Begun {
    pub(super) name: String,
    pub(super) length: usize,
    pub(super) seed: u64,
    /// Of the whole.
    pub(super) digest: String,
    pub(super) present: usize,
    pub(super) is_older: bool,
}

/// A client was given a version of something.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Given {
    pub(super) client: IpAddr,
    pub(super) name: String,
    pub(super) birth: u64,
}

/// Where all of them are.
pub(super) fn all() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Every file below a directory and its bytes.
pub(super) fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}

/// A copy of one, and what it holds.
fn copy_of(format: &str) -> (Rig, Contents) {
    let golden = all().join(format);
    let contents: Contents = serde_json::from_slice(&fs::read(golden.join("contents.json")).unwrap()).unwrap();
    let rig = Rig::new();
    for part in ["drive", "state"] {
        fs::create_dir_all(rig.root.path().join(part)).unwrap();
        copy(&golden.join(part), &rig.root.path().join(part));
    }
    (rig, contents)
}

fn formats() -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(all()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names.retain(|name| name.starts_with("format-"));
    names
}

fn etag(entry: &Entry) -> &str {
    entry.record.headers[http::header::ETAG].to_str().unwrap()
}

/// All complete bodies are there, with what is known of them, and what is not stored is not.
async fn has_all(store: &Store, contents: &Contents, way: &str) {
    store.ready().await;
    for stored in &contents.bodies {
        let known = store.known(&key(&stored.name)).await;
        let entries = if stored.is_older { known.older() } else { &known.current };
        let Some(entry) = entries.iter().find(|entry| etag(entry) == stored.etag) else {
            panic!("{way}: {stored:?} is not there: {known:?}")
        };
        assert_eq!(entry.record.response_time, UnixMillis(stored.response_time), "{way}: {stored:?}");
        assert_eq!(entry.record.status, StatusCode::OK);
        let content = read_present(store, entry).await;
        assert_eq!(Digest::of(&content).to_hex(), stored.digest, "{way}: {stored:?}");
        assert_eq!(entry.record.length, Some(content.len() as u64));
    }
    for name in &contents.nothing {
        let known = store.known(&key(name)).await;
        assert!(known.current.is_empty() && known.older().is_empty(), "{way}: {name}: {known:?}");
    }
}

async fn has_partials(store: &Store, contents: &Contents, way: &str) {
    for begun in &contents.partials {
        let known = store.known(&key(&begun.name)).await;
        let entries = if begun.is_older { known.older() } else { &known.current };
        assert_eq!(entries.len(), 1, "{way}: {begun:?}: {known:?}");
        let content = read_present(store, &entries[0]).await;
        assert!(content == body_of(begun.length, begun.seed)[..begun.present], "{way}: {begun:?}");
    }
}

#[test]
fn golden_stores_are_never_changed() {
    assert!(formats().contains(&format!("format-{}", layout::FORMAT)), "the format that is written has one");
    for format in formats() {
        let golden = all().join(&format);
        let contents: Contents = serde_json::from_slice(&fs::read(golden.join("contents.json")).unwrap()).unwrap();
        let mut files = tree(&golden);
        files.remove("contents.json");
        let now: BTreeMap<_, _> =
            files.iter().map(|(name, bytes)| (name.clone(), Digest::of(bytes).to_hex())).collect();
        assert_eq!(now, contents.files, "{format}: what was released does not change; a new format gets a new one");
    }
}

#[tokio::test]
async fn a_store_of_each_release_opens_in_place_and_all_of_it_is_there() {
    for format in formats() {
        for way in ["as it was left", "without its snapshot", "without its state", "the drive alone"] {
            let (rig, contents) = copy_of(&format);
            let has_state = ["as it was left", "without its snapshot"].contains(&way);
            if ["without its snapshot", "the drive alone"].contains(&way) {
                let _ = fs::remove_file(rig.drive().join(layout::SNAPSHOT));
            }
            if !has_state {
                fs::remove_dir_all(rig.state()).unwrap();
            }
            let way = format!("{format} {way}");
            for round in ["first", "second"] {
                let store = rig.open();
                let way = format!("{way}, {round}");
                has_all(&store, &contents, &way).await;
                has_partials(&store, &contents, &way).await;
                if let Some(given) = contents.given.as_ref().filter(|_| has_state) {
                    let held = store.given(given.client, &key(&given.name)).versions;
                    let births: Vec<_> = held.iter().map(|held| held.version.birth.0).collect();
                    assert_eq!(births, [given.birth], "{way}");
                }
            }
            let kept = fs::read_dir(rig.drive().join(layout::QUARANTINE)).unwrap().count();
            assert_eq!(kept, contents.quarantined, "{way}");
            assert!(!rig.state().join(layout::FORMER_INDEX).exists(), "{way}: what nobody needs any more is gone");
            let found = verify(&rig.drive(), |_| {}).unwrap();
            assert!(found.findings.is_empty(), "{way}: {found:?}");
        }
    }
}

#[tokio::test]
async fn rewriting_a_store_of_each_release_keeps_all() {
    for format in formats() {
        let (rig, contents) = copy_of(&format);
        let segments: Vec<_> = tree(&rig.drive()).into_keys().filter(|name| name.starts_with("journal/")).collect();
        {
            let store = rig.open();
            for begun in contents.partials.iter().filter(|begun| !begun.is_older) {
                let content = body_of(begun.length, begun.seed);
                let entry = only_partial(&store.lookup(&key(&begun.name)).await);
                let mut writer = store.resume(&entry).await.unwrap();
                assert_eq!(writer.contiguous(), begun.present as u64, "{format}: {begun:?}");
                fill(&mut writer, begun.present, &content[begun.present..]).await;
                let completed = writer.complete(begun.length as u64).await.unwrap();
                assert_eq!(completed.digest.to_hex(), begun.digest, "{format}: {begun:?}");
            }
            // So much that is out of date that what was true before is written anew.
            let mut entry = put(&store, "busy", b"busy").await.entry;
            for round in 0..2000 {
                let mut newer = record("busy", Some(4));
                newer.response_time = UnixMillis(10_000 + round);
                entry = store.update(&entry, newer);
                if round % 50 == 0 {
                    store.flush().await;
                }
            }
        }
        for segment in segments {
            assert!(!rig.drive().join(&segment).exists(), "{format}: {segment} was compacted");
        }
        for way in ["with a new snapshot", "from the new journal"] {
            if way.starts_with("from") {
                rig.forget_derived();
            }
            let store = rig.open();
            let way = format!("{format} {way}");
            has_all(&store, &contents, &way).await;
            for begun in contents.partials.iter().filter(|begun| !begun.is_older) {
                assert!(get(&store, &begun.name).await.unwrap() == body_of(begun.length, begun.seed), "{way}");
            }
        }
    }
}

/// Opens a store that is not to be opened; what it was refused with.
fn refused(rig: &Rig) -> OpenError {
    Store::open(rig.settings.clone(), Arc::new(Metrics::new().unwrap())).unwrap_err()
}

#[tokio::test]
async fn a_store_of_a_newer_format_is_refused_and_left_as_it_is() {
    let (rig, _) = copy_of(&format!("format-{}", layout::FORMAT));
    let identity = rig.drive().join(layout::IDENTITY);
    let text = fs::read_to_string(&identity).unwrap();
    let newer = text.replace(&format!("\"format\": {}", layout::FORMAT), "\"format\": 99, \"more\": [1]");
    assert_ne!(newer, text);
    fs::write(&identity, newer).unwrap();
    let before = tree(rig.root.path());
    for known in [false, true] {
        if known {
            // As a drive that is known it is opened in another way.
            let drives = serde_json::json!({ rig.drive().to_str().unwrap(): "0f" }).to_string();
            fs::write(rig.state().join("drives.json"), drives).unwrap();
        }
        let error = refused(&rig);
        assert!(matches!(error, OpenError::NewerFormat { found: 99, known: layout::FORMAT, .. }), "{error}");
        let told = error.to_string();
        let says = [rig.drive().to_str().unwrap(), "99", &layout::FORMAT.to_string()].map(|part| told.contains(part));
        assert_eq!(says, [true; 3], "{told}");
        let mut after = tree(rig.root.path());
        after.remove("state/drives.json");
        assert!(before == after, "nothing was written");
    }
    assert!(matches!(verify(&rig.drive(), |_| {}), Err(OpenError::NewerFormat { found: 99, .. })));
    let mut after = tree(rig.root.path());
    after.remove("state/drives.json");
    assert!(before == after, "nothing was written");
}

#[tokio::test]
async fn newer_segments_and_maps_are_left_as_they_are_while_the_rest_is_served() {
    let (rig, contents) = copy_of(&format!("format-{}", layout::FORMAT));
    let last = tree(&rig.drive()).into_keys().rfind(|name| name.starts_with("journal/")).unwrap();
    let begun = tree(&rig.drive()).into_keys().find(|name| name.ends_with(".map")).unwrap();
    let number = u64::from_str_radix(&last["journal/".len()..last.len() - ".log".len()], 16).unwrap();
    let (segment, map) = (layout::segment(number + 1), layout::partial_map(crate::content::PartialId(77)));
    let mut bytes = fs::read(rig.drive().join(&last)).unwrap();
    bytes[8] = 99;
    fs::write(rig.drive().join(&segment), bytes).unwrap();
    let mut bytes = fs::read(rig.drive().join(&begun)).unwrap();
    let copy = bytes.windows(8).position(|magic| magic == b"WSTNMAPC").unwrap();
    (bytes[8], bytes[copy + 8]) = (99, 99);
    fs::write(rig.drive().join(&map), bytes).unwrap();
    fs::write(rig.drive().join(layout::partial_data(crate::content::PartialId(77))), b"newer").unwrap();
    let before = tree(&rig.drive());
    let store = rig.open();
    has_all(&store, &contents, "beside newer files").await;
    assert_eq!(store.usage()[0].journal_gaps, 1, "an operator is told");
    put(&store, "more", b"more").await;
    drop(store);
    let after = tree(&rig.drive());
    for name in [&segment, &map, &map.replace(".map", ".data")] {
        assert!(before[name] == after[name], "{name}");
    }
}
