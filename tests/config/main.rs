//! The settings as an operator meets them: samples, layers, errors, and one row for each setting that exists.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod connected_cache;
mod effects;
mod parents;

use std::collections::BTreeSet;

use waystation::config::{Config, ConfigErrors, Loaded, Sources};
use waystation::content::{MissingLifetime, refuse_address};

use effects::{EFFECTS, rule};

const DEFAULT: &str = include_str!("../../config/default.yaml");
const ENTERPRISE: &str = include_str!("../../config/enterprise.yaml");
const NESTED_EDGE: &str = include_str!("../../config/nested-edge.yaml");

/// Settings that are lists of sections: their rows are those of their elements.
const LISTS: [&str; 4] = ["origins", "storage.drives", "upstream.parents", "upstream.budget.windows"];

/// Settings that name a file whose content counts: `parents` tests them.
const FILES: [&str; 4] = [
    "upstream.parents[].password_file",
    "upstream.proxy_password_file",
    "upstream.tls.certificate",
    "upstream.tls.key",
];

fn load(text: &str) -> Result<Loaded, ConfigErrors> {
    Config::load(&Sources::new().file("test.yaml", text))
}

/// The paths of the errors of a file.
fn faults(text: &str) -> Vec<String> {
    load(text).expect_err(text).as_slice().iter().map(|error| error.path.clone()).collect()
}

fn with_variables(variables: &[(&str, &str)]) -> Sources {
    variables.iter().fold(Sources::new(), |sources, (name, value)| sources.variable(name, value))
}

/// Everything typed but the notes and a pseudonym that is random.
fn typed(config: &Config) -> String {
    let mut config = config.clone();
    config.notes.clear();
    config.serve.pseudonym = "waystation".into();
    format!("{config:?}")
}

/// A first element for every list of sections, and what goes together.
const BASE: &str = "origins: [{ host: a.example.com }]\nupstream: { parents: [{ url: https://base.lan }], budget: { windows: [{}] } }\nlisten: { trusted_proxies: [10.0.0.9], tls: { addresses: [127.0.0.1:9], certificate: /a, key: /b, client_ca: /c } }";

#[test]
fn every_setting_has_an_effect() {
    let known: BTreeSet<String> = Config::setting_names().into_iter().collect();
    let tested: BTreeSet<String> =
        EFFECTS.iter().map(|row| row.0).chain(LISTS).chain(FILES).map(str::to_owned).collect();
    assert_eq!(known, tested, "each setting needs a row in EFFECTS, and each row a setting");
    for (name, left, right, effect) in EFFECTS {
        let path = name.replace("[]", "[0]");
        let seen = |value: &str| {
            let base = Sources::new().file("base", BASE);
            let loaded = Config::load(&base.set("--set", &path, value));
            effect(&loaded.unwrap_or_else(|errors| panic!("{name}: {value}: {errors}")).config)
        };
        assert_ne!(seen(left), seen(right), "{name}");
    }
}

#[test]
fn every_setting_is_described_in_the_default_file() {
    for name in Config::setting_names() {
        let word = name.rsplit('.').next().unwrap_or_default();
        assert!(DEFAULT.contains(&format!("{word}: ")) || DEFAULT.contains(&format!("{word}:\n")), "{name}");
    }
}

#[test]
fn the_commented_rule_in_the_default_file_shows_the_defaults() {
    let (before, example) = DEFAULT.split_once("origins: []\n").expect("the place of the example");
    let (example, _) = example.split_once("\n\n").expect("the end of the example");
    let example: String = example.lines().map(|line| format!("{}\n", line.strip_prefix('#').unwrap_or(line))).collect();
    let written = load(&format!("{before}origins:\n{example}")).expect("the example is valid").config;
    let short = load("origins: [{ host: packages.example.com }]").expect("a host is enough").config;
    assert_eq!(typed(&written), typed(&short));
    assert_eq!(rule(&written).freshness.default, MissingLifetime::Heuristic);
}

#[test]
fn defaults_are_those_of_the_parts() {
    let config = Config::load(&Sources::new()).expect("the embedded defaults").config;
    assert_eq!(config.store, waystation::store::Settings::default());
    assert_eq!(config.upstream, waystation::upstream::Settings::default());
    assert_eq!(config.serve.limits, waystation::serve::Limits::default());
    assert_eq!(config.serve.clients, waystation::content::AccessList::private());
    assert_eq!(config.serve.data, ["[::]:8081".parse().expect("an address")]);
    assert_eq!(config.admin.addresses, ["127.0.0.1:5001".parse().expect("an address")]);
    assert_eq!(config.notes, [""; 0]);
}

#[test]
fn samples_load_and_survive_a_round_trip() {
    let drop_in = with_variables(&[
        ("STORAGE_1_SIZE_GB", "100"),
        ("CACHEABLE_CUSTOM_1_HOST", "packages.example.com"),
        ("CACHEABLE_CUSTOM_1_CANONICAL", "examplepackages"),
    ]);
    let sample = |name: &str, text: &str| Sources::new().file(name, text);
    for (name, sources) in [
        ("none", Sources::new()),
        ("default", sample("default.yaml", DEFAULT)),
        ("enterprise", sample("enterprise.yaml", ENTERPRISE)),
        ("nested-edge", sample("nested-edge.yaml", NESTED_EDGE)),
        ("drop-in", drop_in),
        ("odd names", sample("a\n# b.yaml", "storage: { state: \"a # b: 'c' \\\"d\\\" \\n\\u00e9\" }")),
    ] {
        let first = Config::load(&sources).unwrap_or_else(|errors| panic!("{name}: {errors}"));
        let shown = first.effective.to_yaml();
        let second = load(&shown).unwrap_or_else(|errors| panic!("{name}: {errors}\n{shown}"));
        assert_eq!(typed(&first.config), typed(&second.config), "{name}");
        let values = |loaded: &Loaded| {
            loaded.effective.settings().into_iter().map(|setting| (setting.path, setting.value)).collect::<Vec<_>>()
        };
        assert_eq!(values(&first), values(&second), "{name}");
        let known: BTreeSet<String> = Config::setting_names().into_iter().collect();
        for (path, _) in values(&first) {
            // Without the indices of lists.
            let digit = |c: char| c.is_ascii_digit();
            let pattern = path.split('[').map(|part| part.trim_start_matches(digit)).collect::<Vec<_>>().join("[");
            let covered = known.iter().any(|name| pattern == *name || pattern.starts_with(&format!("{name}.")));
            assert!(covered, "{name}: {path} is shown and is no setting");
        }
    }
}

#[test]
fn samples_say_what_their_comments_promise() {
    let nested = load(NESTED_EDGE).expect("the sample").config;
    let update = nested.rules.iter().find(|policy| &*policy.rule == "*.nlu.dl.adu.microsoft.com").expect("a rule");
    assert!(update.freshness.immutable.matches("/westus2/a--b/0123456789abcdef0123456789abcdef/image.swu"));
    assert!(!update.freshness.immutable.matches("/WestUS2/rootkeypackages/rootkeypackage-2.json"));
    assert_eq!(nested.upstream.parents.len(), 1);
    assert!(!nested.upstream.direct, "an inner layer asks its parent and nobody else");
    let enterprise = load(ENTERPRISE).expect("the sample").config;
    assert!(enterprise.serve.clients.allows([10, 30, 1, 1].into()));
    assert!(!enterprise.serve.clients.allows([192, 168, 1, 1].into()));
    assert_eq!(enterprise.store.drives.iter().map(|drive| drive.quota).sum::<u64>(), 3_000_000_000_000);
}

#[test]
fn all_errors_come_at_once_with_their_paths() {
    let text = r#"
listen: { dta: 1, data: 8081, clients: [] }
storage: { drives: [{ path: /a, quota: 10 G }, { path: /a/b }, 3], block_size: 100 KiB }
origins:
  - { host: "http://user:secret@x/", query: [a], freshness: { immutable: ["[a"], defualt: 1 } }
  - { host: b.example, address: "user:secret@h:1", methods: [get] }
  - { abandon: 3 }
upstream: { proxy: 1, timeouts: { connect: 10 } }
limits: nope
log: { format: Json }
"#;
    assert_eq!(
        faults(text),
        [
            "listen.data",
            "listen.clients",
            "listen.dta",
            "storage.drives[0].quota",
            "storage.drives[1].path",
            "storage.drives[2]",
            "storage.block_size",
            "origins[0].host",
            "origins[0].query",
            "origins[0].freshness.immutable",
            "origins[0].freshness.defualt",
            "origins[1].address",
            "origins[1].methods[0]",
            "origins[2].host",
            "origins[2].abandon",
            "upstream.timeouts.connect",
            "upstream.proxy",
            "limits",
            "log.format",
        ]
    );
    let errors = load(text).expect_err("errors");
    for error in errors.as_slice() {
        assert!(!error.problem.is_empty() && !error.remedy.is_empty() && error.source == "file test.yaml", "{error}");
    }
    let shown = format!("{errors}{}", serde_json::to_string(&errors).expect("JSON"));
    assert!(!shown.contains("secret"), "{shown}");
    assert!(shown.contains("100 KiB") && shown.contains("power of two"), "{shown}");
}

#[test]
fn what_later_releases_bring_is_refused_and_not_ignored() {
    for (text, path) in [("admin: { tls: { key: a } }", "admin.tls"), ("admin: { token: secret }", "admin.token")] {
        let errors = load(text).expect_err(text);
        assert!(matches!(errors.as_slice(), [error] if error.path == path), "{errors}");
        assert!(errors.to_string().contains("does not support it yet"), "{errors}");
        assert!(!errors.to_string().contains("secret"), "{errors}");
    }
}

#[test]
fn names_of_clients_are_refused_where_nobody_could_show_them() {
    let load = |clients: &str, tls: &str| {
        let text = format!("listen: {{ clients: {clients}, tls: {{ {tls} }} }}");
        Config::load(&Sources::new().file("test", &text)).map(|loaded| loaded.config)
    };
    let with_ca = "addresses: [\"[::]:8443\"], certificate: /a, key: /b, client_ca: /c";
    let narrow = format!("{with_ca}, client_names: [\"*.plant.example\"]");
    let without_ca = "addresses: [\"[::]:8443\"], certificate: /a, key: /b";
    for (tls, name, words) in [
        ("", "l3.plant.example", ["no listener asks for certificates", "client_ca"]),
        (without_ca, "l3.plant.example", ["no listener asks for certificates", "client_ca"]),
        (&narrow, "l3.office.example", ["listen.tls.client_names refuses", "leave it out"]),
    ] {
        let error = load(&format!("[private, name:{name}]"), tls).unwrap_err().to_string();
        assert!(error.contains("listen.clients") && error.contains(&format!("name:{name}")), "{error}");
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    let config = load("[private, name:l3.plant.example, \"name:*.office.example\"]", with_ca).unwrap();
    assert_eq!(config.serve.named_clients.len(), 2);
    assert!(config.serve.clients.allows([10, 0, 0, 1].into()) && !config.serve.clients.allows([8, 8, 8, 8].into()));
    assert!(load("[\"name:*.l3.plant.example\"]", &narrow).is_ok());
    // Names alone are a choice: nobody comes in without a certificate.
    let config = load("name:l3.plant.example", with_ca).unwrap();
    assert!(!config.serve.clients.allows([127, 0, 0, 1].into()));
    assert!(config.notes.iter().any(|note| note.contains("refuse everybody")), "{:?}", config.notes);
}

#[test]
fn single_values_that_make_no_sense_are_refused() {
    for (text, path) in [
        ("listen: { data: [] }", "listen.data"),
        ("listen: { data: [\"[::]:80\", \"0.0.0.0:80\"] }", "listen.data"),
        ("listen: { data: [\"[::]:5001\"] }", "listen.admin"),
        ("listen: { data: [\"10.0.0.1:80\", \"10.0.0.1:80\"] }", "listen.data"),
        ("listen: { tls: { addresses: [\"[::]:8443\"] , certificate: /a } }", "listen.tls.key"),
        ("listen: { tls: { addresses: [\"[::]:8443\"], key: /b } }", "listen.tls.certificate"),
        ("listen: { tls: { certificate: /a } }", "listen.tls.certificate"),
        ("listen: { tls: { client_ca: /c } }", "listen.tls.client_ca"),
        (
            "listen: { tls: { addresses: [\"[::]:8443\"], certificate: /a, key: /b, client_names: [a.example] } }",
            "listen.tls.client_names",
        ),
        (
            "listen: { tls: { addresses: [\"[::]:8443\"], certificate: /a, key: /b, client_ca: /c, client_names: [\"*\"] } }",
            "listen.tls.client_names[0]",
        ),
        ("listen: { tls: { addresses: [\"[::]:8081\"], certificate: /a, key: /b } }", "listen.tls"),
        ("listen: { tls: { http2_addresses: [\"[::]:8443\"], key: /b } }", "listen.tls.certificate"),
        ("listen: { tls: { http2_addresses: [\"[::]:8081\"], certificate: /a, key: /b } }", "listen.tls"),
        ("listen: { tls: { addresses: [\"[::]:5001\"], certificate: /a, key: /b } }", "listen.admin"),
        ("listen: { tls: { address: \"[::]:8443\" } }", "listen.tls.address"),
        ("listen: { clients: [10.0.0.0/40] }", "listen.clients[0]"),
        ("listen: { trusted_proxies: [any] }", "listen.trusted_proxies[0]"),
        ("listen: { proxy_protocol: v2 }", "listen.proxy_protocol"),
        ("listen: { proxy_protocol: v1, trusted_proxies: [10.0.0.1] }", "listen.proxy_protocol"),
        ("listen: { clients: [\"name:\"] }", "listen.clients[0]"),
        ("listen: { clients: [\"name:*\"] }", "listen.clients[0]"),
        ("listen: { clients: [l3.plant.example] }", "listen.clients[0]"),
        ("listen: { digest_clients: [name:l3.plant.example] }", "listen.digest_clients[0]"),
        ("storage: { drives: [] }", "storage.drives"),
        ("storage: { drives: [{ quota: 1 GB }] }", "storage.drives[0].path"),
        ("storage: { drives: [{ path: ./a/ }, { path: a }] }", "storage.drives[1].path"),
        ("storage: { state: null }", "storage.state"),
        ("builtin_origins: [windows]", "builtin_origins[0]"),
        ("device_update_instances: [a.b]", "device_update_instances[0]"),
        ("{ builtin_origins: [], device_update_instances: [a--b] }", "device_update_instances"),
        ("origins: { host: a }", "origins"),
        ("origins: [{ host: \"*\" }]", "origins[0].host"),
        ("origins: [{ host: a.example }, { host: A.example. }]", "origins[1].host"),
        ("origins: [{ host: a.example, canonical: \"a/b\" }]", "origins[0].canonical"),
        ("origins: [{ host: a.example, port: 0 }]", "origins[0].port"),
        ("origins: [{ host: a.example, port: 65536 }]", "origins[0].port"),
        ("origins: [{ host: a.example, address: a.example }]", "origins[0].address"),
        ("origins: [{ host: a.example, methods: [] }]", "origins[0].methods"),
        ("origins: [{ host: a.example, methods: [GET, CONNECT] }]", "origins[0].methods[1]"),
        ("origins: [{ host: a.example, query: { drop: [] } }]", "origins[0].query"),
        ("origins: [{ host: a.example, query: { drop: [a], keep: [b] } }]", "origins[0].query"),
        ("origins: [{ host: a.example, auth_parameters: sas }]", "origins[0].auth_parameters"),
        ("origins: [{ host: a.example, freshness: { default: 10 } }]", "origins[0].freshness.default"),
        ("reverse: { default_origin: a.example }", "reverse.default_origin"),
        (
            "{ origins: [{ host: a.example }], reverse: { default_origin: \"http://a.example/x\" } }",
            "reverse.default_origin",
        ),
        (
            "{ origins: [{ host: a.example }], reverse: { default_origin: \"http://u:p@a.example\" } }",
            "reverse.default_origin",
        ),
        ("upstream: { budget: { rate: 1 kB/s } }", "upstream.budget.rate"),
        ("upstream: { budget: { rate: 0 } }", "upstream.budget.rate"),
        ("upstream: { budget: { daily: 10 } }", "upstream.budget.daily"),
        ("upstream: { budget: { time_zone: Mars/Olympus } }", "upstream.budget.time_zone"),
        ("upstream: { budget: { windows: [{ days: [] }] } }", "upstream.budget.windows[0].days"),
        ("upstream: { budget: { windows: [{ days: [monday] }] } }", "upstream.budget.windows[0].days[0]"),
        ("upstream: { budget: { windows: [{ from: 6 }] } }", "upstream.budget.windows[0].from"),
        ("upstream: { budget: { windows: [{ from: \"07:00\", to: \"07:00\" }] } }", "upstream.budget.windows[0].to"),
        ("upstream: { budget: { windows: [{ rate: open }] } }", "upstream.budget.windows[0].rate"),
        ("upstream: { parents: [{ url: http://l4.lan, rate: 1 }] }", "upstream.parents[0].rate"),
        ("origins: [{ host: a.example, budget: false, rate: 1 MB/s }]", "origins[0].rate"),
        ("upstream: { direct: 1 }", "upstream.direct"),
        ("connect: { allow: [a.example] }", "connect.allow[0]"),
        ("connect: { allow: [\"a.example:443\", \"*:443\"] }", "connect.allow[1]"),
        ("connect: { allow: [\"10.0.0.1:443\"] }", "connect.allow[0]"),
        ("connect: { allow_private: [\"169.254.169.254:80\"] }", "connect.allow_private[0]"),
        ("connect: { idle_time: 0s }", "connect.idle_time"),
        ("upstream: { timeouts: { stall: 0s } }", "upstream.timeouts.stall"),
        ("limits: { requests: 0 }", "limits.requests"),
        ("limits: { header_bytes: 1 KiB }", "limits.header_bytes"),
        ("drain_grace: 2d", "drain_grace"),
        ("pseudonym: two words", "pseudonym"),
        ("- a", ""),
        ("a: [", ""),
    ] {
        assert_eq!(faults(text), [path], "{text}");
    }
}

#[test]
fn later_layers_go_before_earlier_ones() {
    let file = "{ log: { level: warn, format: json }, drain_grace: 1s, limits: { requests: 1 } }";
    let sources = Sources::new()
        .file("site.yaml", file)
        .variable("WAYSTATION_LOG__LEVEL", "error")
        .variable("WAYSTATION_DRAIN_GRACE", "2s")
        .set("--set", "drain_grace", "3s");
    let loaded = Config::load(&sources).expect("valid layers");
    let source = |path: &str| {
        let setting = loaded.effective.settings().into_iter().find(|setting| setting.path == path);
        setting.map(|setting| (setting.value, setting.source)).expect(path)
    };
    let pair = |value: &str, source: &str| (value.to_owned(), source.to_owned());
    assert_eq!(source("log.level"), pair("error", "variable WAYSTATION_LOG__LEVEL"));
    assert_eq!(source("log.format"), pair("json", "file site.yaml"));
    assert_eq!(source("drain_grace"), pair("3s", "flag --set"));
    assert_eq!(source("log.access"), pair("true", "default"));
    assert!(loaded.effective.to_yaml().contains("# variable WAYSTATION_LOG__LEVEL"));
}

#[test]
fn variables_reach_elements_and_name_themselves_in_errors() {
    let sources = with_variables(&[
        ("WAYSTATION_STORAGE__DRIVES__0__PATH", "/a"),
        ("WAYSTATION_STORAGE__DRIVES__1", "{ path: /b, quota: 20 GB }"),
        ("WAYSTATION_LISTEN__DATA", "[::]:80"),
        ("WAYSTATION_PORT", "tcp://10.0.0.1:8081"),
    ]);
    let config = Config::load(&sources).expect("valid variables").config;
    let drives: Vec<_> = config.store.drives.iter().map(|drive| (drive.path.to_str(), drive.quota)).collect();
    assert_eq!(drives, [(Some("/a"), 10_000_000_000), (Some("/b"), 20_000_000_000)]);
    let errors = Config::load(&with_variables(&[
        ("WAYSTATION_LISTEN__DTA", "x"),
        ("WAYSTATION_LISTEN__DATA__5", "x"),
        ("WAYSTATION_LOG__LEVEL", "loud"),
    ]));
    let errors = errors.expect_err("wrong variables").to_string();
    for part in
        ["variable WAYSTATION_LISTEN__DTA", "variable WAYSTATION_LISTEN__DATA__5", "variable WAYSTATION_LOG__LEVEL"]
    {
        assert!(errors.contains(part), "{errors}");
    }
}

#[test]
fn flags_with_wrong_names_are_refused() {
    let errors = Config::load(&Sources::new().set("--set", "log..level", "x").set("--set", "log.lvl", "x"));
    let errors = errors.expect_err("wrong flags");
    let paths: Vec<&str> = errors.as_slice().iter().map(|error| error.path.as_str()).collect();
    assert_eq!(paths, ["log..level", "log.lvl"]);
}

#[test]
fn own_rules_replace_built_in_ones_and_come_first() {
    let config = load("origins: [{ host: \"*.nlu.dl.adu.microsoft.com\", canonical: mine }]").expect("valid").config;
    assert_eq!(config.rules.iter().filter(|policy| &*policy.rule == "*.nlu.dl.adu.microsoft.com").count(), 1);
    assert_eq!(rule(&config).canonical.as_deref(), Some("mine"));
    let config = load("builtin_origins: []").expect("valid").config;
    assert!(config.rules.is_empty() && !config.notes.is_empty());
}

#[test]
fn literal_addresses_that_the_guard_refuses_must_be_allowed() {
    for address in ["127.0.0.1", "8.8.8.8"] {
        let refused = refuse_address(address.parse().expect("an address")).is_some();
        let host = format!("origins: [{{ host: {address} }}]");
        assert_eq!(load(&host).is_err(), refused, "{address}");
        let target = format!("origins: [{{ host: a.example, address: \"{address}:80\" }}]");
        assert_eq!(load(&target).is_err(), refused, "{address}");
        let allowed = format!("origins: [{{ host: {address}, address: \"{address}:80\", allow_private: true }}]");
        assert!(load(&allowed).is_ok(), "{address}");
        let reverse = format!("reverse: {{ default_origin: \"http://{address}:8000\" }}");
        assert_eq!(load(&reverse).is_err(), refused, "{address}");
        assert!(load(&format!("{allowed}\n{reverse}")).is_ok(), "{address}");
    }
}

#[test]
fn no_rule_lifts_the_guard_for_addresses_of_platforms() {
    for address in ["169.254.169.254", "0.0.0.0", "224.0.0.1"] {
        assert_eq!(faults(&format!("origins: [{{ host: {address}, allow_private: true }}]")), ["origins[0].host"]);
        let target = format!("origins: [{{ host: a.example, allow_private: true, address: \"{address}:80\" }}]");
        assert_eq!(faults(&target), ["origins[0].address"]);
    }
}

#[test]
fn two_caches_do_not_take_each_other_for_themselves() {
    let pseudonym = || load("").expect("defaults").config.serve.pseudonym;
    let (first, second) = (pseudonym(), pseudonym());
    assert!(first.starts_with("waystation-") && first != second, "{first} {second}");
}

#[test]
fn listeners_side_by_side_are_allowed() {
    for data in
        ["[\"0.0.0.0:80\", \"[::1]:80\"]", "[\"127.0.0.1:0\", \"127.0.0.1:0\"]", "[\"10.0.0.1:5001\"]", "127.0.0.1:80"]
    {
        assert!(load(&format!("listen: {{ data: {data} }}")).is_ok(), "{data}");
    }
}

#[test]
fn the_program_says_what_is_wrong_and_ends_with_2() {
    let waystation = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_waystation"));
        let output =
            command.args(arguments).env_clear().env("WAYSTATION_LOG__LEVEL", "warn").output().expect("it starts");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let wrong = ["--set", "log.format=xml", "--set", "log.colour=red"];
    let (code, out, err) = waystation(&[&["run"], &wrong[..]].concat());
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.contains("log.format") && err.contains("log.colour"), "{err}");
    let (code, out, _) = waystation(&[&["config", "check", "--output", "json"], &wrong[..]].concat());
    assert_eq!(code, Some(2));
    let errors: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let paths: Vec<_> = errors["errors"].as_array().expect("a list").iter().map(|error| &error["path"]).collect();
    assert_eq!(paths, ["log.format", "log.colour"]);
    let (code, out, _) = waystation(&["config", "show"]);
    assert_eq!(code, Some(0));
    assert!(out.lines().any(|line| line.contains("level: warn") && line.ends_with("# variable WAYSTATION_LOG__LEVEL")));
    let (code, _, err) = waystation(&["config", "check", "no/such/file.yaml"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("no/such/file.yaml"), "{err}");
    let (code, out, _) = waystation(&["--version"]);
    assert_eq!((code, out.trim()), (Some(0), concat!("waystation ", env!("CARGO_PKG_VERSION"))));
}

proptest::proptest! {
    #[test]
    fn any_file_and_any_value_gets_an_answer(
        text in "\\PC{0,60}",
        name in 0..EFFECTS.len(),
        value in "(\\[|\\{|\"|)[a-z0-9 .:*/,@-]{0,12}(\\]|\\}|\"|)",
    ) {
        let _ = load(&text);
        let path = EFFECTS[name].0.replace("[]", "[0]");
        let _ = Config::load(&Sources::new().set("--set", &path, &value));
        let _ = Config::load(&with_variables(&[("CACHEABLE_CUSTOM_1_HOST", &text), ("STORAGE_1_SIZE_GB", &value)]));
    }
}
