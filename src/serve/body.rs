//! [`SegmentBody`]: every answer's body as a stream of segments, executed by positional reads.
//!
//! What an answer consists of is decided in `handler` and `respond`; how a body that is still being filled is
//! followed is in `follow`.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::account::Account;
use super::follow::Follow;
use crate::fill::Through;
use crate::store::Body;

/// Most bytes of one read: large enough that the hop to the drive's threads is cheap, small enough that
/// connections take turns.
const READ: u64 = 256 * 1024;

/// A piece of a body.
pub(super) enum Segment {
    /// Bytes in memory.
    Bytes(Bytes),
    /// Present bytes of a stored body.
    File {
        /// The stored body.
        reader: Body,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// Bytes of a body that is being filled.
    Follow(Box<Follow>),
    /// The rest of an upstream answer for this client alone.
    Through(Box<Through>),
}

/// The body of an answer.
pub struct SegmentBody {
    segments: VecDeque<Segment>,
    step: Option<Pin<Box<dyn Future<Output = Step> + Send>>>,
    remaining: Option<u64>,
    account: Option<Box<Account>>,
}

/// The body ends here: the connection is cut, so that the client notices.
#[derive(Debug, thiserror::Error)]
#[error("body cut: {0}")]
pub struct BodyCut(pub(super) String);

/// What executing the front segment brought: bytes or a smaller segment, and what is left of it.
type Step = (Result<Option<Segment>, BodyCut>, Option<Segment>);

impl SegmentBody {
    /// No body.
    pub fn empty() -> Self {
        Self::new(VecDeque::new(), Some(0))
    }

    /// A body in memory.
    pub fn bytes(bytes: Bytes) -> Self {
        let len = bytes.len() as u64;
        Self::new(VecDeque::from([Segment::Bytes(bytes)]), Some(len))
    }

    /// These segments in order; `len` is their length in bytes if that is known.
    pub(super) fn new(segments: VecDeque<Segment>, len: Option<u64>) -> Self {
        Self { segments, step: None, remaining: len, account: None }
    }

    /// Has `account` told of each byte and closed when the body ends or is dropped.
    pub(super) fn accounted(mut self, account: Account) -> Self {
        self.account = Some(Box::new(account));
        self
    }

    fn hand_out(&mut self, bytes: Bytes) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        let len = bytes.len() as u64;
        self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(len));
        if let Some(account) = &mut self.account {
            account.sent(len);
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn cut(&mut self, cut: BodyCut) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        self.segments.clear();
        self.remaining = None;
        if let Some(account) = &mut self.account {
            account.cut(&cut.0);
        }
        Poll::Ready(Some(Err(cut)))
    }
}

impl Segment {
    /// Executes the segment as far as one step goes.
    async fn step(self) -> Step {
        match self {
            Self::Bytes(_) => (Ok(Some(self)), None),
            Self::File { reader, offset, len } => match reader.read(offset, len.min(READ) as usize).await {
                Ok(bytes) if bytes.is_empty() => (Err(BodyCut("the stored body is too short".to_owned())), None),
                Ok(bytes) => {
                    let read = bytes.len() as u64;
                    let rest = (read < len).then(|| Self::File { reader, offset: offset + read, len: len - read });
                    (Ok(Some(Self::Bytes(bytes))), rest)
                }
                Err(error) => (Err(BodyCut(error.to_string())), None),
            },
            Self::Follow(mut follow) => match follow.next().await {
                Some(segment) => (segment.map(Some), Some(Self::Follow(follow))),
                None => (Ok(None), None),
            },
            Self::Through(mut through) => match through.next().await {
                Some(Ok(bytes)) => (Ok(Some(Self::Bytes(bytes))), Some(Self::Through(through))),
                Some(Err(error)) => (Err(BodyCut(error.to_string())), None),
                None => (Ok(None), None),
            },
        }
    }
}

impl HttpBody for SegmentBody {
    type Data = Bytes;
    type Error = BodyCut;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        let this = &mut *self;
        loop {
            if let Some(step) = &mut this.step {
                let (outcome, rest) = ready!(step.as_mut().poll(context));
                this.step = None;
                match outcome {
                    Ok(segment) => {
                        rest.into_iter().for_each(|rest| this.segments.push_front(rest));
                        segment.into_iter().for_each(|segment| this.segments.push_front(segment));
                    }
                    Err(cut) => return this.cut(cut),
                }
            }
            match this.segments.pop_front() {
                Some(Segment::Bytes(bytes)) => return this.hand_out(bytes),
                Some(segment) => this.step = Some(Box::pin(segment.step())),
                // Without this the end of a body that is too short would look to the log like any other.
                None if this.remaining.is_some_and(|remaining| remaining > 0) => {
                    return this.cut(BodyCut("the body is shorter than was said".to_owned()));
                }
                None => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
