//! [`SegmentBody`]: every answer's body as a stream of segments, executed piece by piece.
//!
//! What an answer consists of is decided in `handler` and `respond`; how a body that is still being filled is
//! followed is in `follow`; how files get onto the socket is the wire's business.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::account::Account;
use super::follow::Follow;
use super::gather::Checked;
use super::mend::Mender;
use super::wire::{Content, Piece, PieceBody, Receipt, TURN, WINDOW};
use crate::fill::Through;
use crate::store::{self, Body, Hold, ReadError, Window};

/// A piece of a body.
pub(super) enum Segment {
    /// Bytes in memory.
    Bytes(Bytes),
    /// Checked bytes of a file, at most [`WINDOW`].
    Window(Window),
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
    /// The same of a body whose digest is known.
    Checked(Box<Checked>),
}

/// The body of an answer.
pub struct SegmentBody {
    segments: VecDeque<Segment>,
    step: Option<Pin<Box<dyn Future<Output = Step> + Send>>>,
    remaining: Option<u64>,
    hold: Option<Hold>,
    account: Option<Arc<Account>>,
    /// Set while blocks may turn out broken; a step that runs has it.
    mender: Option<Box<Mender>>,
}

/// The body ends here: the connection is cut, so that the client notices.
#[derive(Debug, thiserror::Error)]
#[error("body cut: {0}")]
pub struct BodyCut(pub(super) String);

/// What executing the front segment brought: bytes or a smaller segment, and what is left of it.
struct Step {
    outcome: Result<Option<Segment>, BodyCut>,
    rest: Option<Segment>,
    mender: Option<Box<Mender>>,
}

/// An outcome and what is left, of a step without a mender.
type Come = (Result<Option<Segment>, BodyCut>, Option<Segment>);

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
        Self { segments, step: None, remaining: len, hold: None, account: None, mender: None }
    }

    /// Has `account` told of each byte that leaves, and closed when the last has left or the body is dropped.
    pub(super) fn accounted(mut self, account: Account) -> Self {
        self.account = Some(Arc::new(account));
        self
    }

    /// Has `mender` fetch blocks that turn out broken.
    pub(super) fn mend_with(&mut self, mender: Option<Mender>) {
        self.mender = mender.map(Box::new);
    }

    fn hand_out(&mut self, content: Content) -> Poll<Option<Result<Piece, BodyCut>>> {
        let len = content.len();
        if self.remaining.is_some_and(|remaining| remaining < len) {
            return self.cut(BodyCut("the body is longer than was said".to_owned()));
        }
        self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(len));
        let receipt = self.account.clone().map(|account| account as Arc<dyn Receipt>);
        Poll::Ready(Some(Ok(Piece { content, receipt })))
    }

    fn cut(&mut self, cut: BodyCut) -> Poll<Option<Result<Piece, BodyCut>>> {
        self.segments.clear();
        self.remaining = None;
        if let Some(account) = &self.account {
            account.cut(&cut.0);
        }
        Poll::Ready(Some(Err(cut)))
    }

    /// Hands out what can be had of the front segment at once, or begins a step.
    fn advance(&mut self, segment: Segment, files: bool) -> Option<Poll<Option<Result<Piece, BodyCut>>>> {
        let window = match segment {
            Segment::Bytes(bytes) => return Some(self.hand_out(Content::Bytes(bytes))),
            Segment::Window(window) => window,
            Segment::File { reader, offset, len } => match reader.piece_now(offset, len.min(most(&reader, files))) {
                Ok(Some(piece)) => {
                    let read = piece.len();
                    if read < len {
                        self.segments.push_front(Segment::File { reader, offset: offset + read, len: len - read });
                    }
                    match piece {
                        store::Piece::Bytes(bytes) => return Some(self.hand_out(Content::Bytes(bytes))),
                        store::Piece::Window(window) => window,
                    }
                }
                Ok(None) | Err(ReadError::Damaged { .. }) => {
                    self.begin(Segment::File { reader, offset, len }, files);
                    return None;
                }
                Err(error) => return Some(self.cut(BodyCut(error.to_string()))),
            },
            segment => {
                self.begin(segment, files);
                return None;
            }
        };
        if files {
            self.hold = window.hold();
            return Some(self.hand_out(Content::Window(window)));
        }
        if let Some(bytes) = window.read_now(TURN as usize) {
            let mut rest = window;
            rest.advance(bytes.len() as u64);
            if !rest.is_empty() {
                self.segments.push_front(Segment::Window(rest));
            }
            return Some(self.hand_out(Content::Bytes(bytes)));
        }
        self.begin(Segment::Window(window), files);
        None
    }

    fn begin(&mut self, segment: Segment, files: bool) {
        self.step = Some(Box::pin(segment.step(self.mender.take(), files)));
    }
}

/// Most bytes of `reader` that are made ready at once. A window of a blob is looked at again as long as it waits to be sent
/// by the kernel, others are not: they must be short.
fn most(reader: &Body, files: bool) -> u64 {
    match reader {
        Body::Blob(_) if files => WINDOW,
        Body::Blob(_) | Body::Memory(_) | Body::Partial(_) => TURN,
    }
}

impl Segment {
    /// Executes the segment as far as one step goes.
    async fn step(self, mut mender: Option<Box<Mender>>, files: bool) -> Step {
        let (outcome, rest) = match self {
            Self::File { reader, offset, len } => {
                let most = most(&reader, files);
                Self::read(reader, offset, (len, most), mender.as_deref_mut()).await
            }
            segment => segment.come().await,
        };
        Step { outcome, rest, mender }
    }

    /// The next bytes of a stored body, at most `most`. A block that does not hold is mended, and tried again.
    async fn read(reader: Body, offset: u64, (len, most): (u64, u64), mender: Option<&mut Mender>) -> Come {
        let block = match (reader.piece(offset, len.min(most)).await, &mender) {
            (Ok(piece), _) => {
                mender.into_iter().for_each(Mender::held);
                let read = piece.len();
                let rest = (read < len).then(|| Self::File { reader, offset: offset + read, len: len - read });
                return (Ok(Some(piece.into())), rest);
            }
            (Err(ReadError::Damaged { block }), Some(_)) => block,
            (Err(error), _) => return (Err(BodyCut(error.to_string())), None),
        };
        let mended = match mender {
            Some(mender) => mender.mend_midway(block).await,
            None => Ok(()),
        };
        match mended {
            Ok(()) => (Ok(None), Some(Self::File { reader, offset, len })),
            Err(error) => (Err(BodyCut(error.to_string())), None),
        }
    }

    /// What comes next of any other segment.
    async fn come(self) -> Come {
        match self {
            Self::Bytes(_) | Self::File { .. } => (Ok(Some(self)), None),
            // Only reached where the bytes have to pass through memory.
            Self::Window(window) => match window.read(TURN as usize).await {
                Ok(bytes) => {
                    let mut rest = window;
                    rest.advance(bytes.len() as u64);
                    (Ok(Some(Self::Bytes(bytes))), (!rest.is_empty()).then_some(Self::Window(rest)))
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
            Self::Checked(mut checked) => match checked.next().await {
                Some(bytes) => (bytes.map(|bytes| Some(Self::Bytes(bytes))), Some(Self::Checked(checked))),
                None => (Ok(None), None),
            },
        }
    }
}

impl From<store::Piece> for Segment {
    fn from(piece: store::Piece) -> Self {
        match piece {
            store::Piece::Bytes(bytes) => Self::Bytes(bytes),
            store::Piece::Window(window) => Self::Window(window),
        }
    }
}

impl PieceBody for SegmentBody {
    fn poll_piece(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        files: bool,
    ) -> Poll<Option<Result<Piece, BodyCut>>> {
        let this = &mut *self;
        loop {
            if let Some(step) = &mut this.step {
                let Step { outcome, rest, mender } = ready!(step.as_mut().poll(context));
                this.step = None;
                this.mender = mender;
                match outcome {
                    Ok(segment) => {
                        rest.into_iter().for_each(|rest| this.segments.push_front(rest));
                        segment.into_iter().for_each(|segment| this.segments.push_front(segment));
                    }
                    Err(cut) => return this.cut(cut),
                }
            }
            match this.segments.pop_front() {
                Some(segment) => {
                    if let Some(handed) = this.advance(segment, files) {
                        return handed;
                    }
                }
                // Without this the end of a body that is too short would look to the log like any other.
                None if this.remaining.is_some_and(|remaining| remaining > 0) => {
                    return this.cut(BodyCut("the body is shorter than was said".to_owned()));
                }
                None => return Poll::Ready(None),
            }
        }
    }

    fn has_more_now(&self) -> bool {
        matches!(self.segments.front(), Some(Segment::Bytes(_) | Segment::Window(_) | Segment::File { .. }))
    }
}

impl HttpBody for SegmentBody {
    type Data = Bytes;
    type Error = BodyCut;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        let piece = ready!(self.poll_piece(context, false));
        Poll::Ready(piece.map(|piece| match piece?.content {
            Content::Bytes(bytes) => Ok(Frame::data(bytes)),
            Content::Window(_) => Err(BodyCut("a file where memory was asked for".to_owned())),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
