//! Content that was fetched with a token, towards requests with others.

use super::*;

#[tokio::test]
async fn another_token_is_asked_about_once_and_a_refused_one_gets_nothing() {
    let site = Site::new(|_, request| match (request.starts_with("head"), request.contains("sig=bad")) {
        (true, true) => vec![Step::Send(head("403 Forbidden", &[], 0))],
        (true, false) if request.contains("sig=busy") => vec![Step::Send(head("429 Too Many Requests", &[], 0))],
        (true, false) => vec![Step::Send(head("200 OK", &[TAG], 6))],
        (false, _) => vec![answer("200 OK", &[TAG, FRESH], b"secret")],
    })
    .await;
    site.fill("/a?sv=1&sig=one").await;
    assert_eq!(site.server.requests().len(), 1);
    assert_eq!(site.get("/a?sv=1&sig=one", &[]).await.text(), "secret");
    assert_eq!(site.server.requests().len(), 1, "it was proven by the fill");
    for _ in 0..2 {
        assert_eq!(site.get("/a?sv=1&sig=two", &[]).await.text(), "secret");
        assert_eq!(site.server.requests().len(), 2, "a proof is remembered");
    }
    let denied = site.get("/a?sv=1&sig=bad", &[]).await;
    assert_eq!(denied.status, 403);
    assert!(!denied.text().contains("secret") && !denied.text().contains("sig"));
    let unproven = site.get("/a?sv=1&sig=busy", &[AGENT]).await;
    assert_eq!((unproven.status, unproven.text()), (503, ""), "no proof is no refusal");
}

#[tokio::test]
async fn without_an_origin_there_is_no_proof() {
    let site = Site::new(|n, _| match n {
        0 => vec![answer("200 OK", &[TAG, FRESH], b"secret")],
        _ => vec![Step::Cut],
    })
    .await;
    site.fill("/a?sv=1&sig=one").await;
    let unproven = site.get("/a?sv=1&sig=two", &[]).await;
    assert_eq!((unproven.status, unproven.text()), (503, ""));
    assert_eq!(site.get("/a?sv=1&sig=one", &[]).await.text(), "secret");
}
