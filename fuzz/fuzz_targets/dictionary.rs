//! Dictionaries of structured fields, and the caches' directives in them and in `Cache-Control`.
#![no_main]

use http::HeaderName;
use libfuzzer_sys::fuzz_target;
use waystation::decide::fuzzing::{dictionary, directives};
use waystation_fuzz::fields;

fuzz_target!(|bytes: &[u8]| {
    let fields = fields(bytes, &["cdn-cache-control", "cache-control", "pragma", "expires"]);
    dictionary(&fields, &HeaderName::from_static("cdn-cache-control"));
    directives(&fields);
});
