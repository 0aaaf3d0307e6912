//! The body of an answer as it arrives: how far it is, whether it ended as its framing says, and what becomes
//! of its connection then.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use crate::telemetry::Metrics;

use super::budget::{Spending, Standing};
use super::error::BodyError;
use super::framing::Framing;
use super::health::Outcome;
use super::plan::Source;
use super::pool::{Link, Pool};
use super::sources::Ticket;

/// How long the mark of the end is waited for when no more bytes may come: it follows the last of them at once.
const END_MARK: Duration = Duration::from_secs(1);

/// How often it is told that bytes come of a source.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// A body that is being received. Dropping it before its end closes the connection.
pub struct UpstreamBody {
    state: State,
    framing: Framing,
    received: u64,
    /// What has come and may not be given on yet.
    held: Bytes,
    /// What it spends of the budget, if it does.
    spending: Option<Spending>,
    /// Whether the budget may close in its middle.
    may_be_cut: bool,
    /// Until when its end is waited for, once the budget is closed.
    end_by: Option<Instant>,
    stall: Duration,
    /// Until when the first byte must be there.
    first_byte: Instant,
    /// When it was last told that something comes of its source.
    told: Instant,
    /// Whether its source was told that others may come first: then its silence is no fault.
    yields: bool,
    metrics: Arc<Metrics>,
}

enum State {
    Reading(Box<Reading>),
    Ended,
    Failed(BodyError),
}

struct Reading {
    incoming: Incoming,
    connection: Connection,
    ticket: Ticket,
}

/// The connection that carries a body, and where it goes afterwards.
pub(super) struct Connection {
    pub(super) link: Link,
    pub(super) source: Source,
    /// `None` when it must not be used again.
    pub(super) pool: Option<Arc<Pool>>,
}

/// Time limits of one body.
pub(super) struct BodyLimits {
    pub(super) first_byte: Instant,
    pub(super) stall: Duration,
    /// Whether the source was told that others may come first.
    pub(super) yields: bool,
}

impl UpstreamBody {
    pub(super) fn new(
        incoming: Incoming,
        framing: Framing,
        connection: Connection,
        ticket: Ticket,
        limits: &BodyLimits,
        spending: Option<Spending>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let reading = Box::new(Reading { incoming, connection, ticket });
        let mut body = Self {
            state: State::Reading(reading),
            framing,
            received: 0,
            held: Bytes::new(),
            spending,
            may_be_cut: false,
            end_by: None,
            stall: limits.stall,
            first_byte: limits.first_byte,
            told: Instant::now(),
            yields: limits.yields,
            metrics,
        };
        body.end_if_satisfied();
        body
    }

    /// The next bytes; `None` once the body has ended as its framing says. An error is final and is given again by
    /// every later call. May be dropped while waiting; nothing is lost. A wait for the budget is no silence of the source.
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        loop {
            if !self.held.is_empty() {
                let there = self.held.len();
                let granted = match &mut self.spending {
                    Some(spending) => spending.turn(there as u64).await,
                    None => there as u64,
                };
                let granted = usize::try_from(granted).unwrap_or(there).min(there);
                return Some(Ok(self.held.split_to(granted)));
            }
            let is_reading = self.may_be_cut && matches!(self.state, State::Reading(_));
            if is_reading && self.spending.as_ref().is_some_and(Spending::is_shut) {
                if self.is_at_its_end().await {
                    self.end();
                    return None;
                }
                let error = BodyError::OverBudget { received: self.received };
                return Some(Err(self.fail(error, None)));
            }
            let reading = match &mut self.state {
                State::Reading(reading) => reading,
                State::Ended => return None,
                State::Failed(error) => return Some(Err(*error)),
            };
            let limit = if self.received == 0 { self.first_byte } else { Instant::now() + self.stall };
            match timeout_at(limit, reading.incoming.frame()).await {
                // Trailers are dropped: nobody was promised any.
                Ok(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data()
                        && !bytes.is_empty()
                    {
                        if self.told.elapsed() >= TOLD_EVERY {
                            reading.ticket.gives();
                            self.told = Instant::now();
                        }
                        self.received = self.received.saturating_add(bytes.len() as u64);
                        self.metrics.upstream_bytes.inc_by(bytes.len() as u64);
                        self.spending.iter().for_each(|spending| spending.received(bytes.len() as u64));
                        self.held = bytes;
                        self.end_if_satisfied();
                    }
                }
                Ok(None) => {
                    if matches!(self.framing, Framing::Length(length) if length != self.received) {
                        let error = BodyError::Cut { received: self.received };
                        return Some(Err(self.fail(error, Some(Outcome::Cut))));
                    }
                    self.end();
                    return None;
                }
                Ok(Some(Err(error))) => {
                    let received = self.received;
                    let error = if is_malformed(&error) {
                        BodyError::Malformed { received }
                    } else {
                        BodyError::Cut { received }
                    };
                    return Some(Err(self.fail(error, Some(Outcome::Cut))));
                }
                Err(_elapsed) => {
                    let error = BodyError::Stalled { received: self.received };
                    return Some(Err(self.fail(error, (!self.yields).then_some(Outcome::Stall))));
                }
            }
        }
    }

    /// The bytes that [`UpstreamBody::next`] gives out next, if they are there by `until`; they stay. No bytes where a budget has a
    /// say in when they go on, be it without a limit now.
    pub async fn peek(&mut self, until: Instant) -> Bytes {
        if self.spending.as_ref().is_some_and(Spending::is_obeyed) {
            return Bytes::new();
        }
        // An error and the end are given again by each later call.
        if self.held.is_empty()
            && let Ok(Some(Ok(bytes))) = timeout_at(until, self.next()).await
        {
            // Some are left where a budget came up meanwhile.
            self.held = if self.held.is_empty() { bytes } else { [bytes, self.held.split_off(0)].concat().into() };
        }
        self.held.clone()
    }

    /// What is missing of it can be asked for again: so long a silence is too long then, and the budget may close in its
    /// middle. What has to come in one piece would be lost by that, and runs to its end.
    pub fn can_be_resumed(&mut self, silence: Duration) {
        self.stall = self.stall.min(silence);
        self.may_be_cut = true;
    }

    /// How much its bytes matter, where not all may come at once.
    pub fn standing(&self) -> Option<&Standing> {
        self.spending.as_ref().map(Spending::standing)
    }

    /// Whether its source was told that others may come first.
    pub fn yields(&self) -> bool {
        self.yields
    }

    /// Whether it is known to have no more than `most` bytes.
    pub fn is_within(&self, most: u64) -> bool {
        match self.framing {
            Framing::Empty => true,
            Framing::Length(length) => length <= most,
            Framing::Chunked | Framing::UntilClose => false,
        }
    }

    /// Body bytes received so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether the body has ended, and only the end of the connection said so: it may have been cut.
    pub fn ended_by_close(&self) -> bool {
        matches!(self.state, State::Ended) && self.framing == Framing::UntilClose
    }

    /// Reads up to `limit` bytes for nothing, so that the connection can be used again; gives up at `until`.
    pub async fn discard(mut self, limit: u64, until: Instant) {
        if matches!(self.framing, Framing::Length(length) if length > limit) {
            return;
        }
        let read = async {
            while let Some(Ok(_)) = self.next().await {
                if self.received > limit {
                    return;
                }
            }
        };
        // Late or not, the caller goes on.
        let _ = timeout_at(until, read).await;
    }

    /// Whether nothing of it is missing but the mark of its end, which costs no byte of the budget. May be dropped while
    /// waiting.
    async fn is_at_its_end(&mut self) -> bool {
        // Where a length tells it, it would have ended.
        let State::Reading(reading) = &mut self.state else { return false };
        if matches!(self.framing, Framing::Length(_)) {
            return false;
        }
        let until = *self.end_by.get_or_insert_with(|| Instant::now() + END_MARK);
        loop {
            match timeout_at(until, reading.incoming.frame()).await {
                Ok(None) => return true,
                Ok(Some(Ok(frame))) if frame.data_ref().is_none_or(Bytes::is_empty) => {}
                Ok(Some(_)) | Err(_) => return false,
            }
        }
    }

    /// The end is known before the connection says so when nothing can follow.
    fn end_if_satisfied(&mut self) {
        let satisfied = match self.framing {
            Framing::Empty => true,
            Framing::Length(length) => length == self.received,
            Framing::Chunked | Framing::UntilClose => false,
        };
        if satisfied {
            self.end();
        }
    }

    fn end(&mut self) {
        if let State::Reading(reading) = std::mem::replace(&mut self.state, State::Ended) {
            let Reading { incoming, connection, mut ticket } = *reading;
            drop(incoming);
            ticket.report(Outcome::Success);
            if let Some(pool) = connection.pool.filter(|_| self.framing != Framing::UntilClose) {
                pool.put(connection.source, connection.link);
            }
        }
    }

    fn fail(&mut self, error: BodyError, outcome: Option<Outcome>) -> BodyError {
        if let State::Reading(mut reading) = std::mem::replace(&mut self.state, State::Failed(error)) {
            let is_agreed = self.yields && matches!(error, BodyError::Stalled { .. });
            let is_fault = !is_agreed && !matches!(error, BodyError::OverBudget { .. });
            if is_fault {
                reading.ticket.doubt();
            }
            // A source that was cut in the middle is alive, and what it brought is kept.
            let outcome = outcome.filter(|outcome| *outcome != Outcome::Cut || self.received == 0);
            outcome.into_iter().for_each(|outcome| reading.ticket.report(outcome));
            tracing::debug!(source = %reading.connection.source, %error, "an upstream body broke");
            if is_fault {
                self.metrics.upstream_faults.with_label_values(&[error.as_str()]).inc();
            }
        }
        error
    }
}

impl fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Reading(_) => "reading",
            State::Ended => "ended",
            State::Failed(error) => error.as_str(),
        };
        f.debug_struct("UpstreamBody")
            .field("state", &state)
            .field("framing", &self.framing)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

/// Whether the bytes were wrong, rather than missing.
fn is_malformed(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData))
}
