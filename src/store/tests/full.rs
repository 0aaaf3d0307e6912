//! Drives that are full at any write: nothing panics, no byte is wrong, what was durable stays, and when there is room
//! again everything goes on.

use std::net::{IpAddr, Ipv4Addr};

use rustix::io::Errno;
use tokio::task::JoinSet;

use super::faults::Faults;
use super::*;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Stories that are told at a time: each waits for its disk most of the time.
const AT_A_TIME: usize = 12;

/// Names and contents of the story.
fn contents() -> [(&'static str, Vec<u8>); 4] {
    [
        ("a", body_of(3 * BLOCK + 17, 71)),
        ("b", body_of(300_000, 72)),
        ("c", body_of(BLOCK, 73)),
        ("d", body_of(5 * BLOCK, 74)),
    ]
}

/// Stores a body, as far as the drive lets it.
async fn try_put(store: &Store, name: &str, content: &[u8], length: Option<u64>) -> bool {
    let Ok(mut writer) = store.create(record(name, length)).await else { return false };
    for (number, piece) in content.chunks(100_000).enumerate() {
        if writer.write(number as u64 * 100_000, vec![Bytes::copy_from_slice(piece)]).await.is_err() {
            return false;
        }
    }
    match writer.complete(content.len() as u64).await {
        Ok(completed) => {
            assert_eq!(completed.digest, Digest::of(content));
            true
        }
        Err(CompleteError::Io(_) | CompleteError::Short { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// What there is under these names is right.
async fn look(store: &Store) {
    for (name, content) in contents() {
        for entry in store.known(&key(name)).await.entries() {
            let Ok(body) = store.body(entry).await else { continue };
            let present = body.present_until(0);
            let mut at = 0;
            while at < present {
                let Ok(bytes) = body.read(at, 100_000).await else { break };
                assert!(bytes == content[at as usize..at as usize + bytes.len()], "{name} at {at}");
                at += bytes.len() as u64;
            }
        }
    }
}

/// Everything that the store writes, once.
async fn tell(store: &Store) {
    let [(a, first), (b, second), (c, third), (d, fourth)] = contents();
    try_put(store, a, &first, Some(first.len() as u64)).await;
    try_put(store, b, &second, None).await;
    store.flush().await;
    look(store).await;
    if let Ok(mut writer) = store.create(record(d, Some(fourth.len() as u64))).await {
        let half = Bytes::copy_from_slice(&fourth[..2 * BLOCK + 100]);
        let _ = writer.write(0, vec![half]).await;
        drop(writer);
    }
    store.flush().await;
    let known = store.known(&key(d)).await;
    if let Some(entry) = known.entries().find(|entry| entry.partial().is_some())
        && let Some(mut writer) = store.resume(entry).await
    {
        let from = writer.contiguous();
        let _ = writer.write(from, vec![Bytes::copy_from_slice(&fourth[from as usize..])]).await;
        let _ = writer.complete(fourth.len() as u64).await;
    }
    if let Some(entry) = store.lookup(&key(a)).await.first() {
        store.give(CLIENT, &key(a), &entry.version(), false).await;
        store.update(entry, Record { response_time: UnixMillis(9_000), ..entry.record.clone() });
    }
    // All of it is there when it begins.
    let first = FirstBytes { at: 0, bytes: vec![Bytes::copy_from_slice(&third)], until: Some(BLOCK as u64) };
    if let Ok(body) = store.begin(record(c, Some(BLOCK as u64)), BLOCK as u64, first).await {
        let mut writer = body.show(true);
        if writer.contiguous() == 0 {
            let _ = writer.write(0, vec![Bytes::copy_from_slice(&third)]).await;
        }
        let _ = writer.complete(BLOCK as u64).await;
    }
    store.flush().await;
    look(store).await;
}

/// Tells the story while `many` operations from the `first`-th on fail; how many did.
async fn tell_full(first: u64, many: u64, error: Errno) -> u64 {
    let rig = Rig::new();
    let before = body_of(100_000, 70);
    {
        let store = rig.open();
        put(&store, "before", &before).await;
        store.flush().await;
    }
    let faults = Faults::below(rig.root.path(), first, many, error);
    // A node that finds no room for its state when it starts says so; it is started again.
    let metrics = Arc::new(Metrics::new().unwrap());
    if let Ok(store) = Store::open(rig.settings.clone(), Arc::clone(&metrics)) {
        store.ready().await;
        assert!(get(&store, "before").await.as_ref() == Some(&before), "{first} {many} {error:?}");
        tell(&store).await;
        if many == 1 {
            // The same store, once there is room.
            again(&store).await;
        }
    }
    let struck = faults.struck();
    drop(faults);
    let store = rig.open();
    // What makes room for others is not lost.
    let stays = metrics.evictions.get() == 0;
    let there = get(&store, "before").await;
    assert!(there.as_ref() == Some(&before) || (there.is_none() && !stays), "{first} {many} {error:?}: lost");
    look(&store).await;
    again(&store).await;
    drop(store);
    let store = rig.open();
    for (name, content) in contents() {
        assert!(get(&store, name).await == Some(content), "{first} {many} {error:?}: {name}");
    }
    struck
}

/// Everything is stored again if it is not there.
async fn again(store: &Store) {
    for (name, content) in contents() {
        if get(store, name).await.is_none() {
            assert!(try_put(store, name, &content, Some(content.len() as u64)).await, "{name}");
        }
        assert!(get(store, name).await == Some(content), "{name}");
    }
    store.flush().await;
}

/// Each `step`-th operation of the story fails, alone and with all that follow.
async fn tell_all(step: u64) {
    let rig = Rig::new();
    let faults = Faults::below(rig.root.path(), u64::MAX, 0, Errno::NOSPC);
    {
        let store = rig.open();
        store.ready().await;
        tell(&store).await;
    }
    let operations = faults.count();
    let cases = (1..=operations).flat_map(|first| {
        let error = if first % 2 == 0 { Errno::NOSPC } else { Errno::DQUOT };
        let other = if first % 2 == 0 { Errno::DQUOT } else { Errno::NOSPC };
        let once = (first % step == 0).then_some((first, 1, error));
        let lasting = (first % (3 * step) == 0).then_some((first, u64::MAX, other));
        once.into_iter().chain(lasting)
    });
    let (mut told, mut struck) = (0, 0);
    let mut running = JoinSet::new();
    for (first, many, error) in cases {
        running.spawn(tell_full(first, many, error));
        if running.len() >= AT_A_TIME {
            struck += running.join_next().await.unwrap().unwrap();
        }
        told += 1;
    }
    for more in running.join_all().await {
        struck += more;
    }
    println!("{operations} operations in the story; {told} stories, {struck} operations failed");
    assert!(struck >= told / 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_that_is_full_at_some_write_loses_nothing() {
    tell_all(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "every write of the story: some minutes"]
async fn a_drive_that_is_full_at_any_write_loses_nothing() {
    tell_all(1).await;
}

/// A segment of the journal whose first write fails goes in its turn, as the others do.
#[tokio::test]
async fn a_segment_that_took_nothing_goes_with_the_others() {
    let rig = Rig::new();
    let store = rig.open();
    store.ready().await;
    // Making the segment, its header, a sync; then what it is for.
    let faults = Faults::below(&rig.drive().join(layout::JOURNAL), 4, 1, Errno::IO);
    let mut entry = put(&store, "busy", b"busy").await.entry;
    store.flush().await;
    assert_eq!(faults.struck(), 1);
    let segment = |number: u64| rig.drive().join(layout::segment(number));
    assert!(segment(1).exists() && segment(2).exists());
    for round in 0..2000 {
        let mut newer = record("busy", Some(4));
        newer.response_time = UnixMillis(10_000 + round);
        entry = store.update(&entry, newer);
        if round % 50 == 0 {
            store.flush().await;
        }
    }
    store.flush().await;
    assert!(!segment(2).exists() && !segment(1).exists());
}

/// Files of content below the drive, and how many segments of the journal there are.
fn files_of(rig: &Rig) -> (Vec<String>, Vec<String>) {
    let names = |path: PathBuf| {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    let mut content = names(rig.drive().join(layout::PARTIAL));
    for directory in names(rig.drive().join(layout::BLOBS)) {
        content.extend(names(rig.drive().join(layout::BLOBS).join(directory)));
    }
    (content, names(rig.drive().join(layout::JOURNAL)))
}

/// A drive that goes on taking bytes, but not into its journal, does not fill with what nobody counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_told_to_the_journal_of_a_drive_in_service_goes() {
    let rig = Rig::new();
    let store = rig.open();
    put(&store, "before", b"before").await;
    store.flush().await;
    let (used, files) = (store.usage()[0].used, files_of(&rig).0);
    let faults = Faults::below(&rig.drive().join(layout::JOURNAL), 1, u64::MAX, Errno::MFILE);
    for (name, content) in contents() {
        put(&store, name, &content).await;
    }
    store.flush().await;
    assert!(faults.struck() > 0 && store.usage()[0].in_service());
    assert_eq!((store.usage()[0].used, files_of(&rig).0), (used, files));
    drop(faults);
    for (name, content) in contents() {
        assert!(get(&store, name).await.is_none(), "{name}");
        put(&store, name, &content).await;
    }
    store.flush().await;
    drop(store);
    let store = rig.open();
    for (name, content) in contents() {
        assert!(get(&store, name).await == Some(content), "{name}");
    }
}

/// Segments that could not be begun leave no file, and no number out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_could_not_be_begun_is_not_there() {
    // Its header, and the sync behind it.
    for first in 1..=2 {
        let rig = Rig::new();
        let store = rig.open();
        store.ready().await;
        let faults = Faults::below(&rig.drive().join(layout::JOURNAL), first, 1, Errno::IO);
        put(&store, "a", b"content").await;
        store.flush().await;
        assert_eq!(faults.struck(), 1);
        let first_segment = layout::segment(1);
        let name = first_segment.rsplit('/').next().unwrap();
        assert_eq!(files_of(&rig).1, [name], "operation {first}");
        drop(store);
        assert_eq!(get(&rig.open(), "a").await.unwrap(), b"content");
    }
}
