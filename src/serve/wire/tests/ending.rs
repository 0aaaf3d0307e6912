//! Clients that leave, answers that break, and the drain.

use super::*;

#[tokio::test]
async fn the_service_is_dropped_when_its_client_leaves() {
    let mut rig = Rig::new(limits()).await;
    for target in ["/silent", "/stalled", "/endless"] {
        let mut client = rig.connect().await;
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        rig.until(|context| context.drain.unfinished() == 1).await;
        client.reset();
        rig.dropped().await;
        rig.until(|context| context.drain.unfinished() == 0 && context.metrics.connections.get() == 0).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_behind_its_pipelined_requests() {
    let mut rig = Rig::new(limits()).await;
    let mut client = rig.connect().await;
    let next = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n".repeat(10);
    client.send(format!("GET /silent HTTP/1.1\r\nHost: a\r\n\r\n{next}")).await;
    rig.until(|context| context.drain.unfinished() == 1).await;
    client.reset();
    rig.dropped().await;
}

#[tokio::test]
async fn a_client_that_has_closed_is_noticed_by_what_it_is_sent() {
    let mut rig = Rig::new(limits()).await;
    let mut client = rig.connect().await;
    client.send("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await;
    rig.until(|context| context.drain.unfinished() == 1).await;
    drop(client);
    rig.dropped().await;
}

#[tokio::test]
async fn a_client_that_closes_its_side_gets_its_answers() {
    let rig = Rig::new(limits()).await;
    for (request, answers) in [
        ("GET /late HTTP/1.1\r\nHost: a\r\n\r\n", vec!["halfhalf"]),
        ("GET /late HTTP/1.0\r\n\r\n", vec!["halfhalf"]),
        ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", vec!["POST /x hi"]),
        (
            "GET /late HTTP/1.1\r\nHost: a\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n\
             GET /late HTTP/1.1\r\nHost: a\r\n\r\n",
            vec!["halfhalf", "GET /x ", "halfhalf"],
        ),
    ] {
        let mut client = rig.connect().await;
        client.send(request).await;
        client.stream.shutdown().await.unwrap();
        for answer in answers {
            assert_eq!(client.response().await.1, answer, "{request}");
        }
        client.end().await;
    }
    rig.until(|context| context.drain.unfinished() == 0 && context.metrics.connections.get() == 0).await;
}

#[tokio::test]
async fn an_answer_that_only_the_close_delimits_is_reset_when_it_breaks() {
    let rig = Rig::new(limits()).await;
    let mut client = rig.connect().await;
    client.send("GET /cut HTTP/1.0\r\n\r\n").await;
    let mut all = Vec::new();
    let read = tokio::time::timeout(NEVER, client.stream.read_to_end(&mut all)).await.unwrap();
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_broken_chunked_answer_has_no_last_chunk() {
    let rig = Rig::new(limits()).await;
    let mut client = rig.connect().await;
    client.send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut all = Vec::new();
    let _ = tokio::time::timeout(NEVER, client.stream.read_to_end(&mut all)).await.unwrap();
    assert!(!all.windows(5).any(|w| w == b"0\r\n\r\n"), "{}", all.escape_ascii());
    assert!(all.ends_with(b"\r\n\r\n5\r\nfirst\r\n"), "what came before it leaves: {}", all.escape_ascii());
}

#[tokio::test]
async fn a_drain_closes_idle_connections_and_lets_answers_end() {
    let rig = Rig::parking(limits(), Duration::from_millis(1)).await;
    let mut parked = rig.connect().await;
    parked.get("/x").await;
    rig.until(|context| context.metrics.connections_parked.get() == 1).await;
    let mut answering = rig.connect().await;
    answering.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel").await;
    rig.until(|context| context.drain.unfinished() == 1).await;
    let mut fresh = rig.connect().await;
    rig.until(|context| context.metrics.connections.get() == 3).await;

    rig.context.drain.start();
    parked.end().await;
    answering.send("lo").await;
    let (head, body) = answering.response().await;
    assert_eq!(body, "POST /x hello");
    assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
    answering.end().await;

    fresh.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (head, body) = fresh.response().await;
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("\r\nConnection: close\r\n"), "{head}");
    assert!(head.contains("\r\nRetry-After: 1\r\n") && body.is_empty(), "{head}");
    fresh.end().await;
    tokio::time::timeout(NEVER, rig.context.drain.finished()).await.unwrap();
}

#[tokio::test]
async fn a_drain_closes_idle_connections_that_are_not_parked_yet() {
    let rig = Rig::new(limits()).await;
    let mut client = rig.connect().await;
    client.get("/x").await;
    rig.context.drain.start();
    client.end().await;
}

#[tokio::test]
async fn who_is_turned_away_is_answered_after_the_request() {
    let rig = Rig::new(limits()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let mut client = Client { stream, read: Vec::new() };
    let (stream, peer) = listener.accept().await.unwrap();
    let context = Arc::clone(&rig.context);
    let turned = tokio::spawn(async move { turn_away(stream, peer, Refusal::ClientNotAllowed, &context).await });
    let (head, body) = client.get("/x").await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    assert_eq!(body, "this client address may not use this port\n");
    client.end().await;
    drop(client);
    turned.await.unwrap();
    assert_eq!(rig.context.metrics.limited.with_label_values(&["clients"]).get(), 1);
    assert_eq!(rig.context.drain.unfinished(), 0);
}
