//! `Repr-Digest` of an upstream answer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waystation::decide::repr_digest;
use waystation_fuzz::fields;

fuzz_target!(|bytes: &[u8]| {
    let names = ["repr-digest", "content-digest", "digest"];
    if let Some(digest) = repr_digest(&fields(bytes, &names)) {
        let written = format!("0{}", digest.to_member());
        assert_eq!(repr_digest(&fields(written.as_bytes(), &names)), Some(digest));
    }
});
