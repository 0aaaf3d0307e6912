//! Sources that could not be reached and come back, and not always well.

use tokio::task::JoinSet;

use super::tls::{Authority, secure_at};
use super::*;

/// An address that nobody listens at, and that no other test takes.
fn away(host: u8) -> SocketAddr {
    let listener = std::net::TcpListener::bind(("127.81.0.".to_owned() + &host.to_string(), 0)).unwrap();
    listener.local_addr().unwrap()
}

/// Limits within which a source is looked for often.
fn settings() -> Settings {
    let timeouts = Timeouts { connect: Duration::from_secs(1), ..patient().timeouts };
    Settings { timeouts, ..Settings::default() }
}

async fn is_known_to_be_down(upstream: &Upstream, request: impl Fn() -> FetchRequest) {
    for _ in 0..2 {
        fetch(upstream, request()).await.unwrap_err();
    }
    assert_eq!(fetch(upstream, request()).await.unwrap_err().as_str(), "known-down");
}

/// Asks whenever there is a chance until somebody has said something.
async fn told(upstream: Upstream, request: FetchRequest, limit: Instant) -> FetchError {
    let mut comebacks = upstream.comebacks();
    loop {
        let again = FetchRequest {
            origin: request.origin.clone(),
            policy: Arc::clone(&request.policy),
            ..get(request.origin.clone(), &request.target)
        };
        match fetch(&upstream, again).await.unwrap_err() {
            FetchError::KnownDown { until, .. } => {
                assert!(Instant::now() < limit, "nobody says why");
                let _ = tokio::time::timeout_at(Instant::from_std(until), comebacks.changed()).await;
            }
            error => return error,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_and_refuses_the_password_is_shown_it_once_and_not_by_all_who_wait() {
    let address = away(1);
    let credentials = Credentials::basic("line7", "wrong").unwrap();
    let proxy = Proxy { host: address.ip().to_string().into(), port: address.port(), credentials: Some(credentials) };
    let mut settings = settings();
    settings.proxies.https = Some(Arc::new(proxy));
    let upstream = upstream_with(settings, Names::default(), Roots::System);
    let origin = Origin { scheme: Scheme::Https, host: "dl.example".into(), port: 443 };
    is_known_to_be_down(&upstream, || get(origin.clone(), "/x")).await;
    let limit = Instant::now() + Duration::from_secs(30);
    let mut waiting = JoinSet::new();
    for _ in 0..40 {
        let (upstream, request, mut comebacks) = (upstream.clone(), get(origin.clone(), "/x"), upstream.comebacks());
        waiting.spawn(async move {
            comebacks.changed().await.unwrap();
            fetch(&upstream, request).await.unwrap_err()
        });
    }
    let listener = TcpListener::bind(address).await.unwrap();
    let no = "HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n".to_owned();
    let proxy = Server::on(listener, vec![vec![Act::SendAndClose(no)]]);
    while let Some(error) = waiting.join_next().await {
        assert!(Instant::now() < limit);
        assert!(["known-down", "proxy-failed"].contains(&error.unwrap().as_str()));
    }
    // Who looks, in attempts that may overlap, and the one that learns why.
    assert!(proxy.connections() <= 4, "{} times", proxy.connections());
    let down = upstream.down_sources();
    assert!(down[0].refusal.as_ref().unwrap().contains("407"), "{down:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_with_a_certificate_that_is_over_is_said_to() {
    let (address, authority) = (away(2), Authority::new("ca"));
    let upstream = upstream_with(settings(), Names::default(), authority.roots());
    is_known_to_be_down(&upstream, || secure_at(address)).await;
    let listener = TcpListener::bind(address).await.unwrap();
    let _server = authority.server_on(listener, "dl.example", 2000..2001, vec![Act::Send(ok("never"))]);
    let error = told(upstream.clone(), secure_at(address), Instant::now() + Duration::from_secs(30)).await;
    assert!(matches!(error, FetchError::TlsFailed { fault: TlsFault::Expired, .. }), "{error}");
    let down = upstream.down_sources();
    assert!(down[0].refusal.as_ref().unwrap().contains("expired"), "{down:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_and_does_not_speak_tls_is_said_to() {
    let (address, authority) = (away(3), Authority::new("ca"));
    let upstream = upstream_with(settings(), Names::default(), authority.roots());
    is_known_to_be_down(&upstream, || secure_at(address)).await;
    let listener = TcpListener::bind(address).await.unwrap();
    let mut server = JoinSet::new();
    server.spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.write_all(b"HTTP/1.1 400 This is the plain port\r\n\r\n").await;
            let _ = connection.read(&mut [0; 1024]).await;
        }
    });
    let error = told(upstream.clone(), secure_at(address), Instant::now() + Duration::from_secs(30)).await;
    assert!(matches!(error, FetchError::TlsFailed { fault: TlsFault::Protocol(_), .. }), "{error}");
    assert!(upstream.down_sources()[0].refusal.is_some());
}
