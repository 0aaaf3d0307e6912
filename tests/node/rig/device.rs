//! A device: the Device Update agent above its Delivery Optimization agent. When a download has made no progress for
//! its time, it throws the file away and starts anew.

use super::do_client::{DoAgent, Outcome};
use super::do_file::Download;
use super::pattern::Pattern;

/// How often a download is started again, at most.
const RESTARTS: u32 = 4;

/// What came of a file in the end.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// The last download of it.
    pub(crate) last: Download,
    pub(crate) restarts: u32,
    /// Over all downloads of it.
    pub(crate) requests: u32,
    /// Requests that were answered by 5xx, or cut, over all downloads of it.
    pub(crate) failures: u32,
}

/// Downloads like [`DoAgent::download_any`]; pauses happen in the first attempt only.
pub(crate) async fn deliver(
    agent: &DoAgent,
    host: &str,
    target: &str,
    versions: &[Pattern],
    pauses: &[u64],
) -> Delivery {
    let mut last = agent.download_any(host, target, versions, pauses).await;
    let (mut restarts, mut requests, mut failures) = (0, last.requests, last.failures);
    while last.outcome == Outcome::NoProgress && restarts < RESTARTS {
        last = agent.download_any(host, target, versions, &[]).await;
        (restarts, requests, failures) = (restarts + 1, requests + last.requests, failures + last.failures);
    }
    Delivery { last, restarts, requests, failures }
}
