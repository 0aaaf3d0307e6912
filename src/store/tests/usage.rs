//! What a drive says that is used is what its files take: real blocks, files without a name while they are open included.

use std::os::unix::fs::MetadataExt as _;

use super::*;

/// Real blocks of what counts: blobs, data of partial bodies, what is in quarantine. Journal and maps are bounded by what
/// they are about, and come out of the room that stays free for them.
fn blocks(drive: &Path) -> u64 {
    let mut sum = 0;
    let mut open = vec![drive.join("blobs"), drive.join("partial"), drive.join("quarantine")];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else if !name.ends_with(".map") && !name.ends_with(".reason") {
                sum += entry.metadata().unwrap().blocks() * 512;
            }
        }
    }
    sum
}

async fn settled(store: &Store) {
    store.flush().await;
    // What closes a body waits on this thread.
    store.inner.drives[0].syncs.run(|| ()).await.unwrap();
    store.flush().await;
}

#[tokio::test]
async fn the_use_of_a_drive_is_what_its_files_take() {
    let rig = Rig::new();
    let store = rig.open();
    let used = |store: &Store| store.usage()[0].used;
    for number in 0..5 {
        put(&store, &number.to_string(), &body_of(number as usize * 30_000 + 1, number)).await;
    }
    // A duplicate is dropped.
    put(&store, "again", &body_of(60_001, 2)).await;
    settled(&store).await;
    assert_eq!(used(&store), blocks(&rig.drive()), "blobs");

    // One with a hole, and room that was taken for more than came.
    let mut sparse = store.create(record("sparse", Some(40 * BLOCK as u64))).await.unwrap();
    sparse.intend(crate::content::ByteRange::new(0, 40 * BLOCK as u64).unwrap());
    fill(&mut sparse, 0, &body_of(BLOCK, 10)).await;
    fill(&mut sparse, 20 * BLOCK, &body_of(BLOCK, 11)).await;
    assert_eq!(used(&store), blocks(&rig.drive()), "while it is written");
    drop(sparse);
    settled(&store).await;
    assert_eq!(used(&store), blocks(&rig.drive()), "and left");

    let mut wrong = record("wrong", None);
    wrong.expected = Some(ExpectedDigest::Upstream(Digest::of(b"other").into()));
    let mut writer = store.create(wrong).await.unwrap();
    fill(&mut writer, 0, &body_of(2 * BLOCK, 12)).await;
    assert!(writer.complete(2 * BLOCK as u64).await.is_err());
    settled(&store).await;
    assert_eq!(used(&store), blocks(&rig.drive()), "with what is in quarantine");

    // A reader keeps the blocks of what has no name any more.
    let content = body_of(120_001, 4);
    let entry = Arc::clone(&store.lookup(&key("4")).await[0]);
    let reader = store.body(&entry).await.unwrap();
    {
        let mut table = store.inner.entries.lock();
        store.inner.drop_blob(&mut table, &store.inner.drives[0], Digest::of(&content), None);
    }
    drop(entry);
    settled(&store).await;
    assert!(used(&store) >= blocks(&rig.drive()) + content.len() as u64, "it is read still");
    assert_eq!(read_all(&reader).await, content);
    drop(reader);
    settled(&store).await;
    assert_eq!(used(&store), blocks(&rig.drive()), "and closed");

    drop(store);
    let store = rig.open();
    settled(&store).await;
    while !store._running.recovering.lock().as_ref().is_none_or(thread::JoinHandle::is_finished) {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert_eq!(used(&store), blocks(&rig.drive()), "after a restart");
}

#[tokio::test]
async fn content_that_comes_again_since_its_file_is_cut_or_gone_counts_once() {
    for is_gone in [false, true] {
        let rig = Rig::new();
        let store = rig.open();
        let content = body_of(3 * BLOCK, 20);
        put(&store, "a", &content).await;
        settled(&store).await;
        let path = rig.blob_path(Digest::of(&content));
        if is_gone {
            fs::remove_file(&path).unwrap();
        } else {
            fs::File::options().write(true).open(&path).unwrap().set_len(70_000).unwrap();
        }
        put(&store, "b", &content).await;
        settled(&store).await;
        assert_eq!(get(&store, "b").await.unwrap(), content);
        let usage = &store.usage()[0];
        assert_eq!((usage.used, usage.blobs), (blocks(&rig.drive()), 1), "gone: {is_gone}");
        drop(store);
        let store = rig.open();
        assert_eq!(get(&store, "b").await.unwrap(), content);
    }
}
