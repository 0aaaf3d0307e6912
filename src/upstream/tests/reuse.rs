//! Connections that are used again, and those that must not be.

use std::io::{Read as _, Write as _};

use http::header::{CONTENT_LENGTH, HeaderValue};

use super::*;

#[tokio::test]
async fn a_connection_is_used_again_after_each_kind_of_complete_answer() {
    let server = Server::always(vec![
        Act::Send(ok("one")),
        Act::Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\nX-Trailer: 1\r\n\r\n".into()),
        Act::Send("HTTP/1.1 204 No Content\r\n\r\n".into()),
        Act::Send("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n".into()),
        Act::Send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into()),
        Act::Send("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n".into()),
        Act::Send(ok("last")),
    ])
    .await;
    let upstream = upstream();
    for (n, (status, framing, expected)) in [
        (200, Framing::Length(3), "one"),
        (200, Framing::Chunked, "two"),
        (204, Framing::Empty, ""),
        (304, Framing::Empty, ""),
        (200, Framing::Length(0), ""),
    ]
    .into_iter()
    .enumerate()
    {
        let mut response = fetch(&upstream, get(server.origin(), &format!("/{n}?x={n}"))).await.unwrap();
        assert_eq!((response.status.as_u16(), response.framing), (status, framing), "{n}");
        assert_eq!(read(&mut response.body).await, (expected.to_owned(), None), "{n}");
        assert!(!response.body.ended_by_close());
        assert!(!response.headers.contains_key(CONTENT_LENGTH));
        assert!(response.request_time <= response.response_time);
    }
    let mut head = get(server.origin(), "/head");
    head.method = Method::HEAD;
    let response = fetch(&upstream, head).await.unwrap();
    assert_eq!((response.framing, response.head_length), (Framing::Empty, Some(12345)));
    drop(response);
    assert_eq!(text(&upstream, get(server.origin(), "/last")).await, "last");
    assert_eq!(server.connections(), 1);
    assert_eq!(upstream.inner.metrics.upstream_bytes.get(), 10);
    assert_eq!(upstream.inner.metrics.upstream_requests.with_label_values(&["2xx"]).get(), 6);
    let first = &server.requests()[0];
    assert!(first.starts_with("get /0?x=0 http/1.1\r\nhost: 127.0.0.1:"), "{first}");
    assert!(first.contains("\r\nvia: 1.1 test-cache\r\n"), "{first}");
    assert!(first.contains("\r\ncdn-loop: test-cache; v=1\r\n"), "{first}");
}

#[tokio::test]
async fn the_length_is_enough_to_know_the_end() {
    let server = Server::always(vec![Act::Send(ok("one")), Act::Send(ok("two"))]).await;
    let upstream = upstream();
    let mut response = fetch(&upstream, get(server.origin(), "/")).await.unwrap();
    assert_eq!(response.body.next().await, Some(Ok(Bytes::from("one"))));
    // Nobody asks for the end; the connection is free all the same, even while the body is held.
    assert_eq!(text(&upstream, get(server.origin(), "/")).await, "two");
    assert_eq!(server.connections(), 1);
    assert_eq!(response.body.received(), 3);
}

#[tokio::test]
async fn what_is_peeked_at_comes_all_the_same() {
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut";
    let server = Server::start(vec![
        vec![Act::Send(ok("one")), Act::Send(ok("")), Act::SendAndClose(cut.to_owned())],
        vec![Act::SendAndHang("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".into())],
    ])
    .await;
    let upstream = upstream();
    let soon = || Instant::now() + Duration::from_secs(20);
    for expected in ["one", ""] {
        let mut response = fetch(&upstream, get(server.origin(), "/")).await.unwrap();
        assert_eq!(response.body.peek(soon()).await, expected);
        assert_eq!(response.body.peek(soon()).await, expected, "as often as one likes");
        assert_eq!(read(&mut response.body).await, (expected.to_owned(), None));
        assert_eq!(response.body.peek(soon()).await, "", "at its end");
    }
    let mut response = fetch(&upstream, get(server.origin(), "/")).await.unwrap();
    assert_eq!((server.connections(), response.body.peek(soon()).await), (1, Bytes::from("cut")));
    assert_eq!(read(&mut response.body).await, ("cut".to_owned(), Some(BodyError::Cut { received: 3 })));
    let mut response = fetch(&upstream, get(server.origin(), "/")).await.unwrap();
    assert_eq!(response.body.peek(Instant::now() + Duration::from_millis(1)).await, "", "nothing has come by then");
    assert_eq!(upstream.inner.metrics.upstream_bytes.get(), 6);
}

#[tokio::test]
async fn an_unread_body_closes_its_connection() {
    let answer = Act::SendAndHang("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nabc".into());
    let server = Server::start(vec![vec![answer], vec![Act::Send(ok("fresh"))]]).await;
    let upstream = upstream();
    drop(fetch(&upstream, get(server.origin(), "/")).await.unwrap());
    assert_eq!(text(&upstream, get(server.origin(), "/")).await, "fresh");
    assert_eq!((server.connections(), upstream.inner.pool.len()), (2, 1));
}

#[tokio::test]
async fn a_pooled_connection_that_died_is_replaced_without_telling_anyone() {
    // The first connection takes the second request and closes without a word.
    let server =
        Server::start(vec![vec![Act::Send(ok("one")), Act::SendAndClose(String::new())], vec![Act::Send(ok("two"))]])
            .await;
    let upstream = upstream();
    assert_eq!(text(&upstream, get(server.origin(), "/")).await, "one");
    assert_eq!(text(&upstream, get(server.origin(), "/")).await, "two");
    assert_eq!((server.connections(), server.requests().len()), (2, 3));
}

#[tokio::test]
async fn only_once_and_only_on_a_pooled_connection() {
    let server = Server::start(vec![
        vec![Act::Send(ok("one")), Act::SendAndClose(String::new())],
        vec![Act::SendAndClose(String::new())],
    ])
    .await;
    let upstream = upstream();
    assert_eq!(text(&upstream, get(server.origin(), "/")).await, "one");
    let error = fetch(&upstream, get(server.origin(), "/")).await.unwrap_err();
    assert_eq!(error, FetchError::Disconnected { host: "127.0.0.1".into() });
    assert!(error.is_passing_fault());
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn an_unsafe_method_gets_a_fresh_connection_and_one_try() {
    let server = Server::start(vec![
        vec![Act::Send(ok("one"))],
        vec![Act::Send(ok("posted"))],
        vec![Act::SendAndClose(String::new())],
    ])
    .await;
    let upstream = upstream();
    assert_eq!(text(&upstream, get(server.origin(), "/")).await, "one");
    let post = |body| {
        let mut request = get(server.origin(), "/post");
        request.method = Method::POST;
        request.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("77"));
        request.body = body;
        request
    };
    assert_eq!(text(&upstream, post(Some(RequestBody::Bytes(Bytes::from_static(b""))))).await, "posted");
    let error = fetch(&upstream, post(None)).await.unwrap_err();
    assert_eq!(error.as_str(), "disconnected");
    assert_eq!(server.connections(), 3);
    for request in &server.requests()[1..] {
        assert!(request.starts_with("post /post") && request.contains("\r\ncontent-length: 0\r\n"), "{request}");
        assert!(!request.contains(": 77"), "{request}");
    }
}

#[tokio::test]
async fn an_answer_that_says_close_is_not_followed_by_another() {
    let answer = "HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\nContent-Length: 3\r\n\r\nabc";
    let server = Server::always(vec![Act::Send(answer.into()), Act::Send(ok("never"))]).await;
    let upstream = upstream();
    for n in 1..=2 {
        let mut response = fetch(&upstream, get(server.origin(), "/")).await.unwrap();
        assert_eq!(read(&mut response.body).await, ("abc".to_owned(), None));
        assert_eq!(response.headers.len(), 1);
        assert_eq!(response.headers["x-end"], "2");
        assert_eq!(server.connections(), n);
    }
}

#[tokio::test]
async fn bytes_beyond_an_answer_are_never_the_next_one() {
    let smuggled = format!("{}{}", ok("one"), ok("smuggled"));
    let server = Server::start(vec![vec![Act::Send(smuggled)], vec![Act::Send(ok("two"))]]).await;
    let upstream = upstream();
    assert_eq!(text(&upstream, get(server.origin(), "/")).await, "one");
    assert_eq!(text(&upstream, get(server.origin(), "/")).await, "two");
}

/// The runtime learns of what has come only when it has nothing else to do, and sends what it is told to before that.
#[tokio::test]
async fn an_answer_that_came_before_its_request_is_not_taken_for_it() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = Origin { scheme: Scheme::Http, host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
    let (late, is_late) = std::sync::mpsc::channel::<()>();
    let (written, is_written) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut first, _) = listener.accept().unwrap();
        answer(&mut first, &ok("one"));
        is_late.recv().unwrap();
        first.write_all(ok("smuggled").as_bytes()).unwrap();
        written.send(()).unwrap();
        answer(&mut listener.accept().unwrap().0, &ok("two"));
    });
    let upstream = upstream();
    assert_eq!(text(&upstream, get(origin.clone(), "/1")).await, "one");
    // The connection gets to where it waits for a request.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    late.send(()).unwrap();
    // Nothing else runs meanwhile.
    is_written.recv().unwrap();
    assert_eq!(text(&upstream, get(origin, "/2")).await, "two");
}

/// Reads a head and answers.
fn answer(stream: &mut std::net::TcpStream, text: &str) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    stream.write_all(text.as_bytes()).unwrap();
}

#[tokio::test]
async fn the_pool_is_bounded() {
    let server = Server::always(vec![Act::Send(ok("x"))]).await;
    let upstream = upstream();
    let mut bodies = Vec::new();
    for _ in 0..12 {
        // The head is here, the last byte is not asked for yet: each needs a connection of its own.
        bodies.push(fetch(&upstream, get(server.origin(), "/")).await.unwrap().body);
    }
    assert_eq!(server.connections(), 12);
    for body in &mut bodies {
        assert_eq!(read(body).await.0, "x");
    }
    assert!(upstream.inner.pool.len() <= 8);
}
