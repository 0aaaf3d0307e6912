//! Older versions of a response: when length or validator changed upstream, what was stored before stays for those who
//! have a part of it. It is read like anything else and goes like anything else when room is needed; nobody writes it, and
//! requests that have no part of it never meet it.
//!
//! A bounded number stays for each variant of a key, for a bounded time. A blob's row moves to a place of its own in the
//! journal and the index; a partial body's map says that it is one. Both survive restarts and a lost state directory.

use std::sync::Arc;
use std::time::Duration;

use super::Store;
use super::entries::{Entry, Target};
use super::inner::Inner;
use super::journal_entry::Row;
use super::partial::Partial;
use super::queue::{Change, Older};
use super::table::Table;
use crate::clock;
use crate::content::{Record, UnixMillis};

/// Most older versions of one variant of a key.
const KEPT: usize = 2;
/// Longest time that an older version stays.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

impl Entry {
    /// Whether it has stayed long enough, by the wall clock. One that says less than when it was superseded keeps it.
    pub(super) fn is_outlived(&self, now: UnixMillis) -> bool {
        self.superseded.is_some_and(|at| now.since(at) >= LIFETIME)
    }
}

impl Store {
    /// What is stored is not any more what its URL means (RFC 9111 section 4.4). It goes; a body that is being written
    /// becomes an older version, for those who have a part of it.
    pub fn invalidate(&self, entry: &Arc<Entry>) {
        let mut table = self.inner.entries.lock();
        match entry.partial() {
            Some(partial) if partial.has_writer() => self.inner.supersede_alone(&mut table, entry),
            _ => self.inner.remove(&mut table, entry),
        }
    }
}

impl Inner {
    /// Makes a response an older version. The caller queues what is returned for a blob, on the blob's drive.
    pub(super) fn supersede(&self, table: &mut Table, entry: &Arc<Entry>) -> Option<Older> {
        if entry.superseded.is_some() || entry.is_gone() {
            return None;
        }
        let at = UnixMillis::from(clock::now_for_deletion());
        match &entry.target {
            Target::Blob(life) => {
                let target = Target::Blob(Arc::clone(life));
                let older = Entry::new(entry.as_row().superseded_at(at), entry.drive, entry.serial, target);
                let left = self.entries.hide_row(table, entry);
                let now = self.entries.put_row(table, &older);
                Some(Older { entry: older, at, rows: [left, now] })
            }
            // The caller's entry may be from before.
            Target::Partial(partial) if partial.state.lock().superseded.is_some() => None,
            Target::Partial(partial) => {
                self.replace(table, entry, partial, entry.as_row().superseded_at(at));
                None
            }
        }
    }

    /// The same for a response whose successor is on another drive, or has not come yet.
    pub(super) fn supersede_alone(&self, table: &mut Table, entry: &Arc<Entry>) {
        if let Some(older) = self.supersede(table, entry)
            && let Some(drive) = self.drive(entry.drive)
        {
            drive.queue.push(Change::Superseded { older });
        }
    }

    /// Gives a partial body another entry, and notes that in its map.
    fn replace(&self, table: &mut Table, entry: &Entry, partial: &Arc<Partial>, row: Row) {
        let visible = table.partials.contains_key(&partial.id());
        if !visible || partial.is_failed() {
            return;
        }
        let record = row.record.clone();
        let new = Entry::new(row, entry.drive, entry.serial, Target::Partial(Arc::clone(partial)));
        {
            let mut state = partial.state.lock();
            state.entry = Arc::downgrade(&new);
            state.superseded = new.superseded;
        }
        self.entries.replace_partial(table, partial.id(), &new);
        rewrite_map(partial, record);
    }

    /// Makes room for the next older version of the variant of `newest`, and lets go what has outlived its time.
    pub(super) fn bound_older(&self, table: &mut Table, newest: &Entry) {
        let now = UnixMillis::from(clock::now_for_deletion());
        let known = self.entries.known(table, newest.record.key.hash());
        let variant = newest.record.variant();
        let is_older = |entry: &&Arc<Entry>| {
            entry.superseded.is_some() && entry.record.variant() == variant && entry.record.key == newest.record.key
        };
        let older = known.iter().filter(is_older).enumerate();
        let go = older.filter(|(number, entry)| *number >= KEPT || entry.is_outlived(now)).map(|(_, entry)| entry);
        go.for_each(|entry| self.remove(table, entry));
        self.sweep_partials(table, now);
    }

    /// Partial bodies take room that nobody else can use, so those that have outlived their time go soon; of blobs
    /// there is only a row, until their room is needed.
    fn sweep_partials(&self, table: &mut Table, now: UnixMillis) {
        if !table.is_due_for_sweep() {
            return;
        }
        let outlived = |partial: &Arc<Partial>| {
            let entry = partial.state.lock().entry.upgrade()?;
            entry.is_outlived(now).then_some(entry)
        };
        let go: Vec<_> = table.partials.values().filter_map(outlived).collect();
        go.iter().for_each(|entry| self.remove(table, entry));
    }

    /// Gives an older version its place back: upstream has that version again, as `record` says. What has the place
    /// now becomes the older one. `None` when it is gone or was not an older one.
    pub(super) fn revive(&self, entry: &Arc<Entry>, mut record: Record) -> Option<Arc<Entry>> {
        let mut table = self.entries.lock();
        let known = self.entries.known(&table, entry.record.key.hash());
        let there = known.iter().find(|other| other.is_same(entry) && other.superseded.is_some());
        let older = there.filter(|older| !older.is_gone()).cloned()?;
        record.body = older.record.body;
        record.length = older.record.length.or(record.length);
        let same_variant = |other: &&Arc<Entry>| {
            other.superseded.is_none() && other.record.variant() == record.variant() && other.record.key == record.key
        };
        let in_place: Vec<_> = known.iter().filter(same_variant).cloned().collect();
        let row = Row { record: record.clone(), birth: older.birth, superseded: None };
        let serial = self.entries.next_serial();
        let revived = match &older.target {
            Target::Partial(partial) => {
                for other in &in_place {
                    if is_worthless(other) {
                        self.remove(&mut table, other);
                    } else {
                        self.supersede_alone(&mut table, other);
                    }
                }
                let new = Entry::new(row, older.drive, serial, Target::Partial(Arc::clone(partial)));
                {
                    let mut state = partial.state.lock();
                    state.entry = Arc::downgrade(&new);
                    state.superseded = None;
                }
                self.entries.replace_partial(&mut table, partial.id(), &new);
                rewrite_map(partial, record);
                new
            }
            Target::Blob(life) => {
                let drive = self.drive(older.drive)?;
                self.remove(&mut table, &older);
                let target = Target::Blob(Arc::clone(life));
                let new = Entry::new(row, older.drive, serial, target);
                let left = self.make_way(&mut table, &new, &in_place);
                let row = self.entries.put_row(&mut table, &new);
                drive.queue.push(Change::Stored { row, entry: Arc::clone(&new), older: left });
                new
            }
        };
        self.bound_older(&mut table, &revived);
        Some(revived)
    }

    /// What is stored in the place of `new` goes, or becomes an older version if it is another one. Returns the one
    /// that becomes so with the same entry of the journal as `new`.
    pub(super) fn make_way(&self, table: &mut Table, new: &Entry, in_place: &[Arc<Entry>]) -> Option<Older> {
        let mut left = None;
        for other in in_place {
            let same_row = other.partial().is_none() && other.drive == new.drive;
            match is_worthless(other) || other.version().is_same(&new.version()) {
                // The new row replaces it.
                true if same_row => {}
                true => self.remove(table, other),
                false if same_row => left = self.supersede(table, other),
                false => self.supersede_alone(table, other),
            }
        }
        left
    }
}

/// Nobody goes on with a part of an error, and it must not push out what somebody can go on with.
fn is_worthless(entry: &Entry) -> bool {
    !entry.record.status.is_success()
}

fn rewrite_map(partial: &Arc<Partial>, record: Record) {
    let job = Arc::clone(partial);
    drop(partial.drive.syncs.run(move || {
        if let Err(error) = job.rewrite_map(&record) {
            job.drive.failed("write a block map anew", &error);
        }
    }));
}
