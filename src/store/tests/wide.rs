//! Bodies of which their source says a SHA-512 and nothing else.

use super::*;
use crate::content::AnyDigest;

/// A record of which the source says that its body is to become `said`.
fn saying(name: &str, length: Option<u64>, said: &[u8]) -> Record {
    Record { expected: Some(ExpectedDigest::Upstream(AnyDigest::sha_512_of(said))), ..record(name, length) }
}

/// The second block before the first.
async fn fill_from_behind(writer: &mut PartialWriter, content: &[u8]) {
    fill(writer, BLOCK, &content[BLOCK..2 * BLOCK]).await;
    fill(writer, 0, &content[..BLOCK]).await;
    fill(writer, 2 * BLOCK, &content[2 * BLOCK..]).await;
}

#[tokio::test]
async fn a_body_is_held_against_its_sha_512() {
    let rig = Rig::new();
    let store = rig.open();
    let (right, wrong) = (body_of(2 * BLOCK + 9, 1), body_of(2 * BLOCK + 9, 2));
    put(&store, "x", b"older").await;
    let length = right.len() as u64;
    let mut writer = store.create(saying("x", Some(length), &right)).await.unwrap();
    fill_from_behind(&mut writer, &wrong).await;
    match writer.complete(length).await {
        Err(CompleteError::Mismatch { expected, actual }) => {
            assert_eq!((expected, actual), (AnyDigest::sha_512_of(&right), Digest::of(&wrong)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(get(&store, "x").await.unwrap(), b"older");
    assert_eq!(fs::read_dir(rig.drive().join("quarantine")).unwrap().count(), 2, "bytes and reason");
    let mut writer = store.create(saying("x", Some(length), &right)).await.unwrap();
    fill_from_behind(&mut writer, &right).await;
    assert_eq!(writer.complete(length).await.unwrap().digest, Digest::of(&right));
    assert_eq!(get(&store, "x").await.unwrap(), right);
}

#[tokio::test]
async fn late_bytes_of_large_blocks_are_hashed_like_others() {
    // More than is read at a time.
    const LARGE: usize = 1 << 20;
    let mut rig = Rig::new();
    rig.settings.block_size = LARGE as u32;
    let store = rig.open();
    let content = body_of(2 * LARGE + 300_007, 6);
    let length = content.len() as u64;
    for (name, record) in [("a", record("a", Some(length))), ("b", saying("b", Some(length), &content))] {
        let mut writer = store.create(record).await.unwrap();
        fill(&mut writer, 2 * LARGE, &content[2 * LARGE..]).await;
        fill(&mut writer, LARGE, &content[LARGE..2 * LARGE]).await;
        fill(&mut writer, 0, &content[..LARGE]).await;
        assert_eq!(writer.complete(length).await.unwrap().digest, Digest::of(&content), "{name}");
        assert_eq!(get(&store, name).await.unwrap(), content);
    }
}

#[tokio::test]
async fn the_sha_512_tells_where_a_body_without_a_length_ends() {
    let rig = Rig::new();
    let store = rig.open();
    let content = body_of(BLOCK + 9, 3);
    let mut writer = store.create(saying("x", None, &content)).await.unwrap();
    for piece in content.chunks(30_000) {
        assert_eq!(writer.is_whole().await, None);
        let at = writer.contiguous();
        writer.write(at, vec![Bytes::copy_from_slice(piece)]).await.unwrap();
    }
    assert_eq!(writer.is_whole().await, Some(content.len() as u64));
    let begun = writer.verifier_of_begin(content.len() as u64).await.unwrap();
    assert!(begun.is_right());
    assert!(writer.verifier_of_begin(5).await.is_none(), "more is there");
}

#[tokio::test]
async fn what_came_before_a_restart_counts() {
    let (right, wrong) = (body_of(4 * BLOCK + 9, 4), body_of(BLOCK, 5));
    let length = right.len() as u64;
    for wrong_begin in [false, true] {
        let rig = Rig::new();
        {
            let store = rig.open();
            let mut writer = store.create(saying("x", Some(length), &right)).await.unwrap();
            fill(&mut writer, 0, if wrong_begin { &wrong } else { &right[..BLOCK] }).await;
            fill(&mut writer, BLOCK, &right[BLOCK..3 * BLOCK]).await;
        }
        let store = rig.open();
        let entry = only_partial(&store.lookup(&key("x")).await);
        assert_eq!(entry.record.expected, saying("x", None, &right).expected);
        let mut writer = store.resume(&entry).await.unwrap();
        assert_eq!(writer.contiguous(), 3 * BLOCK as u64);
        fill(&mut writer, 3 * BLOCK, &right[3 * BLOCK..]).await;
        let completed = writer.complete(length).await;
        assert_eq!(matches!(completed, Err(CompleteError::Mismatch { .. })), wrong_begin, "{completed:?}");
        assert_eq!(get(&store, "x").await.is_some(), !wrong_begin);
    }
}

#[tokio::test]
async fn a_block_that_was_damaged_at_rest_is_fetched_again_and_not_taken_for_wrong_content() {
    let rig = Rig::new();
    let content = body_of(3 * BLOCK, 6);
    let length = content.len() as u64;
    {
        let store = rig.open();
        let mut writer = store.create(saying("x", Some(length), &content)).await.unwrap();
        fill(&mut writer, 0, &content[..2 * BLOCK]).await;
    }
    flip(&partial_data(&rig), 77);
    let store = rig.open();
    let entry = only_partial(&store.lookup(&key("x")).await);
    let mut writer = store.resume(&entry).await.unwrap();
    assert_eq!(writer.contiguous(), 2 * BLOCK as u64, "nobody has looked");
    fill(&mut writer, 2 * BLOCK, &content[2 * BLOCK..]).await;
    assert!(matches!(writer.complete(length).await, Err(CompleteError::Short { .. })));
    let mut writer = store.resume(&entry).await.unwrap();
    assert_eq!(writer.contiguous(), 0);
    fill(&mut writer, 0, &content[..BLOCK]).await;
    writer.complete(length).await.unwrap();
    assert_eq!(get(&store, "x").await.unwrap(), content);
}

#[tokio::test]
async fn a_sha_512_that_is_said_late_counts() {
    let (right, wrong) = (body_of(BLOCK + 9, 7), body_of(BLOCK + 9, 8));
    for content in [&right, &wrong] {
        let rig = Rig::new();
        let store = rig.open();
        let length = content.len() as u64;
        let mut writer = store.create(record("x", Some(length))).await.unwrap();
        fill(&mut writer, 0, &content[..BLOCK]).await;
        store.update(writer.entry(), saying("x", Some(length), &right));
        fill(&mut writer, BLOCK, &content[BLOCK..]).await;
        let completed = writer.complete(length).await;
        assert_eq!(completed.is_ok(), content == &right, "{completed:?}");
    }
}
