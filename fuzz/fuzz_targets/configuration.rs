//! A configuration file, variables and flags. They are the operator's, and mistakes in them are to be told, not died of.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waystation::config::{Config, Sources, parse_duration, parse_size};

fuzz_target!(|input: (u8, &str)| {
    let (source, text) = input;
    let (first, second) = text.split_once('\n').unwrap_or((text, ""));
    let sources = match source % 4 {
        0 | 1 => Sources::new().file("fuzz.yaml", text),
        2 => Sources::new().variable(first, second),
        _ => Sources::new().set("--set", first, second),
    };
    if let Err(errors) = Config::load(&sources) {
        assert!(!errors.to_string().is_empty());
    }
    let _ = (parse_size(text), parse_duration(text));
});
