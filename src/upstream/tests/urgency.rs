//! What a parent is told of how urgent a request is, and what its silence says of it then.

use super::*;

/// Asks a parent that falls silent in mid-body, several times: what it was told, whether it counts as down, and how many of its
/// bodies count as faults.
async fn asked_silent(urgency: Urgency, kind: ParentKind) -> (bool, usize, u64) {
    let begin = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello".to_owned();
    let server = Server::always(vec![Act::SendAndHang(begin)]).await;
    let parent = Parent {
        origin: server.origin(),
        kind,
        credentials: None,
        tls_name: None,
        proxy: None,
        trusted: false,
        rate: None,
    };
    let upstream = upstream_with(Settings { parents: vec![parent], ..patient() }, Names::default(), Roots::System);
    for _ in 0..3 {
        let origin = Origin { scheme: Scheme::Http, host: "dl.example.com".into(), port: 80 };
        let request = FetchRequest { standing: Standing::new(urgency), ..get(origin, "/x") };
        let mut response = fetch(&upstream, request).await.unwrap();
        response.body.can_be_resumed(Duration::from_millis(20));
        assert_eq!(read(&mut response.body).await, ("hello".to_owned(), Some(BodyError::Stalled { received: 5 })));
    }
    let told = server.requests().iter().all(|request| request.contains("\r\npriority: u="));
    let faults = upstream.inner.metrics.upstream_faults.with_label_values(&["stalled"]).get();
    (told, upstream.down_sources().len(), faults)
}

#[tokio::test]
async fn a_parent_that_was_told_to_serve_others_first_may_be_silent() {
    for urgency in [Urgency::Ahead, Urgency::Background] {
        assert_eq!(asked_silent(urgency, ParentKind::ConnectedCache).await, (true, 0, 0), "{urgency:?}");
    }
    assert_eq!(asked_silent(Urgency::Awaited, ParentKind::ConnectedCache).await, (false, 1, 3));
    assert_eq!(asked_silent(Urgency::Ahead, ParentKind::ForwardProxy).await, (false, 1, 3));
}
