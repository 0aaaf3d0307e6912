//! The forms of naming an origin, their order, and schemes, ports and methods.

use super::*;

fn assert_outcomes(settings: &Settings, table: &[(Case, &str, &str, &str)]) {
    for (case, origin, target, form) in table {
        let expected = ((*origin).to_owned(), (*target).to_owned(), *form);
        assert_eq!(case.outcome(settings), expected, "{} Host {:?}", case.target, case.hosts);
    }
}

#[test]
fn the_parameter_names_the_origin_wherever_it_stands() {
    let origin = "http://dl.example.com";
    let form = "connected-cache";
    assert_outcomes(
        &settings(),
        &[
            (get("/p/a.swu?cacheHostOrigin=dl.example.com"), origin, "/p/a.swu", form),
            (get("/p/a.swu?x=1&cacheHostOrigin=dl.example.com"), origin, "/p/a.swu?x=1", form),
            (get("/p/a.swu?cacheHostOrigin=dl.example.com&P1=%2f+&P2"), origin, "/p/a.swu?P1=%2f+&P2", form),
            (get("/p?a=1&CACHEHOSTORIGIN=dl.example.com&b=2"), origin, "/p?a=1&b=2", form),
            (get("/p?cachehost%4frigin=dl.example.com"), origin, "/p", form),
            (get("/p?cacheHostOrigin=dl%2Eexample%2ecom"), origin, "/p", form),
            (get("/p?cacheHostOrigin=DL.Example.COM."), origin, "/p", form),
            (get("/p?cacheHostOrigin=dl.example.com:80"), origin, "/p", form),
            (get("/p?cacheHostOrigin=dl.example.com%3A80"), origin, "/p", form),
            (get("/p?&cacheHostOrigin=dl.example.com"), origin, "/p?", form),
            (get("/p?a&&cacheHostOrigin=dl.example.com"), origin, "/p?a&", form),
            (get("/?cacheHostOrigin=dl.example.com"), origin, "/", form),
            (get("/p?cacheHostOrigin=other.example&cacheHostOrigin=dl.example.com"), origin, "/p", form),
            (get("/p?cacheHostOrigin=x&a=1&cacheHostOrigin=dl.example.com"), origin, "/p?a=1", form),
            // What an agent sends, byte for byte.
            (
                get("/a%20b/C%2Fd/x~y(1).cab?P1=1&P2=a%2Bb%3D%3D&sig=x%20y&cacheHostOrigin=dl.example.com"),
                origin,
                "/a%20b/C%2Fd/x~y(1).cab?P1=1&P2=a%2Bb%3D%3D&sig=x%20y",
                form,
            ),
        ],
    );
}

#[test]
fn every_other_form_is_tried_in_order() {
    let origin = "http://dl.example.com";
    assert_outcomes(
        &settings(),
        &[
            (get("http://dl.example.com/p?q"), origin, "/p?q", "forward-proxy"),
            (get("HTTP://DL.example.com:80"), origin, "/", "forward-proxy"),
            (get("http://dl.example.com?q"), origin, "/?q", "forward-proxy"),
            (get("http://dl.example.com/-/a.example.net/p"), origin, "/-/a.example.net/p", "forward-proxy"),
            (get("http://dl.example.com/p").host("a.example.net"), origin, "/p", "forward-proxy"),
            (get("http://dl.example.com/p").hosts(&[]), origin, "/p", "forward-proxy"),
            (get("http://dl.example.com/p").host(""), origin, "/p", "forward-proxy"),
            (get("/-/dl.example.com/p/a.deb?q"), origin, "/p/a.deb?q", "path"),
            (get("/-/dl.example.com//p"), origin, "//p", "path"),
            (get("/-/dl.example.com"), origin, "/", "path"),
            (get("/-/dl.example.com?q"), origin, "/?q", "path"),
            (get("/-/DL.example.com.:80/p").host("a.example.net"), origin, "/p", "path"),
            (get("/p?q").host("dl.example.com"), origin, "/p?q", "host"),
            (get("/p").host("DL.Example.com.:80"), origin, "/p", "host"),
            (get("/-x/p").host("dl.example.com"), origin, "/-x/p", "host"),
            (get("/p").host("a.b.example.net"), "http://a.b.example.net", "/p", "host"),
            // The parameter is tried first, also behind a proxy and with a Host that is known.
            (get("http://cache.example:8081/p?cacheHostOrigin=dl.example.com"), origin, "/p", "connected-cache"),
            (get("/p?cacheHostOrigin=dl.example.com").host("a.example.net"), origin, "/p", "connected-cache"),
            (get("/-/x/p?cacheHostOrigin=dl.example.com"), origin, "/-/x/p", "connected-cache"),
            // HTTP/1.0 needs no Host.
            (
                get("/p?cacheHostOrigin=dl.example.com").hosts(&[]).version(Version::HTTP_10),
                origin,
                "/p",
                "connected-cache",
            ),
        ],
    );
}

#[test]
fn the_default_origin_takes_requests_that_name_no_other() {
    let origin = "http://dl.example.com:8000";
    let settings = with_default_origin("dl.example.com", 8000);
    assert_outcomes(
        &settings,
        &[
            (get("/p?q"), origin, "/p?q", "default-origin"),
            (get("/p").hosts(&[]).version(Version::HTTP_10), origin, "/p", "default-origin"),
            (get("/p").host("127.0.0.1:8081"), origin, "/p", "default-origin"),
            (get("/p").host("a.example.net"), "http://a.example.net", "/p", "host"),
        ],
    );
    assert_eq!(get("/p?cacheHostOrigin=x.example").refused(&settings), (403, "unknown-origin"));
    assert_eq!(get("http://x.example/p").refused(&settings), (403, "unknown-origin"));
    assert_eq!(get("/-/x.example/p").refused(&settings), (403, "unknown-origin"));
    // A default origin without a rule of its own works by the defaults.
    let ruleless = with_default_origin("inner.example", 80);
    assert_eq!(get("/p").outcome(&ruleless).0, "http://inner.example");
    assert_eq!(get("/p").method(Method::POST).refused(&ruleless), (405, "method-not-allowed"));
}

#[test]
fn the_rule_decides_scheme_and_port() {
    let settings = settings();
    let table = [
        (get("/p?cacheHostOrigin=secure.example"), "https://secure.example"),
        (get("/p?cacheHostOrigin=secure.example:443"), "https://secure.example"),
        (get("/p?cacheHostOrigin=secure.example:80"), "https://secure.example"),
        (get("http://secure.example:80/p"), "https://secure.example"),
        (get("https://secure.example/p"), "https://secure.example"),
        (get("https://either.example/p"), "https://either.example"),
        (get("https://either.example:443/p"), "https://either.example"),
        (get("http://either.example/p"), "http://either.example"),
        (get("http://either.example/p").over_tls(), "http://either.example"),
        (get("/-/either.example/p").over_tls(), "https://either.example"),
        (get("/p?cacheHostOrigin=either.example").over_tls(), "https://either.example"),
        (get("/p").host("either.example"), "http://either.example"),
        (get("/p?cacheHostOrigin=dl.example.com").over_tls(), "http://dl.example.com"),
        (get("/p?cacheHostOrigin=ported.example"), "http://ported.example:8080"),
        (get("/p?cacheHostOrigin=ported.example:8080"), "http://ported.example:8080"),
        (get("/p?cacheHostOrigin=ported.example:80"), "http://ported.example"),
        (get("http://[FD00:0:0::1]/p"), "http://[fd00::1]"),
        (get("/-/10.1.2.3:80/p"), "http://10.1.2.3"),
    ];
    for (case, origin) in table {
        assert_eq!(case.outcome(&settings).0, origin, "{}", case.target);
    }
    for target in ["dl.example.com:8080", "dl.example.com:443", "ported.example:8081", "secure.example:8443"] {
        assert_eq!(get(&format!("http://{target}/p")).refused(&settings), (403, "port-not-allowed"), "{target}");
        assert_eq!(get("/p").host(target).refused(&settings), (403, "port-not-allowed"), "{target}");
    }
    assert_eq!(get("https://dl.example.com/p").refused(&settings), (403, "https-downgrade"));
}

#[test]
fn methods_are_those_of_the_rule() {
    let settings = settings();
    let target = "http://dl.example.com/p";
    assert_eq!(get(target).method(Method::HEAD).outcome(&settings).1, "/p");
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE] {
        let refusal = get(target).method(method).refusal(&settings);
        assert_eq!((refusal.status().as_u16(), refusal.allow()), (405, Some("GET, HEAD")));
    }
    let purge = get(target).method(Method::from_bytes(b"PURGE").unwrap()).refusal(&settings);
    assert_eq!(purge.to_string(), "method PURGE is not passed to this origin; use GET, HEAD");
    let posting = one_rule(|policy| policy.methods = vec![Method::GET, Method::POST]);
    assert_eq!(get(target).method(Method::POST).outcome(&posting).1, "/p");
    assert_eq!(get(target).method(Method::HEAD).refusal(&posting).allow(), Some("GET, POST"));
}

#[test]
fn our_own_port_in_host_says_nothing_of_the_origin() {
    let settings = Settings { own_ports: vec![8081], ..settings() };
    for (host, origin) in [
        ("dl.example.com:8081", "http://dl.example.com"),
        ("secure.example:8081", "https://secure.example"),
        ("either.example:8081", "http://either.example"),
        ("ported.example:8081", "http://ported.example:8080"),
        ("ported.example:8080", "http://ported.example:8080"),
        ("a.example.net:8081", "http://a.example.net"),
    ] {
        let (case, plain) = (get("/p").host(host), get("/p").host(host.split(':').next().unwrap()));
        assert_eq!(case.outcome(&settings).0, origin, "{host}");
        assert_eq!(case.resolve(&settings).key, plain.resolve(&settings).key, "{host}");
    }
    for host in ["dl.example.com:8082", "dl.example.com:5001", "ported.example:8082"] {
        assert_eq!(get("/p").host(host).refused(&settings), (403, "port-not-allowed"), "{host}");
    }
    // In the other forms the port is written by somebody who means the origin's.
    for target in ["http://dl.example.com:8081/p", "/-/dl.example.com:8081/p", "/p?cacheHostOrigin=dl.example.com:8081"]
    {
        assert_eq!(get(target).refused(&settings), (403, "port-not-allowed"), "{target}");
    }
    let own = Settings { own_ports: vec![8080], ..settings };
    assert_eq!(get("/p").host("ported.example:8080").outcome(&own).0, "http://ported.example:8080");
}

#[test]
fn connect_asks_for_no_content() {
    let refusal = get("dl.example.com:443").method(Method::CONNECT).refusal(&settings());
    assert_eq!((refusal.status().as_u16(), refusal.allow()), (405, Some("GET, HEAD")));
}
