//! Ways in for the fuzz targets: the head gate and the chunk scanner. No serving build has this.

use super::chunked::ChunkScanner;
use super::head_gate::{HeadGate, Verdict};

/// Scans a request head in one piece and in two, and checks that both come to the same end.
///
/// # Panics
/// When they do not, or when a head ends outside of the bytes.
pub fn request_head(bytes: &[u8], max_head: usize, split: usize) {
    let whole = HeadGate::new(max_head).scan(bytes);
    let mut gate = HeadGate::new(max_head);
    let early = gate.scan(bytes.get(..split).unwrap_or(bytes));
    let late = if matches!(early, Verdict::NeedMore) { gate.scan(bytes) } else { early };
    assert_eq!(format!("{late:?}"), format!("{whole:?}"));
    if let Verdict::Head { end, .. } = whole {
        assert!(end <= bytes.len() && end <= max_head);
        assert!(bytes.get(..end).is_some_and(|head| head.ends_with(b"\n")));
    }
}

/// Scans a chunked body in one piece and in two, and checks that both come to the same end.
///
/// # Panics
/// When they do not, or when more was taken than there is.
pub fn chunks(bytes: &[u8], split: usize) {
    let (first, second) = bytes.split_at_checked(split).unwrap_or((bytes, &[]));
    let end = |pieces: &[&[u8]]| {
        let mut scanner = ChunkScanner::new();
        let mut taken = 0;
        for piece in pieces {
            let progress = scanner.scan(piece).ok()?;
            assert!(progress.taken <= piece.len());
            taken += progress.taken;
            if progress.done {
                return Some((taken, true));
            }
        }
        Some((taken, false))
    };
    assert_eq!(end(&[bytes]), end(&[first, second]));
}
