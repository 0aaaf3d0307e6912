//! Watches the system clock while a node runs: says when it is not believed, shows it in the metrics, and keeps the time for
//! the next process.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{self, Distrust};
use crate::telemetry::Metrics;

/// How often the clock is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the time is kept, in looks: it costs a small write.
const KEEP_EVERY: u32 = 3600;

/// Looks at the clock for as long as it is polled. The first look is over when this returns a future.
pub(super) fn watch(state: PathBuf, metrics: Arc<Metrics>) -> impl Future<Output = ()> + Send {
    clock::recall(&state);
    let mut told = None;
    tell(&mut told, clock::look(), &metrics);
    async move {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut looks: u32 = 0;
        loop {
            ticks.tick().await;
            tell(&mut told, clock::look(), &metrics);
            if looks.is_multiple_of(KEEP_EVERY) {
                keep(state.clone()).await;
            }
            looks = looks.wrapping_add(1);
        }
    }
}

/// Keeps the time. A state directory that cannot be written to is told of by those who need it more.
async fn keep(state: PathBuf) {
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || clock::keep(&state)).await {
        tracing::debug!(%error, "the time cannot be kept for the next start");
    }
}

fn tell(told: &mut Option<Distrust>, now: Option<Distrust>, metrics: &Metrics) {
    for reason in Distrust::ALL {
        metrics.clock_untrusted.with_label_values(&[reason.as_str()]).set(i64::from(now == Some(reason)));
    }
    if *told == now {
        return;
    }
    *told = now;
    match now {
        Some(reason) => tracing::warn!(
            clock = "untrusted",
            reason = reason.as_str(),
            "the clock of this machine is not believed: {}; nothing is deleted on its word until it is set right",
            reason.text()
        ),
        None => tracing::info!(clock = "trusted", "the clock of this machine is believed again"),
    }
}
