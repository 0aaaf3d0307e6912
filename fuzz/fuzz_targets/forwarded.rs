//! Fields that caches and proxies before us write: marks of loops.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waystation::upstream::{Forwarding, request_fields, request_loops};
use waystation_fuzz::fields;

fuzz_target!(|bytes: &[u8]| {
    let headers = fields(bytes, &["via", "cdn-loop", "connection", "te", "upgrade", "x-http-method-override"]);
    let _ = request_loops(&headers, "waystation");
    for forwarding in [Forwarding::Cacheable, Forwarding::Bypass] {
        let sent = request_fields(&headers, forwarding, false);
        assert!(!sent.contains_key("connection") && !sent.contains_key("host"));
    }
});
