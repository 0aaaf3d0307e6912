//! Answers from memory and files on real sockets, sent by the kernel and through memory.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use tokio::io::AsyncReadExt as _;

use super::port::{Client, Layout, NEVER, Port, Shelf, context};
use super::*;
use crate::fill::{Arriving, FlightGuard};
use crate::serve::body::Segment;
use crate::serve::follow::Follow;
use crate::serve::wire::TURN;
use crate::store::Body;

pub(super) fn file(reader: &Body, offset: u64, len: u64) -> Segment {
    Segment::File { reader: reader.clone(), offset, len }
}

/// Parts of a blob and of a body that is being filled among bytes in memory, and what they come to.
pub(super) async fn mixed(shelf: &Shelf) -> (Layout, Vec<u8>) {
    let (whole, part) = (body_of(3_000_000, 1), body_of(2_000_000, 2));
    let blob = shelf.put("whole", &whole).await;
    let mut writer = shelf.writer("part", 2_500_000).await;
    writer.write(0, vec![Bytes::from(part.clone())]).await.unwrap();
    let partial = Body::Partial(Arc::clone(writer.partial()));
    let guard = Arc::new(FlightGuard::of_no_flight());
    // It stays as it is: nobody writes on.
    let writer = std::sync::Mutex::new(writer);
    let layout = move || {
        let followed = Arc::clone(writer.lock().unwrap().partial());
        let follow = Follow::new(
            Arriving::new(Some(followed), &guard),
            1_000_000,
            Some(1_900_000),
            None,
            false,
            Arc::clone(&guard),
        );
        VecDeque::from([
            Segment::Bytes(Bytes::from_static(b"--head--")),
            file(&blob, 0, 3_000_000),
            Segment::Bytes(Bytes::from_static(b"--part--")),
            file(&partial, 17, 1_500_000),
            file(&blob, 2_999_999, 1),
            Segment::Bytes(Bytes::from_static(b"--grows--")),
            Segment::Follow(Box::new(follow)),
            file(&blob, 1_048_575, 20_000),
        ])
    };
    let expected = [
        b"--head--",
        &whole[..],
        b"--part--",
        &part[17..1_500_017],
        &whole[2_999_999..],
        b"--grows--",
        &part[1_000_000..1_900_000],
        &whole[1_048_575..1_068_575],
    ];
    (Arc::new(layout), expected.concat())
}

#[tokio::test]
async fn files_among_bytes_arrive_right_by_the_kernel_and_through_memory() {
    let shelf = Shelf::new();
    let (layout, expected) = mixed(&shelf).await;
    let len = expected.len() as u64;
    let by_kernel = context(&shelf.metrics, Limits::default());
    let through_memory = context(&shelf.metrics, Limits::default()).through_memory();
    for context in [by_kernel, through_memory] {
        let port = Port::open(context, Arc::clone(&layout), len).await;
        let mut client = Client::connect(&port).await;
        for _kept_alive in 0..3 {
            client.ask("/f").await;
            assert!(client.answer().await == expected);
        }
        let pipelined = "GET /f HTTP/1.1\r\nHost: a\r\n\r\nGET /small HTTP/1.1\r\nHost: a\r\n\r\n";
        client.send(&pipelined.repeat(3)).await;
        for _ in 0..3 {
            assert!(client.answer().await == expected);
            assert_eq!(client.answer().await, b"s");
        }
        client.send("HEAD /f HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(client.head().await.contains(&format!("Content-Length: {len}\r\n")));
        client.ask("/small").await;
        assert_eq!(client.answer().await, b"s");

        let mut old = Client::connect(&port).await;
        old.send("GET /f HTTP/1.0\r\n\r\n").await;
        assert!(old.answer().await == expected);
        assert!(!old.more().await, "HTTP/1.0 ends with the connection");
    }
}

#[tokio::test]
async fn a_narrow_client_gets_every_byte() {
    let shelf = Shelf::new();
    let (layout, expected) = mixed(&shelf).await;
    let port = Port::open(context(&shelf.metrics, Limits::default()), layout, expected.len() as u64).await;
    let mut client = Client::narrow(&port).await;
    client.ask("/f").await;
    assert!(client.answer().await == expected);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_long_answer_leaves_in_full_segments_and_its_end_at_once() {
    let shelf = Shelf::new();
    let content = body_of(3_000_000, 1);
    let blob = shelf.put("a", &content).await;
    let layout: Layout = Arc::new(move || VecDeque::from([file(&blob, 0, 3_000_000)]));
    let port = Port::open(context(&shelf.metrics, Limits::default()), layout, 3_000_000).await;
    let mut client = Client::narrow(&port).await;
    client.ask("/small").await;
    assert_eq!(client.answer().await, b"s");
    assert!(!port.is_corked());
    client.ask("/f").await;
    client.head().await;
    assert!(port.is_corked(), "most of it waits for the client");
    assert!(client.body(3_000_000).await == content);
    // The connection is asked for more only when the answer is over.
    client.ask("/small").await;
    assert_eq!(client.answer().await, b"s");
    assert!(!port.is_corked());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_there_is_of_a_body_leaves_while_the_rest_is_waited_for() {
    let shelf = Shelf::new();
    let (whole, content) = (body_of(3_000_000, 1), body_of(700_001, 2));
    let blob = shelf.put("whole", &whole).await;
    let mut writer = shelf.writer("a", 700_001).await;
    writer.write(0, vec![Bytes::copy_from_slice(&content[..200_001])]).await.unwrap();
    let (partial, guard) = (Arc::clone(writer.partial()), Arc::new(FlightGuard::of_no_flight()));
    let layout: Layout = Arc::new(move || {
        let arriving = Arriving::new(Some(Arc::clone(&partial)), &guard);
        let follow = Follow::new(arriving, 0, Some(700_001), None, false, Arc::clone(&guard));
        VecDeque::from([file(&blob, 0, 3_000_000), Segment::Follow(Box::new(follow))])
    });
    let port = Port::open(context(&shelf.metrics, Limits::default()), layout, 3_700_001).await;
    let mut client = Client::narrow(&port).await;
    client.ask("/f").await;
    client.head().await;
    assert!(port.is_corked(), "most of it waits for the client");
    assert!(client.body(3_000_000).await == whole);
    assert!(client.body(200_001).await == content[..200_001]);
    let left = async {
        while port.is_corked() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(NEVER, left).await.unwrap();
    writer.write(200_001, vec![Bytes::copy_from_slice(&content[200_001..])]).await.unwrap();
    assert!(client.body(500_000).await == content[200_001..]);
}

#[tokio::test]
async fn a_write_without_its_file_ends_the_connection() {
    let shelf = Shelf::new();
    let content = body_of(1_000_000, 3);
    let blob = shelf.put("a", &content).await;
    let layout: Layout = Arc::new(move || VecDeque::from([file(&blob, 0, 1_000_000)]));
    let port = Port::open(context(&shelf.metrics, Limits::default()).copying_writes(), layout, 1_000_000).await;
    let mut client = Client::connect(&port).await;
    client.ask("/f").await;
    let mut got = Vec::new();
    let end = tokio::time::timeout(NEVER, client.stream.read_to_end(&mut got)).await.unwrap();
    assert_eq!(end.map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionReset));
    assert_eq!(got, b"", "no head, and none of the zeros that stand for the file");
    let lines = port.lines().await;
    assert!(lines.contains(" cut=\"a write does not stand for the files that wait\""), "{lines}");
}

#[tokio::test]
async fn a_fast_client_gets_its_bytes_in_turns() {
    const LEN: u64 = 64 << 20;
    let shelf = Shelf::new();
    let content = body_of(1 << 20, 4);
    let blob = shelf.put("a", &content).await;
    let layout: Layout = Arc::new(move || (0..LEN >> 20).map(|_| file(&blob, 0, 1 << 20)).collect());
    let context = context(&shelf.metrics, Limits::default());
    // Alone it would be asked to give way less often.
    let _another = context.drain().in_flight();
    let port = Port::open(context, layout, LEN).await;
    // It reads on a thread of its own, as fast as it is sent, so that only turns make the sender pause.
    let address = port.address;
    let reader = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let (mut buffer, mut total) = (vec![0; 1 << 20], 0);
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return total,
                count => total += count as u64,
            }
        }
    });
    let total = tokio::task::spawn_blocking(move || reader.join().unwrap()).await.unwrap();
    assert!(total > LEN);
    let polls = port.polls.load(Ordering::Relaxed);
    assert!(polls >= LEN / (2 * TURN), "{polls} turns for {LEN} bytes");
}

#[tokio::test]
async fn small_answers_come_while_a_large_one_is_on_its_way() {
    let shelf = Shelf::new();
    let content = body_of(1 << 20, 5);
    let blob = shelf.put("a", &content).await;
    // More than can leave before the small ones are through, however fast the reader is.
    let layout: Layout = Arc::new(move || (0..16 << 10).map(|_| file(&blob, 0, 1 << 20)).collect());
    let port = Port::open(context(&shelf.metrics, Limits::default()), layout, 16 << 30).await;
    let mut large = Client::connect(&port).await;
    large.ask("/f").await;
    large.head().await;
    let drain = tokio::spawn(async move { while !large.body(1 << 20).await.is_empty() {} });
    let mut small = Client::connect(&port).await;
    for _ in 0..100 {
        small.ask("/small").await;
        assert_eq!(small.answer().await, b"s");
    }
    assert!(!drain.is_finished());
    drain.abort();
}
