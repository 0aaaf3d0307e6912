//! What clients, and agents above all, get when something fails.

use super::*;

const STALE: (&str, &str) = ("Cache-Control", "max-age=0");

#[tokio::test]
async fn missing_content_is_hidden_from_agents_where_the_rule_says_so() {
    let site = Site::new(|_, _| vec![answer("404 Not Found", &[], b"none")]).await;
    for (path, agent, person) in [("/a.optional", 503, 404), ("/a.bin", 404, 404)] {
        for _ in 0..2 {
            assert_eq!(site.get(path, &[AGENT]).await.status, agent, "{path}");
            assert_eq!(site.head(path, &[AGENT]).await.status, agent, "{path}");
            assert_eq!(site.get(path, &[]).await.status, person, "{path}");
            site.rig.idle().await;
        }
    }
}

#[tokio::test]
async fn a_server_error_is_passed_on_when_nothing_is_stored() {
    let site = Site::new(|_, _| vec![answer("502 Bad Gateway", &[], b"sorry")]).await;
    let failed = site.get("/a", &[]).await;
    assert_eq!((failed.status, failed.text(), failed.field("content-length")), (502, "sorry", "5"));
    assert_eq!(failed.field("cache-status"), "cache; fwd=uri-miss; fwd-status=502");
}

#[tokio::test]
async fn stale_content_goes_before_a_failure() {
    let site = Site::new(|n, request| match (n, request.starts_with("head")) {
        (0, _) => vec![answer("200 OK", &[TAG, STALE], b"content")],
        (_, true) => vec![Step::Send(head("500 Internal Server Error", &[], 0))],
        (1, _) => vec![answer("500 Internal Server Error", &[FRESH], b"no")],
        _ => vec![Step::Cut],
    })
    .await;
    site.fill("/a").await;
    let answer = site.get("/a", &[]).await;
    assert_eq!((answer.status, answer.text()), (200, "content"));
    let status = answer.field("cache-status");
    assert!(status.starts_with("cache; fwd=stale; fwd-status=500; ttl="), "{status}");
    let answer = site.get("/a", &[]).await;
    assert_eq!((answer.status, answer.text()), (200, "content"));
    let answer = site.head("/a", &[]).await;
    assert_eq!((answer.status, answer.field("content-length")), (200, "7"));
}

#[tokio::test]
async fn without_a_source_the_answer_is_a_plain_503() {
    let site = Site::new(|_, _| vec![Step::Cut]).await;
    let answer = site.get("/a", &[AGENT]).await;
    assert_eq!((answer.status, answer.text()), (503, ""));
    assert_eq!((answer.field("content-length"), answer.field("retry-after")), ("0", "2"));
    assert_eq!(answer.field("cache-status"), "cache; fwd=uri-miss; detail=disconnected");
}

#[tokio::test]
async fn a_fill_cut_before_its_first_byte_is_tried_again_for_the_same_client() {
    let site = Site::new(|n, _| match n {
        0 => vec![Step::Send(head("200 OK", &[TAG, FRESH], 10)), Step::Cut],
        _ => vec![answer("200 OK", &[TAG, FRESH], b"0123456789")],
    })
    .await;
    let answer = site.get("/a", &[]).await;
    assert_eq!((answer.status, answer.text()), (200, "0123456789"));
}

#[tokio::test]
async fn a_cut_body_is_cut_and_what_came_serves_the_resume() {
    let body = Arc::new(body_of(100 * KIB, 1));
    let sent = Arc::clone(&body);
    let site = Site::new(move |n, request| match n {
        0 => vec![Step::Send([&head("200 OK", &[TAG, FRESH], sent.len())[..], &sent[..60_000]].concat()), Step::Cut],
        1 => vec![answer("404 Not Found", &[("Cache-Control", "no-store")], b"")],
        _ => vec![crate::fill::tests::rest(request, &[TAG, FRESH], &sent)],
    })
    .await;
    let first = site.get("/a", &[AGENT]).await;
    assert!(first.body.is_err(), "the connection ends before the body does");
    site.rig.idle().await;
    let resumed = site.get("/a", &[("range", "bytes=0-102399"), ("range", "bytes=50000-102399"), AGENT]).await;
    assert_eq!(resumed.status, 206);
    assert!(resumed.body.unwrap() == body[50_000..]);
}

#[tokio::test]
async fn a_small_body_that_is_not_what_was_promised_reaches_nobody() {
    let digest = format!("sha-256=:{}:", crate::content::Digest::of(b"0123456789").to_base64());
    let site = Site::new(move |n, _| {
        let body = if n == 0 { b"012345678x" } else { b"0123456789" };
        vec![answer("200 OK", &[TAG, FRESH, ("Repr-Digest", &digest)], body)]
    })
    .await;
    let answer = site.get("/a", &[]).await;
    assert_eq!((answer.status, answer.text()), (200, "0123456789"));
    assert_eq!(site.server.requests().len(), 2);
}

#[tokio::test]
async fn a_body_that_is_never_what_was_promised_is_refused_and_not_asked_for_again_and_again() {
    let digest = format!("sha-256=:{}:", crate::content::Digest::of(b"something else").to_base64());
    let site = Site::new(move |_, _| vec![answer("200 OK", &[TAG, FRESH, ("Repr-Digest", &digest)], b"wrong")]).await;
    for _ in 0..3 {
        assert_eq!(site.get("/a", &[AGENT]).await.status, 503);
    }
    assert_eq!(site.server.requests().len(), 3);
}

#[tokio::test]
async fn the_end_of_a_long_body_that_is_not_what_was_promised_reaches_nobody() {
    let body = Arc::new(body_of(200 * KIB, 2));
    let digest = format!("sha-256=:{}:", crate::content::Digest::of(b"something else").to_base64());
    let (gate, sent) = (Gate::new(), Arc::clone(&body));
    let held = gate.clone();
    let site = Site::new(move |_, _| {
        let head = head("200 OK", &[TAG, FRESH, ("Repr-Digest", &digest)], sent.len());
        let first = Step::Send([&head[..], &sent[..100_000]].concat());
        vec![first, Step::Wait(held.clone()), Step::Send(sent[100_000..].to_vec())]
    })
    .await;
    // It is not there in time to be verified first, so it streams.
    let mut ask = site.ask(&Method::GET, "/a", &[]);
    ask.deadline = Instant::now() + Duration::from_millis(300);
    let response = respond(site.handler.answer_read(ask).await, "cache", false);
    assert_eq!(response.headers()["content-length"], body.len().to_string());
    gate.open();
    assert!(Answer::of(response).await.body.is_err(), "its end is held back and then cut");
}

#[tokio::test]
async fn an_agent_never_gets_the_whole_for_a_range() {
    let site = Site::new(|_, _| vec![answer("200 OK", &[("Cache-Control", "private")], b"0123456789")]).await;
    let range = ("range", "bytes=2-3");
    assert_eq!(site.get("/a", &[range, AGENT]).await.status, 503);
    assert_eq!(site.get("/a", &[range]).await.status, 200);
    assert_eq!(site.get("/a", &[AGENT]).await.text(), "0123456789");
}
