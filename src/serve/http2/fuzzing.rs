//! A way in for the fuzz target: the frame meter. No serving build has this.

use std::time::Instant;

use super::meter::FrameMeter;

/// Meters frames in one piece and in two, and checks that both come to the same end.
///
/// # Panics
/// When they do not.
pub fn frames(bytes: &[u8], split: usize) {
    let now = Instant::now();
    let mut whole = FrameMeter::new(now);
    let of_whole = whole.read(bytes, now);
    let (first, second) = bytes.split_at_checked(split).unwrap_or((bytes, &[]));
    let mut pieces = FrameMeter::new(now);
    let of_pieces = pieces.read(first, now).and_then(|()| pieces.read(second, now));
    assert_eq!(of_whole, of_pieces);
    assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
}
