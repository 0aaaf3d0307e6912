//! Which sources are asked for a request, and in which order. Pure: nothing is resolved or connected here.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use crate::content::{Origin, Policy};

use super::Settings;

/// One place that may be asked: what its connections and its health are remembered by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// Whom the request is for.
    pub origin: Origin,
    /// `host:port` to connect to instead of resolving the origin's name.
    pub address: Option<Arc<str>>,
    /// Whether it may have a private address. Part of the identity, so that no rule uses a connection that
    /// its own address guard would have refused.
    pub allow_private: bool,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Some(address) => write!(f, "{} at {address}", self.origin),
            None => write!(f, "{}", self.origin),
        }
    }
}

/// The sources for `origin` in the order in which they are asked; empty when the settings allow none.
pub fn plan(settings: &Settings, origin: &Origin, policy: &Policy) -> Vec<Source> {
    if !settings.direct {
        return Vec::new();
    }
    vec![Source { origin: origin.clone(), address: policy.address.clone(), allow_private: policy.allow_private }]
}

/// The latest moment for the next of `left` sources: an equal share of what remains until `deadline`.
pub(super) fn share(now: Instant, deadline: Instant, left: usize) -> Instant {
    let parts = u32::try_from(left).unwrap_or(u32::MAX).max(1);
    now + deadline.saturating_duration_since(now) / parts
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::content::Scheme;

    #[test]
    fn the_origin_is_asked_only_when_it_may_be() {
        let origin = Origin { scheme: Scheme::Https, host: "dl.example.com".into(), port: 443 };
        let mut policy = Policy::for_host("dl.example.com");
        policy.address = Some("192.0.2.1:8443".into());
        let mut settings = Settings::default();
        let sources = plan(&settings, &origin, &policy);
        assert_eq!(sources.len(), 1);
        assert_eq!(sources[0].to_string(), "https://dl.example.com at 192.0.2.1:8443");
        assert!(!sources[0].allow_private);
        settings.direct = false;
        assert!(plan(&settings, &origin, &policy).is_empty());
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
}
