//! Settings of the store.

use std::path::PathBuf;

/// Where content is kept and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Directory for what can be made anew: the mirror of the journals, which version clients were given.
    pub state: PathBuf,
    /// The drives, at least one.
    pub drives: Vec<DriveSettings>,
    /// Block size of new bodies in bytes: a power of two from 64 KiB to 16 MiB.
    pub block_size: u32,
    /// Memory for small bodies in bytes.
    pub memory: u64,
    /// Largest body in bytes that is kept in memory.
    pub memory_body: u64,
    /// Memory in bytes for the windows of bodies that no drive has room for.
    pub window_memory: u64,
    /// Most blobs that are kept open, one descriptor each; no more than a tenth of the descriptor limit in any case.
    pub open_blobs: usize,
    /// How long a verified block of a file that did not change counts as verified.
    pub reverify: std::time::Duration,
    /// Bytes per second at which everything that is stored is read and compared; 0 is never.
    pub scrub_rate: u64,
    /// Time from the begin of one such pass to the begin of the next.
    pub scrub_every: std::time::Duration,
    /// Time after which an operation on a drive that has not ended takes the drive out of service.
    pub drive_timeout: std::time::Duration,
    /// Bytes per second that are removed when a quota is below what is stored; 0 is all at once.
    pub shrink_rate: u64,
    /// Time from one probe of a drive to the next.
    pub probe_every: std::time::Duration,
}

/// One drive: a directory with a quota of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriveSettings {
    /// The directory.
    pub path: PathBuf,
    /// Most bytes that content may take there, in real blocks.
    pub quota: u64,
    /// Bytes that must stay free on its file system.
    pub min_free: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            state: PathBuf::from("./data/state"),
            drives: vec![DriveSettings {
                path: PathBuf::from("./data/drive1"),
                quota: 10_000_000_000,
                min_free: 1_000_000_000,
            }],
            block_size: 1024 * 1024,
            memory: 64 * 1024 * 1024,
            memory_body: 16 * 1024,
            window_memory: 128 * 1024 * 1024,
            open_blobs: 16_384,
            reverify: std::time::Duration::from_secs(24 * 3600),
            scrub_rate: 4_000_000,
            scrub_every: std::time::Duration::from_secs(30 * 24 * 3600),
            drive_timeout: std::time::Duration::from_secs(8),
            shrink_rate: 20_000_000,
            probe_every: std::time::Duration::from_secs(2),
        }
    }
}
