//! Whose word a digest is, as `Cache-Status` says it, and who wants to know.
#![no_main]

use http::HeaderValue;
use libfuzzer_sys::fuzz_target;
use waystation::decide::{repr_digest, said_digest, wants_digest};
use waystation_fuzz::fields;

fuzz_target!(|bytes: &[u8]| {
    let mut answer = fields(bytes, &["cache-status", "repr-digest", "want-repr-digest"]);
    let _ = wants_digest(&answer);
    let digest = repr_digest(&answer).and_then(|digest| digest.sha_256());
    assert!(said_digest(&answer).is_none_or(|said| Some(said) == digest));
    // Only the last cache counts, whatever those before it say.
    answer.append("cache-status", HeaderValue::from_static("last; hit; detail=\"; digest=own\""));
    assert_eq!(said_digest(&answer), None);
    answer.append("cache-status", HeaderValue::from_static("last; hit; digest=own"));
    assert_eq!(said_digest(&answer), digest);
});
