//! From a miss to bytes on disk: one leader per representation asks upstream, everybody else follows.
//!
//! Lives here: who leads and who follows, what the answer of upstream means for the store, copying it in, and
//! what happens when clients leave. Does not live here: how a source is asked (`upstream`), whether an answer may
//! be stored or served (`decide`), where bytes lie (`store`), what a client is told (`serve`).

mod again;
mod answer;
mod arriving;
mod avoid;
mod by_digest;
mod circle;
mod copy;
mod credentials;
mod demand;
mod error;
mod fields;
mod flight;
mod giver;
mod judge;
mod known;
mod lead;
mod mend;
mod part_check;
mod parting;
mod passage;
mod patience;
mod rate;
mod resume;
mod schedule;
mod slide;
mod sliding;
mod stream;
mod want;
mod write;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::RANGE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use moka::sync::Cache;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

pub use arriving::{Arrived, Arriving};
pub use error::FillError;
pub use flight::{FlightGuard, Outlook};
pub use giver::Answerable;
pub use mend::MendError;
pub use want::{Answer, Obtained, TokenId, Want};

/// An answer that is passed through to one client, its framing and its body.
pub use crate::upstream::{
    FetchResponse as PassedThrough, Framing as PassedFraming, RequestBody as PassedBody, UpstreamBody as Through,
};

use crate::content::{Abandon, CacheKey, Digest, FillMode, KeyHash};
use crate::decide;
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::upstream::{FetchResponse, RequestBody, Source, Subject, Upstream, request_loops};

pub use crate::upstream::{FetchError, Interims, Redirects, Toll, is_for_all, named_by, time_left};
use demand::TO_THE_END;
use flight::{FlightTable, Head, Role};
use giver::Giver;
use mend::Mending;
use part_check::HeldRoom;
use passage::WindowMemory;
use patience::{LONGEST_PAUSE, Patience};

/// How long a key whose answer could not be shared is fetched by each client for itself, so that clients do not
/// queue behind one another for answers that none of them can use.
const UNSHARED_MEMORY: Duration = Duration::from_secs(10);

/// How long a key that cannot be had in ranges is fetched whole.
const WHOLE_MEMORY: Duration = Duration::from_secs(600);
/// Two changes of version within this time are too many for ranges.
const CHANGE_MEMORY: Duration = Duration::from_secs(60);
/// How long wrong content of a source is remembered, and how often it may be wrong in that time.
const MISMATCH_MEMORY: Duration = Duration::from_secs(60);
const MISMATCHES: u32 = 3;
/// Keys of which such things are remembered.
const REMEMBERED: u64 = 65_536;
/// How soon a refresh sees that its body is not stored but passed on.
const LOOK: Duration = Duration::from_millis(500);

/// Handle on all fills. Cheap to clone.
#[derive(Clone)]
pub struct Fill {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    upstream: Upstream,
    redirects: Arc<dyn Redirects>,
    metrics: Arc<Metrics>,
    pseudonym: Arc<str>,
    flights: FlightTable,
    unshared: Cache<KeyHash, ()>,
    /// Keys whose source does no ranges, or wrong ones.
    no_ranges: Cache<KeyHash, ()>,
    /// Keys that are fetched whole.
    whole: Cache<KeyHash, ()>,
    /// Keys whose version has just changed.
    changes: Cache<KeyHash, ()>,
    /// Keys whose content was not what its digest says, and how often.
    mismatches: Cache<KeyHash, u32>,
    /// Keys whose content no trusted parent has by its digest.
    not_by_digest: Cache<KeyHash, ()>,
    /// Who gave content that was not what its digest says: asked after the others.
    wrong_sources: Cache<KeyHash, Source>,
    mending: Mending,
    /// Memory for parts that are checked before they are given out.
    held_room: HeldRoom,
    /// Memory for bodies that no drive has room for.
    windows: Arc<WindowMemory>,
}

impl Inner {
    /// Whether the source is asked for ranges.
    fn asks_ranges(&self, want: &Want) -> bool {
        let key = want.key.hash();
        want.policy.fill == FillMode::Ranged && !self.whole.contains_key(&key) && !self.no_ranges.contains_key(&key)
    }

    /// Whether the content has been wrong so often that it is not fetched at present.
    fn is_untrusted(&self, want: &Want) -> bool {
        self.mismatches.get(&want.key.hash()).is_some_and(|count| count >= MISMATCHES)
    }

    /// Who is asked last, since it gave wrong content.
    fn wrong_source(&self, want: &Want) -> Option<Source> {
        self.wrong_sources.get(&want.key.hash())
    }

    /// When a source is asked again after a failure. A parent that has nothing yet may have it at any moment, as its own link
    /// comes back: what it is asked for is what it uses its link for.
    fn patience(&self) -> Patience {
        let settings = self.upstream.settings();
        let longest = if settings.parents.is_empty() { LONGEST_PAUSE } else { settings.look_every() };
        Patience::new(Instant::now(), longest.min(LONGEST_PAUSE))
    }

    /// Content turned out not to be what `subject` says.
    fn note_mismatch(&self, want: &Want, giver: &Giver, subject: Subject) {
        let key = want.key.hash();
        giver.first().into_iter().for_each(|giver| self.wrong_sources.insert(key, giver.clone()));
        giver.only().into_iter().for_each(|giver| self.upstream.gave_wrong(giver, subject));
        let count = self.mismatches.get(&key).unwrap_or(0);
        self.mismatches.insert(key, count.saturating_add(1));
    }
}

impl Fill {
    /// Fills `store` from `upstream`; `redirects` judges where an origin may send us (the origin rules).
    pub fn new(
        store: Store,
        upstream: Upstream,
        redirects: Arc<dyn Redirects>,
        pseudonym: Arc<str>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let flights = FlightTable::new(Arc::clone(&metrics));
        let windows = WindowMemory::new(store.window_memory());
        let inner = Inner {
            store,
            upstream,
            redirects,
            metrics,
            pseudonym,
            flights,
            unshared: memory(UNSHARED_MEMORY),
            no_ranges: memory(WHOLE_MEMORY),
            whole: memory(WHOLE_MEMORY),
            changes: memory(CHANGE_MEMORY),
            mismatches: memory(MISMATCH_MEMORY),
            not_by_digest: memory(UNSHARED_MEMORY),
            wrong_sources: memory(MISMATCH_MEMORY),
            mending: Mending::new(),
            held_room: HeldRoom::new(),
            windows,
        };
        Self { inner: Arc::new(inner) }
    }

    /// From the end of a request's head to the first body byte of its answer, at most.
    pub fn request_time(&self) -> Duration {
        self.inner.upstream.settings().timeouts.request
    }

    /// How often a source could be reached again so far, or the budget opened. What a flight says of sources that are down is
    /// of the time before if it knows of fewer.
    pub fn comebacks(&self) -> u64 {
        *self.inner.upstream.comebacks().borrow()
    }

    /// Whether the request has passed through this cache before (RFC 8586 section 2, RFC 9110 section 7.6.3).
    pub fn is_loop(&self, headers: &HeaderMap) -> bool {
        request_loops(headers, &self.inner.pseudonym)
    }

    /// Gets the representation that `want` asks for: by leading a flight, by following one, or alone when its
    /// answer cannot be shared. Returns as soon as the head is known, at the latest at the deadline of `want`;
    /// the flight goes on without its clients as its policy says.
    pub async fn obtain(&self, want: Want) -> Obtained {
        let deadline = want.deadline;
        match tokio::time::timeout_at(deadline, self.obtain_unbounded(want)).await {
            Ok(obtained) => obtained,
            Err(_) => Obtained::Failed(FillError::Deadline),
        }
    }

    async fn obtain_unbounded(&self, want: Want) -> Obtained {
        // A follower whose request turns out to select another variant tries again, as a leader or behind
        // another flight. Each round ends one flight's claim on it, so few are needed.
        for _ in 0..8 {
            if self.inner.unshared.contains_key(&want.key.hash()) {
                return self.alone(&want).await;
            }
            match self.inner.flights.join(&want) {
                Role::Lead(permit, guard) => {
                    let (exclusive, response) = oneshot::channel();
                    let flight = guard.flight();
                    let task = lead::run(Arc::clone(&self.inner), want.clone(), permit, None, exclusive);
                    tokio::spawn(task);
                    return match flight.head().await {
                        Head::NotShared => match response.await {
                            // The fill asked for the whole, but this client alone is left, and it wants a part.
                            Ok(whole) if whole.status == StatusCode::OK && want.headers.contains_key(RANGE) => {
                                drop(whole);
                                self.alone(&want).await
                            }
                            Ok(response) => Obtained::Through(Box::new(response)),
                            Err(_) => self.alone(&want).await,
                        },
                        head => settled(head, guard, false),
                    };
                }
                Role::Follow(guard) => match self.followed(&guard, &want).await {
                    Head::NotShared if guard.flight().asked_like(&want) => return self.alone(&want).await,
                    Head::Behind(length)
                        if guard.flight().asked_like(&want) && decide::is_behind(&want.headers, length) =>
                    {
                        return Obtained::Behind { length };
                    }
                    // Asked with other credentials, or for another range: what came of it says nothing about this request.
                    Head::NotShared | Head::Behind(_) => {}
                    // Another variant: the next round passes this flight by.
                    Head::Filling(entry, _) | Head::Passing(entry) | Head::Validated(entry)
                        if !want.selects(&entry.record) => {}
                    // It is current for another host with this key, which has no such rule.
                    Head::Validated(entry) if want.refuses(&entry.record) => {}
                    // What passes has left behind, or does not come to, what this request asks for.
                    Head::Filling(entry, _) | Head::Passing(entry) if !guard.flight().reaches(&want, &entry) => {}
                    // Its fill has just ended before its end.
                    Head::Filling(_, partial)
                        if !partial.has_writer() && !partial.is_complete() && guard.flight().passage().is_none() =>
                    {
                        let flight = guard.flight();
                        drop(guard);
                        flight.over().await;
                        return Obtained::Changed;
                    }
                    head => return settled(head, guard, true),
                },
                Role::Await(flight) => {
                    flight.over().await;
                    return Obtained::Changed;
                }
                Role::NeedsProof => return Obtained::NeedsProof,
            }
        }
        self.alone(&want).await
    }

    /// Brings what is stored up to date while nobody waits for it (RFC 5861 section 3), unless that is going on already. A new
    /// body is fetched to its end; an answer that may not be shared is dropped.
    pub fn refresh(&self, want: Want) {
        let Role::Lead(permit, guard) = self.inner.flights.join(&want) else { return };
        let inner = Arc::clone(&self.inner);
        // All of it is wanted, and nobody stands before a byte of it.
        guard.needs_whole();
        guard.advance(TO_THE_END);
        tokio::spawn(async move {
            let (exclusive, nobody) = oneshot::channel();
            drop(nobody);
            let mut leading = pin!(lead::run(inner, want, permit, None, exclusive));
            // Of a body that is not stored nobody here takes anything: it is for others, if there are any.
            let flight = guard.flight();
            let mut guard = Some(guard);
            loop {
                tokio::select! {
                    () = &mut leading => return,
                    () = sleep(LOOK), if guard.is_some() => drop(guard.take_if(|_| flight.passage().is_some())),
                }
            }
        });
    }

    /// Has what begins by this brought to its end, though its client has gone: as much as that wanted. Of a body that is not
    /// stored nobody here takes anything.
    pub async fn finish(&self, obtained: Obtained, abandon: Abandon) {
        let Obtained::Filling { partial, guard, .. } = obtained else { return };
        // One is enough for all, and none where a fill goes on without clients.
        if !guard.leaves_owed() || abandon == Abandon::Complete {
            return;
        }
        while guard.flight().passage().is_none() && timeout(LOOK, partial.wait(TO_THE_END)).await.is_err() {}
    }

    /// Passes a request on without storing the answer: methods other than GET, and answers nobody may share.
    ///
    /// # Errors
    /// When no source answered before the deadline of `want`.
    pub async fn pass(
        &self,
        want: &Want,
        method: Method,
        body: Option<RequestBody>,
    ) -> Result<FetchResponse, FillError> {
        self.ask(want, method, fields::for_pass(want), body).await
    }

    /// Stores an answer that was got for this client, if it may be shared, as the answer to a GET that `want` stands for. What
    /// is missing of its body when it breaks off is asked for as usual.
    pub async fn adopt(&self, want: Want, response: FetchResponse) -> Obtained {
        let Role::Lead(permit, guard) = self.inner.flights.join(&want) else {
            return Obtained::Through(Box::new(response));
        };
        let (exclusive, alone) = oneshot::channel();
        let flight = guard.flight();
        tokio::spawn(lead::run(Arc::clone(&self.inner), want, permit, Some(response), exclusive));
        match flight.head().await {
            Head::NotShared => match alone.await {
                Ok(response) => Obtained::Through(Box::new(response)),
                Err(_) => Obtained::Failed(FillError::Abandoned),
            },
            head => settled(head, guard, false),
        }
    }

    /// What is on its way under `key` is not for requests that come from now on: they are fetched for anew.
    pub fn part_from(&self, key: &CacheKey) {
        self.inner.flights.part_from(key.hash());
    }

    /// Whose fault it is if an answer that is passed on is not what it should be, by the operator's word if `rule` tells it.
    pub fn answerable(&self, key: &CacheKey, rule: Option<Digest>, response: &FetchResponse) -> Answerable {
        let subject = rule.map_or_else(|| Subject::Key(key.hash()), Subject::Digest);
        Answerable { upstream: self.inner.upstream.clone(), source: response.source.clone(), subject }
    }

    /// Connects to a host for the tunnel that a request with the fields `received` asks for; what passes through it is never
    /// stored.
    ///
    /// # Errors
    /// When the host may not or cannot be reached.
    pub async fn connect(
        &self,
        host: Arc<str>,
        port: u16,
        allow_private: bool,
        received: &HeaderMap,
    ) -> Result<(TcpStream, Toll), FetchError> {
        self.inner.upstream.connect(host, port, allow_private, received).await
    }

    /// Asks upstream whether it accepts this request's token, with at most one byte of transfer.
    ///
    /// # Errors
    /// When no source answered in time: the proof is missing, not refused.
    pub async fn prove(&self, want: &Want) -> Result<StatusCode, FillError> {
        let mut headers = fields::for_fetch(want);
        let status = match self.ask(want, Method::HEAD, headers.clone(), None).await {
            Ok(response) => response.status,
            // Whoever refuses HEAD, and be it somebody in between.
            Err(error) => error.status().filter(|status| *status == StatusCode::METHOD_NOT_ALLOWED).ok_or(error)?,
        };
        if status != StatusCode::METHOD_NOT_ALLOWED && status != StatusCode::NOT_IMPLEMENTED {
            return Ok(status);
        }
        headers.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
        match self.ask(want, Method::GET, headers, None).await?.status {
            // An empty body has no first byte, but it was looked at.
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(StatusCode::OK),
            status => Ok(status),
        }
    }

    async fn ask(
        &self,
        want: &Want,
        method: Method,
        headers: HeaderMap,
        body: Option<RequestBody>,
    ) -> Result<FetchResponse, FillError> {
        let request = want.request(method, headers, body, want.deadline);
        self.inner.upstream.fetch(request, &*self.inner.redirects).await.map_err(FillError::from)
    }

    async fn alone(&self, want: &Want) -> Obtained {
        match self.pass(want, Method::GET, None).await {
            Ok(response) => Obtained::Through(Box::new(response)),
            Err(error) => Obtained::Failed(error),
        }
    }
}

fn memory<T: Clone + Send + Sync + 'static>(time: Duration) -> Cache<KeyHash, T> {
    Cache::builder().max_capacity(REMEMBERED).time_to_live(time).build()
}

fn settled(head: Head, guard: FlightGuard, collapsed: bool) -> Obtained {
    match head {
        Head::Filling(entry, partial) => Obtained::Filling { entry, partial, guard, collapsed },
        Head::Passing(entry) => Obtained::Passing { entry, guard, collapsed },
        Head::Validated(entry) => Obtained::Validated { entry, answered: guard.answered(), collapsed },
        Head::Changed => Obtained::Changed,
        Head::Answer(answer) => Obtained::Answer { answer, collapsed },
        Head::Behind(length) => Obtained::Behind { length },
        Head::Failed(error) => Obtained::Failed(error),
        // `head()` never returns `Pending`, and both callers handle `NotShared` before they come here.
        Head::Pending | Head::NotShared => Obtained::Failed(FillError::Abandoned),
    }
}

#[cfg(test)]
pub(crate) mod tests;
