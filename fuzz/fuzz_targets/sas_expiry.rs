//! Expiry times and tokens of Azure shared access signatures.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waystation::content::AuthParameters;
use waystation::resolve::{AuthToken, parse_expiry};

fuzz_target!(|text: &str| {
    if let Some(time) = parse_expiry(text) {
        let _ = time.to_system_time();
    }
    if let Some(token) = AuthToken::from_query(text, &AuthParameters::AzureSas) {
        let _ = (token.bytes().len(), token.expires());
        assert!(!format!("{token:?}").contains("sig="), "a token is shown");
    }
});
