//! Pins: what stays when room is made, and what becomes of pins when drives come and go.

use super::*;

const QUOTA: u64 = 16 * BLOCK as u64;

fn small(rig: &mut Rig) {
    rig.settings.drives.iter_mut().for_each(|drive| drive.quota = QUOTA);
}

/// Stores more than the drives have room for. Each is asked for, so that what was there before comes up for eviction.
async fn crowd(store: &Store, seed: u64) {
    for number in 0..40 {
        let name = format!("other{seed}-{number}");
        put(store, &name, &body_of(2 * BLOCK, seed * 1000 + number)).await;
        store.flush().await;
        assert!(get(store, &name).await.is_some());
    }
}

fn by_key(name: &str) -> PinTarget {
    PinTarget::Key(key(name))
}

fn by_digest(content: &[u8]) -> PinTarget {
    PinTarget::Digest(Digest::of(content))
}

#[tokio::test]
async fn what_is_pinned_stays_until_the_pin_is_taken_off() {
    let mut rig = Rig::new();
    small(&mut rig);
    let (a, b, c) = (body_of(2 * BLOCK, 1), body_of(3 * BLOCK, 2), body_of(BLOCK, 3));
    let targets = [by_key("a"), by_digest(&b)];
    {
        let store = rig.open();
        for (name, content) in [("a", &a), ("b", &b), ("c", &c)] {
            put(&store, name, content).await;
        }
        store.pin(&targets, "deployment 7", None).await.unwrap();
        crowd(&store, 1).await;
        assert!(get(&store, "a").await.as_ref() == Some(&a));
        assert!(get(&store, "b").await.as_ref() == Some(&b));
        assert!(get(&store, "c").await.is_none(), "nobody pinned it");
        assert!(store.usage()[0].used <= QUOTA);
    }
    rig.forget_derived();
    let store = rig.open();
    crowd(&store, 2).await;
    assert!(get(&store, "a").await.as_ref() == Some(&a));
    assert!(get(&store, "b").await.as_ref() == Some(&b));
    let pinned = store.pinned().await;
    let told: Vec<_> = pinned.iter().map(|pinned| (&pinned.pin.target, pinned.bytes, pinned.complete)).collect();
    assert!(told.contains(&(&targets[0], 2 * BLOCK as u64, true)), "{told:?}");
    assert!(told.contains(&(&targets[1], 3 * BLOCK as u64, true)), "{told:?}");
    assert!(pinned.iter().all(|pinned| pinned.pin.reason == "deployment 7"));
    assert_eq!(store.unpin(&[by_key("a"), by_key("never")]).await.unwrap(), [by_key("a")]);
    crowd(&store, 3).await;
    assert!(get(&store, "a").await.is_none());
    assert!(get(&store, "b").await.as_ref() == Some(&b));
}

#[tokio::test]
async fn a_pinned_resource_is_kept_whatever_comes_of_it() {
    let mut rig = Rig::new();
    small(&mut rig);
    let store = rig.open();
    store.pin(&[by_key("later")], "before it is there", None).await.unwrap();
    assert_eq!(store.pinned().await[0].bytes, 0);
    // A part of it.
    let content = body_of(4 * BLOCK, 5);
    let mut writer = store.create(record("later", Some(content.len() as u64))).await.unwrap();
    fill(&mut writer, 0, &content[..2 * BLOCK]).await;
    drop(writer);
    crowd(&store, 1).await;
    let entry = store.lookup(&key("later")).await[0].clone();
    assert_eq!((store.pinned().await[0].bytes, store.pinned().await[0].complete), (2 * BLOCK as u64, false));
    let mut writer = store.resume(&entry).await.unwrap();
    fill(&mut writer, 2 * BLOCK, &content[2 * BLOCK..]).await;
    writer.complete(content.len() as u64).await.unwrap();
    crowd(&store, 2).await;
    assert!(get(&store, "later").await.as_ref() == Some(&content));
    // Another version takes its place.
    let newer = body_of(3 * BLOCK, 6);
    put(&store, "later", &newer).await;
    crowd(&store, 3).await;
    assert!(get(&store, "later").await.as_ref() == Some(&newer));
    // Devices may go on with the version before.
    assert!(store.blob(Digest::of(&content)).await.is_some());
    // The same bytes under another name are what is pinned, too.
    put(&store, "copy", &newer).await;
    crowd(&store, 5).await;
    assert!(get(&store, "copy").await.as_ref() == Some(&newer));
}

#[tokio::test]
async fn pins_end_by_themselves() {
    let mut rig = Rig::new();
    small(&mut rig);
    let store = rig.open();
    let content = body_of(2 * BLOCK, 7);
    put(&store, "a", &content).await;
    let soon = UnixMillis(pinning::now().0 + 300);
    store.pin(&[by_key("a")], "for a moment", Some(soon)).await.unwrap();
    let mut seed = 10;
    while store.blob(Digest::of(&content)).await.is_some() {
        crowd(&store, seed).await;
        seed += 1;
        assert!(seed < 1000, "it does not go");
    }
    assert!(pinning::now() >= soon, "it went before its time");
    assert!(store.pinned().await.is_empty());
    let error = store.pin(&[by_key("a")], "late", Some(soon)).await.unwrap_err();
    assert!(matches!(error, PinError::Expired(_)), "{error}");
}

#[tokio::test]
async fn where_all_is_pinned_new_content_is_not_stored_and_that_is_counted() {
    let mut rig = Rig::new();
    small(&mut rig);
    let metrics = Arc::new(Metrics::new().unwrap());
    let store = Store::open(rig.settings.clone(), Arc::clone(&metrics)).unwrap();
    let content = body_of(12 * BLOCK, 8);
    put(&store, "a", &content).await;
    store.pin(&[by_digest(&content)], "all there is room for", None).await.unwrap();
    let refused = store.create(record("b", Some(8 * BLOCK as u64))).await;
    assert!(matches!(refused, Err(StoreError::NoSpace { .. })), "{refused:?}");
    assert!(metrics.pin_refusals.get() > 0);
    assert_eq!(metrics.store_pins.get(), 1);
    assert!(get(&store, "a").await == Some(content));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_drive_has_all_pins_and_brings_none_back() {
    let mut rig = Rig::watched(2);
    let second = rig.settings.drives.pop().unwrap();
    {
        let store = rig.open();
        store.pin(&[by_key("a"), by_key("b"), by_key("c")], "deployment", None).await.unwrap();
    }
    let first = rig.settings.drives[0].path.join(layout::PINS);
    rig.settings.drives.push(second.clone());
    let other = second.path.join(layout::PINS);
    {
        // A new drive gets them without anybody's doing.
        let store = rig.open();
        store.ready().await;
        until("the other drive has the same pins", || fs::read(&other).ok() == fs::read(&first).ok()).await;
    }
    let away = rig.root.path().join("away");
    fs::rename(&second.path, &away).unwrap();
    {
        let store = rig.open();
        assert_eq!(store.unpin(&[by_key("b")]).await.unwrap().len(), 1);
        fs::rename(&away, &second.path).unwrap();
        until("the other drive has the same pins", || fs::read(&other).ok() == fs::read(&first).ok()).await;
        assert_eq!(targets(&store).await, [by_key("a"), by_key("c")]);
    }
    // Each stands alone.
    fs::remove_file(&first).unwrap();
    let store = rig.open();
    assert_eq!(targets(&store).await, [by_key("a"), by_key("c")]);
}

async fn targets(store: &Store) -> Vec<PinTarget> {
    store.pinned().await.into_iter().map(|pinned| pinned.pin.target).collect()
}

#[tokio::test]
async fn a_damaged_file_costs_one_pin_and_a_newer_one_is_left_alone() {
    let rig = Rig::new();
    let path = rig.drive().join(layout::PINS);
    drop({
        let store = rig.open();
        store.pin(&[by_key("a"), by_key("b")], "deployment", None).await.unwrap();
        store
    });
    let mut text = fs::read(&path).unwrap();
    *text.last_mut().unwrap() = b'!';
    fs::write(&path, &text).unwrap();
    assert_eq!(targets(&rig.open()).await, [by_key("a")]);
    assert_eq!(fs::read(path.with_extension("damaged")).unwrap(), text, "for people to look at");
    let title = "waystation-pins 2";
    let newer = format!("{:08x} {title}\nwhatever comes then\n", crc32c::crc32c(title.as_bytes()));
    fs::write(&path, &newer).unwrap();
    let store = rig.open();
    assert!(targets(&store).await.is_empty());
    let error = store.pin(&[by_key("c")], "deployment", None).await.unwrap_err();
    assert!(matches!(&error, PinError::NotWritten(why) if why.contains("newer release")), "{error}");
    assert_eq!(targets(&store).await, [by_key("c")], "it holds until the next start");
    drop(store);
    assert_eq!(fs::read(&path).unwrap(), newer.as_bytes());
}

#[tokio::test]
async fn a_drive_that_is_drained_leaves_its_pins_to_the_others() {
    let mut rig = Rig::watched(1);
    drop({
        let store = rig.open();
        store.pin(&[by_key("a")], "deployment", None).await.unwrap();
        store
    });
    let second = DriveSettings { path: rig.path_of(1), ..rig.settings.drives[0].clone() };
    init_drive(&second.path, &rig.settings.state).unwrap();
    rig.settings.drives.push(second.clone());
    drain(&rig.settings, &rig.settings.drives[0].path, false, &mut |_| {}).unwrap();
    rig.settings.drives = vec![second];
    assert_eq!(targets(&rig.open()).await, [by_key("a")]);
}

#[tokio::test]
async fn an_error_in_its_place_does_not_cost_what_is_pinned() {
    let mut rig = Rig::new();
    small(&mut rig);
    let store = rig.open();
    let content = body_of(3 * BLOCK, 20);
    put(&store, "a", &content).await;
    store.pin(&[by_key("a")], "deployment", None).await.unwrap();
    let mut gone = record("a", Some(4));
    gone.status = StatusCode::NOT_FOUND;
    gone.headers.clear();
    let mut writer = store.create(gone).await.unwrap();
    fill(&mut writer, 0, b"gone").await;
    writer.complete(4).await.unwrap();
    for seed in 0..3 {
        crowd(&store, seed).await;
    }
    assert!(store.blob(Digest::of(&content)).await.is_some());
    assert_eq!(store.pinned().await[0].bytes, 0, "an error is not what was pinned");
    put(&store, "a", &content).await;
    assert_eq!(store.pinned().await[0].bytes, 3 * BLOCK as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_read_is_set_aside_after_some_attempts_and_nothing_is_evicted_before() {
    let mut rig = Rig::watched(1);
    small(&mut rig);
    drop(rig.open());
    let path = rig.settings.drives[0].path.join(layout::PINS);
    // Reading a directory fails each time, as a bad block does.
    fs::create_dir(&path).unwrap();
    let store = rig.open();
    store.ready().await;
    until("it is set aside", || {
        assert!(store.inner.pinning.are_unknown() || !path.is_dir(), "nothing can be evicted meanwhile");
        !path.is_dir()
    })
    .await;
    assert!(path.with_extension("damaged").exists());
    put(&store, "a", &body_of(BLOCK, 1)).await;
    store.pin(&[by_key("a")], "deployment", None).await.unwrap();
    crowd(&store, 1).await;
    assert!(path.is_file() && get(&store, "a").await.is_some());
}
