//! Writers of partial bodies and those who read behind them.

use rustix::io::Errno;

use super::*;
use crate::content::ByteRange;
use crate::store::pulse::injection::Inject;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reader_of_a_growing_body_misses_a_wake_up() {
    let rig = Rig::new();
    let store = rig.open();
    let content = Arc::new(body_of(10 * BLOCK + 3, 12));
    let mut writer = store.create(record("grows", None)).await.unwrap();
    let mut readers = tokio::task::JoinSet::new();
    for number in 0..100 {
        let (partial, content) = (Arc::clone(writer.partial()), Arc::clone(&content));
        readers.spawn(async move {
            let mut offset = number * 1000;
            loop {
                // Every other wait is given up once, as a client that times out does.
                if offset % 2 == 0 {
                    tokio::select! { biased; _ = partial.wait(offset) => {}, () = tokio::task::yield_now() => {} }
                }
                match partial.wait(offset).await {
                    Progress::Present(end) => {
                        let body = Body::Partial(Arc::clone(&partial));
                        let piece = body.read(offset, (end - offset).min(30_001) as usize).await.unwrap();
                        let start = offset as usize;
                        assert_eq!(piece, content[start..start + piece.len()]);
                        offset += piece.len() as u64;
                    }
                    Progress::Ended(length) => return assert_eq!(offset, length),
                    Progress::Stopped => panic!("stopped"),
                }
            }
        });
    }
    for (number, piece) in content.chunks(7001).enumerate() {
        writer.write(number as u64 * 7001, vec![Bytes::copy_from_slice(piece)]).await.unwrap();
    }
    writer.complete(content.len() as u64).await.unwrap();
    while let Some(reader) = readers.join_next().await {
        reader.unwrap();
    }
}

#[tokio::test]
async fn waiters_learn_that_the_writer_stopped() {
    let rig = Rig::new();
    let store = rig.open();
    let mut writer = store.create(record("s", Some(100))).await.unwrap();
    writer.write(0, vec![Bytes::from_static(b"0123456789")]).await.unwrap();
    let partial = Arc::clone(writer.partial());
    let waiter = tokio::spawn(async move { partial.wait(10).await });
    assert_eq!(writer.partial().wait(3).await, Progress::Present(10));
    let entry = Arc::clone(writer.entry());
    drop(writer);
    assert_eq!(waiter.await.unwrap(), Progress::Stopped);
    let writer = store.resume(&entry).await.unwrap();
    assert!(matches!(writer.complete(100).await, Err(CompleteError::Short { missing: 90 })));
    let writer = store.resume(&entry).await.unwrap();
    let partial = Arc::clone(writer.partial());
    writer.discard().await;
    assert_eq!(partial.wait(0).await, Progress::Stopped);
    assert!(store.lookup(&key("s")).await.is_empty());
    assert!(store.resume(&entry).await.is_none());
}

#[tokio::test]
async fn a_wrong_digest_is_quarantined_and_forgotten() {
    let rig = Rig::new();
    let store = rig.open();
    put(&store, "x", b"older").await;
    let mut wrong = record("x", Some(3));
    wrong.expected = Some(ExpectedDigest::Upstream(Digest::of(b"abc").into()));
    let mut writer = store.create(wrong.clone()).await.unwrap();
    assert_eq!(store.lookup(&key("x")).await.len(), 2, "the older one stays beside it");
    writer.write(0, vec![Bytes::from_static(b"abd")]).await.unwrap();
    let follower = Arc::clone(writer.partial());
    match writer.complete(3).await {
        Err(CompleteError::Mismatch { expected, actual }) => {
            assert_eq!((expected, actual), (Digest::of(b"abc").into(), Digest::of(b"abd")));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(Body::Partial(follower).read(0, 3).await, Err(ReadError::Gone)));
    assert_eq!(get(&store, "x").await.unwrap(), b"older");
    let quarantined: Vec<_> = fs::read_dir(rig.drive().join("quarantine")).unwrap().collect();
    assert_eq!(quarantined.len(), 2, "bytes and reason");
    let mut writer = store.create(wrong).await.unwrap();
    writer.write(0, vec![Bytes::from_static(b"abc")]).await.unwrap();
    writer.complete(3).await.unwrap();
    let variants = store.lookup(&key("x")).await;
    assert_eq!(variants.len(), 1, "it replaced the older one");
    assert_eq!(get(&store, "x").await.unwrap(), b"abc");
}

#[tokio::test]
async fn a_body_that_is_all_there_when_it_begins_has_only_to_be_completed() {
    let rig = Rig::new();
    let store = rig.open();
    let content = body_of(BLOCK + 7, 15);
    let length = content.len() as u64;
    let bytes = content.chunks(1000).map(Bytes::copy_from_slice).collect();
    let all = FirstBytes { at: 0, bytes, until: Some(length) };
    let writer = store.begin(record("all", Some(length)), length, all.clone()).await.unwrap().show(true);
    assert_eq!(writer.partial().wait(0).await, Progress::Present(length));
    assert!(!writer.complete(length).await.unwrap().duplicate);
    // Its writer may go before that, and the process after it.
    drop(store.begin(record("left", Some(length)), length, all).await.unwrap().show(true));
    store.flush().await;
    drop(store);
    let store = rig.open();
    let entry = store.lookup(&key("left")).await[0].clone();
    let left = store.resume(&entry).await.unwrap();
    assert!(left.complete(length).await.unwrap().duplicate);
    assert_eq!((get(&store, "all").await.unwrap(), get(&store, "left").await.unwrap()), (content.clone(), content));
}

#[tokio::test]
async fn first_bytes_are_written_where_they_belong_and_the_rest_follows() {
    let rig = Rig::new();
    let store = rig.open();
    let content = body_of(2 * BLOCK, 16);
    let (length, piece) = (content.len() as u64, |from: usize, to| vec![Bytes::copy_from_slice(&content[from..to])]);
    let first = FirstBytes { at: BLOCK as u64, bytes: piece(BLOCK, BLOCK + 500), until: None };
    let mut writer = store.begin(record("later", Some(length)), length, first).await.unwrap().show(true);
    assert_eq!(writer.partial().missing(ByteRange::whole(length).unwrap()).len(), 2);
    writer.write(0, piece(0, BLOCK)).await.unwrap();
    writer.write(BLOCK as u64 + 500, piece(BLOCK + 500, 2 * BLOCK)).await.unwrap();
    assert_eq!(writer.complete(length).await.unwrap().digest, Digest::of(&content));
    // What has no place begins nothing.
    let first = FirstBytes { at: 5, bytes: piece(0, 10), until: None };
    let refused = store.begin(record("misplaced", Some(length)), length, first).await;
    assert!(matches!(refused, Err(StoreError::Misplaced { offset: 5 })), "{refused:?}");
    store.flush().await;
    assert_eq!(fs::read_dir(rig.drive().join("partial")).unwrap().count(), 0);
}

#[tokio::test]
async fn nobody_sees_a_new_body_before_it_is_shown_and_dropped_it_leaves_nothing() {
    let rig = Rig::new();
    let store = rig.open();
    let length = BLOCK as u64;
    let first = || FirstBytes { at: 0, bytes: vec![Bytes::from(body_of(500, 17))], until: Some(length) };
    put(&store, "a", b"before").await;
    store.flush().await;
    let used = store.usage()[0].used;
    let body = store.begin(record("a", Some(length)), length, first()).await.unwrap();
    assert!(matches!(&store.lookup(&key("a")).await[..], [entry] if is_blob(entry)));
    assert_eq!(fs::read_dir(rig.drive().join("partial")).unwrap().count(), 2);
    drop(body);
    store.flush().await;
    assert_eq!(fs::read_dir(rig.drive().join("partial")).unwrap().count(), 0);
    assert_eq!(store.usage()[0].used, used);
    let writer = store.begin(record("a", Some(length)), length, first()).await.unwrap().show(true);
    assert!(matches!(&store.lookup(&key("a")).await[..], [newest, _] if !is_blob(newest)));
    drop(writer);
    // What is not current any more is an older version from the start, and who writes it goes on.
    let mut writer = store.begin(record("b", Some(length)), length, first()).await.unwrap().show(false);
    assert!(store.lookup(&key("b")).await.is_empty());
    assert_eq!(store.known(&key("b")).await.older().len(), 1);
    writer.write(500, vec![Bytes::from(body_of(BLOCK, 18)).slice(500..)]).await.unwrap();
    writer.complete(length).await.unwrap();
    assert!(store.lookup(&key("b")).await.is_empty());
    assert_eq!(store.known(&key("b")).await.older().len(), 1);
}

#[tokio::test]
async fn first_bytes_that_a_drive_refuses_cost_little_of_what_is_stored() {
    const STORED: usize = 20;
    for operation in 0..6 {
        let mut rig = Rig::new();
        rig.settings.drives[0].quota = 40 * BLOCK as u64;
        let store = rig.open();
        for number in 0..STORED {
            put(&store, &number.to_string(), &body_of(BLOCK, 300 + number as u64)).await;
        }
        store.flush().await;
        let drive = &store.inner.drives[0];
        let (length, first) = (10 * BLOCK as u64, body_of(500, 19));
        let first = FirstBytes { at: 0, bytes: vec![Bytes::from(first)], until: Some(length) };
        drive.pulse.injected.set(Inject::FailOnceAfter(operation, Errno::DQUOT));
        let body = store.begin(record("a", Some(length)), length, first).await.unwrap();
        drive.pulse.injected.set(Inject::Nothing);
        let mut left = 0;
        for number in 0..STORED {
            left += store.lookup(&key(&number.to_string())).await.len();
        }
        assert!(left >= STORED - 5, "{left} of {STORED} are left, operation {operation}");
        assert_eq!(body.show(true).partial().present_total(), 500);
        assert_eq!(drive.promised(), 0, "operation {operation}");
        store.flush().await;
        assert_eq!(fs::read_dir(rig.drive().join("partial")).unwrap().count(), 2, "operation {operation}");
    }
}

#[tokio::test]
async fn misplaced_writes_change_nothing() {
    let rig = Rig::new();
    let store = rig.open();
    let content = body_of(2 * BLOCK, 13);
    let mut writer = store.create(record("m", Some(2 * BLOCK as u64))).await.unwrap();
    writer.write(0, vec![Bytes::copy_from_slice(&content[..100])]).await.unwrap();
    for (offset, length) in [(0, 10), (50, 10), (101, 10), (BLOCK + 1, 1), (BLOCK, BLOCK + 1)] {
        let outcome = writer.write(offset as u64, vec![Bytes::from(vec![0; length])]).await;
        assert!(matches!(outcome, Err(StoreError::Misplaced { .. })), "{offset} {length}");
    }
    let far = writer.write(u64::MAX - 5, vec![Bytes::from_static(b"0123456789")]).await;
    assert!(matches!(far, Err(StoreError::Misplaced { .. })));
    fill(&mut writer, 100, &content[100..]).await;
    assert_eq!(writer.complete(2 * BLOCK as u64).await.unwrap().digest, Digest::of(&content));
}

#[tokio::test]
async fn bodies_that_wait_to_be_resumed_are_read_without_keeping_their_files_open() {
    let rig = Rig::new();
    let content = body_of(2 * BLOCK, 21);
    {
        let store = rig.open();
        for number in 0..100 {
            let mut writer = store.create(record(&number.to_string(), None)).await.unwrap();
            fill(&mut writer, 0, &content).await;
        }
    }
    let store = rig.open();
    for number in 0..100 {
        let entry = only_partial(&store.lookup(&key(&number.to_string())).await);
        assert_eq!(store.body(&entry).await.unwrap().read(5, 10).await.unwrap(), content[5..15]);
    }
    let root = fs::canonicalize(rig.drive()).unwrap();
    let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    let ours: Vec<_> = open.filter(|path| path.starts_with(root.join("partial"))).collect();
    assert!(ours.is_empty(), "{ours:?}");
}
