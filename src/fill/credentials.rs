//! What a request shows of itself to upstream, and who goes on with a fill when upstream does not take that of its leader
//! any more.

use std::sync::Arc;

use http::HeaderValue;
use http::header::AUTHORIZATION;
use parking_lot::Mutex;

use super::demand::Place;
use super::{TokenId, Want};
use crate::content::Record;

/// How many clients in turn may go on with one fill: when upstream takes none of so many, the fault is not theirs.
const MOST_REFUSED: usize = 8;

/// The token and the `Authorization` of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Credentials {
    token: Option<TokenId>,
    authorization: Option<HeaderValue>,
}

/// The requests of those clients of a flight that show other credentials than its leader.
#[derive(Default)]
pub(super) struct Others {
    wants: Mutex<Vec<(Arc<Place>, Want)>>,
}

/// The credentials that upstream has refused during one fill.
#[derive(Debug, Default)]
pub(super) struct Refused(Vec<Credentials>);

impl Credentials {
    pub(super) fn of(want: &Want) -> Self {
        Self { token: want.shown_token(), authorization: want.headers.get(AUTHORIZATION).cloned() }
    }

    /// The token that the request carries, if any.
    pub(super) fn token(&self) -> Option<TokenId> {
        self.token
    }
}

impl Others {
    /// A client has come that waits at `place`.
    pub(super) fn join(&self, place: &Arc<Place>, want: &Want) {
        self.wants.lock().push((Arc::clone(place), want.clone()));
    }

    /// The client has left.
    pub(super) fn leave(&self, place: &Arc<Place>) {
        self.wants.lock().retain(|(other, _)| !Arc::ptr_eq(other, place));
    }

    /// The request of a client that waits for the body of `record` and whose credentials were not `refused` so far.
    fn next(&self, refused: &Refused, record: &Record) -> Option<Want> {
        let wants = self.wants.lock();
        let is_new =
            |(_, want): &&(Arc<Place>, Want)| want.selects(record) && !refused.0.contains(&Credentials::of(want));
        wants.iter().find(is_new).map(|(_, want)| want.clone())
    }
}

impl Refused {
    /// Upstream does not take the credentials of `want` for the body of `record`. The request to go on with, if one of
    /// `others` may do better.
    pub(super) fn note(&mut self, want: &Want, record: &Record, others: &Others) -> Option<Want> {
        self.0.push(Credentials::of(want));
        if self.0.len() >= MOST_REFUSED { None } else { others.next(self, record) }
    }
}
