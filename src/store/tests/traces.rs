//! A trace of requests against the real store on a drive with a small quota, and the same against LRU with as many bytes.

use super::*;
use crate::store::evict::traces::{Lru, Ratios, Shape};

/// An object's bytes: no two have the same.
fn content_of(key: u32, size: u64) -> Vec<u8> {
    let mut content = vec![key as u8; usize::try_from(size).unwrap()];
    content[..4].copy_from_slice(&key.to_le_bytes());
    content
}

async fn is_hit(store: &Store, name: &str) -> bool {
    let variants = store.lookup(&key(name)).await;
    let Some(entry) = variants.iter().find(|entry| matches!(entry.record.body, BodyRef::Blob(_))) else { return false };
    match store.body(entry).await {
        Ok(body) => body.read(0, 1).await.is_ok_and(|bytes| !bytes.is_empty()),
        Err(_) => false,
    }
}

/// What the store makes of a trace: what is missing is fetched, as far as there is room.
async fn replay(shape: &Shape, trace: &[u32], quota: u64) -> Ratios {
    let mut rig = Rig::new();
    rig.settings.drives[0].quota = quota;
    let store = rig.open();
    let mut ratios = Ratios::default();
    for &object in trace {
        let (name, size) = (object.to_string(), shape.size_of(object));
        let hit = is_hit(&store, &name).await;
        ratios.count(size, hit);
        if !hit && let Ok(mut writer) = store.create(record(&name, Some(size))).await {
            writer.write(0, vec![content_of(object, size).into()]).await.unwrap();
            writer.complete(size).await.unwrap();
        }
    }
    let used = store.usage()[0].used;
    assert!(used <= quota, "{used} of {quota}");
    ratios
}

/// Compares at these shares of the footprint, in percent.
async fn compare(shape: &Shape, percents: &[u64]) {
    let trace = shape.trace();
    let footprint = shape.footprint(&trace);
    println!("{} requests, {} MiB in all objects", trace.len(), footprint >> 20);
    println!("| exponent | of the footprint | bytes | bytes, LRU | requests | requests, LRU |");
    for percent in percents {
        let quota = footprint * percent / 100;
        let store = replay(shape, &trace, quota).await;
        let lru = shape.replay(&trace, &mut Lru::default(), quota);
        println!(
            "| {} | {percent} % | {:.3} | {:.3} | {:.3} | {:.3} |",
            shape.exponent,
            store.bytes(),
            lru.bytes(),
            store.requests(),
            lru.requests()
        );
        assert!(store.bytes() >= lru.bytes(), "{percent} %: {store:?} against {lru:?}");
    }
}

#[tokio::test]
async fn the_store_keeps_more_of_what_is_asked_for_than_lru_would() {
    let shape = Shape {
        seed: 3,
        exponent: 0.9,
        popular: 300,
        rounds: 5,
        requests: 300,
        scanned: 40,
        least: 4096,
        spread: 64.0,
    };
    compare(&shape, &[5, 20]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes some gigabytes and prints figures"]
async fn figures_of_evictions_in_the_store() {
    for exponent in [0.7, 0.9, 1.1] {
        let shape = Shape {
            seed: 4,
            exponent,
            popular: 1500,
            rounds: 12,
            requests: 800,
            scanned: 60,
            least: 4096,
            spread: 256.0,
        };
        compare(&shape, &[1, 5, 20]).await;
    }
}
