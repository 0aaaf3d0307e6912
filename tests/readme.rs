//! The README agrees with the program: its settings table has every setting with its default, its commands and samples are
//! understood, its demo is the demo, and files that it names exist.

#![allow(clippy::unwrap_used, reason = "what cannot be read fails the test")]

use std::collections::BTreeMap;
use std::path::Path;

use clap::Parser as _;
use waystation::cli::{Cli, Exit};
use waystation::config::{Config, Sources};

const README: &str = include_str!("../README.md");

/// The rows of the settings table: name and default, both without their back-ticks.
fn table() -> BTreeMap<String, String> {
    let (_, settings) = README.split_once("\n## Settings\n").unwrap();
    let (settings, _) = settings.split_once("\n## ").unwrap();
    let rows = settings.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let default = |rest: &str| rest.split(" | ").next().unwrap_or_default().trim().trim_matches('`').to_owned();
    rows.map(|(name, rest)| (name.to_owned(), default(rest))).collect()
}

/// Blocks of code in the language `kind`.
fn blocks(kind: &str) -> impl Iterator<Item = &'static str> {
    let parts = README.split(&format!("\n```{kind}\n")).skip(1).collect::<Vec<_>>();
    parts.into_iter().map(|part| part.split_once("\n```").unwrap().0)
}

#[test]
fn the_table_has_every_setting_and_its_default() {
    let table = table();
    assert_eq!(table.keys().cloned().collect::<Vec<_>>(), {
        let mut names = Config::setting_names();
        names.sort();
        names
    });
    let sources = Sources::new().file("host", "origins: [{ host: a.example.com }]");
    let mut compared = 0;
    for setting in Config::load(&sources).unwrap().effective.settings() {
        let name = setting.path.replace("[0]", "[]");
        // The host has no default, and lists of sections have those of their fields.
        if name != "origins[].host" {
            assert_eq!(table.get(&name), Some(&setting.value.to_string()), "{name}");
            compared += 1;
        }
    }
    assert!(compared > 40, "{compared}");
}

#[test]
fn commands_are_understood() {
    let mut commands = 0;
    for line in blocks("sh").flat_map(str::lines) {
        let line = line.split("  #").next().unwrap().trim();
        let Some(arguments) = line.strip_prefix("waystation ").or(line.strip_prefix("cargo run --release -- ")) else {
            assert!(line == "cargo test" || line.starts_with("curl "), "{line}");
            continue;
        };
        let parsed = Cli::try_parse_from(["waystation"].into_iter().chain(arguments.split_whitespace()));
        assert!(parsed.is_ok(), "{line}: {parsed:?}");
        commands += 1;
    }
    assert!(commands >= 7, "{commands}");
}

/// What happens in a demo, line by line, without the figures.
fn demo_lines(output: &str) -> Vec<String> {
    let rows = output.lines().skip_while(|line| !line.trim_start().starts_with("what happens")).skip(1);
    let rows = rows.take_while(|line| !line.is_empty());
    rows.map(|line| line.chars().take(36).collect::<String>().trim().to_owned()).collect()
}

#[test]
fn the_demo_shows_what_is_shown() {
    let demo = std::process::Command::new(env!("CARGO_BIN_EXE_waystation")).arg("demo").output().unwrap();
    let output = String::from_utf8_lossy(&demo.stdout).into_owned();
    assert!(demo.status.success(), "{output}{}", String::from_utf8_lossy(&demo.stderr));
    let (_, shown) = README.split_once("<!-- demo:begin -->").unwrap();
    let (shown, _) = shown.split_once("<!-- demo:end -->").unwrap();
    assert!(demo_lines(shown).len() >= 8, "{shown}");
    assert_eq!(demo_lines(&output), demo_lines(shown), "{output}");
}

#[test]
fn a_demo_that_is_stopped_leaves_nothing() {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    let directory = tempfile::tempdir().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_waystation"));
    demo.arg("demo").env("TMPDIR", directory.path()).stdout(Stdio::piped());
    let mut demo = demo.spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("first device: miss")));
    let pid = rustix::process::Pid::from_child(&demo);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    for line in lines {
        line.unwrap();
    }
    assert_eq!(demo.wait().unwrap().code(), Some(130));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn samples_are_accepted() {
    for sample in blocks("yaml") {
        assert!(Config::load(&Sources::new().file("sample", sample)).is_ok(), "{sample}");
    }
    for sample in blocks("json") {
        let found: serde_json::Value = serde_json::from_str(sample).unwrap();
        assert!(found["DOCacheHost"].is_string());
    }
}

#[test]
fn exit_codes_are_those_of_the_program() {
    let codes = Exit::ALL.map(|exit| format!("{} {}", exit.code(), exit.meaning())).join("; ");
    assert!(README.contains(&codes), "{codes}");
}

#[test]
fn files_that_are_named_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let words = README.split(|c: char| c.is_whitespace() || "`()[]".contains(c));
    let paths = words.map(|word| word.trim_end_matches(['.', ',', ';', ':', ')']));
    let ours = ["docs/", "config/", "docker/", "edge-module/", "fuzz/"];
    let mut found = 0;
    for path in paths.filter(|path| ours.iter().any(|folder| path.starts_with(folder))) {
        assert!(root.join(path).exists(), "{path}");
        found += 1;
    }
    assert!(found >= 6, "{found}");
}
