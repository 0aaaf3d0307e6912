//! The shape of the source tree: which part may import which, where the storage engine and the YAML crate are
//! named, and what a file looks like. It reads the sources as text; what code does is tested elsewhere.

#![allow(clippy::unwrap_used, reason = "what cannot be read fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What a part may import besides itself and the shared four. `node` may import all.
const ALLOWED: [(&str, &[&str]); 13] = [
    ("content", &[]),
    ("clock", &[]),
    ("telemetry", &[]),
    ("shutdown", &[]),
    ("resolve", &[]),
    ("decide", &[]),
    ("store", &[]),
    ("upstream", &[]),
    ("fill", &["store", "upstream", "decide"]),
    ("serve", &["resolve", "decide", "store", "fill"]),
    ("admin", &["store", "fill", "upstream"]),
    ("config", &["admin", "fill", "resolve", "serve", "store", "upstream"]),
    ("cli", &["node", "config", "store", "admin"]),
];

/// Parts that all others may import; they import nothing of ours.
const SHARED: [&str; 4] = ["content", "clock", "telemetry", "shutdown"];

/// The most lines that a file may have.
const MAX_LINES: usize = 450;

/// Words that say nothing about what a file holds.
const EMPTY_NAMES: [&str; 5] = ["util", "common", "helper", "manager", "misc"];

/// A source file: its path below `src`, its text, and its text without comments and strings (lines kept).
struct Source {
    path: PathBuf,
    text: String,
    code: String,
}

impl Source {
    /// The part of the crate that the file belongs to: `store` for `store/blob.rs`.
    fn part(&self) -> String {
        let first = self.path.components().next().unwrap().as_os_str().to_str().unwrap();
        first.trim_end_matches(".rs").to_owned()
    }

    /// How many modules lie between the crate root and what the file holds: 1 for `store/mod.rs`, 2 for
    /// `store/blob.rs`.
    fn depth(&self) -> usize {
        self.path.components().count() - usize::from(self.path.ends_with("mod.rs"))
    }

    fn is_root(&self) -> bool {
        self.path == Path::new("lib.rs") || self.path == Path::new("main.rs")
    }

    /// Every place where `needle` stands in the code as a whole word.
    fn places_of(&self, needle: &str) -> Vec<String> {
        let found = |line: &str| words(line).any(|word| word == needle);
        let lines = self.code.lines().enumerate().filter(|(_, line)| found(line));
        lines.map(|(number, _)| format!("src/{}:{}", self.path.display(), number + 1)).collect()
    }

    /// Names of the crate's parts that the code mentions, with the line of each.
    fn imports(&self, parts: &BTreeSet<String>) -> Vec<(String, usize)> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("crate::") {
            let before = self.code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            for (name, offset) in heads(&self.code[at + "crate::".len()..]) {
                found.push((name, at + "crate::".len() + offset));
            }
        }
        // `super::` chains that climb to the root of the crate are the same in other words.
        let climb = "super::".repeat(self.depth());
        for (at, _) in self.code.match_indices(&climb) {
            for (name, offset) in heads(&self.code[at + climb.len()..]) {
                found.push((name, at + climb.len() + offset));
            }
        }
        let line = |offset: usize| self.code[..offset].matches('\n').count() + 1;
        let named = found.into_iter().filter(|(name, _)| parts.contains(name));
        named.map(|(name, offset)| (name, line(offset))).collect()
    }
}

/// The first names of the paths that `text` begins with: one, or all of a `{a::b, c}` group.
fn heads(text: &str) -> Vec<(String, usize)> {
    if !text.starts_with('{') {
        return vec![(ident(text), 0)];
    }
    let mut heads = Vec::new();
    let mut depth = 0_usize;
    let mut begins = false;
    for (offset, c) in text.char_indices() {
        match c {
            '{' => {
                depth += 1;
                begins = depth == 1;
            }
            '}' => depth -= 1,
            ',' if depth == 1 => begins = true,
            c if c.is_whitespace() => {}
            _ => {
                if begins {
                    heads.push((ident(&text[offset..]), offset));
                }
                begins = false;
            }
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

fn ident(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// `text` with comments, string literals and character literals blanked; line breaks stay where they are.
fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end > at {
            code.extend(chars[at..end].iter().map(|c| blank(*c)));
            at = end;
        } else {
            code.push(chars[at]);
            at += 1;
        }
    }
    code
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none begins there.
fn literal_end(chars: &[char], at: usize) -> usize {
    let next = |offset: usize| chars.get(at + offset).copied().unwrap_or('\0');
    let find = |from: usize, pattern: &str| {
        let pattern: Vec<char> = pattern.chars().collect();
        let hit = (from..chars.len()).find(|start| chars[*start..].starts_with(&pattern));
        hit.map_or(chars.len(), |start| start + pattern.len())
    };
    let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match chars[at] {
        '/' if next(1) == '/' => (at..chars.len()).find(|i| chars[*i] == '\n').unwrap_or(chars.len()),
        '/' if next(1) == '*' => find(at + 2, "*/"),
        'r' | 'b' if !in_word => {
            let mut from = at + 1;
            if chars[at] == 'b' && next(1) == 'r' {
                from += 1;
            }
            let hashes = chars[from.min(chars.len())..].iter().take_while(|c| **c == '#').count();
            let raw = chars[at] == 'r' || from > at + 1;
            if raw && chars.get(from + hashes) == Some(&'"') {
                find(from + hashes + 1, &format!("\"{}", "#".repeat(hashes)))
            } else {
                at
            }
        }
        '"' => quoted_end(chars, at, '"'),
        // A character, not a lifetime.
        '\'' if next(1) == '\\' => quoted_end(chars, at, '\''),
        '\'' if next(2) == '\'' => at + 3,
        _ => at,
    }
}

fn quoted_end(chars: &[char], at: usize, quote: char) -> usize {
    let mut i = at + 1;
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            c if c == quote => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

fn sources() -> Vec<Source> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    let load = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let code = code_of(&text);
        Source { path: path.strip_prefix(&root).unwrap().to_owned(), text, code }
    };
    paths.into_iter().map(load).collect()
}

#[track_caller]
fn assert_none(faults: &[String], rule: &str) {
    assert!(faults.is_empty(), "{rule}\n  {}", faults.join("\n  "));
}

fn parts(sources: &[Source]) -> BTreeSet<String> {
    sources.iter().filter(|source| !source.is_root()).map(Source::part).collect()
}

/// Every arrow between two parts, with the first place that draws it.
fn arrows(sources: &[Source]) -> BTreeMap<(String, String), Vec<String>> {
    let parts = parts(sources);
    let mut arrows = BTreeMap::<_, Vec<_>>::new();
    for source in sources.iter().filter(|source| !source.is_root()) {
        for (to, line) in source.imports(&parts) {
            if to != source.part() {
                let place = format!("src/{}:{line}: {} -> {to}", source.path.display(), source.part());
                arrows.entry((source.part(), to)).or_default().push(place);
            }
        }
    }
    arrows
}

#[test]
fn imports_follow_the_arrows() {
    let sources = sources();
    let mut faults: Vec<String> = Vec::new();
    for part in parts(&sources) {
        if part != "node" && !ALLOWED.iter().any(|(name, _)| *name == part) {
            faults.push(format!("src/{part}: say in tests/architecture.rs what this part may import"));
        }
    }
    for ((from, to), places) in arrows(&sources) {
        let allowed = from == "node"
            || ALLOWED.iter().any(|(name, targets)| {
                *name == from && (targets.contains(&&*to) || (SHARED.contains(&&*to) && !SHARED.contains(&&*from)))
            });
        if !allowed {
            faults.extend(places);
        }
    }
    assert_none(&faults, "arrows that are not on the list:");
}

#[test]
fn no_part_imports_itself_in_a_circle() {
    let arrows: BTreeSet<(String, String)> = arrows(&sources()).into_keys().collect();
    let mut reach = arrows.clone();
    loop {
        let longer: BTreeSet<_> = reach
            .iter()
            .flat_map(|(from, by)| {
                arrows.iter().filter(move |(start, _)| start == by).map(|(_, to)| (from.clone(), to.clone()))
            })
            .filter(|arrow| !reach.contains(arrow))
            .collect();
        if longer.is_empty() {
            break;
        }
        reach.extend(longer);
    }
    let circles: Vec<_> = reach.iter().filter(|(from, to)| from == to).map(|(from, _)| from.clone()).collect();
    assert_none(&circles, "parts on a circle of imports:");
}

#[test]
fn engines_are_named_in_one_place() {
    let sources = sources();
    let elsewhere = |word: &str, home: &dyn Fn(&Path) -> bool| -> Vec<String> {
        sources.iter().filter(|source| !home(&source.path)).flat_map(|source| source.places_of(word)).collect()
    };
    let copies = |path: &Path| path == Path::new("store/copies.rs");
    assert_none(&elsewhere("sled", &copies), "sled may be named in src/store/copies.rs only:");
    let config = |path: &Path| path.starts_with("config");
    assert_none(&elsewhere("serde_yaml", &config), "serde_yaml may be named in src/config only:");
    assert_none(&elsewhere("unsafe", &|_| false), "unsafe code is forbidden:");
}

/// What the store does to files passes one place, where tests see and stop it.
#[test]
fn the_store_changes_files_in_one_place() {
    const CHANGES: [&str; 18] = [
        "rustix::fs",
        "fs::write",
        "fs::rename",
        "fs::remove",
        "fs::create",
        "fs::copy",
        "fs::hard_link",
        "OpenOptions",
        "File::options",
        "File::create",
        "io::Write",
        ".write_at(",
        ".write_all_at(",
        ".write_all(",
        ".set_len(",
        ".set_times(",
        ".sync_all(",
        ".sync_data(",
    ];
    let mut faults = Vec::new();
    for source in sources() {
        let name = source.path.file_stem().unwrap().to_str().unwrap();
        let is_test = name.ends_with("tests") || source.path.components().any(|part| part.as_os_str() == "tests");
        if !source.path.starts_with("store") || source.path == Path::new("store/disk.rs") || is_test {
            continue;
        }
        let code = source.code.split("mod tests {").next().unwrap();
        for (number, line) in code.lines().enumerate() {
            // Handing bytes to the writer of a body is no change of a file yet.
            let line = line.replace("job.write_at(", "");
            faults.extend(
                CHANGES
                    .iter()
                    .filter(|change| line.contains(**change))
                    .map(|change| format!("src/{}:{}: {change}", source.path.display(), number + 1)),
            );
        }
    }
    assert_none(&faults, "files of the store are changed by src/store/disk.rs only:");
}

#[test]
fn files_say_what_they_hold_and_stay_short() {
    let mut faults = Vec::new();
    for source in sources() {
        let path = source.path.display();
        if !source.text.starts_with("//!") {
            faults.push(format!("src/{path}:1: does not open with //! and what lives there"));
        }
        let lines = source.text.lines().count();
        if lines > MAX_LINES {
            faults.push(format!("src/{path}:{lines}: longer than {MAX_LINES} lines"));
        }
        let mut modules = source.code.lines().filter_map(module_name);
        let names = source.path.components().map(|name| name.as_os_str().to_str().unwrap());
        if let Some(name) = names.chain(&mut modules).find(|name| EMPTY_NAMES.iter().any(|word| name.contains(word))) {
            faults.push(format!("src/{path}: `{name}` does not say what it is for"));
        }
    }
    assert_none(&faults, "files against the rules:");
}

/// The name in `mod name;` or `pub(crate) mod name {`.
fn module_name(line: &str) -> Option<&str> {
    let rest = line.trim_start();
    let rest = rest.strip_prefix("pub").map_or(rest, |rest| rest.split_once(' ').map_or("", |(_, rest)| rest));
    rest.strip_prefix("mod ")?.split([';', ' ', '{']).next()
}

#[test]
fn nothing_is_left_for_later() {
    let mut faults = Vec::new();
    for source in sources() {
        for (number, line) in source.code.lines().enumerate() {
            for mark in ["todo!", "unimplemented!", "dbg!"] {
                if line.contains(mark) {
                    faults.push(format!("src/{}:{}: {mark}", source.path.display(), number + 1));
                }
            }
        }
    }
    assert_none(&faults, "unfinished code:");
}

#[test]
fn tests_that_do_not_run_by_themselves_are_named() {
    let named = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/running-tests.md")).unwrap();
    let mut faults = Vec::new();
    for source in sources() {
        for (at, _) in source.code.match_indices("#[ignore") {
            let (_, rest) = source.code[at..].split_once("fn ").unwrap();
            let test = ident(rest);
            // A command may use the begin of the name as a filter.
            if !words(&named).any(|word| word.len() > 12 && test.starts_with(word)) {
                faults.push(format!("src/{}: {test}", source.path.display()));
            }
        }
    }
    assert_none(&faults, "ignored, and not in docs/running-tests.md:");
}

#[test]
fn the_reader_of_sources_sees_code_only() {
    let text = "use crate::{serve, store::{Store, Blob}, upstream as u};\n// crate::comment\nlet a = \"crate::text\";\n\
                let q = '\"'; let b = r#\"crate::raw \"# ; fn f<'a>(x: &'a crate::node::Node) {}\nsuper::super::fill::x";
    let source = Source { path: "store/blob.rs".into(), text: text.to_owned(), code: code_of(text) };
    let parts = ["serve", "store", "upstream", "comment", "text", "raw", "node", "fill", "Blob"];
    let parts = parts.iter().map(|part| (*part).to_owned()).collect();
    let mut found = source.imports(&parts);
    found.sort();
    let expected = [("fill", 5), ("node", 4), ("serve", 1), ("store", 1), ("upstream", 1)];
    assert_eq!(found, expected.map(|(name, line)| (name.to_owned(), line)));
    assert_eq!(module_name("    pub(super) mod inner {"), Some("inner"));
    assert_eq!(module_name("model();"), None);
}
