//! Requests that must not get through, and what is said about them.

use super::*;

/// Every place that can name an origin, with `host` in it.
fn everywhere(host: &str) -> [Case; 4] {
    [
        get(&format!("/p?cacheHostOrigin={host}")),
        get(&format!("http://{host}/p")),
        get(&format!("/-/{host}/p")),
        get("/p").host(host),
    ]
}

#[test]
fn malformed_hosts_are_refused_in_every_form() {
    let settings = with_default_origin("dl.example.com", 80);
    for host in [
        "user@dl.example.com",
        "user:secret@dl.example.com",
        "dl..example.com",
        ".dl.example.com",
        "dl.example.com..",
        "-dl.example.com",
        "dl,example.com",
        "*.example.net",
        "dl.example.com:0",
        "dl.example.com:99999",
        "dl.example.com:http",
        "dl.example.com:",
        "0x7f.1",
        "0x7f000001",
        "2130706433",
        "0177.0.0.1",
        "127.1",
        "10.1.2.3.",
        "10.1.515",
        "010.1.2.3",
        "[::1",
        "[fe80::1%25eth0]",
        "[10.1.2.3]",
    ] {
        for case in everywhere(host) {
            let Some(result) = case.try_resolve(&settings) else { continue };
            let refusal = result.unwrap_err();
            assert_eq!(refusal.status().as_u16(), 400, "{} {:?}: {refusal}", case.target, case.hosts);
            assert!(!refusal.to_string().contains("secret"), "{refusal}");
        }
    }
}

#[test]
fn well_formed_hosts_without_a_rule_are_forbidden_in_every_form() {
    for host in [
        "evil.example",
        "example.net",
        "xdl.example.com",
        "dl.example.com.evil.example",
        "127.0.0.1",
        "10.1.2.4",
        "169.254.169.254",
        "[::1]",
        "[::ffff:10.1.2.3]",
        "[fd00::2]",
        "localhost",
        "xn--dl-example-com",
    ] {
        for case in everywhere(host) {
            let got = case.refused(&settings());
            assert_eq!(got, (403, "unknown-origin"), "{} {:?}", case.target, case.hosts);
        }
    }
}

#[test]
fn odd_parameter_values_are_refused() {
    for (value, reason) in [
        ("", "host-empty"),
        (".", "host-empty"),
        ("https://dl.example.com", "host-not-only-a-host"),
        ("https%3A%2F%2Fdl.example.com", "host-not-only-a-host"),
        ("dl.example.com/", "host-not-only-a-host"),
        ("dl.example.com%2Fp", "host-not-only-a-host"),
        ("dl.example.com%23", "host-not-only-a-host"),
        ("dl.example.com%3Fx", "host-not-only-a-host"),
        ("user%40dl.example.com", "host-user-info"),
        ("dl.example.com%20", "host-character"),
        ("+dl.example.com", "host-character"),
        ("dl%252eexample.com", "host-character"),
        ("b%C3%BCcher.example", "host-non-ascii"),
        ("dl.example.com%FF", "host-non-ascii"),
        // Full-width letters and dots would become a known name by mapping.
        ("dl%EF%BC%8Eexample.com", "host-non-ascii"),
        ("dl.example.com%00", "target-control-character"),
        ("dl.example.com%0d%0aX:y", "target-control-character"),
        ("dl.example.com%zz", "target-escape"),
    ] {
        assert_eq!(get(&format!("/p?cacheHostOrigin={value}")).refused(&settings()), (400, reason), "{value}");
    }
    assert_eq!(get("/p?cacheHostOrigin").refused(&settings()), (400, "host-empty"));
    for target in ["/-/", "/-//p", "/-/?q"] {
        assert_eq!(get(target).refused(&settings()), (400, "host-empty"), "{target}");
    }
    let remedy = get("/p?cacheHostOrigin=b%C3%BCcher.example").refusal(&settings()).to_string();
    assert!(remedy.ends_with("is not ASCII; write xn--bcher-kva.example"), "{remedy}");
    assert_eq!(get("/p?cacheHostOrigin=XN--BCHER-kva.example").outcome(&settings()).0, "http://xn--bcher-kva.example");
}

#[test]
fn a_repeated_parameter_counts_only_at_the_end() {
    for query in [
        "cacheHostOrigin=dl.example.com&cacheHostOrigin=dl.example.com&x=1",
        "cacheHostOrigin=dl.example.com&x=1&cachehostorigin=dl.example.com&",
        "cacheHostOrigin=dl.example.com&cacheHost%4Frigin=x&y",
    ] {
        assert_eq!(get(&format!("/p?{query}")).refused(&settings()), (400, "origin-repeated"), "{query}");
    }
    let last_is_bad = "/p?cacheHostOrigin=dl.example.com&cacheHostOrigin=evil.example";
    assert_eq!(get(last_is_bad).refused(&settings()), (403, "unknown-origin"));
}

#[test]
fn the_host_field_is_checked_in_every_form() {
    let settings = settings();
    for target in ["/p", "/p?cacheHostOrigin=dl.example.com", "/-/dl.example.com/p", "http://dl.example.com/p"] {
        let case = get(target);
        let twice = case.clone().hosts(&["dl.example.com", "dl.example.com"]);
        assert_eq!(twice.refused(&settings), (400, "host-repeated"), "{target}");
        for host in ["good, evil", "dl.example.com/x", "a b", "user@dl.example.com", "b\u{fc}cher.example"] {
            assert_eq!(case.clone().host(host).refused(&settings).0, 400, "{target} {host}");
        }
        if !target.starts_with("http") {
            assert_eq!(case.clone().hosts(&[]).refused(&settings), (400, "host-missing"), "{target}");
            assert_eq!(case.clone().host("").refused(&settings), (400, "host-empty"), "{target}");
        }
    }
    let old = get("/p").hosts(&[]).version(Version::HTTP_10);
    assert_eq!(old.refused(&settings), (400, "no-origin"));
}

#[test]
fn hostile_targets_are_refused_before_their_origin_is_looked_at() {
    let table: [(&str, &[&str]); 5] = [
        ("target-dot-segment", &["/../p", "/a/../p", "/%2e%2e/p", "/a/.%2E", "/%2e/p", "/a%2f..%2fp", "/..;/p"]),
        ("target-control-character", &["/%00", "/p?x=%00", "/a%0d%0ab", "/%7f"]),
        ("target-backslash", &["/a\\b", "/a%5Cb", "/..%5c.."]),
        ("target-escape", &["/%zz", "/%", "/p%4", "/p?x=%"]),
        ("target-non-ascii", &["/bücher", "/p?é"]),
    ];
    for (reason, targets) in table {
        for target in targets {
            let separator = if target.contains('?') { '&' } else { '?' };
            for case in [
                get(target).host("dl.example.com"),
                get(&format!("http://dl.example.com{target}")),
                get(&format!("/-/dl.example.com{target}")),
                get(&format!("{target}{separator}cacheHostOrigin=dl.example.com")),
            ] {
                let Some(result) = case.try_resolve(&settings()) else { continue };
                let refusal = result.unwrap_err();
                assert_eq!((refusal.status().as_u16(), refusal.as_str()), (400, reason), "{}", case.target);
            }
        }
    }
}

#[test]
fn targets_of_another_form_are_refused() {
    for target in ["*", "dl.example.com:80", "dl.example.com"] {
        assert_eq!(get(target).refused(&settings()), (400, "target-form"), "{target}");
    }
    for target in ["ftp://dl.example.com/p", "gopher://dl.example.com/", "ws://dl.example.com/p"] {
        assert_eq!(get(target).refused(&settings()), (400, "target-scheme"), "{target}");
    }
}

#[test]
fn overlong_targets_get_414_at_the_exact_limit() {
    let long = |prefix: &str, length: usize| format!("{prefix}{}", "a".repeat(length - prefix.len()));
    for prefix in ["/", "http://dl.example.com/", "/-/dl.example.com/"] {
        let case = |length| get(&long(prefix, length)).host("dl.example.com");
        assert!(case(MAX_TARGET_BYTES).try_resolve(&settings()).unwrap().is_ok(), "{prefix}");
        assert_eq!(case(MAX_TARGET_BYTES + 1).refused(&settings()), (414, "target-too-long"), "{prefix}");
    }
}

#[test]
fn refusals_and_log_paths_hold_no_secrets() {
    for target in [
        "/p?sig=topsecret&cacheHostOrigin=evil.example",
        "/p?cacheHostOrigin=https%3A%2F%2Fh%2Fp%3Fsig%3Dtopsecret",
        "/p?cacheHostOrigin=h%26sig%3Dtopsecret",
        "http://user:topsecret@dl.example.com/p",
        "http://evil.example/p?sig=topsecret",
    ] {
        let refusal = get(target).refusal(&settings());
        assert!(!refusal.to_string().contains("topsecret"), "{refusal}");
        assert!(!format!("{refusal:?}").contains("topsecret"), "{refusal:?}");
        let uri: Uri = target.parse().unwrap();
        let inbound = Inbound {
            method: &Method::GET,
            uri: &uri,
            version: Version::HTTP_11,
            headers: &HeaderMap::new(),
            scheme: Scheme::Http,
        };
        assert_eq!(inbound.loggable_path().as_str(), "/p");
    }
}
