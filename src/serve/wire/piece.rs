//! [`PieceBody`]: how a service hands the bytes of an answer to the wire, some in memory and some in files; and
//! [`Payload`], what hyper sees of them.
//!
//! hyper never gets the bytes of a file. It gets a placeholder of the same length: a slice of [`PLACEHOLDER`], which it
//! passes on to the I/O wrapper, which sends the file in its place. Nobody may send what the placeholder holds.

use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::Body;

use crate::store::Window;

/// Most bytes that one connection sends before others have their turn, and that are in memory at once of a body.
pub(in crate::serve) const TURN: u64 = 256 * 1024;

/// Most bytes of one window: as long as the smallest usual block, so that a body is asked for seldom. It takes several turns.
pub(in crate::serve) const WINDOW: u64 = 4 * TURN;

/// Memory that is never written, and takes none: its pages are not touched.
static PLACEHOLDER: LazyLock<Box<[u8]>> = LazyLock::new(|| vec![0; WINDOW as usize].into_boxed_slice());

/// A piece of an answer's body.
pub struct Piece {
    /// The bytes.
    pub content: Content,
    /// Who is told when they have left.
    pub receipt: Option<Arc<dyn Receipt>>,
}

/// Where the bytes of a piece are.
pub enum Content {
    /// In memory.
    Bytes(Bytes),
    /// In a file, at most 1 MiB.
    Window(Window),
}

/// Learns what became of a piece. When the last reference to it is dropped the answer is over.
pub trait Receipt: Send + Sync {
    /// So many bytes were handed to the kernel.
    fn sent(&self, bytes: u64);
    /// The connection is cut, and why.
    fn cut(&self, reason: &str);
}

/// A body whose bytes may be in files.
pub trait PieceBody: Body<Data = Bytes> {
    /// The next piece. Without `files` it is always in memory; a body that knows no files need not say more.
    fn poll_piece(self: Pin<&mut Self>, cx: &mut Context<'_>, files: bool) -> Poll<Option<Result<Piece, Self::Error>>> {
        let _ = files;
        let frame = ready!(self.poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default().into())))
    }

    /// Whether a further piece is there already, as far as can be told without looking.
    fn has_more_now(&self) -> bool {
        false
    }
}

/// A piece as hyper sees it.
pub(super) struct Payload {
    bytes: Waiting,
    receipt: Option<Arc<dyn Receipt>>,
}

enum Waiting {
    Bytes(Bytes),
    /// So many bytes of a file.
    Placeholder(usize),
}

impl Content {
    /// Number of bytes.
    #[allow(clippy::len_without_is_empty, reason = "there is no empty one")]
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Window(window) => window.len(),
        }
    }
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Self {
        Self { content: Content::Bytes(bytes), receipt: None }
    }
}

impl Payload {
    pub(super) fn bytes(bytes: Bytes, receipt: Option<Arc<dyn Receipt>>) -> Self {
        Self { bytes: Waiting::Bytes(bytes), receipt }
    }

    /// Stands for `len` bytes of a file, at most [`WINDOW`].
    pub(super) fn placeholder(len: usize, receipt: Option<Arc<dyn Receipt>>) -> Self {
        Self { bytes: Waiting::Placeholder(len.min(PLACEHOLDER.len())), receipt }
    }
}

/// Whether a slice that hyper writes stands for bytes of a file.
pub(super) fn is_placeholder(slice: &[u8]) -> bool {
    PLACEHOLDER.as_ptr_range().contains(&slice.as_ptr()) && !slice.is_empty()
}

impl Buf for Payload {
    fn remaining(&self) -> usize {
        match &self.bytes {
            Waiting::Bytes(bytes) => bytes.len(),
            Waiting::Placeholder(len) => *len,
        }
    }

    fn chunk(&self) -> &[u8] {
        match &self.bytes {
            Waiting::Bytes(bytes) => bytes,
            Waiting::Placeholder(len) => PLACEHOLDER.get(..*len).unwrap_or_default(),
        }
    }

    /// hyper calls it when so many bytes were written.
    fn advance(&mut self, count: usize) {
        match &mut self.bytes {
            Waiting::Bytes(bytes) => bytes.advance(count),
            Waiting::Placeholder(len) => *len = len.saturating_sub(count),
        }
        if let Some(receipt) = &self.receipt {
            receipt.sent(count as u64);
        }
    }
}

/// Bodies of tests.
#[cfg(test)]
mod of_tests {
    use http_body_util::Full;
    use http_body_util::combinators::UnsyncBoxBody;

    use super::*;

    impl PieceBody for Full<Bytes> {}

    impl<E> PieceBody for UnsyncBoxBody<Bytes, E> {}
}
