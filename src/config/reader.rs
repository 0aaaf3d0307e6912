//! [`Section`]: takes typed values out of a tree and notes every fault instead of stopping at the first.
//!
//! It is also the schema: which names exist is what `build` asks for. A name that nobody asked for is an
//! unknown field, a name that was asked for is a setting, and a value that was not given is written into the
//! tree with its default, so that the tree ends up as the effective configuration.

use std::collections::BTreeSet;

use super::error::ConfigError;
use super::tree::{Node, Value, ValueSource};

/// What was found while reading.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Every fault.
    pub(super) errors: Vec<ConfigError>,
    /// Every name that was asked for, list elements as `[]`.
    pub(super) settings: BTreeSet<String>,
}

/// What is wrong with one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// What is wrong.
    pub(super) problem: String,
    /// What is allowed.
    pub(super) remedy: String,
}

/// A value, or what is wrong with it.
pub(super) type Parsed<T> = Result<T, Fault>;

/// One map of the tree while it is read.
#[derive(Debug)]
pub(super) struct Section<'a> {
    entries: &'a mut Vec<(String, Node)>,
    path: String,
    source: ValueSource,
    asked: Vec<&'static str>,
    report: &'a mut Report,
}

/// Names that a reader of the documentation may try: they are planned, and this release has nothing behind
/// them.
const LATER: [&str; 2] = ["admin.token", "admin.tls"];

impl Fault {
    pub(super) fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: remedy.into() }
    }
}

impl Report {
    /// Reads the whole tree with `read`.
    pub(super) fn read<T>(&mut self, root: &mut Node, read: impl FnOnce(&mut Section<'_>) -> Option<T>) -> Option<T> {
        read_section(root, String::new(), self, read)
    }

    /// Notes a fault that belongs to no value.
    pub(super) fn error(&mut self, path: &str, source: &ValueSource, fault: Fault) {
        self.push(path, source, None, fault);
    }

    fn push(&mut self, path: &str, source: &ValueSource, found: Option<&Value>, fault: Fault) {
        self.errors.push(ConfigError {
            path: path.to_owned(),
            source: source.to_string(),
            found: found.map(|value| without_user_info(&value.to_string())),
            problem: fault.problem,
            remedy: fault.remedy,
        });
    }
}

impl Section<'_> {
    /// A value that must be there, in the file or in the embedded defaults.
    pub(super) fn value<T>(&mut self, name: &'static str, parse: impl FnOnce(&Value) -> Parsed<T>) -> Option<T> {
        self.read(name, None, parse)
    }

    /// A value that may be left out.
    pub(super) fn value_or<T>(
        &mut self,
        name: &'static str,
        default: impl Into<Value>,
        parse: impl FnOnce(&Value) -> Parsed<T>,
    ) -> Option<T> {
        self.read(name, Some(default.into()), parse)
    }

    /// A value that may have a user and password in it: those stay in what is read, and not in the tree.
    pub(super) fn secret<T>(
        &mut self,
        name: &'static str,
        default: impl Into<Value>,
        parse: impl FnOnce(&Value) -> Parsed<T>,
    ) -> Option<T> {
        let read = self.read(name, Some(default.into()), parse);
        let node = self.entries.iter_mut().find(|(key, _)| key == name).map(|(_, node)| node);
        if let Some(Node { value: Value::Text(text), .. }) = node {
            *text = without_user_info(text);
        }
        read
    }

    /// A list of values; a single value stands for a list of one. Faults name the element.
    pub(super) fn values<T>(
        &mut self,
        name: &'static str,
        default: Option<&[&str]>,
        parse: impl Fn(&Value) -> Parsed<T>,
    ) -> Option<Vec<T>> {
        let (path, report, node) = self.node(name, default.map(list_of))?;
        match &node.value {
            Value::List(elements) => {
                let mut all = Some(Vec::with_capacity(elements.len()));
                for (index, element) in elements.iter().enumerate() {
                    match parse(&element.value) {
                        Ok(value) => {
                            all = all.map(|mut all| {
                                all.push(value);
                                all
                            })
                        }
                        Err(fault) => {
                            report.push(&format!("{path}[{index}]"), &element.source, Some(&element.value), fault);
                            all = None;
                        }
                    }
                }
                all
            }
            single => match parse(single) {
                Ok(value) => Some(vec![value]),
                Err(mut fault) => {
                    fault.remedy.extend(list_remedy(single, &node.source));
                    report.push(&path, &node.source, Some(&node.value), fault);
                    None
                }
            },
        }
    }

    /// A section of its own; one that is missing or empty has all values at their defaults.
    pub(super) fn section<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> Option<T>,
    ) -> Option<T> {
        self.asked.push(name);
        let path = self.path_of(name);
        let position = match self.entries.iter().position(|(key, _)| key == name) {
            Some(position) => position,
            None => {
                self.entries.push((name.to_owned(), Node::new(Value::Map(Vec::new()), &ValueSource::Default)));
                self.entries.len() - 1
            }
        };
        let (_, node) = self.entries.get_mut(position)?;
        if matches!(node.value, Value::Null) {
            node.value = Value::Map(Vec::new());
        }
        read_section(node, path, self.report, read)
    }

    /// A list of sections.
    pub(super) fn sections<T>(
        &mut self,
        name: &'static str,
        read: impl Fn(&mut Section<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let (path, report, node) = self.node(name, None)?;
        let Value::List(elements) = &mut node.value else {
            let fault = Fault::new("this is not a list", "write a list, each element with its own settings");
            report.push(&path, &node.source, Some(&node.value), fault);
            return None;
        };
        // Every element is read, whatever came before.
        let read: Vec<Option<T>> = elements
            .iter_mut()
            .enumerate()
            .map(|(index, element)| read_section(element, format!("{path}[{index}]"), report, &read))
            .collect();
        read.into_iter().collect()
    }

    /// Notes a fault of a value that was read already.
    pub(super) fn fault(&mut self, name: &str, fault: Fault) {
        let path = self.path_of(name);
        match self.entries.iter().find(|(key, _)| key == name) {
            Some((_, node)) => self.report.push(&path, &node.source, Some(&node.value), fault),
            None => self.report.push(&path, &self.source, None, fault),
        }
    }

    fn read<T>(
        &mut self,
        name: &'static str,
        default: Option<Value>,
        parse: impl FnOnce(&Value) -> Parsed<T>,
    ) -> Option<T> {
        let (path, report, node) = self.node(name, default)?;
        match parse(&node.value) {
            Ok(value) => Some(value),
            Err(fault) => {
                report.push(&path, &node.source, Some(&node.value), fault);
                None
            }
        }
    }

    /// The node of a setting, made from the default when it is missing.
    fn node(&mut self, name: &'static str, default: Option<Value>) -> Option<(String, &mut Report, &mut Node)> {
        self.asked.push(name);
        let path = self.path_of(name);
        self.report.settings.insert(as_pattern(&path));
        let position = match (self.entries.iter().position(|(key, _)| key == name), default) {
            (Some(position), _) => position,
            (None, Some(default)) => {
                self.entries.push((name.to_owned(), Node::new(default, &ValueSource::Default)));
                self.entries.len() - 1
            }
            (None, None) => {
                let fault = Fault::new("this setting is missing", format!("add `{name}`"));
                self.report.push(&path, &self.source, None, fault);
                return None;
            }
        };
        let (_, node) = self.entries.get_mut(position)?;
        Some((path, self.report, node))
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Notes every entry that was not asked for.
    fn refuse_unknown(&mut self) {
        for (key, node) in self.entries.iter() {
            if self.asked.contains(&key.as_str()) {
                continue;
            }
            let path = self.path_of(key);
            let fault = if LATER.contains(&as_pattern(&path).as_str()) {
                Fault::new(
                    "this release does not support it yet",
                    "remove it; it is refused rather than ignored, since it would have no effect",
                )
            } else {
                Fault::new("unknown setting", format!("known here: {}", self.asked.join(", ")))
            };
            // Nobody knows what the value is: it may be a secret.
            self.report.push(&path, &node.source, None, fault);
        }
    }
}

fn read_section<T>(
    node: &mut Node,
    path: String,
    report: &mut Report,
    read: impl FnOnce(&mut Section<'_>) -> Option<T>,
) -> Option<T> {
    let source = node.source.clone();
    let Value::Map(entries) = &mut node.value else {
        let fault = Fault::new("this is not a map of settings", "write `name: value` pairs below it");
        report.push(&path, &source, Some(&node.value), fault);
        return None;
    };
    let mut section = Section { entries, path, source, asked: Vec::new(), report };
    let result = read(&mut section);
    section.refuse_unknown();
    result
}

/// How a list with commas is written where one line is all there is.
fn list_remedy(value: &Value, source: &ValueSource) -> Option<String> {
    let (Value::Text(text), ValueSource::Variable(_) | ValueSource::Flag(_)) = (value, source) else { return None };
    let elements: Vec<String> = text.split(',').map(|element| format!("\"{}\"", element.trim())).collect();
    let list = without_user_info(&format!("[{}]", elements.join(", ")));
    text.contains(',').then(|| format!("; a list is written in brackets here: {list}"))
}

/// A list of texts as a value.
pub(super) fn list_of(texts: &[&str]) -> Value {
    Value::List(texts.iter().map(|text| Node::new(*text, &ValueSource::Default)).collect())
}

/// `origins[2].query` as `origins[].query`.
fn as_pattern(path: &str) -> String {
    let mut digits = false;
    path.chars()
        .filter(|c| {
            digits = *c == '[' || (digits && c.is_ascii_digit());
            !(digits && c.is_ascii_digit())
        })
        .collect()
}

/// A value may be a URL with a password in it, which belongs in no log.
fn without_user_info(text: &str) -> String {
    let Some((before, host)) = text.rsplit_once('@') else { return text.to_owned() };
    let start = before.find("://").map_or(usize::from(before.starts_with('"')), |position| position + 3);
    format!("{}***@{host}", before.get(..start).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_one_setting() {
        assert_eq!(as_pattern("origins[12].a[0].b1"), "origins[].a[].b1");
        assert_eq!(as_pattern("a1.b"), "a1.b");
    }

    #[test]
    fn passwords_are_blotted_out() {
        for (text, shown) in [
            ("http://user:secret@host:80/", "http://***@host:80/"),
            ("user:se@cret@host", "***@host"),
            (r#""user:secret@host""#, r#""***@host""#),
            ("host", "host"),
        ] {
            assert_eq!(without_user_info(text), shown);
        }
    }

    #[test]
    fn all_faults_are_found_at_once() {
        let source = ValueSource::File("f".into());
        let mut root =
            super::super::file::parse("a: { x: 1, extra: 2 }\nb: [1, no, [2]]\nc: 3\nupstream: 4", &source).unwrap();
        let number = |value: &Value| match value {
            Value::Number(_) => Ok(()),
            _ => Err(Fault::new("not a number", "a number")),
        };
        let mut report = Report::default();
        let read = report.read(&mut root, |root| {
            let a = root.section("a", |a| {
                let (x, y, z) = (a.value("x", number), a.value("y", number), a.value_or("z", "text", number));
                Some((x?, y?, z?))
            });
            let b = root.values("b", None, number);
            let c = root.section("c", |_| Some(()));
            Some((a?, b?, c?))
        });
        assert_eq!(read, None);
        let paths: Vec<&str> = report.errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(paths, ["a.y", "a.z", "a.extra", "b[1]", "b[2]", "c", "upstream"]);
        assert_eq!(report.settings.iter().map(String::as_str).collect::<Vec<_>>(), ["a.x", "a.y", "a.z", "b"]);
    }
}
