//! What a Delivery Optimization agent has of a file, and how fast it comes.

use std::collections::VecDeque;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::do_client::Outcome;
use super::pattern::Pattern;

/// Lowest speed in bytes per second, over the agent's patience.
const LOW_SPEED: f64 = 4000.0;

/// What came of a download.
#[derive(Debug)]
pub(crate) struct Download {
    pub(crate) outcome: Outcome,
    /// Bytes in its file.
    pub(crate) len: u64,
    pub(crate) sha256: [u8; 32],
    /// First byte of its file that is not the pattern's: of several versions, of that which it is longest.
    pub(crate) first_difference: Option<u64>,
    /// Which version the file is, wholly.
    pub(crate) version: Option<usize>,
    pub(crate) requests: u32,
    /// Requests that were answered by 5xx, or cut.
    pub(crate) failures: u32,
    /// From the first request to the first body byte.
    pub(crate) first_byte: Option<Duration>,
    pub(crate) elapsed: Duration,
}

/// The file of a running download: what was appended is hashed and compared, not kept.
pub(super) struct Appended {
    /// Each version with the first byte that is not its own.
    versions: Vec<(Pattern, Option<u64>)>,
    pub(super) len: u64,
    hash: Sha256,
    first_byte: Option<Instant>,
}

/// The low-speed rule: average of 5 ticks below 4000 B/s, for 20 ticks.
pub(super) struct SpeedWatch {
    tick: Duration,
    pub(super) next: Instant,
    ticks: VecDeque<u64>,
    pub(super) now: u64,
    slow: u32,
}

impl Appended {
    pub(super) fn new(versions: &[Pattern]) -> Self {
        let versions = versions.iter().map(|version| (*version, None)).collect();
        Self { versions, len: 0, hash: Sha256::new(), first_byte: None }
    }

    pub(super) fn append(&mut self, piece: &[u8]) {
        for (version, difference) in &mut self.versions {
            *difference = difference.or_else(|| version.first_difference(self.len, piece));
        }
        self.first_byte.get_or_insert_with(Instant::now);
        self.hash.update(piece);
        self.len += piece.len() as u64;
    }

    pub(super) fn into_download(self, outcome: Outcome, requests: u32, failures: u32, start: Instant) -> Download {
        let is_one = |(version, difference): &(Pattern, Option<u64>)| difference.is_none() && version.len == self.len;
        let longest = self.versions.iter().map(|(_, difference)| *difference).max_by_key(|d| d.unwrap_or(u64::MAX));
        Download {
            outcome,
            len: self.len,
            sha256: self.hash.finalize().into(),
            first_difference: longest.flatten(),
            version: self.versions.iter().position(is_one),
            requests,
            failures,
            first_byte: self.first_byte.map(|at| at - start),
            elapsed: start.elapsed(),
        }
    }
}

impl SpeedWatch {
    pub(super) fn new(patience: Duration) -> Self {
        let tick = patience / 20;
        Self { tick, next: Instant::now() + tick, ticks: VecDeque::new(), now: 0, slow: 0 }
    }

    /// To be called at the end of each tick.
    pub(super) fn is_too_slow(&mut self) -> bool {
        self.ticks.push_back(std::mem::take(&mut self.now));
        if self.ticks.len() > 5 {
            self.ticks.pop_front();
        }
        self.next += self.tick;
        let seconds = self.tick.as_secs_f64() * self.ticks.len() as f64;
        let slow = (self.ticks.iter().sum::<u64>() as f64) < LOW_SPEED * seconds;
        self.slow = if slow { self.slow + 1 } else { 0 };
        self.slow >= 20
    }
}

impl Download {
    /// Fails unless the file is the pattern, byte for byte.
    pub(crate) fn must_be(&self, pattern: Pattern, sha256: [u8; 32]) {
        assert_eq!(self.outcome, Outcome::Transferred, "{self:?}");
        assert_eq!((self.first_difference, self.len), (None, pattern.len), "{self:?}");
        assert_eq!(self.sha256, sha256, "{self:?}");
    }

    /// Whether the agent believes to have a file, and it is none of the versions.
    pub(crate) fn is_wrong(&self) -> bool {
        self.outcome == Outcome::Transferred && self.version.is_none()
    }

    /// Whether the agent has a file that is one of the versions, wholly.
    pub(crate) fn is_right(&self) -> bool {
        self.outcome == Outcome::Transferred && self.version.is_some()
    }
}
