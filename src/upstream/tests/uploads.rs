//! Request bodies that pass through as they arrive from a client.

use std::convert::Infallible;

use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::*;

/// Forwards one POST from a raw client through `upstream`; gives the client's end and the result.
async fn forward(upstream: Upstream, origin: Origin) -> (TcpStream, oneshot::Receiver<Result<u16, FetchError>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let (done, result) = oneshot::channel();
    let done = Arc::new(Mutex::new(Some(done)));
    tokio::spawn(async move {
        let service = service_fn(move |request: Request<Incoming>| {
            let mut forwarded = get(origin.clone(), request.uri().path());
            forwarded.method = request.method().clone();
            forwarded.headers = request.headers().clone();
            forwarded.body = Some(RequestBody::Stream(request.into_body()));
            let (upstream, done) = (upstream.clone(), done.lock().take().unwrap());
            // A task of its own: it outlives a client that goes.
            let task = tokio::spawn(async move {
                let result = fetch(&upstream, forwarded).await;
                let _ = done.send(result.map(|response| response.status.as_u16()));
            });
            async move {
                let _ = task.await;
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    });
    (client, result)
}

#[tokio::test]
async fn a_body_passes_as_it_comes_and_is_framed_anew() {
    for (head, body, expected) in [
        ("Transfer-Encoding: chunked", "2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n", "transfer-encoding: chunked"),
        ("Content-Length: 9", "hello\r\n\r\n", "content-length: 9"),
    ] {
        // The empty answer waits for the body, whose end looks like that of a head here.
        let server = Server::always(vec![Act::Send(String::new()), Act::Send(ok("done"))]).await;
        let (mut client, result) = forward(upstream(), server.origin()).await;
        let request = format!("POST /up HTTP/1.1\r\nHost: client\r\nX-Forwarded-For: 10.0.0.1\r\n{head}\r\n\r\n{body}");
        client.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(result.await.unwrap(), Ok(200));
        let requests = server.requests();
        assert!(requests[0].starts_with("post /up http/1.1\r\nhost: 127.0.0.1:"), "{}", requests[0]);
        assert!(requests[0].contains(expected) && !requests[0].contains("x-forwarded-for"), "{}", requests[0]);
        assert!(requests[1].contains("he") && requests[1].contains("llo"), "{}", requests[1]);
    }
}

#[tokio::test]
async fn a_body_that_the_client_cuts_is_never_forwarded_as_whole() {
    let server = Server::always(vec![Act::Send(String::new()), Act::Send(ok("never"))]).await;
    let upstream = upstream();
    let (mut client, result) = forward(upstream.clone(), server.origin()).await;
    client
        .write_all(b"POST /up HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        .await
        .unwrap();
    drop(client);
    let error = result.await.unwrap().unwrap_err();
    assert_eq!((error.clone(), error.blame()), (FetchError::RequestBody, Blame::Request));
    assert!(upstream.down_sources().is_empty());
    assert!(server.requests().len() <= 1, "the end of the body was never sent");
}
