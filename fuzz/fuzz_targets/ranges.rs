//! `Range` and `If-Range` against a body of any length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waystation::decide::{RangeOutcome, ranges};
use waystation_fuzz::{fields, halves, record};

fuzz_target!(|input: (Option<u64>, u8, &[u8])| {
    let (length, most, bytes) = input;
    let (first, second) = halves(bytes);
    let stored = record(fields(second, &["etag", "last-modified", "date"]), length);
    let found = match ranges(&fields(first, &["range", "if-range"]), &stored, length, most.into()) {
        RangeOutcome::Single(range) => vec![range],
        RangeOutcome::Multiple(ranges) => {
            assert!(ranges.len() > 1 && ranges.len() <= usize::from(most));
            ranges
        }
        _ => return,
    };
    for range in found {
        assert!(range.start() < range.end());
        assert!(length.is_none_or(|length| range.end() <= length), "a range beyond the end");
    }
});
