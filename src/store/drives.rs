//! [`Drives`]: the configured drives, in the order of the configuration: those that are here, and the places of those that
//! could not be opened and may still come.

use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;

use super::drive::Drive;
use super::health::Reason;
use super::settings::DriveSettings;

/// All drives. Going through it gives those that are here.
pub(super) struct Drives {
    slots: Vec<Slot>,
    arrivals: Mutex<Arrivals>,
}

/// The place of a drive.
pub(super) struct Slot {
    pub(super) settings: DriveSettings,
    drive: OnceLock<Arc<Drive>>,
    absence: Mutex<Absence>,
}

/// Why a drive is not here.
#[derive(Debug, Clone)]
pub(super) struct Absence {
    pub(super) reason: Reason,
    /// For people.
    pub(super) text: String,
    pub(super) since: Instant,
}

#[derive(Default)]
struct Arrivals {
    closed: bool,
    /// Commit threads of those that came.
    committers: Vec<(Arc<Drive>, JoinHandle<()>)>,
}

impl Slot {
    /// Of a drive that is here, or of one that is not.
    pub(super) fn new(settings: DriveSettings, drive: Result<Arc<Drive>, Absence>) -> Self {
        let nothing = Absence { reason: Reason::Absent, text: String::new(), since: Instant::now() };
        let (here, absence) = match drive {
            Ok(drive) => (OnceLock::from(drive), nothing),
            Err(absence) => (OnceLock::new(), absence),
        };
        Self { settings, drive: here, absence: Mutex::new(absence) }
    }

    /// The drive, if it is here.
    pub(super) fn drive(&self) -> Option<&Arc<Drive>> {
        self.drive.get()
    }

    /// Why it is not here.
    pub(super) fn absence(&self) -> Absence {
        self.absence.lock().clone()
    }

    /// It is still not here; says whether for another reason than before.
    pub(super) fn is_still_absent(&self, reason: Reason, text: String) -> bool {
        let mut absence = self.absence.lock();
        let is_news = absence.text != text;
        (absence.reason, absence.text) = (reason, text);
        is_news
    }
}

impl Drives {
    /// The places in order.
    pub(super) fn new(slots: Vec<Slot>) -> Self {
        Self { slots, arrivals: Mutex::default() }
    }

    /// Every place.
    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The drives that are here.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Drive>> {
        self.slots.iter().filter_map(Slot::drive)
    }

    /// A drive takes its place; `false` when the store is closing, or the place is taken. `started` starts its commit
    /// thread.
    pub(super) fn arrive(
        &self,
        slot: &Slot,
        drive: &Arc<Drive>,
        started: impl FnOnce() -> std::io::Result<JoinHandle<()>>,
    ) -> std::io::Result<bool> {
        let mut arrivals = self.arrivals.lock();
        if arrivals.closed || slot.drive.get().is_some() {
            return Ok(false);
        }
        let committer = started()?;
        arrivals.committers.push((Arc::clone(drive), committer));
        Ok(slot.drive.set(Arc::clone(drive)).is_ok())
    }

    /// No drive comes any more; the commit threads of those that came.
    pub(super) fn close(&self) -> Vec<(Arc<Drive>, JoinHandle<()>)> {
        let mut arrivals = self.arrivals.lock();
        arrivals.closed = true;
        std::mem::take(&mut arrivals.committers)
    }
}

impl<'a> IntoIterator for &'a Drives {
    type Item = &'a Arc<Drive>;
    type IntoIter = std::iter::FilterMap<std::slice::Iter<'a, Slot>, fn(&'a Slot) -> Option<&'a Arc<Drive>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.slots.iter().filter_map(Slot::drive)
    }
}

#[cfg(test)]
impl std::ops::Index<usize> for Drives {
    type Output = Arc<Drive>;

    fn index(&self, number: usize) -> &Arc<Drive> {
        self.slots[number].drive().unwrap()
    }
}
