//! The head of an upstream answer: Content-Length, Transfer-Encoding, Content-Range, hop-by-hop fields.
#![no_main]

use http::StatusCode;
use libfuzzer_sys::fuzz_target;
use waystation::upstream::ContentRange;
use waystation_fuzz::{fields, method};

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (choice, status, bytes) = input;
    let Ok(status) = StatusCode::from_u16([200, 206, 416, 304, status][usize::from(choice >> 2) % 5]) else { return };
    let names = [
        "content-length",
        "content-range",
        "transfer-encoding",
        "content-type",
        "connection",
        "via",
        "cdn-loop",
        "etag",
        "age",
        "expires",
    ];
    waystation::upstream::fuzzing::answer(&method(choice), status, fields(bytes, &names));
    if let Some(range) = ContentRange::parse(bytes) {
        assert!(range.range().is_some_and(|found| found.start() == range.first && found.last() == range.last));
    }
});
