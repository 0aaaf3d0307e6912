//! HEAD for what is not stored, or not current: it is asked for upstream, and no fill begins.

use std::sync::Arc;

use http::Method;

use super::ask::Ask;
use super::handler::Handler;
use super::outcome::Outcome;
use super::pass;
use crate::decide::{CacheStatus, FwdReason};
use crate::store::Entry;

impl Handler {
    /// Asks upstream for the head alone, and no fill begins. It may freshen what is stored.
    pub(super) async fn head(&self, ask: &Ask, stored: Option<Arc<Entry>>, reason: FwdReason) -> Outcome {
        match self.fill.pass(&ask.want(None, None), Method::HEAD, None).await {
            Ok(response) if response.status.is_server_error() => {
                let status = CacheStatus::forwarded(reason, Some(response.status.as_u16()));
                match self.stale(ask, status).await {
                    Some(outcome) => outcome,
                    None => pass::through(ask, response, reason),
                }
            }
            Ok(response) => {
                if let Some(entry) = stored {
                    self.freshen(ask, &entry, &response);
                }
                pass::through(ask, response, reason)
            }
            Err(error) => self.stale_or_failed(ask, reason, &error).await,
        }
    }
}
