//! The bytes of a request head at the gate, in one piece and in two.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, u16, &[u8])| {
    let (max_head, split, bytes) = input;
    waystation::serve::wire::fuzzing::request_head(bytes, usize::from(max_head), usize::from(split));
    waystation::serve::wire::fuzzing::request_head(bytes, 32 * 1024, usize::from(split));
});
