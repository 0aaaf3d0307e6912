//! Redirects of origins.

use super::*;

fn follow(from: &str, location: &str) -> Result<(String, String), Refusal> {
    let settings = with_default_origin("inner.example", 8000);
    let request = get(from).resolve(&settings);
    resolve_redirect(location, &request.origin, &request.target, &request, &settings)
        .map(|redirect| (redirect.origin.to_string(), redirect.target))
}

#[test]
fn locations_are_resolved_against_the_redirecting_request() {
    let from = "http://dl.example.com/a/b/c?q=1";
    for (location, origin, target) in [
        ("/x", "http://dl.example.com", "/x"),
        ("/x?y#z", "http://dl.example.com", "/x?y"),
        ("d", "http://dl.example.com", "/a/b/d"),
        ("../d?e=/..", "http://dl.example.com", "/a/d?e=/.."),
        ("../../../d/.", "http://dl.example.com", "/d/"),
        ("..", "http://dl.example.com", "/a/"),
        ("d:8", "target-scheme", ""),
        ("./d:8", "http://dl.example.com", "/a/b/d:8"),
        ("?r", "http://dl.example.com", "/a/b/c?r"),
        ("", "http://dl.example.com", "/a/b/c?q=1"),
        ("//a.example.net", "http://a.example.net", "/"),
        ("//a.example.net?x", "http://a.example.net", "/?x"),
        ("http://A.example.net./x/../y", "http://a.example.net", "/y"),
        ("HTTPS://a.example.net/x", "https://a.example.net", "/x"),
        ("https://ported.example/x", "https://ported.example", "/x"),
        ("http://ported.example/x", "http://ported.example:8080", "/x"),
        ("http://secure.example/x", "https://secure.example", "/x"),
        ("https://dl.example.com/a/b/c?q=1", "https://dl.example.com", "/a/b/c?q=1"),
        ("http://evil.example/x", "unknown-origin", ""),
        ("//169.254.169.254/x", "unknown-origin", ""),
        ("http://0x7f.1/x", "host-ip-spelling", ""),
        ("http://user:pass@dl.example.com/", "host-user-info", ""),
        ("http://dl.example.com:22/", "port-not-allowed", ""),
        ("ftp://dl.example.com/", "target-scheme", ""),
        ("http:/x", "target-form", ""),
        ("/a%00", "target-control-character", ""),
        ("/%2e%2e/x", "target-dot-segment", ""),
    ] {
        let got = follow(from, location).unwrap_or_else(|refusal| (refusal.as_str().to_owned(), String::new()));
        assert_eq!(got, (origin.to_owned(), target.to_owned()), "{location}");
    }
}

#[test]
fn https_never_leads_to_http() {
    for location in ["http://dl.example.com/x", "http://either.example/x"] {
        assert_eq!(follow("https://secure.example/p", location).unwrap_err().as_str(), "https-downgrade");
    }
    let stays = follow("https://secure.example/p", "http://secure.example/x").unwrap();
    assert_eq!(stays.0, "https://secure.example");
}

#[test]
fn a_default_origin_without_rule_may_redirect_to_itself() {
    assert_eq!(follow("/p", "/x").unwrap().0, "http://inner.example:8000");
    assert_eq!(follow("/p", "http://inner.example:8000/x").unwrap().0, "http://inner.example:8000");
    assert_eq!(follow("/p", "https://inner.example/x").unwrap().0, "https://inner.example");
    assert_eq!(follow("/p", "http://inner.example:22/x").unwrap_err().as_str(), "port-not-allowed");
    assert_eq!(follow("/p", "http://other.example/").unwrap_err().as_str(), "unknown-origin");
}
