//! The target of a request: what is refused, and what names an origin inside of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waystation::resolve::{check_target, key_query, normalize_path, normalize_query, parameters};
use waystation::resolve::{take_parameter, take_path_segment};

fuzz_target!(|bytes: &[u8]| {
    let clean = check_target(bytes).is_ok();
    let Ok(text) = std::str::from_utf8(bytes) else {
        assert!(!clean, "bytes beyond ASCII are accepted");
        return;
    };
    for (host, rest) in [take_parameter(text), take_path_segment(text)].into_iter().flatten().flatten() {
        assert!(!host.host.is_empty());
        assert!(rest.len() <= text.len() + 1);
    }
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    for plus_is_literal in [false, true] {
        let once = normalize_path(path, plus_is_literal);
        assert_eq!(normalize_path(&once, plus_is_literal), once);
    }
    let once = normalize_query(query);
    assert_eq!(normalize_query(&once), once);
    let names = parameters(query).map(|parameter| parameter.decoded_name().len()).sum::<usize>();
    assert!(names <= query.len());
    let kept = key_query(query, &waystation::content::QueryPolicy::Keep, |_| false);
    assert!(kept.is_none_or(|kept| kept.len() <= query.len()));
});
