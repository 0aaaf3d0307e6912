//! The map of a partial body under writes and losses in any order, against a plain list.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| waystation::store::fuzzing::block_map(bytes));
