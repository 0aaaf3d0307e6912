//! What is there after a restart, an orderly one or a kill.

use super::*;

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
    for way in ["kept", "state deleted", "all deleted", "garbage", "kept again"] {
        match way {
            "state deleted" => fs::remove_dir_all(rig.state()).unwrap(),
            "all deleted" => rig.forget_derived(),
            "garbage" => {
                fs::write(rig.drive().join(layout::SNAPSHOT), body_of(10_000, 7)).unwrap();
                for entry in fs::read_dir(rig.state().join(layout::MIRROR)).unwrap() {
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
async fn a_cut_between_rename_and_journal_costs_no_transfer() {
    let rig = Rig::new();
    let content = body_of(2 * BLOCK + 9, 16);
    let store = rig.open();
    put(&store, "other", &body_of(2 * BLOCK + 9, 17)).await;
    store.flush().await;
    let mut writer = store.create(record("cut", None)).await.unwrap();
    fill(&mut writer, 0, &content).await;
    // As far as completion comes before the batch.
    let partial = Arc::clone(writer.partial());
    let finished = partial.finish(1, content.len() as u64, None).unwrap();
    assert_eq!(finished.digest, Digest::of(&content));
    let cut = rig.copy_of_now();
    drop((finished, writer, store));
    let blob = cut.blob_path(Digest::of(&content));
    fs::create_dir_all(blob.parent().unwrap()).unwrap();
    fs::rename(partial_data(&cut), &blob).unwrap();
    let store = cut.open();
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
    rig.forget_derived();
    let store = rig.open();
    assert_eq!(store.lookup(&key("kept")).await[0].record.response_time, UnixMillis(11_999));
    assert_eq!(get(&store, "kept").await.unwrap(), b"kept");
    assert_eq!(get(&store, "replaced").await.unwrap(), b"second");
    assert_eq!(get(&store, "copy of first").await.unwrap(), b"first");
}

#[tokio::test]
async fn a_damaged_segment_is_compacted_and_what_was_forgotten_stays_forgotten() {
    for at in [30, 60] {
        let rig = Rig::new();
        {
            let store = rig.open();
            put(&store, "damaged", b"damaged").await;
            store.flush().await;
            put(&store, "kept", b"kept").await;
            put(&store, "gone", b"kept").await;
        }
        let first = rig.drive().join("journal/0000000000000001.log");
        flip(&first, at);
        {
            let store = rig.open();
            store.remove(&store.lookup(&key("gone")).await[0]);
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
        assert!(!first.exists(), "the journal does not grow for ever");
        rig.forget_derived();
        let store = rig.open();
        assert!(store.lookup(&key("gone")).await.is_empty());
        assert_eq!(get(&store, "kept").await.unwrap(), b"kept");
        assert_eq!(store.lookup(&key("kept")).await[0].record.response_time, UnixMillis(11_999));
    }
}

#[tokio::test]
async fn a_killed_fill_goes_on_from_its_last_midstate() {
    let rig = Rig::new();
    let store = rig.open();
    let content = body_of(10 * BLOCK + 7, 40);
    let mut writer = store.create(record("long", Some(content.len() as u64))).await.unwrap();
    writer.partial().core.lock().pace = fill_file::Pace {
        sync_bytes: 3 * BLOCK as u64,
        sync_time: std::time::Duration::ZERO,
        midstate_bytes: 2 * BLOCK as u64,
    };
    fill(&mut writer, 0, &content[..9 * BLOCK + 100]).await;
    let copy = rig.copy_of_now();
    drop((writer, store));
    let store = copy.open();
    let entry = only_partial(&store.lookup(&key("long")).await);
    let Body::Partial(partial) = store.body(&entry).await.unwrap() else { panic!("not partial") };
    assert!(partial.core.lock().hashed() >= 7 * BLOCK as u64, "{}", partial.core.lock().hashed());
    let mut writer = store.resume(&entry).await.unwrap();
    let contiguous = writer.contiguous() as usize;
    assert_eq!(contiguous, 9 * BLOCK + 100);
    fill(&mut writer, contiguous, &content[contiguous..]).await;
    assert_eq!(writer.complete(content.len() as u64).await.unwrap().digest, Digest::of(&content));
    assert_eq!(get(&store, "long").await.unwrap(), content);
}

#[tokio::test]
async fn what_was_durable_of_a_block_outlives_what_came_after_it() {
    let rig = Rig::new();
    let content = body_of(BLOCK, 21);
    {
        let store = rig.open();
        let mut writer = store.create(record("b", Some(BLOCK as u64))).await.unwrap();
        fill(&mut writer, 0, &content[..20_000]).await;
        store.flush().await;
        fill(&mut writer, 20_000, &content[20_000..40_000]).await;
        // The map is written anew, and has to remember.
        store.update(writer.entry(), record("b", Some(BLOCK as u64)));
    }
    // The map has got ahead of the data.
    let data = fs::File::options().write(true).open(partial_data(&rig)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&data, &[0; 20_000], 20_000).unwrap();
    let store = rig.open();
    let entry = only_partial(&store.lookup(&key("b")).await);
    let body = store.body(&entry).await.unwrap();
    assert_eq!(body.read(0, usize::MAX).await.unwrap(), content[..20_000]);
    let mut writer = store.resume(&entry).await.unwrap();
    assert_eq!(writer.contiguous(), 20_000);
    fill(&mut writer, 20_000, &content[20_000..]).await;
    assert_eq!(writer.complete(BLOCK as u64).await.unwrap().digest, Digest::of(&content));
}

#[tokio::test]
async fn a_body_that_nothing_names_is_removed_unless_the_journal_may_have_named_it() {
    let rig = Rig::new();
    {
        let store = rig.open();
        put(&store, "a", b"first").await;
        store.flush().await;
        put(&store, "b", b"second").await;
    }
    let orphan = rig.blob_path(Digest::of(b"orphan"));
    let foreign = orphan.with_file_name("notes.txt");
    let leave = || {
        fs::create_dir_all(orphan.parent().unwrap()).unwrap();
        fs::write(&orphan, b"orphan").unwrap();
        fs::write(&foreign, b"foreign").unwrap();
    };
    leave();
    {
        let store = rig.open();
        while orphan.exists() {
            tokio::task::yield_now().await;
        }
        assert_eq!(get(&store, "a").await.unwrap(), b"first");
        assert_eq!(get(&store, "b").await.unwrap(), b"second");
    }
    leave();
    flip(&rig.drive().join("journal/0000000000000001.log"), 60);
    rig.forget_derived();
    let store = rig.open();
    store.ready().await;
    while !store._running.recovering.lock().as_ref().unwrap().is_finished() {
        tokio::task::yield_now().await;
    }
    store.flush().await;
    assert!(orphan.exists() && foreign.exists());
    assert!(get(&store, "a").await.is_none(), "its entry is damaged");
}

#[tokio::test]
async fn a_blob_that_the_journal_names_stays_though_the_index_has_lost_it() {
    let rig = Rig::new();
    let content = body_of(BLOCK, 22);
    {
        let store = rig.open();
        put(&store, "a", &content).await;
        store.flush().await;
        let id = store.inner.drives[0].id;
        let at = store.inner.index.watermark(id).unwrap();
        let entry = journal_entry::JournalEntry::BlobGone { digest: Digest::of(&content) };
        // Comes into the snapshot when the store closes.
        store.inner.index.apply(id, &[index::Applied { entry, at, allocated: None }], at);
    }
    {
        let store = rig.open();
        store.ready().await;
        while !store._running.recovering.lock().as_ref().unwrap().is_finished() {
            tokio::task::yield_now().await;
        }
        store.flush().await;
        assert!(rig.blob_path(Digest::of(&content)).exists());
    }
    fs::remove_file(rig.drive().join("index.snapshot")).unwrap();
    assert_eq!(get(&rig.open(), "a").await.unwrap(), content);
}

#[tokio::test]
async fn what_a_damaged_journal_does_not_say_its_mirror_does_and_it_is_written_anew() {
    let rig = Rig::new();
    let small = |number: u64| body_of(2000 + number as usize, number);
    {
        let store = rig.open();
        for number in 0..10 {
            put(&store, &number.to_string(), &small(number)).await;
            store.flush().await;
        }
        put(&store, "3", &small(20)).await;
        store.remove(&store.lookup(&key("4")).await[0]);
        store.flush().await;
        store.inner.mirror.settle(&store.inner.index);
    }
    let segment = rig.drive().join("journal/0000000000000001.log");
    let length = fs::metadata(&segment).unwrap().len();
    // In live use, at a start that reads the snapshot, and at one that reads the journal: also its last entry.
    for way in ["with the snapshot", "without"] {
        let copy = rig.copy_of_now();
        let segment = copy.drive().join("journal/0000000000000001.log");
        for at in [100, length / 3, length / 2, length - 20] {
            flip(&segment, at);
        }
        if way == "without" {
            fs::remove_file(copy.drive().join(layout::SNAPSHOT)).unwrap();
        }
        for mirror in ["there", "gone"] {
            let store = copy.open();
            for number in (0..10).filter(|number| ![3, 4].contains(number)) {
                assert_eq!(get(&store, &number.to_string()).await.unwrap(), small(number), "{way}, {mirror}");
            }
            assert_eq!(get(&store, "3").await.unwrap(), small(20), "{way}, {mirror}");
            assert!(store.lookup(&key("4")).await.is_empty(), "{way}, {mirror}");
            assert!(!store.inner.drives[0].is_doubted(), "nothing is lost");
            store.flush().await;
            if way == "with the snapshot" {
                break;
            }
            drop(store);
            if mirror == "there" {
                // What was damaged is told anew by the journal itself, at a place behind.
                fs::remove_dir_all(copy.state()).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_snapshot_that_does_not_go_with_the_journal_is_not_used() {
    let rig = Rig::new();
    {
        let store = rig.open();
        put(&store, "a", b"first").await;
    }
    let first = fs::read(rig.drive().join(layout::SNAPSHOT)).unwrap();
    let mut segments = Vec::new();
    // Fewer segments than are compacted.
    for number in 0..2_u64 {
        let store = rig.open();
        put(&store, &number.to_string(), &body_of(500, number)).await;
        store.flush().await;
        drop(store);
        segments = fs::read_dir(rig.drive().join("journal")).unwrap().map(|file| file.unwrap().path()).collect();
        segments.sort();
    }
    // An old one goes on from where it was.
    fs::write(rig.drive().join(layout::SNAPSHOT), &first).unwrap();
    assert_eq!(get(&rig.open(), "1").await.unwrap(), body_of(500, 1));
    // Where a segment is missing behind it, something may have been forgotten that it has.
    fs::write(rig.drive().join(layout::SNAPSHOT), &first).unwrap();
    fs::remove_file(&segments[1]).unwrap();
    let store = rig.open();
    assert_eq!(get(&store, "a").await.unwrap(), b"first");
    assert!(get(&store, "0").await.is_none());
    assert_eq!(get(&store, "1").await.unwrap(), body_of(500, 1));
}
