//! The merged tree to the typed settings of every part. The list of all settings is what is asked for here.

use std::cell::RefCell;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tracing::level_filters::LevelFilter;

use crate::admin;
use crate::content::{AccessList, Origin};
use crate::serve::{self, Limits};
use crate::store::{self, DriveSettings};
use crate::telemetry::{LogFormat, LogSettings};

use super::builtin::{self, OriginSet, Rule};
use super::connect::connect;
use super::host::HostPattern;
use super::listen::listen;
use super::reader::{Fault, Report, Section};
use super::tree::{Node, Value};
use super::values::{self, ClientWord};
use super::{Config, origins, sources};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Delivery Optimization agents leave a cache alone that has sent no body byte after 15 s.
const AGENT_PATIENCE: Duration = Duration::from_secs(15);

/// Levels by name.
const LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

/// Reads everything; `None` when `report` has an error.
pub(super) fn build(root: &mut Node, report: &mut Report, mut notes: Vec<String>) -> Option<Config> {
    report.read(root, |root| {
        let listen = root.section("listen", listen);
        let store = root.section("storage", storage);
        let rules = rules(root);
        let default_origin = root.section("reverse", |section| default_origin(section, rules.as_deref()));
        let upstream = root.section("upstream", sources::upstream);
        let connect = root.section("connect", connect);
        let limits = root.section("limits", limits);
        let cache_status_key = root.value("cache_status_key", values::boolean);
        let clients_may_refetch = root.value("clients_may_refetch", values::boolean);
        let admin = root.section("admin", admin);
        let log = root.section("log", log);
        let drain_grace = root.value("drain_grace", values::duration(Duration::ZERO..=HOUR, "up to 1h"));
        let pseudonym = root.value("pseudonym", values::optional(values::token));
        let (listen, rules, upstream, connect, admin) = (listen?, rules?, upstream?, connect?, admin?);
        if rules.is_empty() {
            notes.push("there is no origin rule: every request is refused".to_owned());
        }
        if !upstream.may_fetch() {
            notes.push(
                "upstream.direct is false and there are no parents: only what is stored already is served".to_owned(),
            );
        }
        if !upstream.direct && !upstream.parents.is_empty() {
            let unused = rules.iter().filter(|(_, policy)| policy.parents && policy.address.is_some());
            notes.extend(unused.map(|(pattern, _)| {
                let host = pattern.as_str();
                format!("the rule for {host} has an address, which is not used: its content comes from the parents, unless the rule says parents: false")
            }));
        }
        if upstream.timeouts.request >= AGENT_PATIENCE {
            notes.push("upstream.timeouts.request: Delivery Optimization agents give up after 15s".to_owned());
        }
        if !connect.rules.is_empty() && listen.clients == AccessList::Any {
            notes.push("connect.allow opens tunnels for everybody, since listen.clients says any".to_owned());
        }
        if listen.clients == AccessList::nobody() {
            notes.push(
                "listen.clients has names and no addresses: the listeners without TLS refuse everybody".to_owned(),
            );
        }
        if admin.allow_plaintext && admin.token_file.is_some() {
            notes.push("admin.allow_plaintext: who listens on the way learns the token".to_owned());
        }
        let mut upstream = upstream;
        let rates = rules.iter().filter_map(|(_, policy)| Some((Arc::clone(&policy.rule), policy.rate?)));
        upstream.budget.sources.extend(rates);
        Some(Config {
            serve: serve::Settings {
                data: listen.data,
                tls: listen.tls,
                clients: listen.clients,
                named_clients: listen.named_clients,
                trusted_proxies: listen.trusted_proxies,
                proxy_protocol: listen.proxy_protocol,
                digest_clients: listen.digest_clients,
                digest_certified: listen.digest_certified,
                limits: limits?,
                drain_grace: drain_grace?,
                pseudonym: pseudonym?.unwrap_or_else(random_pseudonym).into(),
                cache_status_key: cache_status_key?,
                clients_may_refetch: clients_may_refetch?,
                tunnel_idle_time: connect.idle_time,
            },
            store: store?,
            upstream,
            rules: rules.into_iter().map(|(_, policy)| Arc::new(policy)).collect(),
            default_origin: default_origin?,
            connect: connect.rules,
            admin: admin::Settings { addresses: listen.admin, ..admin },
            log: log?,
            notes,
        })
    })
}

fn admin(section: &mut Section<'_>) -> Option<admin::Settings> {
    let summary_clients = access(section, "summary_clients");
    let metrics_clients = access(section, "metrics_clients");
    let token_file = section.value("token_file", values::optional(values::path));
    let allow_plaintext = section.value("allow_plaintext", values::boolean);
    Some(admin::Settings {
        summary_clients: summary_clients?,
        metrics_clients: metrics_clients?,
        token_file: token_file?,
        allow_plaintext: allow_plaintext?,
        ..admin::Settings::default()
    })
}

fn storage(section: &mut Section<'_>) -> Option<store::Settings> {
    let state = section.value("state", values::path);
    let taken = RefCell::new(Vec::<PathBuf>::new());
    let drives = section.sections("drives", |section| drive(section, &taken));
    let block_size = section.value("block_size", |value| {
        let allowed = "that is a power of two from 64 KiB to 16 MiB";
        let size = values::size(64 * KIB..=16 * MIB, allowed)(value)?;
        u32::try_from(size)
            .ok()
            .filter(|size| size.is_power_of_two())
            .ok_or_else(|| Fault::new("this size is not allowed", format!("write a size {allowed}")))
    });
    let memory = section.value("memory", values::size(0..=1 << 50, "up to the memory of the machine, 0 for none"));
    let memory_body = section.value("memory_body", values::size(0..=16 * MIB, "up to 16 MiB"));
    let window_memory =
        section.value("window_memory", values::size(0..=1 << 40, "up to the memory of the machine, 0 for none"));
    let reverify = section.value("reverify", values::duration(MILLISECOND..=365 * DAY, "from 1ms to 365d"));
    let scrub_rate = section.value("scrub_rate", values::size(0..=1 << 40, "per second, 0 for never"));
    let scrub_every = section.value("scrub_every", values::duration(MILLISECOND..=3650 * DAY, "from 1ms to 3650d"));
    let drive_timeout = section.value("drive_timeout", values::duration(MILLISECOND..=DAY, "from 1ms to 1d"));
    let shrink_rate = section.value("shrink_rate", values::size(0..=1 << 40, "per second, 0 for at once"));
    if drives.as_ref().is_some_and(Vec::is_empty) {
        section
            .fault("drives", Fault::new("there is nowhere to store", "write at least one drive with path and quota"));
    }
    Some(store::Settings {
        state: state?,
        drives: drives?,
        block_size: block_size?,
        memory: memory?,
        memory_body: memory_body?,
        window_memory: window_memory?,
        reverify: reverify?,
        scrub_rate: scrub_rate?,
        scrub_every: scrub_every?,
        drive_timeout: drive_timeout?,
        shrink_rate: shrink_rate?,
        ..store::Settings::default()
    })
}

fn drive(section: &mut Section<'_>, taken: &RefCell<Vec<PathBuf>>) -> Option<DriveSettings> {
    let path = section.value("path", values::path);
    let quota = section.value_or("quota", "10 GB", values::size(16 * MIB..=1 << 60, "of at least 16 MiB"));
    let min_free = section.value_or("min_free", "1 GB", values::size(0..=1 << 60, "of 0 or more"));
    if let Some(path) = &path {
        let plain = plain(path);
        let mut taken = taken.borrow_mut();
        if taken.iter().any(|other| other.starts_with(&plain) || plain.starts_with(other)) {
            let remedy = "give each drive a directory of its own, none inside another";
            section.fault("path", Fault::new("this directory belongs to another drive", remedy));
        }
        taken.push(plain);
    }
    Some(DriveSettings { path: path?, quota: quota?, min_free: min_free? })
}

/// Own rules first, then the built-in ones that no own rule replaces.
fn rules(root: &mut Section<'_>) -> Option<Vec<Rule>> {
    let sets = root.values("builtin_origins", None, values::word(&builtin::SETS));
    let instances = root.values("device_update_instances", None, instance);
    let taken = RefCell::new(Vec::new());
    let own = root.sections("origins", |section| origins::rule(section, &mut taken.borrow_mut()));
    let narrows = instances.as_ref().is_some_and(|instances| !instances.is_empty());
    if narrows && sets.as_ref().is_some_and(|sets| !sets.contains(&OriginSet::DeviceUpdate)) {
        let remedy = "add device-update to builtin_origins, or remove the instances";
        root.fault("device_update_instances", Fault::new("there is no built-in set to narrow", remedy));
    }
    let (sets, instances, mut rules) = (sets?, instances?, own?);
    for rule in sets.into_iter().flat_map(|set| builtin::rules(set, &instances)) {
        if !rules.iter().any(|(pattern, _)| *pattern == rule.0) {
            rules.push(rule);
        }
    }
    Some(rules)
}

/// A rule for its host is not needed, unless to allow its address.
fn default_origin(section: &mut Section<'_>, rules: Option<&[Rule]>) -> Option<Option<Origin>> {
    let origin = section.value("default_origin", values::optional(origins::origin))?;
    if let (Some(origin), Some(rules)) = (&origin, rules) {
        let literal = HostPattern::parse(&origin.host).ok().and_then(|pattern| pattern.literal());
        let allowed = rules.iter().any(|(pattern, policy)| pattern.matches(&origin.host) && policy.allow_private);
        let remedy = format!("add {{ host: \"{}\", allow_private: true }} to origins", origin.host);
        if let Some(fault) = literal.and_then(|literal| origins::guard(literal, allowed, &remedy)) {
            section.fault("default_origin", fault);
        }
    }
    Some(origin)
}

fn limits(section: &mut Section<'_>) -> Option<Limits> {
    let requests = section.value("requests", values::whole(1..=1_000_000));
    let connections_per_client = section.value("connections_per_client", values::whole(1..=1_000_000));
    let header_bytes = section.value("header_bytes", values::size(8 * KIB..=MIB, "from 8 KiB to 1 MiB"));
    let time = || values::duration(10 * MILLISECOND..=DAY, "from 10ms to 1d");
    let header_time = section.value("header_time", time());
    let idle_time = section.value("idle_time", time());
    let body_time = section.value("body_time", time());
    let ranges = section.value("ranges", values::whole(1..=1000));
    Some(Limits {
        requests: requests?,
        connections_per_client: connections_per_client?,
        header_bytes: usize::try_from(header_bytes?).ok()?,
        header_time: header_time?,
        idle_time: idle_time?,
        body_time: body_time?,
        ranges: ranges?,
    })
}

fn log(section: &mut Section<'_>) -> Option<LogSettings> {
    let format = section.value(
        "format",
        values::word(&[("human", LogFormat::Human), ("json", LogFormat::Json), ("iotedge", LogFormat::IotEdge)]),
    );
    let level = section.value("level", values::word(&LEVELS));
    let access = section.value("access", values::boolean);
    Some(LogSettings { format: format?, level: level?, access: access? })
}

fn access(section: &mut Section<'_>, name: &'static str) -> Option<AccessList> {
    let words = section.values(name, None, values::client)?;
    Some(networks(&words).map_or(AccessList::Any, AccessList::Networks))
}

/// The networks that are meant; `None` for any.
pub(super) fn networks(words: &[ClientWord]) -> Option<Vec<IpNet>> {
    let mut networks = Vec::new();
    for word in words {
        match word {
            ClientWord::Any => return None,
            ClientWord::Loopback => {
                networks.extend(["127.0.0.0/8", "::1/128"].iter().filter_map(|n| n.parse::<IpNet>().ok()))
            }
            ClientWord::Private => {
                if let AccessList::Networks(private) = AccessList::private() {
                    networks.extend(private);
                }
            }
            ClientWord::Network(network) => networks.push(*network),
        }
    }
    Some(networks)
}

/// The name of a Device Update instance as it stands in the host of its payloads.
fn instance(value: &Value) -> Result<String, Fault> {
    let text = values::text(value)?.to_ascii_lowercase();
    let proper = text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if proper {
        Ok(text)
    } else {
        Err(Fault::new(
            "this is not the name of an instance",
            "write <instance>--<account>, as in the URLs of its files",
        ))
    }
}

/// A name that no other cache has: one that meets its own name in a request takes it for a loop. It says
/// nothing about the machine, since origins get to see it.
fn random_pseudonym() -> String {
    let mut random = [0; 4];
    match getrandom::fill(&mut random) {
        Ok(()) => format!("waystation-{:08x}", u32::from_be_bytes(random)),
        Err(_) => format!("waystation-{:08x}", std::process::id()),
    }
}

/// The path without `.` components and trailing slashes, for comparing.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|component| *component != Component::CurDir).collect()
}
