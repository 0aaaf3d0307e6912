//! Bodies that are passed on and of which something has to be known first: small ones are gathered in memory, of longer
//! ones the end is held back until they turn out to have their digest.
//!
//! Which answers need that is `pass`'s business.

use std::collections::VecDeque;
use std::net::IpAddr;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::ask::Ask;
use super::body::BodyCut;
use super::follow::HELD_BACK;
use super::handler::Handler;
use crate::content::{AnyDigest, CacheKey, Verifier, Version};
use crate::fill::{Answerable, Through};
use crate::store::Store;

/// Most bytes of a body that is gathered. Answers that may not be stored and do not tell their length are made for one
/// request, and those for devices are small; whatever is longer is content that could be stored.
pub(super) const LONGEST_GATHERED: u64 = 1024 * 1024;

/// Most bodies that are gathered or on their way at a time: with their length a bound of 32 MiB.
pub(super) const MOST_GATHERED: usize = 32;

/// How the gathering ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gathered {
    /// With the body.
    Whole,
    /// There is more than may be gathered, or it takes too long.
    More,
    /// The body was cut.
    Broken,
}

/// Bytes in memory that count as gathered until the last of them has left.
struct Counted {
    bytes: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

/// A passed body whose end leaves only once all of it has turned out to have its digest.
pub(super) struct Checked {
    through: Through,
    verifier: Verifier,
    expected: AnyDigest,
    /// What came and has not left.
    held: VecDeque<Bytes>,
    size: u64,
    verified: bool,
    told: Told,
    answerable: Box<Answerable>,
}

/// What is noted of the client that was given bytes which turn out to be wrong.
pub(super) struct Told {
    pub(super) store: Store,
    pub(super) key: CacheKey,
    pub(super) client: Option<IpAddr>,
}

/// Reads a body to its end, but not beyond [`LONGEST_GATHERED`] nor `until`.
pub(super) async fn gather(through: &mut Through, until: Instant) -> (Vec<u8>, Gathered) {
    let mut bytes = Vec::new();
    let ended = loop {
        match timeout_at(until, through.next()).await {
            Ok(Some(Ok(chunk))) => bytes.extend_from_slice(&chunk),
            Ok(Some(Err(_))) => break Gathered::Broken,
            Ok(None) => break Gathered::Whole,
            Err(_) => break Gathered::More,
        }
        if bytes.len() as u64 > LONGEST_GATHERED {
            break Gathered::More;
        }
    };
    (bytes, ended)
}

/// `bytes`, which have their place among what is gathered.
pub(super) fn counted(bytes: Vec<u8>, place: OwnedSemaphorePermit) -> Bytes {
    Bytes::from_owner(Counted { bytes, _place: place })
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Checked {
    /// The rest of a body of which `begin` has come.
    pub(super) fn new(
        through: Through,
        begin: Bytes,
        expected: AnyDigest,
        told: Told,
        answerable: Box<Answerable>,
    ) -> Self {
        let (verifier, held) = (expected.verifier(), VecDeque::new());
        let mut checked = Self { through, verifier, expected, held, size: 0, verified: false, told, answerable };
        checked.take_in(begin);
        checked
    }

    /// The next bytes that may leave, or `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, BodyCut>> {
        loop {
            let free = if self.verified { self.size } else { self.size.saturating_sub(HELD_BACK) };
            if let Some(bytes) = self.give_out(free) {
                return Some(Ok(bytes));
            }
            if self.verified {
                return None;
            }
            match self.through.next().await {
                Some(Ok(bytes)) => self.take_in(bytes),
                Some(Err(error)) => return Some(Err(BodyCut(error.to_string()))),
                None if self.verifier.is_right() => self.verified = true,
                None => {
                    note_mismatch(&self.told.key, self.expected, &self.answerable);
                    self.told.is_wrong().await;
                    return Some(Err(BodyCut("the body has not the digest that it should have".to_owned())));
                }
            }
        }
    }

    fn take_in(&mut self, bytes: Bytes) {
        self.verifier.update(&bytes);
        self.size += bytes.len() as u64;
        self.held.push_back(bytes);
    }

    /// At most `most` bytes of what came first.
    fn give_out(&mut self, most: u64) -> Option<Bytes> {
        while self.held.front().is_some_and(Bytes::is_empty) {
            self.held.pop_front();
        }
        let front = self.held.front_mut().filter(|_| most > 0)?;
        let bytes = front.split_to(front.len().min(usize::try_from(most).unwrap_or(usize::MAX)));
        self.size -= bytes.len() as u64;
        Some(bytes)
    }
}

impl Told {
    /// For the client of `ask`.
    pub(super) fn of(handler: &Handler, ask: &Ask) -> Self {
        let client = ask.client.map(|client| client.address);
        Self { store: handler.store.clone(), key: ask.content.key.clone(), client }
    }

    /// What was passed is wrong: the client has bytes that nothing goes on with. Others were passed other messages, whatever
    /// their fields say.
    pub(super) async fn is_wrong(&self) {
        if let Some(client) = self.client {
            self.store.give(client, &self.key, &Version::untold(), false).await;
        }
    }
}

pub(super) fn note_mismatch(key: &CacheKey, expected: AnyDigest, answerable: &Answerable) {
    answerable.gave_wrong();
    tracing::error!(%key, %expected, "digest mismatch of an answer that is passed on; it is not given out whole");
}
