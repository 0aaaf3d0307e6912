//! Answers that are known before hyper has seen their request: a [`Recall`] is shown each complete head, and what it has
//! ready is written straight to the socket. Which answers are ready is the service's business.
//!
//! Everything that the gate asks of a head holds before it is shown, and hyper is idle above: it was told of no request.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, Bytes};

use super::io::ClientIo;
use super::piece::{Content, Payload, Piece, Receipt};

/// Knows answers by the words of their requests.
pub trait Recall: Send + Sync + std::fmt::Debug {
    /// Looks for the answer to the request whose head is `head` and which has no body. `peer` is the client's end of the
    /// connection, and the last byte of the head was there at `arrived`. Never blocks.
    fn recall(&self, head: &[u8], peer: SocketAddr, arrived: Instant) -> Recalled;
}

/// What a [`Recall`] knows of a request.
pub enum Recalled {
    /// The answer.
    Answer(Direct),
    /// It would like to keep the answer: the service gets the words of the request with it ([`Words`]).
    Wanted,
    /// Nothing, and it would not keep an answer.
    Unknown,
}

/// A whole answer.
pub struct Direct {
    /// Status line and fields, with the empty line behind them.
    pub head: Vec<u8>,
    /// The content: at least one byte, at most 256 KiB, so that nothing of it is held back.
    pub content: Content,
    /// Who is told how much of the content has left.
    pub receipt: Arc<dyn Receipt>,
}

/// The head of a request as it came; an extension of requests whose answer should be kept.
#[derive(Debug, Clone)]
pub struct Words(pub Bytes);

/// An answer on its way to the socket.
pub(super) struct Pending {
    head: Vec<u8>,
    written: usize,
    payload: Payload,
}

impl ClientIo<'_> {
    /// The answer to the first `len` bytes of the buffer, a head without a body, if it is known: then they are taken out.
    /// Otherwise says whether the service should be told the words.
    pub(super) fn recall(&mut self, len: usize) -> Result<Pending, Option<Words>> {
        let recall = self.context.recall.as_ref().filter(|_| self.context.files && self.recalls);
        let (Some(recall), Some(head)) = (recall, self.buffer.get(..len)) else {
            return Err(None);
        };
        let arrived = Instant::now();
        match recall.recall(head, self.peer, arrived) {
            Recalled::Answer(Direct { head, content, receipt }) => {
                // Unless it takes longer, the client is idle from here on.
                self.idle_since(arrived);
                let payload = self.exchange().payload(Piece { content, receipt: Some(receipt) });
                self.buffer.advance(len);
                Ok(Pending { head, written: 0, payload })
            }
            Recalled::Wanted => Err(Some(Words(Bytes::copy_from_slice(head)))),
            Recalled::Unknown => Err(None),
        }
    }

    /// Writes what is left of the answer under way, if there is one.
    pub(super) fn poll_direct(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.direct.take() {
            Some(pending) => self.poll_answer(cx, *pending),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Writes `pending`, and keeps what is left of it.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>, mut pending: Pending) -> Poll<io::Result<()>> {
        while pending.payload.has_remaining() {
            let head = pending.head.get(pending.written..).unwrap_or_default();
            let slices = [IoSlice::new(head), IoSlice::new(pending.payload.chunk())];
            let slices = if head.is_empty() { &slices[1..] } else { &slices[..] };
            match self.write(cx, slices) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    let of_head = count.min(head.len());
                    pending.written += of_head;
                    if count > of_head {
                        pending.payload.advance(count - of_head);
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.direct = Some(Box::new(pending));
                    // A drain waits for it.
                    self.hold_in_flight();
                    self.busy();
                    return Poll::Pending;
                }
            }
        }
        self.release();
        Poll::Ready(Ok(()))
    }
}
