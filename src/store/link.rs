//! A key gets a response whose body is stored already, as the blob of another URL: nothing is written but a row. Whose word
//! it takes for that is `fill`'s business; here it is only seen to that the blob is there and as long as it should be.

use std::io;
use std::sync::Arc;

use super::Store;
use super::blob::Blob;
use super::entries::{Entry, Target};
use super::inner::Inner;
use super::journal_entry::Row;
use super::queue::Change;
use super::stored::Whereabouts;
use crate::content::{BodyRef, Digest, PartialId, Record};

impl Store {
    /// Stores `record` with the blob `digest` as its body: what is stored under its key makes way, as for a body that was
    /// fetched. `None` when the blob is not stored on a drive in service, or has another length than the record says.
    pub async fn link(&self, record: Record, digest: Digest) -> Option<Arc<Entry>> {
        self.inner.wait_ready().await;
        let length = record.length?;
        let birth = new_birth().ok()?;
        let record = Record { body: BodyRef::Blob(digest), ..record };
        // A blob that went, or came, while it was looked at is looked at again; that happens rarely, and never for ever.
        for _ in 0..8 {
            let gone = self.inner.entries.lock().gone;
            let blob = self.find(digest).await.filter(|blob| blob.length() == length)?;
            let row = Row { record: record.clone(), birth, superseded: None };
            if let Some(entry) = self.inner.link(row, &blob, gone) {
                self.inner.touch(blob.life());
                return Some(entry);
            }
        }
        None
    }

    /// The blob, if its file is there.
    async fn find(&self, digest: Digest) -> Option<Arc<Blob>> {
        let place = self.inner.whereabouts(digest);
        let Whereabouts::OnDrive { drive, .. } = &place else { return self.inner.look(place) };
        let (drive, store) = (Arc::clone(drive), Arc::clone(&self.inner));
        drive.pool.run(move || store.look(place)).await.ok().flatten()
    }
}

impl Inner {
    /// `None` when a blob went since `gone` was read: it may be this one.
    fn link(&self, row: Row, blob: &Arc<Blob>, gone: u64) -> Option<Arc<Entry>> {
        let drive = blob.drive();
        let mut table = self.entries.lock();
        if table.gone != gone || blob.life().is_gone() || !drive.in_service() {
            return None;
        }
        let known = self.entries.known(&table, row.record.key.hash());
        let record = &row.record;
        let is_in_place = |other: &&Arc<Entry>| {
            other.superseded.is_none() && other.record.variant() == record.variant() && other.record.key == record.key
        };
        let (in_place, others): (Vec<_>, Vec<_>) = known.iter().cloned().partition(|other| is_in_place(&other));
        let new = Entry::new(row, drive.id, self.entries.next_serial(), Target::Blob(Arc::clone(blob.life())));
        let is_same = |other: &&Arc<Entry>| {
            other.superseded.is_some()
                && other.record.key == new.record.key
                && other.record.variant() == new.record.variant()
                && other.version().is_same(&new.version())
        };
        others.iter().filter(is_same).for_each(|other| self.remove(&mut table, other));
        let older = self.make_way(&mut table, &new, &in_place);
        let row = self.entries.put_row(&mut table, &new);
        drive.queue.push(Change::Stored { row, entry: Arc::clone(&new), older });
        self.bound_older(&mut table, &new);
        Some(new)
    }
}

/// Of bytes that came in no body of this key.
fn new_birth() -> io::Result<PartialId> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(PartialId(u64::from_be_bytes(random)))
}
