//! Dictionaries of structured fields, the caches' directives in them and in `Cache-Control`, and what a request says of its
//! urgency.
#![no_main]

use http::HeaderName;
use libfuzzer_sys::fuzz_target;
use waystation::decide::fuzzing::{dictionary, directives};
use waystation::decide::urgency;
use waystation_fuzz::fields;

fuzz_target!(|bytes: &[u8]| {
    let fields = fields(bytes, &["cdn-cache-control", "cache-control", "pragma", "expires", "priority"]);
    dictionary(&fields, &HeaderName::from_static("cdn-cache-control"));
    directives(&fields);
    assert!(urgency(&fields) <= 7);
});
