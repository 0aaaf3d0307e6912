//! Bodies: segments in order, bodies that grow, bodies of unknown length.

use std::collections::VecDeque;

use http_body::Body as _;

use super::*;
use crate::content::{BodyRef, CacheKey, PartialId, Record};
use crate::fill::{Arriving, FlightGuard};
use crate::serve::body::Segment;
use crate::serve::follow::{Follow, HeldEnd};
use crate::store::{Body, PartialWriter};

fn record(length: Option<u64>) -> Record {
    Record {
        key: CacheKey::new("dl.example/a".to_owned()),
        status: StatusCode::OK,
        headers: HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("\"v1\""))]),
        request_time: UnixMillis(1),
        response_time: UnixMillis(2),
        vary: Vec::new(),
        length,
        expected: None,
        token_protected: false,
        body: BodyRef::Partial(PartialId(0)),
    }
}

async fn writer(rig: &Rig, length: Option<u64>) -> PartialWriter {
    rig.store.create(record(length)).await.unwrap()
}

fn follow(writer: &PartialWriter, start: u64, end: Option<u64>, hold: Option<HeldEnd>) -> Follow {
    let guard = Arc::new(FlightGuard::of_no_flight());
    Follow::new(Arriving::new(Some(Arc::clone(writer.partial())), &guard), start, end, hold, true, guard)
}

/// Offset and length of the next bytes.
async fn next(follow: &mut Follow) -> Option<Result<(u64, u64), String>> {
    match follow.next().await {
        Some(Ok(Segment::File { offset, len, .. })) => Some(Ok((offset, len))),
        Some(Ok(_)) => panic!("bytes of a growing body are in its file"),
        Some(Err(cut)) => Some(Err(cut.to_string())),
        None => None,
    }
}

#[tokio::test]
async fn segments_leave_in_order_and_whole() {
    let rig = Rig::new();
    let content = body_of(700_000, 1);
    let mut writer = writer(&rig, Some(700_000)).await;
    writer.write(0, vec![Bytes::from(content.clone())]).await.unwrap();
    let reader = Body::Partial(Arc::clone(writer.partial()));
    let segments = VecDeque::from([
        Segment::Bytes(Bytes::from_static(b"<")),
        Segment::File { reader: reader.clone(), offset: 10, len: 600_000 },
        Segment::Bytes(Bytes::from_static(b"|")),
        Segment::Follow(Box::new(follow(&writer, 690_000, Some(700_000), None))),
        Segment::Bytes(Bytes::from_static(b">")),
    ]);
    let length = 600_000 + 10_000 + 3;
    let body = SegmentBody::new(segments, Some(length));
    assert_eq!(body.size_hint().exact(), Some(length));
    let bytes = body.collect().await.unwrap().to_bytes();
    let expected = [b"<", &content[10..600_010], b"|", &content[690_000..], b">"].concat();
    assert!(bytes == expected);
    let missing = Segment::File { reader, offset: 700_000, len: 1 };
    assert!(SegmentBody::new(VecDeque::from([missing]), Some(1)).collect().await.is_err());
    let short = VecDeque::from([Segment::Bytes(Bytes::from_static(b"short"))]);
    assert!(SegmentBody::new(short, Some(6)).collect().await.is_err());
}

#[tokio::test]
async fn a_growing_body_leaves_as_it_lands() {
    let rig = Rig::new();
    let mut writer = writer(&rig, Some(1000)).await;
    writer.write(0, vec![Bytes::from(vec![0; 100])]).await.unwrap();
    let mut follow = follow(&writer, 40, Some(900), None);
    assert_eq!(next(&mut follow).await, Some(Ok((40, 60))));
    let (second, written) = tokio::join!(next(&mut follow), writer.write(100, vec![Bytes::from(vec![0; 900])]));
    written.unwrap();
    assert_eq!((second, next(&mut follow).await), (Some(Ok((100, 800))), None));
}

#[tokio::test]
async fn few_bytes_that_waited_for_more_leave_without_it() {
    let rig = Rig::new();
    let mut writer = writer(&rig, Some(1_000_000)).await;
    let mut follow = follow(&writer, 0, Some(1_000_000), None);
    let mut at = 0;
    for len in [10_000, 20_000, 300_000, 40_000, 630_000] {
        writer.write(at, vec![Bytes::from(vec![0; len as usize])]).await.unwrap();
        assert_eq!(next(&mut follow).await, Some(Ok((at, len))));
        at += len;
    }
    assert_eq!(next(&mut follow).await, None);
}

#[tokio::test]
async fn the_held_end_leaves_once_the_body_is_verified() {
    let rig = Rig::new();
    let mut writer = writer(&rig, Some(20_000)).await;
    writer.write(0, vec![Bytes::from(vec![0; 20_000])]).await.unwrap();
    let hold = Some(HeldEnd::of(Some(20_000)));
    let mut whole = follow(&writer, 0, Some(20_000), hold);
    let mut part = follow(&writer, 3000, Some(19_000), hold);
    assert_eq!(next(&mut whole).await, Some(Ok((0, 3616))));
    assert_eq!(next(&mut part).await, Some(Ok((3000, 616))));
    let ((first, second), done) = tokio::join!(
        async {
            let first = next(&mut whole).await;
            (first, next(&mut part).await)
        },
        writer.complete(20_000)
    );
    done.unwrap();
    assert_eq!((first, second), (Some(Ok((3616, 16_384))), Some(Ok((3616, 15_384)))));
    assert_eq!((next(&mut whole).await, next(&mut part).await), (None, None));
}

#[tokio::test]
async fn without_a_length_the_last_of_what_is_there_waits_for_the_digest() {
    let rig = Rig::new();
    let mut writer = writer(&rig, None).await;
    writer.write(0, vec![Bytes::from(vec![0; 20_000])]).await.unwrap();
    let mut whole = follow(&writer, 0, None, Some(HeldEnd::of(None)));
    assert_eq!(next(&mut whole).await, Some(Ok((0, 3616))));
    let (more, written) = tokio::join!(next(&mut whole), writer.write(20_000, vec![Bytes::from(vec![0; 1000])]));
    written.unwrap();
    assert_eq!(more, Some(Ok((3616, 1000))));
    let (last, done) = tokio::join!(next(&mut whole), writer.complete(21_000));
    done.unwrap();
    assert_eq!((last, next(&mut whole).await), (Some(Ok((4616, 16_384))), None));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_held_for_long_leaves_slowly_but_for_its_last_kibibyte() {
    let rig = Rig::new();
    let mut writer = writer(&rig, Some(20_000)).await;
    writer.write(0, vec![Bytes::from(vec![0; 20_000])]).await.unwrap();
    let mut whole = follow(&writer, 0, Some(20_000), Some(HeldEnd::of(Some(20_000))));
    assert_eq!(next(&mut whole).await, Some(Ok((0, 3616))));
    let held = Instant::now();
    let mut at = 3616;
    while at < 20_000 - 1024 {
        let Some(Ok((offset, len))) = next(&mut whole).await else { panic!("cut at {at}") };
        assert!(offset == at && len <= 1280);
        at += len;
        let seconds = held.elapsed().as_secs_f64();
        assert!(seconds >= 5.0 && (at - 3616) as f64 <= (seconds - 4.7) * 5120.0, "{at} after {seconds} s");
    }
    assert_eq!(at, 20_000 - 1024);
    tokio::time::resume();
    let (last, done) = tokio::join!(next(&mut whole), writer.complete(20_000));
    done.unwrap();
    assert_eq!(last, Some(Ok((at, 1024))));
}

#[tokio::test]
async fn a_fill_that_stops_cuts_its_followers() {
    let rig = Rig::new();
    let mut writer = writer(&rig, None).await;
    writer.write(0, vec![Bytes::from(vec![0; 100])]).await.unwrap();
    let mut follow = follow(&writer, 0, None, None);
    assert_eq!(next(&mut follow).await, Some(Ok((0, 100))));
    let (cut, ()) = tokio::join!(next(&mut follow), async { drop(writer) });
    assert!(matches!(cut, Some(Err(_))));
}

#[tokio::test]
async fn what_lingered_leaves_before_the_cut_when_the_fill_stops() {
    let rig = Rig::new();
    let mut writer = writer(&rig, Some(1_000_000)).await;
    writer.write(0, vec![Bytes::from(vec![0; 100])]).await.unwrap();
    let mut follow = follow(&writer, 0, Some(1_000_000), None);
    assert_eq!(next(&mut follow).await, Some(Ok((0, 100))));
    writer.write(100, vec![Bytes::from(vec![0; 200])]).await.unwrap();
    let (rest, ()) = tokio::join!(next(&mut follow), async { drop(writer) });
    assert_eq!(rest, Some(Ok((100, 200))));
    assert!(matches!(next(&mut follow).await, Some(Err(_))));
}

#[tokio::test]
async fn a_body_of_unknown_length_waits_for_its_end_only_for_agents_and_ranges() {
    let gate = Gate::new();
    let held = gate.clone();
    let site = Site::new(move |_, _| {
        let head = "HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n";
        let first = Step::Send(format!("{head}4\r\n0123\r\n").into());
        vec![first, Step::Wait(held.clone()), Step::Send(b"6\r\n456789\r\n0\r\n\r\n".to_vec())]
    })
    .await;
    let streamed = site.begin(Method::GET, "/a", &[]).await;
    assert_eq!((streamed.status().as_u16(), streamed.headers().get("content-length")), (200, None));
    let opened = async { gate.open() };
    let (whole, range, ()) = tokio::join!(site.get("/a", &[AGENT]), site.get("/a", &[("range", "bytes=-2")]), opened);
    assert_eq!((whole.status, whole.field("content-length"), whole.text()), (200, "10", "0123456789"));
    assert_eq!((range.status, range.field("content-range"), range.text()), (206, "bytes 8-9/10", "89"));
    assert_eq!(Answer::of(streamed).await.text(), "0123456789");
}

#[tokio::test]
async fn a_fill_for_an_agent_that_must_come_back_goes_on_meanwhile() {
    let gate = Gate::new();
    let held = gate.clone();
    let site = Site::new(move |_, _| {
        let head = "HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n";
        let first = Step::Send(format!("{head}4\r\n0123\r\n").into());
        vec![first, Step::Wait(held.clone()), Step::Send(b"6\r\n456789\r\n0\r\n\r\n".to_vec())]
    })
    .await;
    // Somebody is there when the agent's time is over, and leaves then.
    let other = site.begin(Method::GET, "/a", &[]).await;
    let mut ask = site.ask(&Method::GET, "/a", &[AGENT]);
    ask.deadline = Instant::now() + Duration::from_millis(50);
    let answer = Answer::of(respond(site.handler.answer_read(ask).await, "cache", false)).await;
    assert_eq!(
        (answer.status, answer.field("cache-status")),
        (503, "cache; fwd=partial; fwd-status=200; detail=length-unknown")
    );
    drop(other);
    gate.open();
    site.rig.idle().await;
    let answer = site.get("/a", &[AGENT]).await;
    assert_eq!((answer.status, answer.text()), (200, "0123456789"));
    assert_eq!(site.server.requests().len(), 1);
}
