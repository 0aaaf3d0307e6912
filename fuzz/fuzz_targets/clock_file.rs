//! The file in which the time is kept, and clocks that go as they like.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], Vec<(u32, u16)>)| {
    let (file, looks) = input;
    waystation::clock::fuzzing::kept(file, &looks);
});
