//! Settings of the upstream side.

use std::path::PathBuf;
use std::time::Duration;

use super::budget::BudgetSettings;
use super::identity::TlsFiles;
use super::plan::Parent;
use super::proxy::Proxies;

/// How sources are asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Caches nearer to the origins, best first. They are asked before an origin is.
    pub parents: Vec<Parent>,
    /// May the origin be asked directly. Without it (and without parents) only stored content is served.
    pub direct: bool,
    /// The proxies in front of origins.
    pub proxies: Proxies,
    /// Whom TLS trusts, and who we are.
    pub tls: TlsFiles,
    /// Time limits of attempts and requests.
    pub timeouts: Timeouts,
    /// What may come, and when.
    pub budget: BudgetSettings,
    /// Where the bytes of the day are written down.
    pub budget_file: Option<PathBuf>,
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

/// A source that cannot be reached is looked for this often in the time that a connection may take. What a link that was away
/// swallowed is not sent again for seconds (RFC 6298 section 2), and of a window of half a minute each of them counts: so one
/// attempt does not wait for another.
const LOOKS: u32 = 6;
/// However short a connection may take.
const SHORTEST_LOOK: Duration = Duration::from_millis(50);

impl Settings {
    /// How often a source that cannot be reached is looked for, and a parent asked again that has nothing yet.
    pub fn look_every(&self) -> Duration {
        (self.timeouts.connect / LOOKS).max(SHORTEST_LOOK)
    }

    /// Whether anybody may be asked.
    pub fn may_fetch(&self) -> bool {
        self.direct || !self.parents.is_empty()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            parents: Vec::new(),
            direct: true,
            proxies: Proxies::default(),
            tls: TlsFiles::default(),
            timeouts: Timeouts::default(),
            budget: BudgetSettings::default(),
            budget_file: None,
        }
    }
}
