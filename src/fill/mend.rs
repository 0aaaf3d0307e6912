//! Fetches blocks of a stored body anew that do not hold any more, and nothing else of it. Which those are, and whether
//! what came is what was there, the store knows.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};
use moka::sync::Cache;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use super::judge::{Answered, Asked, Judged, judge};
use super::patience::Patience;
use super::stream::Stream;
use super::{Fill, FillError, Want, fields};
use crate::content::{BodyRef, ByteRange, Digest, Record};
use crate::store::{Entry, Mended, ReadError};
use crate::upstream::FetchResponse;

/// How often bytes may come that are not what was there, before they are believed to be another version.
const UNLIKE: u32 = 2;
/// Bodies that are being mended at a time, at most, without meeting another's turn.
const TURNS: u64 = 1024;

/// Why a body could not be mended.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    /// No source has the bytes at present. The other blocks can be had.
    #[error("the block cannot be fetched again: {0}")]
    Unreachable(FillError),
    /// The source does not have what was stored any more: the body was given up.
    #[error("the source has another version")]
    OtherVersion,
    /// The store has it no longer, or the drive fails.
    #[error(transparent)]
    Store(#[from] ReadError),
}

/// One turn for each body, so that a block is fetched once however many wait for it.
pub(super) struct Mending {
    turns: Cache<Digest, Arc<Mutex<()>>>,
}

/// What requests for broken blocks brought.
enum Brought {
    Bytes(Vec<Bytes>),
    /// The answer is of another version.
    OtherVersion,
    /// Less than all.
    Failed(FillError),
}

/// Why one request brought no more.
enum Stop {
    /// It ended, or failed: what is missing may be asked for again.
    Failed(FillError),
    /// It need not be asked again.
    Refused(FillError),
    /// The answer is of another version.
    OtherVersion,
}

impl Mending {
    pub(super) fn new() -> Self {
        Self { turns: Cache::new(TURNS) }
    }
}

impl Fill {
    /// Fetches the block of `entry`'s body with index `block`, and those behind it that do not hold either, and puts them
    /// in place. Many may ask at the same time. Returns at the latest at `deadline`.
    ///
    /// # Errors
    /// When no source gives what was there.
    pub async fn mend(&self, want: &Want, entry: &Arc<Entry>, block: u64, deadline: Instant) -> Result<(), MendError> {
        let BodyRef::Blob(digest) = entry.record.body else { return Err(ReadError::Gone.into()) };
        let late = || MendError::Unreachable(FillError::Deadline);
        let turn = self.inner.mending.turns.get_with(digest, Arc::default);
        let mending = async {
            let _turn = turn.lock().await;
            self.mend_in_turn(&Want { deadline, ..want.clone() }, entry, block).await
        };
        tokio::time::timeout_at(deadline, mending).await.unwrap_or_else(|_| Err(late()))
    }

    async fn mend_in_turn(&self, want: &Want, entry: &Arc<Entry>, block: u64) -> Result<(), MendError> {
        let store = &self.inner.store;
        let strong = entry.record.validator().is_strong();
        let (mut block, mut unlike) = (block, 0);
        while let Some(range) = store.broken(entry, block).await? {
            let bytes = match self.bring(want, &entry.record, range).await {
                Brought::Bytes(bytes) => Some(bytes),
                Brought::OtherVersion => None,
                Brought::Failed(error) => return Err(MendError::Unreachable(error)),
            };
            let mended = match bytes {
                // Without a strong validator only the digest of the whole tells that it is the same version.
                Some(bytes) => store.put_right(entry, range, bytes, !strong).await?,
                None => {
                    unlike = UNLIKE;
                    Mended::Unlike
                }
            };
            match mended {
                Mended::Right => {
                    let key = &entry.record.key;
                    tracing::info!(%key, start = range.start(), bytes = range.len(), "broken blocks were fetched again");
                    return Ok(());
                }
                Mended::Next(next) => block = next,
                Mended::Unlike => unlike += 1,
            }
            if unlike >= UNLIKE {
                let reason = format!("block {block} does not have its CRC-32C, and upstream has other bytes for it");
                store.give_up(entry, reason).await?;
                return Err(MendError::OtherVersion);
            }
        }
        Ok(())
    }

    /// Asks for `range`, again and again while that may help and there is time. What came before a cut is kept.
    async fn bring(&self, want: &Want, record: &Record, range: ByteRange) -> Brought {
        let mut patience = Patience::new(Instant::now());
        let mut kept: Vec<Bytes> = Vec::new();
        let mut rest = range;
        loop {
            let stop = self.bring_once(want, record, rest, &mut kept).await;
            let came = kept.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
            let before = rest;
            match ByteRange::new(range.start() + came, range.end()) {
                Some(missing) => rest = missing,
                None => return Brought::Bytes(kept),
            }
            let error = match stop {
                Stop::Failed(error) => error,
                Stop::Refused(error) => return Brought::Failed(error),
                Stop::OtherVersion => return Brought::OtherVersion,
            };
            patience.progress(Instant::now(), before.len() - rest.len());
            let next = patience.failed(Instant::now(), false);
            if error.down_until().is_some() || next >= want.deadline {
                return Brought::Failed(error);
            }
            sleep_until(next).await;
        }
    }

    /// Asks for `range` once and keeps what comes of it.
    async fn bring_once(&self, want: &Want, record: &Record, range: ByteRange, kept: &mut Vec<Bytes>) -> Stop {
        let validator = record.validator();
        let mut headers = fields::for_fetch(want);
        fields::ask_range(&mut headers, range.start(), Some(range.last()), Some(&validator).filter(|v| v.is_strong()));
        let response = match self.ask(want, Method::GET, headers, None).await {
            Ok(response) => response,
            Err(error) => return Stop::Failed(error),
        };
        match begin_of(record, range, &response) {
            Ok(at) => collect(Stream::new(response, at), range, want, kept).await,
            Err(stop) => stop,
        }
    }
}

/// Where in the representation the answer begins: at the begin of `range`, or of everything.
fn begin_of(record: &Record, range: ByteRange, response: &FetchResponse) -> Result<u64, Stop> {
    let answered = Answered::of(response);
    if let (StatusCode::PARTIAL_CONTENT, false, Some(part)) =
        (answered.status, record.validator().is_strong(), answered.range)
    {
        // Nothing but the bytes tells whether it is the same version, and they will.
        let fits = part.first == range.start()
            && part.last <= range.last()
            && part.total.is_none_or(|total| record.length == Some(total));
        return if fits { Ok(range.start()) } else { Err(Stop::OtherVersion) };
    }
    let bad = |what| FillError::BadAnswer(what);
    match judge(record, record.length, Asked::Range(range), &answered) {
        Judged::Part { at, .. } => Ok(at),
        Judged::Again => Ok(0),
        Judged::OtherVersion => Err(Stop::OtherVersion),
        Judged::Misfit => Err(Stop::Refused(bad("another range than was asked for"))),
        Judged::Passing => Err(Stop::Failed(bad("a failure that may pass"))),
        Judged::Final => Err(Stop::Refused(bad("a refusal"))),
    }
}

/// Reads up to the end of `range`, and keeps the bytes in it. Says why it ended.
async fn collect(mut stream: Stream, range: ByteRange, want: &Want, kept: &mut Vec<Bytes>) -> Stop {
    loop {
        let left = want.deadline.saturating_duration_since(Instant::now());
        let batch = stream.next(Some(left)).await;
        let mut at = batch.at;
        for bytes in batch.bytes {
            let here = ByteRange::new(at, at.saturating_add(bytes.len() as u64));
            if let Some(common) = here.and_then(|here| here.intersect(range)) {
                // Both ends are within `bytes`, whose length is a usize.
                kept.push(bytes.slice((common.start() - at) as usize..(common.end() - at) as usize));
            }
            at = at.saturating_add(bytes.len() as u64);
        }
        if batch.end.is_some() || at >= range.end() {
            return Stop::Failed(FillError::BadAnswer("a body that ends too soon"));
        }
    }
}
