//! `WAYSTATION_*` variables: `WAYSTATION_LISTEN__DATA` is `listen.data`, two underscores go one level down,
//! numbers are list elements (`WAYSTATION_STORAGE__DRIVES__0__PATH`), values are YAML. An empty variable
//! counts as not set, since compose files pass unset ones that way.

use std::collections::BTreeMap;

use super::file;
use super::reader::{Fault, Report};
use super::tree::{self, IndexGap, Node, Step, ValueSource};

/// What all variables of this program begin with.
const PREFIX: &str = "WAYSTATION_";

/// Names the configuration file; `--config` goes before it.
pub(super) const CONFIG_FILE: &str = "WAYSTATION_CONFIG";

/// Lays the variables over the tree.
pub(super) fn overlay(root: &mut Node, variables: &BTreeMap<String, String>, report: &mut Report) {
    let mut settings: Vec<(Vec<Step>, &String, &String)> = Vec::new();
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        if value.is_empty() || name == CONFIG_FILE || is_service_link(rest) {
            continue;
        }
        match tree::steps(rest.to_ascii_lowercase().split("__")) {
            Some(path) => settings.push((path, name, value)),
            None => {
                let remedy = "write for example WAYSTATION_LISTEN__DATA";
                let fault = Fault::new(format!("{name} is not the name of a setting"), remedy);
                report.error("", &ValueSource::Variable(name.as_str().into()), fault);
            }
        }
    }
    // A list goes before its elements, and element 2 before element 10.
    settings.sort();
    for (path, name, value) in settings {
        let source = ValueSource::Variable(name.as_str().into());
        let node = file::parse_value(value, &source);
        if let Err(gap) = root.set(&path, node) {
            report.error(&written(&path), &source, gap_fault(&gap));
        }
    }
}

/// `listen.data[0]`.
pub(super) fn written(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(index) => text.push_str(&format!("[{index}]")),
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.push_str(&format!(".{key}")),
        }
    }
    text
}

/// An index behind the end of a list.
pub(super) fn gap_fault(gap: &IndexGap) -> Fault {
    Fault::new(
        format!("there is no element {} and the list has {}", gap.index, gap.length),
        "number the elements from 0 without gaps",
    )
}

/// Kubernetes gives every pod such variables for a service of the name `waystation`; they are no settings.
fn is_service_link(rest: &str) -> bool {
    rest == "PORT" || rest.starts_with("PORT_") || rest == "SERVICE_HOST" || rest.starts_with("SERVICE_PORT")
}

#[cfg(test)]
mod tests {
    use super::super::tree::Value;
    use super::*;

    fn overlaid(variables: &[(&str, &str)]) -> (String, Report) {
        let mut root = Node::new(Value::Map(Vec::new()), &ValueSource::Default);
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut report = Report::default();
        overlay(&mut root, &variables, &mut report);
        (root.value.to_string(), report)
    }

    #[test]
    fn names_become_paths_and_values_yaml() {
        let (tree, report) = overlaid(&[
            ("WAYSTATION_LISTEN__DATA", "[::]:80"),
            ("WAYSTATION_STORAGE__DRIVES__0__PATH", "/a"),
            ("WAYSTATION_STORAGE__DRIVES", "[{ quota: 1 GB }]"),
            ("WAYSTATION_LIMITS__HEADER_BYTES", "64 KiB"),
            ("WAYSTATION_LOG__LEVEL", ""),
            ("WAYSTATION_CONFIG", "/etc/waystation.yaml"),
            ("WAYSTATION_PORT_8081_TCP", "tcp://10.0.0.1:8081"),
            ("WAYSTATION_SERVICE_HOST", "10.0.0.1"),
            ("PATH", "/bin"),
        ]);
        let expected = r#"{ limits: { header_bytes: 64 KiB }, listen: { data: "[::]:80" }, storage: { drives: [{ quota: 1 GB, path: /a }] } }"#;
        assert_eq!(tree, expected);
        assert_eq!(report.errors, []);
    }

    #[test]
    fn a_list_without_brackets_is_told_how_it_is_written() {
        let load = |value| {
            let sources = super::super::Sources::new().variable("WAYSTATION_LISTEN__CLIENTS", value);
            super::super::Config::load(&sources).map(drop).map_err(|errors| errors.to_string())
        };
        let told = load("10.0.0.0/8,127.0.0.1").unwrap_err();
        let written = r#"["10.0.0.0/8", "127.0.0.1"]"#;
        assert!(told.contains(written), "{told}");
        assert_eq!(load(written), Ok(()));
    }

    #[test]
    fn elements_are_taken_in_the_order_of_their_numbers() {
        let names: Vec<String> = (0..12).map(|index| format!("WAYSTATION_LISTEN__DATA__{index}")).collect();
        let variables: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "x")).collect();
        let (tree, report) = overlaid(&variables);
        assert_eq!((tree.matches('x').count(), report.errors.len()), (12, 0));
        let (_, report) = overlaid(&[("WAYSTATION_LISTEN__DATA__1", "x")]);
        assert_eq!(report.errors[0].path, "listen.data[1]");
        let (_, report) = overlaid(&[("WAYSTATION_", "x"), ("WAYSTATION_A____B", "x"), ("WAYSTATION_0", "x")]);
        assert_eq!(report.errors.len(), 3);
    }
}
