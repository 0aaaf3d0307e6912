//! The header by which a proxy names its client, read as it is read from a socket.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waystation::serve::proxy_header::{LONGEST, Progress, SIGNATURE, parse};

fuzz_target!(|input: (bool, &[u8])| {
    let (begins, bytes) = input;
    let bytes = if begins { [&SIGNATURE[..], bytes].concat() } else { bytes.to_vec() };
    let whole = parse(&bytes);
    let mut have = 0;
    while let Ok(Progress::NeedMore { total }) = parse(&bytes[..have]) {
        assert!(total > have && total <= LONGEST);
        if total > bytes.len() {
            // What has come may show already that it is no header.
            assert!(matches!(whole, Err(_) | Ok(Progress::NeedMore { .. })));
            return;
        }
        have = total;
    }
    // Reading what is asked for ends with the header's last byte.
    assert_eq!(parse(&bytes[..have]), whole);
    if let Ok(Progress::Complete { length, .. }) = whole {
        assert_eq!(length, have);
    }
});
