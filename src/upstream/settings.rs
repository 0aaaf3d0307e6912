//! Settings of the upstream side.

use std::time::Duration;

/// How sources are asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// May the origin be asked directly. Without it (and without parents) only stored content is served.
    pub direct: bool,
    /// Time limits of attempts and requests.
    pub timeouts: Timeouts,
}

/// Time limits of the upstream side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the connection attempt to a connection that can be used, TLS included.
    pub connect: Duration,
    /// From the sent request to the head of the answer, and from there to its first body byte.
    pub first_byte: Duration,
    /// Longest pause between two body bytes.
    pub stall: Duration,
    /// From the last byte of the client's request head to the first body byte of its answer, over all
    /// sources and attempts.
    pub request: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            first_byte: Duration::from_secs(5),
            stall: Duration::from_secs(12),
            request: Duration::from_secs(14),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self { direct: true, timeouts: Timeouts::default() }
    }
}
