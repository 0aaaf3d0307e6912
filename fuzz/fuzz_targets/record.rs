//! The stored form of a record.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    waystation::store::fuzzing::record(bytes);
    // The present format, so that the fuzzer need not guess it.
    waystation::store::fuzzing::record(&[&[1], bytes].concat());
});
