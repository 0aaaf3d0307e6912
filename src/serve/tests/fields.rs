//! Status, fields and bytes of answers from the store and on the way into it.

use super::*;

async fn digits() -> Site {
    Site::new(|_, _| vec![answer("200 OK", &[TAG, FRESH, ("Content-MD5", "x")], b"0123456789")]).await
}

#[tokio::test]
async fn a_miss_and_a_hit_say_what_they_are() {
    let site = digits().await;
    let miss = site.fill("/a").await;
    assert_eq!((miss.status, miss.text()), (200, "0123456789"));
    assert_eq!(fresh(miss.field("cache-status")), "cache; fwd=uri-miss; fwd-status=200; stored");
    let hit = site.get("/a", &[]).await;
    assert_eq!((hit.status, hit.text()), (200, "0123456789"));
    assert!(hit.field("cache-status").starts_with("cache; hit; ttl="), "{}", hit.field("cache-status"));
    for answer in [&miss, &hit] {
        assert_eq!(answer.field("content-length"), "10");
        assert_eq!(answer.field("accept-ranges"), "bytes");
        assert_eq!(answer.field("via"), "1.1 cache");
        assert_eq!(answer.field("etag"), "\"v1\"");
        assert!(answer.field("age").parse::<u64>().is_ok());
        assert!(httpdate::parse_http_date(answer.field("date")).is_ok());
    }
    let digest = crate::content::Digest::of(b"0123456789").to_base64();
    assert_eq!(hit.field("repr-digest"), format!("sha-256=:{digest}:"));
    assert_eq!(site.server.requests().len(), 1);
}

#[tokio::test]
async fn a_strong_entity_tag_comes_from_the_digest_when_the_origin_gives_none() {
    let site = Site::new(|_, _| vec![answer("200 OK", &[FRESH], b"0123456789")]).await;
    site.fill("/a").await;
    let tag = site.get("/a", &[]).await.field("etag").to_owned();
    assert!(tag.starts_with("\"sha256-"), "{tag}");
    assert_eq!(site.get("/a", &[("if-none-match", &tag)]).await.status, 304);
    let part = site.get("/a", &[("if-range", &tag), ("range", "bytes=1-2")]).await;
    assert_eq!((part.status, part.text()), (206, "12"));
}

#[tokio::test]
async fn ranges_are_exact_on_a_miss_and_on_a_hit() {
    for (fields, range, bytes) in [
        (&[("range", "bytes=2-4")][..], "bytes 2-4/10", "234"),
        (&[("range", "bytes=8-")], "bytes 8-9/10", "89"),
        (&[("range", "bytes=-3")], "bytes 7-9/10", "789"),
        (&[("range", "bytes=0-9"), ("range", "bytes=4-9"), ("range", "bytes=6-9")], "bytes 6-9/10", "6789"),
    ] {
        let site = digits().await;
        for _ in 0..2 {
            let part = site.get("/a", fields).await;
            assert_eq!((part.status, part.text()), (206, bytes), "{fields:?}");
            assert_eq!(part.field("content-range"), range);
            assert_eq!(part.field("content-length"), bytes.len().to_string());
            assert_eq!(part.field("accept-ranges"), "bytes");
            assert_eq!(part.field("content-md5"), "", "it is the digest of another message");
            site.rig.idle().await;
        }
        assert_eq!(site.server.requests().len(), 1);
    }
}

#[tokio::test]
async fn several_ranges_are_one_multipart_answer() {
    let body = Arc::new(body_of(1000, 1));
    let sent = Arc::clone(&body);
    let site = Site::new(move |_, _| vec![answer("200 OK", &[TAG, FRESH, ("Content-Type", "a/b")], &sent)]).await;
    for _ in 0..2 {
        let parts = site.get("/a", &[("range", "bytes=0-1,500-502")]).await;
        assert_eq!(parts.status, 206);
        let boundary = parts.field("content-type").strip_prefix("multipart/byteranges; boundary=").unwrap();
        let part =
            |range: &str| format!("--{boundary}\r\nContent-Type: a/b\r\nContent-Range: bytes {range}/1000\r\n\r\n");
        let expected = [
            part("0-1").as_bytes(),
            &body[..2],
            b"\r\n",
            part("500-502").as_bytes(),
            &body[500..503],
            format!("\r\n--{boundary}--\r\n").as_bytes(),
        ]
        .concat();
        assert_eq!(parts.body.as_ref().unwrap(), &expected);
        assert_eq!(parts.field("content-length"), expected.len().to_string());
        assert_eq!(parts.field("content-range"), "");
        site.rig.idle().await;
    }
}

#[tokio::test]
async fn head_never_starts_a_fill_and_tells_the_whole_length() {
    let site = Site::new(|_, request| match request.starts_with("head") {
        true => vec![Step::Send(head("200 OK", &[TAG, FRESH], 10))],
        false => vec![answer("200 OK", &[TAG, FRESH], b"0123456789")],
    })
    .await;
    let miss = site.head("/a", &[]).await;
    assert_eq!((miss.status, miss.field("content-length"), miss.text()), (200, "10", ""));
    assert_eq!(miss.field("cache-status"), "cache; fwd=uri-miss; fwd-status=200");
    assert!(site.rig.store.lookup(&site.ask(&Method::GET, "/a", &[]).content.key).await.is_empty());
    site.fill("/a").await;
    let hit = site.head("/a", &[("range", "bytes=1-2")]).await;
    assert_eq!((hit.status, hit.field("content-length"), hit.text()), (200, "10", ""));
    assert!(hit.field("cache-status").starts_with("cache; hit"));
    assert_eq!(site.server.requests().len(), 2);
}

#[tokio::test]
async fn head_is_answered_while_the_body_is_still_coming() {
    let gate = Gate::new();
    let held = gate.clone();
    let site = Site::new(move |_, _| {
        vec![Step::Send([&head("200 OK", &[TAG, FRESH], 10)[..], b"0"].concat()), Step::Wait(held.clone())]
    })
    .await;
    let growing = site.begin(Method::GET, "/a", &[]).await;
    let hit = site.head("/a", &[]).await;
    assert_eq!((hit.status, hit.field("content-length")), (200, "10"));
    drop(growing);
    gate.open();
}

#[tokio::test]
async fn a_304_has_the_fields_that_a_client_updates() {
    let fields =
        [TAG, FRESH, ("Last-Modified", "Mon, 23 Nov 2020 12:00:00 GMT"), ("Content-Location", "/b"), ("X", "y")];
    let site = Site::new(move |_, _| vec![answer("200 OK", &fields, b"0123456789")]).await;
    site.fill("/a").await;
    let not_modified = site.get("/a", &[("if-none-match", "\"v1\"")]).await;
    assert_eq!((not_modified.status, not_modified.text()), (304, ""));
    let names = ["etag", "cache-control", "last-modified", "content-location", "date", "age", "cache-status", "via"];
    for name in names {
        assert_ne!(not_modified.field(name), "", "{name}");
    }
    for name in ["content-length", "x", "accept-ranges"] {
        assert_eq!(not_modified.field(name), "", "{name}");
    }
    assert_eq!(site.get("/a", &[("if-match", "\"v2\"")]).await.status, 412);
}

#[tokio::test]
async fn a_range_beyond_the_end_is_416_but_never_to_an_agent() {
    let site = digits().await;
    site.fill("/a").await;
    let answer = site.get("/a", &[("range", "bytes=10-")]).await;
    assert_eq!((answer.status, answer.field("content-range"), answer.text()), (416, "bytes */10", ""));
    let answer = site.get("/a", &[("range", "bytes=10-"), AGENT]).await;
    assert_eq!((answer.status, answer.field("retry-after"), answer.field("content-length")), (503, "2", "0"));
}

#[tokio::test]
async fn variants_and_only_if_cached_are_told() {
    let site = Site::new(|_, _| vec![answer("200 OK", &[FRESH, ("Vary", "Accept-Language")], b"text")]).await;
    assert_eq!(site.get("/a", &[("cache-control", "only-if-cached")]).await.status, 504);
    site.fill("/a").await;
    let other = site.get("/a", &[("accept-language", "de")]).await;
    assert_eq!(fresh(other.field("cache-status")), "cache; fwd=vary-miss; fwd-status=200; stored");
}
