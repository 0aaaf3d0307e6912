//! [`RuleRedirects`]: an origin may send us where a request may send us, and nowhere else.

use std::sync::Arc;

use crate::content::{Origin, Policy};
use crate::fill::Redirects;
use crate::resolve::{self, check_target, take_parameter};

/// Judges redirects by the origin rules.
#[derive(Debug)]
pub struct RuleRedirects {
    settings: Arc<resolve::Settings>,
}

impl RuleRedirects {
    /// By these rules.
    pub fn new(settings: Arc<resolve::Settings>) -> Self {
        Self { settings }
    }
}

impl Redirects for RuleRedirects {
    fn allow(&self, origin: &Origin, target: &str) -> Option<Arc<Policy>> {
        let policy = self.settings.rules.find(&origin.host)?;
        let port_is_allowed = origin.port == origin.scheme.default_port() || Some(origin.port) == policy.port;
        // It would say to parents that another host is meant.
        let names_another = matches!(take_parameter(target), Ok(Some(_)) | Err(_));
        (port_is_allowed && !names_another && check_target(target.as_bytes()).is_ok()).then(|| Arc::clone(policy))
    }
}
