//! Files in `blobs/` that no journal names. A cut between the rename of a body and the journal's entry leaves one, and when
//! its map was cut off too nothing leads to it (see `adopt` for when something does). It takes room that nobody counts,
//! so it goes: in the background after start, by names alone. Removing it is the commit thread's business, which is the
//! only one that gives and takes these names.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use super::drive::{Drive, Victim};
use super::inner::Inner;
use super::journal_entry::JournalEntry;
use super::journal_format::{Frame, Frames, is_torn};
use super::journal_segment::{SEGMENT_HEADER_LEN, decode_segment_header};
use super::queue::Change;
use super::{adopt, journal, layout};
use crate::content::{BodyRef, Digest};

/// Queues the removal of what nothing names. To be called when the order of eviction is loaded: what is in it is named.
/// What the index does not know the journal is asked for, since the index may lack something. A drive of whose journal
/// something could not be read is left alone: that may have named it; and so is one with a map that leads to a body in
/// `blobs/` and could not be followed.
pub(super) fn sweep(store: &Inner, drive: &Drive, closing: &AtomicBool) -> io::Result<()> {
    let mut unknown = HashSet::new();
    for first in drive.dir.list(layout::BLOBS)? {
        let directory = format!("{}/{first}", layout::BLOBS);
        for rest in drive.dir.list(&directory)? {
            if closing.load(Ordering::Relaxed) {
                return Ok(());
            }
            let Some(digest) = Digest::from_hex(&format!("{first}{rest}")).ok() else { continue };
            // Other spellings of a digest are foreign.
            let ours = layout::blob(&digest) == format!("{directory}/{rest}");
            if ours && !drive.sieve.lock().contains(&Victim::Blob(digest)) && is_unnamed(store, drive, &digest) {
                unknown.insert(digest);
            }
        }
    }
    if unknown.is_empty() || drive.is_doubted() || adopt::any_waits(drive)? {
        return Ok(());
    }
    let named = named_in_journal(drive, &unknown, closing)?;
    for digest in unknown {
        match named.as_ref().map(|named| named.contains(&digest)) {
            Some(false) => {
                tracing::info!(drive = %drive.label(), %digest, "a body that was never finished is removed");
                drive.queue.push(Change::Unnamed { digest });
            }
            Some(true) => {
                tracing::error!(drive = %drive.label(), %digest, "the index lacks a blob that the journal names; delete index.snapshot while the cache is stopped and it is made anew");
            }
            None => {}
        }
    }
    Ok(())
}

/// Which of these blobs the journal says are there; `None` when it cannot be read whole.
fn named_in_journal(
    drive: &Drive,
    digests: &HashSet<Digest>,
    closing: &AtomicBool,
) -> io::Result<Option<HashSet<Digest>>> {
    let mut named = HashSet::new();
    let segments = journal::segments(drive)?;
    if segments.windows(2).any(|pair| matches!(pair, [one, next] if *next != one + 1)) {
        // What the one between them named may be whole.
        return Ok(None);
    }
    for segment in segments {
        let bytes = match drive.dir.read(&layout::segment(segment)) {
            // Compacted meanwhile: what it said is in the index.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            read => read?,
        };
        let mut frames = Frames::new(&bytes, SEGMENT_HEADER_LEN);
        for frame in frames.by_ref() {
            if closing.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let Frame::Entry { entry, .. } = frame else { return Ok(None) };
            match entry {
                JournalEntry::Stored { row, sums: Some(_), .. } => {
                    if let BodyRef::Blob(digest) = row.record.body
                        && digests.contains(&digest)
                    {
                        named.insert(digest);
                    }
                }
                JournalEntry::Blob { digest, .. } if digests.contains(&digest) => {
                    named.insert(digest);
                }
                JournalEntry::BlobGone { digest } => {
                    named.remove(&digest);
                }
                _ => {}
            }
        }
        let tail = bytes.get(frames.intact_end()..).unwrap_or_default();
        let is_whole = decode_segment_header(&bytes).is_ok() || bytes.len() <= SEGMENT_HEADER_LEN;
        if !is_torn(tail) || !is_whole {
            return Ok(None);
        }
    }
    Ok(Some(named))
}

/// Whether neither memory nor index has the blob.
pub(super) fn is_unnamed(store: &Inner, drive: &Drive, digest: &Digest) -> bool {
    let pending = store.entries.lock().blobs.contains_key(digest);
    !pending && !store.index.has_blob(digest, drive.id)
}
