//! The frames of a drive's journal, as found after a crash.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| waystation::store::fuzzing::journal(bytes));
