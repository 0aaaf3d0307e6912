//! `Accept-Language` and `Content-Language`.
#![no_main]

use http::HeaderValue;
use libfuzzer_sys::fuzz_target;
use waystation_fuzz::{fields, halves};

fuzz_target!(|bytes: &[u8]| {
    let (asked, language) = halves(bytes);
    if let Ok(language) = HeaderValue::from_bytes(language) {
        waystation::decide::fuzzing::languages(&fields(asked, &["accept-language"]), &language);
    }
});
