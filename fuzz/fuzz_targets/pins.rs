//! What a drive says is pinned.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| waystation::store::fuzzing::pins(bytes));
