//! Whether there is a connection to each parent: looked at from the start on, and whenever nobody has heard of one for a while.
//! So `/readyz` and the metrics tell how things stand before a device has to find out, and the first request finds a connection.
//! Who is found to be away is looked for by `comeback`; what an attempt says of a source is `health`'s business.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::client::{Inner, Upstream};
use super::comeback::says_no;
use super::error::FetchError;
use super::health::Condition;
use super::plan::{ParentKind, Source};

/// Of whom nobody has heard for so long is looked at. A connection costs a packet or two, with TLS some thousand bytes.
const EVERY: Duration = Duration::from_secs(60);
/// How often that is gone through.
const TICK: Duration = Duration::from_secs(5);
/// So many attempts in a row without success are no accident.
const ATTEMPTS: usize = 2;

/// How a parent stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentState {
    /// Its URL, without user and password.
    pub url: String,
    /// What kind it is.
    pub kind: ParentKind,
    /// Whether it can be asked.
    pub condition: Condition,
    /// Whether it is asked after the others, since it gave wrong bytes for several contents.
    pub is_lowered: bool,
    /// How long nothing has come of it; `None` when nothing ever did.
    pub silence: Option<Duration>,
}

impl Upstream {
    /// How each parent stands, in the order in which they are asked.
    pub fn parents(&self) -> Vec<ParentState> {
        let now = Instant::now().into_std();
        let lowered = self.inner.sources.lowered(now);
        let state = |source: Source| ParentState {
            url: source.peer.to_string(),
            kind: source.parent.unwrap_or(ParentKind::ConnectedCache),
            condition: self.inner.sources.condition(&source, now),
            is_lowered: lowered.contains(&source),
            silence: self.inner.sources.silence(&source, now),
        };
        self.inner.settings.parents.iter().map(Source::parent).map(state).collect()
    }

    /// Whether nobody can be reached of the origins that were asked lately.
    pub fn origins_are_away(&self) -> bool {
        self.inner.sources.origins_are_away(Instant::now().into_std())
    }

    /// Takes renewed files of `upstream.tls` as long as this lives.
    pub fn watch_files(&self) -> impl Future<Output = ()> + use<> {
        self.inner.connector.watch_files()
    }

    /// Looks after the parents as long as this lives.
    pub fn look_out(&self) -> impl Future<Output = ()> + use<> {
        look_out(Arc::downgrade(&self.inner))
    }
}

async fn look_out(inner: Weak<Inner>) {
    let mut looked: HashMap<Source, Instant> = HashMap::new();
    while let Some(inner) = inner.upgrade() {
        let upstream = Upstream { inner };
        // What the budget keeps closed is not opened for this.
        if !upstream.is_shut() {
            let (now, sources) = (Instant::now(), &upstream.inner.sources);
            let is_due = |source: &Source| {
                let is_unheard = sources.silence(source, now.into_std()).is_none_or(|time| time >= EVERY);
                let was_looked_at = looked.get(source).is_some_and(|at| now.saturating_duration_since(*at) < EVERY);
                sources.take_doubt(source) || (is_unheard && !was_looked_at)
            };
            let parents = upstream.inner.settings.parents.iter().map(Source::parent);
            let due: Vec<Source> = parents.filter(is_due).collect();
            looked.extend(due.iter().map(|source| (source.clone(), now)));
            join_all(due.into_iter().map(|parent| upstream.look_at(parent))).await;
        }
        drop(upstream);
        sleep(TICK).await;
    }
}

impl Upstream {
    /// Whether there is a connection to a parent, unless somebody looks for one, or a password that was wrong would be shown.
    async fn look_at(&self, parent: Source) {
        let sources = &self.inner.sources;
        for attempt in 1..=ATTEMPTS {
            if sources.is_unreachable(&parent) || (sources.is_refused(&parent) && !sources.may_have_mended(&parent)) {
                return;
            }
            let limit = Instant::now() + self.inner.settings.timeouts.connect;
            match self.inner.connector.connect(&parent, limit).await {
                Ok(link) => {
                    self.inner.pool.put(parent.clone(), link);
                    return sources.note_accepted(&parent);
                }
                // No fault of the parent's.
                Err(FetchError::ConnectFailed { own: true, .. } | FetchError::AddressRefused { .. }) => return,
                // Known.
                Err(FetchError::TlsFailed { .. }) if sources.is_refused(&parent) => return,
                Err(error) if says_no(&error) => return sources.note_refused(&parent, &error),
                Err(error) => {
                    tracing::debug!(source = %parent, %error, "a parent cannot be reached");
                    if attempt == ATTEMPTS {
                        sources.note_away(&parent);
                        self.look_for(&parent);
                    }
                }
            }
        }
    }
}
