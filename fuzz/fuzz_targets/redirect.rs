//! `Location` of a redirect, against the target that was asked for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waystation::resolve::check_target;
use waystation_fuzz::halves;

fuzz_target!(|bytes: &[u8]| {
    let (location, target) = halves(bytes);
    waystation::upstream::fuzzing::redirect("/a/b?c", location);
    if check_target(target).is_ok() && target.starts_with(b"/") {
        if let Ok(target) = std::str::from_utf8(target) {
            waystation::upstream::fuzzing::redirect(target, location);
        }
    }
});
