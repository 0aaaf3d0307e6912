//! `Cache-Control`, `Expires`, `Date`, `Age` and the like of requests and answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waystation::decide::{
    Options, RequestFacts, age, decide, may_serve_stale, merge_304, not_modified_selects, storable,
};
use waystation_fuzz::{fields, halves, later, method, policy, record};

const ANSWER: [&str; 9] =
    ["cache-control", "expires", "date", "age", "last-modified", "etag", "pragma", "vary", "content-type"];
const REQUEST: [&str; 6] = ["cache-control", "pragma", "authorization", "if-none-match", "range", "if-modified-since"];

fuzz_target!(|input: (u8, u32, &[u8])| {
    let (choice, seconds, bytes) = input;
    let (first, second) = halves(bytes);
    let (answer, asked) = (fields(first, &ANSWER), fields(second, &REQUEST));
    let (policy, method, now) = (policy(), method(choice), later(seconds));
    let stored = record(answer.clone(), Some(1));
    let facts = RequestFacts { method: &method, headers: &asked };
    for clients_may_refetch in [false, true] {
        let _ = decide(&facts, Some(&stored), &policy, "/a", &Options { clients_may_refetch }, now);
    }
    let _ = may_serve_stale(&stored, &policy, "/a", now);
    let _ = storable(&method, &asked, stored.status, &answer, &policy, "/a");
    let _ = not_modified_selects(&stored, &asked);
    let merged = merge_304(&stored, &asked, now, now);
    assert!(age(&merged, now.plus(std::time::Duration::from_secs(1))) >= std::time::Duration::from_secs(1));
});
