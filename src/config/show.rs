//! [`Effective`]: the configuration as it came out, with the source of each value. The text is YAML that can
//! be loaded again; addresses with user or password are refused on loading, so nothing in it is secret.

use std::fmt::Write as _;

use super::tree::{Node, Value};

/// Where the comments begin.
const COMMENT_COLUMN: usize = 56;

/// Every setting, its value and where it came from.
#[derive(Debug, Clone)]
pub struct Effective {
    root: Node,
    remarks: Vec<String>,
}

/// One setting with its value.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct EffectiveSetting {
    /// Its path, for example `storage.drives[0].quota`.
    pub path: String,
    /// Its value as YAML on one line.
    pub value: String,
    /// Where it came from.
    pub source: String,
}

impl Effective {
    pub(super) fn new(root: Node, remarks: Vec<String>) -> Self {
        Self { root, remarks }
    }

    /// YAML with the source of each value as a comment, and the origin rules and notes behind it.
    pub fn to_yaml(&self) -> String {
        let mut text = String::new();
        write_node(&mut text, &self.root, 0, "");
        for remark in &self.remarks {
            text.push_str("# ");
            text.push_str(&one_line(remark));
            text.push('\n');
        }
        text
    }

    /// The settings in the order of [`Self::to_yaml`].
    pub fn settings(&self) -> Vec<EffectiveSetting> {
        let mut settings = Vec::new();
        collect(&mut settings, &self.root, String::new());
        settings
    }
}

/// What a node is written as.
enum Shape<'a> {
    Leaf,
    Map(&'a [(String, Node)]),
    List(&'a [Node]),
}

fn shape(node: &Node) -> Shape<'_> {
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => Shape::Map(entries),
        Value::List(elements) if elements.iter().any(|element| matches!(element.value, Value::Map(_))) => {
            Shape::List(elements)
        }
        _ => Shape::Leaf,
    }
}

/// Writes what is below a key. `lead` stands before the first line in place of its indentation.
fn write_node(text: &mut String, node: &Node, indent: usize, lead: &str) {
    match shape(node) {
        Shape::Leaf => write_leaf(text, lead, node),
        Shape::Map(entries) => {
            for (position, (key, below)) in entries.iter().enumerate() {
                let start = if position == 0 && !lead.is_empty() { lead.to_owned() } else { " ".repeat(indent) };
                let name = format!("{start}{}:", Value::Text(key.clone()));
                if matches!(shape(below), Shape::Leaf) {
                    write_leaf(text, &format!("{name} "), below);
                } else {
                    text.push_str(&name);
                    text.push('\n');
                    write_node(text, below, indent + 2, "");
                }
            }
        }
        Shape::List(elements) => {
            let lead = format!("{}- ", " ".repeat(indent));
            for element in elements {
                write_node(text, element, indent + 2, &lead);
            }
        }
    }
}

fn write_leaf(text: &mut String, lead: &str, node: &Node) {
    let line = format!("{lead}{}", node.value);
    let source = one_line(&node.source.to_string());
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line:<COMMENT_COLUMN$} # {source}");
}

fn collect(settings: &mut Vec<EffectiveSetting>, node: &Node, path: String) {
    match shape(node) {
        Shape::Leaf => {
            settings.push(EffectiveSetting { path, value: node.value.to_string(), source: node.source.to_string() });
        }
        Shape::Map(entries) => {
            let separator = if path.is_empty() { "" } else { "." };
            entries.iter().for_each(|(key, below)| collect(settings, below, format!("{path}{separator}{key}")));
        }
        Shape::List(elements) => {
            elements.iter().enumerate().for_each(|(index, below)| collect(settings, below, format!("{path}[{index}]")));
        }
    }
}

fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'), " ")
}
