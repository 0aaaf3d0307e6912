//! Bodies in whose middle the budget closes.

use super::*;

/// A body in chunks of which the budget closes behind the first: what it comes to when `rest` is sent then.
async fn closed_in_the_middle(rest: &str) -> (Option<Result<Bytes, BodyError>>, usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let upstream = upstream();
    let asked = tokio::spawn({
        let upstream = upstream.clone();
        async move { fetch(&upstream, get(Origin { scheme: Scheme::Http, host: "127.0.0.1".into(), port }, "/")).await }
    });
    let mut stream = listener.accept().await.unwrap().0;
    let begin = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    stream.write_all(begin.as_bytes()).await.unwrap();
    let mut body = asked.await.unwrap().unwrap().body;
    body.can_be_resumed(Duration::from_secs(30));
    assert_eq!(body.next().await.unwrap().unwrap(), "hello");
    let calendar = Calendar { limit: Limit::Closed, ..Calendar::default() };
    upstream.set_budget(BudgetSettings { calendar, ..BudgetSettings::default() });
    // One that is asked once and given up has lost nothing.
    assert!(futures_util::FutureExt::now_or_never(body.next()).is_none());
    stream.write_all(rest.as_bytes()).await.unwrap();
    let end = body.next().await;
    (end, upstream.down_sources().len())
}

#[tokio::test]
async fn the_mark_of_the_end_is_read_although_the_budget_is_closed() {
    assert_eq!(closed_in_the_middle("0\r\n\r\n").await, (None, 0));
    assert_eq!(closed_in_the_middle("0\r\nX-Sum: 1\r\n\r\n").await, (None, 0));
}

#[tokio::test]
async fn more_bytes_are_not() {
    for rest in ["6\r\n world\r\n0\r\n\r\n", ""] {
        let cut = BodyError::OverBudget { received: 5 };
        assert_eq!(closed_in_the_middle(rest).await, (Some(Err(cut)), 0), "{rest:?}");
    }
}
