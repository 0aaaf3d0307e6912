//! Fetches blocks of a stored body anew that do not hold any more, and nothing else of it. Which those are, and whether
//! what came is what was there, the store knows.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use moka::sync::Cache;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::by_digest::ByDigest;
use super::judge::{Answered, Asked, Judged, judge};
use super::stream::{SKIPPED, Stream};
use super::{Fill, FillError, Want, fields};
use crate::content::{BodyRef, ByteRange, Digest, Record};
use crate::store::{Broken, Entry, Mended, Patch, ReadError};
use crate::upstream::{FetchResponse, share_of_time};

/// How often bytes may come that are not what was there, before they are believed to be another version.
const UNLIKE: u32 = 2;
/// Blobs that are mended at a time; what is held of each is bounded.
const PLACES: usize = 4;
/// Bytes that are held while more of the same body are needed to prove them.
const HELD: u64 = 64 * 1024 * 1024;
/// What came until so long before the deadline is judged, whatever is missing of it.
const TO_PUT_IN_PLACE: Duration = Duration::from_secs(1);
/// Bodies that are being mended at a time, at most, without meeting another's turn.
const TURNS: u64 = 1024;
/// For each more of the blocks without which those before it cannot be proved, whoever still waits.
const ONE_MORE: Duration = Duration::from_secs(30);
/// So long no parent is asked by a digest that none of them had.
const VAIN: Duration = Duration::from_secs(10);

/// Why a body could not be mended.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    /// No source has the bytes at present. The other blocks can be had.
    #[error("the block cannot be fetched again: {0}")]
    Unreachable(FillError),
    /// What was stored cannot be had any more: it is not there for this request from now on.
    #[error("what was stored cannot be had again")]
    OtherVersion,
    /// The store has it no longer, or the drive fails.
    #[error(transparent)]
    Store(#[from] ReadError),
}

/// One turn for each body, so that a block is fetched once however many wait for it.
pub(super) struct Mending {
    turns: Cache<Digest, Arc<Mutex<()>>>,
    places: Arc<Semaphore>,
    /// Blobs whose blocks no parent had by their digest.
    vain: Cache<Digest, ()>,
}

/// What requests for broken blocks brought.
enum Brought {
    Bytes(Vec<Bytes>),
    /// The begin, whole blocks of it, by the digest of the blob.
    ByDigest(Vec<Bytes>),
    /// The answer is of another version.
    OtherVersion,
    /// Less than all.
    Failed(FillError, Vec<Bytes>),
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
        Self {
            turns: Cache::new(TURNS),
            places: Arc::new(Semaphore::new(PLACES)),
            vain: Cache::builder().max_capacity(TURNS).time_to_live(VAIN).build(),
        }
    }

    /// Whether no parent had blocks of this blob just now.
    pub(super) fn was_vain(&self, digest: Digest) -> bool {
        self.vain.contains_key(&digest)
    }

    pub(super) fn note_vain(&self, digest: Digest) {
        self.vain.insert(digest, ());
    }

    pub(super) fn forget_vain(&self, digest: Digest) {
        self.vain.invalidate(&digest);
    }
}

impl Fill {
    /// Fetches the block of `entry`'s body with index `block`, and all others without which it cannot be proved, and puts them
    /// in place. Many may ask at the same time. Returns at the latest at `deadline`; what was begun goes on, as a long blob
    /// takes longer to be proved than a client waits.
    ///
    /// # Errors
    /// When no source gives what was there.
    pub async fn mend(&self, want: &Want, entry: &Arc<Entry>, block: u64, deadline: Instant) -> Result<(), MendError> {
        let BodyRef::Blob(digest) = entry.record.body else { return Err(ReadError::Gone.into()) };
        let turn = self.inner.mending.turns.get_with(digest, Arc::default);
        let mending = async {
            let turn = turn.lock_owned().await;
            let place = Arc::clone(&self.inner.mending.places).acquire_owned().await;
            let (fill, entry) = (self.clone(), Arc::clone(entry));
            let want = Want { deadline: deadline.checked_sub(TO_PUT_IN_PLACE).unwrap_or(deadline), ..want.clone() };
            let job = tokio::spawn(async move {
                let _held = (turn, place);
                fill.mend_in_turn(want, &entry, digest, block).await
            });
            job.await.unwrap_or(Err(MendError::Unreachable(FillError::Abandoned)))
        };
        let late = || MendError::Unreachable(FillError::Deadline);
        tokio::time::timeout_at(deadline, mending).await.unwrap_or_else(|_| Err(late()))
    }

    async fn mend_in_turn(
        &self,
        mut want: Want,
        entry: &Arc<Entry>,
        digest: Digest,
        block: u64,
    ) -> Result<(), MendError> {
        let store = &self.inner.store;
        let mut by_digest = ByDigest::new(&self.inner, &want, entry, digest);
        // Whether all patches came by the digest, so that it is a parent that is wrong if they are.
        let mut named = true;
        let (mut block, mut unlike, mut patches) = (block, 0, Vec::<Patch>::new());
        loop {
            let Broken { range, block_size } = match store.broken(entry, block).await {
                Ok(Some(broken)) => broken,
                Ok(None) => return Ok(()),
                Err(error) if error.is_lasting() => {
                    return self.give_up(entry, format!("its file cannot be mended: {error}")).await;
                }
                Err(error) => return Err(error.into()),
            };
            let brought = self.bring(&want, &entry.record, range, block_size, &mut by_digest).await;
            let is_named = matches!(brought, Brought::ByDigest(_));
            let (bytes, failure) = match brought {
                Brought::Bytes(bytes) | Brought::ByDigest(bytes) => (bytes, None),
                Brought::Failed(error, bytes) => (bytes, Some(error)),
                Brought::OtherVersion => {
                    // Others that point to the same content may still have a source.
                    store.remove(entry);
                    return Err(MendError::OtherVersion);
                }
            };
            let Some(patch) = whole_blocks(range, &bytes, block_size) else {
                return Err(MendError::Unreachable(failure.unwrap_or(FillError::Deadline)));
            };
            let (start, bytes) = (patch.range.start(), patch.range.len());
            patches.push(patch);
            named &= is_named;
            match store.put_right(entry, patches.clone()).await {
                Ok(Mended::Right) => {
                    if is_named {
                        by_digest.was_right();
                    }
                    let key = &entry.record.key;
                    tracing::info!(%key, start, bytes, "broken blocks were fetched again");
                    return Ok(());
                }
                // Only together they can be proved.
                Ok(Mended::Next(next)) if patches.iter().map(|patch| patch.range.len()).sum::<u64>() < HELD => {
                    block = next;
                    want.deadline = want.deadline.max(Instant::now() + ONE_MORE);
                }
                Ok(Mended::Next(_)) => {
                    return self.give_up(entry, "too much of it is broken to be mended".to_owned()).await;
                }
                Ok(Mended::Unlike) => {
                    patches.clear();
                    // A digest names no other version: it is the parent that is wrong, and others may be right.
                    if named {
                        by_digest.was_wrong();
                    } else {
                        unlike += 1;
                    }
                    named = true;
                }
                Err(error) if error.is_lasting() => {
                    return self.give_up(entry, format!("its file cannot be mended: {error}")).await;
                }
                Err(error) => return Err(error.into()),
            }
            if unlike >= UNLIKE {
                let reason = format!("block {block} does not hold, and upstream has other bytes for it");
                return self.give_up(entry, reason).await;
            }
        }
    }

    /// The whole is fetched anew by who asks for it.
    async fn give_up(&self, entry: &Arc<Entry>, reason: String) -> Result<(), MendError> {
        self.inner.store.give_up(entry, reason).await?;
        Err(MendError::OtherVersion)
    }

    /// Asks for `range`, again and again while that may help and there is time. What came before a cut is kept. Once all
    /// sources of the URL have failed parents are asked by the digest.
    async fn bring(
        &self,
        want: &Want,
        record: &Record,
        range: ByteRange,
        block_size: u64,
        by_digest: &mut ByDigest<'_>,
    ) -> Brought {
        let mut patience = self.inner.patience();
        let mut kept: Vec<Bytes> = Vec::new();
        let mut rest = range;
        if by_digest.gives()
            && let Some(bytes) = by_digest.bring(range, block_size, want.deadline).await
        {
            return Brought::ByDigest(bytes);
        }
        loop {
            // The time is for both.
            let answer_by = share_of_time(want.deadline, if by_digest.has_more() { 2 } else { 1 });
            let stop = self.bring_once(want, record, rest, answer_by, &mut kept).await;
            let came = kept.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
            let before = rest;
            match ByteRange::new(range.start() + came, range.end()) {
                Some(missing) => rest = missing,
                None => return Brought::Bytes(kept),
            }
            let is_vain = rest == before && !matches!(stop, Stop::OtherVersion);
            // What came of whole blocks is put in place first.
            let has_some = is_vain && came >= block_size && by_digest.has_more();
            if is_vain
                && !has_some
                && let Some(bytes) = by_digest.bring(range, block_size, want.deadline).await
            {
                return Brought::ByDigest(bytes);
            }
            let error = match stop {
                Stop::Failed(error) if !has_some => error,
                Stop::Failed(error) | Stop::Refused(error) => return Brought::Failed(error, kept),
                Stop::OtherVersion => return Brought::OtherVersion,
            };
            if rest != before {
                patience.progress(Instant::now(), before.len() - rest.len());
            }
            let next = patience.failed(Instant::now(), false);
            if error.down_until().is_some() || next >= want.deadline {
                return Brought::Failed(error, kept);
            }
            sleep_until(next).await;
        }
    }

    /// Asks for `range` once and keeps what comes of it. The answer must be there before `answer_by`.
    async fn bring_once(
        &self,
        want: &Want,
        record: &Record,
        range: ByteRange,
        answer_by: Instant,
        kept: &mut Vec<Bytes>,
    ) -> Stop {
        let validator = record.validator();
        let mut headers = fields::for_fetch(want);
        fields::ask_range(&mut headers, range.start(), Some(range.last()), Some(&validator).filter(|v| v.is_strong()));
        let asking = Want { deadline: answer_by, ..want.clone() };
        let response = match self.ask(&asking, Method::GET, headers, None).await {
            Ok(response) => response,
            Err(error) => return Stop::Failed(error),
        };
        match begin_of(record, range, &response) {
            Ok(at) => Stop::Failed(Stream::new(response, at).keep(range, want.deadline, kept).await),
            Err(stop) => stop,
        }
    }
}

/// The whole blocks of `range` of which all bytes came.
fn whole_blocks(range: ByteRange, bytes: &[Bytes], block_size: u64) -> Option<Patch> {
    let all = Bytes::from(bytes.concat());
    let came = all.len() as u64;
    let whole = if came == range.len() { came } else { came - came % block_size };
    let range = ByteRange::new(range.start(), range.start() + whole)?;
    // Not longer than what came, whose length is a usize.
    Some(Patch { range, bytes: all.slice(..whole as usize) })
}

/// Where in the representation the answer begins: at the begin of `range`, or of everything.
fn begin_of(record: &Record, range: ByteRange, response: &FetchResponse) -> Result<u64, Stop> {
    let answered = Answered::of(response);
    if let (StatusCode::PARTIAL_CONTENT, false, Some(part)) =
        (answered.status, record.validator().is_strong(), answered.range)
    {
        // Nothing but the bytes tells whether it is the same version, and they will.
        if part.total.is_some_and(|total| record.length != Some(total)) {
            return Err(Stop::OtherVersion);
        }
        let fits = part.first == range.start() && part.last <= range.last();
        let misfit = || Stop::Refused(FillError::BadAnswer("another range than was asked for"));
        return if fits { Ok(range.start()) } else { Err(misfit()) };
    }
    let bad = |what| FillError::BadAnswer(what);
    match judge(record, record.length, Asked::Range(range), &answered) {
        Judged::Part { at, .. } => Ok(at),
        Judged::Again if range.start() > SKIPPED => Err(Stop::Refused(bad("no ranges, and the block is far behind"))),
        Judged::Again => Ok(0),
        Judged::OtherVersion => Err(Stop::OtherVersion),
        Judged::Misfit => Err(Stop::Refused(bad("another range than was asked for"))),
        Judged::Passing => Err(Stop::Failed(bad("a failure that may pass"))),
        Judged::Final => Err(Stop::Refused(bad("a refusal"))),
    }
}
