//! The file beside a partial body, as found after a crash.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Option<u64>, &[u8])| waystation::store::fuzzing::map_file(input.1, input.0));
