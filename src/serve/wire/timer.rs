//! [`Timer`]: a lazily moved timer. A busy connection sets a deadline for each wait and hardly ever lets one pass, so
//! the timer wheel is touched only when the timer would be late or has fired too early.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

/// Made when first polled.
#[derive(Debug, Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Completes `allowed` after `since`.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, since: Instant, allowed: Duration) -> Poll<()> {
        let deadline = tokio::time::Instant::from_std(since) + allowed;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}
