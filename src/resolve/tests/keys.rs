//! Which requests share a key and which must not; tokens; what goes into logs.

use super::*;

fn key(settings: &Settings, target: &str) -> String {
    get(target).host("dl.example.com").resolve(settings).key.as_str().to_owned()
}

#[test]
fn spellings_of_one_resource_share_a_key() {
    let settings = settings();
    for target in [
        "/a.b/~c?x=1",
        "/%61%2Eb/%7ec?x=1",
        "/a.b/%7Ec?%78=%31",
        "http://DL.example.com:80/a.b/~c?x=1",
        "/-/dl.example.com/a.b/~c?x=1",
        "/a.b/~c?x=1&cacheHostOrigin=dl.example.com",
        "/a.b/~c?cacheHostOrigin=dl.example.com.&x=1",
    ] {
        assert_eq!(key(&settings, target), "dl.example.com/a.b/~c?x=1", "{target}");
    }
    assert_eq!(key(&settings, "/a%2fb%c3%a9"), key(&settings, "/a%2Fb%C3%A9"));
}

#[test]
fn what_an_origin_may_tell_apart_has_keys_of_its_own() {
    let settings = settings();
    let targets = [
        "/a/b",
        "/A/b",
        "/a%2Fb",
        "/a//b",
        "//a/b",
        "/a/b/",
        "/a/b?",
        "/a/b%3F",
        "/a/b?x=1",
        "/a/b?x=1&",
        "/a/b?x=1&y=2",
        "/a/b?y=2&x=1",
        "/a/b?x=%2B",
        "/a/b?x=+",
        "/a/b?x=%26y",
        "/a/b+",
        "/a/b%2B",
        "/a/b%252B",
        "/a/b;x",
        "/a/b%3Bx",
        "http://a.example.net/a/b",
        "http://b.example.net/a/b",
        "http://ported.example/a/b",
        "http://ported.example:80/a/b",
        "http://either.example/a/b",
        "https://either.example/a/b",
    ];
    let mut keys: Vec<_> = targets.iter().map(|target| key(&settings, target)).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), targets.len(), "{keys:#?}");
}

#[test]
fn a_key_names_port_and_scheme_only_where_they_tell_something() {
    let settings = settings();
    for (target, expected) in [
        ("http://secure.example/p", "secure.example/p"),
        ("https://secure.example/p", "secure.example/p"),
        ("https://either.example/p", "https://either.example/p"),
        ("http://ported.example/p", "ported.example:8080/p"),
        ("http://ported.example:80/p", "ported.example/p"),
        ("http://[fd00::1]/p", "[fd00::1]/p"),
    ] {
        assert_eq!(key(&settings, target), expected);
    }
}

#[test]
fn hosts_with_one_canonical_name_share_keys() {
    let mut settings = Settings::default();
    for host in ["a.example", "b.example"] {
        let mut policy = Policy::for_host(host);
        policy.canonical = Some("both".into());
        policy.port = Some(8080);
        settings.rules.insert(policy).unwrap();
    }
    assert_eq!(key(&settings, "http://a.example/p"), "both/p");
    assert_eq!(key(&settings, "http://b.example:8080/p"), "both/p");
    assert_eq!(key(&settings, "http://b.example:80/p"), "both:80/p");
}

#[test]
fn plus_and_its_escape_meet_by_rule_only_and_in_paths_only() {
    let settings = one_rule(|policy| policy.plus_is_literal = true);
    assert_eq!(key(&settings, "/g%2b%2B_1.deb"), "dl.example.com/g++_1.deb");
    assert_eq!(key(&settings, "/g++_1.deb"), "dl.example.com/g++_1.deb");
    assert_ne!(key(&settings, "/p?x=+"), key(&settings, "/p?x=%2B"));
    let forwarded = get("/g%2b+.deb").host("dl.example.com").resolve(&settings).target;
    assert_eq!(forwarded, "/g%2b+.deb");
}

#[test]
fn query_policies_change_the_key_and_never_the_target() {
    let target = "/p?v=1&%74oken=a&Token=b&w=%2f";
    let names = || vec!["token".to_owned(), "v".to_owned()];
    for (policy, expected) in [
        (QueryPolicy::Keep, "dl.example.com/p?v=1&token=a&Token=b&w=%2F"),
        (QueryPolicy::Drop, "dl.example.com/p"),
        (QueryPolicy::DropNamed(names()), "dl.example.com/p?Token=b&w=%2F"),
        (QueryPolicy::KeepNamed(names()), "dl.example.com/p?v=1&token=a"),
    ] {
        let settings = one_rule(|rule| rule.query = policy);
        let request = get(target).host("dl.example.com").resolve(&settings);
        assert_eq!(request.key.as_str(), expected);
        assert_eq!(request.target, target);
    }
}

#[test]
fn tokens_stay_on_the_wire_and_out_of_key_and_log() {
    let sas = "sv=2022-11-02&sr=b&sp=r&se=2026-11-23T18%3A05Z&SIG=aB%2Bc%3D";
    let target = format!("/c/p?x=1&{sas}&y=2");
    let request = get(&format!("{target}&cacheHostOrigin=sas.example")).resolve(&settings());
    assert_eq!(request.target, target);
    assert_eq!(request.query(), target.strip_prefix("/c/p?"));
    assert_eq!(request.key.as_str(), "sas.example/c/p?x=1&y=2");
    assert_eq!(request.loggable, "/c/p?x=1&sv=REDACTED&sr=REDACTED&sp=REDACTED&se=REDACTED&SIG=REDACTED&y=2");
    assert_eq!(request.token.as_ref().and_then(AuthToken::expires).map(|t| t.as_secs()), Some(1_795_457_100));
    assert!(!format!("{request:?}").contains("aB"));

    let bare = get(&format!("/c/p?{sas}")).host("sas.example").resolve(&settings());
    assert_eq!(bare.key.as_str(), "sas.example/c/p");
    let without = get("/c/p").host("sas.example").resolve(&settings());
    assert!(without.token.is_none());
    assert_eq!(without.key, bare.key);
}

#[test]
fn parameters_named_like_a_signatures_are_ordinary_without_one() {
    let request = |target| get(target).host("sas.example").resolve(&settings());
    assert_ne!(request("/p?sv=1").key, request("/p?sv=2").key);
    assert!(request("/p?sv=1").token.is_none());
}

#[test]
fn named_tokens_are_case_sensitive() {
    let settings = one_rule(|policy| policy.auth_parameters = AuthParameters::Named(vec!["key".to_owned()]));
    let request = get("/p?key=topsecret&Key=open&a").host("dl.example.com").resolve(&settings);
    assert_eq!(request.key.as_str(), "dl.example.com/p?Key=open&a");
    assert_eq!(request.loggable, "/p?key=REDACTED&Key=open&a");
    assert_eq!(request.token.unwrap().bytes(), b"key=topsecret");
}

#[test]
fn the_path_of_a_request_is_the_one_in_its_key() {
    let request = get("/pool/a%2Edeb?x=/y").host("either.example").resolve(&settings());
    assert_eq!(request.path(), "/pool/a.deb");
    assert_eq!(request.query(), Some("x=/y"));
    assert_eq!(get("/").host("dl.example.com").resolve(&settings()).path(), "/");
}
