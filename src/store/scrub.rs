//! Reads what is stored and its journals, slowly and for ever: a byte that changed on a drive is found while its source may still have it,
//! and not when a device asks for it. One thread for all drives; what becomes of a block that does not hold is `blob`'s and
//! `mend`'s business.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::blob::Blob;
use super::drive::Drive;
use super::error::ReadError;
use super::inner::Inner;
use super::journal_check;
use crate::content::Digest;

/// Digests that are taken from the index at a time, which looks at all that it has for that.
const BATCH: usize = 4096;

/// Longest time for which the thread does not look whether the store is closing.
const NAP: Duration = Duration::from_secs(3600);

/// Longest time at full speed after a pause.
const CREDIT: Duration = Duration::from_secs(1);

/// A blob counts as so many bytes at least: to find it costs as much as to read them.
const LEAST: u64 = 64 * 1024;

/// What a pass has seen.
#[derive(Debug, Default)]
struct Seen {
    blobs: u64,
    bytes: u64,
    broken: u64,
}

/// Keeps to so many bytes per second.
struct Pace {
    rate: u64,
    since: Instant,
    bytes: u64,
}

/// Reads everything once in `storage.scrub_every`, until the store is closing.
pub(super) fn run(store: &Arc<Inner>, closing: &AtomicBool) {
    let rate = store.settings.scrub_rate;
    while rate > 0 && !closing.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let mut seen = Seen::default();
        let mut pace = Pace { rate, since: begun, bytes: 0 };
        for drive in &store.drives {
            scrub(store, drive, closing, &mut pace, &mut seen);
        }
        if seen.blobs > 0 && !closing.load(Ordering::Relaxed) {
            let Seen { blobs, bytes, broken } = seen;
            tracing::info!(blobs, bytes, broken, "everything that is stored was read and compared with its sums");
        }
        while begun.elapsed() < store.settings.scrub_every && !closing.load(Ordering::Relaxed) {
            thread::park_timeout(store.settings.scrub_every.saturating_sub(begun.elapsed()).min(NAP));
        }
    }
}

/// Reads the blobs of a drive once, in the order of their digests from a random one on: a process that is often started
/// anew does not always read the same ones.
fn scrub(store: &Arc<Inner>, drive: &Arc<Drive>, closing: &AtomicBool, pace: &mut Pace, seen: &mut Seen) {
    if !drive.in_service() {
        return;
    }
    // What hangs here, hangs for the drive.
    drive.pulse.adopt_thread();
    journal_check::check(&store.index, drive, closing, |bytes| pace.spend(bytes, closing));
    let mut random = [0; 32];
    // Without randomness it begins at the first one.
    let _ = getrandom::fill(&mut random);
    let start = Digest::from_bytes(random);
    let (mut after, mut wrapped) = (Some(start), false);
    loop {
        let digests = store.index.blobs_after(drive.id, after, BATCH);
        for digest in &digests {
            if closing.load(Ordering::Relaxed) || !drive.in_service() || (wrapped && *digest > start) {
                return;
            }
            scrub_blob(store, *digest, closing, pace, seen);
        }
        after = digests.last().copied();
        if digests.len() < BATCH {
            if std::mem::replace(&mut wrapped, true) {
                return;
            }
            after = None;
        }
    }
}

fn scrub_blob(store: &Arc<Inner>, digest: Digest, closing: &AtomicBool, pace: &mut Pace, seen: &mut Seen) {
    let Some(life) = store.entries.lock().life(digest) else { return };
    let opened = match life.open_blob() {
        Some(blob) => Ok(blob),
        None => store.home(&digest).and_then(|drive| store.open_on(&drive, &life)),
    };
    let blob: Arc<Blob> = match opened {
        Ok(blob) => blob,
        Err(ReadError::Gone) => return store.blob_missing(&life),
        // It has been logged where it happened.
        Err(_) => return pace.spend(LEAST, closing),
    };
    seen.blobs += 1;
    for block in 0..blob.sums().crcs().len() as u64 {
        if closing.load(Ordering::Relaxed) || life.is_gone() {
            return;
        }
        let Some(range) = blob.sums().block_range(block) else { return };
        match blob.scrub(block, range) {
            Ok(()) => {}
            Err(ReadError::Damaged { .. }) => seen.broken += 1,
            // Nothing can be said of the blob while its drive fails.
            Err(_) => return,
        }
        seen.bytes += range.len();
        store.metrics.scrubbed_bytes.inc_by(range.len());
        pace.spend(range.len(), closing);
    }
    pace.spend(LEAST.saturating_sub(blob.length()), closing);
}

impl Pace {
    /// Waits until so many bytes more are due.
    fn spend(&mut self, bytes: u64, closing: &AtomicBool) {
        let behind = self.since.elapsed().saturating_sub(Duration::from_secs_f64(self.bytes as f64 / self.rate as f64));
        if behind > CREDIT {
            // What was not used is not caught up with at the drive's full speed.
            (self.since, self.bytes) = (Instant::now(), 0);
        }
        self.bytes = self.bytes.saturating_add(bytes);
        let due = Duration::from_secs_f64(self.bytes as f64 / self.rate as f64);
        while !closing.load(Ordering::Relaxed)
            && let Some(left) = due.checked_sub(self.since.elapsed()).filter(|left| !left.is_zero())
        {
            thread::park_timeout(left.min(NAP));
        }
    }
}
