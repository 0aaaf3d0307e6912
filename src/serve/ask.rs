//! [`Ask`]: one request as the handler sees it, with the facts that every step needs.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{FORWARDED, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use tokio::time::Instant;

use super::proof::Proofs;
use super::ready::Wish;
use super::version::Client;
use super::wire::{ConnectionInfo, Interim};
use crate::content::{AuthParameters, Digest, Scheme, UnixMillis};
use crate::decide::Resume;
use crate::fill::{Interims, TokenId, Want, time_left};
use crate::resolve::ContentRequest;
use crate::store::Entry;

/// How Delivery Optimization agents name themselves: `Microsoft-Delivery-Optimization-Lite/10.0.0.1` and others.
const AGENT: &[u8] = b"Microsoft-Delivery-Optimization";

/// The agents that always ask up to the end of a file; those of Windows ask for pieces.
const LIGHT_AGENT: &[u8] = b"Microsoft-Delivery-Optimization-Lite";

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What is kept of the time that a cache below has left, so that our answer reaches it before it gives up.
const WAY_BACK: Duration = Duration::from_millis(500);
/// The least that a request is given.
const SHORTEST: Duration = Duration::from_millis(100);

/// One request with its facts.
pub(super) struct Ask {
    pub(super) content: ContentRequest,
    pub(super) method: Method,
    pub(super) headers: Arc<HeaderMap>,
    /// Wall clock when the request came.
    pub(super) now: UnixMillis,
    /// When the first body byte must be there.
    pub(super) deadline: Instant,
    /// Set when the rule knows auth parameters.
    pub(super) token: Option<TokenId>,
    /// Whether upstream accepted the token lately.
    pub(super) proven: bool,
    /// Who asks, where it counts which version of the content it was given before.
    pub(super) client: Option<Client>,
    /// Set when the answer should be kept for requests in the same words.
    pub(super) wish: Option<Wish>,
    /// Where interim responses of upstream go.
    pub(super) interim: Option<Interim>,
}

impl Ask {
    pub(super) fn new(
        content: ContentRequest,
        method: Method,
        headers: HeaderMap,
        now: UnixMillis,
        deadline: Instant,
        proofs: &Proofs,
    ) -> Self {
        let token = (content.policy.auth_parameters != AuthParameters::None)
            .then(|| proofs.id(&content.key, content.token.as_ref()));
        let proven = token.is_some_and(|token| proofs.accepts(&token));
        Self {
            content,
            method,
            headers: Arc::new(headers),
            now,
            deadline,
            token,
            proven,
            client: None,
            wish: None,
            interim: None,
        }
    }

    /// The same of a client whose versions are remembered. More than `limit` ranges are not honoured.
    pub(super) fn of(mut self, address: IpAddr, limit: usize) -> Self {
        let resume = Resume::of(&self.headers, limit, self.is_named(LIGHT_AGENT));
        self.client = Some(Client { address, resume });
        self
    }

    /// Whether the client is a Delivery Optimization agent, which bans a cache for what others shrug off.
    pub(super) fn is_agent(&self) -> bool {
        self.is_named(AGENT)
    }

    fn is_named(&self, agent: &[u8]) -> bool {
        self.headers.get(USER_AGENT).is_some_and(|value| value.as_bytes().starts_with(agent))
    }

    pub(super) fn path(&self) -> &str {
        self.content.path()
    }

    /// The digest that the content must have by the operator's word.
    pub(super) fn rule_digest(&self) -> Option<Digest> {
        self.content.policy.digest_of(self.path())
    }

    /// Interim responses are passed on to the one client whose request brings them. Agents read none elsewhere, and here
    /// neither.
    fn interims(&self) -> Option<Interims> {
        let interim = self.interim.clone().filter(|_| !self.is_agent())?;
        Some(Interims::new(move |status, fields| interim.send(status, fields)))
    }

    /// What a fill must know; `stored` is what is there already.
    pub(super) fn want(&self, stored: Option<Arc<Entry>>, conditions: Option<HeaderMap>) -> Want {
        Want {
            key: self.content.key.clone(),
            origin: self.content.origin.clone(),
            target: self.content.target.clone(),
            path: self.path().to_owned(),
            policy: Arc::clone(&self.content.policy),
            headers: Arc::clone(&self.headers),
            token: self.token,
            proven: self.proven,
            carries_token: self.content.token.is_some(),
            stored,
            conditions,
            stands_in: false,
            interims: self.interims(),
            deadline: self.deadline,
        }
    }
}

/// The client's address: the peer's, or what a trusted proxy says of it. The last address that a trusted proxy did
/// not add itself counts; anything malformed ends the search. Whom a proxy names in front of the connection is the peer
/// here: it is believed only if it is a trusted proxy, too.
pub(super) fn client_address(info: &ConnectionInfo, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = info.peer.ip().to_canonical();
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    if !info.peer_speaks || !is_trusted(peer) || headers.contains_key(FORWARDED) {
        return peer;
    }
    let mut client = peer;
    let lines: Vec<_> = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    for text in lines.iter().flat_map(|line| line.split(',')).rev() {
        let Ok(address) = text.trim().parse::<IpAddr>() else { break };
        client = address.to_canonical();
        if !is_trusted(client) {
            break;
        }
    }
    client
}

/// The scheme of the URL that is asked for: a cache below may ask us over another one than it was asked by, and says so.
/// Nobody can win anything by it: both are there for everybody.
pub(super) fn asked_scheme(listener: Scheme, headers: &HeaderMap) -> Scheme {
    let said = headers.get(FORWARDED_PROTO).map(HeaderValue::as_bytes);
    let is = |scheme: Scheme| said.is_some_and(|said| said.eq_ignore_ascii_case(scheme.as_str().as_bytes()));
    [Scheme::Http, Scheme::Https].into_iter().find(|scheme| is(*scheme)).unwrap_or(listener)
}

/// How long a request may take to its first body byte: `own`, or what a cache below has left, less what the way back takes.
pub(super) fn allowed_time(own: Duration, headers: &HeaderMap) -> Duration {
    let left = time_left(headers).map(|left| left.saturating_sub(WAY_BACK).max(SHORTEST));
    left.map_or(own, |left| left.min(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_below_says_how_long_it_waits_and_what_it_was_asked() {
        let headers = |name: &'static str, text: &str| {
            HeaderMap::from_iter([(HeaderName::from_static(name), text.parse().unwrap())])
        };
        let own = Duration::from_secs(14);
        for (text, millis) in
            [("10000", 9500), ("60000", 14_000), ("550", 100), ("0", 100), ("-1", 14_000), ("x", 14_000)]
        {
            let allowed = allowed_time(own, &headers("waystation-time-left", text));
            assert_eq!(allowed, Duration::from_millis(millis), "{text}");
        }
        assert_eq!(allowed_time(own, &HeaderMap::new()), own);
        assert_eq!(asked_scheme(Scheme::Http, &headers("x-forwarded-proto", "HTTPS")), Scheme::Https);
        assert_eq!(asked_scheme(Scheme::Https, &headers("x-forwarded-proto", "http")), Scheme::Http);
        assert_eq!(asked_scheme(Scheme::Http, &headers("x-forwarded-proto", "gopher")), Scheme::Http);
        assert_eq!(asked_scheme(Scheme::Https, &HeaderMap::new()), Scheme::Https);
    }

    #[test]
    fn only_trusted_proxies_name_the_client() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let headers = |text: &str| HeaderMap::from_iter([(X_FORWARDED_FOR, text.parse().unwrap())]);
        for (peer, forwarded, client) in [
            ("192.168.1.5", "1.2.3.4", "192.168.1.5"),
            ("10.0.0.1", "192.168.1.7", "192.168.1.7"),
            ("::ffff:10.0.0.1", "192.168.1.7", "192.168.1.7"),
            ("10.0.0.1", "6.6.6.6, 192.168.1.7, 10.0.0.2", "192.168.1.7"),
            ("10.0.0.1", "6.6.6.6, nonsense", "10.0.0.1"),
            ("10.0.0.1", "", "10.0.0.1"),
        ] {
            let info = |peer_speaks| ConnectionInfo {
                peer: (address(peer), 1).into(),
                peer_speaks,
                scheme: Scheme::Http,
                head_complete: std::time::Instant::now(),
                interim: None,
            };
            let found = |speaks| client_address(&info(speaks), &headers(forwarded), &trusted);
            assert_eq!(found(true), address(client), "{peer} {forwarded}");
            assert_eq!(found(false), address(peer).to_canonical(), "relayed bytes are nobody's word: {forwarded}");
        }
    }
}
