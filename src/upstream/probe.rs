//! A request to a source that was down, and may still be: the first one after a pause finds out for all. It may take as long as
//! any, so its client waits for it no longer than for a source that is known to be down, and it goes on behind that client's
//! back. Who may be a probe is `health`'s business; sources without a connection are looked for by `comeback`.

use std::time::Duration;

use http::HeaderMap;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::client::Upstream;
use super::error::FetchError;
use super::fetch::{Ask, FetchResponse};
use super::plan::Source;
use super::sources::Ticket;

/// So long waits who has something stored to serve.
const UNNOTICED: Duration = Duration::from_millis(40);
/// And who has nothing, this part of the time that its answer may take: of a whole one half a second, and below a second for
/// all of up to four sources together.
const PART: u32 = 28;
/// But so long at least, when several share little time.
const LEAST: Duration = Duration::from_millis(200);

/// How long to wait for a source that was down, of the time until `limit`.
pub(super) fn patience(limit: Instant, stands_in: bool) -> Duration {
    if stands_in { UNNOTICED } else { (limit.saturating_duration_since(Instant::now()) / PART).max(LEAST) }
}

impl Ask {
    /// Whether it can go on without its client: it changes nothing, and nothing of the client is needed.
    pub(super) fn can_be_left(&self) -> bool {
        self.is_repeatable() && self.body.is_none()
    }

    /// The same question, for who asks it behind a client's back: nobody is told of interim responses.
    fn again(&self) -> Self {
        Self {
            method: self.method.clone(),
            origin: self.origin.clone(),
            target: self.target.clone(),
            headers: HeaderMap::clone(&self.headers),
            policy: self.policy.clone(),
            body: None,
            standing: self.standing.clone(),
            deadline: self.deadline,
            by_digest: self.by_digest,
            interims: None,
            yields: self.yields,
            stands_in: self.stands_in,
        }
    }
}

impl Upstream {
    /// Says so of a source that is down.
    pub(super) fn known_down(&self, ask: &Ask, source: &Source) -> FetchError {
        let until = self.inner.sources.down_until(source);
        let now = Instant::now();
        // Never at once: who asks again then would do nothing else.
        let until = until.filter(|until| *until > now.into_std());
        let until = until.unwrap_or_else(|| (now + self.inner.settings.look_every()).into_std());
        FetchError::KnownDown { host: ask.asked(source), until }
    }

    /// Asks `source` as the only one, with the answer's head there before `limit`. When it is not there within `patience`, the
    /// source counts as down for this client, and as what the answer says for those after it.
    pub(super) async fn probe(
        &self,
        ask: &mut Ask,
        source: &Source,
        limit: Instant,
        ticket: Ticket,
        patience: Duration,
    ) -> Result<FetchResponse, FetchError> {
        let (upstream, mut question, asked) = (self.clone(), ask.again(), source.clone());
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            let answer = upstream.conclude(&mut question, &asked, limit, ticket).await;
            // An answer that nobody waits for any more counts, and is dropped with its connection.
            // Whether a redirect leads anywhere is not known.
            if let Err((answer, _)) = tell.send((answer, question.yields))
                && !answer.as_ref().is_ok_and(|response| response.status.is_redirection())
            {
                upstream.count(&answer);
                upstream.inner.refusals.lock().note(&asked, (&question.origin, &question.target), &answer);
            }
        });
        match timeout(patience, told).await {
            Ok(Ok((answer, yields))) => {
                ask.yields = yields;
                answer
            }
            // A panic ends like silence.
            Ok(Err(_)) | Err(_) => Err(self.known_down(ask, source)),
        }
    }
}
