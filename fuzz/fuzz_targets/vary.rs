//! `Vary`, and the request fields that it names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waystation::decide::{selecting_fields, vary_matches};
use waystation_fuzz::{fields, halves, policy, record};

fuzz_target!(|bytes: &[u8]| {
    let (first, second) = halves(bytes);
    let answer = fields(first, &["vary", "content-encoding"]);
    let asked = fields(second, &["accept-encoding", "accept", "accept-language", "user-agent"]);
    if let Ok(vary) = selecting_fields(&answer, &asked, &policy()) {
        let mut stored = record(answer, Some(1));
        stored.vary = vary;
        assert!(vary_matches(&stored, &asked), "the request that selected a variant does not match it");
    }
});
