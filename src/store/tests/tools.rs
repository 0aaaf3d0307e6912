//! Drives that are made, taken over and emptied by tools.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

fn bodies(count: u64) -> Vec<(String, Vec<u8>)> {
    (0..count).map(|number| (number.to_string(), body_of(BLOCK + 7, 1200 + number))).collect()
}

/// Three drives: the first has these bodies, some under two names, some with an older version, and one that is not complete.
async fn one_full_drive() -> (Rig, Vec<(String, Vec<u8>)>) {
    let mut rig = Rig::watched(3);
    let all = rig.settings.drives.clone();
    let mut bodies = bodies(12);
    rig.settings.drives.truncate(1);
    {
        let store = rig.open();
        for (name, content) in &bodies {
            put(&store, name, content).await;
        }
        for number in 0..3 {
            let other = (format!("also{number}"), bodies[number].1.clone());
            assert!(put(&store, &other.0, &other.1).await.duplicate);
            bodies.push(other);
        }
        let changed = (bodies[5].0.clone(), body_of(3 * BLOCK, 1300));
        put(&store, &changed.0, &changed.1).await;
        bodies[5] = changed;
        let mut writer = store.create(record("part", Some(4 * BLOCK as u64))).await.unwrap();
        fill(&mut writer, 0, &body_of(4 * BLOCK, 1400)[..2 * BLOCK]).await;
        drop(writer);
        store.flush().await;
    }
    rig.settings.drives = all;
    drop(rig.open());
    (rig, bodies)
}

async fn check(store: &Store, bodies: &[(String, Vec<u8>)]) {
    for (name, content) in bodies {
        assert!(get(store, name).await.as_ref() == Some(content), "{name}");
    }
    let part = only_partial(&store.lookup(&key("part")).await);
    let mut writer = store.resume(&part).await.unwrap();
    let content = body_of(4 * BLOCK, 1400);
    let from = writer.contiguous() as usize;
    assert_eq!(from, 2 * BLOCK, "what came of it is there");
    fill(&mut writer, from, &content[from..]).await;
    writer.complete(content.len() as u64).await.unwrap();
    assert!(get(store, "part").await.unwrap() == content);
}

#[tokio::test]
async fn a_drained_drive_is_empty_and_everything_is_on_the_others() {
    let (mut rig, bodies) = one_full_drive().await;
    let mut last = None;
    let drained = drain(&rig.settings, &rig.path_of(0), false, &mut |at| last = Some(at)).unwrap();
    assert_eq!((drained.blobs, drained.partials), (13, 1), "{drained:?}");
    assert!(drained.left.is_empty());
    assert!(last.is_some_and(|at| at.done == at.all));
    for directory in ["blobs/sha256", "partial"] {
        let left = walk(&rig.path_of(0).join(directory));
        assert!(left.is_empty(), "{left:?}");
    }
    let again = drain(&rig.settings, &rig.path_of(0), false, &mut |_| {}).unwrap();
    assert_eq!(again, Drained::default());
    rig.settings.drives.remove(0);
    let store = rig.open();
    let older = store.known(&key(&bodies[5].0)).await;
    assert_eq!(older.older().len(), 1, "it came along");
    check(&store, &bodies).await;
    // What was there before is counted in the background.
    until("spread over both", || store.usage().iter().all(|usage| usage.blobs > 0)).await;
    drop(store);
    fs::remove_dir_all(rig.state()).unwrap();
    let store = rig.open();
    for (name, content) in &bodies {
        assert!(get(&store, name).await.as_ref() == Some(content), "{name}");
    }
}

fn walk(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_drain_may_be_stopped_at_any_moment_and_run_again() {
    for stop in [0, 1, 3, 9, 13] {
        let (mut rig, bodies) = one_full_drive().await;
        let mut calls = 0;
        let stopped = catch_unwind(AssertUnwindSafe(|| {
            drain(&rig.settings, &rig.path_of(0), false, &mut |_| {
                assert!(calls < stop, "stopped");
                calls += 1;
            })
        }));
        assert!(stopped.is_err());
        {
            let store = rig.open();
            for (name, content) in &bodies {
                assert!(get(&store, name).await.as_ref() == Some(content), "{name}, stopped at {stop}");
            }
        }
        assert!(drain(&rig.settings, &rig.path_of(0), false, &mut |_| {}).unwrap().left.is_empty());
        rig.settings.drives.remove(0);
        check(&rig.open(), &bodies).await;
    }
}

#[tokio::test]
async fn what_does_not_fit_or_is_damaged_stays_and_is_told() {
    let (mut rig, bodies) = one_full_drive().await;
    rig.settings.drives.truncate(2);
    rig.settings.drives[1].quota = 6 * BLOCK as u64;
    let damaged = rig.path_of(0).join(layout::blob(&Digest::of(&bodies[0].1)));
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[10] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let drained = drain(&rig.settings, &rig.path_of(0), false, &mut |_| {}).unwrap();
    let why = |text: &str| drained.left.iter().filter(|(_, why)| why.contains(text)).count();
    assert_eq!(why("do not have its digest"), 1, "{drained:?}");
    assert!(why("room") == 8 && drained.left_bytes > 8 * BLOCK as u64, "{drained:?}");
    assert_eq!(drained.blobs, 5);
    rig.settings.drives[1].quota = 1 << 30;
    let store = rig.open();
    for (name, content) in bodies.iter().filter(|(_, content)| *content != bodies[0].1) {
        assert!(get(&store, name).await.as_ref() == Some(content), "{name}");
    }
    drop(store);
    let evicted = drain(&rig.settings, &rig.path_of(0), true, &mut |_| {}).unwrap();
    assert!(evicted.left.is_empty() && evicted.blobs == 8, "{evicted:?}");
    assert!(walk(&rig.path_of(0).join("blobs/sha256")).is_empty());
}

#[tokio::test]
async fn content_moves_although_the_pins_cannot() {
    let (mut rig, bodies) = one_full_drive().await;
    // A newer release was here.
    let title = "waystation-pins 99";
    let newer = format!("{:08x} {title}\n", crc32c::crc32c(title.as_bytes()));
    fs::write(rig.path_of(1).join(layout::PINS), newer).unwrap();
    let drained = drain(&rig.settings, &rig.path_of(0), false, &mut |_| {}).unwrap();
    assert_eq!((drained.blobs, drained.partials), (13, 1), "{drained:?}");
    let [(name, why)] = &drained.left[..] else { panic!("{drained:?}") };
    assert!(name == layout::PINS && why.contains(rig.path_of(1).to_str().unwrap()), "{drained:?}");
    fs::remove_file(rig.path_of(1).join(layout::PINS)).unwrap();
    let again = drain(&rig.settings, &rig.path_of(0), false, &mut |_| {}).unwrap();
    assert_eq!(again, Drained::default());
    rig.settings.drives.remove(0);
    check(&rig.open(), &bodies).await;
}

#[tokio::test]
async fn a_drain_says_what_a_damaged_journal_leaves() {
    let (rig, _) = one_full_drive().await;
    let segment = rig.path_of(0).join("journal/0000000000000001.log");
    flip(&segment, 90);
    let drained = drain(&rig.settings, &rig.path_of(0), false, &mut |_| {}).unwrap();
    assert!(
        drained.told.iter().any(|(name, what)| name.contains("0001.log") && what.contains("damaged")),
        "{drained:?}"
    );
    let unnamed: Vec<_> = drained.left.iter().filter(|(_, why)| why.contains("does not name it")).collect();
    assert_eq!(unnamed.len(), 1, "{drained:?}");
    assert_eq!(walk(&rig.path_of(0).join("blobs/sha256")).len(), 1);
    let evicted = drain(&rig.settings, &rig.path_of(0), true, &mut |_| {}).unwrap();
    assert!(evicted.left.is_empty() && evicted.told.len() == 1, "{evicted:?}");
    assert!(walk(&rig.path_of(0).join("blobs/sha256")).is_empty());
}

/// The drives of [`one_full_drive`] as a drain leaves them that was stopped before the old drive forgot its part; and the
/// bytes of that on the old drive and on the new one.
async fn two_copies() -> (Rig, Vec<(String, Vec<u8>)>, PathBuf, PathBuf) {
    let (rig, bodies) = one_full_drive().await;
    let copied = rig.copy_of_now();
    copy(&copied.root.path().join(rig.path_of(0).file_name().unwrap()), &rig.root.path().join("kept"));
    drain(&rig.settings, &rig.path_of(0), false, &mut |_| {}).unwrap();
    for entry in fs::read_dir(rig.root.path().join("kept/partial")).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), rig.path_of(0).join("partial").join(entry.file_name())).unwrap();
    }
    let theirs = [1, 2].iter().flat_map(|number| walk(&rig.path_of(*number)));
    let theirs = theirs.into_iter().find(|path| path.extension().is_some_and(|e| e == "data")).unwrap();
    let ours = rig.path_of(0).join("partial").join(theirs.file_name().unwrap());
    (rig, bodies, ours, theirs)
}

#[tokio::test]
async fn of_two_copies_of_a_part_the_one_with_more_right_bytes_stays() {
    for damaged in [false, true] {
        let (mut rig, bodies, ours, theirs) = two_copies().await;
        // Now one of them is worth less.
        flip(if damaged { &theirs } else { &ours }, 5);
        let drained = drain(&rig.settings, &rig.path_of(0), false, &mut |_| {}).unwrap();
        assert!(drained.left.is_empty() && drained.partials == 1, "{drained:?}");
        rig.settings.drives.remove(0);
        check(&rig.open(), &bodies).await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_copy_takes_the_place_of_another_one_only_when_it_is_whole() {
    let (mut rig, bodies, ours, theirs) = two_copies().await;
    flip(&theirs, 5);
    let (new, old) = (fs::read(&ours).unwrap(), fs::read(&theirs).unwrap());
    let target = theirs.parent().unwrap().parent().unwrap();
    let mut left = 0;
    for first in 1.. {
        let faults = super::faults::Faults::below(target, first, 1, rustix::io::Errno::NOSPC);
        let outcome = drain(&rig.settings, &rig.path_of(0), false, &mut |_| {});
        if faults.struck() == 0 {
            assert!(outcome.unwrap().left.is_empty());
            break;
        }
        // Opening the drive may be what failed.
        for drained in outcome.iter().filter(|drained| !drained.left.is_empty()) {
            left += 1;
            assert_eq!(drained.left[0].0, format!("partial/{}", ours.file_name().unwrap().to_str().unwrap()));
        }
        let now = fs::read(&theirs).unwrap();
        assert!(now == old || now == new, "operation {first}");
        assert!(fs::read(&ours).unwrap() == new, "operation {first}");
    }
    assert!(left > 4, "{left}");
    assert!(!ours.exists());
    rig.settings.drives.remove(0);
    check(&rig.open(), &bodies).await;
}

#[tokio::test]
async fn a_part_that_cannot_be_read_now_stays() {
    for which in ["ours", "theirs"] {
        let (mut rig, bodies, ours, theirs) = two_copies().await;
        // The old drive has more of it.
        flip(&theirs, 5);
        let unreadable = if which == "ours" { &ours } else { &theirs };
        let aside = rig.root.path().join("aside");
        fs::rename(unreadable, &aside).unwrap();
        // A link is not followed.
        std::os::unix::fs::symlink(&aside, unreadable).unwrap();
        let drained = drain(&rig.settings, &rig.path_of(0), false, &mut |_| {}).unwrap();
        assert!(drained.left.len() == 1 && drained.partials == 0, "{which}: {drained:?}");
        fs::remove_file(unreadable).unwrap();
        fs::rename(&aside, unreadable).unwrap();
        let drained = drain(&rig.settings, &rig.path_of(0), false, &mut |_| {}).unwrap();
        assert!(drained.left.is_empty() && drained.partials == 1, "{which}: {drained:?}");
        rig.settings.drives.remove(0);
        check(&rig.open(), &bodies).await;
    }
}

#[tokio::test]
async fn a_map_without_its_bytes_is_told_and_what_it_leads_to_stays() {
    let (rig, bodies) = one_full_drive().await;
    let partial = walk(&rig.path_of(0).join("partial"));
    let data = partial.iter().find(|path| path.extension().is_some_and(|e| e == "data")).unwrap();
    fs::remove_file(data).unwrap();
    // A body whose map was not removed before a cut, and whose journal entry never came.
    let content = body_of(BLOCK, 1500);
    let digest = Digest::of(&content);
    let id = crate::content::PartialId(5);
    let record = Record { body: BodyRef::Partial(id), ..record("cut", Some(BLOCK as u64)) };
    let size = block_map::BlockSize::new(BLOCK as u32).unwrap();
    let written = block_map::MapRecord { block: 0, valid_len: BLOCK as u32, crc: crc32c::crc32c(&content) };
    let map = [
        map_file::encode_begin(&record, size),
        written.encode().to_vec(),
        map_file::encode_digest(BLOCK as u64, &digest).to_vec(),
    ];
    fs::write(rig.path_of(0).join(layout::partial_map(id)), map.concat()).unwrap();
    let blob = rig.path_of(0).join(layout::blob(&digest));
    fs::create_dir_all(blob.parent().unwrap()).unwrap();
    fs::write(&blob, &content).unwrap();
    let drained = drain(&rig.settings, &rig.path_of(0), false, &mut |_| {}).unwrap();
    assert!(drained.told.iter().any(|(_, what)| what.contains("no bytes")), "{drained:?}");
    assert!(
        drained.left.iter().any(|(name, why)| name.ends_with(".map") && why.contains("start the cache once")),
        "{drained:?}"
    );
    {
        let store = rig.open();
        let entry = only_partial(&store.lookup(&key("cut")).await);
        let writer = store.resume(&entry).await.unwrap();
        assert_eq!(writer.contiguous(), BLOCK as u64, "it is put back");
        writer.complete(BLOCK as u64).await.unwrap();
    }
    let drained = drain(&rig.settings, &rig.path_of(0), false, &mut |_| {}).unwrap();
    assert!(drained.left.is_empty(), "{drained:?}");
    let store = rig.open();
    assert!(get(&store, "cut").await.unwrap() == content && get(&store, &bodies[0].0).await.unwrap() == bodies[0].1);
}

#[tokio::test]
async fn a_drive_is_not_drained_while_a_cache_uses_it_nor_when_it_is_not_configured() {
    let rig = Rig::watched(2);
    let store = rig.open();
    let in_use = drain(&rig.settings, &rig.path_of(0), false, &mut |_| {}).unwrap_err();
    assert!(matches!(in_use, OpenError::InUse { .. }), "{in_use}");
    drop(store);
    let foreign = drain(&rig.settings, rig.root.path(), false, &mut |_| {}).unwrap_err();
    assert!(matches!(foreign, OpenError::NotConfigured { .. }), "{foreign}");
}

#[tokio::test]
async fn a_new_drive_is_made_in_an_empty_directory_only() {
    let rig = Rig::new();
    let state = rig.state();
    fs::create_dir_all(rig.drive().join("lost+found")).unwrap();
    let id = init_drive(&rig.drive(), &state).unwrap();
    let error = init_drive(&rig.drive(), &state).unwrap_err();
    assert!(matches!(&error, OpenError::IsDrive { id: found, .. } if *found == id), "{error}");
    put(&rig.open(), "a", b"content").await;
    assert_eq!(get(&rig.open(), "a").await.unwrap(), b"content");
    let full = rig.root.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("thesis.txt"), b"").unwrap();
    let error = init_drive(&full, &state).unwrap_err();
    assert!(matches!(&error, OpenError::NotEmpty { found, .. } if found == "thesis.txt"), "{error}");
    assert_eq!(fs::read_dir(&full).unwrap().count(), 1, "nothing was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_drive_in_the_place_of_one_is_used_once_it_was_adopted() {
    let other = Rig::new();
    put(&other.open(), "theirs", &body_of(BLOCK, 5)).await;
    let rig = Rig::watched(2);
    {
        let store = rig.open();
        put(&store, "ours", &body_of(BLOCK, 6)).await;
    }
    fs::remove_dir_all(rig.path_of(1)).unwrap();
    fs::create_dir(rig.path_of(1)).unwrap();
    copy(&other.drive(), &rig.path_of(1));
    let store = rig.open();
    assert!(!store.usage()[1].in_service());
    assert!(get(&store, "theirs").await.is_none());
    let adopted = adopt_drive(&rig.path_of(1), &rig.state(), false, |_| {}).unwrap();
    assert!(adopted.accepted && adopted.before.is_some() && adopted.verification.blobs == 1, "{adopted:?}");
    let seen = async {
        while !store.usage()[1].in_service() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), seen).await.unwrap();
    assert!(get(&store, "theirs").await.unwrap() == body_of(BLOCK, 5));
    drop(store);
    assert!(get(&rig.open(), "theirs").await.unwrap() == body_of(BLOCK, 5));
}

#[tokio::test]
async fn the_pins_of_another_cache_do_not_come_with_its_drive() {
    let other = Rig::new();
    let pin = PinTarget::Key(key("theirs"));
    {
        let store = other.open();
        put(&store, "theirs", &body_of(BLOCK, 5)).await;
        store.pin(std::slice::from_ref(&pin), "theirs", None).await.unwrap();
    }
    let theirs = fs::read(other.drive().join("pins")).unwrap();
    let rig = Rig::watched(2);
    let ours = PinTarget::Key(key("ours"));
    rig.open().pin(std::slice::from_ref(&ours), "ours", None).await.unwrap();
    let path = rig.path_of(1);
    fs::remove_dir_all(&path).unwrap();
    fs::create_dir(&path).unwrap();
    copy(&other.drive(), &path);
    let adopted = adopt_drive(&path, &rig.state(), false, |_| {}).unwrap();
    assert_eq!(adopted.pins_aside, Some("pins.adopted"));
    assert_eq!(fs::read(path.join("pins.adopted")).unwrap(), theirs);
    {
        let store = rig.open();
        let pinned = store.pinned().await;
        assert!(pinned.len() == 1 && pinned[0].pin.target == ours, "{pinned:?}");
        assert!(get(&store, "theirs").await.unwrap() == body_of(BLOCK, 5));
        store.pin(&[pin], "both have it", None).await.unwrap();
    }
    // It is one of ours now.
    let again = adopt_drive(&path, &rig.state(), false, |_| {}).unwrap();
    assert!(again.accepted && again.pins_aside.is_none(), "{again:?}");
    assert_eq!(rig.open().pinned().await.len(), 2);
    assert_eq!(fs::read(path.join("pins.adopted")).unwrap(), theirs);
}

#[tokio::test]
async fn a_drive_that_is_newer_or_not_what_it_says_is_not_adopted() {
    let other = Rig::new();
    let digest = put(&other.open(), "theirs", &body_of(BLOCK, 5)).await.digest;
    let rig = Rig::new();
    let adopt = || adopt_drive(&other.drive(), &rig.state(), true, |_| {});
    // Its journal names another digest for right bytes: as somebody would do it who wants them to be served.
    let wrong = Digest::of(b"what is asked for");
    let target = other.blob_path(wrong);
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    fs::copy(other.blob_path(digest), &target).unwrap();
    let settings = other.settings.clone();
    let metrics = Metrics::new().unwrap();
    {
        let drive = arrival::open_for_tool(&settings.drives[0], None, &metrics).unwrap();
        let segments = journal::segments(&drive).unwrap();
        let sums = block_sums::BlockSums::new(
            block_map::BlockSize::new(BLOCK as u32).unwrap(),
            BLOCK as u64,
            vec![crc32c::crc32c(&body_of(BLOCK, 5))],
        );
        let entry = journal_entry::JournalEntry::Blob { digest: wrong, sums: sums.unwrap() };
        journal::Journal::new(Arc::clone(&drive), &segments).append(&journal_format::encode_frame(&entry)).unwrap();
        drive.close();
        drive.unlock();
    }
    let adopted = adopt().unwrap();
    assert!(!adopted.accepted, "{adopted:?}");
    assert_eq!(adopted.verification.findings, [Finding::WrongDigest(wrong)]);
    fs::write(other.drive().join("waystation.json"), r#"{"format":99}"#).unwrap();
    assert!(matches!(adopt().unwrap_err(), OpenError::NewerFormat { found: 99, .. }));
    fs::remove_file(other.drive().join("waystation.json")).unwrap();
    assert!(matches!(adopt().unwrap_err(), OpenError::NoDrive { .. }));
}
