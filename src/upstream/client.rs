//! [`Upstream`], the handle on all sources: for one request it asks them in the order of the plan and follows
//! redirects within the rules.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::content::{CacheKey, Origin, Policy};
use crate::telemetry::Metrics;

use super::Settings;
use super::budget::{Budget, BudgetSettings, Standing};
use super::comeback::Sought;
use super::connect::{Connector, Resolver, SystemResolver};
use super::error::{FetchError, Phase, TlsSetupError};
use super::fetch::{Ask, FetchResponse, MEANINGFUL, RequestBody};
use super::identity::Dialect;
use super::interims::Interims;
use super::middleman;
use super::plan::{ParentKind, Source, plan, share, turn};
use super::pool::Pool;
use super::redirect::{self, MAX_REDIRECTS, Redirects};
use super::refusals::Refusals;
use super::said::Said;
use super::sources::{DownSource, Sources};
use super::tls::Roots;
use super::wrong_bytes::Subject;

/// Bytes of a redirect's body that are read for the sake of its connection.
const DISCARDED: u64 = 64 * 1024;
/// Time that may take.
const DISCARD_TIME: Duration = Duration::from_secs(1);
/// Asks sources. Cheap to clone; all clones share connections and health.
#[derive(Clone)]
pub struct Upstream {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) settings: Settings,
    pub(super) pseudonym: Arc<str>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) connector: Arc<Connector>,
    pub(super) pool: Arc<Pool>,
    pub(super) sources: Arc<Sources>,
    pub(super) sought: Sought,
    pub(super) budget: Arc<Budget>,
    pub(super) refusals: Mutex<Refusals>,
    /// How often it is said that somebody refuses: each request could be the cause of a line.
    pub(super) refused: Mutex<Said>,
    /// The same of answers that cannot be used.
    pub(super) nonsense: Mutex<Said>,
    /// The same of bodies that were gone on with from somebody else.
    pub(super) left: Mutex<Said>,
}

/// One request to whichever source answers it.
#[derive(Debug)]
pub struct FetchRequest {
    /// Its method. Redirects are followed and dead idle connections replaced for GET and HEAD only.
    pub method: Method,
    /// Whom it is for.
    pub origin: Origin,
    /// Path and query as they are forwarded.
    pub target: String,
    /// The fields to send, see [`super::request_fields`]. What belongs to the client's connection or tells of its
    /// network is dropped; `Host`, `Via` and `CDN-Loop` are added.
    pub headers: HeaderMap,
    /// The origin's rule.
    pub policy: Arc<Policy>,
    /// Its body.
    pub body: Option<RequestBody>,
    /// Until when the first body byte must be there.
    pub deadline: Instant,
    /// Sources that have failed just now: they are asked after the others.
    pub avoid: Vec<Source>,
    /// So long a source may say nothing as long as there is another one to ask, if that is less than its share of the time.
    pub silence: Option<Duration>,
    /// A source that gave wrong bytes for the same content lately: it is the last one that is asked.
    pub wrong: Option<Source>,
    /// How much its answer matters, where not all may come at once.
    pub standing: Standing,
    /// Who is told of the interim responses that come before the answer.
    pub interims: Option<Interims>,
    /// Something stored can be served instead: who asks waits for a source that was down no longer than is not noticed.
    pub stands_in: bool,
}

/// In which order the sources of a request are asked.
struct Turns {
    avoid: Vec<Source>,
    wrong: Option<Source>,
    silence: Option<Duration>,
    /// Those that said nothing, though they were to.
    passed_over: Vec<Source>,
}

impl Upstream {
    /// Upstream with the system's resolver and roots. `pseudonym` names this cache in `Via` and `CDN-Loop`;
    /// `own_addresses` are its listeners, which are never connected to.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(
        settings: Settings,
        pseudonym: Arc<str>,
        metrics: Arc<Metrics>,
        own_addresses: Vec<SocketAddr>,
    ) -> Result<Self, TlsSetupError> {
        let resolver = Arc::new(SystemResolver::default());
        Self::with_parts(settings, pseudonym, metrics, own_addresses, Roots::System, resolver)
    }

    /// Like [`Upstream::new`] with other roots and another resolver.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn with_parts(
        settings: Settings,
        pseudonym: Arc<str>,
        metrics: Arc<Metrics>,
        own_addresses: Vec<SocketAddr>,
        roots: Roots,
        resolver: Arc<dyn Resolver>,
    ) -> Result<Self, TlsSetupError> {
        let connector =
            Connector::new(resolver, Dialect::new(settings.tls.clone(), roots)?, own_addresses, Arc::clone(&pseudonym));
        let pool = Arc::default();
        let sources = Arc::new(Sources::new(Arc::clone(&metrics), &settings.parents));
        let said = || Mutex::new(Said::new(std::time::Instant::now()));
        let (refusals, refused, nonsense, left) = (Mutex::default(), said(), said(), said());
        let budget = Budget::new(settings.budget.clone(), settings.budget_file.clone(), Arc::clone(&metrics));
        let sought = Sought::default();
        let inner = Inner {
            settings,
            pseudonym,
            metrics,
            connector: Arc::new(connector),
            pool,
            sources,
            sought,
            budget,
            refusals,
            refused,
            nonsense,
            left,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Replaces the addresses of the own listeners, once they are bound.
    pub fn set_own_addresses(&self, addresses: Vec<SocketAddr>) {
        self.inner.connector.set_own_addresses(addresses);
    }

    /// How sources are asked.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// The sources that are known to be down.
    pub fn down_sources(&self) -> Vec<DownSource> {
        self.inner.sources.down(Instant::now().into_std())
    }

    /// The sources that are asked after the others, since they gave wrong bytes for several contents lately.
    pub fn lowered_sources(&self) -> Vec<Source> {
        self.inner.sources.lowered(Instant::now().into_std())
    }

    /// The parents that refuse whatever they are asked for, and how.
    pub fn refusing_parents(&self) -> Vec<FetchError> {
        self.inner.refusals.lock().of_all().collect()
    }

    /// What `source` alone gave turned out not to be what `subject` says. It is not the source's fault if another one gives
    /// the same wrong.
    pub fn gave_wrong(&self, source: &Source, subject: Subject) {
        self.inner.metrics.upstream_faults.with_label_values(&["wrong-digest"]).inc();
        self.inner.sources.gave_wrong(source, subject);
    }

    /// Tells when a source that could not be reached can be, whichever, or the budget opens: as the number of times.
    pub fn comebacks(&self) -> watch::Receiver<u64> {
        self.inner.sources.comebacks()
    }

    /// Obeys another budget from now on.
    pub fn set_budget(&self, settings: BudgetSettings) {
        self.inner.budget.change(settings);
    }

    /// Whether there is a parent that is told how urgent requests are.
    pub fn tells_urgency(&self) -> bool {
        self.inner.settings.parents.iter().any(|parent| parent.kind == ParentKind::ConnectedCache)
    }

    /// Whether there is a budget to obey.
    pub fn has_budget(&self) -> bool {
        self.inner.budget.is_obeyed()
    }

    /// Whether the budget lets nothing come at present.
    pub fn is_shut(&self) -> bool {
        self.inner.budget.shut().is_some()
    }

    /// Why the budget lets nothing come, and until when.
    pub fn shut_text(&self) -> Option<String> {
        self.inner.budget.shut_text()
    }

    /// Looks after the budget as long as there is one: its hours, and what has come on a day.
    pub fn keep_budget(&self) -> impl Future<Output = ()> + use<> {
        let sources = Arc::clone(&self.inner.sources);
        Budget::keep(Arc::downgrade(&self.inner.budget), move || sources.tell_of_comeback())
    }

    /// Writes down what has come today.
    pub async fn save_budget(&self) {
        self.inner.budget.save().await;
    }

    /// Asks for one answer and returns when its head is there. `redirects` says where redirects may lead.
    ///
    /// # Errors
    /// See [`FetchError`]; the fault of the last source that was asked. A 4xx or 5xx answer is no error.
    pub async fn fetch(&self, request: FetchRequest, redirects: &dyn Redirects) -> Result<FetchResponse, FetchError> {
        let (avoid, wrong, silence) = (request.avoid.clone(), request.wrong.clone(), request.silence);
        let mut turns = Turns { avoid, wrong, silence, passed_over: Vec::new() };
        let mut ask = Ask::new(request);
        for _ in 0..=MAX_REDIRECTS {
            let response = self.ask(&mut ask, redirects, &mut turns).await?;
            let Some((origin, target, policy)) = ask.redirected(&response, redirects)? else {
                if response.status.is_success() || response.status == StatusCode::NOT_MODIFIED {
                    turns.passed_over.iter().for_each(|source| self.inner.sources.note_outdone(source));
                }
                return Ok(FetchResponse { passed_over: turns.passed_over, ..response });
            };
            if origin != ask.origin {
                redirect::drop_credentials(&mut ask.headers);
            }
            tracing::debug!(from = %ask.origin, to = %origin, "following a redirect");
            (ask.origin, ask.target, ask.policy) = (origin, target, policy);
            response.body.discard(DISCARDED, ask.deadline.min(Instant::now() + DISCARD_TIME)).await;
        }
        Err(FetchError::TooManyRedirects { host: ask.origin.host.to_string() })
    }

    /// Asks the sources of the plan in order until one has a good answer. Without one it is the first answer that came, then
    /// what says most of why there is none.
    async fn ask(
        &self,
        ask: &mut Ask,
        redirects: &dyn Redirects,
        turns: &mut Turns,
    ) -> Result<FetchResponse, FetchError> {
        if let Some(shut) = self.inner.budget.shut().filter(|_| ask.policy.budgeted) {
            return Err(FetchError::OverBudget { until: shut.until });
        }
        let mut sources = plan(&self.inner.settings, &ask.origin, &ask.policy, &turns.avoid);
        self.inner.sources.arrange(&mut sources, turns.wrong.as_ref(), std::time::Instant::now());
        let mut best = Err(FetchError::NoSource { host: ask.origin.host.to_string() });
        let (mut end, mut has_answer) = (ask.deadline, false);
        for (index, source) in sources.iter().enumerate() {
            let now = Instant::now();
            let is_last = index + 1 == sources.len();
            let others =
                sources[index + 1..].iter().filter(|other| self.inner.sources.may_be_asked(other, now.into_std()));
            // As good as failed are those that were down until now, of whom one request finds out.
            let has_failed =
                |other: &&Source| turns.avoid.contains(other) || self.inner.sources.down_until(other).is_some();
            let (failed, fresh): (Vec<_>, Vec<_>) = others.partition(has_failed);
            let limit = turn(now, end, turns.avoid.contains(source), (failed.len(), fresh.len()));
            let limit = turns.silence.filter(|_| !fresh.is_empty()).map_or(limit, |silence| limit.min(now + silence));
            let result = self.attempt(ask, source, limit).await;
            let refused = result.as_ref().ok().and_then(|response| ask.redirected(response, redirects).err());
            let result = result.and_then(|response| match refused {
                // Who stands between and sends devices to a page of its own has not got what was asked for.
                Some(_) if source.has_middleman() => {
                    let (host, status) = (source.to_string(), response.status);
                    Err(FetchError::MiddlemanRefused { host, status, has_no_rule: false })
                }
                _ => Ok(response),
            });
            self.count(&result);
            self.inner.refusals.lock().note(source, (&ask.origin, &ask.target), &result);
            let result = match refused.filter(|_| has_answer && result.is_ok()) {
                Some(refused) => Err(refused),
                None => result,
            };
            let may_go_on = match &result {
                // Of a parent nobody knows whether it has asked the origin, unless it says so: the next source may have it.
                Ok(response) if is_doubtful(source, response) => ask.is_repeatable() && !is_last,
                Ok(response) => response.status.is_server_error() && ask.is_repeatable(),
                Err(_) if has_answer => true,
                // What one source may not be says nothing of the next one.
                Err(FetchError::AddressRefused { .. }) => !is_last,
                Err(error) => error.is_passing_fault() && (ask.is_repeatable() || error.is_before_request()),
            };
            if !may_go_on {
                return result;
            }
            if let Err(error) = &result {
                self.tell(source, error);
            }
            let was_long = limit.saturating_duration_since(now) >= MEANINGFUL;
            if matches!(result, Err(FetchError::Timeout { phase: Phase::FirstByte, .. })) && was_long && !ask.yields {
                turns.passed_over.push(source.clone());
            }
            best = better(best, result);
            if !has_answer && best.as_ref().is_ok_and(|answer| answer.status.is_client_error()) {
                // The others have half of the time to know better, and then it is told.
                (end, has_answer) = (share(Instant::now(), end, 2), true);
            }
        }
        best
    }

    fn tell(&self, source: &Source, error: &FetchError) {
        let allows = |said: &Mutex<Said>| said.lock().allows(source, std::time::Instant::now());
        if error.is_refusal() && allows(&self.inner.refused) {
            let status = error.status().map(|status| status.as_u16());
            tracing::warn!(%source, status, %error, "content is refused on the way to the origin");
        } else if matches!(error, FetchError::BadAnswer { .. }) && allows(&self.inner.nonsense) {
            tracing::warn!(%source, %error, "an answer cannot be used");
        } else {
            tracing::debug!(%source, %error, "a source failed");
        }
    }

    /// The rest of a body that `from` did not bring to its end comes from `to`. With `was_silent` it was not cut.
    pub fn is_gone_on_with(&self, key: &CacheKey, (from, was_silent): (&Source, bool), to: &Source) {
        if was_silent {
            self.inner.sources.note_outdone(from);
        }
        if self.inner.left.lock().allows(from, std::time::Instant::now()) {
            tracing::warn!(%key, %from, %to, was_silent, "a body was cut, and is gone on with from another source");
        }
    }

    pub(super) fn count(&self, result: &Result<FetchResponse, FetchError>) {
        let outcome = match result {
            Ok(response) => match response.status.as_u16() / 100 {
                2 => Some("2xx"),
                3 => Some("3xx"),
                4 => Some("4xx"),
                _ => Some("5xx"),
            },
            Err(error) => error.outcome(),
        };
        if let Err(FetchError::BadAnswer { fault, .. }) = result {
            self.inner.metrics.upstream_faults.with_label_values(&[fault.as_str()]).inc();
        }
        if let Some(outcome) = outcome {
            self.inner.metrics.upstream_requests.with_label_values(&[outcome]).inc();
        }
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}

/// Whether it is the word of somebody before the origin that there is no such thing.
fn is_doubtful(source: &Source, response: &FetchResponse) -> bool {
    source.has_middleman() && middleman::may_be_own(response.status, &response.headers)
}

/// Of what two sources came to, what is told of both.
fn better(
    one: Result<FetchResponse, FetchError>,
    other: Result<FetchResponse, FetchError>,
) -> Result<FetchResponse, FetchError> {
    match (one, other) {
        (Ok(fault), Ok(answer)) if fault.status.is_server_error() && !answer.status.is_server_error() => Ok(answer),
        (Ok(answer), _) | (Err(_), Ok(answer)) => Ok(answer),
        (Err(FetchError::KnownDown { host, until }), Err(FetchError::KnownDown { until: other, .. })) => {
            Err(FetchError::KnownDown { host, until: until.min(other) })
        }
        // Who was asked and refuses says more than who asked nobody.
        (Err(error), Err(FetchError::MiddlemanRefused { has_no_rule: true, .. })) if error.is_refusal() => Err(error),
        (Err(error), Err(FetchError::KnownDown { .. })) if !matches!(error, FetchError::NoSource { .. }) => Err(error),
        (Err(_), Err(error)) => Err(error),
    }
}
