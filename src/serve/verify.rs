//! Verify first, then stream: whether the bytes of a body with an expected digest leave while it is being filled.
//!
//! Wrong bytes that a client has kept stay in its file, so a body that is soon there is checked before its first byte
//! leaves. A longer one streams, and only its end waits (`follow`).

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::fill::{Arriving, FlightGuard};
use crate::store::Progress;

/// A body that will be there within this time is verified before its first byte leaves.
pub(super) const WORTH_WAITING: Duration = Duration::from_secs(8);

/// What came of the waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The body is whole and has its digest; this is its length.
    Verified(u64),
    /// It takes too long, or too long to tell: bytes leave as they land.
    TooLong,
    /// It turned out to be wrong, or the fill ended.
    Stopped,
}

/// Waits until the body is verified, or is seen to take longer than is worth waiting for; at the latest until `latest`.
pub(super) async fn verified_soon(body: &Arriving, guard: &FlightGuard, latest: Instant) -> Verdict {
    let until = latest.min(Instant::now() + WORTH_WAITING);
    let mut outlook = guard.outlook();
    let ended = body.wait(u64::MAX);
    tokio::pin!(ended);
    loop {
        let seen = *outlook.borrow_and_update();
        if seen.down_after.is_some() || seen.whole_by.is_some_and(|by| by > Instant::now() + WORTH_WAITING) {
            return Verdict::TooLong;
        }
        tokio::select! {
            progress = &mut ended => return match progress {
                Progress::Ended(length) | Progress::Present(length) => Verdict::Verified(length),
                Progress::Stopped => Verdict::Stopped,
            },
            changed = outlook.changed() => {
                // Nobody foresees anything any more; the partial tells the end.
                if changed.is_err() {
                    return Verdict::TooLong;
                }
            }
            () = sleep_until(until) => return Verdict::TooLong,
        }
    }
}
