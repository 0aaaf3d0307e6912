//! The story of a request, top to bottom: resolve, look up, decide, then serve what is stored, validate it, or fill.
//!
//! How a stored body is cut to ranges and sent is in `deliver`; how outcomes look on the wire is in `respond`.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::sync::Semaphore;

use super::account::{Account, Books};
use super::ask::{Ask, allowed_time, asked_scheme, client_address};
use super::body::SegmentBody;
use super::deliver::{self, Growing};
use super::gather::MOST_GATHERED;
use super::limits::RequestLimit;
use super::outcome::{Outcome, Reply};
use super::proof::Proofs;
use super::ready::{Plan, ReadyAnswers, Shortcut};
use super::respond::respond;
use super::wire::{ConnectionInfo, Recall};
use super::{Settings, rescue};
use crate::clock;
use crate::content::{BodyRef, Digest, PartialId, RangeSet, Record, UnixMillis};
use crate::decide::{self, CacheStatus, Decision, Freshness, FwdReason, Options, RequestFacts, UnderRule};
use crate::fill::{Arriving, Fill, Obtained, Want};
use crate::resolve::{self, Inbound, resolve_digest};
use crate::store::{Body, Entry, Store, Variants};
use crate::telemetry::{AccessLog, Metrics, RequestResult};

/// Most parts of stored bodies that are in memory for their digest at a time, each of up to 1 MiB.
const MOST_DIGESTED: usize = 16;
/// How often a request starts again because what it relied on turned out to be gone or damaged.
const ROUNDS: usize = 8;

/// Answers requests. One for all connections.
pub struct Handler {
    pub(super) settings: Settings,
    pub(super) resolve: Arc<resolve::Settings>,
    pub(super) store: Store,
    pub(super) fill: Fill,
    pub(super) proofs: Proofs,
    pub(super) books: Arc<Books>,
    /// Places for bodies that are gathered in memory.
    pub(super) gathered: Arc<Semaphore>,
    /// Places for parts that are read into memory for their digest.
    pub(super) digested: Arc<Semaphore>,
    ready: Arc<ReadyAnswers>,
}

/// What a step of the story came to.
pub(super) enum Step {
    Done(Outcome),
    /// What was stored is not usable after all: look again.
    Again,
}

impl Handler {
    /// Answers from `store`, filled by `fill`, for the origins in `resolve`.
    ///
    /// # Errors
    /// When the system gives no random bytes for the token hashes.
    pub fn new(
        settings: Settings,
        resolve: Arc<resolve::Settings>,
        store: Store,
        fill: Fill,
        log: AccessLog,
        metrics: Arc<Metrics>,
    ) -> Result<Self, getrandom::Error> {
        let books = Arc::new(Books { log, metrics });
        let trusted = settings.trusted_proxies.clone();
        let ready =
            Arc::new(ReadyAnswers::new(store.clone(), Arc::clone(&books), Arc::clone(&settings.pseudonym), trusted));
        let gathered = Arc::new(Semaphore::new(MOST_GATHERED));
        let digested = Arc::new(Semaphore::new(MOST_DIGESTED));
        Ok(Self { settings, resolve, store, fill, proofs: Proofs::new()?, books, gathered, digested, ready })
    }

    /// What the wire may answer by itself, for as many requests as `limit` lets in.
    pub fn recall(&self, limit: RequestLimit) -> Arc<dyn Recall> {
        Arc::new(Shortcut::new(Arc::clone(&self.ready), limit))
    }

    /// Answers one request. Never fails: every fault has its outcome.
    pub async fn handle(&self, request: Request<Incoming>) -> Response<SegmentBody> {
        let started = Instant::now();
        let now = UnixMillis::from(clock::now());
        let (parts, body) = request.into_parts();
        let Some(info) = parts.extensions.get::<ConnectionInfo>().cloned() else {
            return respond(rescue::unavailable("no-connection-info"), &self.settings.pseudonym, false);
        };
        let client = client_address(&info, &parts.headers, &self.settings.trusted_proxies);
        let mut account = Account::open(&self.books, client, &parts, started);
        let inbound = Inbound {
            method: &parts.method,
            uri: &parts.uri,
            version: parts.version,
            headers: &parts.headers,
            scheme: asked_scheme(info.scheme, &parts.headers),
        };
        if parts.method == Method::CONNECT {
            return self.connect(&inbound, account).await;
        }
        let head = parts.method == Method::HEAD;
        let may_name_digests = self.settings.may_name_digests(client, info.scheme);
        let by_digest = if may_name_digests { resolve_digest(&inbound) } else { None };
        let allowed = allowed_time(self.fill.request_time(), &parts.headers);
        let deadline = tokio::time::Instant::from_std(info.head_complete) + allowed;
        if let Some(Ok((digest, content))) = by_digest {
            account.resolved(&content);
            let key = self.settings.shown_key(&content.key);
            let ask = Ask::new(content, parts.method, parts.headers, now, deadline, &self.proofs);
            return self.finish(self.by_digest(&ask, digest).await.of_key(key), head, account);
        }
        let resolved = match by_digest {
            Some(Err(refusal)) => Err(refusal),
            _ => resolve::resolve(&inbound, &self.resolve),
        };
        let outcome = match resolved {
            Ok(content) => {
                account.resolved(&content);
                let key = self.settings.shown_key(&content.key);
                // Whether a digest in a path means what has it depends on the client.
                let depends = content.token.is_some() || resolve_digest(&inbound).is_some();
                let wish = if depends { None } else { self.ready.wish(&parts, &content.key) };
                let mut ask = Ask::new(content, parts.method, parts.headers, now, deadline, &self.proofs);
                (ask.wish, ask.interim) = (wish, info.interim);
                self.answer(ask.of(client, self.settings.limits.ranges), body).await.of_key(key)
            }
            Err(refusal) => rescue::refused(&refusal),
        };
        self.finish(outcome, head, account)
    }

    pub(super) fn finish(&self, mut outcome: Outcome, head: bool, mut account: Account) -> Response<SegmentBody> {
        let (result, gift, plan) = (outcome.result, outcome.take_gift(), outcome.take_plan());
        account.found(outcome.take_found());
        if matches!(result, RequestResult::Refused | RequestResult::Error)
            && let Some(reason) = outcome.status.detail()
        {
            account.explained(reason);
        }
        let response = respond(outcome, &self.settings.pseudonym, head);
        if let Some(plan) = plan {
            self.ready.keep(plan, &response, account.asked());
        }
        account.answered(response.status().as_u16(), result);
        account.gives(gift, response.body().size_hint().exact());
        response.map(|body| body.accounted(account))
    }

    /// Content that is named by its digest: from the store or not at all.
    async fn by_digest(&self, ask: &Ask, digest: Digest) -> Outcome {
        for _ in 0..ROUNDS {
            let found =
                tokio::time::timeout_at(ask.deadline, self.store.shared_by_digest(digest, decide::is_for_anybody))
                    .await;
            let Ok(Some(entry)) = found else { break };
            let (status, result) = (CacheStatus::hit(), RequestResult::Hit);
            if ask.method == Method::HEAD {
                return deliver::head_of(ask, &entry, status, result);
            }
            if let deliver::Delivery::Done(outcome) = deliver::stored(self, ask, &entry, status, result).await {
                return outcome;
            }
        }
        rescue::no_such_digest()
    }

    async fn answer(&self, ask: Ask, body: Incoming) -> Outcome {
        if self.fill.is_loop(&ask.headers) {
            return rescue::looped();
        }
        if ask.method != Method::GET && ask.method != Method::HEAD {
            return self.pass_on(ask, body).await;
        }
        self.answer_read(ask).await
    }

    /// Answers a GET or HEAD.
    pub(super) async fn answer_read(&self, mut ask: Ask) -> Outcome {
        for _ in 0..ROUNDS {
            if let Step::Done(outcome) = self.round(&mut ask).await {
                return outcome;
            }
        }
        rescue::unavailable("store")
    }

    async fn round(&self, ask: &mut Ask) -> Step {
        let variants = self.variants(ask).await;
        let stored = variants.iter().flat_map(|v| v.iter()).find(|e| decide::vary_matches(&e.record, &ask.headers));
        let (stored, others) = (stored.cloned(), variants.as_ref().is_some_and(|variants| !variants.is_empty()));
        if let Some(entry) = stored.as_ref().filter(|entry| entry.record.token_protected)
            && let Err(outcome) = self.prove(ask, Some(entry)).await
        {
            return Step::Done(outcome);
        }
        let (stored, refused) = stored.map(|entry| self.under_rule(ask, entry)).unzip();
        let is_refused = refused == Some(true);
        let usable = stored.as_ref().filter(|_| !is_refused);
        let facts = RequestFacts { method: &ask.method, headers: &ask.headers };
        let options = self.options();
        let record = usable.map(|entry| &entry.record);
        let decision = decide::decide(&facts, record, &ask.content.policy, ask.path(), &options, ask.now);
        if let Some(step) = self.instead_of_current(ask, usable, &decision).await {
            return step;
        }
        match (decision, stored) {
            (Decision::Fetch(_), Some(entry)) if is_refused => self.fetch(ask, Some(entry), FwdReason::Miss).await,
            (Decision::Serve { freshness }, Some(entry)) => {
                let status = CacheStatus::hit().with_ttl(freshness.ttl());
                let plan = ask.wish.take().zip(variants).map(|(wish, variants)| {
                    let (entry, now) = (Arc::clone(&entry), ask.now);
                    Plan { wish, entry, variants, freshness, now }
                });
                match self.serve(ask, entry, status, RequestResult::Hit).await {
                    Step::Done(outcome) => Step::Done(outcome.planned(plan)),
                    Step::Again => Step::Again,
                }
            }
            (Decision::ServeMeanwhile { freshness, conditions }, Some(entry)) => {
                self.refresh(ask, &entry, conditions);
                let status = CacheStatus::hit().with_ttl(freshness.ttl()).because("stale-while-revalidate");
                self.serve(ask, entry, status, RequestResult::Stale).await
            }
            (Decision::Revalidate { conditions, reason, .. }, Some(entry)) => {
                self.validate(ask, entry, conditions, reason).await
            }
            (Decision::OnlyIfCachedMiss, _) => Step::Done(rescue::only_if_cached()),
            (Decision::Bypass(_), _) => Step::Done(self.pass_through(ask, FwdReason::Bypass).await),
            (Decision::Fetch(FwdReason::UriMiss), None) if others => self.fetch(ask, None, FwdReason::VaryMiss).await,
            (Decision::Fetch(reason), stored) => self.fetch(ask, stored, reason).await,
            (Decision::Serve { .. } | Decision::ServeMeanwhile { .. } | Decision::Revalidate { .. }, None) => {
                self.fetch(ask, None, FwdReason::UriMiss).await
            }
        }
    }

    /// `entry` as the operator's digest for the path has it, and whether its content is refused for that. A body that
    /// was begun before there was such a rule is to become what it says.
    fn under_rule(&self, ask: &Ask, entry: Arc<Entry>) -> (Arc<Entry>, bool) {
        match decide::under_rule(&entry.record, ask.rule_digest()) {
            UnderRule::Fits => (entry, false),
            UnderRule::Refused => {
                tracing::info!(key = %ask.content.key, "stored content is not what its digest rule says; it is fetched anew");
                (entry, true)
            }
            UnderRule::Expects(expected) => {
                let record = Record { expected, ..entry.record.clone() };
                (self.store.update(&entry, record), false)
            }
        }
    }

    /// Everything that is stored under the key; `None` when the store does not answer in time. A store that is still
    /// being read in is waited for: asking upstream for what is there would pay twice.
    pub(super) async fn variants(&self, ask: &Ask) -> Option<Variants> {
        let key = &ask.content.key;
        match self.store.lookup_hot(key) {
            Some(variants) => Some(variants),
            None => tokio::time::timeout_at(ask.deadline, self.store.lookup(key)).await.ok(),
        }
    }

    /// Serves what is stored, or joins its fill when bytes of it are still missing.
    async fn serve(&self, ask: &mut Ask, entry: Arc<Entry>, status: CacheStatus, result: RequestResult) -> Step {
        if ask.method == Method::HEAD {
            return Step::Done(deliver::head_of(ask, &entry, status, result));
        }
        let missing = match deliver::stored(self, ask, &entry, status, result).await {
            deliver::Delivery::Done(outcome) => return Step::Done(outcome),
            deliver::Delivery::Unusable => return Step::Again,
            deliver::Delivery::Missing => entry,
            deliver::Delivery::OtherVersion => return Step::Done(self.other_version(ask).await),
        };
        if self.only_if_cached(ask) {
            return Step::Done(rescue::only_if_cached());
        }
        self.fetch(ask, Some(missing), FwdReason::Partial).await
    }

    /// Whether upstream must not be asked for what is not there.
    pub(super) fn only_if_cached(&self, ask: &Ask) -> bool {
        let facts = RequestFacts { method: &ask.method, headers: &ask.headers };
        let decision = decide::decide(&facts, None, &ask.content.policy, ask.path(), &self.options(), ask.now);
        matches!(decision, Decision::OnlyIfCachedMiss)
    }

    /// Asks upstream whether the stored response is current; serves it stale when upstream fails and that is allowed.
    async fn validate(&self, ask: &mut Ask, entry: Arc<Entry>, conditions: HeaderMap, reason: FwdReason) -> Step {
        if matches!(entry.record.body, BodyRef::Partial(_)) {
            // Going on with it validates it: its version is the condition.
            return self.fetch(ask, Some(entry), reason).await;
        }
        self.fetch_with(ask, Some(entry), Some(conditions), reason).await
    }

    /// Whether who asks waits for what is fresh, and may.
    pub(super) fn wants_it_anew(&self, ask: &Ask) -> bool {
        let facts = RequestFacts { method: &ask.method, headers: &ask.headers };
        decide::is_refetch(&facts, &self.options())
    }

    fn options(&self) -> Options {
        Options { clients_may_refetch: self.settings.clients_may_refetch }
    }

    async fn fetch(&self, ask: &mut Ask, stored: Option<Arc<Entry>>, reason: FwdReason) -> Step {
        self.fetch_with(ask, stored, None, reason).await
    }

    async fn fetch_with(
        &self,
        ask: &mut Ask,
        stored: Option<Arc<Entry>>,
        conditions: Option<HeaderMap>,
        reason: FwdReason,
    ) -> Step {
        if ask.method == Method::HEAD {
            return Step::Done(self.head(ask, stored, reason).await);
        }
        let found = stored.as_ref().and_then(|entry| match self.store.body_hot(entry) {
            Some(Body::Partial(partial)) => Some((partial.id(), partial.present())),
            _ => None,
        });
        let stands_in = stored.as_ref().is_some_and(|entry| self.stands_in(ask, entry));
        let want = Want { stands_in, ..ask.want(stored, conditions) };
        let obtained = match stands_in && !self.wants_it_anew(ask) {
            true => match self.obtain_or_stale(ask, want, reason).await {
                Ok(obtained) => obtained,
                Err(stale) => return Step::Done(stale),
            },
            false => self.fill.obtain(want).await,
        };
        self.obtained(ask, obtained, found, reason).await
    }

    /// Serves what a fill came to. `found` is what was there of which partial body before.
    pub(super) async fn obtained(
        &self,
        ask: &mut Ask,
        obtained: Obtained,
        found: Option<(PartialId, RangeSet)>,
        reason: FwdReason,
    ) -> Step {
        match obtained {
            Obtained::Filling { entry, partial, guard, collapsed } => {
                let found = found.filter(|(id, _)| *id == partial.id()).map(|(_, present)| present);
                let (body, found) = (Arriving::new(Some(partial), &guard), found.unwrap_or_default());
                self.grow(ask, Growing { entry, body, guard, collapsed, found }, reason).await
            }
            Obtained::Passing { entry, guard, collapsed } => {
                let (body, found) = (Arriving::new(None, &guard), RangeSet::new());
                match self.grow(ask, Growing { entry, body, guard, collapsed, found }, reason).await {
                    // What cannot be had of the window has to be had without it.
                    Step::Again => Step::Done(self.pass_through(ask, reason).await),
                    done => done,
                }
            }
            // It is current for another host with this key, which has no such rule.
            Obtained::Validated { entry, .. }
                if decide::under_rule(&entry.record, ask.rule_digest()) == UnderRule::Refused =>
            {
                Step::Again
            }
            Obtained::Validated { entry, answered, collapsed } => {
                let ttl = Freshness::of(&entry.record, &ask.content.policy, ask.path(), ask.now).ttl();
                let status = CacheStatus::forwarded(reason, answered.map(|status| status.as_u16())).with_ttl(ttl);
                // The answer was stored with a body that had been there, unless it was a 304.
                let stored = answered.is_some_and(|status| status.is_success());
                let status = status.stored_if(stored).collapsed_if(collapsed);
                match deliver::stored(self, ask, &entry, status, RequestResult::Revalidated).await {
                    deliver::Delivery::Done(outcome) => Step::Done(outcome.after(reason, answered)),
                    deliver::Delivery::Unusable | deliver::Delivery::Missing => Step::Again,
                    deliver::Delivery::OtherVersion => {
                        Step::Done(self.other_version(ask).await.after(reason, answered))
                    }
                }
            }
            Obtained::Behind { length } => {
                let status = CacheStatus::forwarded(reason, Some(StatusCode::RANGE_NOT_SATISFIABLE.as_u16()));
                Step::Done(deliver::unsatisfiable(ask, length, status, RequestResult::Miss))
            }
            Obtained::Changed => Step::Again,
            Obtained::NeedsProof => match self.prove(ask, None).await {
                Ok(()) => Step::Again,
                Err(outcome) => Step::Done(outcome),
            },
            Obtained::Through(response) => Step::Done(self.pass(ask, *response, reason).await),
            Obtained::Answer { answer, collapsed } => {
                let status = CacheStatus::forwarded(reason, Some(answer.status.as_u16())).collapsed_if(collapsed);
                Step::Done(match self.stale(ask, status.clone()).await {
                    Some(outcome) => outcome,
                    None => Outcome { status, reply: Reply::Answer(answer), result: RequestResult::Miss },
                })
            }
            Obtained::Failed(error) => Step::Done(self.stale_or_failed(ask, reason, &error).await),
        }
    }

    /// Makes sure that upstream accepts the request's token for content that was fetched with another one. What
    /// upstream denies is denied here; without an answer there is no proof, which is a passing fault.
    pub(super) async fn prove(&self, ask: &mut Ask, stored: Option<&Arc<Entry>>) -> Result<(), Outcome> {
        if ask.proven {
            return Ok(());
        }
        match self.fill.prove(&ask.want(stored.cloned(), None)).await {
            Ok(status) if status.is_success() => {
                self.remember_proof(ask);
                ask.proven = true;
                Ok(())
            }
            Ok(status) if deliver::is_shielded(ask, status) => Err(rescue::unavailable("shielded")),
            Ok(status) if denies(status) => {
                let reason = "the origin does not accept this request's token for this content".to_owned();
                Err(Outcome {
                    reply: Reply::Own { status, reason, allow: None },
                    result: RequestResult::Refused,
                    status: CacheStatus::own("token-denied"),
                })
            }
            Ok(_) => Err(rescue::unavailable("token-unproven")),
            Err(error) => Err(rescue::failed(&error, None)),
        }
    }

    pub(super) fn remember_proof(&self, ask: &Ask) {
        if let Some(token) = ask.token {
            self.proofs.remember(token, ask.content.token.as_ref(), ask.now);
        }
    }
}

/// Whether the origin has judged the token, or the content is gone. Other 4xx tell of the way to it or of load, and
/// would cost the cache its agents for nothing.
fn denies(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::GONE
    )
}
