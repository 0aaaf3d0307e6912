//! Whether what is asked for comes back to a cache that the request has passed. What becomes of that is the caller's business.

use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, timeout_at};

use super::client::{FetchRequest, Upstream};
use super::error::FetchError;
use super::fetch::Ask;
use super::middleman;
use super::plan::plan;

/// So long before its deadline the question is given up, without a word about the parent.
const MARGIN: Duration = Duration::from_secs(1);

impl Upstream {
    /// Asks the parent that a request for this goes to first, and says why it gets nothing if that is a circle of parents. An
    /// origin is not asked.
    pub async fn leads_back(&self, request: FetchRequest) -> Option<FetchError> {
        if request.policy.budgeted && self.is_shut() {
            return None;
        }
        // A real circle answers at once; a slow parent is no reason to think ill of it, and is left before its time is over.
        let (deadline, wrong) = (request.deadline, request.wrong.clone());
        let latest = deadline.checked_sub(MARGIN)?;
        let mut sources = plan(&self.inner.settings, &request.origin, &request.policy, &request.avoid);
        self.inner.sources.arrange(&mut sources, wrong.as_ref(), Instant::now().into_std());
        let mut ask = Ask::new(FetchRequest { interims: None, ..request });
        for source in sources.iter().take_while(|source| source.parent.is_some()) {
            let Ok(result) = timeout_at(latest, self.attempt(&mut ask, source, deadline)).await else { return None };
            self.count(&result);
            match result {
                Err(FetchError::KnownDown { .. }) => {}
                Err(error @ FetchError::MiddlemanRefused { status: StatusCode::LOOP_DETECTED, .. }) => {
                    return Some(error);
                }
                Ok(response) if middleman::met_a_circle(response.status, &response.headers) => {
                    let (host, status) = (source.to_string(), StatusCode::LOOP_DETECTED);
                    return Some(FetchError::MiddlemanRefused { host, status, has_no_rule: false });
                }
                Ok(_) | Err(_) => return None,
            }
        }
        None
    }
}
