//! The table of flights: at most one leader for a representation, and who follows it.
//!
//! No I/O here; what a leader does is in `lead` and `copy`, what becomes of flights whose resource changes in `parting`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use super::credentials::{Credentials, Others};
use super::demand::{Demands, Place, TO_THE_END, demand_of};
use super::passage::Passage;
use super::want::Answer;
use super::{FillError, Want};
use crate::content::{ByteRange, KeyHash};
use crate::decide::FirstAsked;
use crate::store::{Body, Entry, Partial};
use crate::telemetry::Metrics;
use crate::upstream::Urgency;

/// Followers that look for a circle at a time.
const SUSPICIONS: usize = 2;

/// What a flight has found out so far. It goes from `Pending` to one of the others once.
#[derive(Clone)]
pub(super) enum Head {
    /// No answer yet.
    Pending,
    /// The body lands in this partial.
    Filling(Arc<Entry>, Arc<Partial>),
    /// No drive has room for the body: it passes through the flight's window.
    Passing(Arc<Entry>),
    /// What is stored is current.
    Validated(Arc<Entry>),
    /// What is stored is not what it was when it was looked up.
    Changed,
    /// A short answer for all who wait.
    Answer(Arc<Answer>),
    /// The answer is for the leader's client alone.
    NotShared,
    /// The body has this many bytes, and the leader's client asked for a range behind them.
    Behind(u64),
    /// Nothing came.
    Failed(FillError),
}

/// How far a flight is from its end. It only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Requests may join.
    Open,
    /// It ends without a whole body: who comes now waits for the end and looks again.
    Closing,
    /// Its permit was dropped, and nobody writes for it any more.
    Over,
}

/// One fill under way.
pub(super) struct Flight {
    head: watch::Sender<Head>,
    stage: watch::Sender<Stage>,
    /// What the leader showed of itself: content that comes without a token is everybody's.
    credentials: Credentials,
    /// Those who showed something else.
    others: Others,
    clients: AtomicUsize,
    left: Notify,
    demands: Demands,
    outlook: watch::Sender<Outlook>,
    /// Status of the last answer before there was a head; 0 before the first.
    answered: AtomicU16,
    /// Places for those who find out whether it goes in a circle.
    suspicions: Arc<Semaphore>,
    /// Set when what it asked for may have changed meanwhile.
    pub(super) parted: AtomicBool,
    /// Set once no drive has room for the body, or for the rest of it.
    passage: OnceLock<Arc<Passage>>,
}

/// What can be said of the time to come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outlook {
    /// When the whole body will be there at the present rate.
    pub whole_by: Option<Instant>,
    /// No source could be asked after so many comebacks, and nothing has come for a while.
    pub down_after: Option<u64>,
    /// Nothing comes before this moment, as far as is known, since the budget is closed; and nothing has come for a while.
    pub shut_until: Option<Instant>,
}

/// All flights, by key. Several under one key are variants of it.
pub(super) struct FlightTable {
    pub(super) flights: Arc<Mutex<HashMap<KeyHash, Vec<Arc<Flight>>>>>,
    metrics: Arc<Metrics>,
}

/// What a request is to a flight.
pub(super) enum Role {
    /// It must start one; dropping the permit ends the flight.
    Lead(Permit, FlightGuard),
    /// There is one.
    Follow(FlightGuard),
    /// There is one, but it was started with another token.
    NeedsProof,
    /// There is one, but it has been given up: its end is to be awaited.
    Await(Arc<Flight>),
}

/// The leader's right to a flight. Dropped, the flight is over: a head still pending becomes a failure, and the next
/// request leads anew.
pub(super) struct Permit {
    pub(super) flight: Arc<Flight>,
    pub(super) flights: Arc<Mutex<HashMap<KeyHash, Vec<Arc<Flight>>>>>,
    key: KeyHash,
    metrics: Arc<Metrics>,
}

/// A client of a flight, counted until dropped.
pub struct FlightGuard {
    flight: Arc<Flight>,
    place: Arc<Place>,
}

impl FlightTable {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { flights: Arc::default(), metrics }
    }

    /// Joins the flight that will answer `want`, or starts one.
    pub(super) fn join(&self, want: &Want) -> Role {
        let mut flights = self.flights.lock();
        let listed = flights.entry(want.key.hash()).or_default();
        if let Some(flight) = listed.iter().find(|flight| flight.may_answer(want)) {
            // When all bytes are there, what is stored in a moment is judged anew for this request: it may want a
            // validation.
            if *flight.stage.borrow() != Stage::Open || flight.has_landed() {
                return Role::Await(Arc::clone(flight));
            }
            let token = flight.credentials.token();
            if token.is_some() && token != want.token && !want.proven {
                return Role::NeedsProof;
            }
            let guard = FlightGuard::new(flight, want.begin(), want.urgency());
            if !flight.asked_like(want) {
                flight.others.join(&guard.place, want);
            }
            return Role::Follow(guard);
        }
        let flight = Arc::new(Flight::new(Stage::Open, Credentials::of(want)));
        listed.push(Arc::clone(&flight));
        self.metrics.fills_active.inc();
        let guard = FlightGuard::new(&flight, want.begin(), want.urgency());
        let permit = Permit {
            flight,
            flights: Arc::clone(&self.flights),
            key: want.key.hash(),
            metrics: Arc::clone(&self.metrics),
        };
        Role::Lead(permit, guard)
    }
}

#[cfg(test)]
impl FlightTable {
    /// Number of clients of the only flight of `key`, if there is just one.
    pub(super) fn clients(&self, key: &crate::content::CacheKey) -> Option<usize> {
        match self.flights.lock().get(&key.hash()).map(Vec::as_slice) {
            Some([flight]) => Some(flight.clients.load(Ordering::Acquire)),
            _ => None,
        }
    }
}

#[cfg(test)]
impl FlightGuard {
    /// A client of a flight that nobody leads.
    pub(crate) fn of_no_flight() -> Self {
        let flight = Arc::new(Flight::new(Stage::Over, Credentials::default()));
        Self::new(&flight, FirstAsked::ToEnd(0), Urgency::Awaited)
    }
}

impl Flight {
    fn new(stage: Stage, credentials: Credentials) -> Self {
        Self {
            head: watch::Sender::new(Head::Pending),
            stage: watch::Sender::new(stage),
            credentials,
            others: Others::default(),
            clients: AtomicUsize::new(0),
            left: Notify::new(),
            demands: Demands::default(),
            outlook: watch::Sender::default(),
            answered: AtomicU16::new(0),
            suspicions: Arc::new(Semaphore::new(SUSPICIONS)),
            parted: AtomicBool::new(false),
            passage: OnceLock::new(),
        }
    }

    fn may_answer(&self, want: &Want) -> bool {
        match &*self.head.borrow() {
            Head::Pending => true,
            Head::Filling(entry, _) | Head::Passing(entry) => want.selects(&entry.record) && self.reaches(want, entry),
            Head::Validated(entry) => want.selects(&entry.record) && !want.refuses(&entry.record),
            Head::Changed | Head::Answer(_) | Head::NotShared | Head::Behind(_) | Head::Failed(_) => false,
        }
    }

    /// Whether the bytes that `want` asks for are going to come. A window has some, and goes on from there.
    pub(super) fn reaches(&self, want: &Want, entry: &Entry) -> bool {
        let Some(passage) = self.passage() else { return true };
        let begin = match want.begin() {
            FirstAsked::ToEnd(start) => start,
            FirstAsked::Within(range) => range.start(),
            FirstAsked::Suffix(count) => entry.record.length.unwrap_or(0).saturating_sub(count),
        };
        let partial = match &*self.head.borrow() {
            Head::Filling(_, partial) => Body::Partial(Arc::clone(partial)).present_until(begin),
            _ => begin,
        };
        want.asks_one_part() && want.has_its_rule(&entry.record) && passage.reaches(partial)
    }

    /// Places for followers that look whether what they wait for waits for them.
    pub(super) fn suspicions(&self) -> Arc<Semaphore> {
        Arc::clone(&self.suspicions)
    }

    /// The window that the body passes through, if no drive has room for it.
    pub(super) fn passage(&self) -> Option<&Arc<Passage>> {
        self.passage.get()
    }

    /// Whether every byte of the body is there.
    fn has_landed(&self) -> bool {
        match &*self.head.borrow() {
            Head::Filling(entry, partial) => entry.record.length == Some(partial.present_total()),
            _ => false,
        }
    }

    /// Whether `want` shows the credentials that this flight was started with.
    pub(super) fn asked_like(&self, want: &Want) -> bool {
        self.credentials == Credentials::of(want)
    }

    /// The head, once it is known.
    pub(super) async fn head(&self) -> Head {
        let mut receiver = self.head.subscribe();
        // The sender lives in `self`, so the channel cannot close while we wait.
        match receiver.wait_for(|head| !matches!(head, Head::Pending)).await {
            Ok(head) => head.clone(),
            Err(_) => Head::Failed(FillError::Abandoned),
        }
    }

    /// Resolves when the flight is over.
    pub(super) async fn over(&self) {
        // The sender lives in `self`, so the channel cannot close while we wait.
        let _ = self.stage.subscribe().wait_for(|stage| *stage == Stage::Over).await;
    }

    fn has_clients(&self) -> bool {
        self.clients.load(Ordering::Acquire) > 0
    }
}

impl Permit {
    /// Tells everybody who waits.
    pub(super) fn publish(&self, head: Head) {
        self.flight.head.send_replace(head);
    }

    /// The body, or the rest of it, passes through this window.
    pub(super) fn pass_through(&self, passage: &Arc<Passage>) {
        // Set only here, by the one leader, once.
        let _ = self.flight.passage.set(Arc::clone(passage));
    }

    /// Lets nobody join any more. To be called before a body is given up, so that nobody follows one that will not
    /// come.
    pub(super) fn close(&self) {
        let _joining = self.flights.lock();
        self.flight.stage.send_replace(Stage::Closing);
    }

    /// The same, unless `is_wanted` says of what clients wait for and what is owed that there is more to do.
    pub(super) fn close_unless(&self, is_wanted: impl FnOnce(&Demands) -> bool) -> bool {
        let _joining = self.flights.lock();
        let unused = !is_wanted(&self.flight.demands);
        if unused {
            self.flight.stage.send_replace(Stage::Closing);
        }
        unused
    }

    /// The source has answered. What is published comes of the last such answer.
    pub(super) fn answered(&self, status: StatusCode) {
        self.flight.answered.store(status.as_u16(), Ordering::Release);
    }

    /// What the clients wait for.
    pub(super) fn demands(&self) -> &Demands {
        &self.flight.demands
    }

    /// The clients that show other credentials than the leader.
    pub(super) fn others(&self) -> &Others {
        &self.flight.others
    }

    pub(super) fn has_clients(&self) -> bool {
        self.flight.has_clients()
    }

    /// Tells clients what to expect.
    pub(super) fn foresee(&self, outlook: Outlook) {
        self.flight.outlook.send_if_modified(|known| {
            let changed = *known != outlook;
            *known = outlook;
            changed
        });
    }

    /// The same, unless a client is there.
    pub(super) fn close_if_unused(&self) -> bool {
        let _joining = self.flights.lock();
        let unused = !self.flight.has_clients();
        if unused {
            self.flight.stage.send_replace(Stage::Closing);
        }
        unused
    }

    /// Resolves when the last client has left (at once when there is none).
    pub(super) async fn clients_left(&self) {
        loop {
            let left = self.flight.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if !self.flight.has_clients() {
                return;
            }
            left.await;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        if let Some(listed) = flights.get_mut(&self.key) {
            listed.retain(|flight| !Arc::ptr_eq(flight, &self.flight));
            if listed.is_empty() {
                flights.remove(&self.key);
            }
        }
        drop(flights);
        self.metrics.fills_active.dec();
        self.flight.head.send_if_modified(|head| {
            let pending = matches!(head, Head::Pending);
            if pending {
                *head = Head::Failed(FillError::Abandoned);
            }
            pending
        });
        self.flight.stage.send_replace(Stage::Over);
    }
}

impl FlightGuard {
    fn new(flight: &Arc<Flight>, begin: FirstAsked, urgency: Urgency) -> Self {
        flight.clients.fetch_add(1, Ordering::AcqRel);
        let place = flight.demands.join(demand_of(begin), urgency);
        Self { flight: Arc::clone(flight), place }
    }

    pub(super) fn flight(&self) -> Arc<Flight> {
        Arc::clone(&self.flight)
    }

    /// The client reads `range` of a body of `length` bytes from now on. Who reads to the end is owed the whole: it is
    /// a download, and others will want the same.
    pub fn reads(&self, range: ByteRange, length: Option<u64>) {
        let to_the_end = length.is_none_or(|length| range.end() >= length);
        let owed = if to_the_end { ByteRange::whole(TO_THE_END) } else { Some(range) };
        self.flight.demands.set(&self.place, range, owed);
    }

    /// The client reads `range` now, one of several.
    pub fn turns_to(&self, range: ByteRange) {
        self.flight.demands.set(&self.place, range, None);
    }

    /// The client has come to `position`.
    pub fn advance(&self, position: u64) {
        self.place.advance(position);
        self.flight.passage().into_iter().for_each(|passage| passage.taken());
    }

    /// The whole body is needed, whatever the client reads of it: to know whether its digest is right.
    pub fn needs_whole(&self) {
        if let Some(whole) = ByteRange::whole(TO_THE_END) {
            self.flight.demands.owe(whole);
        }
    }

    /// See [`Demands::leave_owed`].
    pub(super) fn leaves_owed(&self) -> bool {
        self.flight.demands.leave_owed(&self.place)
    }

    /// What the source said when the body was begun or taken up.
    pub fn answered(&self) -> Option<StatusCode> {
        StatusCode::from_u16(self.flight.answered.load(Ordering::Acquire)).ok()
    }

    /// What is to be expected of the flight; changes are told.
    pub fn outlook(&self) -> watch::Receiver<Outlook> {
        self.flight.outlook.subscribe()
    }
}

impl Drop for FlightGuard {
    fn drop(&mut self) {
        self.flight.demands.leave(&self.place);
        self.flight.others.leave(&self.place);
        if self.flight.clients.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.flight.left.notify_waiters();
        }
    }
}
