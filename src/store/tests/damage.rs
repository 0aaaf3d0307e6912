//! Bytes, files and journals that are not what they were.

use super::*;
use crate::content::ByteRange;

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
async fn blocks_that_were_damaged_together_go_together_and_a_missing_file_takes_its_body_along() {
    let rig = Rig::new();
    let content = body_of(4 * BLOCK, 6);
    {
        let store = rig.open();
        let mut writer = store.create(record("p", Some(5 * BLOCK as u64))).await.unwrap();
        fill(&mut writer, 0, &content).await;
    }
    let data = partial_data(&rig);
    flip(&data, BLOCK as u64 + 77);
    flip(&data, 2 * BLOCK as u64 + 7);
    let store = rig.open();
    let entry = only_partial(&store.lookup(&key("p")).await);
    let body = store.body(&entry).await.unwrap();
    assert!(matches!(body.read(BLOCK as u64, 10).await, Err(ReadError::Damaged { block: 1 })));
    assert!(matches!(body.read(2 * BLOCK as u64, 10).await, Err(ReadError::Absent { .. })), "known already");
    assert_eq!(body.read(3 * BLOCK as u64, 10).await.unwrap(), content[3 * BLOCK..3 * BLOCK + 10]);
    fs::remove_file(data).unwrap();
    assert!(matches!(body.read(0, 10).await, Err(ReadError::Gone)));
    assert!(store.lookup(&key("p")).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_find_the_state_before_do_not_take_it_for_damage() {
    // A block that takes a while to be read, so that all are at it at the same time.
    const LARGE: usize = 4 << 20;
    for seed in 0..4 {
        let mut rig = Rig::new();
        rig.settings.block_size = LARGE as u32;
        let content = body_of(LARGE, seed);
        {
            let store = rig.open();
            let mut writer = store.create(record("p", Some(2 * LARGE as u64))).await.unwrap();
            fill(&mut writer, 0, &content[..20_000]).await;
            fill(&mut writer, 20_000, &content[20_000..]).await;
        }
        flip(&partial_data(&rig), 30_000);
        let store = rig.open();
        let body = store.body(&only_partial(&store.lookup(&key("p")).await)).await.unwrap();
        let readers: Vec<_> = (0..8)
            .map(|_| {
                tokio::spawn({
                    let body = body.clone();
                    async move { body.read(0, 20_000).await }
                })
            })
            .collect();
        for reader in readers {
            assert_eq!(reader.await.unwrap().unwrap(), content[..20_000]);
        }
    }
}

#[tokio::test]
async fn a_damaged_block_of_a_blob_is_missing_and_the_others_are_served_until_it_is_mended() {
    let rig = Rig::new();
    let content = body_of(3 * BLOCK, 8);
    let digest = Digest::of(&content);
    {
        let store = rig.open();
        put(&store, "a", &content).await;
        assert!(put(&store, "b", &content).await.duplicate);
    }
    flip(&rig.blob_path(digest), 2 * BLOCK as u64 + 1);
    let metrics = Arc::new(Metrics::new().unwrap());
    let store = Store::open(rig.settings.clone(), Arc::clone(&metrics)).unwrap();
    let entry = Arc::clone(&store.lookup(&key("a")).await[0]);
    let body = store.body(&entry).await.unwrap();
    assert_eq!(body.read(0, 10).await.unwrap(), content[..10], "good blocks are served");
    for _ in 0..2 {
        assert!(matches!(body.read(2 * BLOCK as u64, 10).await, Err(ReadError::Damaged { block: 2 })));
    }
    assert_eq!(metrics.damaged_blocks.get(), 1, "told once");
    assert_eq!(store.lookup(&key("b")).await.len(), 1);
    let last = ByteRange::new(2 * BLOCK as u64, 3 * BLOCK as u64).unwrap();
    assert_eq!(store.broken(&entry, 1).await.unwrap(), None, "a block that holds");
    let broken = Broken { range: last, block_size: BLOCK as u64 };
    assert_eq!(store.broken(&entry, 2).await.unwrap(), Some(broken));
    let patch = |bytes: Vec<u8>| vec![Patch { range: last, bytes: bytes.into() }];
    assert_eq!(store.put_right(&entry, patch(vec![0; BLOCK])).await.unwrap(), Mended::Unlike);
    let mut forged = content[2 * BLOCK..].to_vec();
    // A multiple of the polynomial: the sum stays as it was.
    forged.iter_mut().zip([0xf1, 0x76, 0xec, 0x05, 0x01]).for_each(|(byte, other)| *byte ^= other);
    assert_eq!(crc32c::crc32c(&forged), crc32c::crc32c(&content[2 * BLOCK..]));
    assert_eq!(store.put_right(&entry, patch(forged.clone())).await.unwrap(), Mended::Unlike);
    // As a medium does it, so that nothing says that the file is another one.
    let written = fs::metadata(rig.blob_path(digest)).unwrap().modified().unwrap();
    flip(&rig.blob_path(digest), 5);
    fs::File::open(rig.blob_path(digest)).unwrap().set_modified(written).unwrap();
    let right = patch(content[2 * BLOCK..].to_vec());
    for other in [patch(forged), right.clone()] {
        assert_eq!(store.put_right(&entry, other).await.unwrap(), Mended::Next(0), "not to be proved yet");
        assert!(matches!(body.read(0, 10).await, Err(ReadError::Damaged { block: 0 })), "it is known by now");
        assert_eq!(metrics.damaged_blocks.get(), 2);
    }
    flip(&rig.blob_path(digest), 5);
    assert_eq!(store.put_right(&entry, right).await.unwrap(), Mended::Right);
    assert_eq!(body.read(2 * BLOCK as u64, BLOCK).await.unwrap(), content[2 * BLOCK..]);
    assert_eq!(fs::read(rig.blob_path(digest)).unwrap(), content);
    assert_eq!(get(&store, "b").await.unwrap(), content);
}

#[tokio::test]
async fn a_blob_that_is_given_up_is_quarantined_missing_for_all_its_urls_and_can_be_stored_again() {
    let rig = Rig::new();
    let content = body_of(3 * BLOCK, 8);
    let digest = Digest::of(&content);
    {
        let store = rig.open();
        put(&store, "a", &content).await;
        assert!(put(&store, "b", &content).await.duplicate);
        let entry = Arc::clone(&store.lookup(&key("a")).await[0]);
        store.give_up(&entry, "block 2 is not to be had".to_owned()).await.unwrap();
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
async fn a_new_copy_of_a_damaged_blob_mends_it() {
    let rig = Rig::new();
    let content = body_of(3 * BLOCK, 18);
    let digest = Digest::of(&content);
    put(&rig.open(), "a", &content).await;
    flip(&rig.blob_path(digest), BLOCK as u64);
    let store = rig.open();
    let body = store.body(&store.lookup(&key("a")).await[0]).await.unwrap();
    assert!(matches!(body.read(BLOCK as u64, 10).await, Err(ReadError::Damaged { block: 1 })));
    assert!(put(&store, "b", &content).await.duplicate);
    assert_eq!(get(&store, "a").await.unwrap(), content);
    assert_eq!(fs::read(rig.blob_path(digest)).unwrap(), content);
}

#[tokio::test]
async fn a_body_whose_writer_finds_it_wrong_is_quarantined_and_forgotten() {
    let rig = Rig::new();
    let store = rig.open();
    let content = body_of(2 * BLOCK, 8);
    let mut writer = store.create(record("wrong", Some(3 * BLOCK as u64))).await.unwrap();
    fill(&mut writer, 0, &content).await;
    let partial = Arc::clone(writer.partial());
    writer.reject("one part is wrong".to_owned()).await;
    assert_eq!(partial.wait(3 * BLOCK as u64).await, Progress::Stopped);
    assert!(store.lookup(&key("wrong")).await.is_empty());
    store.flush().await;
    let files = fs::read_dir(rig.drive().join("quarantine")).unwrap().map(|file| file.unwrap().path());
    let reason = files.into_iter().find(|file| file.extension().is_some()).unwrap();
    assert!(fs::read_to_string(reason).unwrap().contains("wrong: one part is wrong"));
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
}

#[tokio::test]
async fn a_window_that_waits_to_be_sent_is_checked_again_when_its_file_changes() {
    let rig = Rig::new();
    let store = rig.open();
    let content = body_of(2 * BLOCK, 9);
    put(&store, "a", &content).await;
    store.flush().await;
    let entry = Arc::clone(&store.lookup(&key("a")).await[0]);
    let body = store.body(&entry).await.unwrap();
    let Body::Blob(blob) = &body else { panic!("not a blob") };
    let Piece::Window(window) = body.piece(0, 2 * BLOCK as u64).await.unwrap() else { panic!("not a window") };
    window.warm().await.unwrap();
    assert!(window.is_ready());
    // Written to, and the same as before.
    let path = rig.blob_path(blob.digest());
    flip(&path, 3);
    flip(&path, 3);
    blob.look_again_now();
    assert!(!window.is_ready(), "who knows what was written");
    window.warm().await.unwrap();
    assert!(window.is_ready());
    // In a block behind the first one.
    flip(&path, BLOCK as u64 + 3);
    blob.look_again_now();
    assert!(!window.is_ready());
    assert!(matches!(window.warm().await, Err(ReadError::Damaged { block: 1 })));
    assert!(!window.is_ready());
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
    rig.forget_derived();
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
    rig.forget_derived();
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
async fn a_partial_body_that_rested_is_checked_before_it_is_served_or_stored() {
    let rig = Rig::new();
    let store = rig.open();
    let content = body_of(3 * BLOCK, 22);
    let mut writer = store.create(record("rests", Some(3 * BLOCK as u64))).await.unwrap();
    fill(&mut writer, 0, &content).await;
    drop(writer);
    store.flush().await;
    flip(&partial_data(&rig), 5);
    flip(&partial_data(&rig), 2 * BLOCK as u64 + 5);
    let entry = only_partial(&store.lookup(&key("rests")).await);
    let body = store.body(&entry).await.unwrap();
    assert!(matches!(body.read(0, 10).await, Err(ReadError::Damaged { block: 0 })));
    let mut writer = store.resume(&entry).await.unwrap();
    fill(&mut writer, 0, &content[..BLOCK]).await;
    // The other one was hashed when it was written; nobody gets it all the same.
    match writer.complete(3 * BLOCK as u64).await {
        Ok(completed) => {
            let body = store.body(&completed.entry).await.unwrap();
            assert_eq!(body.read(0, BLOCK).await.unwrap(), content[..BLOCK]);
            assert!(matches!(body.read(2 * BLOCK as u64, 10).await, Err(ReadError::Damaged { block: 2 })));
        }
        Err(error) => assert!(matches!(error, CompleteError::Short { .. }), "{error}"),
    }
}

/// Flips a bit in the last entry of the last segment of a drive's journal.
fn flip_last_entry(rig: &Rig) {
    let segments = fs::read_dir(rig.drive().join("journal")).unwrap().map(|file| file.unwrap().path());
    let last = segments.max().unwrap();
    flip(&last, fs::metadata(&last).unwrap().len() - 20);
}

/// Once the mirror says that it has all: how many entries the last segment of the journal has, and where those begin that
/// have no second copy.
async fn without_copy(rig: &Rig, store: &Store, metrics: &Metrics) -> (usize, Vec<u64>) {
    until("the mirror has all", || metrics.store_mirror_behind.get() == 0).await;
    let segments = fs::read_dir(rig.drive().join("journal")).unwrap().map(|file| file.unwrap().path());
    let last = segments.max().unwrap();
    let number = u64::from_str_radix(last.file_stem().unwrap().to_str().unwrap(), 16).unwrap();
    let bytes = fs::read(last).unwrap();
    let frames = journal_format::Frames::new(&bytes, journal_segment::SEGMENT_HEADER_LEN);
    let begins: Vec<u64> = frames
        .filter_map(|frame| match frame {
            journal_format::Frame::Entry { offset, .. } => Some(offset as u64),
            journal_format::Frame::Damage { .. } => None,
        })
        .collect();
    let copies = store.inner.mirror.entries(store.inner.drives[0].id, number, 0, u64::MAX);
    let has_copy = |begin: &u64| copies.iter().any(|copy| copy.offset == *begin);
    (begins.len(), begins.iter().filter(|begin| !has_copy(begin)).copied().collect())
}

#[tokio::test]
async fn what_is_told_anew_has_its_second_copy_without_another_change() {
    let rig = Rig::new();
    let content = body_of(2 * BLOCK, 30);
    {
        let store = rig.open();
        put(&store, "a", &content).await;
        store.flush().await;
        store.inner.mirror.settle(&store.inner.index);
    }
    flip_last_entry(&rig);
    fs::remove_file(rig.drive().join(layout::SNAPSHOT)).unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    let store = Store::open(rig.settings.clone(), Arc::clone(&metrics)).unwrap();
    // It has been told anew by then.
    store.ready().await;
    store.flush().await;
    assert_eq!(without_copy(&rig, &store, &metrics).await, (1, Vec::new()));
    assert!(get(&store, "a").await == Some(content));
}

#[tokio::test]
async fn a_segment_that_took_the_number_of_a_lost_one_has_its_second_copy() {
    let rig = Rig::new();
    let bodies: Vec<Vec<u8>> = (0..4).map(|seed| body_of(2 * BLOCK, 40 + seed)).collect();
    {
        let store = rig.open();
        for (number, content) in bodies.iter().enumerate() {
            put(&store, &number.to_string(), content).await;
            store.flush().await;
        }
        store.inner.mirror.settle(&store.inner.index);
    }
    fs::remove_file(rig.drive().join("journal/0000000000000001.log")).unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    let store = Store::open(rig.settings.clone(), Arc::clone(&metrics)).unwrap();
    for (number, content) in bodies.iter().enumerate().rev() {
        put(&store, &number.to_string(), content).await;
        store.flush().await;
    }
    assert!(rig.drive().join("journal/0000000000000001.log").exists(), "the number is used again");
    assert_eq!(without_copy(&rig, &store, &metrics).await, (4, Vec::new()));
}

#[tokio::test]
async fn what_a_lost_segment_said_of_large_bodies_outlives_it_and_the_next_starts() {
    for way in ["with the snapshot", "without"] {
        let rig = Rig::new();
        let bodies: Vec<Vec<u8>> = (0..3).map(|seed| body_of(2 * BLOCK, 50 + seed)).collect();
        for (number, content) in bodies.iter().enumerate() {
            // A segment for each.
            let store = rig.open();
            put(&store, &number.to_string(), content).await;
            store.flush().await;
            store.inner.mirror.settle(&store.inner.index);
        }
        fs::remove_file(rig.drive().join("journal/0000000000000002.log")).unwrap();
        if way == "without" {
            fs::remove_file(rig.drive().join(layout::SNAPSHOT)).unwrap();
        }
        for start in 0..3 {
            let store = rig.open();
            store.ready().await;
            put(&store, &format!("more{start}"), &body_of(3 * BLOCK, 60 + start)).await;
            store.flush().await;
            store.inner.mirror.settle(&store.inner.index);
            for (number, content) in bodies.iter().enumerate() {
                assert!(get(&store, &number.to_string()).await.as_ref() == Some(content), "{way} {start} {number}");
            }
        }
    }
}
