//! What a client owes, and for how long it may: the time limits of reading. Those of writing are in `io`.

use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::io::{ClientIo, End};
use super::refusal::Refusal;

/// What the client owes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// A request.
    Idle,
    /// The rest of a head.
    Head,
    /// More of a request's body.
    Body,
    /// Nothing: it is our turn.
    Nothing,
}

impl ClientIo<'_> {
    /// Notes what the client owes; the clock is read only when that changes.
    pub(super) fn wait_for(&mut self, what: Waiting) {
        if self.waiting != what {
            self.waiting = what;
            self.waiting_since = Instant::now();
        }
    }

    /// The client owes a head since `time`.
    pub(super) fn idle_since(&mut self, time: Instant) {
        (self.waiting, self.waiting_since) = (Waiting::Idle, time);
    }

    /// The client owes nothing.
    pub(super) fn busy(&mut self) {
        self.waiting = Waiting::Nothing;
    }

    /// Polls the timer for what the client owes.
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let limits = &self.context.limits;
        let (allowed, end) = match self.waiting {
            Waiting::Idle if self.attached && self.context.park_after < limits.idle_time => {
                (self.context.park_after, End::Park)
            }
            Waiting::Idle => (limits.idle_time, End::Closed),
            Waiting::Head => (limits.header_time, End::Refuse(Refusal::HeadTimeout)),
            Waiting::Body => (limits.body_time, End::Closed),
            Waiting::Nothing => return Poll::Pending,
        };
        ready!(self.timer.poll(cx, self.waiting_since, allowed));
        Poll::Ready(end)
    }
}
