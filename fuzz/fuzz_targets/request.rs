//! A whole request head: what it asks for, from target and fields, against rules.
#![no_main]

use std::sync::LazyLock;

use http::{Method, Uri, Version};
use libfuzzer_sys::fuzz_target;
use waystation::content::{AuthParameters, Policy, Scheme};
use waystation::resolve::{ConnectRule, Inbound, Rules, Settings, parameters, resolve, resolve_connect};
use waystation_fuzz::{fields, halves};

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    let mut rules = Rules::default();
    for host in ["a.example", "*.b.example", "[::1]", "127.0.0.1"] {
        let policy = Policy { auth_parameters: AuthParameters::AzureSas, ..Policy::for_host(host) };
        assert!(rules.insert(policy).is_ok());
    }
    let connect = vec![ConnectRule { host: "*.b.example".into(), port: 443, allow_private: false }];
    Settings { rules, connect, own_ports: vec![8081], ..Settings::default() }
});

fuzz_target!(|bytes: &[u8]| {
    let (target, text) = halves(bytes);
    let Ok(uri) = Uri::try_from(target) else { return };
    let headers = fields(text, &["host", "forwarded", "x-forwarded-host", "x-original-url"]);
    for method in [Method::GET, Method::CONNECT] {
        let request =
            Inbound { method: &method, uri: &uri, version: Version::HTTP_11, headers: &headers, scheme: Scheme::Http };
        match resolve_connect(&request, &SETTINGS.connect) {
            Ok(target) => assert!(target.host.ends_with(".b.example") && target.port == 443, "{target:?}"),
            Err(refusal) => assert!(refusal.status().is_client_error()),
        }
        let _ = request.loggable_path();
        match resolve(&request, &SETTINGS) {
            Ok(content) => {
                let host = &*content.origin.host;
                assert!(matches!(host, "a.example" | "[::1]" | "127.0.0.1") || host.ends_with(".b.example"), "{host}");
                assert!(content.path().starts_with('/'), "{:?}", content.target);
                let query = content.key.as_str().split_once('?').map_or("", |(_, query)| query);
                assert!(!parameters(query).any(|parameter| parameter.is_named("sig")), "a token is in the key");
            }
            Err(refusal) => assert!(refusal.status().is_client_error()),
        }
    }
});
