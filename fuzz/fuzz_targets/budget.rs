//! The settings of a budget (rates, hours, days, time zones), what holds by them at a moment, and the file of a day.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waystation::config::{Config, Sources};
use waystation::upstream::fuzzing::{calendar, day};

fuzz_target!(|input: (i64, &str)| {
    let (seconds, text) = input;
    day(text);
    let mut lines = text.lines().map(|line| line.replace(['"', '\\'], ""));
    let mut next = || lines.next().unwrap_or_default();
    let (rate, daily, zone) = (next(), next(), next());
    let mut windows = String::new();
    for _ in 0..3 {
        let (days, from, to, limit) = (next(), next(), next(), next());
        windows.push_str(&format!("{{days: [\"{days}\"], from: \"{from}\", to: \"{to}\", rate: \"{limit}\"}},"));
    }
    let set = |path: &str, value: &str| Sources::new().set("--set", path, value);
    let budget = [
        ("upstream.budget.rate", format!("\"{rate}\"")),
        ("upstream.budget.daily", format!("\"{daily}\"")),
        ("upstream.budget.windows", format!("[{windows}]")),
    ];
    for (path, value) in &budget {
        if let Ok(loaded) =
            Config::load(&set(path, value).set("--set", "upstream.budget.time_zone", &format!("\"{zone}\"")))
        {
            // Four thousand years around 1970.
            calendar(&loaded.config.upstream.budget.calendar, seconds % (2_000 * 366 * 86_400));
        }
    }
});
