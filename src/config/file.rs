//! YAML text to a tree of values. The only place that knows the YAML library.

use serde_yaml::Value as Yaml;

use super::error::ConfigError;
use super::tree::{Node, Value, ValueSource};

/// Parses a whole file. An empty file is an empty map.
///
/// Values are not deserialised into structs here: serde stops at the first fault, and all of them are to be
/// reported at once. Unknown fields are found by [`super::reader`].
pub(super) fn parse(text: &str, source: &ValueSource) -> Result<Node, ConfigError> {
    let error = |path: &str, problem: String, remedy: &str| ConfigError {
        path: path.to_owned(),
        source: source.to_string(),
        found: None,
        problem,
        remedy: remedy.to_owned(),
    };
    let yaml: Yaml = serde_yaml::from_str(text).map_err(|fault| error("", format!("this is not YAML: {fault}"), ""))?;
    match convert(yaml, source, "").map_err(|(path, problem)| error(&path, problem, "write plain YAML values"))? {
        Node { value: Value::Null, .. } => Ok(Node::new(Value::Map(Vec::new()), source)),
        node @ Node { value: Value::Map(_), .. } => Ok(node),
        _ => Err(error("", "the file is not a map of settings".to_owned(), "write `name: value` lines")),
    }
}

/// Parses the value of a variable or flag. What is not YAML is taken as text, so that `[::]:8081` and `*.deb`
/// need no quotes.
pub(super) fn parse_value(text: &str, source: &ValueSource) -> Node {
    serde_yaml::from_str(text)
        .ok()
        .and_then(|yaml| convert(yaml, source, "").ok())
        .unwrap_or_else(|| Node::new(text, source))
}

fn convert(yaml: Yaml, source: &ValueSource, path: &str) -> Result<Node, (String, String)> {
    let value = match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => Value::Bool(value),
        Yaml::Number(number) => Value::Number(number.to_string()),
        Yaml::String(text) => Value::Text(text),
        Yaml::Sequence(elements) => Value::List(
            elements
                .into_iter()
                .enumerate()
                .map(|(index, element)| convert(element, source, &format!("{path}[{index}]")))
                .collect::<Result<_, _>>()?,
        ),
        Yaml::Mapping(entries) => {
            let separator = if path.is_empty() { "" } else { "." };
            let mut map = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                let Yaml::String(key) = key else {
                    return Err((path.to_owned(), "a name of a setting is not a text".to_owned()));
                };
                let node = convert(value, source, &format!("{path}{separator}{key}"))?;
                map.push((key, node));
            }
            Value::Map(map)
        }
        Yaml::Tagged(_) => return Err((path.to_owned(), "YAML tags are not allowed".to_owned())),
    };
    Ok(Node::new(value, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_the_text_name_the_place() {
        let source = ValueSource::File("a.yaml".into());
        let fault = |text| parse(text, &source).unwrap_err();
        assert!(fault("a: [1").problem.contains("line 1"), "{}", fault("a: [1"));
        assert!(fault("a: 1\na: 2").problem.contains("duplicate"), "{}", fault("a: 1\na: 2"));
        assert_eq!(fault("a:\n  b: [!x 1]").path, "a.b[0]");
        assert_eq!(fault("a:\n  1: 2").path, "a");
        assert!(fault("- a").problem.contains("map"));
        assert!(parse("# nothing\n", &source).is_ok());
    }

    #[test]
    fn values_of_variables_need_no_quotes() {
        for (text, expected) in [
            ("[::]:8081", "\"[::]:8081\""),
            ("*.deb", "\"*.deb\""),
            ("10", "10"),
            ("10 GB", "10 GB"),
            ("[a, b]", "[a, b]"),
            ("{ path: /x, quota: 1 GB }", "{ path: /x, quota: 1 GB }"),
            ("true", "true"),
        ] {
            let node = parse_value(text, &ValueSource::Flag("--set".into()));
            assert_eq!(node.value.to_string(), expected, "{text}");
        }
    }
}
