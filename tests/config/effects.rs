//! One row for each setting: two values, and where in the typed settings the difference is seen.

use waystation::config::Config;
use waystation::content::Policy;

/// What a setting changes, as text.
pub(super) type Effect = fn(&Config) -> String;

/// A setting, two values for it, and where the difference is seen.
pub(super) type Row = (&'static str, &'static str, &'static str, Effect);

/// One row for each setting.
pub(super) const EFFECTS: &[Row] = &[
    ("listen.data", "127.0.0.1:1", "[127.0.0.1:2, \"[::1]:3\"]", |c| format!("{:?}", c.serve.data)),
    ("listen.tls.addresses", "127.0.0.1:1", "[127.0.0.1:2, \"[::1]:3\"]", |c| format!("{:?}", c.serve.tls)),
    ("listen.tls.http2_addresses", "127.0.0.1:1", "[127.0.0.1:2]", |c| format!("{:?}", c.serve.tls)),
    ("listen.tls.certificate", "/x", "/y", |c| format!("{:?}", c.serve.tls)),
    ("listen.tls.key", "/x", "/y", |c| format!("{:?}", c.serve.tls)),
    ("listen.tls.client_ca", "/x", "/y", |c| format!("{:?}", c.serve.tls)),
    ("listen.tls.client_names", "[]", "[a.example, \"*.b.example\"]", |c| format!("{:?}", c.serve.tls)),
    ("listen.admin", "127.0.0.1:1", "[]", |c| format!("{:?}", c.admin.addresses)),
    ("listen.clients", "[private]", "[any]", |c| format!("{}", c.serve.clients.allows([8, 8, 8, 8].into()))),
    ("listen.clients", "[private, name:a.example]", "[private, \"name:*.example\"]", |c| {
        format!("{:?}", c.serve.named_clients)
    }),
    ("listen.digest_clients", "[]", "[10.0.0.1]", |c| format!("{:?}", c.serve.digest_clients)),
    ("listen.trusted_proxies", "[]", "[10.0.0.1]", |c| format!("{:?}", c.serve.trusted_proxies)),
    ("listen.proxy_protocol", "none", "v2", |c| format!("{:?}", c.serve.proxy_protocol)),
    ("admin.summary_clients", "[any]", "[loopback]", |c| format!("{:?}", c.admin.summary_clients)),
    ("admin.metrics_clients", "[]", "[10.0.0.0/8]", |c| format!("{:?}", c.admin.metrics_clients)),
    ("admin.token_file", "/a", "/b", |c| format!("{:?}", c.admin.token_file)),
    ("admin.allow_plaintext", "false", "true", |c| c.admin.allow_plaintext.to_string()),
    ("storage.state", "/a", "/b", |c| format!("{:?}", c.store.state)),
    ("storage.drives[].path", "/a", "/b", |c| format!("{:?}", c.store.drives)),
    ("storage.drives[].quota", "1 GB", "1 GiB", |c| format!("{:?}", c.store.drives)),
    ("storage.drives[].min_free", "0", "1 MB", |c| format!("{:?}", c.store.drives)),
    ("storage.block_size", "64 KiB", "16 MiB", |c| c.store.block_size.to_string()),
    ("storage.memory", "0", "1 GiB", |c| c.store.memory.to_string()),
    ("storage.window_memory", "0", "1 GiB", |c| c.store.window_memory.to_string()),
    ("storage.memory_body", "1 KiB", "2 KiB", |c| c.store.memory_body.to_string()),
    ("storage.reverify", "1h", "1d", |c| format!("{:?}", c.store.reverify)),
    ("storage.scrub_rate", "0", "1 MiB", |c| c.store.scrub_rate.to_string()),
    ("storage.scrub_every", "1d", "7d", |c| format!("{:?}", c.store.scrub_every)),
    ("storage.drive_timeout", "1s", "1m", |c| format!("{:?}", c.store.drive_timeout)),
    ("storage.shrink_rate", "0", "1 MiB", |c| c.store.shrink_rate.to_string()),
    ("builtin_origins", "[]", "[delivery-optimization]", hosts),
    ("device_update_instances", "[]", "[contoso--account]", hosts),
    ("origins[].host", "a.example.com", "*.example.com", hosts),
    ("origins[].canonical", "null", "one", |c| format!("{:?}", rule(c).canonical)),
    ("origins[].scheme", "http", "as-asked", |c| format!("{:?}", rule(c).scheme)),
    ("origins[].port", "null", "8080", |c| format!("{:?}", rule(c).port)),
    ("origins[].address", "null", "mirror.example.com:80", |c| format!("{:?}", rule(c).address)),
    ("origins[].allow_private", "false", "true", |c| rule(c).allow_private.to_string()),
    ("origins[].parents", "true", "false", |c| rule(c).parents.to_string()),
    ("origins[].budget", "true", "false", |c| rule(c).budgeted.to_string()),
    ("origins[].rate", "null", "2 MB/s", |c| format!("{:?}", c.upstream.budget)),
    ("origins[].fill", "whole", "ranged", |c| format!("{:?}", rule(c).fill)),
    ("origins[].digests", "{}", "{ /a: 0000000000000000000000000000000000000000000000000000000000000000 }", |c| {
        format!("{:?}", rule(c).digests)
    }),
    ("origins[].abandon", "stop", "complete", |c| format!("{:?}", rule(c).abandon)),
    ("origins[].query", "{ keep: [v] }", "{ drop: [v] }", |c| format!("{:?}", rule(c).query)),
    ("origins[].auth_parameters", "azure-sas", "[token]", |c| format!("{:?}", rule(c).auth_parameters)),
    ("origins[].freshness.immutable", "[]", "[\"*.deb\"]", |c| {
        rule(c).freshness.immutable.matches("/pool/a.deb").to_string()
    }),
    ("origins[].freshness.default", "heuristic", "1h", |c| format!("{:?}", rule(c).freshness.default)),
    ("origins[].freshness.negative", "0s", "1h", |c| format!("{:?}", rule(c).freshness.negative)),
    ("origins[].freshness.stale_if_error", "unlimited", "30d", |c| format!("{:?}", rule(c).freshness.stale_if_error)),
    ("origins[].methods", "[GET]", "[GET, HEAD, POST]", |c| format!("{:?}", rule(c).methods)),
    ("origins[].set_cookie", "pass", "strip", |c| format!("{:?}", rule(c).set_cookie)),
    ("origins[].shield_client_errors", "[]", "[InRelease]", |c| {
        rule(c).shield_client_errors.matches("/dists/a/InRelease").to_string()
    }),
    ("origins[].plus_is_literal", "false", "true", |c| rule(c).plus_is_literal.to_string()),
    ("origins[].identity_only", "false", "true", |c| rule(c).identity_only.to_string()),
    ("reverse.default_origin", "null", "https://a.example.com:8443", |c| format!("{:?}", c.default_origin)),
    ("upstream.parents[].url", "http://l4.lan", "https://l4.lan:8443", |c| format!("{:?}", c.upstream.parents)),
    ("upstream.parents[].kind", "connected-cache", "forward-proxy", |c| format!("{:?}", c.upstream.parents)),
    ("upstream.parents[].proxy", "null", "http://a:b@proxy.lan:3128", |c| format!("{:?}", c.upstream.parents)),
    ("upstream.parents[].trusted", "false", "true", |c| format!("{:?}", c.upstream.parents)),
    ("upstream.parents[].tls_name", "null", "l4.lan", |c| format!("{:?}", c.upstream.parents)),
    ("upstream.parents[].rate", "null", "2 MB/s", |c| format!("{:?}", c.upstream.budget)),
    ("upstream.budget.rate", "closed", "20 Mbit/s", |c| format!("{:?}", c.upstream.budget)),
    ("upstream.budget.daily", "null", "20 GB", |c| format!("{:?}", c.upstream.budget)),
    ("upstream.budget.time_zone", "UTC", "Europe/Berlin", |c| format!("{:?}", c.upstream.budget)),
    ("upstream.budget.windows[].days", "[mon-fri]", "[sat, sun]", |c| format!("{:?}", c.upstream.budget)),
    ("upstream.budget.windows[].from", "\"06:00\"", "\"07:00\"", |c| format!("{:?}", c.upstream.budget)),
    ("upstream.budget.windows[].to", "\"06:00\"", "\"24:00\"", |c| format!("{:?}", c.upstream.budget)),
    ("upstream.budget.windows[].rate", "null", "closed", |c| format!("{:?}", c.upstream.budget)),
    ("upstream.tls.ca", "null", "ca.pem", |c| format!("{:?}", c.upstream.tls)),
    ("upstream.direct", "true", "false", |c| c.upstream.direct.to_string()),
    ("upstream.http_proxy", "null", "http://a:b@proxy.lan:3128", |c| format!("{:?}", c.upstream.proxies)),
    ("upstream.https_proxy", "null", "proxy.lan:3128", |c| format!("{:?}", c.upstream.proxies)),
    ("upstream.no_proxy", "[]", "[10.0.0.0/8]", |c| format!("{:?}", c.upstream.proxies)),
    ("upstream.timeouts.connect", "1s", "2s", |c| format!("{:?}", c.upstream.timeouts)),
    ("upstream.timeouts.first_byte", "1s", "2s", |c| format!("{:?}", c.upstream.timeouts)),
    ("upstream.timeouts.stall", "1s", "2s", |c| format!("{:?}", c.upstream.timeouts)),
    ("upstream.timeouts.request", "1s", "2s", |c| format!("{:?}", c.upstream.timeouts)),
    ("connect.allow", "[]", "[\"*.example.com:443\"]", |c| format!("{:?}", c.connect)),
    ("connect.allow_private", "[\"a.example.com:443\"]", "[\"10.0.0.1:443\"]", |c| format!("{:?}", c.connect)),
    ("connect.idle_time", "1s", "2s", |c| format!("{:?}", c.serve.tunnel_idle_time)),
    ("limits.requests", "1", "2", |c| format!("{:?}", c.serve.limits)),
    ("limits.connections_per_client", "1", "2", |c| format!("{:?}", c.serve.limits)),
    ("limits.header_bytes", "8 KiB", "16 KiB", |c| format!("{:?}", c.serve.limits)),
    ("limits.header_time", "1s", "2s", |c| format!("{:?}", c.serve.limits)),
    ("limits.idle_time", "1s", "2s", |c| format!("{:?}", c.serve.limits)),
    ("limits.body_time", "1s", "2s", |c| format!("{:?}", c.serve.limits)),
    ("limits.ranges", "1", "2", |c| format!("{:?}", c.serve.limits)),
    ("cache_status_key", "false", "true", |c| c.serve.cache_status_key.to_string()),
    ("clients_may_refetch", "false", "true", |c| c.serve.clients_may_refetch.to_string()),
    ("log.format", "human", "iotedge", |c| format!("{:?}", c.log)),
    ("log.level", "info", "trace", |c| format!("{:?}", c.log)),
    ("log.access", "true", "false", |c| format!("{:?}", c.log)),
    ("drain_grace", "0s", "1m", |c| format!("{:?}", c.serve.drain_grace)),
    ("pseudonym", "null", "site-7", |c| c.serve.pseudonym.to_string()),
];

/// The first rule.
pub(super) fn rule(config: &Config) -> &Policy {
    config.rules.first().expect("the first rule")
}

/// The hosts of all rules.
pub(super) fn hosts(config: &Config) -> String {
    let hosts: Vec<&str> = config.rules.iter().map(|policy| &*policy.rule).collect();
    hosts.join(" ")
}
