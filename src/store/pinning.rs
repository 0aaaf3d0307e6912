//! [`Pinning`]: the pins of this store in memory and on its drives, each of which has all of them in one small file. What
//! pins say of each other is `pins`' business, that they keep bodies from eviction `space`'s.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};

use super::Store;
use super::disk::{self, Dir};
use super::drive::{Drive, DriveId};
use super::evict::Extent;
use super::inner::Inner;
use super::layout;
use super::partial::Partial;
use super::pins::{LONGEST, Pin, PinError, PinTarget, Pins};
use super::table::{Pending, RowState, Table};
use crate::clock;
use crate::content::{BodyRef, CacheKey, Digest, UnixMillis};
use crate::telemetry::Metrics;

/// How long it holds that nothing is left to evict: pins end by themselves, and bodies come to be in use no more.
const FULL_FOR: Duration = Duration::from_secs(1);
/// Look-ups at once for a list of pins.
const AT_ONCE: usize = 32;
/// Least time between two complaints that pins leave no room.
const COMPLAINT: Duration = Duration::from_secs(60);

/// All pins of a store.
pub(super) struct Pinning {
    pins: ArcSwap<Pins>,
    /// Held while they are changed.
    changing: Mutex<()>,
    /// Counts the changes.
    version: AtomicU64,
    drives: Mutex<HashMap<DriveId, Arc<Mutex<Kept>>>>,
    /// Drives on which nothing was left to evict.
    full: Mutex<HashMap<DriveId, Full>>,
    complained: Mutex<Option<Instant>>,
    count: IntGauge,
    refusals: IntCounter,
}

/// How often a file that cannot be read is tried before it is set aside.
const ATTEMPTS: u32 = 3;

/// What is in the file of a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// That is not known yet, after so many attempts to read it.
    Unread(u32),
    /// This version.
    Version(u64),
    /// What a newer release wrote. It stays as it is.
    Newer,
}

/// When nothing was left to evict.
#[derive(Debug)]
struct Full {
    version: u64,
    extent: Extent,
    since: Instant,
}

/// A pin and what is stored of its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// The pin.
    pub pin: Pin,
    /// Length of what it keeps, in bytes: complete bodies, and the present parts of others.
    pub bytes: u64,
    /// Whether there is a complete body.
    pub complete: bool,
}

impl Pinning {
    /// Without any.
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            pins: ArcSwap::default(),
            changing: Mutex::new(()),
            version: AtomicU64::new(0),
            drives: Mutex::default(),
            full: Mutex::default(),
            complained: Mutex::new(None),
            count: metrics.store_pins.clone(),
            refusals: metrics.pin_refusals.clone(),
        }
    }

    /// As they are now.
    pub(super) fn pins(&self) -> Arc<Pins> {
        self.pins.load_full()
    }

    /// Changes them; what `change` returns beside goes to the caller.
    fn change<T, E>(&self, change: impl FnOnce(&Pins) -> Result<(Pins, T), E>) -> Result<T, E> {
        let _turn = self.changing.lock();
        let (pins, beside) = change(&self.pins.load())?;
        self.pins.store(Arc::new(pins));
        self.recount();
        // Behind them: who sees the number sees the pins.
        self.version.fetch_add(1, Ordering::AcqRel);
        Ok(beside)
    }

    /// Takes in what a drive has, before anything on it is evicted. Blocking; on the thread that reads the drive in.
    pub(super) fn read_in(&self, drive: &Drive) {
        if let Err(error) = self.read(drive, &mut self.of(drive).lock()) {
            drive.failed("read the pins", &error);
        }
    }

    /// Whether nothing may be evicted yet: what is pinned is not known from any drive.
    pub(super) fn are_unknown(&self) -> bool {
        let is_unread = |kept: &Arc<Mutex<Kept>>| kept.try_lock().is_none_or(|kept| matches!(*kept, Kept::Unread(_)));
        self.version.load(Ordering::Acquire) == 0 && self.drives.lock().values().any(is_unread)
    }

    fn read(&self, drive: &Drive, kept: &mut Kept) -> io::Result<()> {
        let text = match read_text(&drive.dir) {
            Ok(Some(text)) => text,
            Ok(None) => {
                *kept = Kept::Version(0);
                return Ok(());
            }
            Err(error) => {
                let Kept::Unread(failed) = *kept else { return Err(error) };
                *kept = Kept::Unread(failed.saturating_add(1));
                if failed < ATTEMPTS || !drive.in_service() {
                    return Err(error);
                }
                tracing::error!(
                    drive = %drive.label(), %error,
                    "the pins of the drive cannot be read and do not count; the file is set aside as {}", layout::PINS_DAMAGED
                );
                drive.dir.rename(layout::PINS, layout::PINS_DAMAGED)?;
                *kept = Kept::Version(0);
                // All drives get what is known.
                self.version.fetch_add(1, Ordering::AcqRel);
                return Ok(());
            }
        };
        let decoded = match Pins::decode(&text) {
            Ok(decoded) => decoded,
            Err(error) => {
                tracing::warn!(drive = %drive.label(), %error, "the pins of the drive do not count, and stay as they are");
                *kept = Kept::Newer;
                return Ok(());
            }
        };
        if decoded.damaged > 0 {
            let (lines, intact) = (decoded.damaged, decoded.pins.count(now()));
            tracing::warn!(
                drive = %drive.label(), lines, intact,
                "{} is damaged; look whether a pin is missing; a copy is kept as {}", layout::PINS, layout::PINS_DAMAGED
            );
            let aside =
                drive.dir.unlink(layout::PINS_DAMAGED).and_then(|()| drive.dir.create_file(layout::PINS_DAMAGED));
            if let Err(error) = aside.and_then(|file| disk::write_at(&file, &text, 0)) {
                drive.failed("keep the damaged pins", &error);
            }
        }
        let merged = |pins: &Pins| Ok::<_, std::convert::Infallible>((pins.merged(&decoded.pins, now()), ()));
        let Ok(()) = self.change(merged);
        *kept = Kept::Version(0);
        Ok(())
    }

    /// Writes them on a drive, if it does not have them as they are. Blocking; on a thread of the drive.
    pub(super) fn write_on(&self, drive: &Drive) -> io::Result<()> {
        let kept = self.of(drive);
        let mut kept = kept.lock();
        if let Kept::Unread(_) = *kept {
            self.read(drive, &mut kept)?;
        }
        // In this order: what is written is no older than its number says.
        let (now, pins) = (self.version.load(Ordering::Acquire), self.pins());
        match *kept {
            Kept::Version(version) if version >= now => return Ok(()),
            Kept::Newer => return Err(io::Error::other("a newer release of waystation wrote the pins of this drive")),
            Kept::Version(_) | Kept::Unread(_) => {}
        }
        let text = pins.encode();
        if read_text(&drive.dir).ok().flatten().as_ref() == Some(&text) {
            // It may have got its name without that being durable.
            drive.dir.sync_directory(".")?;
        } else {
            replace(&drive.dir, &text)?;
        }
        *kept = Kept::Version(now);
        Ok(())
    }

    /// Whether a drive lacks what was pinned meanwhile: it was away, or is new.
    pub(super) fn is_behind(&self, drive: &Drive) -> bool {
        let now = self.version.load(Ordering::Acquire);
        let lacks = |kept: &Kept| match kept {
            Kept::Unread(_) => true,
            Kept::Version(version) => *version < now,
            Kept::Newer => false,
        };
        // What is being written is not behind for long.
        self.of(drive).try_lock().is_some_and(|kept| lacks(&kept))
    }

    /// Counts those that hold: they end by themselves, too.
    pub(super) fn recount(&self) {
        self.count.set(i64::try_from(self.pins().count(now())).unwrap_or(i64::MAX));
    }

    /// All that is on a drive is pinned or in use, as far as there is so much of it.
    pub(super) fn nothing_is_left(&self, drive: &Drive, extent: Extent) {
        let version = self.version.load(Ordering::Acquire);
        self.full.lock().insert(drive.id, Full { version, extent, since: Instant::now() });
    }

    /// Whether that was found out a moment ago, so that nobody need look at all of it for each body that comes.
    pub(super) fn leave_nothing(&self, drive: &Drive, extent: Extent) -> bool {
        let version = self.version.load(Ordering::Acquire);
        let is_so = |full: &Full| full.version == version && full.extent == extent && full.since.elapsed() < FULL_FOR;
        self.full.lock().get(&drive.id).is_some_and(is_so)
    }

    /// Says, now and then, that room could not be made because of pins.
    pub(super) fn refused_room(&self, drive: &Drive, wanted: u64) {
        self.refusals.inc();
        let mut complained = self.complained.lock();
        if complained.is_none_or(|at| at.elapsed() >= COMPLAINT) {
            *complained = Some(Instant::now());
            let pins = self.pins().count(now());
            tracing::warn!(
                drive = %drive.label(), wanted, pins,
                "pinned bodies take the room of others; take pins off (waystation store unpin) or give the drive a higher quota"
            );
        }
    }

    fn of(&self, drive: &Drive) -> Arc<Mutex<Kept>> {
        let unread = || Arc::new(Mutex::new(Kept::Unread(0)));
        Arc::clone(self.drives.lock().entry(drive.id).or_insert_with(unread))
    }
}

impl Store {
    /// Keeps these from eviction until `expires`, or until they are taken off; also what is stored of them later. At least
    /// one drive has it written down when this returns, as a rule all in service; others get it later.
    ///
    /// # Errors
    /// See [`PinError`].
    pub async fn pin(&self, targets: &[PinTarget], reason: &str, expires: Option<UnixMillis>) -> Result<(), PinError> {
        self.inner.wait_ready().await;
        self.inner.pin(targets, reason, expires).await
    }

    /// Takes pins off; says which of the targets had one.
    ///
    /// # Errors
    /// [`PinError::NotWritten`].
    pub async fn unpin(&self, targets: &[PinTarget]) -> Result<Vec<PinTarget>, PinError> {
        self.inner.wait_ready().await;
        self.inner.unpin(targets).await
    }

    /// The pins that hold, with what is stored of each.
    pub async fn pinned(&self) -> Vec<Pinned> {
        self.inner.wait_ready().await;
        self.inner.pinned(self.pins()).await
    }

    /// The same of these targets alone.
    pub async fn pinned_of(&self, targets: &[PinTarget]) -> Vec<Pinned> {
        self.inner.wait_ready().await;
        self.inner.pinned(self.inner.pinning.pins().of(targets, now())).await
    }

    /// The pins that hold.
    pub fn pins(&self) -> Vec<Pin> {
        self.inner.pinning.pins().list(now())
    }
}

impl Inner {
    /// Sets pins on all drives in service.
    pub(super) async fn pin(
        self: &Arc<Self>,
        targets: &[PinTarget],
        reason: &str,
        expires: Option<UnixMillis>,
    ) -> Result<(), PinError> {
        self.pinning.change(|pins| Ok((pins.set(targets, reason, expires, now())?, ())))?;
        // What was chosen for eviction before is gone by now; what is chosen from here on is not pinned.
        drop(self.entries.lock());
        self.write_pins().await
    }

    /// Takes pins off on all drives in service; says which targets had one.
    pub(super) async fn unpin(self: &Arc<Self>, targets: &[PinTarget]) -> Result<Vec<PinTarget>, PinError> {
        let had = self.pinning.change(|pins| Ok::<_, PinError>(pins.end(targets, now())))?;
        self.write_pins().await.map(|()| had)
    }

    /// What is stored of these pins, in their order.
    pub(super) async fn pinned(self: &Arc<Self>, pins: Vec<Pin>) -> Vec<Pinned> {
        let stored = |pin: Pin| async move {
            let (bytes, complete) = match &pin.target {
                PinTarget::Digest(digest) => self.length_of(digest).await.map_or((0, false), |length| (length, true)),
                PinTarget::Key(key) => self.kept_under(key).await,
            };
            Pinned { pin, bytes, complete }
        };
        stream::iter(pins).map(stored).buffered(AT_ONCE).collect().await
    }

    async fn length_of(self: &Arc<Self>, digest: &Digest) -> Option<u64> {
        let pending = self.entries.lock().blobs.get(digest).map(|pending| pending.blob.clone());
        if let Some(pending) = pending {
            return pending.map(|blob| blob.length());
        }
        let drive = self.index.home(digest).ok().flatten()?;
        let (index, id, digest) = (Arc::clone(&self.index), drive.id, *digest);
        let row = drive.pool.run(move || index.blob_on(id, &digest)).await.ok()?.ok()??;
        Some(row.sums.length())
    }

    async fn kept_under(&self, key: &CacheKey) -> (u64, bool) {
        let (mut bytes, mut complete) = (0_u64, false);
        for entry in self.lookup(key).await.current.iter() {
            if !entry.record.status.is_success() {
                continue;
            }
            let length = match entry.partial() {
                None => {
                    complete = true;
                    entry.record.length.unwrap_or(0)
                }
                Some(partial) => partial.state.lock().map.present().total(),
            };
            bytes = bytes.saturating_add(length);
        }
        (bytes, complete)
    }

    /// Whether a complete body must stay when room is made. Reads no file.
    pub(super) fn is_pinned_blob(&self, table: &Table, pins: &Pins, digest: &Digest, now: UnixMillis) -> bool {
        if pins.hold_digest(digest, now) {
            return true;
        }
        if pins.keys().len() == 0 {
            return false;
        }
        let is_its_body = |pending: &Pending| {
            pending.rows.iter().any(|row| match &row.state {
                RowState::Live(entry) => entry.record.body == BodyRef::Blob(*digest),
                RowState::Dead(_) => false,
            })
        };
        let in_memory = if pins.keys().len() < table.keys.len() {
            pins.keys().filter(|key| pins.hold_key(*key, now)).any(|key| table.keys.get(&key).is_some_and(is_its_body))
        } else {
            table.keys.iter().any(|(key, pending)| pins.hold_key(*key, now) && is_its_body(pending))
        };
        in_memory || self.index.is_body_of(digest, |key| pins.hold_key(key, now))
    }

    /// Whether a partial body must stay when room is made.
    pub(super) fn is_pinned_partial(partial: &Partial, pins: &Pins, now: UnixMillis) -> bool {
        let entry = partial.state.lock().entry.upgrade();
        entry.is_some_and(|entry| {
            let expected = entry.record.expected.and_then(|expected| expected.digest().sha_256());
            let expected = expected.is_some_and(|digest| pins.hold_digest(&digest, now));
            expected || pins.hold_key(entry.record.key.hash(), now)
        })
    }

    /// Drives that are out of service get them when they are back.
    async fn write_pins(self: &Arc<Self>) -> Result<(), PinError> {
        let write = |drive: &Arc<Drive>| {
            let (store, job) = (Arc::clone(self), Arc::clone(drive));
            drive.syncs.run(move || store.pinning.write_on(&job))
        };
        let writing: Vec<_> = self.drives.iter().filter(|drive| drive.in_service()).map(|d| (d, write(d))).collect();
        let (mut written, mut failed) = (false, "no drive is in service".to_owned());
        for (drive, writing) in writing {
            match writing.await {
                Ok(Ok(())) => written = true,
                Err(error) | Ok(Err(error)) => {
                    drive.failed("write the pins", &error);
                    failed = format!("{}: {error}", drive.label());
                }
            }
        }
        if written { Ok(()) } else { Err(PinError::NotWritten(failed)) }
    }
}

/// What the file of a drive says; `None` without one.
fn read_text(dir: &Dir) -> io::Result<Option<Vec<u8>>> {
    let Some(stat) = dir.stat(layout::PINS)? else { return Ok(None) };
    if u64::try_from(stat.st_size).unwrap_or(u64::MAX) > LONGEST {
        return Err(io::Error::other(format!("{} is longer than {LONGEST} bytes", layout::PINS)));
    }
    dir.read(layout::PINS).map(Some)
}

/// Adds the pins of one drive to those of another: for tools, while no cache runs.
pub(super) fn carry(from: &Drive, to: &Drive) -> io::Result<()> {
    let read = |drive: &Drive| match read_text(&drive.dir)? {
        Some(text) => Pins::decode(&text).map(|decoded| decoded.pins).map_err(io::Error::other),
        None => Ok(Pins::default()),
    };
    let (more, there) = (read(from)?, read(to)?);
    let merged = there.merged(&more, now());
    if merged == there { Ok(()) } else { replace(&to.dir, &merged.encode()) }
}

fn replace(dir: &Dir, text: &[u8]) -> io::Result<()> {
    dir.unlink(layout::PINS_NEW)?;
    let file = dir.create_file(layout::PINS_NEW)?;
    disk::write_at(&file, text, 0)?;
    disk::sync_data(&file)?;
    dir.rename(layout::PINS_NEW, layout::PINS)?;
    dir.sync_directory(".")
}

/// The time by the clock of this machine, or the most likely one: it says when pins end.
pub(super) fn now() -> UnixMillis {
    UnixMillis::from(clock::now_for_deletion())
}
