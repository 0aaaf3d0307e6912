//! Bodies and their names: what is put comes back under its key, once on the drive however many keys it has.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

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
async fn what_was_forgotten_does_not_come_back_by_a_late_update() {
    let rig = Rig::new();
    let store = rig.open();
    put(&store, "a", b"shared").await;
    put(&store, "b", b"shared").await;
    let entry = Arc::clone(&store.lookup(&key("a")).await[0]);
    for flushed in [false, true] {
        if flushed {
            store.flush().await;
        }
        store.remove(&entry);
        let mut newer = record("a", Some(6));
        newer.response_time = UnixMillis(9_000);
        store.update(&entry, newer);
        assert!(store.lookup(&key("a")).await.is_empty(), "{flushed}");
    }
    store.flush().await;
    drop(store);
    let store = rig.open();
    assert!(store.lookup(&key("a")).await.is_empty());
    assert_eq!(get(&store, "b").await.unwrap(), b"shared");
}

/// Who looks without the lock must see the new set when it sees the new generation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generation_is_never_ahead_of_what_is_stored() {
    let rig = Rig::new();
    let store = rig.open();
    put(&store, "f", &body_of(10_000, 1)).await;
    store.flush().await;
    let key = key("f");
    let shown = AtomicU64::new(2_000);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let generation = store.generation(&key);
                let Some(variants) = store.lookup_hot(&key) else { continue };
                let seen = variants[0].record.response_time.0;
                let least = shown.load(Ordering::Acquire);
                assert!(store.generation(&key) != generation || seen >= least, "{seen} is shown, {least} was made");
            }
        });
        for time in 2_001..6_000 {
            let entry = Arc::clone(&store.lookup_hot(&key).unwrap()[0]);
            let before = store.generation(&key);
            let record = Record { response_time: UnixMillis(time), ..entry.record.clone() };
            store.update(&entry, record);
            assert_ne!(store.generation(&key), before);
            shown.store(time, Ordering::Release);
        }
        done.store(true, Ordering::Release);
    });
}
