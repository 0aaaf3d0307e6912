//! Whose a drive is, and which are refused.

use super::*;

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

impl Rig {
    fn with_two_drives() -> Self {
        let mut rig = Self::new();
        let second = DriveSettings { path: rig.root.path().join("second"), ..rig.settings.drives[0].clone() };
        rig.settings.drives.push(second);
        rig
    }
}

#[tokio::test]
async fn two_drives_share_the_content_and_each_one_stands_alone() {
    let rig = Rig::with_two_drives();
    let bodies: Vec<_> = (0..20).map(|number| (number.to_string(), body_of(BLOCK + 5, 50 + number))).collect();
    {
        let store = rig.open();
        for (name, content) in &bodies {
            put(&store, name, content).await;
        }
        assert!(put(&store, "copy", &bodies[0].1).await.duplicate, "one copy on all drives together");
        store.flush().await;
        for usage in store.usage() {
            assert!(usage.blobs >= 8, "{usage:?}");
        }
    }
    for way in ["all", "no state"] {
        if way == "no state" {
            rig.forget_derived();
        }
        let store = rig.open();
        for (name, content) in &bodies {
            assert_eq!(get(&store, name).await.as_ref(), Some(content), "{way}");
        }
        assert_eq!(get(&store, "copy").await.as_ref(), Some(&bodies[0].1), "{way}");
    }
    let alone = Settings { drives: vec![rig.settings.drives[1].clone()], ..rig.settings.clone() };
    let store = Store::open(alone, Arc::new(Metrics::new().unwrap())).unwrap();
    let mut found = 0;
    for (name, content) in &bodies {
        if let Some(got) = get(&store, name).await {
            assert_eq!(got, *content);
            found += 1;
        }
    }
    assert!((8..=12).contains(&found), "{found}");
}

#[tokio::test]
async fn a_drive_that_lost_its_mount_is_out_of_service_and_comes_back_with_it() {
    let rig = Rig::with_two_drives();
    let bodies: Vec<_> = (0..10).map(|number| (number.to_string(), body_of(BLOCK, 80 + number))).collect();
    {
        let store = rig.open();
        for (name, content) in &bodies {
            put(&store, name, content).await;
        }
    }
    let (mounted, elsewhere) = (rig.root.path().join("second"), rig.root.path().join("unmounted"));
    fs::rename(&mounted, &elsewhere).unwrap();
    fs::create_dir(&mounted).unwrap();
    {
        let store = rig.open();
        let mut missing = 0;
        for (name, content) in &bodies {
            match get(&store, name).await {
                Some(got) => assert_eq!(got, *content),
                None => missing += 1,
            }
        }
        assert!(missing > 0);
        assert_eq!(store.usage().iter().filter(|usage| !usage.in_service()).count(), 1);
        put(&store, "new", b"goes to the other one").await;
    }
    assert_eq!(fs::read_dir(&mounted).unwrap().count(), 0, "nothing is written below a mount point");
    let alone = Settings { drives: vec![rig.settings.drives[1].clone()], ..rig.settings.clone() };
    {
        let store = Store::open(alone, Arc::new(Metrics::new().unwrap())).unwrap();
        let refused = store.create(record("more", Some(1))).await;
        assert!(matches!(refused, Err(StoreError::NoSpace { .. })), "it is not made anew: {refused:?}");
        assert!(!store.usage()[0].in_service());
    }
    fs::remove_dir(&mounted).unwrap();
    fs::rename(&elsewhere, &mounted).unwrap();
    let store = rig.open();
    for (name, content) in &bodies {
        assert_eq!(get(&store, name).await.as_ref(), Some(content));
    }
    assert_eq!(get(&store, "new").await.unwrap(), b"goes to the other one");
}

#[tokio::test]
async fn a_body_goes_to_another_drive_when_the_first_one_refuses() {
    let rig = Rig::with_two_drives();
    let store = rig.open();
    store.ready().await;
    let largest = store.inner.fitting_drives(1)[0].settings.path.clone();
    fs::remove_dir_all(largest.join("partial")).unwrap();
    assert_eq!(put(&store, "a", b"content").await.digest, Digest::of(b"content"));
}

/// Puts something on each of two drives; the names.
async fn put_on_both(rig: &Rig) -> Vec<String> {
    let names: Vec<_> = (0..6).map(|number| number.to_string()).collect();
    let store = rig.open();
    for name in &names {
        put(&store, name, name.as_bytes()).await;
    }
    store.flush().await;
    assert!(store.usage().iter().all(|usage| usage.blobs > 0));
    names
}

#[tokio::test]
async fn while_it_cannot_be_told_which_paths_were_drives_no_new_one_is_made() {
    for damage in ["a flipped bit", "no text", "cannot be read"] {
        let rig = Rig::with_two_drives();
        let names = put_on_both(&rig).await;
        let (file, lost, away) =
            (rig.state().join("drives.json"), rig.root.path().join("second"), rig.root.path().join("away"));
        let whole = fs::read(&file).unwrap();
        match damage {
            "a flipped bit" => flip(&file, whole.iter().rposition(|byte| *byte == b'/').unwrap() as u64),
            "no text" => fs::write(&file, "").unwrap(),
            _ => {
                fs::remove_file(&file).unwrap();
                fs::create_dir(&file).unwrap();
            }
        }
        // Its mount is lost: the directory below is empty.
        fs::rename(&lost, &away).unwrap();
        fs::create_dir(&lost).unwrap();
        {
            let store = rig.open();
            store.ready().await;
            let usage = store.usage();
            assert_eq!((usage[0].in_service(), usage[1].in_service()), (true, false), "{damage}");
            let told = usage[1].out.clone().unwrap().text.unwrap();
            let says = [lost.to_str().unwrap(), file.to_str().unwrap(), "mount it", "drive init"]
                .map(|part| told.contains(part));
            assert_eq!(says, [true; 4], "{told}");
            put(&store, "more", b"more").await;
        }
        assert_eq!(fs::read_dir(&lost).unwrap().count(), 0, "{damage}: nothing was written there");
        fs::remove_dir(&lost).unwrap();
        fs::rename(&away, &lost).unwrap();
        if damage == "cannot be read" {
            fs::remove_dir(&file).unwrap();
        }
        let store = rig.open();
        for name in &names {
            assert_eq!(get(&store, name).await.unwrap(), name.as_bytes(), "{damage}");
        }
        assert_eq!(fs::read(&file).unwrap(), whole, "{damage}: with all drives here it is written anew");
    }
}

#[tokio::test]
async fn no_bit_of_its_identity_makes_a_drive_another_one() {
    let rig = Rig::new();
    put(&rig.open(), "a", b"content").await;
    let identity = rig.drive().join("waystation.json");
    let whole = fs::read_to_string(&identity).unwrap();
    let id = whole.split('"').nth(5).unwrap().to_owned();
    for bit in 0..whole.len() * 8 {
        let mut changed = whole.clone().into_bytes();
        changed[bit / 8] ^= 1 << (bit % 8);
        fs::write(&identity, &changed).unwrap();
        // The state directory may be lost, too.
        let dir = disk::Dir::open(&rig.drive()).unwrap();
        let read = identity::Identity::read(&dir, &rig.drive());
        let told = String::from_utf8_lossy(&changed).into_owned();
        assert!(read.is_err() || read.unwrap().0.to_string() == id, "{told}");
    }
    let other = whole.replacen(&id[..4], if id.starts_with("0000") { "1111" } else { "0000" }, 1);
    fs::write(&identity, other).unwrap();
    fs::remove_dir_all(rig.state()).unwrap();
    let error = Store::open(rig.settings.clone(), Arc::new(Metrics::new().unwrap())).unwrap_err().to_string();
    assert!(["waystation.json is damaged", "check", "drives.json"].iter().all(|part| error.contains(part)), "{error}");
    // One of an earlier release has none, and gets one.
    let plain: Vec<&str> = whole.lines().filter(|line| !line.contains("check")).collect();
    fs::write(&identity, plain.join("\n").replace(&format!("{id}\","), &format!("{id}\""))).unwrap();
    assert_eq!(get(&rig.open(), "a").await.unwrap(), b"content");
    assert_eq!(fs::read_to_string(&identity).unwrap(), whole);
}

#[tokio::test]
async fn a_damaged_identity_costs_its_drive_at_most() {
    let rig = Rig::with_two_drives();
    let names = put_on_both(&rig).await;
    let identity = rig.root.path().join("second/waystation.json");
    let whole = fs::read_to_string(&identity).unwrap();
    let id = whole.split('"').nth(5).unwrap().to_owned();
    let at = |text: &str| whole.find(text).unwrap() as u64;
    let check = whole.split('"').nth(9).unwrap().to_owned();
    let alone = Settings { drives: vec![rig.settings.drives[1].clone()], ..rig.settings.clone() };
    let open = |settings: &Settings| Store::open(settings.clone(), Arc::new(Metrics::new().unwrap()));

    // Its id is what this path is known as: nothing is in doubt.
    for settings in [&rig.settings, &alone] {
        flip(&identity, at(&check));
        let store = open(settings).unwrap();
        store.ready().await;
        assert!(store.usage().iter().all(|usage| usage.in_service()));
        assert_eq!(fs::read_to_string(&identity).unwrap(), whole, "the check is right again");
    }
    // Its id, or the text, is damaged.
    for place in [id.as_str(), "{"] {
        flip(&identity, at(place));
        let damaged = fs::read(&identity).unwrap();
        {
            let store = rig.open();
            store.ready().await;
            let usage = store.usage();
            assert_eq!((usage[0].in_service(), usage[1].in_service()), (true, false), "{place}");
            let told = usage[1].out.clone().unwrap().text.unwrap();
            assert!(told.contains("waystation.json is damaged"), "{told}");
            put(&store, "more", b"more").await;
        }
        {
            let store = open(&alone).unwrap();
            let refused = store.create(record("more", Some(1))).await;
            assert!(matches!(refused, Err(StoreError::NoSpace { .. })), "it is not made anew: {refused:?}");
        }
        // Not known as a drive, it is left out beside another one, and alone an error: most likely the path is wrong.
        let unknown = |settings: &Settings| Settings { state: rig.root.path().join("other"), ..settings.clone() };
        assert!(!open(&unknown(&rig.settings)).unwrap().usage()[1].in_service());
        fs::remove_dir_all(rig.root.path().join("other")).unwrap();
        let error = open(&unknown(&alone)).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
        assert_eq!(fs::read(&identity).unwrap(), damaged, "left as it was");
        fs::write(&identity, &whole).unwrap();
        let store = rig.open();
        for name in &names {
            assert_eq!(get(&store, name).await.unwrap(), name.as_bytes(), "{place}");
        }
    }
}
