//! Files in `blobs/` that no journal names. A cut between the rename of a body and the journal's entry leaves one, and when
//! its map was cut off too nothing leads to it (see `adopt` for when something does). It takes room that nobody counts,
//! so it goes: in the background after start, by names alone. Removing it is the commit thread's business, which is the
//! only one that gives and takes these names.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use super::drive::{Drive, Victim};
use super::index::Index;
use super::inner::Inner;
use super::layout;
use super::queue::Change;
use crate::content::Digest;

/// Queues the removal of what nothing names. To be called when the order of eviction is loaded: what is in it is named.
/// A drive of whose journal something could not be read is left alone, since that may have named it.
pub(super) fn sweep(store: &Inner, drive: &Drive, index: &Index, closing: &AtomicBool) -> io::Result<()> {
    if drive.is_doubted() {
        return Ok(());
    }
    for first in drive.dir.list(layout::BLOBS)? {
        let directory = format!("{}/{first}", layout::BLOBS);
        for rest in drive.dir.list(&directory)? {
            if closing.load(Ordering::Relaxed) {
                return Ok(());
            }
            let Some(digest) = Digest::from_hex(&format!("{first}{rest}")).ok() else { continue };
            // Other spellings of a digest are foreign.
            let ours = layout::blob(&digest) == format!("{directory}/{rest}");
            if ours && !drive.sieve.lock().contains(&Victim::Blob(digest)) && is_unnamed(store, drive, index, &digest) {
                tracing::info!(drive = %drive.label(), %digest, "a body that was never finished is removed");
                drive.queue.push(Change::Unnamed { digest });
            }
        }
    }
    Ok(())
}

/// Whether neither memory nor index has the blob.
pub(super) fn is_unnamed(store: &Inner, drive: &Drive, index: &Index, digest: &Digest) -> bool {
    let pending = store.entries.lock().blobs.contains_key(digest);
    !pending && !index.is_broken() && matches!(index.has_blob(digest, drive.id), Ok(false))
}
