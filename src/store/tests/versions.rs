//! Older versions of a response: they stay for those who have a part of one, and never get in the way.

use super::*;
use crate::content::{PartialId, Spoiled};

/// A record of version `tag`, a number; higher ones are younger.
fn tagged(name: &str, tag: &str, length: usize) -> Record {
    let mut record = record(name, Some(length as u64));
    record.response_time = UnixMillis(2_000 + tag.parse::<u64>().unwrap());
    record.headers.insert(http::header::ETAG, HeaderValue::from_str(&format!("\"{tag}\"")).unwrap());
    record
}

async fn put_version(store: &Store, name: &str, tag: &str, content: &[u8]) -> Completed {
    let mut writer = store.create(tagged(name, tag, content.len())).await.unwrap();
    fill(&mut writer, 0, content).await;
    writer.complete(content.len() as u64).await.unwrap()
}

fn tags(entries: &[Arc<Entry>]) -> Vec<&str> {
    entries.iter().map(|entry| entry.record.headers[http::header::ETAG].to_str().unwrap()).collect()
}

#[tokio::test]
async fn two_older_versions_stay_beside_the_current_one_and_survive_restarts() {
    let rig = Rig::new();
    let bodies: Vec<_> = (0..4).map(|seed| body_of(BLOCK + seed as usize, 70 + seed)).collect();
    {
        let store = rig.open();
        for (number, body) in bodies.iter().enumerate() {
            put_version(&store, "a", &number.to_string(), body).await;
            let known = store.known(&key("a")).await;
            assert_eq!(known.older().len(), number.min(2));
        }
        assert_eq!(store.lookup(&key("a")).await.len(), 1, "requests meet the current one only");
        assert_eq!(tags(store.known(&key("a")).await.older()), ["\"2\"", "\"1\""]);
        for number in [1, 2, 3] {
            put(&store, &format!("other{number}"), &bodies[number]).await;
        }
    }
    for way in ["kept", "no state", "no state again", "kept again"] {
        if way.starts_with("no state") {
            rig.forget_derived();
        }
        let store = rig.open();
        let known = store.known(&key("a")).await;
        assert_eq!((tags(&known.current), tags(known.older())), (vec!["\"3\""], vec!["\"2\"", "\"1\""]), "{way}");
        for (entry, number) in known.entries().zip([3, 2, 1]) {
            assert_eq!(read_present(&store, entry).await, bodies[number], "{way}");
            assert_eq!(entry.version().length, Some(bodies[number].len() as u64));
        }
        assert_eq!(get(&store, "a").await.unwrap(), bodies[3]);
    }
    // One more pushes out the oldest, in the journal too.
    put_version(&rig.open(), "a", "4", b"four").await;
    rig.forget_derived();
    assert_eq!(tags(rig.open().known(&key("a")).await.older()), ["\"3\"", "\"2\""]);
}

#[tokio::test]
async fn the_same_bytes_again_are_no_new_version() {
    let rig = Rig::new();
    let content = body_of(BLOCK, 80);
    let store = rig.open();
    let first = put_version(&store, "a", "1", &content).await.entry;
    let again = put_version(&store, "a", "2", &content).await.entry;
    assert!(first.version().is_same(&again.version()));
    assert_eq!(tags(&store.lookup(&key("a")).await), ["\"2\""]);
    assert!(store.known(&key("a")).await.older().is_empty());
    store.flush().await;
    drop(store);
    rig.forget_derived();
    let store = rig.open();
    assert!(store.known(&key("a")).await.older().is_empty());
    // There and back again: what was older is the current one, and is not older any more.
    put_version(&store, "a", "3", b"three").await;
    put_version(&store, "a", "2", &content).await;
    for flushed in [false, true] {
        if flushed {
            store.flush().await;
        }
        let known = store.known(&key("a")).await;
        assert_eq!((tags(&known.current), tags(known.older())), (vec!["\"2\""], vec!["\"3\""]), "{flushed}");
    }
}

#[tokio::test]
async fn a_fill_that_was_superseded_is_readable_and_nobody_writes_it() {
    let rig = Rig::new();
    let content = body_of(3 * BLOCK, 81);
    {
        let store = rig.open();
        let mut writer = store.create(tagged("p", "1", 4 * BLOCK)).await.unwrap();
        fill(&mut writer, 0, &content).await;
        let (partial, entry) = (Arc::clone(writer.partial()), Arc::clone(writer.entry()));
        let waiter = tokio::spawn(async move { partial.wait(3 * BLOCK as u64).await });
        writer.supersede().await;
        assert_eq!(waiter.await.unwrap(), Progress::Stopped, "who follows it is cut");
        assert!(store.lookup(&key("p")).await.is_empty());
        assert!(store.resume(&entry).await.is_none());
        assert!(store.resume(&store.known(&key("p")).await.older()[0]).await.is_none());
        store.create(tagged("p", "2", 5)).await.unwrap().supersede().await;
        assert_eq!(tags(store.known(&key("p")).await.older()), ["\"1\""], "an empty one is worth nothing");
        put_version(&store, "p", "3", b"three").await;
    }
    for way in ["kept", "no state"] {
        if way == "no state" {
            rig.forget_derived();
        }
        let store = rig.open();
        let known = store.known(&key("p")).await;
        assert_eq!((tags(&known.current), tags(known.older())), (vec!["\"3\""], vec!["\"1\""]), "{way}");
        assert_eq!(read_present(&store, &known.older()[0]).await, content);
        assert!(store.resume(&known.older()[0]).await.is_none(), "{way}");
    }
}

#[tokio::test]
async fn bodies_that_nobody_fills_stay_as_older_ones_when_another_version_is_complete() {
    let rig = Rig::new();
    let store = rig.open();
    let begun = body_of(BLOCK, 82);
    for tag in ["2", "3"] {
        let mut writer = store.create(tagged("q", tag, 2 * BLOCK)).await.unwrap();
        fill(&mut writer, 0, &begun).await;
    }
    // The one that is completed needs no part of itself beside it.
    put_version(&store, "q", "3", &body_of(2 * BLOCK, 83)).await;
    let known = store.known(&key("q")).await;
    assert_eq!((tags(&known.current), tags(known.older())), (vec!["\"3\""], vec!["\"2\""]));
}

#[tokio::test]
async fn a_slow_fill_of_an_older_version_does_not_take_the_place_of_a_newer_one() {
    let rig = Rig::new();
    let (old, new) = (body_of(2 * BLOCK, 84), body_of(BLOCK, 85));
    {
        let store = rig.open();
        let mut slow = store.create(tagged("s", "1", old.len())).await.unwrap();
        fill(&mut slow, 0, &old[..BLOCK]).await;
        put_version(&store, "s", "2", &new).await;
        fill(&mut slow, BLOCK, &old[BLOCK..]).await;
        slow.complete(old.len() as u64).await.unwrap();
        assert_eq!(get(&store, "s").await.unwrap(), new);
    }
    rig.forget_derived();
    let store = rig.open();
    let known = store.known(&key("s")).await;
    assert_eq!((tags(&known.current), tags(known.older())), (vec!["\"2\""], vec!["\"1\""]));
    assert_eq!(read_present(&store, &known.older()[0]).await, old);
}

#[tokio::test]
async fn an_older_version_gets_its_place_back_without_a_transfer() {
    let rig = Rig::new();
    let (first, second) = (body_of(2 * BLOCK, 86), body_of(BLOCK, 87));
    {
        let store = rig.open();
        put_version(&store, "r", "1", &first).await;
        put_version(&store, "r", "2", &second).await;
        let older = Arc::clone(&store.known(&key("r")).await.older()[0]);
        let mut newer = tagged("r", "1", 0);
        newer.response_time = UnixMillis(77_000);
        let revived = store.revive(&older, newer).unwrap();
        assert_eq!((revived.record.length, revived.birth), (Some(first.len() as u64), older.birth));
        assert!(store.revive(&older, tagged("r", "1", 0)).is_none(), "it is not an older one any more");
        let mut begun = store.create(tagged("r", "3", 3 * BLOCK)).await.unwrap();
        fill(&mut begun, 0, &second).await;
        begun.supersede().await;
        let older = Arc::clone(&store.known(&key("r")).await.older()[0]);
        assert_eq!(tags(std::slice::from_ref(&older)), ["\"3\""]);
        let revived = store.revive(&older, tagged("r", "3", 3 * BLOCK)).unwrap();
        let mut writer = store.resume(&revived).await.unwrap();
        assert_eq!(writer.contiguous(), BLOCK as u64);
        fill(&mut writer, BLOCK, b"and so on").await;
    }
    for way in ["kept", "no state"] {
        if way == "no state" {
            rig.forget_derived();
        }
        let store = rig.open();
        let known = store.known(&key("r")).await;
        assert_eq!((tags(&known.current), tags(known.older())), (vec!["\"3\""], vec!["\"1\"", "\"2\""]), "{way}");
        assert_eq!(known.older()[0].record.response_time, UnixMillis(77_000), "{way}");
        assert_eq!(read_present(&store, &known.older()[0]).await, first, "{way}");
    }
}

#[tokio::test]
async fn older_versions_go_like_everything_else_when_room_is_needed() {
    let rig = Rig::new();
    let quota = 10 * BLOCK as u64;
    let settings =
        Settings { drives: vec![DriveSettings { quota, ..rig.settings.drives[0].clone() }], ..rig.settings.clone() };
    let store = Store::open(settings, Arc::new(Metrics::new().unwrap())).unwrap();
    put_version(&store, "a", "1", &body_of(3 * BLOCK, 88)).await;
    let mut begun = store.create(tagged("a", "2", 3 * BLOCK)).await.unwrap();
    fill(&mut begun, 0, &body_of(2 * BLOCK, 89)).await;
    begun.supersede().await;
    let current = body_of(2 * BLOCK, 90);
    put_version(&store, "a", "3", &current).await;
    store.flush().await;
    assert_eq!(store.known(&key("a")).await.older().len(), 2);
    let entry = Arc::clone(&store.lookup(&key("a")).await[0]);
    for number in 0..4 {
        store.body(&entry).await.unwrap();
        put(&store, &number.to_string(), &body_of(2 * BLOCK, 91 + number)).await;
        store.flush().await;
    }
    let known = store.known(&key("a")).await;
    assert!(known.older().is_empty(), "{known:?}");
    assert_eq!(get(&store, "a").await.unwrap(), current, "what is asked for stays");
    assert!(store.usage()[0].used <= quota);
}

#[tokio::test]
async fn older_versions_survive_the_compaction_of_the_journal() {
    let rig = Rig::new();
    let (first, second) = (body_of(BLOCK, 101), body_of(BLOCK, 102));
    {
        let store = rig.open();
        let entry = put_version(&store, "a", "1", &first).await.entry;
        // What is known of it is in an entry of its own by then.
        let mut newer = tagged("a", "1", first.len());
        newer.response_time = UnixMillis(3_000);
        store.update(&entry, newer);
        put_version(&store, "a", "2", &second).await;
        let mut entry = put(&store, "busy", b"busy").await.entry;
        for round in 0..2000 {
            let mut newer = record("busy", Some(4));
            newer.response_time = UnixMillis(10_000 + round);
            entry = store.update(&entry, newer);
            if round % 50 == 0 {
                store.flush().await;
            }
        }
    }
    assert!(!rig.drive().join("journal/0000000000000001.log").exists(), "the first segment is gone");
    rig.forget_derived();
    let store = rig.open();
    let known = store.known(&key("a")).await;
    assert_eq!((tags(&known.current), tags(known.older())), (vec!["\"2\""], vec!["\"1\""]));
    assert_eq!(known.older()[0].record.response_time, UnixMillis(3_000));
    assert_eq!(read_present(&store, &known.older()[0]).await, first);
}

#[tokio::test]
async fn what_has_outlived_its_day_is_not_met_any_more() {
    let rig = Rig::new();
    {
        let store = rig.open();
        let mut writer = store.create(tagged("o", "1", 2 * BLOCK)).await.unwrap();
        fill(&mut writer, 0, &body_of(BLOCK, 103)).await;
        writer.supersede().await;
    }
    let map = partial_data(&rig).with_extension("map");
    let long_ago = map_file::encode_superseded(Some(UnixMillis(5)));
    let bytes = [fs::read(&map).unwrap(), long_ago.to_vec()].concat();
    fs::write(&map, bytes).unwrap();
    let store = rig.open();
    assert!(store.known(&key("o")).await.older().is_empty());
    put_version(&store, "o", "2", b"two").await;
    store.flush().await;
    assert!(!map.exists(), "its room is free");
}

#[tokio::test]
async fn a_version_on_another_drive_becomes_an_older_one_too() {
    let mut rig = Rig::new();
    let second = DriveSettings { path: rig.root.path().join("second"), ..rig.settings.drives[0].clone() };
    rig.settings.drives.push(second);
    let (first, other) = (body_of(BLOCK, 104), body_of(2 * BLOCK, 105));
    {
        let store = rig.open();
        let one = put_version(&store, "d", "1", &first).await.entry;
        let two = put_version(&store, "d", "2", &other).await.entry;
        assert_ne!(one.drive, two.drive, "the emptier drive is taken");
    }
    for way in ["kept", "no state"] {
        if way == "no state" {
            rig.forget_derived();
        }
        let store = rig.open();
        let known = store.known(&key("d")).await;
        assert_eq!((tags(&known.current), tags(known.older())), (vec!["\"2\""], vec!["\"1\""]), "{way}");
        assert_eq!(read_present(&store, &known.older()[0]).await, first, "{way}");
    }
}

#[tokio::test]
async fn a_drive_of_the_first_release_opens_in_place() {
    let rig = Rig::new();
    let content = body_of(BLOCK + 3, 106);
    {
        let store = rig.open();
        put_version(&store, "f", "1", &content).await;
    }
    let identity = rig.drive().join("waystation.json");
    let text = fs::read_to_string(&identity).unwrap().replace("\"format\": 2", "\"format\": 1");
    fs::write(&identity, &text).unwrap();
    let digest = Digest::of(&content);
    let crcs = content.chunks(BLOCK).map(crc32c::crc32c).collect();
    let size = block_map::BlockSize::new(BLOCK as u32).unwrap();
    let sums = block_sums::BlockSums::new(size, content.len() as u64, crcs).unwrap();
    let record = Record { body: BodyRef::Blob(digest), ..tagged("f", "1", content.len()) };
    let segment = rig.drive().join("journal/0000000000000001.log");
    let mut bytes = fs::read(&segment).unwrap()[..journal_segment::SEGMENT_HEADER_LEN].to_vec();
    bytes[8] = 1;
    let end = bytes.len() - 4;
    let check = crc32c::crc32c(&bytes[..end]).to_le_bytes();
    bytes[end..].copy_from_slice(&check);
    bytes.extend(journal_format::frame_of(&journal_entry::first_release_payload(&record, &sums)));
    fs::write(&segment, bytes).unwrap();
    rig.forget_derived();
    {
        let store = rig.open();
        assert_eq!(get(&store, "f").await.unwrap(), content);
        assert_ne!(fs::read_to_string(&identity).unwrap(), text, "the older release will not touch it any more");
        put_version(&store, "f", "2", b"two").await;
    }
    rig.forget_derived();
    let known = rig.open().known(&key("f")).await;
    assert_eq!((tags(&known.current), tags(known.older())), (vec!["\"2\""], vec!["\"1\""]));
    assert_ne!(known.older()[0].birth, PartialId(0));
}

#[tokio::test]
async fn wrong_bytes_are_kept_until_right_ones_tell_from_where_on_they_are_wrong() {
    let rig = Rig::new();
    let right = body_of(2 * BLOCK, 107);
    let wrong = {
        let mut wrong = right.clone();
        wrong[BLOCK + 7] ^= 1;
        wrong
    };
    let client = std::net::IpAddr::from([10, 0, 0, 1]);
    let expecting = || Record {
        expected: Some(ExpectedDigest::Upstream(Digest::of(&right).into())),
        ..tagged("w", "1", right.len())
    };
    let quarantined = || fs::read_dir(rig.drive().join("quarantine")).unwrap().count();
    let held = |store: &Store| store.given(client, &key("w")).versions;
    {
        let store = rig.open();
        store.ready().await;
        let mut writer = store.create(expecting()).await.unwrap();
        fill(&mut writer, 0, &wrong).await;
        store.give(client, &key("w"), &writer.entry().version(), false).await;
        assert!(matches!(writer.complete(wrong.len() as u64).await, Err(CompleteError::Mismatch { .. })));
        assert_eq!(held(&store)[0].spoiled, Some(Spoiled::Throughout));
        assert_eq!(quarantined(), 2, "bytes and reason");
    }
    let store = rig.open();
    store.ready().await;
    assert_eq!(held(&store)[0].spoiled, Some(Spoiled::Throughout), "also after a restart");
    // A body that nobody vouches for tells nothing.
    put_version(&store, "w", "1", &right).await;
    assert_eq!(held(&store)[0].spoiled, Some(Spoiled::Throughout));
    let mut writer = store.create(expecting()).await.unwrap();
    fill(&mut writer, 0, &right).await;
    writer.complete(right.len() as u64).await.unwrap();
    let from = Spoiled::From { first_difference: BLOCK as u64 + 7, right: Digest::of(&right).prefix() };
    while held(&store)[0].spoiled != Some(from) || quarantined() > 0 {
        tokio::task::yield_now().await;
    }
    drop(store);
    let store = rig.open();
    store.ready().await;
    assert_eq!(held(&store)[0].spoiled, Some(from));
}
