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
use super::stream::{Ending, Stream};
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

/// What a request for broken blocks brought.
enum Brought {
    Bytes(Vec<Bytes>),
    /// The answer is of another version.
    OtherVersion,
    /// Less than all, or nothing: it may be asked again.
    Failed(FillError),
    /// It need not be asked again.
    Refused(FillError),
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
                Brought::Failed(error) | Brought::Refused(error) => return Err(MendError::Unreachable(error)),
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

    /// Asks for `range`, again and again while that may help and there is time.
    async fn bring(&self, want: &Want, record: &Record, range: ByteRange) -> Brought {
        let mut patience = Patience::new(Instant::now());
        loop {
            let brought = self.bring_once(want, record, range).await;
            let Brought::Failed(error) = &brought else { return brought };
            let next = patience.failed(Instant::now(), false);
            if error.down_until().is_some() || next >= want.deadline {
                return brought;
            }
            sleep_until(next).await;
        }
    }

    async fn bring_once(&self, want: &Want, record: &Record, range: ByteRange) -> Brought {
        let validator = record.validator();
        let mut headers = fields::for_fetch(&want.headers, &want.policy);
        fields::ask_range(&mut headers, range.start(), Some(range.last()), Some(&validator).filter(|v| v.is_strong()));
        let response = match self.ask(want, Method::GET, headers, None).await {
            Ok(response) => response,
            Err(error) => return Brought::Failed(error),
        };
        match begin_of(record, range, &response) {
            Ok(at) => collect(Stream::new(response, at), range, want).await,
            Err(brought) => brought,
        }
    }
}

/// Where in the representation the answer begins; it reaches to the end of `range` if its framing is right.
fn begin_of(record: &Record, range: ByteRange, response: &FetchResponse) -> Result<u64, Brought> {
    let answered = Answered::of(response);
    if let (StatusCode::PARTIAL_CONTENT, false, Some(part)) =
        (answered.status, record.validator().is_strong(), answered.range)
    {
        // Nothing but the bytes tells whether it is the same version, and they will.
        let fits = part.first == range.start()
            && part.last == range.last()
            && part.total.is_none_or(|total| record.length == Some(total));
        return if fits { Ok(range.start()) } else { Err(Brought::OtherVersion) };
    }
    let bad = |what| Err(Brought::Refused(FillError::BadAnswer(what)));
    match judge(record, record.length, Asked::Range(range), &answered) {
        Judged::Part { at, end } if end == range.end() => Ok(at),
        Judged::Part { .. } => bad("less than the range that was asked for"),
        Judged::Again => Ok(0),
        Judged::OtherVersion => Err(Brought::OtherVersion),
        Judged::Misfit => bad("another range than was asked for"),
        Judged::Passing => Err(Brought::Failed(FillError::BadAnswer("a failure that may pass"))),
        Judged::Final => bad("a refusal"),
    }
}

/// Reads up to the end of `range`, and keeps the bytes in it.
async fn collect(mut stream: Stream, range: ByteRange, want: &Want) -> Brought {
    let mut kept: Vec<Bytes> = Vec::new();
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
        if at >= range.end() {
            return Brought::Bytes(kept);
        }
        match batch.end {
            None => {}
            Some(Ending::Broken(_)) => return Brought::Failed(FillError::BadAnswer("a body that was cut")),
            Some(Ending::Marked | Ending::Closed | Ending::WrongDigest { .. }) => {
                return Brought::Failed(FillError::BadAnswer("a body that ends too soon"));
            }
        }
    }
}
