//! Frames of an HTTP/2 client, as the meter sees them: the first byte says where they are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waystation::serve::http2::fuzzing::frames;

fuzz_target!(|input: &[u8]| {
    if let Some((split, bytes)) = input.split_first() {
        frames(bytes, usize::from(*split));
    }
});
