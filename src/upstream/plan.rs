//! Which sources are asked for a request, and in which order. Pure: nothing is resolved or connected here.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use crate::content::{Origin, Policy, Scheme};

use super::Settings;
use super::proxy::{Credentials, Proxy};

/// A cache or proxy nearer to the origins, which is asked in their place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// How it is spoken to.
    pub origin: Origin,
    /// In which form.
    pub kind: ParentKind,
    /// What it is shown of who we are, if it is a forward proxy.
    pub credentials: Option<Credentials>,
    /// The name that its certificate must have, when that is not the host's.
    pub tls_name: Option<Arc<str>>,
    /// The proxy through which it is asked.
    pub proxy: Option<Arc<Proxy>>,
    /// Whether its word for what content has is as good as ours. Only of one that TLS authenticates.
    pub trusted: bool,
    /// Most bytes per second that come from it.
    pub rate: Option<u64>,
}

/// In which form a parent is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParentKind {
    /// `GET /path?cacheHostOrigin=host`: a cache like this one, Microsoft Connected Cache, or what speaks like it.
    ConnectedCache,
    /// `GET http://host/path`: a caching forward proxy.
    ForwardProxy,
}

impl ParentKind {
    /// The word for it in settings and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectedCache => "connected-cache",
            Self::ForwardProxy => "forward-proxy",
        }
    }
}

/// One place that may be asked: what its connections and its health are remembered by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// Who is spoken to: the origin itself, or a parent.
    pub peer: Origin,
    /// What it is, if it is a parent.
    pub parent: Option<ParentKind>,
    /// `host:port` to connect to instead of resolving the origin's name.
    pub address: Option<Arc<str>>,
    /// Whether it may have a private address. Part of the identity, so that no rule uses a connection that
    /// its own address guard would have refused.
    pub allow_private: bool,
    /// What a parent that is a forward proxy is shown of who we are.
    pub credentials: Option<Credentials>,
    /// The name that a parent's certificate must have, when that is not the host's.
    pub tls_name: Option<Arc<str>>,
    /// The proxy in between.
    pub proxy: Option<Arc<Proxy>>,
    /// Whether it is a parent whose word for what content has counts.
    pub trusted: bool,
}

impl Source {
    /// An origin that is asked itself, without a proxy.
    pub fn origin(origin: Origin, address: Option<Arc<str>>, allow_private: bool) -> Self {
        Self {
            peer: origin,
            parent: None,
            address,
            allow_private,
            credentials: None,
            tls_name: None,
            proxy: None,
            trusted: false,
        }
    }

    /// Whether its proxy is asked to tunnel (RFC 9110 section 9.3.6) and sees nothing of what is said: where that is TLS,
    /// and to a parent that is a forward proxy itself.
    pub(super) fn is_tunnelled(&self) -> bool {
        let is_proxy = self.parent == Some(ParentKind::ForwardProxy);
        self.proxy.is_some() && (is_proxy || self.peer.scheme == Scheme::Https)
    }

    /// Whether an answer of 4xx may be that of somebody in between.
    pub(super) fn has_middleman(&self) -> bool {
        self.parent.is_some() || self.proxy.is_some() && !self.is_tunnelled()
    }

    /// Whether a proxy is asked by which a user and a password may be wanted.
    pub(super) fn may_ask_for_password(&self) -> bool {
        self.proxy.is_some() || self.parent == Some(ParentKind::ForwardProxy)
    }

    /// A parent. Who configured it may have it on any network.
    pub(super) fn parent(parent: &Parent) -> Self {
        Self {
            peer: parent.origin.clone(),
            parent: Some(parent.kind),
            address: None,
            allow_private: true,
            credentials: parent.credentials.clone(),
            tls_name: parent.tls_name.clone(),
            proxy: parent.proxy.clone(),
            // Whatever the settings say.
            trusted: parent.trusted && parent.origin.scheme == Scheme::Https,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.parent.is_some() {
            f.write_str("parent ")?;
        }
        write!(f, "{}", self.peer)?;
        if let Some(address) = &self.address {
            write!(f, " at {address}")?;
        }
        if let Some(proxy) = &self.proxy {
            write!(f, " through {proxy}")?;
        }
        Ok(())
    }
}

/// The sources for `origin` in the order in which they are asked; empty when the settings allow none. Those to `avoid` have
/// failed just now and come last, in their order.
pub fn plan(settings: &Settings, origin: &Origin, policy: &Policy, avoid: &[Source]) -> Vec<Source> {
    let parents = if policy.parents { settings.parents.as_slice() } else { &[] };
    let mut sources: Vec<Source> = parents.iter().map(Source::parent).collect();
    if settings.direct || !policy.parents {
        let proxy = if policy.address.is_some() { None } else { settings.proxies.of(origin) };
        let direct = Source::origin(origin.clone(), policy.address.clone(), policy.allow_private);
        sources.push(Source { proxy, ..direct });
    }
    sources.sort_by_key(|source| avoid.iter().position(|avoided| avoided == source));
    sources
}

/// The part of the time that is left for all those that have failed just now.
const LAST_PART: u32 = 7;

/// The latest moment for the next of `left` sources: an equal share of what remains until `deadline`.
pub(super) fn share(now: Instant, deadline: Instant, left: usize) -> Instant {
    let parts = u32::try_from(left).unwrap_or(u32::MAX).max(1);
    now + deadline.saturating_duration_since(now) / parts
}

/// The latest moment for the next source when `failed` and `fresh` ones are left after it: an equal share among those of its
/// kind, but of sources that have failed just now not much is to be hoped for. `has_failed` says whether it is one.
pub(super) fn turn(now: Instant, end: Instant, has_failed: bool, (failed, fresh): (usize, usize)) -> Instant {
    match (has_failed, failed) {
        (true, failed) => share(now, end, failed + fresh + 1),
        (false, 0) => share(now, end, fresh + 1),
        (false, _) => share(now, end - end.saturating_duration_since(now) / LAST_PART, fresh + 1),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn origin(host: &str) -> Origin {
        Origin { scheme: Scheme::Https, host: host.into(), port: 443 }
    }

    fn parent(host: &str) -> Parent {
        Parent {
            origin: origin(host),
            kind: ParentKind::ConnectedCache,
            credentials: None,
            tls_name: None,
            proxy: None,
            trusted: false,
            rate: None,
        }
    }

    fn texts(sources: &[Source]) -> Vec<String> {
        sources.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_origin_is_asked_only_when_it_may_be() {
        let origin = origin("dl.example.com");
        let mut policy = Policy::for_host("dl.example.com");
        policy.address = Some("192.0.2.1:8443".into());
        let mut settings = Settings::default();
        let sources = plan(&settings, &origin, &policy, &[]);
        assert_eq!(texts(&sources), ["https://dl.example.com at 192.0.2.1:8443"]);
        assert!(!sources[0].allow_private);
        settings.direct = false;
        assert!(plan(&settings, &origin, &policy, &[]).is_empty());
    }

    #[test]
    fn parents_come_first_in_their_order_and_what_failed_comes_last() {
        let mut settings = Settings { parents: vec![parent("l4.lan"), parent("l4b.lan")], ..Settings::default() };
        settings.proxies.https = Some(Arc::new(Proxy { host: "p".into(), port: 3128, credentials: None }));
        let (origin, mut policy) = (origin("dl.example.com"), Policy::for_host("dl.example.com"));
        let sources = plan(&settings, &origin, &policy, &[]);
        let direct = "https://dl.example.com through p:3128";
        assert_eq!(texts(&sources), ["parent https://l4.lan", "parent https://l4b.lan", direct]);
        let again = plan(&settings, &origin, &policy, &sources[..1]);
        assert_eq!(texts(&again), ["parent https://l4b.lan", direct, "parent https://l4.lan"]);
        settings.direct = false;
        assert_eq!(plan(&settings, &origin, &policy, &[]).len(), 2);
        policy.parents = false;
        assert_eq!(texts(&plan(&settings, &origin, &policy, &[])), [direct]);
    }

    #[test]
    fn sources_share_the_remaining_time() {
        let now = Instant::now();
        let deadline = now + Duration::from_secs(12);
        assert_eq!(share(now, deadline, 1), deadline);
        assert_eq!(share(now, deadline, 3), now + Duration::from_secs(4));
        assert_eq!(share(now, deadline, 0), deadline);
        assert_eq!(share(deadline, now, 2), deadline);
    }

    #[test]
    fn those_that_failed_just_now_have_the_end_of_the_time() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let end = now + 14 * second;
        let seconds = |has_failed, left| (turn(now, end, has_failed, left) - now).as_secs();
        assert_eq!([seconds(false, (0, 0)), seconds(false, (0, 1))], [14, 7]);
        assert_eq!([seconds(false, (1, 0)), seconds(false, (2, 0)), seconds(false, (1, 1))], [12, 12, 6]);
        assert_eq!([seconds(true, (1, 0)), seconds(true, (0, 0))], [7, 14]);
        assert_eq!(turn(end, now, false, (1, 0)), end, "nothing is left");
    }
}
