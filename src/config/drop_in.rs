//! The variables of Microsoft Connected Cache, so that a deployment manifest can change over by its image
//! alone. They change defaults: the file, `WAYSTATION_*` variables and flags go before them.
//!
//! A size of a drive or one of the ids switches drop-in mode on: drives at `/nginx/cacheN`, both built-in
//! origin sets, the admin listener on all addresses at 5001 and 5000.

use std::collections::BTreeMap;

use super::reader::{Fault, Report, list_of};
use super::tree::{Node, Step, Value, ValueSource, parse_path};
use super::units::parse_size;

/// Accepted and ignored: the ids by which Connected Cache registers with its service.
const IDS: [&str; 3] = ["CUSTOMER_ID", "CACHE_NODE_ID", "CUSTOMER_KEY"];

/// Lays the variables over the defaults.
pub(super) fn overlay(
    root: &mut Node,
    variables: &BTreeMap<String, String>,
    report: &mut Report,
    notes: &mut Vec<String>,
) {
    let drives = numbered(variables, "STORAGE_", "_SIZE_GB");
    let ids: Vec<&str> = IDS.into_iter().filter(|name| is_set(variables, name)).collect();
    if !ids.is_empty() {
        notes.push(format!("{}: accepted and ignored, this cache registers with no service", ids.join(", ")));
    }
    let Some(trigger) = drives.first().map(|drive| drive.name.as_str()).or_else(|| ids.first().copied()) else {
        return summary(root, variables, report, notes);
    };
    notes.push(format!("drop-in mode for Connected Cache, since {trigger} is set"));
    let source = ValueSource::Variable(trigger.into());
    set(root, "builtin_origins", list_of(&["device-update", "delivery-optimization"]), &source);
    set(root, "listen.admin", list_of(&["0.0.0.0:5001", "0.0.0.0:5000"]), &source);
    if let Some(first) = drives.first() {
        set(root, "storage.state", Value::from(format!("/nginx/cache{}/.waystation", first.number)), &source);
        set(root, "storage.drives", Value::List(Vec::new()), &source);
    } else {
        notes.push("STORAGE_1_SIZE_GB is not set: content goes where storage.drives says".to_owned());
    }
    let mut index = 0;
    for drive in &drives {
        let source = ValueSource::Variable(drive.name.as_str().into());
        let quota = format!("{} GB", drive.value.trim());
        if !parse_size(&quota).is_ok_and(|bytes| bytes > 0) {
            let fault = Fault::new(
                format!("{} is {:?}", drive.name, drive.value),
                "write a number of gigabytes, for example 100",
            );
            report.error("storage.drives", &source, fault);
            continue;
        }
        set(root, &format!("storage.drives[{index}].path"), format!("/nginx/cache{}", drive.number).into(), &source);
        set(root, &format!("storage.drives[{index}].quota"), quota.into(), &source);
        index += 1;
    }
    summary(root, variables, report, notes);
}

/// Adds the custom hosts behind the rules of all other sources, and says which drop-in values others replaced.
pub(super) fn finish(root: &mut Node, variables: &BTreeMap<String, String>, notes: &mut Vec<String>) {
    for custom in numbered(variables, "CACHEABLE_CUSTOM_", "_HOST") {
        let source = ValueSource::Variable(custom.name.as_str().into());
        let present = match root.find(&["origins"]).map(|node| &node.value) {
            Some(Value::List(elements)) => elements,
            // A value of another type is reported when it is read.
            Some(Value::Null) | None => &Vec::new(),
            Some(_) => continue,
        };
        let host = custom.value.trim().to_ascii_lowercase();
        let is_same = |node: &Node| {
            node.find(&["host"]).is_some_and(|node| match &node.value {
                Value::Text(text) => text.eq_ignore_ascii_case(&host),
                _ => false,
            })
        };
        if present.iter().any(is_same) {
            notes.push(format!("{}: there is a rule for this host already, the variable has no effect", custom.name));
            continue;
        }
        let index = present.len();
        set(root, &format!("origins[{index}].host"), host.into(), &source);
        // Custom hosts are package repositories; apt and the agent's plug-in spell `+` differently.
        set(root, &format!("origins[{index}].plus_is_literal"), true.into(), &source);
        let name = format!("CACHEABLE_CUSTOM_{}_CANONICAL", custom.number);
        if let Some(canonical) = variables.get(&name).filter(|value| !value.is_empty()) {
            let source = ValueSource::Variable(name.as_str().into());
            set(root, &format!("origins[{index}].canonical"), canonical.as_str().into(), &source);
        }
    }
    for custom in numbered(variables, "CACHEABLE_CUSTOM_", "_CANONICAL") {
        if !is_set(variables, &format!("CACHEABLE_CUSTOM_{}_HOST", custom.number)) {
            notes.push(format!("{}: no host of this number is set, the variable has no effect", custom.name));
        }
    }
    let drives_source = root.find(&["storage", "drives"]).map(|node| node.source.clone());
    if let Some(drive) = numbered(variables, "STORAGE_", "_SIZE_GB").first()
        && !matches!(&drives_source, Some(ValueSource::Variable(name)) if **name == *drive.name)
        && let Some(source) = drives_source
    {
        notes.push(format!("STORAGE_*_SIZE_GB: no effect, since storage.drives is set by {source}"));
    }
}

/// Who may read `/summary`.
fn summary(root: &mut Node, variables: &BTreeMap<String, String>, report: &mut Report, notes: &mut Vec<String>) {
    for name in ["IS_SUMMARY_PUBLIC", "IS_SUMMARY_ACCESS_UNRESTRICTED"] {
        let Some(value) = variables.get(name).filter(|value| !value.is_empty()) else { continue };
        let source = ValueSource::Variable(name.into());
        match (name, value.trim().to_ascii_lowercase().as_str()) {
            ("IS_SUMMARY_ACCESS_UNRESTRICTED", "true" | "1") => {
                set(root, "admin.summary_clients", list_of(&["any"]), &source);
            }
            // There it asks for a key, and this release knows none: it stays with private networks.
            ("IS_SUMMARY_PUBLIC", "true" | "1") => {
                notes.push("IS_SUMMARY_PUBLIC: /summary stays open to admin.summary_clients alone".to_owned());
            }
            (_, "false" | "0") => {}
            _ => report.error(
                "admin.summary_clients",
                &source,
                Fault::new(format!("{name} is {value:?}"), "write true or false"),
            ),
        }
    }
}

/// A variable with a number in its name.
#[derive(Debug)]
struct Numbered<'a> {
    number: u32,
    name: String,
    value: &'a str,
}

/// Variables `<prefix>N<suffix>` that are not empty, by number.
fn numbered<'a>(variables: &'a BTreeMap<String, String>, prefix: &str, suffix: &str) -> Vec<Numbered<'a>> {
    let mut found: Vec<Numbered<'_>> = variables
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .filter_map(|(name, value)| {
            let number = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
            let number = number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok()).flatten()?;
            Some(Numbered { number, name: name.clone(), value })
        })
        .collect();
    found.sort_by_key(|variable| variable.number);
    found
}

pub(super) fn is_set(variables: &BTreeMap<String, String>, name: &str) -> bool {
    variables.get(name).is_some_and(|value| !value.is_empty())
}

/// Sets a value whose path is made here, without gaps.
pub(super) fn set(root: &mut Node, path: &str, value: Value, source: &ValueSource) {
    let steps: Vec<Step> = parse_path(path).unwrap_or_default();
    let placed = root.set(&steps, Node::new(value, source));
    debug_assert_eq!(placed, Ok(()), "{path}");
}
