//! Going on after a cut: within a fill, with the next request, and after a restart.

use std::fs;

use super::*;

/// Sends the head of the whole and `n` bytes of it, then cuts.
fn cut_after(fields: &[(&str, &str)], body: &[u8], n: usize) -> Vec<Step> {
    vec![Step::Send([&head("200 OK", fields, body.len())[..], &body[..n]].concat()), Step::Cut]
}

#[tokio::test]
async fn a_cut_fill_goes_on_at_the_first_missing_byte() {
    let body = Arc::new(body_of(300 * KIB, 1));
    let sent = Arc::clone(&body);
    let server = Server::start(move |n, request| match n {
        0 => cut_after(&[TAG, FRESH], &sent, 100_001),
        _ => vec![rest(request, &[TAG, FRESH], &sent)],
    })
    .await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    let obtained = rig.fill.obtain(want.clone()).await;
    assert!(whole(&rig, obtained).await == *body);
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(field(&requests[1], "range"), Some("bytes=100001-"));
    assert_eq!(field(&requests[1], "if-range"), Some("\"v1\""));
    rig.idle().await;
    assert_eq!(rig.metrics.upstream_bytes.get(), body.len() as u64);
}

#[tokio::test]
async fn an_origin_that_does_no_ranges_is_read_again_from_the_begin() {
    let body = Arc::new(body_of(300 * KIB, 2));
    let sent = Arc::clone(&body);
    let server = Server::start(move |n, _| match n {
        0 => cut_after(&[TAG, FRESH], &sent, 150_001),
        _ => vec![answer("200 OK", &[TAG, FRESH], &sent)],
    })
    .await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    let obtained = rig.fill.obtain(want.clone()).await;
    assert!(whole(&rig, obtained).await == *body, "the client's stream goes on");
    rig.idle().await;
    let stored = rig.stored(&want).await;
    assert!(stored_bytes(&rig, &stored[0]).await == *body);
}

#[tokio::test]
async fn without_a_strong_validator_the_whole_comes_again_and_is_compared() {
    for fields in [&[FRESH][..], &[("ETag", "W/\"v1\""), FRESH]] {
        let body = Arc::new(body_of(200 * KIB, 3));
        let sent = Arc::clone(&body);
        let fields: Vec<_> = fields.to_vec();
        let server = Server::start(move |n, request| {
            assert_eq!(field(request, "range"), None);
            match n {
                0 | 1 => cut_after(&fields, &sent, 70_001 * (n + 1)),
                _ => vec![answer("200 OK", &fields, &sent)],
            }
        })
        .await;
        let (rig, want) = (Rig::new(), want(&server, "/a"));
        let obtained = rig.fill.obtain(want.clone()).await;
        assert!(whole(&rig, obtained).await == *body, "the client's stream goes on");
        assert_eq!(server.requests().len(), 3);
        rig.idle().await;
        assert!(stored_bytes(&rig, &rig.stored(&want).await[0]).await == *body);
    }
}

#[tokio::test]
async fn a_byte_that_differs_means_another_version_and_nothing_is_joined() {
    let old = Arc::new(body_of(200 * KIB, 3));
    let mut bytes = old.to_vec();
    bytes[99_999] ^= 1;
    let new = Arc::new(bytes);
    let (first, second) = (Arc::clone(&old), Arc::clone(&new));
    let server = Server::start(move |n, _| match n {
        0 => cut_after(&[FRESH], &first, 100_000),
        _ => vec![answer("200 OK", &[FRESH], &second)],
    })
    .await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
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
async fn another_version_at_the_resume_ends_the_fill() {
    let (old, new) = (Arc::new(body_of(200 * KIB, 4)), Arc::new(body_of(150 * KIB, 5)));
    let (first, second) = (Arc::clone(&old), Arc::clone(&new));
    let server = Server::start(move |n, _| match n {
        0 => cut_after(&[TAG, FRESH], &first, 100_000),
        _ => vec![answer("200 OK", &[("ETag", "\"v2\""), FRESH], &second)],
    })
    .await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    let (_, partial, guard) = filling(rig.fill.obtain(want.clone()).await);
    let (bytes, end) = read(&partial).await;
    assert_eq!(end, Progress::Stopped);
    assert!(old.starts_with(&bytes), "no byte of the other version");
    drop(guard);
    rig.idle().await;
    let obtained = rig.fill.obtain(rig.look_up(want).await).await;
    assert!(whole(&rig, obtained).await == *new);
}

#[tokio::test]
async fn a_206_that_is_not_what_was_asked_is_not_joined() {
    let body = Arc::new(body_of(200 * KIB, 6));
    for wrong in ["bytes 0-204799/204800", "bytes 100000-204798/204799", "bytes 100000-204799/204801"] {
        let sent = Arc::clone(&body);
        let server = Server::start(move |n, request| match (n, field(request, "range")) {
            (0, _) => cut_after(&[TAG, FRESH], &sent, 100_000),
            (_, Some(_)) => {
                let range = crate::upstream::ContentRange::parse(wrong.as_bytes()).unwrap().range().unwrap();
                vec![answer("206 Partial Content", &[TAG, ("Content-Range", wrong)], &vec![0; range.len() as usize])]
            }
            (_, None) => vec![answer("200 OK", &[TAG, FRESH], &sent)],
        })
        .await;
        let (rig, want) = (Rig::new(), want(&server, "/a"));
        let obtained = rig.fill.obtain(want.clone()).await;
        assert!(whole(&rig, obtained).await == *body, "{wrong}: a source with wrong ranges is asked for the whole");
        rig.idle().await;
        assert!(stored_bytes(&rig, &rig.stored(&want).await[0]).await == *body, "{wrong}");
    }
}

#[tokio::test]
async fn the_next_request_goes_on_and_is_as_young_as_its_answer() {
    let body = Arc::new(body_of(200 * KIB, 7));
    let sent = Arc::clone(&body);
    let server = Server::start(move |n, request| match n {
        0 => cut_after(&[TAG, FRESH, ("X-Answer", "0")], &sent, 100_000),
        1 => vec![answer("404 Not Found", &[("Cache-Control", "no-store")], b"")],
        _ => vec![rest(request, &[TAG, FRESH, ("X-Answer", "2")], &sent)],
    })
    .await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    let (first, partial, guard) = filling(rig.fill.obtain(want.clone()).await);
    assert_eq!(read(&partial).await.1, Progress::Stopped);
    drop(guard);
    rig.idle().await;
    let obtained = rig.fill.obtain(rig.look_up(want.clone()).await).await;
    let Obtained::Filling { entry, .. } = &obtained else { panic!("{}", shown(&obtained)) };
    assert_eq!(entry.record.headers["x-answer"], "2");
    assert!(entry.record.request_time >= first.record.response_time);
    assert!(whole(&rig, obtained).await == *body);
    rig.idle().await;
    let stored = &rig.stored(&want).await[0];
    assert!(is_blob(stored));
    assert_eq!(stored.record.headers["x-answer"], "2");
    assert_eq!(rig.metrics.upstream_bytes.get(), body.len() as u64);
}

#[tokio::test]
async fn what_is_stored_of_a_version_outlives_errors_and_other_answers() {
    let body = Arc::new(body_of(200 * KIB, 14));
    for (last_tag, paid_again) in [(TAG, 0), (("ETag", "\"v2\""), 100_000)] {
        let sent = Arc::clone(&body);
        let server = Server::start(move |n, request| match n {
            0 => cut_after(&[TAG, FRESH], &sent, 100_000),
            // Each error is another text, as some origins write them.
            1..5 => vec![answer("404 Not Found", &[("Cache-Control", "max-age=0")], format!("no {n}").as_bytes())],
            _ if last_tag == TAG => vec![rest(request, &[last_tag, FRESH], &sent)],
            _ => vec![answer("200 OK", &[last_tag, FRESH], &sent)],
        })
        .await;
        let (rig, want) = (Rig::new(), want(&server, "/a"));
        let (_, partial, guard) = filling(rig.fill.obtain(want.clone()).await);
        assert_eq!(read(&partial).await.1, Progress::Stopped);
        drop((guard, partial));
        rig.idle().await;
        for _ in 2..5 {
            let (entry, ..) = filling(rig.fill.obtain(rig.look_up(want.clone()).await).await);
            assert_eq!(entry.record.status, StatusCode::NOT_FOUND);
            rig.idle().await;
        }
        let obtained = rig.fill.obtain(rig.look_up(want.clone()).await).await;
        let Obtained::Filling { entry, .. } = &obtained else { panic!("{}", shown(&obtained)) };
        assert_eq!(entry.record.headers[http::header::ETAG], last_tag.1);
        assert!(whole(&rig, obtained).await == *body);
        rig.idle().await;
        let last = server.requests().pop().unwrap();
        assert_eq!(field(&last, "range"), Some("bytes=100000-"), "{last_tag:?}");
        assert_eq!(rig.metrics.upstream_bytes.get(), 200 * 1024 + 3 * 4 + paid_again, "{last_tag:?}");
    }
}

#[tokio::test]
async fn failures_that_pass_are_waited_for_when_a_body_is_taken_up_but_not_for_ever() {
    let body = Arc::new(body_of(200 * KIB, 13));
    let sent = Arc::clone(&body);
    let server = Server::start(move |n, request| match n {
        0 => cut_after(&[TAG, FRESH], &sent, 100_000),
        1 => vec![answer("404 Not Found", &[("Cache-Control", "no-store")], b"")],
        2..5 => vec![answer("503 Service Unavailable", &[], b"busy")],
        _ => vec![rest(request, &[TAG, FRESH], &sent)],
    })
    .await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    let (_, partial, guard) = filling(rig.fill.obtain(want.clone()).await);
    assert_eq!(read(&partial).await.1, Progress::Stopped);
    drop((guard, partial));
    rig.idle().await;
    let hurried = Want { deadline: Instant::now() + Duration::from_millis(50), ..rig.look_up(want.clone()).await };
    let obtained = rig.fill.obtain(hurried).await;
    let is_told = matches!(obtained, Obtained::Answer { .. } | Obtained::Failed(_));
    assert!(is_told, "its time is over before the spell is, but it is {}", shown(&obtained));
    rig.idle().await;
    let obtained = rig.fill.obtain(rig.look_up(want).await).await;
    assert!(whole(&rig, obtained).await == *body);
}

#[tokio::test]
async fn a_body_of_unknown_length_goes_on_when_the_rest_tells_it() {
    let body = Arc::new(body_of(200_000, 8));
    let sent = Arc::clone(&body);
    let server = Server::start(move |n, request| match n {
        0 => {
            let head =
                "HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n";
            let chunk = [b"186a0\r\n", &sent[..100_000], b"\r\n"].concat();
            vec![Step::Send([head.as_bytes(), &chunk].concat()), Step::Cut]
        }
        _ => vec![rest(request, &[TAG, FRESH], &sent)],
    })
    .await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    let obtained = rig.fill.obtain(want.clone()).await;
    assert!(whole(&rig, obtained).await == *body);
    rig.idle().await;
    assert_eq!(rig.stored(&want).await[0].record.length, Some(200_000));
}

#[tokio::test]
async fn bytes_behind_a_hole_stay_and_those_that_come_are_put_in_their_place() {
    let body = Arc::new(body_of(5 * BLOCK + 100, 9));
    let sent = Arc::clone(&body);
    let server = Server::start(move |_, request| vec![rest(request, &[TAG, FRESH], &sent)]).await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    let mut writer = rig.store.create(record_of(&want, body.len())).await.unwrap();
    for (from, to) in [(0, BLOCK + 7), (3 * BLOCK, 4 * BLOCK + 9)] {
        writer.write(from as u64, vec![Bytes::copy_from_slice(&body[from..to])]).await.unwrap();
    }
    drop(writer);
    let obtained = rig.fill.obtain(rig.look_up(want.clone()).await).await;
    assert!(whole(&rig, obtained).await == *body);
    assert_eq!(field(&server.requests()[0], "range"), Some(&*format!("bytes={}-{}", BLOCK + 7, 3 * BLOCK - 1)));
    assert!(
        field(&server.requests()[1], "range").unwrap().starts_with(&format!("bytes={}-", 3 * BLOCK + 9 + BLOCK)),
        "only what is missing"
    );
    rig.idle().await;
    assert!(stored_bytes(&rig, &rig.stored(&want).await[0]).await == *body);
}

#[tokio::test]
async fn a_block_damaged_at_rest_reaches_nobody() {
    let body = Arc::new(body_of(5 * BLOCK, 9));
    let sent = Arc::clone(&body);
    let server = Server::start(move |n, request| match (n, field(request, "range")) {
        (0, _) => cut_after(&[TAG, FRESH], &sent, 4 * BLOCK),
        (1, _) => vec![answer("404 Not Found", &[("Cache-Control", "no-store")], b"")],
        (_, Some(_)) => vec![rest(request, &[TAG, FRESH], &sent)],
        (_, None) => vec![answer("200 OK", &[TAG, FRESH], &sent)],
    })
    .await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    let (_, partial, guard) = filling(rig.fill.obtain(want.clone()).await);
    assert_eq!(read(&partial).await.1, Progress::Stopped);
    drop((guard, partial));
    rig.idle().await;
    let damage = |root: &TempDir| {
        let files = fs::read_dir(root.path().join("drive/partial")).unwrap().map(|entry| entry.unwrap().path());
        let data = files.into_iter().find(|path| path.extension().is_some_and(|name| name == "data")).unwrap();
        let mut bytes = fs::read(&data).unwrap();
        bytes[BLOCK + 5] ^= 1;
        fs::write(&data, bytes).unwrap();
    };
    let rig = rig.restarted(damage).await;
    // The damage is found while the body is filled, or when all has come; then the client is cut and comes again.
    for _ in 0..2 {
        let (_, partial, guard) = filling(rig.fill.obtain(rig.look_up(want.clone()).await).await);
        let (bytes, end) = read(&partial).await;
        assert!(body.starts_with(&bytes));
        drop(guard);
        rig.idle().await;
        if end == Progress::Ended(body.len() as u64) {
            return;
        }
    }
    panic!("never whole");
}

#[tokio::test]
async fn a_body_is_resumed_after_a_restart() {
    let body = Arc::new(body_of(5 * BLOCK, 10));
    let sent = Arc::clone(&body);
    let server = Server::start(move |n, request| match n {
        0 => cut_after(&[TAG, FRESH], &sent, 3 * BLOCK + 17),
        1 => vec![answer("404 Not Found", &[("Cache-Control", "no-store")], b"")],
        _ => vec![rest(request, &[TAG, FRESH], &sent)],
    })
    .await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    let (_, partial, guard) = filling(rig.fill.obtain(want.clone()).await);
    assert_eq!(read(&partial).await.1, Progress::Stopped);
    drop((guard, partial));
    rig.idle().await;
    let rig = rig.restarted(|_| {}).await;
    let obtained = rig.fill.obtain(rig.look_up(want.clone()).await).await;
    assert!(whole(&rig, obtained).await == *body);
    assert_eq!(field(&server.requests()[2], "range"), Some(&*format!("bytes={}-", 3 * BLOCK + 17)));
}

#[tokio::test]
async fn bytes_that_are_not_what_was_promised_are_cut_and_fetched_anew() {
    let body = Arc::new(body_of(100_000, 11));
    let sent = Arc::clone(&body);
    let digest = format!("sha-256=:{}:", crate::content::Digest::of(&body).to_base64());
    let server = Server::start(move |n, _| {
        let mut bytes = sent.to_vec();
        bytes[50] ^= u8::from(n == 0);
        vec![answer("200 OK", &[TAG, FRESH, ("Repr-Digest", &digest)], &bytes)]
    })
    .await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    let (_, partial, guard) = filling(rig.fill.obtain(want.clone()).await);
    assert_eq!(partial.wait(u64::MAX).await, Progress::Stopped);
    drop(guard);
    rig.idle().await;
    assert_eq!(rig.ended_as("mismatch"), 1);
    let obtained = rig.fill.obtain(rig.look_up(want).await).await;
    assert!(whole(&rig, obtained).await == *body);
}
