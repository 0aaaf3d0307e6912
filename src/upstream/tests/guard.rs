//! Which addresses are connected to, whatever names them.

use super::*;

fn named(host: &str, port: u16) -> Origin {
    Origin { scheme: Scheme::Http, host: host.into(), port }
}

fn with_names(names: Vec<(&'static str, Vec<SocketAddr>)>) -> Upstream {
    upstream_with(patient(), Names(names), Roots::System)
}

fn public(mut request: FetchRequest) -> FetchRequest {
    request.policy = Arc::new(Policy::for_host("*.example"));
    request
}

#[tokio::test]
async fn names_and_literals_of_private_addresses_are_refused() {
    let server = Server::always(vec![Act::Send(ok("inner"))]).await;
    let upstream = with_names(vec![
        ("rebound.example", vec![server.address]),
        ("mapped.example", vec![format!("[::ffff:127.0.0.1]:{}", server.address.port()).parse().unwrap()]),
    ]);
    for host in ["rebound.example", "mapped.example", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254"] {
        for _ in 0..3 {
            let request = public(get(named(host, server.address.port()), "/"));
            let error = fetch(&upstream, request).await.unwrap_err();
            assert!(matches!(&error, FetchError::AddressRefused { host: named, .. } if named == host), "{error}");
            assert_eq!(error.blame(), Blame::Rules);
        }
    }
    assert_eq!(server.connections(), 0);
    let refused = upstream.inner.metrics.upstream_requests.with_label_values(&["refused"]).get();
    assert_eq!((refused, upstream.down_sources().len()), (18, 0));
}

#[tokio::test]
async fn a_rule_may_allow_private_addresses() {
    let server = Server::always(vec![Act::Send(ok("inner"))]).await;
    let upstream = with_names(vec![("inner.example", vec![server.address])]);
    assert_eq!(text(&upstream, get(named("inner.example", 80), "/")).await, "inner");
    assert!(server.requests()[0].contains("\r\nhost: inner.example\r\n"));
    // The idle connection that the other rule made is not for a rule that would not have made it.
    let error = fetch(&upstream, public(get(named("inner.example", 80), "/"))).await.unwrap_err();
    assert_eq!(error.as_str(), "address-refused");
}

#[tokio::test]
async fn the_platform_s_addresses_are_refused_even_then() {
    let error = fetch(&upstream(), get(named("169.254.169.254", 80), "/")).await.unwrap_err();
    assert_eq!(error.as_str(), "address-refused");
}

#[tokio::test]
async fn only_the_allowed_addresses_of_a_name_are_tried() {
    let [first, second] = [Server::always(vec![]).await, Server::always(vec![Act::Send(ok("second"))]).await];
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let upstream = with_names(vec![("many.example", vec![first.address, closed, second.address])]);
    upstream.set_own_addresses(vec![first.address]);
    assert_eq!(text(&upstream, get(named("many.example", 80), "/")).await, "second");
    assert_eq!(first.connections(), 0);
}

#[tokio::test]
async fn a_rule_s_address_replaces_resolution_but_not_the_guard() {
    let server = Server::always(vec![Act::Send(ok("here"))]).await;
    let upstream = upstream();
    let request = |allow_private| {
        let mut request = get(named("elsewhere.example", 80), "/");
        let address = Some(server.address.to_string().into());
        request.policy = Arc::new(Policy { address, allow_private, ..Policy::for_host("elsewhere.example") });
        request
    };
    assert_eq!(fetch(&upstream, request(false)).await.unwrap_err().as_str(), "address-refused");
    assert_eq!(text(&upstream, request(true)).await, "here");
    assert!(server.requests()[0].contains("\r\nhost: elsewhere.example\r\n"));
}

#[tokio::test]
async fn own_listeners_are_never_connected_to() {
    let own = Server::always(vec![Act::Send(ok("myself"))]).await;
    let upstream = with_names(vec![("me.example", vec![own.address])]);
    let port = own.address.port();
    for own_address in
        [own.address, format!("[::]:{port}").parse().unwrap(), format!("0.0.0.0:{port}").parse().unwrap()]
    {
        upstream.set_own_addresses(vec![own_address]);
        for host in ["127.0.0.1", "me.example"] {
            let error = fetch(&upstream, get(named(host, port), "/")).await.unwrap_err();
            assert_eq!(error.as_str(), "address-refused", "{own_address} {host}");
        }
    }
    assert_eq!(own.connections(), 0);
}

#[tokio::test]
async fn a_resolver_that_does_not_answer_costs_the_connect_limit() {
    #[derive(Debug)]
    struct Silent;
    impl Resolver for Silent {
        fn resolve(&self, _: Arc<str>, _: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
            Box::pin(std::future::pending())
        }
    }
    let mut settings = patient();
    settings.timeouts.connect = Duration::from_millis(20);
    let metrics = Arc::new(Metrics::new().unwrap());
    let (own, roots) = (Vec::new(), Roots::System);
    let upstream = Upstream::with_parts(settings, "x".into(), metrics, own, roots, Arc::new(Silent)).unwrap();
    let error = fetch(&upstream, get(named("a.example", 80), "/")).await.unwrap_err();
    assert_eq!(error, FetchError::Timeout { host: "a.example".into(), phase: Phase::Resolve });
}

#[tokio::test]
async fn the_system_s_resolver_knows_this_machine() {
    let found = SystemResolver::default().resolve("localhost".into(), 81).await.unwrap();
    assert!(found.iter().any(|address| address.ip().is_loopback() && address.port() == 81));
}
