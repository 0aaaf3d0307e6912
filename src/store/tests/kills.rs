//! A busy store that is killed at moments nobody chose.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// What the body of `name` is in these tests.
fn content_of(number: u64) -> Vec<u8> {
    let length = [700, 5_000, BLOCK, 3 * BLOCK + 11, 150_000][number as usize % 5];
    // Every seventh is the content of the one before.
    body_of(length, if number % 35 == 14 { number - 5 } else { number })
}

/// Stores, updates, forgets, abandons and takes up again, as many bodies as `limit` says by now; to its end when that
/// is 0. What is flushed is in `flushed`.
async fn be_busy(store: Store, flushed: Arc<Mutex<Vec<u64>>>, limit: Arc<AtomicU64>) {
    let mut since = Vec::new();
    for number in 0.. {
        loop {
            match limit.load(Ordering::Relaxed) {
                0 => return,
                limit if number < limit => break,
                _ => tokio::task::yield_now().await,
            }
        }
        let (name, content) = (number.to_string(), content_of(number));
        let (length, known) = (content.len() as u64, record(&name, Some(content.len() as u64)));
        let first = match number % 4 {
            3 => FirstBytes { at: 0, bytes: vec![Bytes::copy_from_slice(&content)], until: Some(length) },
            _ => FirstBytes::default(),
        };
        let mut writer = store.begin(known, length, first).await.unwrap().show(true);
        if number % 6 == 1 {
            if writer.contiguous() == 0 {
                fill(&mut writer, 0, &content[..content.len() / 2]).await;
            }
            let entry = Arc::clone(writer.entry());
            drop(writer);
            if number % 12 == 1 {
                continue;
            }
            writer = store.resume(&entry).await.unwrap();
        }
        let begin = writer.contiguous() as usize;
        fill(&mut writer, begin, &content[begin..]).await;
        let completed = writer.complete(content.len() as u64).await.unwrap();
        match number % 9 {
            2 => {
                let mut newer = record(&name, Some(content.len() as u64));
                newer.response_time = UnixMillis(5_000);
                store.update(&completed.entry, newer);
            }
            4 => {
                store.remove(&completed.entry);
                continue;
            }
            _ => {}
        }
        since.push(number);
        if number % 10 == 0 {
            store.flush().await;
            flushed.lock().append(&mut since);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_lose_nothing_that_was_flushed_and_serve_nothing_wrong() {
    let rig = Rig::new();
    let store = rig.open();
    let (flushed, limit) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(20)));
    let busy = tokio::spawn(be_busy(store.clone(), Arc::clone(&flushed), Arc::clone(&limit)));
    for kill in 0..20 {
        limit.store((kill + 3) * 12, Ordering::Relaxed);
        // Each kill comes after some more was flushed.
        while flushed.lock().len() < 6 * kill as usize {
            tokio::task::yield_now().await;
        }
        let there = flushed.lock().clone();
        let copy = tokio::task::block_in_place(|| rig.copy_of_now());
        if kill % 2 == 0 {
            copy.forget_derived();
        }
        let found = copy.open();
        for number in &there {
            let got = get(&found, &number.to_string()).await;
            assert!(got.is_some_and(|got| got == content_of(*number)), "kill {kill}: {number} of {there:?}");
        }
        for number in 0..there.last().map_or(20, |last| last + 20) {
            for entry in found.lookup(&key(&number.to_string())).await.iter() {
                assert!(number % 9 != 4 || entry.partial().is_some() || !there.iter().any(|last| *last > number + 20));
                let body = match found.body(entry).await {
                    Ok(body) => body,
                    Err(ReadError::Gone) => continue,
                    Err(error) => panic!("kill {kill}: {number}: {error}"),
                };
                let (content, mut at) = (content_of(number), 0);
                while let Ok(piece) = body.read(at as u64, 40_000).await {
                    assert!(content[at..].starts_with(&piece), "kill {kill}: {number} at {at}");
                    at += piece.len();
                }
            }
        }
        // It goes on as if nothing had been.
        assert_eq!(put(&found, "afterwards", &content_of(3)).await.digest, Digest::of(&content_of(3)));
    }
    limit.store(0, Ordering::Relaxed);
    busy.await.unwrap();
}
