//! [`Interim`]: responses before the response (RFC 9110 section 15.2), which hyper's server does not send. The service queues
//! them while it is still at work on its answer; they are written before the first byte of that. Nothing of another answer can
//! come between, since a request is handed to hyper only when the answer before it has been written.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::io::AsyncWrite as _;

use super::exchange::Exchange;
use super::io::ClientIo;
use crate::serve::ready::push_field;

/// Most bytes of interim responses before one answer: who sends more is cut short, not waited for.
const MOST: usize = 16 * 1024;

/// Sends interim responses to the client of one request, for as long as its answer has not begun.
#[derive(Clone)]
pub struct Interim {
    exchange: Arc<Exchange>,
    number: u64,
}

/// What waits to be written before the present answer.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Whether there is anything, so that answers without interim responses take no lock.
    is_filled: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    bytes: BytesMut,
    /// All that was queued before the present answer, in bytes.
    queued: usize,
    /// Of the present request.
    number: u64,
    /// Whether the service is at work.
    is_open: bool,
    waker: Option<Waker>,
}

impl Interim {
    pub(super) fn new(exchange: &Arc<Exchange>) -> Self {
        let number = exchange.interims().open();
        Self { exchange: Arc::clone(exchange), number }
    }

    /// Sends a response of this status with these fields, unless the answer has begun.
    pub fn send(&self, status: StatusCode, fields: &HeaderMap) {
        let mut text = format!("HTTP/1.1 {status}\r\n").into_bytes();
        fields.iter().for_each(|(name, value)| push_field(&mut text, name, value.as_bytes()));
        text.extend_from_slice(b"\r\n");
        self.exchange.interims().push(self.number, &text);
    }
}

impl fmt::Debug for Interim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interim").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Queue {
    /// A request is handed to the service.
    fn open(&self) -> u64 {
        let mut state = self.state.lock();
        let number = state.number.wrapping_add(1);
        *state = State { number, is_open: true, ..State::default() };
        self.is_filled.store(false, Ordering::Release);
        number
    }

    /// The answer begins.
    pub(super) fn close(&self) {
        self.state.lock().is_open = false;
    }

    /// Who waits for the service is to be woken when something is queued meanwhile.
    pub(super) fn wake(&self, waker: &Waker) {
        let mut state = self.state.lock();
        if state.is_open && !state.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
    }

    fn push(&self, number: u64, text: &[u8]) {
        let mut state = self.state.lock();
        if !state.is_open || state.number != number || state.queued + text.len() > MOST {
            return;
        }
        state.queued += text.len();
        state.bytes.extend_from_slice(text);
        self.is_filled.store(true, Ordering::Release);
        if let Some(waker) = &state.waker {
            waker.wake_by_ref();
        }
    }
}

impl ClientIo<'_> {
    /// Writes what is queued.
    pub(super) fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let exchange = Arc::clone(self.exchange());
        let queue = exchange.interims();
        if !queue.is_filled.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        let mut state = queue.state.lock();
        while !state.bytes.is_empty() {
            match Pin::new(self.stream()).poll_write(cx, &state.bytes) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => state.bytes.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Ready(Err(ready!(self.poll_stuck(cx)))),
            }
        }
        queue.is_filled.store(false, Ordering::Release);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queued(queue: &Queue) -> usize {
        queue.state.lock().bytes.len()
    }

    #[test]
    fn nothing_is_queued_for_an_answer_that_has_begun_or_is_another_ones() {
        let queue = Queue::default();
        queue.push(0, b"x");
        assert_eq!(queued(&queue), 0, "nobody has asked");
        let first = queue.open();
        queue.push(first, b"first");
        assert_eq!(queued(&queue), 5);
        queue.close();
        queue.push(first, b"late");
        assert_eq!(queued(&queue), 5);
        let second = queue.open();
        assert_eq!(queued(&queue), 0);
        queue.push(first, b"late");
        assert_eq!(queued(&queue), 0);
        queue.push(second, &[0; MOST]);
        queue.push(second, b"too much");
        assert_eq!(queued(&queue), MOST);
        assert!(queue.is_filled.load(Ordering::Acquire));
    }
}
