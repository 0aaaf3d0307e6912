//! `If-Match`, `If-None-Match`, `If-Modified-Since`, `If-Unmodified-Since` against a stored answer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waystation::decide::preconditions;
use waystation_fuzz::{fields, halves, method, record};

const REQUEST: [&str; 5] = ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"];

fuzz_target!(|input: (u8, &[u8])| {
    let (first, second) = halves(input.1);
    let stored = record(fields(second, &["etag", "last-modified", "date"]), Some(1));
    let _ = preconditions(&method(input.0), &fields(first, &REQUEST), &stored);
});
