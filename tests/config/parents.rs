//! Where updates come from: parents and proxies by settings and by the variables of others, and that no password shows.

use waystation::config::{Config, Loaded};
use waystation::upstream::{Credentials, Exception, ParentKind};

use super::{faults, load, with_variables};

fn of(variables: &[(&str, &str)]) -> Loaded {
    Config::load(&with_variables(variables)).unwrap()
}

/// The proxies for http and for https.
fn proxies(loaded: &Loaded) -> [Option<String>; 2] {
    let proxies = &loaded.config.upstream.proxies;
    [&proxies.http, &proxies.https].map(|proxy| proxy.as_ref().map(ToString::to_string))
}

fn parents(loaded: &Loaded) -> Vec<String> {
    loaded.config.upstream.parents.iter().map(|parent| parent.origin.to_string()).collect()
}

#[test]
fn the_variables_of_connected_cache_and_iot_edge_name_the_parent() {
    for (variables, expected) in [
        (&[("UPSTREAM_HOST", "l4.lan")][..], "http://l4.lan"),
        (&[("UPSTREAM_HOST", "l4.lan:8081")], "http://l4.lan:8081"),
        (&[("UPSTREAM_HOST", "https://l4.lan")], "https://l4.lan"),
        (&[("UPSTREAM_HOST", " 10.1.2.3 ")], "http://10.1.2.3"),
        (&[("IOTEDGE_PARENTHOSTNAME", "edge-l4")], "http://edge-l4"),
        (&[("IOTEDGE_PARENTHOSTNAME", "edge-l4"), ("UPSTREAM_HOST", "l4.lan")], "http://l4.lan"),
    ] {
        let loaded = of(variables);
        assert_eq!(parents(&loaded), [expected], "{variables:?}");
        assert_eq!(loaded.config.upstream.parents[0].kind, ParentKind::ConnectedCache);
        assert!(!loaded.config.upstream.direct, "who has a parent asks nobody else");
        assert!(loaded.config.notes.iter().any(|note| note.contains(variables.last().unwrap().0)), "{variables:?}");
    }
    let loaded = of(&[("UPSTREAM_HOST", "l4.lan"), ("WAYSTATION_UPSTREAM__PARENTS", "[{ url: http://other.lan }]")]);
    assert_eq!(parents(&loaded), ["http://other.lan"]);
    let loaded = of(&[("UPSTREAM_HOST", "l4.lan"), ("WAYSTATION_UPSTREAM__PARENTS", "[]")]);
    assert!(loaded.config.upstream.parents.is_empty() && loaded.config.upstream.direct);
    assert!(of(&[("UPSTREAM_HOST", ""), ("UPSTREAM_PROXY", "")]).config.upstream.direct);
}

#[test]
fn proxies_come_from_the_environment_in_both_spellings() {
    let (one, two) = (Some("one.lan:3128".to_owned()), Some("two.lan:1080".to_owned()));
    for (variables, expected) in [
        (&[("UPSTREAM_PROXY", "http://one.lan:3128")][..], [one.clone(), one.clone()]),
        (&[("http_proxy", "http://one.lan:3128"), ("https_proxy", "two.lan")], [one.clone(), two.clone()]),
        (&[("HTTPS_PROXY", "http://two.lan/")], [None, two.clone()]),
        (&[("https_proxy", "one.lan:3128"), ("HTTPS_PROXY", "two.lan")], [None, one.clone()]),
        (&[("all_proxy", "one.lan:3128"), ("http_proxy", "two.lan")], [two.clone(), one.clone()]),
        (&[("UPSTREAM_PROXY", "one.lan:3128"), ("http_proxy", "two.lan")], [one.clone(), one.clone()]),
    ] {
        assert_eq!(proxies(&of(variables)), expected, "{variables:?}");
    }
    let loaded = of(&[("http_proxy", "one.lan:3128"), ("NO_PROXY", "localhost, .lan,10.0.0.0/8")]);
    assert_eq!(loaded.config.upstream.proxies.except.len(), 3);
    assert_eq!(loaded.config.upstream.proxies.except[0], Exception::Name("localhost".to_owned(), None));
    for name in ["http_proxy: upstream.http_proxy", "NO_PROXY: upstream.no_proxy"] {
        assert!(loaded.config.notes.iter().any(|note| note.starts_with(name)), "{:?}", loaded.config.notes);
    }
}

#[test]
fn no_password_shows() {
    let file = "upstream:\n  http_proxy: http://ann:Secret1@one.lan:3128\n  parents:\n    - { url: \"http://bob:Secret2@l4.lan\", kind: forward-proxy, proxy: \"http://eve:Secret3@two.lan\" }\n";
    let loaded = load(file).unwrap();
    let shown = format!("{}{:?}{:?}", loaded.effective.to_yaml(), loaded.effective.settings(), loaded.config);
    assert!(!shown.contains("Secret"), "{shown}");
    assert!(shown.contains("http://***@one.lan:3128"), "{shown}");
    let loaded = of(&[("https_proxy", "http://ann:Secret1@one.lan:3128")]);
    let shown = format!("{}{:?}", loaded.effective.to_yaml(), loaded.config);
    assert!(!shown.contains("Secret"), "{shown}");
    let credentials = loaded.config.upstream.proxies.https.as_ref().unwrap().credentials.clone();
    assert_eq!(credentials, Credentials::basic("ann", "Secret1"));
    for file in [
        "upstream: { http_proxy: \"https://ann:Secret1@one.lan\" }",
        "upstream: { parents: [{ url: \"http://ann:Secret1@l4.lan\" }] }",
        "upstream: { parents: [{ url: \"ftp://ann:Secret1@l4.lan\" }] }",
    ] {
        let errors = load(file).unwrap_err().to_string();
        assert!(!errors.contains("Secret"), "{errors}");
    }
}

#[test]
fn a_password_may_come_from_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    std::fs::write(&path, "open sesame\nnot this\n").unwrap();
    let file = format!(
        "upstream:\n  https_proxy: http://ann@one.lan:3128\n  proxy_password_file: {0}\n  parents:\n    - {{ url: \"http://bob@l4.lan\", kind: forward-proxy, password_file: {0} }}\n",
        path.display()
    );
    let upstream = load(&file).unwrap().config.upstream;
    assert_eq!(upstream.proxies.https.unwrap().credentials, Credentials::basic("ann", "open sesame"));
    assert_eq!(upstream.parents[0].credentials, Credentials::basic("bob", "open sesame"));
    // One of two proxies may have no user.
    let mixed = file.replace("upstream:\n", "upstream:\n  http_proxy: http://two.lan:3128\n");
    let proxies = load(&mixed).unwrap().config.upstream.proxies;
    assert_eq!(proxies.http.unwrap().credentials, None);
    assert_eq!(proxies.https.unwrap().credentials, Credentials::basic("ann", "open sesame"));
    // Who forgot it is told where it belongs.
    for (left_out, setting) in
        [("  proxy_password_file: ", "`proxy_password_file`"), (", password_file: ", "`password_file`")]
    {
        let without = file.replace(&format!("{left_out}{}", path.display()), "");
        let said = load(&without).unwrap_err().to_string();
        assert!(said.contains("the user's password is missing") && said.contains(setting), "{said}");
    }
    std::fs::write(&path, "").unwrap();
    assert_eq!(faults(&file), ["upstream.parents[0].password_file", "upstream.proxy_password_file"]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(faults(&file), ["upstream.parents[0].password_file", "upstream.proxy_password_file"]);
}

#[test]
fn a_certificate_goes_with_a_key() {
    let parent = "parents: [{ url: https://l4.lan }]";
    let tls = load(&format!("upstream: {{ {parent}, tls: {{ certificate: a.pem, key: b.pem }} }}")).unwrap();
    let tls = tls.config.upstream.tls;
    assert_eq!(tls.identity, Some(("a.pem".into(), "b.pem".into())));
    assert_eq!(faults("upstream: { tls: { certificate: a.pem } }"), ["upstream.tls.certificate"]);
    assert_eq!(faults("upstream: { tls: { key: a.pem } }"), ["upstream.tls.key"]);
    assert_eq!(faults("upstream: { tls: { certificate: a.pem, key: b.pem } }"), ["upstream.tls"]);
    assert_eq!(
        faults("upstream: { parents: [{ url: http://l4.lan, tls_name: l4 }] }"),
        ["upstream.parents[0].tls_name"]
    );
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (file, path) in [
        ("upstream: { parents: [{ url: l4.lan }] }", "upstream.parents[0].url"),
        ("upstream: { parents: [{ kind: connected-cache }] }", "upstream.parents[0].url"),
        ("upstream: { parents: [{ url: \"http://l4.lan/path\" }] }", "upstream.parents[0].url"),
        ("upstream: { parents: [{ url: \"http://l4.lan:0\" }] }", "upstream.parents[0].url"),
        ("upstream: { parents: [{ url: \"http://169.254.169.254\" }] }", "upstream.parents[0].url"),
        ("upstream: { parents: [{ url: \"http://l4.lan\", kind: cache }] }", "upstream.parents[0].kind"),
        ("upstream: { parents: [{ url: \"http://a:b@l4.lan\" }] }", "upstream.parents[0].url"),
        ("upstream: { parents: [{ url: \"http://l4.lan\" }, { url: \"http://l4.lan/\" }] }", "upstream.parents"),
        ("upstream: { parents: [{ url: \"http://l4.lan\", trusted: true }] }", "upstream.parents[0].trusted"),
        (
            "upstream: { parents: [{ url: \"https://l4.lan\", kind: forward-proxy, trusted: true }] }",
            "upstream.parents[0].trusted",
        ),
        ("listen: { digest_clients: [certified] }", "listen.digest_clients"),
        ("upstream: { http_proxy: \"socks5://h:1\" }", "upstream.http_proxy"),
        ("upstream: { http_proxy: \"http://user@h:1\" }", "upstream.http_proxy"),
        ("upstream: { no_proxy: [\"a b\"] }", "upstream.no_proxy[0]"),
        ("upstream: { proxy: \"http://h:1\" }", "upstream.proxy"),
        (
            "upstream: { parents: [{ url: http://l4.lan, kind: forward-proxy, password_file: tests/config/parents.rs }] }",
            "upstream.parents[0].password_file",
        ),
    ] {
        assert_eq!(faults(file), [path], "{file}");
    }
}
