//! [`Index`]: where each stored response and blob is told in the journals of the drives that are here. It is derived from
//! them and lives in memory; what a record says is read from the journal when it is asked for. A snapshot beside the
//! journal spares the next start reading all of it. Only the commit thread of a drive, and before it the one that
//! recovers, change what is known of the drive.

mod apply;
mod objects;
mod read;
mod slots;
mod snapshot;

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};

use super::block_sums::BlockSums;
use super::drive::{Drive, DriveId};
use super::journal_entry::{JournalEntry, Row};
use super::mirror::Mirror;
use crate::content::{Digest, KeyHash, UnixMillis};
use objects::{At, Found, Objects};
pub(super) use snapshot::Loaded;

/// A place in a drive's journal: of an entry, or up to which it is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Watermark {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// What is known of a blob.
#[derive(Debug)]
pub(super) struct BlobRow {
    /// Real bytes on the drive.
    pub(super) allocated: u64,
    pub(super) sums: BlockSums,
}

/// A journal entry on its way into the index.
#[derive(Debug, Clone)]
pub(super) struct Applied {
    pub(super) entry: JournalEntry,
    /// Where the entry begins in the journal.
    pub(super) at: Watermark,
    /// Real bytes of a new blob, when they are known.
    pub(super) allocated: Option<u64>,
}

/// What is known of the drives that are here.
pub(super) struct Index {
    drives: ArcSwap<Vec<Arc<Known>>>,
    mirror: Arc<Mirror>,
}

/// What is known of one drive.
struct Known {
    drive: Arc<Drive>,
    state: RwLock<State>,
    /// What the response that was read last says of its blob, and where: whoever looks it up opens that blob next.
    latest: Mutex<Option<(At, Digest, BlockSums)>>,
}

struct State {
    objects: Objects,
    /// How far the journal is applied.
    mark: Option<Watermark>,
    /// What of that the snapshot has.
    saved: Option<Watermark>,
    /// All that the journal says is applied, so that the mirror may follow.
    replayed: bool,
    /// A part of the journal could not be read: nothing may be built on what is known.
    incomplete: bool,
}

impl Known {
    fn nothing(drive: &Arc<Drive>) -> Arc<Self> {
        Arc::new(Self { drive: Arc::clone(drive), state: RwLock::new(State::empty()), latest: Mutex::default() })
    }
}

impl State {
    fn empty() -> Self {
        Self { objects: Objects::new(), mark: None, saved: None, replayed: false, incomplete: false }
    }
}

impl Index {
    /// Of these drives, with nothing known. What their journals do not give any more `mirror` is asked for.
    pub(super) fn new<'a>(drives: impl Iterator<Item = &'a Arc<Drive>>, mirror: Arc<Mirror>) -> Self {
        Self { drives: ArcSwap::from_pointee(drives.map(Known::nothing).collect()), mirror }
    }

    /// A drive has come; nothing is known of it yet.
    pub(super) fn admit(&self, drive: &Arc<Drive>) {
        self.drives.rcu(|drives| {
            let others = drives.iter().filter(|known| known.drive.id != drive.id).cloned();
            others.chain([Known::nothing(drive)]).collect::<Vec<_>>()
        });
    }

    /// The drives that it knows of.
    pub(super) fn drives(&self) -> Vec<Arc<Drive>> {
        self.drives.load().iter().map(|known| Arc::clone(&known.drive)).collect()
    }

    fn of(&self, drive: DriveId) -> Option<Arc<Known>> {
        self.drives.load().iter().find(|known| known.drive.id == drive).cloned()
    }

    /// How far the journal of `drive` is applied; `None` when nothing is.
    pub(super) fn watermark(&self, drive: DriveId) -> Option<Watermark> {
        self.of(drive)?.state.read().mark
    }

    /// The journal of `drive` has been read; with `incomplete` not all of it could be.
    pub(super) fn replayed(&self, drive: DriveId, incomplete: bool) {
        if let Some(known) = self.of(drive) {
            let mut state = known.state.write();
            (state.replayed, state.incomplete) = (true, incomplete);
        }
        self.mirror.follow();
    }

    /// Whether the next start has to read the journal again, since a part of it could not be read.
    pub(super) fn is_incomplete(&self, drive: DriveId) -> bool {
        self.of(drive).is_none_or(|known| known.state.read().incomplete)
    }

    /// Up to where the mirror may copy the journal of `drive`.
    pub(super) fn to_mirror(&self, drive: DriveId) -> Option<Watermark> {
        let known = self.of(drive)?;
        let state = known.state.read();
        state.mark.filter(|_| state.replayed && !state.incomplete)
    }

    /// The last place of each segment of a drive's journal that is named.
    pub(super) fn last_places(&self, drive: DriveId) -> HashMap<u64, u64> {
        let mut last = HashMap::new();
        let mut note = |at: At| {
            let mark = Watermark::from(at);
            let offset: &mut u64 = last.entry(mark.segment).or_default();
            *offset = mark.offset.max(*offset);
        };
        if let Some(known) = self.of(drive) {
            known.state.read().objects.each_place(&mut note);
        }
        last
    }

    /// Forgets all of a drive, before its journal is replayed from the begin.
    pub(super) fn forget_drive(&self, drive: DriveId) {
        if let Some(known) = self.of(drive) {
            *known.state.write() = State::empty();
        }
    }

    /// The drives that have something under a key and give it now. Reads no file.
    pub(super) fn drives_with(&self, key: KeyHash) -> Vec<Arc<Drive>> {
        let has_rows = |known: &Known| known.state.read().objects.of_key(key).iter().any(|found| found.has_blob);
        self.giving(|known| has_rows(known))
    }

    /// The drives with responses whose body is this blob that give them now. Reads no file.
    pub(super) fn drives_naming(&self, digest: &Digest) -> Vec<Arc<Drive>> {
        self.giving(|known| !known.state.read().objects.of_blob(digest).is_empty())
    }

    /// Whether this blob is the body of a response whose key `is_meant`. Reads no file.
    pub(super) fn is_body_of(&self, digest: &Digest, is_meant: impl Fn(KeyHash) -> bool) -> bool {
        let is_it = |found: &Found| is_meant(found.key);
        self.drives.load().iter().any(|known| known.state.read().objects.of_blob(digest).iter().any(is_it))
    }

    fn giving(&self, is_meant: impl Fn(&Known) -> bool) -> Vec<Arc<Drive>> {
        let drives = self.drives.load();
        let giving = drives.iter().filter(|known| known.drive.pulse.gives() && is_meant(known));
        giving.map(|known| Arc::clone(&known.drive)).collect()
    }

    /// All responses of a key on a drive whose blobs are known. Reads its journal. One that is damaged there counts as
    /// missing.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub(super) fn rows_on(&self, drive: DriveId, key: KeyHash) -> io::Result<Vec<Row>> {
        let Some(known) = self.of(drive) else { return Ok(Vec::new()) };
        let found = known.state.read().objects.of_key(key);
        let found = found.into_iter().filter(|found| found.has_blob);
        found.filter_map(|found| self.read_row(&known, found).transpose()).collect()
    }

    /// One response, as it is now. Reads the journal.
    pub(super) fn row(&self, key: KeyHash, drive: DriveId, place: u64) -> Option<Row> {
        let known = self.of(drive)?;
        let found = known.state.read().objects.row(key, place)?;
        self.read_row(&known, found).ok().flatten()
    }

    /// Where a response is told, if it is known. Reads no file.
    pub(super) fn row_at(&self, key: KeyHash, drive: DriveId, place: u64) -> Option<Watermark> {
        self.of(drive)?.state.read().objects.row(key, place).map(|found| found.at.into())
    }

    /// Since when a response is an older version, if it is one and told at `at`. Reads no file.
    pub(super) fn older_since(&self, key: KeyHash, drive: DriveId, place: u64, at: Watermark) -> Option<UnixMillis> {
        let found = self.of(drive)?.state.read().objects.row(key, place)?;
        found.superseded.filter(|_| Watermark::from(found.at) == at)
    }

    /// Where what a journal does not say any more may be found.
    pub(super) fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// Every response on a drive whose body is this blob. Reads its journal.
    pub(super) fn pointing_to(&self, drive: DriveId, digest: &Digest) -> Vec<Row> {
        let Some(known) = self.of(drive) else { return Vec::new() };
        let found = known.state.read().objects.of_blob(digest);
        found.into_iter().filter_map(|found| self.read_row(&known, found).ok().flatten()).collect()
    }

    /// A drive that has a blob. Reads no file.
    ///
    /// # Errors
    /// When only drives have it that give nothing now.
    pub(super) fn home(&self, digest: &Digest) -> io::Result<Option<Arc<Drive>>> {
        let drives = self.drives.load();
        let mut homes = drives.iter().filter(|known| known.state.read().objects.blob(digest).is_some()).peekable();
        if homes.peek().is_none() {
            return Ok(None);
        }
        let home = homes.find(|known| known.drive.pulse.gives());
        home.map(|known| Some(Arc::clone(&known.drive))).ok_or_else(|| io::Error::other("its drive is out of service"))
    }

    /// What is known of a blob on a drive. Reads its journal.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub(super) fn blob_on(&self, drive: DriveId, digest: &Digest) -> io::Result<Option<BlobRow>> {
        self.of(drive).map_or(Ok(None), |known| self.read_blob(&known, digest))
    }

    /// Whether a drive has a blob. Reads no file.
    pub(super) fn has_blob(&self, digest: &Digest, drive: DriveId) -> bool {
        self.of(drive).is_some_and(|known| known.state.read().objects.blob(digest).is_some())
    }

    /// The blobs of a drive whose digests begin like this. Reads no file.
    pub(super) fn blobs_beginning(&self, drive: DriveId, prefix: &[u8; 16]) -> Vec<Digest> {
        self.of(drive).map(|known| known.state.read().objects.blobs_beginning(prefix)).unwrap_or_default()
    }

    /// Where a blob of a drive is told, and the real bytes that it takes. Reads no file.
    pub(super) fn blob_at(&self, digest: &Digest, drive: DriveId) -> Option<(Watermark, u64)> {
        let (at, allocated) = self.of(drive)?.state.read().objects.blob(digest)?;
        Some((at.into(), allocated))
    }

    /// The places in memory of all blobs of a drive, in the order in which they came.
    pub(super) fn blobs_in_order(&self, drive: DriveId) -> Vec<u32> {
        let Some(known) = self.of(drive) else { return Vec::new() };
        let mut places: Vec<(At, u32)> = known.state.read().objects.blob_places().collect();
        places.sort_unstable();
        places.into_iter().map(|(_, place)| place).collect()
    }

    /// The blob at a place in memory, if one is there still, with its real bytes.
    pub(super) fn blob_in_place(&self, drive: DriveId, place: u32) -> Option<(Digest, u64)> {
        self.of(drive)?.state.read().objects.blob_in_place(place)
    }

    /// Real bytes of all blobs of a drive.
    pub(super) fn allocated(&self, drive: DriveId) -> u64 {
        let mut all = 0_u64;
        if let Some(known) = self.of(drive) {
            known.state.read().objects.each_blob(|_, _, allocated| all = all.saturating_add(allocated));
        }
        all
    }

    /// Up to `count` blobs of a drive in the order of their digests, from the one behind `after` on. Looks at all.
    pub(super) fn blobs_after(&self, drive: DriveId, after: Option<Digest>, count: usize) -> Vec<Digest> {
        self.of(drive).map(|known| known.state.read().objects.blobs_after(after, count)).unwrap_or_default()
    }

    /// How many entries of a part of a segment are named. Looks at all that is known of the drive.
    pub(super) fn named_in(&self, drive: DriveId, segment: u64, (from, end): (u64, u64)) -> usize {
        let mut named = HashSet::new();
        let mut note = |at: At| {
            let mark = Watermark::from(at);
            if mark.segment == segment && (from..end).contains(&mark.offset) {
                named.insert(at);
            }
        };
        if let Some(known) = self.of(drive) {
            known.state.read().objects.each_place(&mut note);
        }
        named.len()
    }

    /// Number of responses and blobs of a drive.
    pub(super) fn len(&self, drive: DriveId) -> (usize, usize) {
        self.of(drive).map_or((0, 0), |known| known.state.read().objects.len())
    }
}
