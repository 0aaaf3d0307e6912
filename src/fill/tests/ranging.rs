//! Fills in ranges: what is asked for, in which order, and what happens when a source does not do them as it should.

use super::*;
use crate::content::{ByteRange, Digest, FillMode, RangeSet};

const MIB: usize = 1024 * KIB;

fn ranged(want: Want) -> Want {
    let policy = Policy { fill: FillMode::Ranged, ..(*want.policy).clone() };
    Want { policy: Arc::new(policy), ..want }
}

/// The ranges of all requests so far.
fn asked_ranges(server: &Server, length: usize) -> Vec<ByteRange> {
    let of = |request: &String| {
        let (from, to) = asked(request, length);
        ByteRange::new(from as u64, to as u64).unwrap()
    };
    server.requests().iter().map(of).collect()
}

async fn serving(body: &Arc<Vec<u8>>) -> Server {
    let sent = Arc::clone(body);
    Server::start(move |_, request| vec![rest(request, &[TAG, FRESH], &sent)]).await
}

#[tokio::test]
async fn a_body_comes_in_ranges_of_one_version_and_nothing_twice() {
    let body = Arc::new(body_of(11 * MIB + 17, 1));
    let server = serving(&body).await;
    let (rig, want) = (Rig::new(), ranged(want(&server, "/a")));
    let obtained = rig.fill.obtain(want.clone()).await;
    assert!(whole(&rig, obtained).await == *body);
    rig.idle().await;
    let requests = server.requests();
    assert!(requests.len() >= 3, "{requests:?}");
    assert_eq!((field(&requests[0], "range"), field(&requests[0], "if-range")), (Some("bytes=0-1048575"), None));
    assert!(requests[1..].iter().all(|request| field(request, "if-range") == Some("\"v1\"")));
    let mut seen = RangeSet::new();
    for range in asked_ranges(&server, body.len()) {
        assert_eq!(seen.missing(range), [range], "asked for twice");
        seen.insert(range);
    }
    assert_eq!(rig.metrics.upstream_bytes.get(), body.len() as u64);
    let stored = &rig.stored(&want).await[0];
    assert!(is_blob(stored) && stored_bytes(&rig, stored).await == *body);
    assert!(!stored.record.headers.contains_key("content-range"));
}

#[tokio::test]
async fn what_a_part_brings_beyond_its_range_is_none_of_it() {
    let body = Arc::new(body_of(3 * BLOCK, 31));
    let sent = Arc::clone(&body);
    let server = Server::start(move |n, request| {
        if n > 0 {
            return vec![rest(request, &[TAG, FRESH], &sent)];
        }
        // It is chunked, so that nothing but its range says how long it is.
        let range = format!("bytes 0-999/{}", sent.len());
        let fields = [TAG, FRESH, ("Content-Range", &range), ("Transfer-Encoding", "chunked")];
        let head = head("206 Partial Content", &fields, 0);
        let head = String::from_utf8(head).unwrap().replace("Content-Length: 0\r\n", "");
        let chunk = [b"BB8\r\n", &sent[..1000], &[b'x'; 2000], b"\r\n0\r\n\r\n"].concat();
        vec![Step::Send([head.as_bytes(), &chunk].concat())]
    })
    .await;
    let (rig, want) = (Rig::new(), ranged(want(&server, "/a")));
    let obtained = rig.fill.obtain(want.clone()).await;
    assert!(whole(&rig, obtained).await == *body);
    assert_eq!(field(&server.requests()[1], "range").map(|range| range.split('-').next()), Some(Some("bytes=1000")));
}

#[tokio::test]
async fn a_range_of_a_cold_body_costs_no_more_than_its_blocks() {
    let body = Arc::new(body_of(8 * MIB, 2));
    let server = serving(&body).await;
    let rig = Rig::new();
    let want = with_fields(ranged(want(&server, "/a")), &[("range", "bytes=5000000-5099999")]);
    let (entry, partial, guard) = filling(rig.fill.obtain(want.clone()).await);
    assert_eq!(entry.record.length, Some(body.len() as u64));
    guard.reads(ByteRange::new(5_000_000, 5_100_000).unwrap(), entry.record.length);
    assert!(matches!(partial.wait(5_099_999).await, Progress::Present(_)));
    drop(guard);
    rig.idle().await;
    assert_eq!(rig.ended_as("part"), 1);
    assert_eq!(server.requests().len(), 1);
    assert!(rig.metrics.upstream_bytes.get() <= 3 * BLOCK as u64);
    let part = Body::Partial(partial).read(5_000_000, 100_000).await.unwrap();
    assert!(part[..] == body[5_000_000..][..part.len()]);
}

#[tokio::test]
async fn a_range_far_ahead_joins_the_fill_and_comes_on_its_own() {
    let body = Arc::new(body_of(20 * MIB, 3));
    let (gate, sent) = (Gate::new(), Arc::clone(&body));
    let held = gate.clone();
    let server = Server::start(move |n, request| match n {
        0 => {
            // The first range is slow to come.
            let (from, to) = asked(request, sent.len());
            let range = format!("bytes {from}-{}/{}", to - 1, sent.len());
            let head = head("206 Partial Content", &[TAG, FRESH, ("Content-Range", &range)], to - from);
            let first = [&head[..], &sent[..100]].concat();
            vec![Step::Send(first), Step::Wait(held.clone()), Step::Send(sent[100..to].to_vec())]
        }
        _ => vec![rest(request, &[TAG, FRESH], &sent)],
    })
    .await;
    let (rig, want) = (Rig::new(), ranged(want(&server, "/a")));
    let leader = rig.fill.obtain(want.clone()).await;
    let far = with_fields(want.clone(), &[("range", "bytes=15000000-15000099")]);
    let (entry, partial, guard) = filling(rig.fill.obtain(rig.look_up(far).await).await);
    guard.reads(ByteRange::new(15_000_000, 15_000_100).unwrap(), entry.record.length);
    // The slow link is worth one request at a time, which the first range has; it is cut and leaves the place.
    gate.open();
    assert!(matches!(partial.wait(15_000_099).await, Progress::Present(_)));
    drop(guard);
    assert!(whole(&rig, leader).await == *body);
    assert_eq!(rig.metrics.upstream_bytes.get(), body.len() as u64);
}

#[tokio::test]
async fn a_source_that_ignores_ranges_is_asked_once() {
    let body = Arc::new(body_of(3 * MIB, 4));
    let sent = Arc::clone(&body);
    let server = Server::start(move |_, _| vec![answer("200 OK", &[TAG, FRESH], &sent)]).await;
    let (rig, want) = (Rig::new(), ranged(want(&server, "/a")));
    let obtained = rig.fill.obtain(want.clone()).await;
    assert!(whole(&rig, obtained).await == *body);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn parts_without_a_strong_validator_are_not_joined() {
    for tag in ["W/\"1\"", "none"] {
        let body = Arc::new(body_of(3 * MIB, 5));
        let sent = Arc::clone(&body);
        let fields: Vec<_> = if tag == "none" { vec![FRESH] } else { vec![("ETag", tag), FRESH] };
        let server = Server::start(move |_, request| match field(request, "range") {
            Some(_) => vec![rest(request, &fields, &sent)],
            None => vec![answer("200 OK", &fields, &sent)],
        })
        .await;
        let (rig, want) = (Rig::new(), ranged(want(&server, "/a")));
        let obtained = rig.fill.obtain(want.clone()).await;
        assert!(whole(&rig, obtained).await == *body, "{tag}");
        rig.idle().await;
        assert_eq!(server.requests().len(), 2, "{tag}");
        rig.store.remove(&rig.stored(&want).await[0]);
        let second = rig.fill.obtain(want).await;
        assert!(whole(&rig, second).await == *body, "{tag}");
        assert_eq!(field(&server.requests()[2], "range"), None, "{tag}: that is remembered");
    }
}

#[tokio::test]
async fn another_version_between_two_ranges_is_never_joined() {
    let (old, new) = (Arc::new(body_of(6 * MIB, 6)), Arc::new(body_of(6 * MIB, 7)));
    let (first, second) = (Arc::clone(&old), Arc::clone(&new));
    let v2 = ("ETag", "\"v2\"");
    let server = Server::start(move |n, request| match (n, field(request, "if-range")) {
        (0, _) => vec![rest(request, &[TAG, FRESH], &first)],
        (_, Some(_)) => vec![answer("200 OK", &[v2, FRESH], &second)],
        (_, None) => vec![rest(request, &[v2, FRESH], &second)],
    })
    .await;
    let (rig, want) = (Rig::new(), ranged(want(&server, "/a")));
    let (_, partial, guard) = filling(rig.fill.obtain(want.clone()).await);
    let (bytes, end) = read(&partial).await;
    assert_eq!(end, Progress::Stopped);
    assert!(old.starts_with(&bytes), "no byte of the other version");
    drop(guard);
    rig.idle().await;
    assert_eq!(rig.ended_as("changed"), 1);
    let obtained = rig.fill.obtain(rig.look_up(want).await).await;
    assert!(whole(&rig, obtained).await == *new);
}

#[tokio::test]
async fn cuts_after_every_few_bytes_cost_nothing_twice() {
    let body = Arc::new(body_of(5 * MIB, 8));
    let sent = Arc::clone(&body);
    let server = Server::start(move |_, request| {
        let (from, to) = asked(request, sent.len());
        let range = format!("bytes {from}-{}/{}", to - 1, sent.len());
        let head = head("206 Partial Content", &[TAG, FRESH, ("Content-Range", &range)], to - from);
        let end = to.min(from + 700_001);
        let cut = [&head[..], &sent[from..end]].concat();
        if end == to { vec![Step::Send(cut)] } else { vec![Step::Send(cut), Step::Cut] }
    })
    .await;
    let (rig, want) = (Rig::new(), ranged(want(&server, "/a")));
    let obtained = rig.fill.obtain(want.clone()).await;
    assert!(whole(&rig, obtained).await == *body);
    rig.idle().await;
    assert_eq!(rig.metrics.upstream_bytes.get(), body.len() as u64);
}

#[tokio::test]
async fn a_part_that_is_not_what_its_content_digest_says_reaches_nobody() {
    let body = Arc::new(body_of(2 * MIB, 9));
    let sent = Arc::clone(&body);
    let server = Server::start(move |n, request| {
        let (from, to) = asked(request, sent.len());
        let range = format!("bytes {from}-{}/{}", to - 1, sent.len());
        let mut bytes = sent[from..to].to_vec();
        let digest = format!("sha-256=:{}:", Digest::of(&bytes).to_base64());
        bytes[5] ^= u8::from(n < 2);
        vec![answer(
            "206 Partial Content",
            &[TAG, FRESH, ("Content-Range", &range), ("Content-Digest", &digest)],
            &bytes,
        )]
    })
    .await;
    let (rig, want) = (Rig::new(), ranged(want(&server, "/a")));
    let obtained = rig.fill.obtain(want.clone()).await;
    assert!(whole(&rig, obtained).await == *body);
    rig.idle().await;
    assert!(!rig.stored(&want).await[0].record.headers.contains_key("content-digest"), "it was that of a part");
}

/// Such a part is too long to be held until it is checked, so that its bytes were given out.
#[tokio::test]
async fn a_long_part_that_is_wrong_is_quarantined_with_its_body_and_fetched_anew() {
    let body = Arc::new(body_of(10 * MIB, 12));
    let sent = Arc::clone(&body);
    let server = Server::start(move |n, request| match n {
        0 => vec![Step::Send([&head("200 OK", &[TAG, FRESH], sent.len())[..], &sent[..MIB]].concat()), Step::Cut],
        1 => {
            let mut bytes = sent.to_vec();
            bytes[5 * MIB] ^= 1;
            let digest = format!("sha-256=:{}:", Digest::of(&sent[MIB..]).to_base64());
            vec![rest(request, &[TAG, FRESH, ("Content-Digest", &digest)], &bytes)]
        }
        _ => vec![answer("200 OK", &[TAG, FRESH], &sent)],
    })
    .await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    let (_, partial, guard) = filling(rig.fill.obtain(want.clone()).await);
    assert_eq!(partial.wait(u64::MAX).await, Progress::Stopped, "who follows is cut");
    drop(guard);
    rig.idle().await;
    assert_eq!(rig.ended_as("mismatch"), 1);
    let obtained = rig.fill.obtain(rig.look_up(want).await).await;
    assert!(whole(&rig, obtained).await == *body);
}

#[tokio::test]
async fn empty_and_short_bodies_are_had_without_ranges() {
    for length in [0, 100] {
        let body = Arc::new(body_of(length, 10));
        let sent = Arc::clone(&body);
        let server = Server::start(move |_, request| match field(request, "range") {
            Some(range) if range.starts_with("bytes=0-") && !sent.is_empty() => {
                vec![rest(request, &[TAG, FRESH], &sent)]
            }
            Some(_) => {
                let range = format!("bytes */{}", sent.len());
                vec![answer("416 Range Not Satisfiable", &[("Content-Range", &range)], b"")]
            }
            None => vec![answer("200 OK", &[TAG, FRESH], &sent)],
        })
        .await;
        for range in [None, Some("bytes=5000000-5000009")] {
            let rig = Rig::new();
            let mut want = ranged(want(&server, "/a"));
            if let Some(range) = range {
                want = with_fields(want, &[("range", range)]);
            }
            let obtained = rig.fill.obtain(want).await;
            if range.is_some() && length > 0 {
                assert!(matches!(obtained, Obtained::Behind { length: 100 }), "{}", shown(&obtained));
                continue;
            }
            let (_, partial, _guard) = filling(obtained);
            let (bytes, end) = read(&partial).await;
            assert_eq!((bytes == *body, end), (true, Progress::Ended(length as u64)), "{length} {range:?}");
        }
    }
}

#[tokio::test]
async fn the_rule_s_digest_counts_more_than_what_the_source_says() {
    let body = Arc::new(body_of(100_000, 11));
    let sent = Arc::clone(&body);
    let claimed = format!("sha-256=:{}:", Digest::of(b"a lie").to_base64());
    let server = Server::start(move |n, request| {
        let mut bytes = sent.to_vec();
        bytes[70] ^= u8::from(n == 0);
        vec![rest(request, &[TAG, FRESH, ("Repr-Digest", &claimed)], &bytes)]
    })
    .await;
    let rig = Rig::new();
    let want = ranged(want(&server, "/a"));
    let digests = Arc::new([("/a".to_owned(), Digest::of(&body))].into_iter().collect());
    let want = Want { policy: Arc::new(Policy { digests, ..(*want.policy).clone() }), ..want };
    let (_, partial, guard) = filling(rig.fill.obtain(want.clone()).await);
    assert_eq!(partial.wait(u64::MAX).await, Progress::Stopped, "one byte was wrong");
    drop(guard);
    rig.idle().await;
    let obtained = rig.fill.obtain(rig.look_up(want).await).await;
    assert!(whole(&rig, obtained).await == *body);
    rig.idle().await;
    assert_eq!((rig.ended_as("mismatch"), rig.ended_as("complete")), (1, 1));
}
