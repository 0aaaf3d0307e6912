//! The framing of a chunked request body, in one piece and in two.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, &[u8])| {
    let (split, bytes) = input;
    waystation::serve::wire::fuzzing::chunks(bytes, usize::from(split));
});
