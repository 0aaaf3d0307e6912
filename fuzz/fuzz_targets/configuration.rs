//! A configuration file, variables and flags. They are the operator's, and mistakes in them are to be told, not died of.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waystation::config::{Config, Sources, parse_duration, parse_size};

fuzz_target!(|text: &str| {
    let (first, second) = text.split_once('\n').unwrap_or((text, ""));
    let _ = Config::load(&Sources::new().file("fuzz.yaml", text));
    let _ = Config::load(&Sources::new().variable(first, second));
    let _ = Config::load(&Sources::new().variable(&format!("WAYSTATION_{first}"), second));
    let _ = Config::load(&Sources::new().set("--set", first, second));
    let _ = (parse_size(text), parse_duration(text));
});
