//! [`DriveUsage`]: how a drive stands and what is on it, as admin and start-up tell it.

use std::path::PathBuf;
use std::time::Duration;

use super::Store;
use super::drive::Drive;
use super::drives::Slot;
use super::health::Reason;

/// Use of one drive.
#[derive(Debug, Clone)]
pub struct DriveUsage {
    /// Its directory.
    pub path: PathBuf,
    /// Most bytes that content may take.
    pub quota: u64,
    /// Real bytes taken. Grows after start until everything that was there is counted.
    pub used: u64,
    /// Complete blobs.
    pub blobs: u64,
    /// Why it is out of service, if it is.
    pub out: Option<Outage>,
    /// Parts of its journal that could not be read: what they said is lost.
    pub journal_gaps: u64,
}

/// Why a drive is out of service, and for how long.
#[derive(Debug, Clone)]
pub struct Outage {
    /// Why.
    pub reason: Reason,
    /// What more there is to say, for people.
    pub text: Option<String>,
    /// For how long.
    pub lasting: Duration,
}

impl DriveUsage {
    /// Whether it takes new content.
    pub fn in_service(&self) -> bool {
        self.out.is_none()
    }
}

impl Store {
    /// Use of each drive, for admin and start-up.
    pub fn usage(&self) -> Vec<DriveUsage> {
        self.inner
            .drives
            .slots()
            .iter()
            .map(|slot| slot.drive().map_or_else(|| absent(slot), |drive| of(drive)))
            .collect()
    }
}

fn of(drive: &Drive) -> DriveUsage {
    let outage =
        |(reason, since): (Reason, std::time::Instant)| Outage { reason, text: None, lasting: since.elapsed() };
    DriveUsage {
        path: drive.settings.path.clone(),
        quota: drive.settings.quota,
        used: drive.used(),
        blobs: drive.blobs(),
        out: drive.pulse.out().map(outage),
        journal_gaps: drive.journal_gaps(),
    }
}

fn absent(slot: &Slot) -> DriveUsage {
    let absence = slot.absence();
    let out = Outage { reason: absence.reason, text: Some(absence.text), lasting: absence.since.elapsed() };
    DriveUsage {
        path: slot.settings.path.clone(),
        quota: slot.settings.quota,
        used: 0,
        blobs: 0,
        out: Some(out),
        journal_gaps: 0,
    }
}
