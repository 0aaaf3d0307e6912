//! Entity tags, digests and validators of stored answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waystation::content::{Digest, EntityTag, Validator};
use waystation_fuzz::fields;

fuzz_target!(|bytes: &[u8]| {
    let validator = Validator::of(&fields(bytes, &["etag", "last-modified", "date"]));
    assert!(!validator.same_strong(&validator) || validator.is_strong());
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(tag) = EntityTag::parse(text) {
        assert_eq!(EntityTag::parse(&tag.to_string()), Some(tag.clone()));
        assert!(tag.weak_eq(&tag) && tag.strong_eq(&tag) != tag.is_weak());
    }
    for digest in
        [Digest::from_hex(text), Digest::from_base64(text), Digest::from_base64url(text)].into_iter().flatten()
    {
        assert_eq!(Digest::from_hex(&digest.to_hex()), Ok(digest));
    }
});
