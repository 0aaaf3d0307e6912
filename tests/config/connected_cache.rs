//! The variables of Connected Cache.

use waystation::config::{Config, Sources};

use super::effects::{hosts, rule};
use super::with_variables;

#[test]
fn connected_cache_variables_make_a_drop_in() {
    let variables = [
        ("CUSTOMER_ID", "11111111-1111-1111-1111-111111111111"),
        ("CACHE_NODE_ID", "22222222-2222-2222-2222-222222222222"),
        ("CUSTOMER_KEY", "top-secret"),
        ("STORAGE_2_SIZE_GB", "50"),
        ("STORAGE_1_SIZE_GB", "100"),
        ("CACHEABLE_CUSTOM_1_HOST", "Packages.example.com"),
        ("CACHEABLE_CUSTOM_1_CANONICAL", "examplepackages"),
        ("CACHEABLE_CUSTOM_2_HOST", "*.example.org"),
        ("IS_SUMMARY_PUBLIC", "False"),
        ("IS_SUMMARY_ACCESS_UNRESTRICTED", "True"),
    ];
    let loaded = Config::load(&with_variables(&variables)).expect("a drop-in");
    let config = &loaded.config;
    assert_eq!(config.store.state.to_str(), Some("/nginx/cache1/.waystation"));
    let drives: Vec<_> = config.store.drives.iter().map(|drive| (drive.path.to_str(), drive.quota)).collect();
    assert_eq!(drives, [(Some("/nginx/cache1"), 100_000_000_000), (Some("/nginx/cache2"), 50_000_000_000)]);
    let admin: Vec<String> = config.admin.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(admin, ["0.0.0.0:5001", "0.0.0.0:5000"]);
    assert_eq!(
        hosts(config),
        "packages.example.com *.example.org *.nlu.dl.adu.microsoft.com *.tlu.dl.adu.microsoft.com \
         *.dcsfe.prod.adu.microsoft.com *.delivery.mp.microsoft.com *.download.windowsupdate.com *.do.dsp.mp.microsoft.com"
    );
    assert_eq!(rule(config).canonical.as_deref(), Some("examplepackages"));
    assert!(rule(config).plus_is_literal);
    assert!(config.notes.iter().any(|note| note.contains("CUSTOMER_ID, CACHE_NODE_ID, CUSTOMER_KEY")));
    let everything = format!("{config:?}{}", loaded.effective.to_yaml());
    assert!(!everything.contains("top-secret") && !everything.contains("11111111-"));

    let standalone = Config::load(&Sources::new()).expect("defaults").config;
    assert_ne!(config.admin.summary_clients, standalone.admin.summary_clients);
    assert_eq!(config.admin.metrics_clients, standalone.admin.metrics_clients);
}

#[test]
fn own_settings_go_before_connected_cache_variables() {
    let sources = with_variables(&[("STORAGE_1_SIZE_GB", "100"), ("CACHEABLE_CUSTOM_1_HOST", "a.example.com")])
        .file("f", "{ storage: { drives: [{ path: /own }] }, origins: [{ host: a.example.com, abandon: complete }] }");
    let config = Config::load(&sources).expect("both").config;
    assert_eq!(config.store.drives[0].path.to_str(), Some("/own"));
    assert_eq!(config.rules.iter().filter(|policy| &*policy.rule == "a.example.com").count(), 1);
    for name in ["STORAGE_*_SIZE_GB", "CACHEABLE_CUSTOM_1_HOST"] {
        assert!(config.notes.iter().any(|note| note.starts_with(name)), "{name}: {:?}", config.notes);
    }
}

#[test]
fn wrong_connected_cache_values_name_their_variable() {
    for (name, value) in [
        ("STORAGE_1_SIZE_GB", "lots"),
        ("STORAGE_1_SIZE_GB", "0"),
        ("STORAGE_1_SIZE_GB", "-5"),
        ("STORAGE_1_SIZE_GB", "99999999999999999999"),
        ("CACHEABLE_CUSTOM_1_HOST", "http://a/"),
        ("IS_SUMMARY_ACCESS_UNRESTRICTED", "perhaps"),
    ] {
        let errors = Config::load(&with_variables(&[(name, value)])).expect_err(value).to_string();
        assert!(errors.contains(&format!("variable {name}")), "{errors}");
    }
}
