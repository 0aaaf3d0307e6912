//! [`Node`]: a tree of values that remember where they came from. Layers are merged here, before anything is
//! typed; what the values mean is `build`'s business.

use std::fmt;
use std::sync::Arc;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueSource {
    /// Built in.
    Default,
    /// The configuration file of this name.
    File(Arc<str>),
    /// The environment variable of this name.
    Variable(Arc<str>),
    /// The command line flag of this name.
    Flag(Arc<str>),
}

/// A value and its source.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) source: ValueSource,
}

/// What YAML can say, as far as settings need it.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// As written, so that nothing is lost on the way.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Index(usize),
    Key(String),
}

/// A path that cannot be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IndexGap {
    /// The index that was named.
    pub(super) index: usize,
    /// How many elements there are.
    pub(super) length: usize,
}

/// No setting lies deeper. The bound keeps a path from outside from nesting without end.
const DEEPEST: usize = 16;

/// Parses `storage.drives[0].path`, also written `storage.drives.0.path`.
pub(super) fn parse_path(text: &str) -> Option<Vec<Step>> {
    let unbracketed = text.replace('[', ".").replace(']', "");
    steps(unbracketed.split('.'))
}

/// The path of these parts: the first is a key, none is empty.
pub(super) fn steps<'a>(parts: impl Iterator<Item = &'a str>) -> Option<Vec<Step>> {
    let steps: Vec<Step> = parts.take(DEEPEST + 1).map(Step::parse).collect();
    let proper = steps.iter().all(|step| !matches!(step, Step::Key(key) if key.is_empty()));
    (proper && steps.len() <= DEEPEST && matches!(steps.first(), Some(Step::Key(_)))).then_some(steps)
}

impl Step {
    /// A number is an index, everything else a key.
    fn parse(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Key(text.to_owned()), Self::Index)
    }
}

impl Node {
    pub(super) fn new(value: impl Into<Value>, source: &ValueSource) -> Self {
        Self { value: value.into(), source: source.clone() }
    }

    /// Lays `over` over `self`: maps are joined key by key, everything else is replaced. An empty section
    /// (`storage:` with nothing below) says nothing.
    pub(super) fn merge(&mut self, over: Self) {
        match (&mut self.value, over.value) {
            (Value::Map(_), Value::Null) => {}
            (Value::Map(entries), Value::Map(others)) => {
                for (key, node) in others {
                    match entries.iter_mut().find(|(name, _)| *name == key) {
                        Some((_, present)) => present.merge(node),
                        None => entries.push((key, node)),
                    }
                }
            }
            (value, other) => {
                *value = other;
                self.source = over.source;
            }
        }
    }

    /// Sets the value at `path`. Maps and list elements on the way come into being; an index may at most
    /// append.
    pub(super) fn set(&mut self, path: &[Step], node: Self) -> Result<(), IndexGap> {
        let Some((step, rest)) = path.split_first() else {
            self.merge(node);
            return Ok(());
        };
        match step {
            Step::Key(key) => {
                if !matches!(self.value, Value::Map(_)) {
                    *self = Self::new(Value::Map(Vec::new()), &node.source);
                }
                let Value::Map(entries) = &mut self.value else { return Ok(()) };
                if let Some((_, present)) = entries.iter_mut().find(|(name, _)| name == key) {
                    return present.set(rest, node);
                }
                let mut fresh = Self::new(Value::Null, &node.source);
                fresh.set(rest, node)?;
                entries.push((key.clone(), fresh));
            }
            Step::Index(index) => {
                if !matches!(self.value, Value::List(_)) {
                    let single = std::mem::replace(&mut self.value, Value::Null);
                    let elements = match single {
                        Value::Null | Value::Map(_) => Vec::new(),
                        scalar => vec![Self::new(scalar, &self.source)],
                    };
                    *self = Self::new(Value::List(elements), &node.source);
                }
                let Value::List(elements) = &mut self.value else { return Ok(()) };
                let length = elements.len();
                if *index > length {
                    return Err(IndexGap { index: *index, length });
                }
                if *index == length {
                    elements.push(Self::new(Value::Null, &node.source));
                }
                if let Some(element) = elements.get_mut(*index) {
                    return element.set(rest, node);
                }
            }
        }
        Ok(())
    }

    /// The node below `keys`.
    pub(super) fn find(&self, keys: &[&str]) -> Option<&Self> {
        let Some((key, rest)) = keys.split_first() else { return Some(self) };
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|(name, _)| name == key).and_then(|(_, node)| node.find(rest))
    }
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(name) => write!(f, "file {name}"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// YAML on one line (flow style).
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(text) => f.write_str(text),
            Self::Text(text) if is_plain(text) => f.write_str(text),
            Self::Text(text) => write_quoted(f, text),
            Self::List(elements) => {
                f.write_str("[")?;
                for (position, element) in elements.iter().enumerate() {
                    let separator = if position == 0 { "" } else { ", " };
                    write!(f, "{separator}{}", element.value)?;
                }
                f.write_str("]")
            }
            Self::Map(entries) => {
                f.write_str("{")?;
                for (position, (key, node)) in entries.iter().enumerate() {
                    let separator = if position == 0 { " " } else { ", " };
                    write!(f, "{separator}{}: {}", Self::Text(key.clone()), node.value)?;
                }
                f.write_str(" }")
            }
        }
    }
}

/// Whether YAML reads the text as this very string without quotes, wherever it stands: words, paths, and
/// numbers with a unit.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start_matches(' ');
        return (1..=3).contains(&unit.len()) && unit.bytes().all(|b| b.is_ascii_alphabetic());
    }
    let start = text.strip_prefix("./").or_else(|| text.strip_prefix('/')).unwrap_or(text);
    start.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/'))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

/// Writes a text in double quotes; what YAML does not take as it is becomes an escape.
fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            ' '..='~'
            | '\u{a0}'..='\u{2027}'
            | '\u{202a}'..='\u{d7ff}'
            | '\u{e000}'..='\u{fefe}'
            | '\u{ff00}'..='\u{fffd}' => write!(f, "{c}")?,
            _ => write!(f, "\\U{:08X}", u32::from(c))?,
        }
    }
    f.write_str("\"")
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn texts_are_written_so_that_they_can_be_read(
            text in proptest::strategy::Union::new(["\\PC{0,12}", "[0-9]{1,3} ?[a-zA-Z]{0,4}", "[./]{0,2}[a-z0-9]{1,5}", "[ -~\\s]{0,9}"])
        ) {
            let written = format!("a: {}\nb: [{}]", Value::Text(text.clone()), Value::Text(text.clone()));
            let read = super::super::file::parse(&written, &ValueSource::Default).unwrap();
            let is_same = |node: &Node| matches!(&node.value, Value::Text(read) if *read == text);
            proptest::prop_assert!(is_same(read.find(&["a"]).unwrap()), "{written}");
            let Value::List(elements) = &read.find(&["b"]).unwrap().value else { unreachable!() };
            proptest::prop_assert!(is_same(&elements[0]), "{written}");
        }
    }

    fn text(value: &str, source: &ValueSource) -> Node {
        Node::new(value, source)
    }

    #[test]
    fn paths_are_parsed_in_both_spellings() {
        let expected =
            Some(vec![Step::Key("a".into()), Step::Key("b".into()), Step::Index(0), Step::Key("c_d".into())]);
        assert_eq!(parse_path("a.b[0].c_d"), expected);
        assert_eq!(parse_path("a.b.0.c_d"), expected);
        for wrong in ["", ".", "a.", ".a", "a..b", "0.a", "[0]", &"a.".repeat(99_999)] {
            assert_eq!(parse_path(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn setting_makes_the_way_and_refuses_gaps() {
        let source = ValueSource::Variable("X".into());
        let mut root = Node::new(Value::Map(Vec::new()), &ValueSource::Default);
        let path = |text| parse_path(text).unwrap();
        root.set(&path("a.b[0].c"), text("1", &source)).unwrap();
        root.set(&path("a.b[1]"), text("two", &source)).unwrap();
        assert_eq!(root.set(&path("a.b[3]"), text("x", &source)), Err(IndexGap { index: 3, length: 2 }));
        root.set(&path("a.s"), text("one", &source)).unwrap();
        root.set(&path("a.s[1]"), text("more", &source)).unwrap();
        assert_eq!(root.value.to_string(), r#"{ a: { b: [{ c: "1" }, two], s: [one, more] } }"#);
    }

    #[test]
    fn an_empty_section_says_nothing_and_a_null_leaf_does() {
        let (low, high) = (ValueSource::Default, ValueSource::File("f".into()));
        let path = |text| parse_path(text).unwrap();
        let mut root = Node::new(Value::Map(Vec::new()), &low);
        root.set(&path("a.b"), text("1", &low)).unwrap();
        let mut over = Node::new(Value::Map(Vec::new()), &high);
        over.set(&path("a"), Node::new(Value::Null, &high)).unwrap();
        root.merge(over.clone());
        assert_eq!(root.value.to_string(), r#"{ a: { b: "1" } }"#);
        over.set(&path("a.b"), Node::new(Value::Null, &high)).unwrap();
        root.merge(over);
        assert_eq!(root.value.to_string(), "{ a: { b: null } }");
        assert_eq!(root.find(&["a", "b"]).map(|node| node.source.clone()), Some(high));
    }
}
