//! Answers that end early, late, wrongly or never, and sources that are known to be down.

use super::*;

/// Reads the body of the only answer of a server that then does as told.
async fn body_of(act: Act) -> (Framing, String, Option<BodyError>, bool) {
    let server = Server::always(vec![act]).await;
    let upstream = upstream();
    let mut response = fetch(&upstream, get(server.origin(), "/")).await.unwrap();
    let (text, fault) = read(&mut response.body).await;
    assert_eq!(upstream.inner.pool.len(), 0);
    (response.framing, text, fault, response.body.ended_by_close())
}

#[tokio::test]
async fn cut_bodies_are_never_clean_ends() {
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
    let (framing, text, fault, _) = body_of(Act::SendAndClose(length.into())).await;
    assert_eq!((framing, text.as_str(), fault), (Framing::Length(10), "abc", Some(BodyError::Cut { received: 3 })));

    let huge = "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\nabc";
    let (_, _, fault, _) = body_of(Act::SendAndClose(huge.into())).await;
    assert_eq!(fault, Some(BodyError::Cut { received: 3 }));

    for chunked in ["3\r\nabc\r\n", "3\r\nabc", "3\r\nabc\r\n0\r\n"] {
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}");
        let (framing, text, fault, _) = body_of(Act::SendAndClose(answer)).await;
        assert_eq!((framing, text.as_str()), (Framing::Chunked, "abc"), "{chunked:?}");
        assert_eq!(fault, Some(BodyError::Cut { received: 3 }), "{chunked:?}");
    }

    for chunked in ["3\r\nabc\r\nnonsense\r\n", "3\r\nabc\r\nfffffffffffffffff\r\n", "3\r\nabcdef\r\n"] {
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}");
        let (_, text, fault, _) = body_of(Act::SendAndHang(answer)).await;
        assert_eq!(text, "abc");
        assert_eq!(fault, Some(BodyError::Malformed { received: 3 }), "{chunked:?}");
    }
}

#[tokio::test]
async fn the_end_of_a_connection_is_an_end_that_proves_nothing() {
    for head in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 200 OK\r\nServer: old\r\n\r\n"] {
        let (framing, text, fault, by_close) = body_of(Act::SendAndClose(format!("{head}abc"))).await;
        assert_eq!((framing, text.as_str(), fault, by_close), (Framing::UntilClose, "abc", None, true));
    }
}

#[tokio::test]
async fn answers_that_two_readers_could_understand_differently_are_refused() {
    for (head, fault) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", Some(AnswerFault::Length)),
        ("HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc", Some(AnswerFault::Length)),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Some(AnswerFault::TransferEncoding)),
        ("HTTP/1.1 099 OK\r\n\r\n", Some(AnswerFault::Status)),
        ("HTTP/1.1 600 OK\r\n\r\n", Some(AnswerFault::Status)),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Some(AnswerFault::TransferEncoding)),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: cow\r\n\r\nabc", Some(AnswerFault::TransferEncoding)),
        ("HTTP/1.1 206 Partial\r\nContent-Length: 3\r\n\r\nabc", Some(AnswerFault::ContentRange)),
        (
            "HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-3/9\r\nContent-Length: 3\r\n\r\nabc",
            Some(AnswerFault::ContentRange),
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            Some(AnswerFault::UnaskedUpgrade),
        ),
        ("HELLO\r\n\r\n", Some(AnswerFault::Unparsable)),
        ("HTTP/1.1 200 OK\r\nBad Field\u{1}: x\r\n\r\n", Some(AnswerFault::Unparsable)),
        ("HTTP/3.0 200 OK\r\n\r\n", Some(AnswerFault::Unparsable)),
    ] {
        let server = Server::always(vec![Act::SendAndHang(head.into())]).await;
        let error = fetch(&upstream(), get(server.origin(), "/")).await.unwrap_err();
        let FetchError::BadAnswer { fault: got, .. } = error else { panic!("{head:?}: {error}") };
        assert!(fault.is_none_or(|fault| fault == got), "{head:?}: {got}");
    }
}

#[tokio::test]
async fn a_part_says_which_part_it_is() {
    let answer = "HTTP/1.1 206 Partial\r\nContent-Range: bytes 2-4/9\r\nContent-Length: 3\r\n\r\ncde";
    let server = Server::always(vec![
        Act::Send(answer.into()),
        Act::Send("HTTP/1.1 416 No\r\nContent-Range: bytes */9\r\nContent-Length: 0\r\n\r\n".into()),
    ])
    .await;
    let upstream = upstream();
    let mut response = fetch(&upstream, get(server.origin(), "/")).await.unwrap();
    assert_eq!(response.content_range, Some(ContentRange { first: 2, last: 4, total: Some(9) }));
    assert!(response.headers.is_empty());
    assert_eq!(read(&mut response.body).await.0, "cde");
    let response = fetch(&upstream, get(server.origin(), "/")).await.unwrap();
    assert_eq!((response.content_range, response.unsatisfied_total), (None, Some(9)));
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
    let server = Server::always(vec![Act::SendAndHang(answer.into())]).await;
    let mut settings = patient();
    settings.timeouts.stall = Duration::from_millis(30);
    let upstream = upstream_with(settings, Names::default(), Roots::System);
    let mut response = fetch(&upstream, get(server.origin(), "/")).await.unwrap();
    let (text, fault) = read(&mut response.body).await;
    assert_eq!((text.as_str(), fault), ("abc", Some(BodyError::Stalled { received: 3 })));
}

#[tokio::test]
async fn a_body_whose_first_byte_does_not_come_is_given_up() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
    let server = Server::always(vec![Act::SendAndHang(answer.into())]).await;
    let mut settings = patient();
    settings.timeouts.first_byte = Duration::from_secs(1);
    let upstream = upstream_with(settings, Names::default(), Roots::System);
    let mut response = fetch(&upstream, get(server.origin(), "/")).await.unwrap();
    assert_eq!(read(&mut response.body).await.1, Some(BodyError::Stalled { received: 0 }));
}

#[tokio::test]
async fn a_head_that_does_not_come_is_given_up() {
    for begin in ["", "HTTP/1.1 200 OK\r\nContent-", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let server = Server::always(vec![Act::SendAndHang(begin.into())]).await;
        let mut settings = patient();
        settings.timeouts.first_byte = Duration::from_millis(30);
        let upstream = upstream_with(settings, Names::default(), Roots::System);
        let timeout = FetchError::Timeout { host: "127.0.0.1".into(), phase: Phase::FirstByte };
        for _ in 0..3 {
            assert_eq!(fetch(&upstream, get(server.origin(), "/")).await.unwrap_err(), timeout);
        }
        let error = fetch(&upstream, get(server.origin(), "/")).await.unwrap_err();
        assert!(matches!(error, FetchError::KnownDown { .. }), "{error}");
        assert_eq!(server.connections(), 3);
        assert_eq!(upstream.inner.metrics.upstream_requests.with_label_values(&["timeout"]).get(), 3);
    }
}

#[tokio::test]
async fn a_deadline_that_is_near_is_no_fault_of_the_source() {
    let server = Server::always(vec![Act::SendAndHang(String::new())]).await;
    let upstream = upstream();
    for _ in 0..5 {
        let mut request = get(server.origin(), "/");
        request.deadline = Instant::now() + Duration::from_millis(10);
        let error = fetch(&upstream, request).await.unwrap_err();
        assert!(matches!(error, FetchError::Timeout { .. }), "{error}");
    }
    assert!(upstream.down_sources().is_empty());
}

#[tokio::test]
async fn a_source_that_cannot_be_reached_is_soon_known_to_be_down() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let closed = Origin { scheme: Scheme::Http, host: "127.0.0.1".into(), port };
    let nowhere = Origin { scheme: Scheme::Http, host: "nowhere.example".into(), port: 80 };
    let upstream = upstream();
    for (origin, word) in [(closed, "connect-failed"), (nowhere, "name-unknown")] {
        for _ in 0..2 {
            assert_eq!(fetch(&upstream, get(origin.clone(), "/")).await.unwrap_err().as_str(), word);
        }
        let error = fetch(&upstream, get(origin.clone(), "/")).await.unwrap_err();
        let FetchError::KnownDown { until, .. } = error else { panic!("{error}") };
        assert!(error.is_passing_fault());
        let down = upstream.down_sources().into_iter().find(|down| down.source.peer == origin).unwrap();
        assert_eq!(down.until, until);
    }
}

#[tokio::test]
async fn without_direct_access_nobody_is_asked() {
    let server = Server::always(vec![Act::Send(ok("x"))]).await;
    let upstream = upstream_with(Settings { direct: false, ..patient() }, Names::default(), Roots::System);
    let error = fetch(&upstream, get(server.origin(), "/")).await.unwrap_err();
    assert_eq!((error.as_str(), error.blame()), ("no-source", Blame::Rules));
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_target_that_cannot_be_written_is_the_request_s_fault() {
    let server = Server::always(vec![Act::Send(ok("x"))]).await;
    let upstream = upstream();
    for target in ["/a b", "/a\r\nX: y", "/\u{0}", "x"] {
        let error = fetch(&upstream, get(server.origin(), target)).await.unwrap_err();
        assert_eq!((error.as_str(), error.blame()), ("invalid-request", Blame::Request), "{target:?}");
    }
    assert!(server.requests().is_empty());
}
