//! Redirects that are followed and those that are not.

use http::header::{AUTHORIZATION, COOKIE, HeaderValue, RANGE};

use super::*;

fn found(location: &str) -> Act {
    Act::Send(format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 5\r\n\r\nmoved"))
}

#[tokio::test]
async fn redirects_are_followed_within_the_rules() {
    let far = Server::always(vec![Act::Send(ok("there"))]).await;
    let target = format!("http://{}/far?x=1#frag", far.address);
    let near = Server::always(vec![found("/near"), found(&target)]).await;
    let mut request = get(near.origin(), "/start");
    request.headers.insert(AUTHORIZATION, HeaderValue::from_static("Basic secret"));
    request.headers.insert(COOKIE, HeaderValue::from_static("secret=1"));
    request.headers.insert(RANGE, HeaderValue::from_static("bytes=0-"));
    let allowed = Allowed(vec![near.origin(), far.origin()]);
    let mut response = upstream().fetch(request, &allowed).await.unwrap();
    assert_eq!(read(&mut response.body).await, ("there".to_owned(), None));
    // The redirects' own bodies are read, so that one connection is enough.
    assert_eq!(near.connections(), 1);
    let (at_near, at_far) = (near.requests(), far.requests());
    assert!(at_near[1].starts_with("get /near http/1.1\r\n"));
    assert!(at_near[1].contains("authorization: basic secret") && at_near[1].contains("cookie: secret=1"));
    assert!(at_far[0].starts_with("get /far?x=1 http/1.1\r\n"));
    assert!(!at_far[0].contains("secret"), "credentials are for one origin: {}", at_far[0]);
    assert!(at_far[0].contains("range: bytes=0-"));
    assert_eq!(at_far[0].matches("test-cache").count(), 2, "one Via and one CDN-Loop: {}", at_far[0]);
}

#[tokio::test]
async fn a_redirect_outside_the_rules_is_refused() {
    let other = Server::always(vec![Act::Send(ok("never"))]).await;
    let server = Server::always(vec![found(&format!("http://{}/secret?token=1", other.address))]).await;
    let error = upstream().fetch(get(server.origin(), "/"), &Allowed(vec![server.origin()])).await.unwrap_err();
    let to = format!("http://{}", other.address);
    assert_eq!(error, FetchError::RedirectRefused { to, why: RedirectRefusal::NotAllowed });
    assert!(!error.is_passing_fault());
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn the_address_guard_judges_each_hop_anew() {
    /// Allows everything, but no private address.
    struct Public;
    impl Redirects for Public {
        fn allow(&self, _: &Origin, _: &str) -> Option<Arc<Policy>> {
            Some(Arc::new(Policy::for_host("*.example")))
        }
    }
    let inner = Server::always(vec![Act::Send(ok("metadata"))]).await;
    let server = Server::always(vec![found(&format!("http://{}/", inner.address))]).await;
    let error = upstream().fetch(get(server.origin(), "/"), &Public).await.unwrap_err();
    assert_eq!(error.as_str(), "address-refused");
    assert_eq!(inner.connections(), 0);
}

#[tokio::test]
async fn circles_end() {
    let server = Server::always(vec![found("/round"); 10]).await;
    let error = upstream().fetch(get(server.origin(), "/"), &Allowed(vec![server.origin()])).await.unwrap_err();
    assert_eq!(error, FetchError::TooManyRedirects { host: "127.0.0.1".into() });
    assert_eq!(server.requests().len(), 6);
}

#[tokio::test]
async fn other_answers_with_a_location_are_answers() {
    for (method, status) in [(Method::GET, 201), (Method::GET, 300), (Method::POST, 307)] {
        let answer = format!("HTTP/1.1 {status} X\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n");
        let server = Server::always(vec![Act::Send(answer)]).await;
        let mut request = get(server.origin(), "/");
        request.method = method;
        let response = fetch(&upstream(), request).await.unwrap();
        assert_eq!(response.status.as_u16(), status);
        assert_eq!(response.headers["location"], "/x");
    }
    let server = Server::always(vec![found("ftp://x.example/")]).await;
    let error = fetch(&upstream(), get(server.origin(), "/")).await.unwrap_err();
    let to = "ftp://x.example/".to_owned();
    assert_eq!(error, FetchError::RedirectRefused { to, why: RedirectRefusal::Malformed });
}
