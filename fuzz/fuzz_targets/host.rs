//! Names and addresses of origins, as clients write them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waystation::resolve::{parse_encoded_host_port, parse_host_field, parse_host_port};

fuzz_target!(|bytes: &[u8]| {
    let _ = parse_host_field(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = parse_encoded_host_port(text);
    if let Ok(found) = parse_host_port(text) {
        assert_eq!(*found.host, *found.host.to_ascii_lowercase());
        assert!(!found.host.is_empty() && !found.host.ends_with('.'));
        assert!(!found.host.contains(['@', '/', '?', '#', '\\', ' ', '%']));
        let again = parse_host_port(&found.host);
        assert!(again.is_ok_and(|again| again.host == found.host && again.port.is_none()));
    }
});
