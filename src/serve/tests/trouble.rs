//! Files that do not give their bytes, disks that do not answer, clients that do not read.

use std::collections::VecDeque;
use std::fs;

use super::port::{Client, Layout, NEVER, Port, Shelf, context};
use super::*;
use crate::serve::body::Segment;
use crate::store::{Body, ReadError};

fn whole(reader: &Body, len: u64) -> Layout {
    let reader = reader.clone();
    Arc::new(move || VecDeque::from([Segment::File { reader: reader.clone(), offset: 0, len }]))
}

fn cut_short(path: &std::path::Path, len: u64) {
    fs::File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

#[tokio::test]
async fn a_blob_that_is_cut_short_under_a_transfer_never_gives_a_wrong_byte() {
    const LEN: usize = 12 << 20;
    const LEFT: usize = LEN - 1000;
    for through_memory in [false, true] {
        let shelf = Shelf::new();
        let content = body_of(LEN, 6);
        let blob = shelf.put("a", &content).await;
        let port = context(&shelf.metrics, Limits::default());
        let port = if through_memory { port.through_memory() } else { port };
        let port = Port::open(port, whole(&blob, LEN as u64), LEN as u64).await;
        let mut client = Client::narrow(&port).await;
        client.ask("/f").await;
        client.head().await;
        let mut got = client.body(100_000).await;
        cut_short(&shelf.blob_path(&content), LEFT as u64);
        got.extend(client.body(LEN).await);
        assert!(got.len() <= LEFT && got[..] == content[..got.len()], "{} bytes", got.len());
        let again = blob.read(LEN as u64 - 1, 1).await;
        assert!(matches!(again, Err(ReadError::Damaged { .. })), "nobody is given it any more: {again:?}");
        assert_eq!(shelf.metrics.damaged_blocks.get(), 1);
        let lines = port.lines().await;
        assert!(lines.contains(" cut="), "{lines}");
    }
}

#[tokio::test]
async fn a_transfer_goes_on_once_bytes_that_were_lost_have_come_again() {
    const LEN: usize = 4 << 20;
    let shelf = Shelf::new();
    let content = body_of(LEN, 7);
    let mut writer = shelf.writer("p", LEN as u64).await;
    writer.write(0, vec![Bytes::from(content.clone())]).await.unwrap();
    let partial = Arc::clone(writer.partial());
    cut_short(&shelf.partial_path(), LEN as u64 - 1000);
    let port = context(&shelf.metrics, Limits::default());
    let port = Port::open(port, whole(&Body::Partial(Arc::clone(&partial)), LEN as u64), LEN as u64).await;
    let mut client = Client::connect(&port).await;
    client.ask("/f").await;
    let again = async {
        while partial.missing(crate::content::ByteRange::whole(LEN as u64).unwrap()).is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let begin = LEN - (1 << 20);
        writer.write(begin as u64, vec![Bytes::copy_from_slice(&content[begin..])]).await.unwrap();
    };
    let (got, again) = tokio::join!(client.answer(), tokio::time::timeout(NEVER, again));
    again.unwrap();
    assert!(got == content);
    assert_eq!(shelf.metrics.damaged_blocks.get(), 1);
}

#[tokio::test]
async fn lost_bytes_that_nobody_brings_end_the_connection() {
    const LEN: usize = 4 << 20;
    let shelf = Shelf::new();
    let content = body_of(LEN, 8);
    let mut writer = shelf.writer("p", LEN as u64).await;
    writer.write(0, vec![Bytes::from(content.clone())]).await.unwrap();
    let partial = Arc::clone(writer.partial());
    cut_short(&shelf.partial_path(), LEN as u64 - 1000);
    drop(writer);
    let port = context(&shelf.metrics, Limits::default());
    let port = Port::open(port, whole(&Body::Partial(partial), LEN as u64), LEN as u64).await;
    let mut client = Client::connect(&port).await;
    client.ask("/f").await;
    let got = client.answer().await;
    assert!(got.len() <= LEN - 1000 && got[..] == content[..got.len()], "{} bytes", got.len());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_disk_that_does_not_answer_holds_up_nobody_whose_bytes_are_in_memory() {
    // Much more than the system reads ahead by itself, as it does for whoever asks what is in memory.
    const LEN: usize = 8 << 20;
    let shelf = Shelf::new();
    let (cold, warm) = (body_of(LEN, 9), body_of(LEN, 10));
    let (cold_blob, warm_blob) = (shelf.put("cold", &cold).await, shelf.put("warm", &warm).await);
    let file = fs::File::open(shelf.blob_path(&cold)).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let port =
        |blob: &Body| Port::open(context(&shelf.metrics, Limits::default()), whole(blob, LEN as u64), LEN as u64);
    let (cold_port, warm_port) = (port(&cold_blob).await, port(&warm_blob).await);
    let busy = shelf.store.occupy_threads();
    let mut waiting = Client::connect(&cold_port).await;
    waiting.ask("/f").await;
    assert!(waiting.head().await.starts_with("HTTP/1.1 200 "));
    let mut served = Client::connect(&warm_port).await;
    for _ in 0..20 {
        served.ask("/f").await;
        assert!(served.answer().await == warm);
    }
    let cold_got = cold_port.context.metrics().hit_bytes.get() - 20 * LEN as u64;
    if cold_got == LEN as u64 {
        // As on file systems in memory.
        assert!(std::env::var_os("CI").is_none(), "the test needs a temporary directory on a disk");
        println!("left out: the system does not drop what it has in memory");
        return;
    }
    drop(busy);
    assert!(waiting.body(LEN).await == cold);
}

#[tokio::test]
async fn a_client_that_stops_reading_a_file_is_closed_and_its_line_tells_what_it_was_sent() {
    const LEN: u64 = 64 << 20;
    let shelf = Shelf::new();
    let content = body_of(1 << 20, 11);
    let blob = shelf.put("a", &content).await;
    let layout: Layout = Arc::new(move || {
        (0..LEN >> 20).map(|_| Segment::File { reader: blob.clone(), offset: 0, len: 1 << 20 }).collect()
    });
    let limits = Limits { body_time: Duration::from_millis(100), ..Limits::default() };
    let port = Port::open(context(&shelf.metrics, limits), layout, LEN).await;
    let mut client = Client::narrow(&port).await;
    client.ask("/f").await;
    client.head().await;
    let got = client.body(100_000).await.len() as u64;
    let logged = port.logged_bytes().await;
    assert!((got..LEN).contains(&logged), "{logged} logged, at least {got} arrived");
    assert_eq!(logged, shelf.metrics.hit_bytes.get());
}

#[tokio::test]
async fn the_line_of_a_client_that_leaves_within_a_file_tells_what_it_was_sent() {
    const LEN: u64 = 64 << 20;
    let shelf = Shelf::new();
    let content = body_of(1 << 20, 12);
    let blob = shelf.put("a", &content).await;
    let layout: Layout = Arc::new(move || {
        (0..LEN >> 20).map(|_| Segment::File { reader: blob.clone(), offset: 0, len: 1 << 20 }).collect()
    });
    let port = Port::open(context(&shelf.metrics, Limits::default()), layout, LEN).await;
    let mut client = Client::narrow(&port).await;
    client.ask("/f").await;
    client.head().await;
    let got = client.body(3_000_000).await.len() as u64;
    socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let logged = port.logged_bytes().await;
    assert!((got..LEN).contains(&logged), "{logged} logged, {got} read");
    assert_eq!(logged, shelf.metrics.hit_bytes.get());
}
