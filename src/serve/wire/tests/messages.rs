//! Requests in any pieces: order, pipelining, bodies, refusals between good ones.

use proptest::prelude::*;

use super::*;

/// Requests of every framing, and the body of the answer to each.
fn conversation() -> (Vec<u8>, Vec<String>) {
    let mut bytes = Vec::new();
    let mut answers = Vec::new();
    for number in 0..3 {
        bytes.extend(format!("GET /a{number}?q HTTP/1.1\r\nHost: a\r\n\r\n").bytes());
        answers.push(format!("GET /a{number}?q "));
        bytes.extend(format!("POST /b{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\r\n").bytes());
        answers.push(format!("POST /b{number} hello"));
        let chunked = "Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: u\r\n\r\n";
        bytes.extend(format!("POST /c{number} HTTP/1.1\r\nHost: a\r\n{chunked}").bytes());
        answers.push(format!("POST /c{number} abcde"));
    }
    (bytes, answers)
}

async fn converse(rig: &Rig, pieces: &[&[u8]], answers: &[String]) {
    let mut client = rig.connect().await;
    for piece in pieces {
        client.send(piece).await;
        // Lets the server's task see this piece alone, mostly.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
    }
    for answer in answers {
        assert_eq!(client.response().await.1, *answer);
    }
}

#[tokio::test]
async fn twenty_requests_in_one_write_are_answered_in_order() {
    let rig = Rig::new(limits()).await;
    let mut client = rig.connect().await;
    let requests: String = (0..20).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(requests).await;
    for number in 0..20 {
        let (head, body) = client.response().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert_eq!(body, format!("GET /{number} "));
    }
    assert_eq!(client.get("/after").await.1, "GET /after ");
}

#[tokio::test]
async fn a_conversation_may_be_split_at_every_byte() {
    let rig = Rig::new(limits()).await;
    let (bytes, answers) = conversation();
    for cut in 0..bytes.len() {
        converse(&rig, &[&bytes[..cut], &bytes[cut..]], &answers).await;
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    converse(&rig, &single, &answers).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_conversation_may_be_split_anyhow(sizes in proptest::collection::vec(1_usize..90, 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let rig = Rig::parking(limits(), Duration::from_millis(1)).await;
            let (bytes, answers) = conversation();
            let mut rest = &bytes[..];
            let mut pieces = Vec::new();
            for size in sizes {
                let (piece, after) = rest.split_at(size.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            converse(&rig, &pieces, &answers).await;
        });
    }
}

#[tokio::test]
async fn a_refused_head_is_answered_after_the_good_ones_before_it() {
    let rig = Rig::new(limits()).await;
    let mut client = rig.connect().await;
    let good = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send(format!("{good}{good}{good}GET /x HTTP/1.1\nHost: a\n\n{good}")).await;
    for _ in 0..3 {
        assert_eq!(client.response().await.1, "GET /x ");
    }
    let (head, body) = client.response().await;
    assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n") && head.contains("\r\nConnection: close\r\n"), "{head}");
    assert_eq!(body, "a line of the request head ends in LF without CR\n");
    client.end().await;
    assert_eq!(rig.refused("bare-lf"), 1);
}

#[tokio::test]
async fn a_refused_head_does_not_disturb_the_answer_before_it() {
    let mut rig = Rig::new(limits()).await;
    let mut client = rig.connect().await;
    client.send("GET /stalled HTTP/1.1\r\nHost: a\r\n\r\nbroken\r\n\r\n").await;
    let head = client.head().await;
    assert!(head.contains("\r\nTransfer-Encoding: chunked\r\n"), "{head}");
    assert_eq!(rig.refused("target"), 0);
    assert!(rig.dropped.try_recv().is_err());
    drop(client);
    rig.dropped().await;
}

#[tokio::test]
async fn every_refusal_reaches_the_client() {
    let rig = Rig::new(Limits { header_bytes: 20_000, ..limits() }).await;
    let long = "x".repeat(30_000);
    for (request, status, reason) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), "414", "target-too-long"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), "431", "head-too-large"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "505", "version-unsupported"),
        ("\u{16}\u{3}\u{1}".to_owned(), "400", "tls"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(), "501", "transfer-coding-unknown"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            "400",
            "length-and-encoding",
        ),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "400", "host-missing"),
    ] {
        let mut client = rig.connect().await;
        client.send(request).await;
        let (head, _) = client.response().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{reason}: {head}");
        client.end().await;
        assert_eq!(rig.refused(reason), 1, "{reason}");
    }
}

#[tokio::test]
async fn header_names_are_spelled_as_the_delivery_optimization_agent_looks_them_up() {
    let rig = Rig::new(limits()).await;
    let (head, _) = rig.connect().await.get("/x").await;
    assert!(head.contains("\r\nContent-Length: ") && head.contains("\r\nDate: "), "{head}");
}

#[tokio::test]
async fn http_1_0_closes_unless_asked_to_keep_alive() {
    let rig = Rig::new(limits()).await;
    let mut client = rig.connect().await;
    client.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    let (head, body) = client.response().await;
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n") && head.contains("\r\nConnection: keep-alive\r\n"), "{head}");
    assert_eq!(body, "GET /a ");
    client.send("GET /b HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.response().await.1, "GET /b ");
    client.end().await;
}

#[tokio::test]
async fn a_body_that_the_service_does_not_read_is_not_taken_for_a_request() {
    let rig = Rig::new(limits()).await;
    let mut client = rig.connect().await;
    client.send("POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
    assert_eq!(client.response().await.1, "unread");
    assert_eq!(client.get("/next").await.1, "GET /next ");

    let body = "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n".repeat(4000);
    let head = format!("POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    client.send(head + &body).await;
    assert_eq!(client.response().await.1, "unread");
    client.end().await;
}

#[tokio::test]
async fn a_client_may_wait_for_100_continue() {
    let rig = Rig::new(limits()).await;
    let mut client = rig.connect().await;
    client.send("PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello").await;
    assert_eq!(client.response().await.1, "PUT /x hello");
    assert_eq!(client.get("/next").await.1, "GET /next ");
}

#[tokio::test]
async fn faulty_chunks_never_look_like_a_whole_body() {
    let rig = Rig::new(limits()).await;
    let mut client = rig.connect().await;
    client
        .send("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\nde\r\n0\r\n\r\n")
        .await;
    let (_, body) = client.response().await;
    assert!(body.starts_with("POST /x error: "), "{body}");
    client.end().await;
    assert_eq!(rig.refused("chunk"), 1);
}

#[tokio::test]
async fn a_request_knows_its_client() {
    let rig = Rig::new(limits()).await;
    let mut client = rig.connect().await;
    let own = client.stream.local_addr().unwrap();
    assert_eq!(client.get("/peer").await.1, own.to_string());
}
