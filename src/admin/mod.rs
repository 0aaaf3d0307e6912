//! The admin listener: health, readiness, metrics and the summary. It reads state through [`Sources`] and changes
//! nothing.

mod health;
mod router;
mod server;
mod settings;
mod summary;

use std::fmt;
use std::sync::Arc;

pub use health::{NodeState, Readiness};
pub use server::serve;
pub use settings::{DEFAULT_PORT, Settings};

use crate::store::DriveUsage;
use crate::telemetry::Metrics;

/// What the answers are made from. Cheap to clone. Both functions are called on a thread where they may block, and
/// `/healthz` calls neither.
#[derive(Clone)]
pub struct Sources {
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// Whether the node can serve, asked at each request to `/readyz` and `/summary`.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// Use of each drive, asked at each request to `/summary`.
    pub drives: Arc<dyn Fn() -> Vec<DriveUsage> + Send + Sync>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}
