//! The built-in origin sets: the hosts of Device Update for IoT Hub and of Windows and other Delivery
//! Optimization content, as Microsoft publishes them for the allow lists of firewalls.

use std::sync::LazyLock;
use std::time::Duration;

use crate::content::{
    Abandon, AuthParameters, FillMode, Freshness, MissingLifetime, PathPatterns, Policy, QueryPolicy, SchemePolicy,
    StaleIfError,
};

use super::host::HostPattern;

/// A built-in origin set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OriginSet {
    /// Payloads and root key packages of Device Update for IoT Hub.
    DeviceUpdate,
    /// Windows Update, Store, Office and other content that Delivery Optimization agents fetch.
    DeliveryOptimization,
}

/// A rule and the pattern that it is for.
pub(super) type Rule = (HostPattern, Policy);

const DEVICE_UPDATE_HOSTS: [&str; 3] =
    ["*.nlu.dl.adu.microsoft.com", "*.tlu.dl.adu.microsoft.com", "*.dcsfe.prod.adu.microsoft.com"];

/// What stands behind the name of an instance in a host of Device Update.
const INSTANCE_SUFFIXES: [&str; 3] =
    [".b.nlu.dl.adu.microsoft.com", ".b.tlu.dl.adu.microsoft.com", ".dcsfe.prod.adu.microsoft.com"];

/// `*.dl.delivery.mp.microsoft.com`, `*.au.download.windowsupdate.com` and
/// `*.b1.download.windowsupdate.com` are among them.
const DELIVERY_OPTIMIZATION_HOSTS: [&str; 3] =
    ["*.delivery.mp.microsoft.com", "*.download.windowsupdate.com", "*.do.dsp.mp.microsoft.com"];

/// Names of the sets in the settings.
pub(super) const SETS: [(&str, OriginSet); 2] =
    [("device-update", OriginSet::DeviceUpdate), ("delivery-optimization", OriginSet::DeliveryOptimization)];

/// The rules of a set. `instances` (`<instance>--<account>`) narrow Device Update to own instances; without
/// any, all instances of all tenants are served.
pub(super) fn rules(set: OriginSet, instances: &[String]) -> Vec<Rule> {
    match set {
        OriginSet::DeviceUpdate if instances.is_empty() => {
            DEVICE_UPDATE_HOSTS.iter().filter_map(|host| rule(host, device_update)).collect()
        }
        OriginSet::DeviceUpdate => instances
            .iter()
            .flat_map(|instance| INSTANCE_SUFFIXES.map(|suffix| format!("{instance}{suffix}")))
            .filter_map(|host| rule(&host, device_update))
            .collect(),
        OriginSet::DeliveryOptimization => {
            DELIVERY_OPTIMIZATION_HOSTS.iter().filter_map(|host| rule(host, delivery_optimization)).collect()
        }
    }
}

fn rule(host: &str, policy: fn(&str) -> Policy) -> Option<Rule> {
    let pattern = HostPattern::parse(host).ok()?;
    let policy = policy(pattern.as_str());
    Some((pattern, policy))
}

/// Payloads lie at `/<region>/<instance>--<account>/<32 hexadecimal digits>/<file>` and never change. The root
/// key package (`/<region>/rootkeypackages/..`) does, so it is asked for anew unless the origin allows more.
fn device_update(host: &str) -> Policy {
    static IMPORTS: LazyLock<PathPatterns> = LazyLock::new(|| patterns(&[&format!("*/{}/*", hexadecimal(32))]));
    Policy { freshness: freshness(&IMPORTS, MissingLifetime::Fixed(Duration::ZERO)), ..update_host(host) }
}

/// Files by content id, and files with their SHA-1 in the name, never change; certificate trust lists and
/// catalogues on the same hosts do. `P1` to `P4` are the expiry and signature of a link to a public file.
fn delivery_optimization(host: &str) -> Policy {
    static FILES: LazyLock<PathPatterns> =
        LazyLock::new(|| patterns(&["/filestreamingservice/files/*", &format!("*_{}.*", hexadecimal(40))]));
    Policy {
        query: QueryPolicy::DropNamed(["P1", "P2", "P3", "P4"].map(str::to_owned).to_vec()),
        freshness: freshness(&FILES, MissingLifetime::Heuristic),
        ..update_host(host)
    }
}

/// Content delivery networks in front of large files: ranges work, links may carry a signature, and bodies
/// are the same for everybody.
fn update_host(host: &str) -> Policy {
    Policy {
        scheme: SchemePolicy::AsAsked,
        fill: FillMode::Ranged,
        abandon: Abandon::Complete,
        auth_parameters: AuthParameters::AzureSas,
        identity_only: true,
        ..Policy::for_host(host)
    }
}

/// The patterns are constants of this file and its tests match with them. Made once: it takes longer than all the rest
/// of a load.
fn patterns(patterns: &[&str]) -> PathPatterns {
    PathPatterns::new(patterns).unwrap_or_default()
}

fn freshness(immutable: &PathPatterns, default: MissingLifetime) -> Freshness {
    Freshness {
        immutable: immutable.clone(),
        default,
        negative: Duration::from_secs(10),
        stale_if_error: StaleIfError::Unlimited,
    }
}

/// A glob for so many hexadecimal digits.
fn hexadecimal(digits: usize) -> String {
    "[0-9a-fA-F]".repeat(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(set: OriginSet, host: &str) -> Option<Policy> {
        rules(set, &[]).into_iter().find(|(pattern, _)| pattern.matches(host)).map(|(_, policy)| policy)
    }

    #[test]
    fn payloads_never_change_and_root_key_packages_do() {
        let policy =
            policy(OriginSet::DeviceUpdate, "contoso--acct.b.nlu.dl.adu.microsoft.com").expect("a rule for the host");
        let immutable = &policy.freshness.immutable;
        for path in [
            "/westus2/contoso--acct/0123456789abcdef0123456789ABCDEF/image.swu",
            "/westus2/0123456789abcdef0123456789abcdef/image.swu",
        ] {
            assert!(immutable.matches(path), "{path}");
        }
        for path in ["/WestUS2/rootkeypackages/rootkeypackage-2.json", "/swedencentral/testfiles/a", "/"] {
            assert!(!immutable.matches(path), "{path}");
        }
        assert_eq!(policy.freshness.default, MissingLifetime::Fixed(Duration::ZERO));
        assert!(policy.identity_only);
        assert_eq!((policy.fill, policy.abandon), (FillMode::Ranged, Abandon::Complete));
    }

    #[test]
    fn delivery_optimization_hosts_are_covered() {
        for host in [
            "tlu.dl.delivery.mp.microsoft.com",
            "au.download.windowsupdate.com",
            "b1.download.windowsupdate.com",
            "kv801.prod.do.dsp.mp.microsoft.com",
        ] {
            assert!(policy(OriginSet::DeliveryOptimization, host).is_some(), "{host}");
        }
        assert!(policy(OriginSet::DeviceUpdate, "au.download.windowsupdate.com").is_none());
        let policy = policy(OriginSet::DeliveryOptimization, "au.download.windowsupdate.com").expect("a rule");
        let hashed = format!("/d/msdownload/update/software/secu/2026/01/kb1_{}.cab", "0a".repeat(20));
        for (path, expected) in [
            (hashed.as_str(), true),
            ("/filestreamingservice/files/00000000-0000-0000-0000-000000000000", true),
            ("/msdownload/update/v3/static/trustedr/en/authrootstl.cab", false),
        ] {
            assert_eq!(policy.freshness.immutable.matches(path), expected, "{path}");
        }
    }

    #[test]
    fn instances_narrow_the_set() {
        let narrowed = rules(OriginSet::DeviceUpdate, &["contoso--acct".to_owned()]);
        let serves = |host: &str| narrowed.iter().any(|(pattern, _)| pattern.matches(host));
        assert!(serves("contoso--acct.b.nlu.dl.adu.microsoft.com"));
        assert!(!serves("fabrikam--acct.b.nlu.dl.adu.microsoft.com"));
    }
}
