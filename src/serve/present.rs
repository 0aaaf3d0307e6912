//! Reads what is stored before the head of an answer leaves, with broken blocks mended: what is damaged or gone is found in
//! time to fetch it anew.
//!
//! What leaves after the head is read by `body`.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::ask::Ask;
use super::body::Segment;
use super::deliver::Delivery;
use super::gather::counted;
use super::handler::Handler;
use super::mend::Mender;
use super::rescue;
use super::wire::TURN;
use crate::fill::MendError;
use crate::store::{Body, Entry, Piece, ReadError};

/// A request for stored bytes.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) handler: &'a Handler,
    pub(super) ask: &'a Ask,
    pub(super) entry: &'a Arc<Entry>,
}

impl Reading<'_> {
    /// The stored body. A small one is read whole and checked.
    pub(super) async fn body(self) -> Result<Body, Delivery> {
        let Self { handler, ask, entry } = self;
        if let Some(body) = handler.store.body_hot(entry) {
            return Ok(body);
        }
        let mut mender = None;
        loop {
            match handler.store.body(entry).await {
                Ok(body) => return Ok(body),
                Err(ReadError::Damaged { block }) => {
                    if mender.is_none() {
                        mender = Mender::new(handler, ask, entry);
                    }
                    let Some(mender) = &mut mender else { return Err(self.unread(&ReadError::Damaged { block })) };
                    mender.mend(block).await.map_err(|error| self.unmended(&error))?;
                }
                Err(error) => return Err(self.unread(&error)),
            }
        }
    }

    /// Reads the first bytes of `segments` that are in a file.
    pub(super) async fn first(
        self,
        segments: &mut VecDeque<Segment>,
        mender: &mut Option<Mender>,
    ) -> Result<(), Delivery> {
        let Some(at) = segments.iter().position(|segment| matches!(segment, Segment::File { .. })) else {
            return Ok(());
        };
        if let Some(Segment::File { reader, offset, len }) = segments.remove(at) {
            let piece = self.piece(&reader, offset, len, mender).await?;
            let read = piece.len();
            if read < len {
                segments.insert(at, Segment::File { reader, offset: offset + read, len: len - read });
            }
            segments.insert(at, piece.into());
        }
        Ok(())
    }

    /// Reads all of `segments` into memory, if there is a place for them: places of their own, since what is passed on has to have its.
    pub(super) async fn all(
        self,
        segments: &mut VecDeque<Segment>,
        mender: &mut Option<Mender>,
    ) -> Result<(), Delivery> {
        let Ok(place) = Arc::clone(&self.handler.digested).try_acquire_owned() else { return Ok(()) };
        let mut bytes = Vec::new();
        for segment in segments.iter() {
            match segment {
                Segment::Bytes(piece) => bytes.extend_from_slice(piece),
                Segment::File { reader, offset, len } => {
                    let end = offset.saturating_add(*len);
                    let mut at = *offset;
                    while at < end {
                        let piece = self.piece(reader, at, end - at, mender).await?;
                        mender.iter_mut().for_each(Mender::held);
                        at += piece.len();
                        self.take(piece, &mut bytes).await?;
                    }
                }
                // Of what is still on its way nothing is waited for.
                _ => return Ok(()),
            }
        }
        *segments = VecDeque::from([Segment::Bytes(counted(bytes, place))]);
        Ok(())
    }

    async fn take(self, piece: Piece, bytes: &mut Vec<u8>) -> Result<(), Delivery> {
        let mut window = match piece {
            Piece::Bytes(piece) => {
                bytes.extend_from_slice(&piece);
                return Ok(());
            }
            Piece::Window(window) => window,
        };
        while !window.is_empty() {
            let read: Bytes = window.read(TURN as usize).await.map_err(|error| self.unread(&error))?;
            bytes.extend_from_slice(&read);
            window.advance(read.len() as u64);
        }
        Ok(())
    }

    async fn piece(self, reader: &Body, offset: u64, len: u64, mender: &mut Option<Mender>) -> Result<Piece, Delivery> {
        loop {
            match (reader.piece(offset, len.min(TURN)).await, &mut *mender) {
                (Err(ReadError::Damaged { block }), Some(mender)) => {
                    mender.mend(block).await.map_err(|error| self.unmended(&error))?;
                }
                (piece, _) => return piece.map_err(|error| self.unread(&error)),
            }
        }
    }

    /// What cannot be mended at present may be later: the rest of it is there all the same.
    fn unmended(self, error: &MendError) -> Delivery {
        tracing::warn!(key = %self.entry.record.key, %error, "a damaged block could not be mended");
        match error {
            // It is not the block: the whole is looked for elsewhere.
            _ if !self.handler.store.is_served(self.entry) => Delivery::Unusable,
            MendError::Unreachable(_) | MendError::Store(ReadError::Damaged { .. } | ReadError::Io(_)) => {
                Delivery::Done(rescue::unavailable("damaged"))
            }
            MendError::OtherVersion | MendError::Store(_) => Delivery::Unusable,
        }
    }

    /// What is damaged is not there for a request for which nothing may be fetched (RFC 9111 section 5.2.1.7).
    fn unread(self, error: &ReadError) -> Delivery {
        if matches!(error, ReadError::Damaged { .. }) && self.handler.only_if_cached(self.ask) {
            return Delivery::Done(rescue::only_if_cached());
        }
        tracing::warn!(key = %self.entry.record.key, %error, "stored body cannot be used; it is fetched anew");
        Delivery::Unusable
    }
}
