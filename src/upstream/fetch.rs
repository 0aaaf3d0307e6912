//! One attempt at one source: admission, a connection, the request, the head of the answer. Redirects and the
//! order of sources are [`super::client`]'s business.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use crate::clock;
use crate::content::{Origin, Policy, UnixMillis, in_own_memory};

use super::answer_fault::AnswerFault;
use super::body::{BodyLimits, Connection, UpstreamBody};
use super::budget::{Spending, Standing};
use super::client::{FetchRequest, Upstream};
use super::error::{FetchError, Phase, RedirectRefusal};
use super::framing::{self, ContentRange, Framing};
use super::health::Outcome;
use super::interims::Interims;
use super::plan::Source;
use super::pool::Link;
use super::redirect::{self, Redirects};
use super::sources::Ticket;
use super::{form, headers, loops, middleman, probe, tls};

/// A parent that had less time than this says nothing of itself by being late.
pub(super) const MEANINGFUL: Duration = Duration::from_secs(2);

/// A body as it is sent to a source.
pub(super) type OutgoingBody = Either<Full<Bytes>, Incoming>;

/// The body of a request, for methods that have one.
#[derive(Debug)]
pub enum RequestBody {
    /// In memory.
    Bytes(Bytes),
    /// As it arrives from the client; it can be sent only once.
    Stream(Incoming),
}

/// The answer of a source: its head, and its body as it arrives.
#[derive(Debug)]
pub struct FetchResponse {
    /// Final status, never 1xx.
    pub status: StatusCode,
    /// End-to-end fields without `Content-Length`, and without `Content-Range` where it means something.
    pub headers: HeaderMap,
    /// How the end of the body is known.
    pub framing: Framing,
    /// `Content-Length` as the head says it, also where no body follows (HEAD, 304).
    pub head_length: Option<u64>,
    /// Which part a single-part 206 is; `None` for other answers and for multipart ones. Whether it is the part
    /// that was asked is for the caller to check.
    pub content_range: Option<ContentRange>,
    /// The length of the whole as a 416 says it (`Content-Range: bytes */length`).
    pub unsatisfied_total: Option<u64>,
    /// The body.
    pub body: UpstreamBody,
    /// Who gave it.
    pub source: Source,
    /// Who was asked before, and said nothing though nobody was to come first.
    pub passed_over: Vec<Source>,
    /// Local time when the request was sent (RFC 9111 section 4.2.3).
    pub request_time: UnixMillis,
    /// Local time when the head of the answer arrived.
    pub response_time: UnixMillis,
}

/// What is asked, as it stands after the redirects so far.
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) origin: Origin,
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) policy: Arc<Policy>,
    pub(super) body: Option<RequestBody>,
    /// How much its answer matters.
    pub(super) standing: Standing,
    /// Until when the first body byte must be there.
    pub(super) deadline: Instant,
    /// The target is the parent's own, and names content by its digest.
    pub(super) by_digest: bool,
    /// Who is told of interim responses.
    pub(super) interims: Option<Interims>,
    /// Whether the source that was asked last was told that others may come first.
    pub(super) yields: bool,
    /// Something stored can be served instead.
    pub(super) stands_in: bool,
}

/// How an exchange on a connection failed.
struct Failure {
    error: FetchError,
    outcome: Option<Outcome>,
    /// The connection ended before any answer: on an idle one that means that it was closed meanwhile.
    stale: bool,
}

impl Ask {
    pub(super) fn new(request: FetchRequest) -> Self {
        Self {
            method: request.method,
            origin: request.origin,
            target: request.target,
            headers: headers::end_to_end(&request.headers),
            policy: request.policy,
            body: request.body,
            standing: request.standing,
            deadline: request.deadline,
            by_digest: false,
            interims: request.interims,
            yields: false,
            stands_in: request.stands_in,
        }
    }

    /// Whether asking twice is the same as asking once, and nothing is lost by it.
    pub(super) fn is_repeatable(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }

    /// The body for one attempt. A stream is gone afterwards.
    fn outgoing(&mut self) -> OutgoingBody {
        match self.body.take() {
            None => Either::Left(Full::default()),
            Some(RequestBody::Stream(incoming)) => Either::Right(incoming),
            Some(RequestBody::Bytes(bytes)) => {
                self.body = Some(RequestBody::Bytes(bytes.clone()));
                Either::Left(Full::new(bytes))
            }
        }
    }

    /// Where an answer leads, and by which rule, if it is a redirect that is followed.
    ///
    /// # Errors
    /// When it may not be.
    pub(super) fn redirected(
        &self,
        response: &FetchResponse,
        redirects: &dyn Redirects,
    ) -> Result<Option<(Origin, String, Arc<Policy>)>, FetchError> {
        let Some(location) = redirect::location(&self.method, response.status, &response.headers) else {
            return Ok(None);
        };
        let refused = |to: String, why| FetchError::RedirectRefused { to, why };
        let (origin, target) = redirect::resolve(&self.origin, &self.target, location)
            .map_err(|why| refused(redirect::shown(location), why))?;
        let policy = redirects
            .allow(&origin, &target)
            .ok_or_else(|| refused(origin.to_string(), RedirectRefusal::NotAllowed))?;
        Ok(Some((origin, target, policy)))
    }

    /// Whom errors name: who was asked.
    pub(super) fn asked(&self, source: &Source) -> String {
        source.parent.map_or_else(|| self.origin.host.to_string(), |_| source.to_string())
    }

    /// The request for one attempt, whose answer is waited for until `limit`.
    fn request(
        &mut self,
        source: &Source,
        limit: Instant,
        pseudonym: &str,
    ) -> Result<Request<OutgoingBody>, FetchError> {
        let left = limit.saturating_duration_since(Instant::now());
        let (uri, mut fields) = match self.by_digest {
            true => form::write_own(source, &self.target, left)?,
            false => form::write(source, &self.origin, &self.target, left)?,
        };
        fields.extend(self.headers.clone());
        if source.trusted {
            fields.insert(form::WANT_REPR_DIGEST, form::WANTED_DIGEST);
        }
        let urgency = form::urgency(source, self.standing.urgency());
        self.yields = urgency.is_some();
        // What the client of this request has said of it is not said better.
        urgency.into_iter().for_each(|urgency| {
            fields.entry(form::PRIORITY).or_insert(urgency);
        });
        loops::mark_request(&mut fields, pseudonym);
        // RFC 9110 section 8.6: a method that expects content is told that there is none.
        let expects_content = [Method::POST, Method::PUT, Method::PATCH].contains(&self.method);
        let is_empty = self.body.as_ref().is_none_or(|body| match body {
            RequestBody::Bytes(bytes) => bytes.is_empty(),
            RequestBody::Stream(incoming) => incoming.is_end_stream(),
        });
        if expects_content && is_empty {
            fields.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let mut request = Request::new(self.outgoing());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = fields;
        if let Some(interims) = &self.interims {
            interims.listen(&mut request);
        }
        Ok(request)
    }
}

impl Upstream {
    /// Asks one source once; a connection from the pool that turns out to be dead is replaced by a fresh one without
    /// telling anyone. The head must be there before `limit`.
    pub(super) async fn attempt(
        &self,
        ask: &mut Ask,
        source: &Source,
        limit: Instant,
    ) -> Result<FetchResponse, FetchError> {
        let patience = probe::patience(limit, ask.stands_in);
        if !self.is_back(source, patience).await {
            return Err(self.known_down(ask, source));
        }
        let ticket = self.inner.sources.admit(source, Instant::now().into_std());
        let ticket = ticket.map_err(|until| FetchError::KnownDown { host: ask.asked(source), until })?;
        if ticket.is_probe() && ask.can_be_left() {
            return self.probe(ask, source, limit, ticket, patience).await;
        }
        self.conclude(ask, source, limit, ticket).await
    }

    /// The same for who was admitted.
    pub(super) async fn conclude(
        &self,
        ask: &mut Ask,
        source: &Source,
        limit: Instant,
        mut ticket: Ticket,
    ) -> Result<FetchResponse, FetchError> {
        match self.exchange(ask, source, limit).await {
            Ok((link, response, sent)) => self.accept(ask, source, link, response, sent, ticket),
            Err(failure) => {
                if let Some(outcome) = failure.outcome {
                    match outcome {
                        Outcome::Refused => ticket.refused(&failure.error),
                        _ => ticket.report(outcome),
                    }
                    self.look_for(source);
                }
                Err(failure.error)
            }
        }
    }

    /// Sends the request over an idle connection or a fresh one.
    async fn exchange(
        &self,
        ask: &mut Ask,
        source: &Source,
        limit: Instant,
    ) -> Result<(Link, Response<Incoming>, UnixMillis), Failure> {
        if ask.is_repeatable()
            && let Some(link) = self.inner.pool.take(source).await
        {
            match self.send(ask, source, link, limit).await {
                Err(failure) if failure.stale => {}
                result => return result,
            }
        }
        let (until, whole) = earlier(Instant::now() + self.inner.settings.timeouts.connect, limit);
        // A share of many sources may be shorter, and still long enough to tell.
        let whole = whole || until.saturating_duration_since(Instant::now()) >= MEANINGFUL;
        let link = self.inner.connector.connect(source, until).await.map_err(|error| {
            // Few: after two of them the source is not asked for a while.
            tracing::warn!(%source, %error, "no connection");
            let outcome = match error {
                FetchError::Timeout { .. } if !whole => None,
                // Asking again and again would lock an account, and no certificate changes within seconds.
                FetchError::ProxyFailed { .. } if error.is_refusal() => Some(Outcome::Refused),
                FetchError::TlsFailed { .. } => Some(Outcome::Refused),
                FetchError::Timeout { .. }
                | FetchError::ConnectFailed { own: false, .. }
                | FetchError::NameUnknown { .. }
                | FetchError::ProxyFailed { .. }
                | FetchError::Disconnected { .. } => Some(Outcome::ConnectFailure),
                _ => None,
            };
            Failure { error, outcome, stale: false }
        })?;
        self.send(ask, source, link, limit).await
    }

    /// Sends the request and waits for the head of the answer.
    async fn send(
        &self,
        ask: &mut Ask,
        source: &Source,
        mut link: Link,
        limit: Instant,
    ) -> Result<(Link, Response<Incoming>, UnixMillis), Failure> {
        let host = ask.asked(source);
        let uploads = matches!(ask.body, Some(RequestBody::Stream(_)));
        let (until, whole) = match ask.body {
            // An upload takes its time; only the deadline limits it.
            Some(RequestBody::Stream(_)) => (ask.deadline, false),
            // A parent asks others in its turn, and knows how long it may.
            _ if source.parent.is_some() => (limit, limit.saturating_duration_since(Instant::now()) >= MEANINGFUL),
            _ => earlier(Instant::now() + self.inner.settings.timeouts.first_byte, limit),
        };
        let request = ask.request(source, until, &self.inner.pseudonym);
        let request = request.map_err(|error| Failure { error, outcome: None, stale: false })?;
        let sent = UnixMillis::from(clock::now());
        match timeout_at(until, link.sender.send_request(request)).await {
            Ok(Ok(response)) => Ok((link, response, sent)),
            // Without a body of the client it is the connection's end that is meant.
            Ok(Err(error)) if error.is_user() && !uploads => {
                Err(Failure { error: FetchError::Disconnected { host }, outcome: None, stale: true })
            }
            Ok(Err(error)) => {
                let failure = failure(&error, host);
                if matches!(failure.error, FetchError::TlsFailed { .. }) {
                    // As few as those above.
                    tracing::warn!(%source, error = %failure.error, "no connection");
                }
                Err(failure)
            }
            Err(_elapsed) => Err(Failure {
                error: FetchError::Timeout { host, phase: Phase::FirstByte },
                outcome: (whole && !ask.yields).then_some(Outcome::Timeout),
                stale: false,
            }),
        }
    }

    /// What an answer spends of the budget: of the parent's rate, or of that of the origin's rule.
    fn spending(&self, ask: &Ask, source: &Source) -> Option<Spending> {
        let name = || match source.parent {
            Some(_) => source.peer.to_string().into(),
            None => Arc::clone(&ask.policy.rule),
        };
        ask.policy.budgeted.then(|| Spending::new(Arc::clone(&self.inner.budget), ask.standing.clone(), name()))
    }

    /// Judges the head of an answer.
    fn accept(
        &self,
        ask: &Ask,
        source: &Source,
        link: Link,
        response: Response<Incoming>,
        request_time: UnixMillis,
        mut ticket: Ticket,
    ) -> Result<FetchResponse, FetchError> {
        let response_time = UnixMillis::from(clock::now());
        ticket.contact();
        let (head, incoming) = response.into_parts();
        let dimensions = if head.status.is_informational() {
            Err(AnswerFault::UnaskedUpgrade)
        } else {
            framing::dimensions(&ask.method, head.status, &head.headers)
        };
        let dimensions = dimensions.map_err(|fault| {
            ticket.report(Outcome::Malformed);
            FetchError::BadAnswer { host: ask.asked(source), fault }
        })?;
        // What a parent could not get says nothing of what it has.
        let is_refused = source.has_middleman() && middleman::refuses(head.status, &head.headers);
        let refusal = || {
            let by = source.proxy.as_ref().filter(|_| source.parent.is_none());
            let host = by.map_or_else(|| source.to_string(), |proxy| format!("proxy {proxy}"));
            let has_no_rule = middleman::has_no_rule(head.status, &head.headers);
            FetchError::MiddlemanRefused { host, status: head.status, has_no_rule }
        };
        if is_refused && source.may_ask_for_password() && middleman::asks_for_password(head.status, &head.headers) {
            // Whatever it is asked for, as where it refuses a tunnel.
            ticket.refused(&refusal());
        } else if source.parent.is_none() && matches!(head.status.as_u16(), 500 | 502 | 503 | 504) {
            ticket.report(Outcome::ServerError);
        } else {
            ticket.answered();
        }
        if is_refused {
            return Err(refusal());
        }
        let mut headers = in_own_memory(&head.headers);
        headers::clean_response(head.status, &mut headers);
        let timeouts = &self.inner.settings.timeouts;
        let limits = BodyLimits {
            first_byte: earlier(Instant::now() + timeouts.first_byte, ask.deadline).0,
            stall: timeouts.stall,
            yields: ask.yields,
        };
        let pool = (!dimensions.is_last).then(|| Arc::clone(&self.inner.pool));
        let connection = Connection { link, source: source.clone(), pool };
        let metrics = self.inner.metrics.clone();
        let spending = self.spending(ask, source);
        Ok(FetchResponse {
            status: head.status,
            headers,
            framing: dimensions.framing,
            head_length: dimensions.length,
            content_range: dimensions.content_range,
            unsatisfied_total: dimensions.unsatisfied_total,
            body: UpstreamBody::new(incoming, dimensions.framing, connection, ticket, &limits, spending, metrics),
            source: source.clone(),
            passed_over: Vec::new(),
            request_time,
            response_time,
        })
    }
}

/// The earlier of an own limit and what remains, and whether it is the own one: only then does running out of time
/// say something of the source.
fn earlier(own: Instant, remaining: Instant) -> (Instant, bool) {
    if own <= remaining { (own, true) } else { (remaining, false) }
}

/// What an error before the answer means.
fn failure(error: &hyper::Error, host: String) -> Failure {
    let bad = |host, fault| Failure {
        error: FetchError::BadAnswer { host, fault },
        outcome: Some(Outcome::Malformed),
        stale: false,
    };
    if let Some(fault) = tls::refused(error) {
        Failure { error: FetchError::TlsFailed { host, fault }, outcome: Some(Outcome::Refused), stale: false }
    } else if error.is_parse_too_large() {
        bad(host, AnswerFault::HeadTooLarge)
    } else if error.is_parse() {
        bad(host, AnswerFault::named_by(&error.to_string()))
    } else if error.is_user() {
        Failure { error: FetchError::RequestBody, outcome: None, stale: false }
    } else {
        Failure { error: FetchError::Disconnected { host }, outcome: Some(Outcome::Cut), stale: true }
    }
}
