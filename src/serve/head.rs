//! HEAD for what is not stored, or not current: it is asked for upstream, and no fill begins.

use std::sync::Arc;

use http::Method;
use tokio::time::timeout;

use super::ask::Ask;
use super::handler::Handler;
use super::outcome::Outcome;
use super::pass;
use super::stale::{SILENT, silent};
use crate::decide::{CacheStatus, FwdReason};
use crate::fill::Want;
use crate::store::Entry;

impl Handler {
    /// Asks upstream for the head alone, and no fill begins. It may freshen what is stored.
    pub(super) async fn head(&self, ask: &Ask, stored: Option<Arc<Entry>>, reason: FwdReason) -> Outcome {
        let stands_in = stored.as_ref().is_some_and(|entry| self.stands_in(ask, entry)) && !self.wants_it_anew(ask);
        let (fill, want) = (self.fill.clone(), Want { stands_in, ..ask.want(None, None) });
        let mut passing = Box::pin(async move { fill.pass(&want, Method::HEAD, None).await });
        let early = if stands_in { timeout(SILENT, &mut passing).await.ok() } else { None };
        if stands_in
            && early.is_none()
            && let Some(outcome) = self.stale(ask, silent(reason)).await
        {
            // What comes of it tells of its source.
            tokio::spawn(passing);
            return outcome;
        }
        let passed = match early {
            Some(passed) => passed,
            None => passing.await,
        };
        match passed {
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
