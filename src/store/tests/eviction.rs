//! Quotas, and what goes to keep them.

use super::*;

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

#[tokio::test]
async fn wrong_bytes_in_quarantine_leave_the_room_to_right_ones() {
    let rig = Rig::new();
    let quota = 40 * BLOCK as u64;
    let settings =
        Settings { drives: vec![DriveSettings { quota, ..rig.settings.drives[0].clone() }], ..rig.settings.clone() };
    let store = Store::open(settings, Arc::new(Metrics::new().unwrap())).unwrap();
    put(&store, "right", &body_of(20 * BLOCK, 30)).await;
    for number in 0..20 {
        let mut wrong = record("wrong", None);
        wrong.expected = Some(ExpectedDigest::Upstream(Digest::of(b"other")));
        let mut writer = store.create(wrong).await.unwrap();
        fill(&mut writer, 0, &body_of(2 * BLOCK, 31 + number)).await;
        assert!(matches!(writer.complete(2 * BLOCK as u64).await, Err(CompleteError::Mismatch { .. })));
    }
    store.flush().await;
    assert_eq!(get(&store, "right").await.unwrap(), body_of(20 * BLOCK, 30));
    let data = fs::read_dir(rig.drive().join("quarantine"))
        .unwrap()
        .filter(|file| file.as_ref().unwrap().path().extension().is_none());
    assert_eq!(data.count(), 1, "the newest is kept for people to look at");
    assert!(store.usage()[0].used <= 22 * BLOCK as u64 + 4096, "{:?}", store.usage());
}
