//! Caches that wait for one another: each has a flight for the same content, and asks the next one, whose own flight that
//! request joins. None of those requests meets its own name, and all would wait until their time is over.
//!
//! Only who was asked by another cache can be part of such a circle. After a while it asks the same for the head alone, in the
//! name of all whom the request has passed: heads join no flight, so that one that comes back is known to at once.

use std::future::pending;
use std::time::Duration;

use http::Method;
use tokio::time::sleep;

use super::flight::{FlightGuard, Head};
use super::{Fill, Want, fields};
use crate::upstream::has_passed_a_cache;

/// So long there is no head before it is asked why. Most sources have one sooner.
const SUSPECT: Duration = Duration::from_secs(3);

impl Fill {
    /// The head of a flight that `want` follows, once it is known; a failure when the flight waits for whom `want` came from.
    pub(super) async fn followed(&self, guard: &FlightGuard, want: &Want) -> Head {
        let flight = guard.flight();
        tokio::select! {
            biased;
            head = flight.head() => head,
            failed = self.circle(guard, want) => failed,
        }
    }

    /// Resolves when the request has turned out to go in a circle.
    async fn circle(&self, guard: &FlightGuard, want: &Want) -> Head {
        if !has_passed_a_cache(&want.headers) {
            return pending().await;
        }
        sleep(SUSPECT).await;
        // Few of those who follow are enough to find out; a circle answers at once.
        let Ok(_place) = guard.flight().suspicions().acquire_owned().await else { return pending().await };
        let request = want.request(Method::HEAD, fields::for_pass(want), None, want.deadline);
        match self.inner.upstream.leads_back(request).await {
            Some(error) => {
                tracing::info!(key = %want.key, %error, "a cache that asks for this is waited for with the same");
                Head::Failed(error.into())
            }
            // What else comes of it the flight learns, too.
            None => pending().await,
        }
    }
}
