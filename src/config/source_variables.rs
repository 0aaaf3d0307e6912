//! The variables that say where updates come from, outside the names of this program: `UPSTREAM_HOST` and `UPSTREAM_PROXY`
//! of Microsoft Connected Cache, `IOTEDGE_PARENTHOSTNAME` of IoT Edge, and `http_proxy`, `https_proxy`, `all_proxy` and
//! `no_proxy` in both spellings. They change defaults, in this order; what is said by name goes before them.

use std::collections::BTreeMap;

use super::drop_in::{is_set, set};
use super::sources::exceptions;
use super::tree::{Node, Value, ValueSource};

/// Who stands for the parent, first of these.
const PARENTS: [&str; 2] = ["UPSTREAM_HOST", "IOTEDGE_PARENTHOSTNAME"];
/// Who stands for the proxy in front of http and of https origins.
const HTTP: [&str; 5] = ["UPSTREAM_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];
const HTTPS: [&str; 5] = ["UPSTREAM_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
const EXCEPT: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// Lays the variables over the defaults.
pub(super) fn overlay(root: &mut Node, variables: &BTreeMap<String, String>, notes: &mut Vec<String>) {
    let first = |names: &[&'static str]| names.iter().copied().find(|name| is_set(variables, name));
    let value = |name: &str| variables.get(name).map(|value| value.trim()).unwrap_or_default();
    if let Some(name) = first(&PARENTS) {
        let source = ValueSource::Variable(name.into());
        let host = value(name);
        let url = if host.contains("://") { host.to_owned() } else { format!("http://{host}") };
        set(root, "upstream.parents", Value::List(Vec::new()), &source);
        set(root, "upstream.parents[0].url", url.into(), &source);
        notes.push(format!("{name}: content comes from this parent, unless upstream.parents says otherwise"));
    }
    for (path, names) in [("upstream.http_proxy", &HTTP), ("upstream.https_proxy", &HTTPS)] {
        if let Some(name) = first(names) {
            let proxy = value(name);
            set(root, path, proxy.into(), &ValueSource::Variable(name.into()));
            notes.push(format!("{name}: {path} is set by it, unless the settings say otherwise"));
        }
    }
    if let Some(name) = first(&EXCEPT) {
        set(root, "upstream.no_proxy", exceptions(value(name)), &ValueSource::Variable(name.into()));
        notes.push(format!("{name}: upstream.no_proxy is set by it, unless the settings say otherwise"));
    }
}
