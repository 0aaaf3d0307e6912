//! What waits for the commit thread of a drive: changes that are visible and not durable yet, in the order in which they
//! became visible, and when there are enough of them for a batch. What becomes of a batch is `commit`'s business.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use prometheus::IntGauge;
use tokio::sync::oneshot;

use super::blob::Blob;
use super::drive::{DataFile, DriveId};
use super::entries::Entry;
use super::index::Applied;
use crate::content::{Digest, KeyHash, PartialId, UnixMillis};

/// Longest time that a change waits for others to share its syncs.
const WINDOW: Duration = Duration::from_millis(100);
/// Bytes of new blobs that end the wait.
const BYTES: u64 = 64 * 1024 * 1024;
/// One change that is visible and not durable yet.
pub(super) enum Change {
    /// A partial body became a blob.
    Complete {
        row: RowId,
        entry: Arc<Entry>,
        older: Option<Older>,
        blob: Arc<Blob>,
        /// To be durable before the body gets its name.
        map: Option<Arc<File>>,
        serial: u64,
    },
    /// A response whose blob is stored already.
    Stored { row: RowId, entry: Arc<Entry>, older: Option<Older> },
    /// Another record for the same body.
    Updated { row: RowId, entry: Arc<Entry> },
    /// A response became an older version of one that is on another drive.
    Superseded { older: Older },
    /// A response is forgotten, if the row still has it.
    Forget { row: RowId, entry: Arc<Entry> },
    /// A blob goes; into quarantine for the reason given, or for good.
    BlobGone { digest: Digest, serial: u64, file: Option<Arc<DataFile>>, size: u64, quarantine: Option<String> },
    /// A file that nothing names goes, if it is so still.
    Unnamed { digest: Digest },
    /// Entries of a damaged place of the journal are told anew, those of them that are true still.
    Told { copied: Vec<Applied> },
    /// The files of a partial body go.
    PartialGone { id: PartialId, file: Option<Arc<DataFile>>, size: u64 },
    /// Somebody wants to know when everything before is done.
    Ack(oneshot::Sender<()>),
}

/// A row of the index and the serial of its change in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowId {
    pub(super) key: KeyHash,
    pub(super) drive: DriveId,
    pub(super) place: u64,
    pub(super) serial: u64,
}

/// A response that became an older version.
pub(super) struct Older {
    /// What it is now.
    pub(super) entry: Arc<Entry>,
    /// Since when.
    pub(super) at: UnixMillis,
    /// The row that it has left, and the one that it has now.
    pub(super) rows: [RowId; 2],
}

/// What waits for the commit thread of a drive. A leaf lock; what look-ups see is pushed under the lock of the
/// entries, so that the journal has it in the order in which it became visible.
pub(super) struct Queue {
    state: Mutex<Waiting>,
    changed: Condvar,
    /// Changes that are visible and not durable: those that wait here, and the batch that is being committed.
    uncommitted: IntGauge,
}

#[derive(Default)]
struct Waiting {
    changes: Vec<Change>,
    since: Option<Instant>,
    bytes: u64,
    urgent: bool,
    closed: bool,
}

impl Queue {
    /// An empty queue that counts in `uncommitted`.
    pub(super) fn new(uncommitted: IntGauge) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), uncommitted }
    }

    /// Adds a change to the next batch. After the store was closed it is dropped: the files say what was there.
    pub(super) fn push(&self, change: Change) {
        let mut state = self.state.lock();
        if let Change::Complete { blob, .. } = &change {
            state.bytes = state.bytes.saturating_add(blob.length());
        }
        state.urgent |= matches!(change, Change::Ack(_));
        state.since.get_or_insert_with(Instant::now);
        if !state.closed {
            self.uncommitted.inc();
            state.changes.push(change);
        }
        self.changed.notify_one();
    }

    /// A batch of so many changes is done with.
    pub(super) fn committed(&self, changes: usize) {
        self.uncommitted.sub(i64::try_from(changes).unwrap_or(i64::MAX));
    }

    /// A receiver that resolves once all changes so far are durable.
    pub(super) fn barrier(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.push(Change::Ack(sender));
        receiver
    }

    /// Ends the commit thread after a last batch.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_one();
    }

    /// The next batch; `None` when the queue is closed and empty.
    pub(super) fn next(&self) -> Option<Vec<Change>> {
        let mut state = self.state.lock();
        loop {
            let deadline = state.since.map(|since| since + WINDOW);
            let due = state.urgent || state.bytes >= BYTES || deadline.is_some_and(|at| at <= Instant::now());
            if !state.changes.is_empty() && (due || state.closed) {
                let closed = state.closed;
                let taken = std::mem::take(&mut *state);
                state.closed = closed;
                return Some(taken.changes);
            }
            if state.closed {
                return None;
            }
            match deadline {
                Some(at) => drop(self.changed.wait_until(&mut state, at)),
                None => self.changed.wait(&mut state),
            }
        }
    }
}
