//! The bytes of a request head at the gate, in one piece and in two.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, u16, &[u8])| {
    let (max_head, split, bytes) = input;
    // A small limit, and the smallest that may be configured.
    for max_head in [256 + usize::from(max_head), 8 * 1024] {
        waystation::serve::wire::fuzzing::request_head(bytes, max_head, usize::from(split));
    }
});
