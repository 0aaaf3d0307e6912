//! Connections that are refused for what stands in front of them.

use tokio::io::AsyncReadExt;

use super::*;

/// What comes back on a connection on which `bytes` are all that is sent; its end is not said.
async fn all(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = relayed(address, bytes).await.into_stream().0;
    let mut got = Vec::new();
    // A reset may come behind the answer.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut got)).await.unwrap();
    String::from_utf8(got).unwrap()
}

#[tokio::test]
async fn what_is_no_header_is_refused_with_a_reason() {
    let (authority, pattern) = (Authority::new("site"), Pattern::new(940, 500));
    let origin = FakeOrigin::with("/f", Reply::file(pattern)).await;
    let node = setup(&authority, &origin).start();
    let text = get(TARGET, &[]);
    let missing = "connections of this proxy must begin with a PROXY protocol header, version 2";
    let with = |version, family, length: usize| header(version, family, &vec![1; length]);
    for (round, (bytes, reason, words)) in [
        (text.as_bytes().to_vec(), "proxy-header-missing", missing),
        (b"G".to_vec(), "proxy-header-missing", missing),
        (b"PROXY TCP4 10.1.2.3 10.0.0.1 1 80\r\nGET / HTTP/1.1\r\n".to_vec(), "proxy-header-missing", missing),
        (b"\r\n\r\nGET /".to_vec(), "proxy-header-missing", missing),
        (with(0x11, 0x11, 12), "proxy-header-malformed", "malformed"),
        (with(0x22, 0x11, 12), "proxy-header-malformed", "malformed"),
        (with(0x21, 0x51, 12), "proxy-header-malformed", "malformed"),
        (with(0x21, 0x11, 11), "proxy-header-malformed", "malformed"),
        (with(0x21, 0x21, 35), "proxy-header-malformed", "malformed"),
        (with(0x21, 0x11, 4081), "proxy-header-too-long", "too long"),
        (with(0x20, 0, 65_535), "proxy-header-too-long", "too long"),
        (with(0x21, 0x11, 65_535)[..16].to_vec(), "proxy-header-too-long", "too long"),
    ]
    .into_iter()
    .enumerate()
    {
        let before = node.metric(BAD, reason).await;
        let answer = all(node.data, &bytes).await;
        // Where more has come than was read the answer may be lost with the reset.
        let lost = answer.is_empty() && bytes.len() > 4096;
        assert!(lost || answer.starts_with("HTTP/1.1 400 ") && answer.contains(words), "{round}: {answer}");
        counted(&node, BAD, reason, before as u32 + 1).await;
    }
    logged(&node, 4, &["\"client\":\"127.0.0.1\"", "\"status\":400", "\"reason\":\"proxy-header-missing\""]).await;
    // Under TLS nothing can be said before the handshake, which comes behind the header.
    let caller = Caller::new(&authority);
    assert!(caller.connect(node.tls.unwrap()).await.is_err());
    counted(&node, BAD, "proxy-header-missing", 5).await;
    assert_eq!(all(node.tls.unwrap(), &with(0x21, 0xff, 0)).await, "");
    assert_eq!(origin.requests(), 0);
    assert_eq!(ask(node.data, &of("10.1.2.3", &[]), &[]).await.head.status, 200);
}

#[tokio::test]
async fn a_header_of_a_stranger_is_never_believed() {
    let (authority, pattern) = (Authority::new("site"), Pattern::new(941, 500));
    let origin = FakeOrigin::with("/f", Reply::file(pattern)).await;
    let with_proxies = setup(&authority, &origin);
    let off = setup(&authority, &origin).set("listen.proxy_protocol", json!("none"));
    for (setup, device) in [(with_proxies, Some(1)), (off, None)] {
        let node = setup.start();
        let open = async |address| match device {
            Some(device) => connect_as(device, address).await.unwrap(),
            None => TcpStream::connect(address).await.unwrap(),
        };
        let mut stranger = Connection::over(open(node.data).await);
        stranger.try_send(&[&of("10.1.2.3", &[])[..], get(TARGET, &[]).as_bytes()].concat()).await.unwrap();
        let answer = stranger.answer(false).await;
        assert_eq!((answer.head.status, answer.head.exact("Connection")), (400, Some("close")), "{}", answer.head.raw);
        assert!(String::from_utf8_lossy(&answer.body).contains("is not taken from this address"), "{answer:?}");
        counted(&node, BAD, "proxy-header-unexpected", 1).await;
        logged(&node, 1, &["\"status\":400", "\"reason\":\"proxy-header-unexpected\""]).await;

        let mut stranger = open(node.tls.unwrap()).await;
        stranger.write_all(&of("10.1.2.3", &[])).await.unwrap();
        assert!(Caller::new(&authority).asks_on(stranger, &get(TARGET, &[])).await.is_err());
        counted(&node, "waystation_tls_handshake_failures_total", "proxy-header", 1).await;
        assert!(!node.said().contains("10.1.2.3"));
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn headers_that_end_early_or_never_come_hold_nothing_up() {
    let (authority, pattern) = (Authority::new("site"), Pattern::new(942, 500));
    let origin = FakeOrigin::with("/f", Reply::file(pattern)).await;
    let node = setup(&authority, &origin).set("limits.header_time", json!("2s")).start();
    let whole = of("10.1.2.3", &[7; 40]);
    let ports = [node.data, node.tls.unwrap()];
    let mut stalled = Vec::new();
    for port in ports {
        for sent in [0, 5, 16, 50] {
            stalled.push(relayed(port, &whole[..sent]).await);
        }
        for sent in [1, 12, 16, 40, 67] {
            let mut stream = relayed(port, &whole[..sent]).await.into_stream().0;
            stream.shutdown().await.unwrap();
            let mut got = Vec::new();
            tokio::time::timeout(PATIENCE, stream.read_to_end(&mut got)).await.unwrap().unwrap();
            assert_eq!(got.is_empty(), port != node.data, "{}", got.escape_ascii());
        }
        // A look whether the port is open is no fault.
        drop(TcpStream::connect(port).await.unwrap());
    }
    counted(&node, BAD, "proxy-header-cut", 10).await;
    for mut connection in stalled {
        match connection.try_head().await {
            Ok(head) => assert_eq!(head.status, 408, "{}", head.raw),
            Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::TimedOut, "{error}"),
        }
    }
    counted(&node, BAD, "proxy-header-timeout", 8).await;
    assert_eq!(node.metric(BAD, "").await, 18.0);
    assert_eq!(ask(node.data, &of("10.1.2.3", &[]), &[]).await.head.status, 200);
}

#[tokio::test]
async fn while_draining_relayed_clients_get_503_on_both_ports() {
    let (authority, pattern) = (Authority::new("site"), Pattern::new(943, 500));
    let gate = super::super::rig::origin_reply::Gate::shut();
    let origin = FakeOrigin::with("/f", Reply::file(pattern).hold_at(100, &gate)).await;
    let mut node = setup(&authority, &origin).set("drain_grace", json!("60s")).start();
    let text = get(TARGET, &[]);
    let mut busy = relayed(node.data, &[&of("10.1.2.3", &[])[..], text.as_bytes()].concat()).await;
    origin.wait_for_requests(1).await;
    node.signal(rustix::process::Signal::TERM);
    assert!(node.says("draining"));
    let refused = ask(node.data, &of("10.1.2.3", &[]), &[]).await;
    assert_eq!((refused.head.status, refused.head.exact("Connection")), (503, Some("close")), "{}", refused.head.raw);
    let mut stream = TcpStream::connect(node.tls.unwrap()).await.unwrap();
    stream.write_all(&of("10.1.2.3", &[])).await.unwrap();
    assert_eq!(Caller::new(&authority).asks_on(stream, &text).await.unwrap(), 503);
    gate.open();
    assert!(busy.answer(false).await.body == pattern.bytes());
    assert_eq!(node.exit().await.code(), Some(0));
}
