//! Which version of a resource a request gets: the current one, an older one that is stored still, or none.
//!
//! The rule is `decide::choose`'s, the memory of who was given what is the store's. Here they meet the request: before what
//! is current is served or asked for, and once more when bytes are about to leave, since a validation or a fill may have
//! brought another version meanwhile. Requests that ask for the whole, or from byte 0, get what is current and are noted.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{IF_RANGE, RANGE};
use http::{Method, StatusCode};

use super::ask::Ask;
use super::deliver::{self, Delivery};
use super::handler::{Handler, Step};
use super::outcome::{Outcome, Part};
use super::{rescue, respond};
use crate::content::Version;
use crate::decide::{self, CacheStatus, Choice, Decision, Resume, UnderRule};
use crate::fill::{PassedFraming, PassedThrough};
use crate::store::{Entry, Gift};
use crate::telemetry::RequestResult;

/// Why a resume is not answered; the value of `reason` in the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// The version that the client has is not stored, and what is current is another one.
    Absent,
    /// It is, but not all bytes of the range are.
    Incomplete,
    /// The client may have one of several versions.
    Ambiguous,
}

impl Refusal {
    fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "version-absent",
            Self::Incomplete => "version-incomplete",
            Self::Ambiguous => "version-ambiguous",
        }
    }
}

/// A client whose versions are remembered, and what it asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    pub(super) address: IpAddr,
    /// Set when the client may have bytes before the range that it asks for, and does not say of which version.
    pub(super) resume: Option<Resume>,
}

impl Handler {
    /// What becomes of a request that is not to be answered with what is current: it is for an older version, or cannot
    /// be answered. `None` for all others, and when upstream may have what the client needs.
    pub(super) async fn instead_of_current(
        &self,
        ask: &mut Ask,
        current: Option<&Arc<Entry>>,
        decision: &Decision,
    ) -> Option<Step> {
        if ask.method != Method::GET || !ask.headers.contains_key(RANGE) {
            return None;
        }
        let client = ask.client?;
        if ask.headers.contains_key(IF_RANGE) {
            return self.named(ask, current).await.map(Step::Done);
        }
        let resume = client.resume?;
        let stored = self.stored_versions(ask, current).await?;
        let refusal = match self.choose(ask, client, &resume, &versions(&stored, None)) {
            Choice::Any => return None,
            Choice::Stored(0) if current.is_some() => return None,
            Choice::Stored(place) => return Some(Step::Done(self.of_version(ask, &stored, place).await)),
            // Upstream is asked anyway, and may have it again.
            Choice::Absent if !matches!(decision, Decision::Serve { .. } | Decision::ServeMeanwhile { .. }) => {
                return None;
            }
            Choice::Absent => Refusal::Absent,
            Choice::Ambiguous => Refusal::Ambiguous,
        };
        Some(Step::Done(self.refuse(ask, refusal)))
    }

    /// What is current turned out to be of another version than the client has, just before it was sent.
    pub(super) async fn other_version(&self, ask: &mut Ask) -> Outcome {
        let client = ask.client.and_then(|client| Some((client, client.resume?)));
        let Some((client, resume)) = client else { return rescue::unavailable("version") };
        let Some(stored) = self.stored_versions(ask, None).await else { return rescue::unavailable("store") };
        match self.choose(ask, client, &resume, &versions(&stored, None)) {
            Choice::Stored(place) => self.of_version(ask, &stored, place).await,
            // What is stored is not what was about to be sent.
            Choice::Any | Choice::Absent => self.refuse(ask, Refusal::Absent),
            Choice::Ambiguous => self.refuse(ask, Refusal::Ambiguous),
        }
    }

    /// Whether bytes of `entry` go on with what the client has, if it comes for the rest of something. `length` is that
    /// of the body when the entry does not tell it.
    pub(super) async fn continues(&self, ask: &Ask, entry: &Arc<Entry>, length: Option<u64>) -> bool {
        let Some((client, resume)) = ask.client.and_then(|client| Some((client, client.resume?))) else { return true };
        if ask.method != Method::GET || entry.record.status != StatusCode::OK {
            return true;
        }
        let Some(stored) = self.stored_versions(ask, Some(entry)).await else { return false };
        let versions = versions(&stored, length);
        let first = versions.first().copied();
        match self.choose(ask, client, &resume, &versions) {
            Choice::Any => true,
            Choice::Stored(place) => versions.get(place).zip(first).is_some_and(|(one, first)| one.is_same(&first)),
            Choice::Absent | Choice::Ambiguous => false,
        }
    }

    /// Lets bytes of `entry` leave, and notes that the client was given them. Of an answer with the whole body the gift
    /// is to be told how it ended.
    ///
    /// # Errors
    /// [`Delivery::OtherVersion`] when they do not go on with what the client has.
    pub(super) async fn release(
        &self,
        ask: &Ask,
        entry: &Arc<Entry>,
        part: &Part,
        length: Option<u64>,
    ) -> Result<Option<Gift>, Delivery> {
        let Some(client) = ask.client.filter(|_| ask.method == Method::GET) else { return Ok(None) };
        if entry.record.status != StatusCode::OK {
            return Ok(None);
        }
        if !self.continues(ask, entry, length).await {
            return Err(Delivery::OtherVersion);
        }
        let whole = match part {
            Part::Whole => true,
            Part::Range(range) => range.start() == 0 && Some(range.end()) == length,
            Part::Multipart { .. } => false,
        };
        Ok(self.store.give(client.address, &ask.content.key, &entry.version(), whole).await)
    }

    /// The same for an answer of upstream that is passed on.
    ///
    /// # Errors
    /// The answer in its place, when it does not go on with what the client has, or nothing tells that it does.
    pub(super) async fn release_passed(&self, ask: &Ask, response: &PassedThrough) -> Result<Option<Gift>, Outcome> {
        let Some(client) = ask.client.filter(|_| ask.method == Method::GET) else { return Ok(None) };
        let Some((version, whole)) = passed_version(response) else { return Ok(None) };
        if let Some(resume) = client.resume.filter(|_| response.status == StatusCode::PARTIAL_CONTENT) {
            match self.choose(ask, client, &resume, &[version]) {
                Choice::Any | Choice::Stored(_) => {}
                Choice::Absent => return Err(self.refuse(ask, Refusal::Absent)),
                Choice::Ambiguous => return Err(self.refuse(ask, Refusal::Ambiguous)),
            }
        }
        Ok(self.store.give(client.address, &ask.content.key, &version, whole).await)
    }

    /// The part that `If-Range` asks for, when it names an older version that is stored and has it.
    async fn named(&self, ask: &mut Ask, current: Option<&Arc<Entry>>) -> Option<Outcome> {
        let is_named = |entry: &Arc<Entry>| decide::names_version(&ask.headers, &respond::as_sent(entry));
        if current.is_some_and(is_named) {
            return None;
        }
        let older = self.stored_versions(ask, current).await?;
        let named: Vec<_> = older.into_iter().filter(is_named).collect();
        for entry in named {
            if let Some(outcome) = self.send(ask, &entry).await {
                return Some(outcome);
            }
        }
        None
    }

    /// Serves the version at `place` from whichever of its bodies has all bytes of the range.
    async fn of_version(&self, ask: &mut Ask, stored: &[Arc<Entry>], place: usize) -> Outcome {
        let chosen = stored.get(place).map(|entry| entry.version());
        let same = |entry: &&Arc<Entry>| chosen.is_some_and(|chosen| entry.version().is_same(&chosen));
        for entry in stored.iter().filter(same) {
            if let Some(outcome) = self.send(ask, entry).await {
                return outcome;
            }
        }
        self.refuse(ask, Refusal::Incomplete)
    }

    /// Serves what is stored, as it is; nothing when it cannot be.
    async fn send(&self, ask: &mut Ask, entry: &Arc<Entry>) -> Option<Outcome> {
        if entry.record.token_protected
            && let Err(outcome) = self.prove(ask, Some(entry)).await
        {
            return Some(outcome);
        }
        match deliver::stored(self, ask, entry, CacheStatus::hit(), RequestResult::Hit).await {
            Delivery::Done(outcome) => Some(outcome),
            Delivery::Unusable | Delivery::Missing | Delivery::OtherVersion => None,
        }
    }

    /// What is stored for this request, `first` before everything else; `None` when the store does not answer in time.
    async fn stored_versions(&self, ask: &Ask, first: Option<&Arc<Entry>>) -> Option<Vec<Arc<Entry>>> {
        let known = tokio::time::timeout_at(ask.deadline, self.store.known(&ask.content.key)).await.ok()?;
        let mut stored = Vec::from_iter(first.cloned());
        let others = known.entries().filter(|entry| {
            let is_first = first.is_some_and(|first| first.record.body == entry.record.body);
            let selected = decide::vary_matches(&entry.record, &ask.headers);
            let is_refused = decide::under_rule(&entry.record, ask.rule_digest()) == UnderRule::Refused;
            !is_first && selected && !is_refused && entry.record.status == StatusCode::OK
        });
        stored.extend(others.cloned());
        Some(stored)
    }

    fn choose(&self, ask: &Ask, client: Client, resume: &Resume, stored: &[Version]) -> Choice {
        let holdings = self.store.given(client.address, &ask.content.key);
        decide::choose(resume, &holdings.versions, holdings.more, stored)
    }

    fn refuse(&self, ask: &Ask, refusal: Refusal) -> Outcome {
        let reason = refusal.as_str();
        self.books.metrics.resumes_refused.with_label_values(&[reason]).inc();
        tracing::info!(key = %ask.content.key, reason, "a client has a part of a version that it cannot be given more of");
        rescue::unavailable(reason)
    }
}

/// The version that an answer which is passed on is of, and whether it is the whole; `None` of one without such content.
pub(super) fn passed_version(response: &PassedThrough) -> Option<(Version, bool)> {
    let (length, whole) = match (response.status, response.content_range, response.framing) {
        (StatusCode::PARTIAL_CONTENT, Some(range), _) => {
            (range.total, range.first == 0 && range.total == range.last.checked_add(1))
        }
        (StatusCode::PARTIAL_CONTENT, None, _) => (None, false),
        (StatusCode::OK, _, PassedFraming::Length(length)) => (Some(length), true),
        (StatusCode::OK, _, PassedFraming::Empty) => (Some(0), true),
        (StatusCode::OK, _, PassedFraming::Chunked | PassedFraming::UntilClose) => (None, true),
        _ => return None,
    };
    Some((Version::told_by(&response.headers, length), whole))
}

/// The versions of `stored`; that of the first has `length` if it does not say so.
fn versions(stored: &[Arc<Entry>], length: Option<u64>) -> Vec<Version> {
    let mut versions: Vec<_> = stored.iter().map(|entry| entry.version()).collect();
    if let Some(first) = versions.first_mut() {
        first.length = length.or(first.length);
    }
    versions
}
