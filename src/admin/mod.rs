//! The admin listener: health, readiness, metrics and the summary, and for those with the token the API. It reads state
//! through [`Sources`]; only the API changes something.

mod api;
mod health;
mod router;
mod server;
mod settings;
mod summary;
mod token;

use std::fmt;
use std::sync::Arc;

pub use health::{NodeState, Readiness};
pub use server::serve;
pub use settings::{DEFAULT_PORT, Settings};
pub use token::read as read_token;

use crate::store::{DriveUsage, PinTarget, Store};
use crate::telemetry::Metrics;

/// What the answers are made from. Cheap to clone. The functions are called on a thread where they may block, and
/// `/healthz` calls none.
#[derive(Clone)]
pub struct Sources {
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// Brings gauges up to date that time alone changes, called at each request to `/metrics`.
    pub refresh: Arc<dyn Fn() + Send + Sync>,
    /// Whether the node can serve, asked at each request to `/readyz` and `/summary`.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// Use of each drive, asked at each request to `/summary`.
    pub drives: Arc<dyn Fn() -> Vec<DriveUsage> + Send + Sync>,
    /// Where pins are kept; without one `/api/v1/pins` is not offered.
    pub pins: Option<PinDesk>,
}

/// Where pins are kept, and what people's words for their targets mean.
#[derive(Clone)]
pub struct PinDesk {
    /// The store that keeps them.
    pub store: Store,
    /// What a URL or `sha256:…` names.
    pub target: Arc<ReadTarget>,
}

/// What a text names; or what is wrong with it, and the remedy.
pub type ReadTarget = dyn Fn(&str) -> Result<PinTarget, String> + Send + Sync;

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}
